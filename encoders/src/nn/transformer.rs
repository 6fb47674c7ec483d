//! The pre-norm transformer that both CLIP towers are made of (Radford et al. 2021, section 2.4).

use candle_core::{D, Result, Tensor};

use super::{
    Form,
    layers::{LayerNorm, Linear},
    ops::quick_gelu,
    source::Source,
};
use crate::ModelError;

/// The activation between the two layers of an MLP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// `x sigmoid(1.702 x)`: the checkpoints of `OpenAI`.
    QuickGelu,
    /// `x Phi(x)`: most later ones.
    Gelu,
    /// The tanh approximation of GELU.
    GeluTanh,
}

impl Activation {
    /// By its name in a `config.json`.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "quick_gelu" => Some(Self::QuickGelu),
            "gelu" => Some(Self::Gelu),
            "gelu_pytorch_tanh" | "gelu_new" => Some(Self::GeluTanh),
            _ => None,
        }
    }

    /// Its name in a `config.json`.
    pub fn name(self) -> &'static str {
        match self {
            Self::QuickGelu => "quick_gelu",
            Self::Gelu => "gelu",
            Self::GeluTanh => "gelu_pytorch_tanh",
        }
    }

    fn forward(self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::QuickGelu => quick_gelu(x),
            Self::Gelu => x.gelu_erf(),
            Self::GeluTanh => x.gelu(),
        }
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

/// A stack of blocks: tokens `[n, t, width]` in and out.
#[derive(Debug, Clone)]
pub(super) struct Transformer {
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
        let blocks = (0..config.layers)
            .map(|i| Block::new(source, &format!("{prefix}.layers.{i}"), config, form))
            .collect::<std::result::Result<_, _>>()?;
        Ok(Self { blocks })
    }

    /// `mask` `[t, t]` is added to the attention logits.
    pub(super) fn forward(&self, x: &Tensor, mask: Option<&Tensor>) -> Result<Tensor> {
        self.blocks
            .iter()
            .try_fold(x.clone(), |x, block| block.forward(&x, mask))
    }
}

#[derive(Debug, Clone)]
struct Block {
    norm1: LayerNorm,
    attention: Attention,
    norm2: LayerNorm,
    fc1: Linear,
    fc2: Linear,
    activation: Activation,
}

impl Block {
    fn new(
        source: &mut dyn Source,
        name: &str,
        config: &TransformerConfig,
        form: Form,
    ) -> std::result::Result<Self, ModelError> {
        let TransformerConfig {
            width,
            mlp_width,
            layers,
            activation,
            layer_norm_eps,
            ..
        } = *config;
        // Deviations as in the CLIP paper's reference code: residual branches shrink with depth.
        let inner = (width as f32).powf(-0.5) * (2.0 * layers as f32).powf(-0.5);
        let fc1 = (2.0 * width as f32).powf(-0.5);
        Ok(Self {
            norm1: LayerNorm::new(
                source,
                &format!("{name}.layer_norm1"),
                width,
                layer_norm_eps,
            )?,
            attention: Attention::new(source, &format!("{name}.self_attn"), config, form)?,
            norm2: LayerNorm::new(
                source,
                &format!("{name}.layer_norm2"),
                width,
                layer_norm_eps,
            )?,
            fc1: Linear::new(source, &format!("{name}.mlp.fc1"), (width, mlp_width), fc1)?,
            fc2: Linear::new(
                source,
                &format!("{name}.mlp.fc2"),
                (mlp_width, width),
                inner,
            )?,
            activation,
        })
    }

    fn forward(&self, x: &Tensor, mask: Option<&Tensor>) -> Result<Tensor> {
        let x = (x + self.attention.forward(&self.norm1.forward(x)?, mask)?)?;
        let hidden = self.fc1.forward(&self.norm2.forward(&x)?)?;
        let hidden = self.fc2.forward(&self.activation.forward(&hidden)?)?;
        x + hidden
    }
}

#[derive(Debug, Clone)]
struct Attention {
    /// Queries, keys and values in one product.
    qkv: Qkv,
    out: Linear,
    heads: usize,
    form: Form,
}

/// The three input maps: joined once at load for serving, apart while they are trained.
#[derive(Debug, Clone)]
enum Qkv {
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
        let (n, t, width) = x.dims3()?;
        let size = width / self.heads;
        // [n, t, width] to [n, heads, t, size].
        let split = |x: &Tensor| {
            x.reshape((n, t, self.heads, size))?
                .transpose(1, 2)?
                .contiguous()
        };
        let (q, k, v) = match &self.qkv {
            Qkv::Joined(qkv) => {
                let qkv = qkv.forward(x)?;
                let part = |i: usize| split(&qkv.narrow(2, i * width, width)?.contiguous()?);
                (part(0)?, part(1)?, part(2)?)
            }
            Qkv::Apart([q, k, v]) => (
                split(&q.forward(x)?)?,
                split(&k.forward(x)?)?,
                split(&v.forward(x)?)?,
            ),
        };
        let logits = ((q * (size as f64).powf(-0.5))?.matmul(&k.t()?))?;
        let logits = match mask {
            Some(mask) => logits.broadcast_add(mask)?,
            None => logits,
        };
        let weights = match self.form {
            Form::Fused => candle_nn::ops::softmax_last_dim(&logits)?,
            Form::Differentiable { .. } => candle_nn::ops::softmax(&logits, D::Minus1)?,
        };
        let mixed = weights
            .matmul(&v)?
            .transpose(1, 2)?
            .reshape((n, t, width))?;
        self.out.forward(&mixed)
    }
}
