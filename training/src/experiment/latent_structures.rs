//! What the structures of [`crate::objective::latent`] keep in embeddings that pairs alone do not.
//!
//! A pair shares six numbers; the image has an attribute of its own and the text another one. Two
//! towers learn from pairs; measured are retrieval across modalities, whether a linear probe can
//! read the image's attribute, and whether neighbors among images share it. Two controls keep the
//! comparison honest: a specific head that is never trained, and one vector of twice the width.

mod data;
mod measure;
mod towers;

use std::fmt::Write as _;

use rayon::prelude::*;

use self::{
    data::pairs,
    measure::{Gap, Measured, gap, measure},
    towers::{Towers, train},
};
use super::{Claim, Outcome, claim, spread};
use crate::{TrainingError, objective::latent::LatentWeights};

/// How large a run is.
#[derive(Debug, Clone, Copy)]
struct Size {
    /// Pairs to learn from.
    training: usize,
    /// Pairs to test on; chance of retrieval is one in as many.
    test: usize,
    /// Steps of the optimizer.
    steps: usize,
    /// Runs that are averaged.
    seeds: u64,
}

const FULL: Size = Size {
    training: 4096,
    test: 512,
    steps: 800,
    seeds: 4,
};
const REDUCED: Size = Size {
    training: 2048,
    test: 256,
    steps: 250,
    seeds: 1,
};

/// Elements of a shared and of a specific embedding.
const DIM: usize = 16;

/// One row of the table.
struct Arm {
    name: &'static str,
    weights: LatentWeights,
    dim: usize,
}

const OFF: LatentWeights = LatentWeights {
    in_modal: 0.0,
    separation: 0.0,
    bridge: 0.0,
    bridge_t: 0.25,
    geometric: 0.0,
    geometric_views: 0.0,
};
const L_CON: LatentWeights = LatentWeights {
    in_modal: 1.0,
    ..OFF
};
const SEP: LatentWeights = LatentWeights {
    separation: 0.1,
    ..L_CON
};
const GC: LatentWeights = LatentWeights {
    geometric: 0.05,
    geometric_views: 0.05,
    ..L_CON
};
const BRIDGE: LatentWeights = LatentWeights {
    bridge: 1.0,
    ..L_CON
};
const SEP_GC: LatentWeights = LatentWeights {
    separation: 0.1,
    ..GC
};

const CROSS: &str = "cross-modal only";
const BASE: &str = "L_Con";
const BOTH: &str = "+Sep .1 +GC .05";
const WIDE: &str = "width control: L_Con, one 32-d vector";

/// Trains and measures every arm; the reduced form has only those that the claims need.
///
/// # Errors
/// When training diverges or a probe cannot be fitted.
pub(super) fn run(reduced: bool) -> Result<Outcome, TrainingError> {
    let size = if reduced { REDUCED } else { FULL };
    let arm = |name, weights, dim| Arm { name, weights, dim };
    let mut arms = vec![
        arm(CROSS, OFF, DIM),
        arm(BASE, L_CON, DIM),
        arm("+Br 1", BRIDGE, DIM),
        arm("+GC .05", GC, DIM),
        arm(BOTH, SEP_GC, DIM),
        arm(WIDE, L_CON, 2 * DIM),
    ];
    if !reduced {
        let separation = 1.0;
        let strong = LatentWeights { separation, ..SEP };
        let bridge = 0.3;
        let with_bridge = LatentWeights { bridge, ..SEP };
        arms.push(arm("+Sep .1", SEP, DIM));
        arms.push(arm("+Sep 1", strong, DIM));
        arms.push(arm("+Sep .1 +Br .3", with_bridge, DIM));
        arms.push(arm("width control: +Sep .1, 32+32", SEP, 2 * DIM));
    }
    let one = |arm: &Arm, seed| -> Result<(Measured, Option<Gap>), TrainingError> {
        let (training, test) = pairs(seed, size.training, size.test)?;
        let towers = Towers::new(seed, arm.dim)?;
        train(&towers, &training, &arm.weights, size.steps, seed)?;
        let gap = (arm.name == CROSS).then(|| gap(&towers, &training, &test));
        Ok((measure(&towers, &training, &test)?, gap.transpose()?))
    };
    let runs = arms.par_iter().map(|arm| {
        let seeds = (0..size.seeds).into_par_iter();
        seeds.map(|seed| one(arm, seed)).collect()
    });
    let runs = runs.collect::<Result<Vec<Vec<_>>, _>>()?;
    let mut table = String::from(
        "| | R@1 | image's attribute from z | z^i | [z; z^i] | text's from z | [z; z^i] \
         | neighbors in z | in z^i | cos^2(z, z^i) |\n|---|---|---|---|---|---|---|---|---|---|\n",
    );
    let mut means = Vec::new();
    let mut gaps = Vec::new();
    for (arm, runs) in arms.iter().zip(runs) {
        let measured: Vec<Measured> = runs.iter().map(|(measured, _)| *measured).collect();
        gaps.extend(runs.iter().filter_map(|(_, gap)| *gap));
        let m = Measured::mean(&measured);
        let (recall, error) = spread(&measured.iter().map(|m| m.recall).collect::<Vec<_>>());
        // A head that no loss reaches is a random projection.
        let random = arm.weights.separation <= 0.0;
        let mark = if random { "*" } else { "" };
        let _ = writeln!(
            table,
            "| {} | {recall:.3} +- {error:.3} | {:.3} | {:.3}{mark} | {:.3}{mark} | {:.3} \
             | {:.3}{mark} | {:.3} | {:.3}{mark} | {:.3}{mark} |",
            arm.name,
            m.probe_shared,
            m.probe_specific,
            m.probe_both,
            m.probe_text_shared,
            m.probe_text_both,
            m.neighbors_shared,
            m.neighbors_specific,
            m.squared_cosine,
        );
        means.push((arm.name, m));
    }
    let gap = Gap::mean(&gaps);
    let _ = writeln!(table, "\n{gap}");
    let of = |name: &str| {
        let found = means.iter().find(|(known, _)| *known == name);
        found.map(|(_, m)| *m).unwrap_or_default()
    };
    // Few steps on few pairs are measured less surely.
    let slack = if reduced { 0.01 } else { 0.0 };
    Ok(Outcome {
        table,
        claims: claims(&of, &gap, slack),
    })
}

fn claims(of: &dyn Fn(&str) -> Measured, gap: &Gap, slack: f64) -> Vec<Claim> {
    let (cross, base, both, wide) = (of(CROSS), of(BASE), of(BOTH), of(WIDE));
    let mut claims = vec![
        claim(
            both.recall >= wide.recall - slack,
            "Sep and GC retrieve at least as well as one vector of their width",
        ),
        claim(
            both.probe_both >= wide.probe_shared - slack,
            "a probe reads from Sep and GC at least as much as from one vector of their width",
        ),
        claim(
            both.neighbors_specific >= 2.0 * both.neighbors_shared,
            "of the neighbors in the specific space twice as many share the attribute",
        ),
        claim(
            gap.excess_aligned() >= gap.information() - 0.02,
            "perfect alignment costs the information gap of Theorem 3.1 (within .02 nats)",
        ),
        claim(
            gap.excess_as_trained() >= 0.8 * gap.information(),
            "alignment as trained costs at least .8 of it",
        ),
        claim(
            cross.probe_shared <= 0.5 && gap.probe_inputs >= 0.95,
            "cross-modal embeddings tell at most half of the attributes, the layer below .95",
        ),
    ];
    for (name, label) in [
        ("+Br 1", "the bridge"),
        ("+GC .05", "geometric consistency"),
    ] {
        let least = 0.02 - slack;
        let text = format!("{label} raises recall by at least {least:.2}");
        claims.push(claim(of(name).recall >= base.recall + least, text));
    }
    claims
}
