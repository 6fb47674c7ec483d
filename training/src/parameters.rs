//! The weights of a run by name: made from a seed on first use, kept, updated in place.

use std::collections::{BTreeMap, BTreeSet};

use candle_core::{Device, Tensor, Var};
use encoders::{
    ModelError,
    nn::{BatchStatistics, Elements, Init, Source},
};
use rand::{Rng, RngExt as _, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use crate::TrainingError;

/// Share of a new batch in running statistics, as in common frameworks.
const MOMENTUM: f64 = 0.1;

/// All tensors of a network. As a [`Source`] it makes what it does not have yet.
pub struct Parameters {
    vars: BTreeMap<String, Var>,
    random: ChaCha8Rng,
    device: Device,
    /// Running averages of all tensors that move, by name; empty where none are kept.
    averages: BTreeMap<String, Tensor>,
    /// Tensors that no gradient moves.
    frozen: BTreeSet<String>,
    /// Factors on `B A`, by the names of the weights that it is added to.
    adapted: BTreeMap<String, f64>,
    /// Factors on the learning rate; 1 for what is not named.
    rates: BTreeMap<String, f64>,
}

/// What the names of the two factors of an adapter end in: `A` `[rank, inputs]`, `B` `[outputs, rank]`.
const ADAPTER: [&str; 2] = [".lora_a", ".lora_b"];

impl Parameters {
    /// No tensors yet; those to come live on `device`, and are the same on every device.
    pub fn seeded(seed: u64, device: Device) -> Self {
        Self {
            vars: BTreeMap::new(),
            random: ChaCha8Rng::seed_from_u64(seed),
            device,
            averages: BTreeMap::new(),
            frozen: BTreeSet::new(),
            adapted: BTreeMap::new(),
            rates: BTreeMap::new(),
        }
    }

    /// Takes over a tensor that was made elsewhere.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub fn adopt(&mut self, name: &str, tensor: &Tensor) -> candle_core::Result<()> {
        let var = Var::from_tensor(&tensor.to_device(&self.device)?)?;
        self.vars.insert(name.to_owned(), var);
        Ok(())
    }

    /// Has a tensor stand still.
    pub fn freeze(&mut self, name: &str) {
        self.frozen.insert(name.to_owned());
    }

    /// Whether a tensor stands still.
    pub fn is_frozen(&self, name: &str) -> bool {
        self.frozen.contains(name)
    }

    /// Adds `scale B A` to the weight `name` wherever it is used (Hu et al. 2021): `A` is drawn, `B` begins
    /// at 0, so that nothing changes at first.
    ///
    /// # Errors
    /// When there is no matrix of that name.
    pub fn adapt(&mut self, name: &str, rank: usize, scale: f64) -> Result<(), TrainingError> {
        let shape = self.vars.get(name).map(|var| var.dims().to_vec());
        let Some([outputs, inputs]) = shape.as_deref() else {
            return Err(candle_core::Error::Msg(format!("there is no matrix {name}")).into());
        };
        let deviation = (*inputs as f32).powf(-0.5);
        let [a, b] = ADAPTER.map(|ending| format!("{name}{ending}"));
        self.tensor(&a, &[rank, *inputs], Init::Normal { deviation })?;
        self.tensor(&b, &[*outputs, rank], Init::Constant(0.0))?;
        self.adapted.insert(name.to_owned(), scale);
        Ok(())
    }

    /// Whether some weights are sums that have to be made anew after each step.
    pub fn has_adapters(&self) -> bool {
        !self.adapted.is_empty()
    }

    /// Replaces the factors on the learning rate.
    pub fn set_rates(&mut self, rates: BTreeMap<String, f64>) {
        self.rates = rates;
    }

    /// Factor on the learning rate of a tensor.
    pub fn rate(&self, name: &str) -> f64 {
        self.rates.get(name).copied().unwrap_or(1.0)
    }

    /// The running averages by name; empty where none are kept.
    pub fn averages(&self) -> &BTreeMap<String, Tensor> {
        &self.averages
    }

    /// Replaces the running averages.
    pub fn set_averages(&mut self, averages: BTreeMap<String, Tensor>) {
        self.averages = averages;
    }

    /// Takes the present values into the running averages; `keep` is the share of the old. The first
    /// values are the first averages.
    ///
    /// # Errors
    /// When a tensor cannot be computed with.
    pub fn average(&mut self, keep: f64) -> Result<(), TrainingError> {
        let mut averages = std::mem::take(&mut self.averages);
        for (name, var) in self.moving() {
            let value = var.as_detached_tensor();
            let average = match averages.get(name) {
                Some(old) => mean_of(old, &value, keep)?,
                None => value.copy()?,
            };
            averages.insert(name.to_owned(), average);
        }
        self.averages = averages;
        Ok(())
    }

    /// What is evaluated and exported: the averages where they are kept, else the tensors themselves.
    ///
    /// # Errors
    /// When there is no memory for a copy.
    pub fn settled(&self) -> Result<Self, TrainingError> {
        let mut settled = Self {
            vars: self.vars.clone(),
            random: self.random.clone(),
            device: self.device.clone(),
            averages: BTreeMap::new(),
            frozen: self.frozen.clone(),
            adapted: self.adapted.clone(),
            rates: BTreeMap::new(),
        };
        for (name, average) in &self.averages {
            settled
                .vars
                .insert(name.clone(), Var::from_tensor(average)?);
        }
        Ok(settled)
    }

    /// Where the tensors live.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Every tensor by name, statistics included.
    pub fn all(&self) -> impl Iterator<Item = (&str, &Var)> {
        self.vars.iter().map(|(name, var)| (name.as_str(), var))
    }

    /// The tensors that gradients move.
    pub fn trainable(&self) -> impl Iterator<Item = (&str, &Var)> {
        self.all()
            .filter(|(name, _)| !is_statistic(name) && !self.is_frozen(name))
    }

    /// All that a run changes: what gradients move, and running statistics.
    pub fn moving(&self) -> impl Iterator<Item = (&str, &Var)> {
        self.all().filter(|(name, _)| self.moves(name))
    }

    fn moves(&self, name: &str) -> bool {
        is_statistic(name) || !self.is_frozen(name)
    }

    /// Every tensor of the network, adapters added to what they adapt.
    ///
    /// # Errors
    /// When a sum cannot be computed.
    pub fn merged(&self) -> Result<Vec<(&str, Tensor)>, TrainingError> {
        let own = self.all().filter(|(name, _)| {
            let is_adapter = ADAPTER.iter().any(|ending| name.ends_with(ending));
            !is_adapter
        });
        own.map(|(name, var)| Ok((name, self.value(name, var)?.detach())))
            .collect()
    }

    /// A tensor as networks use it.
    fn value(&self, name: &str, var: &Var) -> candle_core::Result<Tensor> {
        let own = if self.is_frozen(name) {
            var.as_detached_tensor()
        } else {
            var.as_tensor().clone()
        };
        let factors = ADAPTER.map(|ending| self.vars.get(&format!("{name}{ending}")));
        match (self.adapted.get(name), factors) {
            (Some(scale), [Some(a), Some(b)]) => own + (b.matmul(a)? * *scale)?,
            _ => Ok(own),
        }
    }

    /// Replaces the value of one tensor.
    ///
    /// # Errors
    /// When there is none of that name and shape.
    pub fn set(&self, name: &str, value: &Tensor) -> Result<(), TrainingError> {
        match self.vars.get(name) {
            Some(var) => Ok(var.set(&value.to_device(&self.device)?)?),
            None => Err(candle_core::Error::Msg(format!("there is no tensor {name}")).into()),
        }
    }

    /// Moves the running statistics towards those of a batch.
    ///
    /// # Errors
    /// When a name is unknown.
    pub fn track(&self, statistics: Vec<(String, BatchStatistics)>) -> Result<(), TrainingError> {
        for (name, batch) in statistics {
            // The running variance is the unbiased one.
            let unbiased = batch.count as f64 / (batch.count.max(2) - 1) as f64;
            for (which, values, factor) in [
                ("running_mean", batch.mean, 1.0),
                ("running_var", batch.variance, unbiased),
            ] {
                let name = format!("{name}.{which}");
                let Some(var) = self.vars.get(&name) else {
                    let message = format!("there is no tensor {name}");
                    return Err(candle_core::Error::Msg(message).into());
                };
                let kept = (var.as_tensor() * (1.0 - MOMENTUM))?;
                var.set(&(kept + (values * (MOMENTUM * factor))?)?)?;
            }
        }
        Ok(())
    }
}

/// `keep` times the old and the rest of the new.
fn mean_of(old: &Tensor, new: &Tensor, keep: f64) -> candle_core::Result<Tensor> {
    if !old.device().is_cpu() {
        return (old * keep)? + (new * (1.0 - keep))?;
    }
    // In one pass over memory.
    let (old_values, new_values) = (Elements::of(old), Elements::of(new));
    let (old_values, new_values) = (old_values.slice()?, new_values.slice()?);
    let (keep, rest) = (keep as f32, (1.0 - keep) as f32);
    let mean: Vec<f32> = old_values
        .par_iter()
        .zip(new_values)
        .with_min_len(1 << 14)
        .map(|(old, new)| old * keep + new * rest)
        .collect();
    Tensor::from_vec(mean, old.shape(), old.device())
}

/// Tensors of a network that is only run: outside of any graph, so that no pass keeps what a backward
/// pass would need. They move with the parameters, unless the network was built of copies.
pub struct Detached<'a>(pub &'a Parameters);

impl Source for Detached<'_> {
    fn tensor(&mut self, name: &str, shape: &[usize], _init: Init) -> Result<Tensor, ModelError> {
        let Some(var) = self.0.vars.get(name).filter(|var| var.dims() == shape) else {
            let message = format!("there is no tensor {name} of shape {shape:?}");
            return Err(candle_core::Error::Msg(message).into());
        };
        Ok(var.as_detached_tensor())
    }
}

fn is_statistic(name: &str) -> bool {
    name.ends_with(".running_mean") || name.ends_with(".running_var")
}

impl Source for Parameters {
    fn tensor(&mut self, name: &str, shape: &[usize], init: Init) -> Result<Tensor, ModelError> {
        if let Some(var) = self.vars.get(name) {
            if var.dims() != shape {
                let message = format!("{name} has shape {:?}, expected {shape:?}", var.dims());
                return Err(candle_core::Error::Msg(message).into());
            }
            return Ok(self.value(name, var)?);
        }
        let count = shape.iter().product();
        let values: Vec<f32> = match init {
            Init::Constant(value) => vec![value; count],
            Init::Normal { deviation } => (0..count)
                .map(|_| deviation * normal(&mut self.random))
                .collect(),
        };
        let var = Var::from_tensor(&Tensor::from_vec(values, shape, &self.device)?)?;
        let tensor = var.as_tensor().clone();
        self.vars.insert(name.to_owned(), var);
        Ok(tensor)
    }
}

/// One draw from the standard normal distribution (Box, Muller 1958).
pub(crate) fn normal(random: &mut impl Rng) -> f32 {
    let u: f64 = 1.0 - random.random::<f64>();
    let v: f64 = random.random();
    ((-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()) as f32
}
