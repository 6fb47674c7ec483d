//! From the parts of [`crate::nn`] to packed ones, a block at a time, so that no second copy of all
//! weights is ever in memory.

use candle_core::Result;
use kernels::{Level, Precision};

use super::{
    packed::Packed,
    transformer::{BlockWeights, Norm, Shape, Transformer},
};
use crate::{
    ModelError,
    nn::{
        Form, Source, TransformerConfig,
        layers::{LayerNorm, Linear},
        ops::Elements,
        transformer::{Block, Qkv, blocks},
    },
};

/// Which kernels at which precision.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    /// The kernels.
    pub level: &'static Level,
    /// The precision of the blocks.
    pub precision: Precision,
}

impl Plan {
    /// Packs a linear map, at another precision than that of the blocks.
    pub(super) fn pack_as(self, precision: Precision, linear: &Linear) -> Result<Packed> {
        let inputs = linear.weight().dim(1)?;
        let weight = Elements::of(linear.weight());
        let bias = linear.bias().map(Elements::of);
        let bias = bias.as_ref().map(Elements::slice).transpose()?;
        Ok(Packed::new(
            self.level,
            precision,
            (weight.slice()?, inputs),
            bias,
        ))
    }

    /// The precision of maps that see rows for which one step is too coarse.
    pub(super) fn at_least_bf16(self) -> Precision {
        self.level.at_least_bf16(self.precision)
    }

    /// A stack with the tensors below `prefix`.
    pub(super) fn stack(
        self,
        source: &mut dyn Source,
        prefix: &str,
        config: &TransformerConfig,
        causal: bool,
    ) -> std::result::Result<Transformer, ModelError> {
        let shape = Shape {
            width: config.width,
            mlp_width: config.mlp_width,
            heads: config.heads,
            activation: config.activation,
            eps: config.layer_norm_eps as f32,
            causal,
        };
        let mut stack = Transformer::new(self.level, self.precision, shape);
        for block in blocks(source, prefix, config, Form::Fused) {
            push(&mut stack, &block?)?;
        }
        Ok(stack)
    }
}

/// A copy of a normalization.
pub(super) fn norm(norm: &LayerNorm) -> Result<Norm> {
    let (weight, bias) = (Elements::of(&norm.weight), Elements::of(&norm.bias));
    Ok(Norm::new((weight.slice()?, bias.slice()?), norm.eps as f32))
}

fn push(stack: &mut Transformer, block: &Block) -> Result<()> {
    let Qkv::Joined(qkv) = &block.attention.qkv else {
        candle_core::bail!("a block for serving has its input maps joined");
    };
    let linears = [qkv, &block.attention.out, &block.mlp.fc1, &block.mlp.fc2];
    let mut pairs = Vec::new();
    for linear in linears {
        let Some(bias) = linear.bias() else {
            candle_core::bail!("the maps of a block have biases");
        };
        pairs.push((Elements::of(linear.weight()), Elements::of(bias)));
    }
    for norm in [&block.norm1, &block.norm2] {
        pairs.push((Elements::of(&norm.weight), Elements::of(&norm.bias)));
    }
    let at = |i: usize| -> Result<_> { Ok((pairs[i].0.slice()?, pairs[i].1.slice()?)) };
    stack.push(&BlockWeights {
        norm1: at(4)?,
        qkv: at(0)?,
        out: at(1)?,
        norm2: at(5)?,
        fc1: at(2)?,
        fc2: at(3)?,
    });
    Ok(())
}
