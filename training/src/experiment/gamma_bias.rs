//! The mean gradient of small batches beside that of all data, at weights that stand still.
//!
//! 512 points in 16 clusters, each with a disturbed copy of itself as its pair, and a linear encoder to 8
//! elements. The memory of the gamma modes holds the exact `Z`: what is tested is the loss, not what its
//! memory learns.

use std::fmt::Write as _;

use candle_core::{DType, Device, Result, Tensor, Var};
use rand::{SeedableRng as _, seq::SliceRandom as _};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use super::{Outcome, claim};
use crate::{
    objective::{
        gamma::{Anchors, GammaConfig, GammaMode, LogZ},
        logits,
    },
    parameters::normal,
};

const ITEMS: usize = 512;
const CLUSTERS: usize = 16;
const INPUTS: usize = 32;
const OUTPUTS: usize = 8;
const TEMPERATURE: f64 = 0.1;
/// Deviation of points from the middle of their cluster, and of pairs from each other.
const NOISE: [f32; 2] = [0.7, 0.5];
/// Number of means whose spread tells the error of their mean.
const GROUPS: usize = 20;
const SEED: u64 = 1;

const MODES: [(GammaMode, &str); 4] = [
    (GammaMode::Infonce, "InfoNCE"),
    (GammaMode::InfonceRescaled, "InfoNCE rescaled"),
    (GammaMode::GammaMean, "gamma mean"),
    (GammaMode::GammaSampled, "gamma sampled"),
];

/// Batch sizes, and how often each item is visited in each group.
const FULL: &[(usize, usize)] = &[(4, 60), (16, 50), (64, 60), (128, 100)];
const REDUCED: &[(usize, usize)] = &[(16, 8)];

/// Distance of a mean gradient from the gradient of all data, relative to the length of the latter.
#[derive(Debug, Clone, Copy)]
struct Distance {
    measured: f64,
    /// What chance alone makes of it, as the root of the mean square.
    error: f64,
}

impl Distance {
    /// The distance without what chance adds to it on average.
    fn bias(self) -> f64 {
        (self.measured.powi(2) - self.error.powi(2)).max(0.0).sqrt()
    }
}

pub fn run(reduced: bool) -> Result<Outcome> {
    let world = World::new()?;
    let exact = world.exact()?;
    let sizes = if reduced { REDUCED } else { FULL };
    let jobs: Vec<_> = sizes
        .iter()
        .flat_map(|size| MODES.map(|(mode, _)| (mode, *size)))
        .collect();
    let distances: Vec<Distance> = jobs
        .par_iter()
        .map(|(mode, (batch, visits))| world.distance(*mode, *batch, *visits, &exact))
        .collect::<Result<_>>()?;

    let mut table = String::from("| B |");
    for (_, name) in MODES {
        let _ = write!(table, " {name} |");
    }
    table.push_str("\n|---|---|---|---|---|\n");
    let mut claims = Vec::new();
    for ((batch, _), row) in sizes.iter().zip(distances.chunks(MODES.len())) {
        let _ = write!(table, "| {batch} |");
        for d in row {
            let _ = write!(table, " {:.3} (chance {:.3}) |", d.measured, d.error);
        }
        table.push('\n');
        for ((mode, name), d) in MODES.iter().zip(row) {
            let biased = matches!(mode, GammaMode::Infonce | GammaMode::InfonceRescaled);
            claims.push(if biased {
                let text = format!("B={batch}: {name} is biased by more than 3 times its error");
                claim(d.bias() > 3.0 * d.error, text)
            } else {
                let text = format!(
                    "B={batch}: {name} is within 2 times its error of no bias, and that error is under half of the bias of rescaled InfoNCE"
                );
                let sharp = d.error < row[1].bias() / 2.0;
                claim(d.measured < 2.0 * d.error && sharp, text)
            });
        }
    }
    Ok(Outcome { table, claims })
}

struct World {
    points: Tensor,
    pairs: Tensor,
    encoder: Var,
    /// Logits by anchor and candidate.
    logits: Vec<Vec<f32>>,
    /// Exact `ln Z` of every anchor.
    log_z: Tensor,
}

impl World {
    fn new() -> Result<Self> {
        let mut random = ChaCha8Rng::seed_from_u64(SEED);
        let mut draw = |n: usize| -> Vec<f32> { (0..n).map(|_| normal(&mut random)).collect() };
        let centers = draw(CLUSTERS * INPUTS);
        let moved = |from: &[f32], by: f32, noise: Vec<f32>| -> Vec<f32> {
            from.iter()
                .cycle()
                .zip(noise)
                .map(|(x, e)| x + by * e)
                .collect()
        };
        let points = moved(&centers, NOISE[0], draw(ITEMS * INPUTS));
        let pairs = moved(&points, NOISE[1], draw(ITEMS * INPUTS));
        let device = &Device::Cpu;
        let mut world = Self {
            points: Tensor::from_vec(points, (ITEMS, INPUTS), device)?,
            pairs: Tensor::from_vec(pairs, (ITEMS, INPUTS), device)?,
            encoder: Var::from_vec(draw(INPUTS * OUTPUTS), (INPUTS, OUTPUTS), device)?,
            logits: Vec::new(),
            log_z: Tensor::zeros(ITEMS, DType::F32, device)?,
        };
        let logits = world.encode()?.detach();
        world.log_z = logits.log_sum_exp(1)?;
        world.logits = logits.to_vec2()?;
        Ok(world)
    }

    fn encode(&self) -> Result<Tensor> {
        let scale = Tensor::new(-TEMPERATURE.ln() as f32, &Device::Cpu)?;
        let encoded = |rows: &Tensor| rows.matmul(&self.encoder);
        logits(&encoded(&self.points)?, &encoded(&self.pairs)?, &scale)
    }

    /// The gradient of the encoder from that of all logits: weights stand still, so that means over many
    /// batches can be taken of the latter.
    fn through(&self, by_logit: Vec<f32>) -> Result<Vec<f64>> {
        let by_logit = Tensor::from_vec(by_logit, (ITEMS, ITEMS), &Device::Cpu)?;
        let gradients = (self.encode()? * by_logit)?.sum_all()?.backward()?;
        let Some(gradient) = gradients.get(&self.encoder) else {
            candle_core::bail!("the encoder has no gradient");
        };
        gradient.to_dtype(DType::F64)?.flatten_all()?.to_vec1()
    }

    /// The gradient of all data.
    fn exact(&self) -> Result<Vec<f64>> {
        let all: Vec<usize> = (0..ITEMS).collect();
        let config = config(GammaMode::InfonceRescaled);
        let mut random = ChaCha8Rng::seed_from_u64(SEED);
        let gradient = self.by_logit(config, &all, &mut LogZ::new(ITEMS), &mut random)?;
        self.through(gradient)
    }

    /// Gradient of a batch's loss by the logits between its items.
    fn by_logit(
        &self,
        config: GammaConfig,
        items: &[usize],
        memory: &mut LogZ,
        random: &mut ChaCha8Rng,
    ) -> Result<Vec<f32>> {
        let n = items.len();
        let part = items
            .iter()
            .flat_map(|i| items.iter().map(|j| self.logits[*i][*j]));
        let logits = Var::from_vec(part.collect(), (n, n), &Device::Cpu)?;
        let anchors = Anchors {
            logits: &logits,
            positives: &Tensor::eye(n, DType::F32, &Device::Cpu)?,
            items,
            negatives: (ITEMS - 1) as f64,
        };
        let gradients = config.loss(&anchors, memory, random)?.0.backward()?;
        let Some(gradient) = gradients.get(&logits) else {
            candle_core::bail!("the logits have no gradient");
        };
        gradient.flatten_all()?.to_vec1()
    }

    fn distance(
        &self,
        mode: GammaMode,
        batch: usize,
        visits: usize,
        exact: &[f64],
    ) -> Result<Distance> {
        let mut random = ChaCha8Rng::seed_from_u64(SEED);
        let mut order: Vec<usize> = (0..ITEMS).collect();
        // Seen so often that a visit more changes nothing.
        let often = Tensor::full(u32::MAX, ITEMS, &Device::Cpu)?;
        let oracle = LogZ::from_tensors(&self.log_z, &often)?;
        let mut groups = Vec::with_capacity(GROUPS);
        for _ in 0..GROUPS {
            let mut sum = vec![0.0_f32; ITEMS * ITEMS];
            for _ in 0..visits {
                order.shuffle(&mut random);
                for items in order.chunks(batch) {
                    let mut memory = oracle.clone();
                    let gradient = self.by_logit(config(mode), items, &mut memory, &mut random)?;
                    let places = items.iter().flat_map(|i| items.iter().map(move |j| (i, j)));
                    for ((i, j), gradient) in places.zip(gradient) {
                        sum[i * ITEMS + j] += gradient;
                    }
                }
            }
            let batches = (visits * ITEMS / batch) as f32;
            for sum in &mut sum {
                *sum /= batches;
            }
            groups.push(self.through(sum)?);
        }
        let (mut measured, mut error) = (0.0, 0.0);
        for (i, exact) in exact.iter().enumerate() {
            let values: Vec<f64> = groups.iter().map(|group| group[i]).collect();
            let (mean, deviation) = super::spread(&values);
            measured += (mean - exact).powi(2);
            error += deviation.powi(2) / GROUPS as f64;
        }
        let length = exact.iter().map(|x| x.powi(2)).sum::<f64>().sqrt();
        Ok(Distance {
            measured: measured.sqrt() / length,
            error: error.sqrt() / length,
        })
    }
}

fn config(mode: GammaMode) -> GammaConfig {
    GammaConfig {
        mode,
        gain_decay: 1.0,
        min_gain: 0.0,
    }
}
