//! Pieces of the small networks that experiments train.

use candle_core::Tensor;
use encoders::nn::{Init, Source as _};

use crate::{
    TrainingError,
    config::{Factors, OptimizerConfig},
    optimizer::AdamW,
    parameters::Parameters,
};

/// `x W + b` on the last dimension.
pub(super) struct Dense {
    weight: Tensor,
    bias: Tensor,
}

impl Dense {
    /// Begins with normal weights of variance `1 / inputs`.
    pub(super) fn new(
        parameters: &mut Parameters,
        name: &str,
        [inputs, outputs]: [usize; 2],
    ) -> Result<Self, TrainingError> {
        let deviation = (1.0 / inputs as f32).sqrt();
        let mut tensor = |part: &str, shape: &[usize], init| {
            parameters.tensor(&format!("{name}.{part}"), shape, init)
        };
        Ok(Self {
            weight: tensor("weight", &[inputs, outputs], Init::Normal { deviation })?,
            bias: tensor("bias", &[outputs], Init::Constant(0.0))?,
        })
    }

    /// `[.., inputs]` to `[.., outputs]`.
    pub(super) fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let last = x.rank() - 1;
        let mut shape = x.dims().to_vec();
        shape[last] = self.bias.dim(0)?;
        // One product of all rows is much faster than one for each of the outer dimensions.
        let rows = x.contiguous()?.reshape(((), x.dim(last)?))?;
        let made = rows.matmul(&self.weight)?.broadcast_add(&self.bias)?;
        made.reshape(shape)
    }
}

/// How a rate of learning changes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Rate {
    /// It does not.
    Constant(f64),
    /// From this one to 0 along a cosine.
    Falling(f64),
}

/// Follows the gradient of `loss`, which is given the number of the step, with Adam.
pub(super) fn minimize(
    parameters: &Parameters,
    steps: usize,
    rate: Rate,
    mut loss: impl FnMut(usize) -> Result<Tensor, TrainingError>,
) -> Result<(), TrainingError> {
    let (learning_rate, end) = match rate {
        // An end so far away that the cosine does not begin to fall.
        Rate::Constant(rate) => (rate, usize::MAX),
        Rate::Falling(rate) => (rate, steps),
    };
    let config = OptimizerConfig {
        batch: 0,
        steps: end,
        warmup_steps: 0,
        learning_rate,
        logit_scale_factor: 1.0,
        weight_decay: 0.0,
        clip: f64::INFINITY,
        average: 0.0,
        factors: Factors::F32,
        accumulate: 1,
        checkpoint_every: steps,
        evaluate_every: steps,
    };
    let mut optimizer = AdamW::default();
    for step in 0..steps {
        let gradients = loss(step)?.backward()?;
        optimizer.step(parameters, &gradients, &config, step)?;
    }
    Ok(())
}
