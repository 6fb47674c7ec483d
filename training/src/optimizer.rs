//! `AdamW` (Loshchilov, Hutter 2019, algorithm 2) with warm-up, cosine decay and clipping.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor, backprop::GradStore};
use rayon::prelude::*;

use crate::{TrainingError, config::OptimizerConfig, parameters::Parameters};

const BETA1: f64 = 0.9;
const BETA2: f64 = 0.98;
const EPS: f64 = 1e-6;

/// The two moments of every parameter.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AdamW {
    /// Running means of gradients and of their squares, by parameter name.
    pub moments: BTreeMap<String, (Vec<f32>, Vec<f32>)>,
}

impl AdamW {
    /// Moves every parameter that has a gradient; `step` counts from 0. Returns the length of the
    /// whole gradient before clipping.
    ///
    /// # Errors
    /// When a tensor cannot be read or written.
    pub fn step(
        &mut self,
        parameters: &Parameters,
        gradients: &GradStore,
        config: &OptimizerConfig,
        step: usize,
    ) -> Result<f64, TrainingError> {
        let mut moving = Vec::new();
        for (name, var) in parameters.trainable() {
            if let Some(gradient) = gradients.get(var) {
                moving.push((name, var, gradient.flatten_all()?.to_vec1::<f32>()?));
            }
        }
        let square = |g: &[f32]| g.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>();
        let length = moving.iter().map(|(_, _, g)| square(g)).sum::<f64>().sqrt();
        let shrink = (config.clip / length.max(1e-12)).min(1.0);
        let rate = learning_rate(config, step);
        let updates = moving.into_iter().map(|(name, var, gradient)| {
            let zeros = || vec![0.0; gradient.len()];
            let moments = self
                .moments
                .remove(name)
                .unwrap_or_else(|| (zeros(), zeros()));
            (name, var, gradient, moments)
        });
        let updates: Vec<_> = updates.collect();
        let done: Vec<_> = updates
            .into_par_iter()
            .map(|(name, var, gradient, mut moments)| {
                let rate = if name == "logit_scale" {
                    rate * config.logit_scale_factor
                } else {
                    rate
                };
                // Gains, biases and the scale keep their length (as in Radford et al. 2021).
                let decay = if var.rank() >= 2 {
                    rate * config.weight_decay
                } else {
                    0.0
                };
                let rule = Rule {
                    rate,
                    decay,
                    shrink,
                    step,
                };
                let mut values = var.flatten_all()?.to_vec1::<f32>()?;
                rule.apply(&mut values, &gradient, &mut moments);
                var.set(&Tensor::from_vec(values, var.shape(), &Device::Cpu)?)?;
                Ok((name.to_owned(), moments))
            })
            .collect::<Result<_, candle_core::Error>>()?;
        self.moments.extend(done);
        Ok(length)
    }
}

/// One step's numbers.
struct Rule {
    rate: f64,
    decay: f64,
    shrink: f64,
    step: usize,
}

impl Rule {
    fn apply(&self, values: &mut [f32], gradient: &[f32], moments: &mut (Vec<f32>, Vec<f32>)) {
        let t = self.step as i32 + 1;
        let bias2 = (1.0 - BETA2.powi(t)).sqrt();
        let size = (self.rate / (1.0 - BETA1.powi(t))) as f32;
        let (b1, b2, eps) = (BETA1 as f32, BETA2 as f32, EPS as f32);
        let (bias2, keep, shrink) = (bias2 as f32, (1.0 - self.decay) as f32, self.shrink as f32);
        let (first, second) = (moments.0.iter_mut(), moments.1.iter_mut());
        for (((x, g), m), v) in values.iter_mut().zip(gradient).zip(first).zip(second) {
            let g = g * shrink;
            *m = b1 * *m + (1.0 - b1) * g;
            *v = b2 * *v + (1.0 - b2) * g * g;
            *x = keep * *x - size * *m / (v.sqrt() / bias2 + eps);
        }
    }
}

/// Linear warm-up, then half a cosine down to 0.
pub fn learning_rate(config: &OptimizerConfig, step: usize) -> f64 {
    if step < config.warmup_steps {
        return config.learning_rate * (step + 1) as f64 / config.warmup_steps as f64;
    }
    let rest = (config.steps - config.warmup_steps) as f64;
    let done = ((step - config.warmup_steps) as f64 / rest).min(1.0);
    config.learning_rate * 0.5 * (1.0 + (std::f64::consts::PI * done).cos())
}
