//! The parts of a residual tower.

use std::sync::{Mutex, PoisonError};

use candle_core::{Result, Tensor};

use crate::{
    ModelError,
    nn::{
        Form,
        ops::{BatchStatistics, ConvShape, Ending, Map, NormWeights, add_relu, conv_norm, conv2d},
        source::{Init, Source},
    },
};

/// Two convolutions around a shortcut.
#[derive(Debug)]
pub(super) struct Block {
    conv1: ConvNorm,
    conv2: ConvNorm,
    shortcut: Option<ConvNorm>,
}

impl Block {
    pub fn new(
        source: &mut dyn Source,
        name: &str,
        (inputs, outputs): (usize, usize),
        stride: usize,
        eps: f64,
        form: Form,
    ) -> std::result::Result<Self, ModelError> {
        let mut conv = |part: &str, inputs: usize, kernel: usize, stride: usize| {
            let shape = ConvShape { kernel, stride };
            ConvNorm::new(
                source,
                format!("{name}.{part}"),
                (inputs, outputs),
                shape,
                eps,
                form,
            )
        };
        let conv1 = conv("conv1", inputs, 3, stride)?;
        let conv2 = conv("conv2", outputs, 3, 1)?;
        let changes = stride != 1 || inputs != outputs;
        let shortcut = if changes {
            Some(conv("shortcut", inputs, 1, stride)?)
        } else {
            None
        };
        Ok(Self {
            conv1,
            conv2,
            shortcut,
        })
    }

    pub fn forward(&self, x: &Map) -> Result<Map> {
        let y = self.conv1.forward(x, Ending::Relu)?;
        let past = match &self.shortcut {
            Some(shortcut) => &shortcut.forward(x, Ending::Plain)?,
            None => x,
        };
        self.conv2.forward(&y, Ending::AddRelu(past))
    }

    /// Its convolutions.
    pub fn convolutions(&self) -> impl Iterator<Item = &ConvNorm> {
        [Some(&self.conv1), Some(&self.conv2), self.shortcut.as_ref()]
            .into_iter()
            .flatten()
    }
}

/// A convolution and the batch normalisation behind it.
#[derive(Debug)]
pub(super) struct ConvNorm {
    name: String,
    shape: ConvShape,
    weight: Tensor,
    norm: Norm,
}

#[derive(Debug)]
enum Norm {
    /// By the statistics of the batch, which are kept for the running ones.
    Batch {
        gamma: Tensor,
        beta: Tensor,
        eps: f64,
        last: Mutex<Option<BatchStatistics>>,
    },
    /// By the running statistics.
    Running { scale: Tensor, bias: Tensor },
    /// Folded into the convolution; only a bias is left.
    Folded { bias: Tensor },
}

impl ConvNorm {
    pub fn new(
        source: &mut dyn Source,
        name: String,
        (inputs, outputs): (usize, usize),
        shape: ConvShape,
        eps: f64,
        form: Form,
    ) -> std::result::Result<Self, ModelError> {
        let k = shape.kernel;
        let deviation = (2.0 / (k * k * inputs) as f32).sqrt();
        let init = Init::Normal { deviation };
        let weight = source.tensor(
            &format!("{name}.conv.weight"),
            &[outputs, k, k, inputs],
            init,
        )?;
        let mut vector = |which: &str, value: f32| {
            source.tensor(
                &format!("{name}.norm.{which}"),
                &[outputs],
                Init::Constant(value),
            )
        };
        let (gamma, beta) = (vector("weight", 1.0)?, vector("bias", 0.0)?);
        let (mean, variance) = (vector("running_mean", 0.0)?, vector("running_var", 1.0)?);
        if form
            == (Form::Differentiable {
                batch_statistics: true,
            })
        {
            let norm = Norm::Batch {
                gamma,
                beta,
                eps,
                last: Mutex::new(None),
            };
            return Ok(Self {
                name,
                shape,
                weight,
                norm,
            });
        }
        let scale = (gamma / (variance + eps)?.sqrt()?)?;
        let bias = (beta - (mean * &scale)?)?;
        if form == Form::Fused {
            let weight = weight.broadcast_mul(&scale.reshape((outputs, 1, 1, 1))?)?;
            return Ok(Self {
                name,
                shape,
                weight,
                norm: Norm::Folded { bias },
            });
        }
        Ok(Self {
            name,
            shape,
            weight,
            norm: Norm::Running { scale, bias },
        })
    }

    pub fn forward(&self, x: &Map, ending: Ending<'_>) -> Result<Map> {
        let convolved = |x: &Map| conv2d(&x.tensor()?, &self.weight, self.shape);
        let y = match &self.norm {
            Norm::Batch {
                gamma,
                beta,
                eps,
                last,
            } => {
                let weights = NormWeights {
                    weight: &self.weight,
                    gamma,
                    beta,
                    eps: *eps,
                };
                let (y, statistics) = conv_norm(x, weights, self.shape, ending)?;
                *last.lock().unwrap_or_else(PoisonError::into_inner) = Some(statistics);
                return Ok(y);
            }
            Norm::Running { scale, bias } => {
                convolved(x)?.broadcast_mul(scale)?.broadcast_add(bias)?
            }
            Norm::Folded { bias } => convolved(x)?.broadcast_add(bias)?,
        };
        let y = match ending {
            Ending::Plain => y,
            Ending::Relu => y.relu()?,
            Ending::AddRelu(other) => add_relu(&y, &other.tensor()?)?,
        };
        Ok(y.into())
    }

    pub fn take(&self) -> Option<(String, BatchStatistics)> {
        let Norm::Batch { last, .. } = &self.norm else {
            return None;
        };
        let statistics = last.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        Some((format!("{}.norm", self.name), statistics))
    }
}
