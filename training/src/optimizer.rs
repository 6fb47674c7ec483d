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
    /// When a tensor cannot be read or written, or the gradient is not finite: nothing moves then.
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
        if !length.is_finite() {
            return Err(TrainingError::Gradient { step, length });
        }
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

#[cfg(test)]
mod tests {
    use encoders::nn::{Init, Source as _};

    use super::*;

    fn config(clip: f64) -> OptimizerConfig {
        OptimizerConfig {
            batch: 2,
            steps: 4,
            warmup_steps: 2,
            learning_rate: 0.1,
            logit_scale_factor: 3.0,
            weight_decay: 0.5,
            clip,
            checkpoint_every: 1,
            evaluate_every: 1,
        }
    }

    /// A matrix, a bias and the logit scale, each a single 1.
    fn ones() -> Parameters {
        let mut parameters = Parameters::seeded(1);
        for (name, shape) in [
            ("matrix", &[1, 1][..]),
            ("bias", &[1]),
            ("logit_scale", &[]),
        ] {
            let made = parameters.tensor(name, shape, Init::Constant(1.0));
            made.expect("made");
        }
        parameters
    }

    /// Gradients of the three in the order of their names: bias, logit scale, matrix.
    fn gradients(parameters: &Parameters, slopes: [f64; 3]) -> GradStore {
        let terms = parameters.all().zip(slopes).map(|((_, var), slope)| {
            let term = var.as_tensor() * slope;
            term.and_then(|t| t.sum_all()).expect("a term")
        });
        let loss = terms.reduce(|a, b| (a + b).expect("a sum"));
        let gradients = loss.expect("three terms").backward();
        gradients.expect("a backward pass")
    }

    fn values(parameters: &Parameters) -> [f32; 3] {
        let mut values = parameters.all().map(|(_, var)| {
            let value = var.flatten_all().and_then(|v| v.to_vec1::<f32>());
            value.expect("a value")[0]
        });
        std::array::from_fn(|_| values.next().expect("three of them"))
    }

    #[test]
    fn three_steps_give_the_numbers_of_the_paper() {
        let parameters = ones();
        let mut optimizer = AdamW::default();
        // The paper's algorithm, with moments that are divided by their bias, in double precision.
        let by_hand = [
            (1.0, [0.950_000_05, 0.850_000_15, 0.925_000_05]),
            (-2.0, [0.986_505_42, 0.959_516_25, 0.915_255_42]),
            (0.5, [1.000_193_86, 1.000_581_58, 0.883_181_09]),
        ];
        for (step, (slope, expected)) in by_hand.into_iter().enumerate() {
            let gradients = gradients(&parameters, [slope; 3]);
            let length = optimizer
                .step(&parameters, &gradients, &config(1e9), step)
                .expect("steps");
            assert!((length - slope.abs() * 3.0_f64.sqrt()).abs() < 1e-6);
            for (value, expected) in values(&parameters).iter().zip(expected) {
                let gap = (f64::from(*value) - expected).abs();
                assert!(gap < 2e-6, "step {step}: {value}, by hand {expected}");
            }
        }
    }

    #[test]
    fn a_long_gradient_is_shortened_as_a_whole_and_a_short_one_is_left_alone() {
        // The length is 13: each element acts as a 13th or, below the clip, as itself.
        for (clip, shrink) in [(1.0, 1.0 / 13.0), (14.0, 1.0)] {
            let parameters = ones();
            let mut optimizer = AdamW::default();
            let slopes = [3.0, 4.0, 12.0];
            let length = optimizer.step(
                &parameters,
                &gradients(&parameters, slopes),
                &config(clip),
                0,
            );
            assert!((length.expect("steps") - 13.0).abs() < 1e-6);
            for ((first, second), slope) in optimizer.moments.values().zip(slopes) {
                let acts = slope * shrink;
                let gap = (f64::from(first[0]) - 0.1 * acts).abs();
                assert!(gap < 1e-6, "clip {clip}: {first:?}");
                let gap = (f64::from(second[0]) - 0.02 * acts * acts).abs();
                assert!(gap < 1e-5, "clip {clip}: {second:?}");
            }
        }
    }

    #[test]
    fn the_learning_rate_rises_in_a_line_and_falls_along_a_cosine() {
        let rates = [0.05, 0.1, 0.1, 0.05, 0.0];
        for (step, expected) in rates.into_iter().enumerate() {
            let rate = learning_rate(&config(1.0), step);
            assert!((rate - expected).abs() < 1e-12, "step {step}: {rate}");
        }
    }

    /// A step along an infinite gradient once made every parameter a NaN, which a checkpoint could
    /// then keep.
    #[test]
    fn a_gradient_that_is_not_finite_moves_nothing() {
        let parameters = ones();
        let mut optimizer = AdamW::default();
        for slope in [f64::INFINITY, f64::NAN] {
            let gradients = gradients(&parameters, [1.0, slope, 1.0]);
            let refused = optimizer.step(&parameters, &gradients, &config(1.0), 7);
            let message = refused.expect_err("is refused").to_string();
            let says = format!("step 7 has length {slope}");
            assert!(message.contains(&says), "{message}");
            let bits = values(&parameters).map(f32::to_bits);
            assert_eq!(bits, [1.0_f32.to_bits(); 3]);
            assert_eq!(optimizer, AdamW::default());
        }
    }
}
