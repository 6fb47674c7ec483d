//! The memory of the loss: `ln Z` by item.

use candle_core::{Device, Result, Tensor};

use super::GammaConfig;

/// What was seen of `Z` of each item, in logarithms: 8 bytes per item and direction. A `Z` is the weight
/// of everything that lies near an item, so that this is also an estimate of how crowded its place is.
#[derive(Debug, Clone, PartialEq)]
pub struct LogZ {
    lz: Vec<f32>,
    cnt: Vec<u32>,
}

impl LogZ {
    /// Nothing seen yet of any of `items` items.
    pub fn new(items: usize) -> Self {
        Self {
            lz: vec![0.0; items],
            cnt: vec![0; items],
        }
    }

    /// `ln Z` by item, 0 where nothing was seen.
    pub fn values(&self) -> &[f32] {
        &self.lz
    }

    /// How often each item was seen.
    pub fn visits(&self) -> &[u32] {
        &self.cnt
    }

    /// Takes in what a batch says of `ln Z` of its items; an item that is there twice counts twice. `Z`
    /// itself is averaged, not its logarithm, whose average would be biased. Returns the new values.
    ///
    /// # Errors
    /// When an item is not here, or the numbers of items and estimates differ.
    pub fn update(
        &mut self,
        items: &[usize],
        estimates: &[f32],
        config: &GammaConfig,
    ) -> Result<Vec<f32>> {
        if items.len() != estimates.len() {
            let (items, estimates) = (items.len(), estimates.len());
            candle_core::bail!("{items} items have {estimates} estimates, expected one for each");
        }
        let known = self.lz.len();
        if let Some(item) = items.iter().find(|item| **item >= known) {
            candle_core::bail!("item {item} is not among the {known} items of the memory");
        }
        for (item, estimate) in items.iter().zip(estimates) {
            self.cnt[*item] = self.cnt[*item].saturating_add(1);
            let decayed = (self.cnt[*item] as f32).powf(-config.gain_decay);
            // At first the gain is 1, and forgets the 0 that stood there.
            let gain = decayed.max(config.min_gain).min(1.0);
            let old = (-gain).ln_1p() + self.lz[*item];
            self.lz[*item] = log_add(old, gain.ln() + estimate);
        }
        Ok(items.iter().map(|item| self.lz[*item]).collect())
    }

    /// The memory as tensors by name, for a checkpoint: `log_z` (f32) and `visits` (u32), both `[items]`.
    ///
    /// # Errors
    /// When there is no memory for them.
    pub fn to_tensors(&self) -> Result<[(&'static str, Tensor); 2]> {
        let n = self.lz.len();
        Ok([
            ("log_z", Tensor::from_slice(&self.lz, n, &Device::Cpu)?),
            ("visits", Tensor::from_slice(&self.cnt, n, &Device::Cpu)?),
        ])
    }

    /// The memory that [`LogZ::to_tensors`] described.
    ///
    /// # Errors
    /// When the tensors have other types, more than one dimension, or different lengths.
    pub fn from_tensors(log_z: &Tensor, visits: &Tensor) -> Result<Self> {
        let (lz, cnt) = (log_z.to_vec1::<f32>()?, visits.to_vec1::<u32>()?);
        if lz.len() != cnt.len() {
            let (lz, cnt) = (lz.len(), cnt.len());
            candle_core::bail!(
                "a memory of {lz} values of log Z has {cnt} visits, expected as many"
            );
        }
        Ok(Self { lz, cnt })
    }
}

/// `ln(exp(a) + exp(b))`, where one may be the logarithm of 0.
fn log_add(a: f32, b: f32) -> f32 {
    let (low, high) = if a < b { (a, b) } else { (b, a) };
    high + (low - high).exp().ln_1p()
}
