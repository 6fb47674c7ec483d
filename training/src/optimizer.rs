//! `AdamW` (Loshchilov, Hutter 2019, algorithm 2) with warm-up, cosine decay and clipping.

use std::collections::BTreeMap;

use candle_core::{Tensor, backprop::GradStore};
use encoders::{nn::Elements, wide};
use rayon::prelude::*;

use crate::{TrainingError, config::OptimizerConfig, parameters::Parameters};

const BETA1: f64 = 0.9;
const BETA2: f64 = 0.98;
const EPS: f64 = 1e-6;

/// Elements that one task works on.
const CHUNK: usize = 1 << 15;

/// The two moments of every parameter.
#[derive(Debug, Clone, Default)]
pub struct AdamW {
    /// Running means of gradients and of their squares, by parameter name, each of the shape and on
    /// the device of the parameter.
    pub moments: BTreeMap<String, (Tensor, Tensor)>,
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
        let mut squares = Vec::new();
        for (name, var) in parameters.trainable() {
            if let Some(gradient) = gradients.get(var) {
                // A gradient is part of the graph, which its moments must not keep alive.
                let gradient = gradient.detach();
                squares.push(gradient.sqr()?.sum_all()?);
                moving.push((name, var, gradient));
            }
        }
        if squares.is_empty() {
            return Ok(0.0);
        }
        // One transfer for all of them: each waits for everything that a device has in hand.
        let squares = Tensor::stack(&squares, 0)?.to_vec1::<f32>()?;
        let length = squares.into_iter().map(f64::from).sum::<f64>().sqrt();
        if !length.is_finite() {
            return Err(TrainingError::Gradient { step, length });
        }
        let shrink = (config.clip / length.max(1e-12)).min(1.0);
        let rate = learning_rate(config, step);
        for (name, var, gradient) in moving {
            let rate = if name == "logit_scale" {
                rate * config.logit_scale_factor
            } else {
                rate * parameters.rate(name)
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
            let (first, second) = match self.moments.remove(name) {
                Some(moments) => moments,
                None => (gradient.zeros_like()?, gradient.zeros_like()?),
            };
            let (value, moments) =
                rule.apply(&var.as_detached_tensor(), &gradient, &first, &second)?;
            var.set(&value)?;
            self.moments.insert(name.to_owned(), moments);
        }
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
    /// The new value and the new moments.
    fn apply(
        &self,
        value: &Tensor,
        gradient: &Tensor,
        first: &Tensor,
        second: &Tensor,
    ) -> candle_core::Result<(Tensor, (Tensor, Tensor))> {
        let t = self.step as i32 + 1;
        let bias2 = (1.0 - BETA2.powi(t)).sqrt();
        let size = self.rate / (1.0 - BETA1.powi(t));
        if value.device().is_cpu() {
            return self.in_one_pass((bias2, size), value, gradient, [first, second]);
        }
        let first = ((first * BETA1)? + (gradient * ((1.0 - BETA1) * self.shrink))?)?;
        let square = (gradient.sqr()? * ((1.0 - BETA2) * self.shrink.powi(2)))?;
        let second = ((second * BETA2)? + square)?;
        let along = (&first / ((second.sqrt()? / bias2)? + EPS)?)?;
        let value = ((value * (1.0 - self.decay))? - (along * size)?)?;
        Ok((value, (first, second)))
    }

    /// The same on the CPU, where every pass over memory costs.
    fn in_one_pass(
        &self,
        (bias2, size): (f64, f64),
        value: &Tensor,
        gradient: &Tensor,
        moments: [&Tensor; 2],
    ) -> candle_core::Result<(Tensor, (Tensor, Tensor))> {
        let gradient = gradient.contiguous()?;
        let all = [value, &gradient, moments[0], moments[1]].map(Elements::of);
        let [w, g, m, v] = [&all[0], &all[1], &all[2], &all[3]].map(Elements::slice);
        let (w, g, m, v) = (w?, g?, m?, v?);
        let n = w.len();
        let (mut new_w, mut new_m, mut new_v) = (vec![0.0; n], vec![0.0; n], vec![0.0; n]);
        let (of_first, of_second) = (
            ((1.0 - BETA1) * self.shrink) as f32,
            ((1.0 - BETA2) * self.shrink.powi(2)) as f32,
        );
        let (beta1, beta2, eps) = (BETA1 as f32, BETA2 as f32, EPS as f32);
        let (keep, size, bias2) = ((1.0 - self.decay) as f32, size as f32, bias2 as f32);
        let new = (&mut new_w, &mut new_m, &mut new_v);
        let new = (new.0.par_chunks_mut(CHUNK))
            .zip(new.1.par_chunks_mut(CHUNK))
            .zip(new.2.par_chunks_mut(CHUNK));
        let old = (w.par_chunks(CHUNK).zip(g.par_chunks(CHUNK)))
            .zip(m.par_chunks(CHUNK).zip(v.par_chunks(CHUNK)));
        new.zip(old)
            .for_each(|(((new_w, new_m), new_v), ((w, g), (m, v)))| {
                wide(
                    #[inline(always)]
                    || {
                        let n = new_w.len();
                        let (new_m, new_v) = (&mut new_m[..n], &mut new_v[..n]);
                        let (w, g, m, v) = (&w[..n], &g[..n], &m[..n], &v[..n]);
                        for i in 0..n {
                            new_m[i] = m[i] * beta1 + g[i] * of_first;
                            new_v[i] = v[i] * beta2 + g[i] * g[i] * of_second;
                            new_w[i] =
                                w[i] * keep - new_m[i] / (new_v[i].sqrt() / bias2 + eps) * size;
                        }
                    },
                );
            });
        let tensor = |values| Tensor::from_vec(values, value.shape(), value.device());
        Ok((tensor(new_w)?, (tensor(new_m)?, tensor(new_v)?)))
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
    use candle_core::Device;
    use encoders::nn::{Init, Source as _};

    use super::*;
    use crate::config::Factors;

    fn config(clip: f64) -> OptimizerConfig {
        OptimizerConfig {
            batch: 2,
            steps: 4,
            warmup_steps: 2,
            learning_rate: 0.1,
            logit_scale_factor: 3.0,
            weight_decay: 0.5,
            clip,
            average: 0.0,
            factors: Factors::F32,
            accumulate: 1,
            checkpoint_every: 1,
            evaluate_every: 1,
        }
    }

    /// A matrix, a bias and the logit scale, each a single 1.
    fn ones() -> Parameters {
        let mut parameters = Parameters::seeded(1, Device::Cpu);
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
                let of = |moment: &Tensor| {
                    let values = moment.flatten_all().and_then(|m| m.to_vec1::<f32>());
                    f64::from(values.expect("a value")[0])
                };
                let (first, second) = (of(first), of(second));
                assert!((first - 0.1 * acts).abs() < 1e-6, "clip {clip}: {first}");
                let gap = (second - 0.02 * acts * acts).abs();
                assert!(gap < 1e-5, "clip {clip}: {second}");
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
            assert!(optimizer.moments.is_empty());
        }
    }
}
