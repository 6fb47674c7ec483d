//! Where stochastic descent with small, noisy batches ends up, beside the optimum of the loss over all data.
//!
//! 256 pairs are alike in two channels: a coarse one, 8 clean clusters on a circle, and a fine one, a code
//! of each pair that is disturbed in its second half. The only parameter is the weight of the fine
//! channel. A fixed temperature makes the model misspecified, which is when the bias moves the optimum.

use std::{f64::consts::TAU, fmt::Write as _, path::Path};

use rand::{RngExt as _, SeedableRng as _, seq::SliceRandom as _};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use super::{Outcome, claim, spread};
use crate::{
    TrainingError,
    objective::gamma::{GammaConfig, GammaMode, LogZ},
    parameters::normal,
    plot::{Curves, Plot},
};

const ITEMS: usize = 256;
const CLUSTERS: usize = 8;
const CODE: usize = 6;
/// Factor from similarities to logits.
const SCALE: f64 = 12.0;
/// Deviation by element of the fine codes of a pair from each other.
const CODE_NOISE: f32 = 0.6;
/// The learning rate is `rate / (1 + step / RATE_STEPS)^RATE_DECAY`.
const RATE_STEPS: f64 = 5000.0;
const RATE_DECAY: f64 = 0.7;
/// The parameter is kept within this of 0, weights of 0.047 to 0.953: a rare large step can be undone, and
/// unlike a clipped gradient this moves no optimum.
const FARTHEST: f64 = 3.0;
/// Points kept of each run for the plot.
const POINTS: usize = 100;
const SEED: u64 = 1;

/// A way to train.
#[derive(Debug, Clone, Copy)]
struct Method {
    name: &'static str,
    mode: GammaMode,
    /// At 1 the memory forgets everything.
    min_gain: f32,
    /// Whether weights are cut, as in training.
    capped: bool,
}

const METHODS: [Method; 6] = [
    Method::new("InfoNCE", GammaMode::Infonce, 0.0),
    Method::new("rescaled", GammaMode::InfonceRescaled, 0.0),
    Method::new("gamma without memory", GammaMode::GammaMean, 1.0),
    Method::new("gamma mean", GammaMode::GammaMean, 0.0),
    Method::new("gamma sampled", GammaMode::GammaSampled, 0.0),
    Method {
        capped: true,
        ..Method::new("gamma mean, weights cut to 20", GammaMode::GammaMean, 0.0)
    },
];

/// A row of the table.
#[derive(Debug, Clone, Copy)]
struct Setting {
    batch: usize,
    /// Each anchor's sum over negatives is multiplied by `exp(noise * e - noise^2 / 2)`, of mean 1.
    noise: f64,
    steps: usize,
    rate: f64,
}

const fn setting(batch: usize, noise: f64, steps: usize, rate: f64) -> Setting {
    Setting {
        batch,
        noise,
        steps,
        rate,
    }
}

const FULL: &[Setting] = &[
    setting(4, 0.0, 100_000, 0.05),
    setting(4, 1.0, 100_000, 0.05),
    setting(4, 2.0, 100_000, 0.05),
    setting(4, 2.0, 400_000, 0.02),
    setting(16, 0.0, 100_000, 0.05),
];
const REDUCED: &[Setting] = &[setting(4, 0.0, 20_000, 0.05), setting(4, 1.0, 20_000, 0.05)];

/// How far from 1 the runs of the gamma loss may end.
const NEAR: f64 = 0.03;
const NEAR_REDUCED: f64 = 0.06;
/// At least that far from 1 the others must end, at B=4.
const FAR: f64 = 0.15;
/// Up to this noise the bounds are claimed.
const CLAIMED_NOISE: f64 = 1.0;

pub fn run(reduced: bool, plot: &Path) -> Result<Outcome, TrainingError> {
    let world = World::new();
    let optimum = world.optimum();
    let (settings, runs, near) = if reduced {
        (REDUCED, 3, NEAR_REDUCED)
    } else {
        (FULL, 10, NEAR)
    };
    let mut jobs = Vec::new();
    for setting in settings {
        for method in METHODS {
            jobs.extend((0..runs).map(|seed| (*setting, method, seed as u64)));
        }
    }
    let traces: Vec<Trace> = jobs
        .par_iter()
        .map(|(setting, method, seed)| world.descend(setting, method, *seed))
        .collect::<Result<_, _>>()?;

    let mut table = format!(
        "Optimum w* = {optimum:.3}; w / w* of {runs} runs, mean and deviation (share of capped rows).\n\n| |"
    );
    for method in METHODS {
        let _ = write!(table, " {} |", method.name);
    }
    table.push_str("\n|---|---|---|---|---|---|---|\n");
    let mut claims = Vec::new();
    for (setting, traces) in settings.iter().zip(traces.chunks(METHODS.len() * runs)) {
        let Setting {
            batch,
            noise,
            steps,
            rate,
        } = setting;
        let _ = write!(
            table,
            "| B={batch}, noise {noise}, {steps} steps, rate {rate} |"
        );
        for (method, traces) in METHODS.iter().zip(traces.chunks(runs)) {
            let ratios: Vec<f64> = traces.iter().map(|t| t.end / optimum).collect();
            let (mean, deviation) = spread(&ratios);
            let capped = traces.iter().map(|t| t.capped).sum::<f64>() / runs as f64;
            let _ = write!(table, " {mean:.3} +- {deviation:.3} ({capped:.4}) |");
            if *noise > CLAIMED_NOISE {
                continue;
            }
            let head = format!("B={batch}, noise {noise}, {}: every run", method.name);
            let (holds, text) = match method.name {
                "gamma mean" | "gamma sampled" => (
                    ratios.iter().all(|r| (r - 1.0).abs() <= near),
                    format!("{head} ends within {near} of the optimum"),
                ),
                _ if *batch > 4 || method.capped => continue,
                "InfoNCE" => (
                    ratios.iter().all(|r| *r <= 1.0 - FAR),
                    format!("{head} ends at least {FAR} below the optimum"),
                ),
                _ => (
                    ratios.iter().all(|r| *r >= 1.0 + FAR),
                    format!("{head} ends at least {FAR} above the optimum"),
                ),
            };
            claims.push(claim(holds, text));
        }
        table.push('\n');
    }
    if let Some(at) = settings
        .iter()
        .position(|setting| setting.noise == CLAIMED_NOISE)
    {
        let per_setting = METHODS.len() * runs;
        let shown = &traces[at * per_setting..(at + 1) * per_setting];
        let steps = settings[at].steps as f64;
        let curves = METHODS
            .iter()
            .zip(shown.chunks(runs))
            // Without its memory the gamma loss lies on the rescaled one.
            .filter(|(method, _)| method.min_gain < 1.0 && !method.capped)
            .map(|(method, traces)| Curves {
                name: method.name.to_owned(),
                runs: traces
                    .iter()
                    .map(|trace| {
                        let each = steps / trace.points.len() as f64;
                        let points = trace.points.iter().enumerate();
                        let points = points.map(|(i, w)| ((i as f64 + 0.5) * each, w / optimum));
                        points.collect()
                    })
                    .collect(),
            })
            .collect();
        let drawn = Plot {
            x: "steps",
            y: "weight / optimum",
            x_range: 0.0..steps,
            y_range: 0.4..2.0,
            rule: Some(1.0),
            curves,
        };
        drawn.write(plot)?;
    }
    Ok(Outcome { table, claims })
}

impl Method {
    const fn new(name: &'static str, mode: GammaMode, min_gain: f32) -> Self {
        Self {
            name,
            mode,
            min_gain,
            capped: false,
        }
    }
}

/// One run.
struct Trace {
    /// The parameter, averaged over the second half.
    end: f64,
    /// The parameter, averaged over each of [`POINTS`] parts.
    points: Vec<f64>,
    /// Share of rows whose weights were capped.
    capped: f64,
}

/// Similarities by anchor and candidate `[ITEMS * ITEMS]`.
struct World {
    coarse: Vec<f64>,
    fine: Vec<f64>,
}

impl World {
    fn new() -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(SEED);
        let mut code = |from: &[f64], by: f32| -> Vec<f64> {
            let raw: Vec<f64> = (0..CODE)
                .map(|i| from.get(i).unwrap_or(&0.0) + f64::from(by * normal(&mut random)))
                .collect();
            let length = raw.iter().map(|x| x * x).sum::<f64>().sqrt();
            raw.iter().map(|x| x / length).collect()
        };
        let anchors: Vec<Vec<f64>> = (0..ITEMS).map(|_| code(&[], 1.0)).collect();
        let pairs: Vec<Vec<f64>> = anchors.iter().map(|a| code(a, CODE_NOISE)).collect();
        let (mut coarse, mut fine) = (Vec::new(), Vec::new());
        for (i, anchor) in anchors.iter().enumerate() {
            for (j, pair) in pairs.iter().enumerate() {
                let turn = (i % CLUSTERS) as f64 - (j % CLUSTERS) as f64;
                coarse.push((TAU * turn / CLUSTERS as f64).cos());
                fine.push(anchor.iter().zip(pair).map(|(a, b)| a * b).sum());
            }
        }
        Self { coarse, fine }
    }

    /// Logit and its slope by the weight `w` of the fine channel.
    fn logit(&self, w: f64, i: usize, j: usize) -> (f64, f64) {
        let (coarse, fine) = (self.coarse[i * ITEMS + j], self.fine[i * ITEMS + j]);
        let slope = SCALE * (fine - coarse);
        (SCALE * coarse + w * slope, slope)
    }

    /// The weight of least loss over all data, to three places.
    fn optimum(&self) -> f64 {
        let loss = |w: f64| -> f64 {
            let anchor = |i: usize| {
                let z: f64 = (0..ITEMS).map(|j| self.logit(w, i, j).0.exp()).sum();
                z.ln() - self.logit(w, i, i).0
            };
            (0..ITEMS).map(anchor).sum()
        };
        let grid = (1..1000).map(|w| f64::from(w) / 1000.0);
        let losses = grid.map(|w| (loss(w), w));
        losses
            .min_by(|a, b| a.0.total_cmp(&b.0))
            .map_or(0.0, |(_, w)| w)
    }

    fn descend(
        &self,
        setting: &Setting,
        method: &Method,
        seed: u64,
    ) -> Result<Trace, candle_core::Error> {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let config = GammaConfig {
            mode: method.mode,
            gain_decay: 0.8,
            min_gain: method.min_gain,
        };
        let negatives = if matches!(method.mode, GammaMode::Infonce) {
            setting.batch - 1
        } else {
            ITEMS - 1
        };
        let each = negatives as f64 / (setting.batch - 1) as f64;
        let mut memory = LogZ::new(ITEMS);
        let mut order: Vec<usize> = (0..ITEMS).collect();
        let (mut end, mut capped) = (0.0, 0);
        let mut points = vec![0.0; POINTS];
        // Any weight from 0.12 to 0.88 may be where it begins.
        let mut t: f64 = random.random_range(-2.0..2.0);
        for step in 0..setting.steps {
            let (items, _) = order.partial_shuffle(&mut random, setting.batch);
            let w = 1.0 / (1.0 + (-t).exp());
            let mut estimates = Vec::with_capacity(setting.batch);
            let mut slopes = Vec::with_capacity(setting.batch);
            for i in &*items {
                let error = f64::from(normal(&mut random));
                let factor = each * (setting.noise * error - setting.noise.powi(2) / 2.0).exp();
                let (mut z, mut slope) = (0.0, 0.0);
                for j in &*items {
                    let (logit, by_w) = self.logit(w, *i, *j);
                    let weight = logit.exp() * if i == j { 1.0 } else { factor };
                    z += weight;
                    slope += weight * by_w;
                }
                estimates.push(z.ln() as f32);
                slopes.push((slope, self.logit(w, *i, *i).1));
            }
            let mut weights = config.weights(&mut memory, items, &estimates, &mut random)?;
            let above = weights.clone().cap(&estimates);
            if method.capped {
                weights.cap(&estimates);
            }
            let by_anchor = weights.log_u.iter().zip(&slopes);
            let by_w: f64 = by_anchor
                .map(|(log_u, (z, pair))| f64::from(*log_u).exp() * z - pair)
                .sum();
            let rate = setting.rate / (1.0 + step as f64 / RATE_STEPS).powf(RATE_DECAY);
            t -= rate * by_w / setting.batch as f64 * w * (1.0 - w);
            t = t.clamp(-FARTHEST, FARTHEST);
            capped += above;
            points[step * POINTS / setting.steps] += w * POINTS as f64 / setting.steps as f64;
            if step >= setting.steps / 2 {
                end += w / (setting.steps - setting.steps / 2) as f64;
            }
        }
        Ok(Trace {
            end,
            points,
            capped: capped as f64 / (setting.steps * setting.batch) as f64,
        })
    }
}
