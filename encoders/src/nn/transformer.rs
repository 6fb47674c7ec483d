//! The pre-norm transformer that both CLIP towers are made of (Radford et al. 2021, section 2.4),
//! and the attention that pools in `SigLIP` (Zhai et al. 2022, "Scaling Vision Transformers").

use candle_core::{D, Result, Tensor};
use kernels::Activation;

use super::{
    Form,
    layers::{LayerNorm, Linear},
    ops::{attention, quick_gelu},
    source::{Init, Source},
};
use crate::ModelError;

/// The activation of some elements.
fn activate(activation: Activation, x: &Tensor) -> Result<Tensor> {
    match activation {
        Activation::QuickGelu => quick_gelu(x),
        Activation::Gelu => x.gelu_erf(),
        Activation::GeluTanh => x.gelu(),
    }
}

/// The sizes of one transformer.
#[derive(Debug, Clone, PartialEq)]
pub struct TransformerConfig {
    /// Elements per token.
    pub width: usize,
    /// Elements between the two layers of an MLP.
    pub mlp_width: usize,
    /// Number of blocks.
    pub layers: usize,
    /// Attention heads per block; divides `width`.
    pub heads: usize,
    /// Activation of the MLPs.
    pub activation: Activation,
    /// Added to variances in layer normalisation.
    pub layer_norm_eps: f64,
}

impl TransformerConfig {
    /// Number of weights in the linear maps of all blocks.
    pub fn weights(&self) -> usize {
        self.layers * self.width * (4 * self.width + 2 * self.mlp_width)
    }
}

/// A stack of blocks: tokens `[n, t, width]` in and out.
#[derive(Debug, Clone)]
pub struct Transformer {
    blocks: Vec<Block>,
}

impl Transformer {
    /// Takes the tensors `{prefix}.layers.{i}.*`.
    pub(super) fn new(
        source: &mut dyn Source,
        prefix: &str,
        config: &TransformerConfig,
        form: Form,
    ) -> std::result::Result<Self, ModelError> {
        let blocks = blocks(source, prefix, config, form).collect::<std::result::Result<_, _>>()?;
        Ok(Self { blocks })
    }

    /// `mask` `[t, t]` is added to the attention logits.
    pub(super) fn forward(&self, x: &Tensor, mask: Option<&Tensor>) -> Result<Tensor> {
        self.blocks
            .iter()
            .try_fold(x.clone(), |x, block| block.forward(&x, mask))
    }
}

/// The blocks of a stack, one after another: the tensors `{prefix}.layers.{i}.*`.
pub(crate) fn blocks<'a>(
    source: &'a mut dyn Source,
    prefix: &'a str,
    config: &'a TransformerConfig,
    form: Form,
) -> impl Iterator<Item = std::result::Result<Block, ModelError>> + 'a {
    (0..config.layers)
        .map(move |i| Block::new(source, &format!("{prefix}.layers.{i}"), config, form))
}

/// Attention and an MLP, each behind a normalization and beside a residual connection.
#[derive(Debug, Clone)]
pub(crate) struct Block {
    pub norm1: LayerNorm,
    pub attention: Attention,
    pub norm2: LayerNorm,
    pub mlp: Mlp,
}

impl Block {
    fn new(
        source: &mut dyn Source,
        name: &str,
        config: &TransformerConfig,
        form: Form,
    ) -> std::result::Result<Self, ModelError> {
        let (width, eps) = (config.width, config.layer_norm_eps);
        Ok(Self {
            norm1: LayerNorm::new(source, &format!("{name}.layer_norm1"), width, eps)?,
            attention: Attention::new(source, &format!("{name}.self_attn"), config, form)?,
            norm2: LayerNorm::new(source, &format!("{name}.layer_norm2"), width, eps)?,
            mlp: Mlp::new(source, &format!("{name}.mlp"), config)?,
        })
    }

    fn forward(&self, x: &Tensor, mask: Option<&Tensor>) -> Result<Tensor> {
        let x = (x + self.attention.forward(&self.norm1.forward(x)?, mask)?)?;
        let hidden = self.mlp.forward(&self.norm2.forward(&x)?)?;
        x + hidden
    }

    /// The same parts with each normalization behind its residual connection, as in the first
    /// transformer (Vaswani et al. 2017, section 3.1) and in BERT; and the attention probabilities.
    pub(super) fn forward_post_norm(
        &self,
        x: &Tensor,
        mask: Option<&Tensor>,
    ) -> Result<(Tensor, Tensor)> {
        let (found, map) = self.attention.forward_with_map(x, mask)?;
        let x = self.norm1.forward(&(x + found)?)?;
        let hidden = self.mlp.forward(&x)?;
        Ok((self.norm2.forward(&(x + hidden)?)?, map))
    }
}

/// Two linear maps with an activation between them.
#[derive(Debug, Clone)]
pub(crate) struct Mlp {
    pub fc1: Linear,
    pub fc2: Linear,
    activation: Activation,
}

impl Mlp {
    fn new(
        source: &mut dyn Source,
        name: &str,
        config: &TransformerConfig,
    ) -> std::result::Result<Self, ModelError> {
        let (width, mlp_width) = (config.width, config.mlp_width);
        // Deviations as in the CLIP paper's reference code: residual branches shrink with depth.
        let inner = (width as f32).powf(-0.5) * (2.0 * config.layers as f32).powf(-0.5);
        let fc1 = (2.0 * width as f32).powf(-0.5);
        Ok(Self {
            fc1: Linear::new(source, &format!("{name}.fc1"), (width, mlp_width), fc1)?,
            fc2: Linear::new(source, &format!("{name}.fc2"), (mlp_width, width), inner)?,
            activation: config.activation,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let hidden = activate(self.activation, &self.fc1.forward(x)?)?;
        self.fc2.forward(&hidden)
    }
}

/// Self-attention.
#[derive(Debug, Clone)]
pub(crate) struct Attention {
    /// Queries, keys and values in one product.
    pub qkv: Qkv,
    pub out: Linear,
    heads: usize,
    form: Form,
}

/// The three input maps: joined once at load for serving, apart while they are trained.
#[derive(Debug, Clone)]
pub(crate) enum Qkv {
    Joined(Linear),
    Apart([Linear; 3]),
}

impl Attention {
    fn new(
        source: &mut dyn Source,
        name: &str,
        config: &TransformerConfig,
        form: Form,
    ) -> std::result::Result<Self, ModelError> {
        let width = config.width;
        let deviation = (width as f32).powf(-0.5);
        let inner = deviation * (2.0 * config.layers as f32).powf(-0.5);
        let mut part = |which: &str, deviation| {
            Linear::new(
                source,
                &format!("{name}.{which}_proj"),
                (width, width),
                deviation,
            )
        };
        let (q, k, v) = (part("q", inner)?, part("k", inner)?, part("v", inner)?);
        let out = part("out", deviation)?;
        let qkv = match form {
            Form::Fused => Qkv::Joined(Linear::joined(&[&q, &k, &v])?),
            Form::Differentiable { .. } => Qkv::Apart([q, k, v]),
        };
        Ok(Self {
            qkv,
            out,
            heads: config.heads,
            form,
        })
    }

    fn forward(&self, x: &Tensor, mask: Option<&Tensor>) -> Result<Tensor> {
        let [q, k, v] = self.inputs(x)?;
        let mixed = attend([&q, &k, &v], self.heads, mask, self.form)?;
        self.out.forward(&mixed)
    }

    /// The same with the attention probabilities, as [`attend_with_map`].
    fn forward_with_map(&self, x: &Tensor, mask: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
        let [q, k, v] = self.inputs(x)?;
        let (mixed, map) = attend_with_map([&q, &k, &v], self.heads, mask, self.form)?;
        Ok((self.out.forward(&mixed)?, map))
    }

    /// Queries, keys and values of tokens, each `[n, t, width]`.
    fn inputs(&self, x: &Tensor) -> Result<[Tensor; 3]> {
        let width = x.dim(2)?;
        Ok(match &self.qkv {
            Qkv::Joined(qkv) => {
                let qkv = qkv.forward(x)?;
                let part = |i: usize| qkv.narrow(2, i * width, width)?.contiguous();
                [part(0)?, part(1)?, part(2)?]
            }
            Qkv::Apart([q, k, v]) => [q.forward(x)?, k.forward(x)?, v.forward(x)?],
        })
    }
}

/// What queries `[n, a, width]` find in keys and values `[n, t, width]`: `[n, a, width]`. `mask`
/// `[a, t]` is added to the logits.
fn attend(
    [q, k, v]: [&Tensor; 3],
    heads: usize,
    mask: Option<&Tensor>,
    form: Form,
) -> Result<Tensor> {
    if form != Form::Fused && q.device().is_cpu() {
        return attention([q, k, v], heads, mask);
    }
    Ok(attend_with_map([q, k, v], heads, mask, form)?.0)
}

/// The same, and the attention probabilities, `[n, heads, a, t]`; `mask` may also have four axes.
fn attend_with_map(
    [q, k, v]: [&Tensor; 3],
    heads: usize,
    mask: Option<&Tensor>,
    form: Form,
) -> Result<(Tensor, Tensor)> {
    let (n, a, width) = q.dims3()?;
    let size = width / heads;
    // [n, t, width] to [n, heads, t, size].
    let split = |x: &Tensor| {
        x.reshape((n, x.dim(1)?, heads, size))?
            .transpose(1, 2)?
            .contiguous()
    };
    let logits = ((split(q)? * (size as f64).powf(-0.5))?.matmul(&split(k)?.t()?))?;
    let logits = match mask {
        Some(mask) => logits.broadcast_add(mask)?,
        None => logits,
    };
    let weights = match form {
        Form::Fused => candle_nn::ops::softmax_last_dim(&logits)?,
        Form::Differentiable { .. } => candle_nn::ops::softmax(&logits, D::Minus1)?,
    };
    let mixed = weights.matmul(&split(v)?)?.transpose(1, 2)?;
    Ok((mixed.reshape((n, a, width))?, weights))
}

/// A learned query that attends to all tokens, and an MLP with a residual connection.
#[derive(Debug, Clone)]
pub(crate) struct AttentionHead {
    /// `[1, 1, width]`.
    pub probe: Tensor,
    pub q: Linear,
    pub k: Linear,
    pub v: Linear,
    pub out: Linear,
    pub norm: LayerNorm,
    pub mlp: Mlp,
    heads: usize,
    form: Form,
}

impl AttentionHead {
    /// Takes the tensors `{name}.*`, with the names of torch's `MultiheadAttention`.
    pub(super) fn new(
        source: &mut dyn Source,
        name: &str,
        config: &TransformerConfig,
        form: Form,
    ) -> std::result::Result<Self, ModelError> {
        let (width, eps) = (config.width, config.layer_norm_eps);
        let deviation = (width as f32).powf(-0.5);
        let init = Init::Normal { deviation };
        let probe = source.tensor(&format!("{name}.probe"), &[1, 1, width], init)?;
        let weight = format!("{name}.attention.in_proj_weight");
        let weight = source.tensor(&weight, &[3 * width, width], init)?;
        let bias = format!("{name}.attention.in_proj_bias");
        let bias = source.tensor(&bias, &[3 * width], Init::Constant(0.0))?;
        let part = |i: usize| -> Result<Linear> {
            let weight = weight.narrow(0, i * width, width)?.contiguous()?;
            let bias = bias.narrow(0, i * width, width)?.contiguous()?;
            Ok(Linear::from_tensors(weight, Some(bias)))
        };
        let out = format!("{name}.attention.out_proj");
        Ok(Self {
            probe,
            q: part(0)?,
            k: part(1)?,
            v: part(2)?,
            out: Linear::new(source, &out, (width, width), deviation)?,
            norm: LayerNorm::new(source, &format!("{name}.layernorm"), width, eps)?,
            mlp: Mlp::new(source, &format!("{name}.mlp"), config)?,
            heads: config.heads,
            form,
        })
    }

    /// Tokens `[n, t, width]` to rows `[n, width]`.
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let q = self.q.forward(&self.probe)?.repeat((x.dim(0)?, 1, 1))?;
        let (k, v) = (self.k.forward(x)?, self.v.forward(x)?);
        let mixed = attend([&q, &k, &v], self.heads, None, self.form)?;
        let x = self.out.forward(&mixed)?.squeeze(1)?;
        let hidden = self.mlp.forward(&self.norm.forward(&x)?)?;
        x + hidden
    }
}
