//! The small parts that both towers share.

use candle_core::{Result, Tensor};

use super::{
    ops::{add_bias, layer_norm, linear, matmul},
    source::{Init, Source},
};
use crate::ModelError;

/// `x W^T + b`.
#[derive(Debug, Clone)]
pub(crate) struct Linear {
    weight: Tensor,
    bias: Option<Tensor>,
}

impl Linear {
    /// Weight `[outputs, inputs]` with the given deviation, bias `[outputs]` starting at zero.
    pub(super) fn new(
        source: &mut dyn Source,
        name: &str,
        (inputs, outputs): (usize, usize),
        deviation: f32,
    ) -> std::result::Result<Self, ModelError> {
        let mut linear = Self::without_bias(source, name, (inputs, outputs), deviation)?;
        let bias = source.tensor(&format!("{name}.bias"), &[outputs], Init::Constant(0.0))?;
        linear.bias = Some(bias);
        Ok(linear)
    }

    /// Weight `[outputs, inputs]` alone.
    pub(super) fn without_bias(
        source: &mut dyn Source,
        name: &str,
        (inputs, outputs): (usize, usize),
        deviation: f32,
    ) -> std::result::Result<Self, ModelError> {
        let init = Init::Normal { deviation };
        let weight = source.tensor(&format!("{name}.weight"), &[outputs, inputs], init)?;
        Ok(Self { weight, bias: None })
    }

    /// Of tensors at hand: weight `[outputs, inputs]`, bias `[outputs]`.
    pub(crate) fn from_tensors(weight: Tensor, bias: Option<Tensor>) -> Self {
        Self { weight, bias }
    }

    /// Several maps of one input as one product, their outputs side by side.
    pub(super) fn joined(parts: &[&Self]) -> Result<Self> {
        let weights: Vec<&Tensor> = parts.iter().map(|p| &p.weight).collect();
        let biases: Option<Vec<&Tensor>> = parts.iter().map(|p| p.bias.as_ref()).collect();
        let bias = biases.map(|b| Tensor::cat(&b, 0)).transpose()?;
        Ok(Self {
            weight: Tensor::cat(&weights, 0)?,
            bias,
        })
    }

    /// `[.., inputs]` to `[.., outputs]`.
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let mut shape = x.dims().to_vec();
        let inputs = shape.pop().unwrap_or_default();
        shape.push(self.weight.dim(0)?);
        let x = x.reshape(((), inputs))?;
        // Where nothing is trained, this is the reference that other kernels are compared with.
        if (x.track_op() || self.weight.track_op()) && x.device().is_cpu() {
            return linear(&x, &self.weight, self.bias.as_ref())?.reshape(shape);
        }
        let y = matmul(&x, &self.weight.t()?)?;
        let y = match &self.bias {
            Some(bias) => add_bias(&y, bias)?,
            None => y,
        };
        y.reshape(shape)
    }

    /// The weight, `[outputs, inputs]`.
    pub(crate) fn weight(&self) -> &Tensor {
        &self.weight
    }

    /// The bias, `[outputs]`, where there is one.
    pub(crate) fn bias(&self) -> Option<&Tensor> {
        self.bias.as_ref()
    }
}

/// Layer normalisation over the last axis.
#[derive(Debug, Clone)]
pub(crate) struct LayerNorm {
    pub weight: Tensor,
    pub bias: Tensor,
    pub eps: f64,
}

impl LayerNorm {
    pub(super) fn new(
        source: &mut dyn Source,
        name: &str,
        width: usize,
        eps: f64,
    ) -> std::result::Result<Self, ModelError> {
        let weight = source.tensor(&format!("{name}.weight"), &[width], Init::Constant(1.0))?;
        let bias = source.tensor(&format!("{name}.bias"), &[width], Init::Constant(0.0))?;
        Ok(Self { weight, bias, eps })
    }

    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        layer_norm(x, &self.weight, &self.bias, self.eps)
    }
}
