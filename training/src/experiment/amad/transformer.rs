//! A small transformer that says where it looks.

use candle_core::{D, Device, Tensor};
use candle_nn::ops::{layer_norm_slow, softmax};
use encoders::nn::{Init, Source as _};

use super::recall::{ANSWERS, KEYS, Sequences, VALUES};
use crate::{TrainingError, experiment::net::Dense, parameters::Parameters};

/// Width of the feed-forward layer in widths of the model.
const EXPANSION: usize = 2;

#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes {
    pub(super) width: usize,
    pub(super) heads: usize,
    pub(super) layers: usize,
}

pub(super) struct Transformer {
    pub(super) parameters: Parameters,
    /// Of keys, of values, and of the first and second key asked for.
    embeddings: [Tensor; 4],
    blocks: Vec<Block>,
    norm: Norm,
    answer: Dense,
    heads: usize,
}

struct Block {
    norms: [Norm; 2],
    /// Queries, keys and values side by side.
    project: Dense,
    merge: Dense,
    up: Dense,
    down: Dense,
}

struct Norm {
    gain: Tensor,
    bias: Tensor,
}

/// What a pass gives.
pub(super) struct Pass {
    /// `[n, ANSWERS]`
    pub(super) logits: Tensor,
    /// Attention probabilities of every layer, `[n, heads, tokens, tokens]`.
    pub(super) maps: Vec<Tensor>,
}

impl Transformer {
    pub(super) fn new(sizes: Sizes, seed: u64) -> Result<Self, TrainingError> {
        let Sizes {
            width,
            heads,
            layers,
        } = sizes;
        let mut parameters = Parameters::seeded(seed, Device::Cpu);
        let of = &mut parameters;
        let embedding = |of: &mut Parameters, name: &str, rows: usize| {
            of.tensor(name, &[rows, width], Init::Normal { deviation: 0.5 })
        };
        let embeddings = [
            embedding(of, "keys", KEYS)?,
            embedding(of, "values", VALUES)?,
            embedding(of, "first", KEYS)?,
            embedding(of, "second", KEYS)?,
        ];
        let blocks = (0..layers).map(|layer| {
            let name = |part: &str| format!("blocks.{layer}.{part}");
            Ok(Block {
                norms: [
                    Norm::new(of, &name("norm1"), width)?,
                    Norm::new(of, &name("norm2"), width)?,
                ],
                project: Dense::new(of, &name("project"), [width, 3 * width])?,
                merge: Dense::new(of, &name("merge"), [width, width])?,
                up: Dense::new(of, &name("up"), [width, EXPANSION * width])?,
                down: Dense::new(of, &name("down"), [EXPANSION * width, width])?,
            })
        });
        let blocks = blocks.collect::<Result<_, TrainingError>>()?;
        Ok(Self {
            embeddings,
            blocks,
            norm: Norm::new(of, "norm", width)?,
            answer: Dense::new(of, "answer", [width, ANSWERS])?,
            heads,
            parameters,
        })
    }

    pub(super) fn forward(&self, sequences: &Sequences) -> candle_core::Result<Pass> {
        let [keys, values, first, second] = &self.embeddings;
        let look_up = |table: &Tensor, ids: &Tensor| {
            let rows = table.index_select(&ids.flatten_all()?, 0)?;
            rows.reshape((ids.dim(0)?, ids.elem_count() / ids.dim(0)?, ()))
        };
        let pairs = (look_up(keys, &sequences.keys)? + look_up(values, &sequences.values)?)?;
        let [a, b] = &sequences.asked;
        let asked = (look_up(first, a)? + look_up(second, b)?)?;
        let mut x = Tensor::cat(&[&pairs, &asked], 1)?;
        let mut maps = Vec::with_capacity(self.blocks.len());
        for block in &self.blocks {
            let (looked, map) = block.attend(&block.norms[0].forward(&x)?, self.heads)?;
            x = (x + looked)?;
            let up = block.up.forward(&block.norms[1].forward(&x)?)?.relu()?;
            x = (x + block.down.forward(&up)?)?;
            maps.push(map);
        }
        let last = x.narrow(1, x.dim(1)? - 1, 1)?.squeeze(1)?;
        Ok(Pass {
            logits: self.answer.forward(&self.norm.forward(&last)?)?,
            maps,
        })
    }
}

impl Block {
    fn attend(&self, x: &Tensor, heads: usize) -> candle_core::Result<(Tensor, Tensor)> {
        let (n, tokens, width) = x.dims3()?;
        let split = self
            .project
            .forward(x)?
            .reshape((n, tokens, 3 * heads, width / heads))?;
        let split = split.transpose(1, 2)?;
        let part = |i: usize| split.narrow(1, i * heads, heads)?.contiguous();
        let scale = (width as f64 / heads as f64).sqrt();
        let logits = (part(0)?.matmul(&part(1)?.transpose(2, 3)?)? / scale)?;
        let map = softmax(&logits, D::Minus1)?;
        let looked = map
            .matmul(&part(2)?)?
            .transpose(1, 2)?
            .reshape((n, tokens, width))?;
        Ok((self.merge.forward(&looked)?, map))
    }
}

impl Norm {
    fn new(of: &mut Parameters, name: &str, width: usize) -> Result<Self, TrainingError> {
        let mut part = |part: &str, value: f32| {
            of.tensor(&format!("{name}.{part}"), &[width], Init::Constant(value))
        };
        Ok(Self {
            gain: part("weight", 1.0)?,
            bias: part("bias", 0.0)?,
        })
    }

    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        layer_norm_slow(x, &self.gain, &self.bias, 1e-5)
    }
}
