//! BERT (Devlin et al. 2019) with what sentence-transformers puts behind it (Reimers, Gurevych 2019,
//! section 3): texts to unit rows. Unlike the towers of CLIP it also says where it looked, so that it
//! can teach and be taught.

use candle_core::{Result, Tensor};

use super::{
    Form, TransformerConfig,
    layers::{LayerNorm, Linear},
    network::unit_rows,
    ops::{add_bias, gather_rows},
    source::{Init, Source},
    transformer::{Block, blocks},
};
use crate::ModelError;

/// How wide the entries of all tables begin, as in the paper.
const DEVIATION: f32 = 0.02;

/// What becomes of the outputs of a text's tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SentencePooling {
    /// Their mean.
    Mean,
    /// The first one, that of `[CLS]`.
    First,
}

/// A linear map behind the pooling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DenseConfig {
    /// Elements that it gives.
    pub dim: usize,
    /// Whether it has a bias.
    pub bias: bool,
}

/// The sizes of a sentence tower.
#[derive(Debug, Clone, PartialEq)]
pub struct SentenceConfig {
    /// Number of token ids.
    pub vocabulary: usize,
    /// Places in a text that have an embedding.
    pub positions: usize,
    /// Longest text in tokens, at most `positions`.
    pub context_length: usize,
    /// Kinds of tokens that have an embedding; all tokens of a text are of the first kind.
    pub token_types: usize,
    /// The stack of blocks.
    pub transformer: TransformerConfig,
    /// How texts become rows.
    pub pooling: SentencePooling,
    /// A map to another width, where there is one.
    pub dense: Option<DenseConfig>,
}

impl SentenceConfig {
    /// Elements of an embedding.
    pub fn dim(&self) -> usize {
        self.dense.map_or(self.transformer.width, |dense| dense.dim)
    }

    /// Number of learned elements.
    pub fn parameters(&self) -> usize {
        let TransformerConfig {
            width,
            mlp_width,
            layers,
            ..
        } = self.transformer;
        let tables = (self.vocabulary + self.positions + self.token_types) * width;
        // Beside the matrices: five biases of a block, and scale and shift of its two normalizations.
        let beside = layers * (5 * width + mlp_width + 4 * width);
        let dense = self
            .dense
            .map_or(0, |dense| dense.dim * (width + usize::from(dense.bias)));
        tables + 2 * width + self.transformer.weights() + beside + dense
    }
}

/// Token ids to unit rows.
#[derive(Debug, Clone)]
pub struct SentenceTower {
    words: Tensor,
    positions: Tensor,
    types: Tensor,
    norm: LayerNorm,
    blocks: Vec<Block>,
    dense: Option<Linear>,
    config: SentenceConfig,
}

/// What a pass gives for `n` texts, the longest of which has `t` tokens.
#[derive(Debug)]
pub struct SentencePass {
    /// Unit rows, `[n, dim]`.
    pub rows: Tensor,
    /// Attention probabilities of each block, the lowest first: `[n, heads, t, t]`. The rows of
    /// padding are there and mean nothing.
    pub maps: Vec<Tensor>,
    /// 1 for a token and 0 for padding, `[n, t]`.
    pub mask: Tensor,
}

impl SentenceTower {
    /// Takes the tensors by the names of a BERT checkpoint, `embeddings.*` and `encoder.layer.{i}.*`,
    /// and those of the map behind it as `dense.linear.*`.
    ///
    /// # Errors
    /// When a tensor is missing or has another shape.
    pub fn new(
        source: &mut dyn Source,
        config: &SentenceConfig,
        form: Form,
    ) -> std::result::Result<Self, ModelError> {
        let TransformerConfig {
            width,
            layer_norm_eps: eps,
            ..
        } = config.transformer;
        let init = Init::Normal {
            deviation: DEVIATION,
        };
        let mut table = |name: &str, rows: usize| {
            let name = format!("embeddings.{name}_embeddings.weight");
            source.tensor(&name, &[rows, width], init)
        };
        let words = table("word", config.vocabulary)?;
        let positions = table("position", config.positions)?;
        let types = table("token_type", config.token_types)?;
        let norm = LayerNorm::new(source, "embeddings.LayerNorm", width, eps)?;
        let mut named = BertNames(source);
        let stack = blocks(&mut named, "encoder", &config.transformer, form);
        let blocks = stack.collect::<std::result::Result<_, _>>()?;
        let dense = config.dense.map(|dense| {
            let (name, sizes) = ("dense.linear", (width, dense.dim));
            let deviation = (width as f32).powf(-0.5);
            if dense.bias {
                Linear::new(source, name, sizes, deviation)
            } else {
                Linear::without_bias(source, name, sizes, deviation)
            }
        });
        Ok(Self {
            words,
            positions,
            types,
            norm,
            blocks,
            dense: dense.transpose()?,
            config: config.clone(),
        })
    }

    /// Its sizes.
    pub fn config(&self) -> &SentenceConfig {
        &self.config
    }

    /// One pass for texts of 1 to `context_length` tokens each. Shorter ones are padded to the longest,
    /// which changes nothing but the time that it takes.
    ///
    /// # Errors
    /// When there is no text, one is empty or too long, or holds an unknown id.
    pub fn forward<S: AsRef<[u32]>>(&self, texts: &[S]) -> Result<SentencePass> {
        let (device, width) = (self.words.device(), self.config.transformer.width);
        let limit = self.config.context_length;
        let lengths = || texts.iter().map(|text| text.as_ref().len());
        if let Some(length) = lengths().find(|length| !(1..=limit).contains(length)) {
            candle_core::bail!("texts have 1 to {limit} tokens each, got {length}");
        }
        let (n, t) = (texts.len(), lengths().max().unwrap_or(0));
        let (mut ids, mut mask) = (vec![0_u32; n * t], vec![0.0_f32; n * t]);
        for (i, text) in texts.iter().enumerate() {
            let text = text.as_ref();
            ids[i * t..][..text.len()].copy_from_slice(text);
            mask[i * t..][..text.len()].fill(1.0);
        }
        let hidden: Vec<f32> = mask
            .iter()
            .map(|m| if *m > 0.0 { 0.0 } else { f32::NEG_INFINITY })
            .collect();
        let hidden = Tensor::from_vec(hidden, (n, 1, 1, t), device)?;
        let mask = Tensor::from_vec(mask, (n, t), device)?;
        let ids = Tensor::from_vec(ids, n * t, device)?;
        let x = gather_rows(&self.words, &ids)?.reshape((n, t * width))?;
        let places = self.positions.narrow(0, 0, t)?;
        let places = places.broadcast_add(&self.types.narrow(0, 0, 1)?)?;
        let x = add_bias(&x, &places.flatten_all()?)?.reshape((n, t, width))?;
        let mut x = self.norm.forward(&x)?;
        let hidden = lengths().any(|length| length < t).then_some(&hidden);
        let mut maps = Vec::with_capacity(self.blocks.len());
        for block in &self.blocks {
            let (next, map) = block.forward_post_norm(&x, hidden)?;
            x = next;
            maps.push(map);
        }
        let pooled = match self.config.pooling {
            SentencePooling::Mean => {
                let sums = x.broadcast_mul(&mask.unsqueeze(2)?)?.sum(1)?;
                sums.broadcast_div(&mask.sum_keepdim(1)?)?
            }
            SentencePooling::First => x.narrow(1, 0, 1)?.squeeze(1)?,
        };
        let pooled = match &self.dense {
            Some(dense) => dense.forward(&pooled)?,
            None => pooled,
        };
        Ok(SentencePass {
            rows: unit_rows(&pooled)?,
            maps,
            mask,
        })
    }
}

/// Gives the tensors of blocks by the names that BERT has for them.
struct BertNames<'a>(&'a mut dyn Source);

impl Source for BertNames<'_> {
    fn tensor(
        &mut self,
        name: &str,
        shape: &[usize],
        init: Init,
    ) -> std::result::Result<Tensor, ModelError> {
        self.0.tensor(&bert_name(name), shape, init)
    }
}

/// The name in a BERT checkpoint of what [`Block`] calls `encoder.layers.{i}.{part}`.
fn bert_name(name: &str) -> String {
    const PARTS: [(&str, &str); 8] = [
        (".self_attn.q_proj.", ".attention.self.query."),
        (".self_attn.k_proj.", ".attention.self.key."),
        (".self_attn.v_proj.", ".attention.self.value."),
        (".self_attn.out_proj.", ".attention.output.dense."),
        (".layer_norm1.", ".attention.output.LayerNorm."),
        (".mlp.fc1.", ".intermediate.dense."),
        (".mlp.fc2.", ".output.dense."),
        (".layer_norm2.", ".output.LayerNorm."),
    ];
    let name = name.replacen("encoder.layers.", "encoder.layer.", 1);
    let part = PARTS.iter().find(|(ours, _)| name.contains(ours));
    part.map_or_else(
        || name.clone(),
        |(ours, theirs)| name.replacen(ours, theirs, 1),
    )
}
