//! The contrastive loss made decomposable by gamma augmentation (Chen et al. 2022, "Why do we need large
//! batchsizes in contrastive learning? A gradient-bias perspective").
//!
//! Over all data the loss of anchor `i` is `log Z_i - s_i+` with
//! `Z_i = exp(s_i+) + M * mean of exp(s) over all negatives`. `InfoNCE` puts the negatives of one batch in
//! place of all, and the gradient of the logarithm of a sample mean is biased: the smaller the batch, the
//! more. The identity `1 / Z = integral of exp(-u * Z) over u > 0` brings in one variable per anchor,
//! `u_i ~ Gamma(1, Z_i)`. Given it, the negative log-likelihood
//!
//! ```text
//! -s_i+ + u_i * (exp(s_i+) + M * mean of exp(s_ij) over the negatives j of the batch)
//! ```
//!
//! is a sum over negatives, so that any sample of them gives an unbiased gradient; where `u_i` is its
//! mean `1 / Z_i`, it is the gradient of the loss over all data (expectation maximization).
//!
//! `Z_i` of the batch alone would bring `InfoNCE`'s bias back exactly. It is therefore remembered for every
//! item over the steps, in [`LogZ`]. The paper's own schedule of this memory was not at hand; the form
//! here is that of stochastic approximation, as in `SogCLR` (Yuan et al. 2022, equation 8).

mod log_z;
mod stateless;
#[cfg(test)]
mod tests;

use std::num::NonZeroU32;

use candle_core::{DType, Result, Tensor};
use rand::{Rng, RngExt as _};
use serde::{Deserialize, Serialize};

pub use self::{log_z::LogZ, stateless::stateless};
use super::contrastive::contrast;

/// Largest sum of the weights of a row's candidates. With the exact `Z` it is 1 on average; a memory that
/// lags far behind would let single rows run away.
pub const MAX_WEIGHTS: f32 = 20.0;

/// How the candidates of a row are weighed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GammaMode {
    /// The usual loss, [`super::info_nce`]: biased by small batches.
    Infonce,
    /// The same with the batch's negatives weighing as much as all: still biased.
    InfonceRescaled,
    /// `u` is its mean `1 / Z`.
    GammaMean,
    /// `u` is drawn from its distribution, the exponential one of rate `Z`.
    GammaSampled,
    /// `u` is the mean of that many such draws: of coefficient of variation `1 / sqrt(k)`.
    GammaK(NonZeroU32),
}

/// What the loss is told.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GammaConfig {
    /// How candidates are weighed.
    pub mode: GammaMode,
    /// The share of an item's newest batch in its memory is `visits^-gain_decay`. In `(0.5, 1]` the memory
    /// converges while weights stand still (Robbins, Monro 1951).
    pub gain_decay: f32,
    /// But at least this, in `[0, 1]`: what keeps up with weights that move. At 1 nothing is remembered.
    pub min_gain: f32,
}

/// One direction of a batch.
pub struct Anchors<'a> {
    /// Logits `[n, n]`, already scaled: row `i` is an anchor and column `i` its pair.
    pub logits: &'a Tensor,
    /// `[n, n]`, 1 where the column is true of the row. What is true of a row beside its pair is neither
    /// a negative nor a second pair of it: it has no part in the row's loss, except in
    /// [`GammaMode::Infonce`], where all share the row's mass.
    pub positives: &'a Tensor,
    /// The item behind each row, an index into the memory.
    pub items: &'a [usize],
    /// Number of negatives `M` that those of the batch stand for; all others are the number of items less 1.
    pub negatives: f64,
}

/// What a step saw besides its loss.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct GammaReport {
    /// Mean of `log Z - s+` in nats: the estimate of the loss over all data. The surrogate's value is not.
    pub estimate: f32,
    /// Share of rows whose weights were cut to [`MAX_WEIGHTS`], each of which is biased.
    pub capped: f32,
}

/// Memories of both directions.
#[derive(Debug, Clone, PartialEq)]
pub struct TwoWay {
    /// Of rows as anchors.
    pub by_row: LogZ,
    /// Of columns as anchors.
    pub by_column: LogZ,
}

/// Weights of a batch's anchors.
#[derive(Debug, Clone, PartialEq)]
pub struct Weights {
    /// `ln u` by anchor.
    pub log_u: Vec<f32>,
    /// `ln Z` by anchor as remembered, this batch included.
    pub log_z: Vec<f32>,
}

impl GammaConfig {
    /// The loss, a scalar that is differentiable through the logits, and what to report. The memory takes
    /// in the batch. A row without negatives says nothing of its `Z`: it is 0 and its memory stays.
    ///
    /// The value is in nats for the two `InfoNCE` modes; for the others it is a surrogate, right in its
    /// gradient only. To repeat a run, hand over a generator seeded from the run and the step.
    ///
    /// # Errors
    /// When shapes do not fit each other, or an item is not in the memory.
    pub fn loss(
        &self,
        anchors: &Anchors,
        memory: &mut LogZ,
        random: &mut impl Rng,
    ) -> Result<(Tensor, GammaReport)> {
        let rows = Rows::new(anchors)?;
        let n = anchors.items.len();
        let read = Tensor::stack(&[&rows.log_z, &rows.pair, &rows.counts], 0)?;
        let read = read.detach().to_dtype(DType::F32)?.to_vec2::<f32>()?;
        let [log_z, pair, counts] = read.as_slice() else {
            candle_core::bail!("three rows were stacked, got {}", read.len());
        };
        let counted: Vec<usize> = (0..n).filter(|i| counts[*i] > 0.0).collect();
        let items: Vec<usize> = counted.iter().map(|i| anchors.items[*i]).collect();
        let estimates: Vec<f32> = counted.iter().map(|i| log_z[*i]).collect();
        let mut weights = self.weights(memory, &items, &estimates, random)?;
        let capped = weights.cap(&estimates);
        let total: f32 = counted
            .iter()
            .zip(&weights.log_z)
            .map(|(i, log_z)| log_z - pair[*i])
            .sum();
        let report = GammaReport {
            estimate: total / counted.len().max(1) as f32,
            capped: capped as f32 / n as f32,
        };
        let loss = match self.mode {
            GammaMode::Infonce => contrast(anchors.logits, anchors.positives)?,
            GammaMode::InfonceRescaled => (rows.log_z - rows.pair)?.mean_all()?,
            GammaMode::GammaMean | GammaMode::GammaSampled | GammaMode::GammaK(_) => {
                let mut log_u = vec![0.0; n];
                for (i, value) in counted.iter().zip(&weights.log_u) {
                    log_u[*i] = *value;
                }
                let log_u = Tensor::from_vec(log_u, n, anchors.logits.device())?;
                let weighed = (&rows.log_z + log_u.to_dtype(rows.log_z.dtype())?)?.exp()?;
                ((weighed - rows.pair)? * rows.counts)?.mean_all()?
            }
        };
        Ok((loss, report))
    }

    /// Mean of the losses of both directions, whose columns are of the same items as its rows.
    ///
    /// # Errors
    /// As [`GammaConfig::loss`].
    pub fn both_ways(
        &self,
        pairs: &Anchors,
        memory: &mut TwoWay,
        random: &mut impl Rng,
    ) -> Result<(Tensor, GammaReport)> {
        let (by_row, row) = self.loss(pairs, &mut memory.by_row, random)?;
        let turned = Anchors {
            logits: &pairs.logits.t()?.contiguous()?,
            positives: &pairs.positives.t()?.contiguous()?,
            ..*pairs
        };
        let (by_column, column) = self.loss(&turned, &mut memory.by_column, random)?;
        let report = GammaReport {
            estimate: f32::midpoint(row.estimate, column.estimate),
            capped: f32::midpoint(row.capped, column.capped),
        };
        Ok((((by_row + by_column)? * 0.5)?, report))
    }

    /// Lets `memory` take in each item's `ln Z` as estimated from a batch, and draws the weights. The
    /// `InfoNCE` modes leave the memory alone and know the batch only.
    ///
    /// # Errors
    /// When an item is not in the memory.
    pub fn weights(
        &self,
        memory: &mut LogZ,
        items: &[usize],
        estimates: &[f32],
        random: &mut impl Rng,
    ) -> Result<Weights> {
        let log_z = match self.mode {
            GammaMode::Infonce | GammaMode::InfonceRescaled => estimates.to_vec(),
            _ => memory.update(items, estimates, self)?,
        };
        let log_u = log_z.iter().map(|log_z| self.mode.log_draw(random) - log_z);
        let log_u = log_u.collect();
        Ok(Weights { log_u, log_z })
    }
}

impl Weights {
    /// Cuts what the candidates of a row weigh to [`MAX_WEIGHTS`]. `estimates` are the batch's own `ln Z` by
    /// anchor. Returns how many rows were cut: each of them is biased, toward smaller `Z`.
    pub fn cap(&mut self, estimates: &[f32]) -> usize {
        let mut capped = 0;
        for (log_u, estimate) in self.log_u.iter_mut().zip(estimates) {
            // The weights of a row sum to `u` times the batch's own estimate of `Z`.
            let most = MAX_WEIGHTS.ln() - estimate;
            capped += usize::from(*log_u > most);
            *log_u = log_u.min(most);
        }
        capped
    }
}

impl GammaMode {
    /// `ln(u * Z)`, of a variable whose mean is 1.
    fn log_draw(self, random: &mut impl Rng) -> f32 {
        let draws = match self {
            Self::Infonce | Self::InfonceRescaled | Self::GammaMean => return 0.0,
            Self::GammaSampled => 1,
            Self::GammaK(k) => k.get(),
        };
        // A sum of exponential variables has the gamma distribution.
        let total: f64 = (0..draws).map(|_| -(-random.random::<f64>()).ln_1p()).sum();
        (total / f64::from(draws)).ln() as f32
    }
}

/// What the losses are made of, by row `[n]`.
struct Rows {
    /// `ln Z` as estimated from the batch, differentiable.
    log_z: Tensor,
    /// Logit of the pair, differentiable.
    pair: Tensor,
    /// 1 where the row has negatives, else 0.
    counts: Tensor,
}

impl Rows {
    fn new(anchors: &Anchors) -> Result<Self> {
        let logits = anchors.logits;
        let n = anchors.items.len();
        if logits.dims() != [n, n] || anchors.positives.dims() != [n, n] {
            candle_core::bail!(
                "{n} items need logits and positives [{n}, {n}], got {:?} and {:?}",
                logits.dims(),
                anchors.positives.dims()
            );
        }
        let pairs = Tensor::eye(n, logits.dtype(), logits.device())?;
        let positives = anchors.positives.to_dtype(logits.dtype())?;
        let negatives = (1.0 - positives.maximum(&pairs)?)?;
        let count = negatives.sum_keepdim(1)?;
        let each = (count.maximum(1.0)?.recip()? * anchors.negatives)?;
        // The logarithm of 0 leaves a candidate out: exactly, and with a gradient of 0.
        let log_weights = (negatives.broadcast_mul(&each)? + &pairs)?.log()?;
        Ok(Self {
            log_z: (logits + log_weights)?.log_sum_exp(1)?,
            pair: (logits * pairs)?.sum(1)?,
            counts: count.minimum(1.0)?.squeeze(1)?,
        })
    }
}
