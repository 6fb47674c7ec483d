//! Contrast with a bank of earlier keys (He et al. 2020, "Momentum contrast for unsupervised visual
//! representation learning", equation 1 and algorithm 1).

use std::{collections::BTreeMap, num::NonZeroUsize};

use candle_core::{DType, Device, Result, Tensor, Var};
use encoders::nn::unit_rows;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::parameters::normal;

/// How far the length of a stored key may be from 1.
const LENGTH_TOLERANCE: f32 = 1e-3;

/// What the loss is told.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BankConfig {
    /// What cosines are divided by (tau): 0.07 in He et al. 2020, 0.2 in Chen et al. 2020.
    pub temperature: f64,
    /// Number of keys, those most like it, that each query is contrasted with: all where it is `None`.
    pub hardest: Option<NonZeroUsize>,
}

/// A queue of keys: the newest batch comes in, the oldest goes out.
#[derive(Debug, Clone)]
pub struct Bank {
    /// `[size, dim]`, oldest first, of length 1 each.
    keys: Tensor,
}

impl Bank {
    /// Random keys, `size` of them with `dim` elements each.
    ///
    /// # Errors
    /// When the device has no room for them.
    pub fn seeded(size: usize, dim: usize, seed: u64, device: &Device) -> Result<Self> {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let values: Vec<f32> = (0..size * dim).map(|_| normal(&mut random)).collect();
        let keys = unit_rows(&Tensor::from_vec(values, (size, dim), device)?)?;
        Ok(Self { keys })
    }

    /// The keys `[size, dim]`, oldest first: all that a checkpoint has to keep.
    pub fn keys(&self) -> &Tensor {
        &self.keys
    }

    /// A bank of the `keys` that [`Bank::keys`] gave.
    ///
    /// # Errors
    /// When they are not rows of length 1.
    pub fn from_keys(keys: &Tensor) -> Result<Self> {
        let lengths = keys.to_dtype(DType::F32)?.sqr()?.sum(1)?.sqrt()?;
        for (row, length) in lengths.to_vec1::<f32>()?.into_iter().enumerate() {
            if length.is_nan() || (length - 1.0).abs() > LENGTH_TOLERANCE {
                candle_core::bail!("key {row} has length {length}, expected 1: normalize the keys");
            }
        }
        Ok(Self { keys: keys.clone() })
    }

    /// Mean over queries of `-log(exp(q * k) / (exp(q * k) + sum over the bank of exp(q * b)))` with cosines
    /// over the temperature, in nats. `queries` and `keys` are `[n, dim]`, of any length; row `i` of
    /// `keys` is the positive of row `i` of `queries`. No gradient goes into keys.
    ///
    /// Each query's hardest keys are found on the CPU, which moves `[n, size]` cosines there.
    ///
    /// # Errors
    /// When shapes do not fit, or fewer keys are stored than `hardest` asks for.
    pub fn loss(&self, queries: &Tensor, keys: &Tensor, config: &BankConfig) -> Result<Tensor> {
        let queries = unit_rows(queries)?;
        let positive = (&queries * unit_rows(keys)?.detach())?.sum_keepdim(1)?;
        let mut negatives = queries.matmul(&self.keys.t()?)?;
        if let Some(hardest) = config.hardest {
            negatives = largest(&negatives, hardest.get())?;
        }
        let logits = (Tensor::cat(&[&positive, &negatives], 1)? / config.temperature)?;
        let log_z = logits.log_sum_exp(1)?;
        (log_z - (positive / config.temperature)?.squeeze(1)?)?.mean_all()
    }

    /// Takes in `keys` `[n, dim]`, of any length, in place of the `n` oldest. To be called behind the loss,
    /// or a query meets its own key as a negative.
    ///
    /// # Errors
    /// When the size of the bank is no multiple of `n`, or `dim` is another.
    pub fn push(&mut self, keys: &Tensor) -> Result<()> {
        let (size, n) = (self.keys.dim(0)?, keys.dim(0)?);
        if n == 0 || !size.is_multiple_of(n) {
            candle_core::bail!(
                "a bank of {size} keys cannot take {n} at a time: its size must be a multiple"
            );
        }
        // A new tensor, since the backward pass of the last loss may still need the old one.
        let kept = self.keys.narrow(0, n, size - n)?;
        self.keys = Tensor::cat(&[&kept, &unit_rows(&keys.detach())?], 0)?;
        Ok(())
    }
}

/// The `count` largest of each row `[n, m]`, in any order, as `[n, count]`; differentiable.
fn largest(values: &Tensor, count: usize) -> Result<Tensor> {
    let (n, m) = values.dims2()?;
    if count > m {
        candle_core::bail!("the {count} hardest of {m} keys: lower `hardest` or store more");
    }
    let rows = values.detach().to_dtype(DType::F32)?.to_vec2::<f32>()?;
    let mut chosen = Vec::with_capacity(n * count);
    for row in rows {
        let mut order: Vec<u32> = (0..m as u32).collect();
        if count < m {
            order.select_nth_unstable_by(count, |a, b| {
                row[*b as usize].total_cmp(&row[*a as usize])
            });
        }
        chosen.extend_from_slice(&order[..count]);
    }
    let chosen = Tensor::from_vec(chosen, (n, count), values.device())?;
    values.gather(&chosen, 1)
}

/// Moves every follower towards the leader of its name: `follower = momentum * follower + (1 - momentum) *
/// leader` (He et al. 2020, equation 2). To be called in front of the pass that makes the keys.
///
/// # Errors
/// When the two sets do not have the same names and shapes; nothing is changed where names differ.
pub fn follow<'a>(
    followers: impl IntoIterator<Item = (&'a str, &'a Var)>,
    leaders: impl IntoIterator<Item = (&'a str, &'a Var)>,
    momentum: f64,
) -> Result<()> {
    let followers: BTreeMap<&str, &Var> = followers.into_iter().collect();
    let leaders: BTreeMap<&str, &Var> = leaders.into_iter().collect();
    if !followers.keys().eq(leaders.keys()) {
        let mut all = followers.keys().chain(leaders.keys());
        let one_sided =
            all.find(|name| !(followers.contains_key(*name) && leaders.contains_key(*name)));
        let name = one_sided.copied().unwrap_or_default();
        candle_core::bail!("the tensor {name} is in one of the two encoders only");
    }
    for (follower, leader) in followers.values().zip(leaders.values()) {
        let kept = (follower.as_detached_tensor() * momentum)?;
        follower.set(&(kept + (leader.as_detached_tensor() * (1.0 - momentum))?)?)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
