//! Text towers: a transformer, causal or not, pooled at one token.

use candle_core::{Device, Result, Tensor};

use super::{
    Form,
    layers::{LayerNorm, Linear},
    ops::{add_bias, gather_rows},
    source::{Init, Source},
    transformer::{Transformer, TransformerConfig},
};
use crate::ModelError;

/// Which token of a text is pooled. The first two are the conventions of transformers'
/// `CLIPTextModel`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooling {
    /// The first occurrence of the largest token id (`eos_token_id` 2 in old configs).
    LargestId,
    /// The first occurrence of this token id, or the first token where it does not occur.
    FirstOf(u32),
    /// The first token.
    First,
    /// The last token, padding included.
    Last,
}

impl Pooling {
    /// Index of the pooled token.
    pub fn position(self, ids: &[u32]) -> usize {
        let wanted = match self {
            Self::LargestId => ids.iter().max().copied(),
            Self::FirstOf(id) => Some(id),
            Self::First => return 0,
            Self::Last => return ids.len().saturating_sub(1),
        };
        ids.iter().position(|id| Some(*id) == wanted).unwrap_or(0)
    }
}

/// The sizes of a text tower.
#[derive(Debug, Clone, PartialEq)]
pub struct TextConfig {
    /// Number of token ids.
    pub vocabulary: usize,
    /// Longest text in tokens.
    pub context_length: usize,
    /// Which token is pooled.
    pub pooling: Pooling,
    /// Whether a token sees only itself and those before it.
    pub causal: bool,
    /// Whether the shared projection adds a bias.
    pub projection_bias: bool,
    /// The transformer.
    pub transformer: TransformerConfig,
}

impl TextConfig {
    /// Whether padding takes part in the result: every text must have `context_length` tokens then,
    /// and the tokenizer says which id fills it up.
    pub fn padded(&self) -> bool {
        !self.causal || self.pooling == Pooling::Last
    }

    /// Refuses texts that are empty, too long, or too short where padding takes part.
    pub(crate) fn check_lengths(&self, lengths: impl Iterator<Item = usize>) -> Result<()> {
        let limit = self.context_length;
        let least = if self.padded() { limit } else { 1 };
        for length in lengths {
            if !(least..=limit).contains(&length) {
                candle_core::bail!("texts have {least} to {limit} tokens each, got {length}");
            }
        }
        Ok(())
    }
}

/// On a CPU, texts whose lengths differ by less than this go through the tower together. On other
/// devices padding costs less than a pass of its own.
const GROUP_STEP: usize = 6;

/// Token ids to pooled and projected rows; `T` is the stack of blocks.
#[derive(Debug, Clone)]
pub struct TextTower<T = Transformer> {
    pub(crate) tokens: Tensor,
    pub(crate) positions: Tensor,
    pub(crate) transformer: T,
    pub(crate) norm: LayerNorm,
    pub(crate) projection: Linear,
    pub(crate) config: TextConfig,
}

impl TextTower {
    /// Takes the tensors `text_model.*`, and `text_projection.weight` `[dim, width]` where the
    /// projection has no bias; one with a bias is `text_model.head`, as in `SigLIP`.
    ///
    /// # Errors
    /// When a tensor is missing or has another shape.
    pub fn new(
        source: &mut dyn Source,
        config: &TextConfig,
        dim: usize,
        form: Form,
    ) -> std::result::Result<Self, ModelError> {
        Self::with(source, config, dim, |source, prefix| {
            Transformer::new(source, prefix, &config.transformer, form)
        })
    }
}

impl<T> TextTower<T> {
    /// As [`TextTower::new`], with a stack that is made of the tensors below a prefix.
    pub(crate) fn with(
        source: &mut dyn Source,
        config: &TextConfig,
        dim: usize,
        stack: impl FnOnce(&mut dyn Source, &str) -> std::result::Result<T, ModelError>,
    ) -> std::result::Result<Self, ModelError> {
        let width = config.transformer.width;
        let mut embedding = |name: &str, rows: usize, deviation: f32| {
            let name = format!("text_model.embeddings.{name}_embedding.weight");
            source.tensor(&name, &[rows, width], Init::Normal { deviation })
        };
        let tokens = embedding("token", config.vocabulary, 0.02)?;
        let positions = embedding("position", config.context_length, 0.01)?;
        let eps = config.transformer.layer_norm_eps;
        let deviation = (width as f32).powf(-0.5);
        Ok(Self {
            tokens,
            positions,
            transformer: stack(source, "text_model.encoder")?,
            norm: LayerNorm::new(source, "text_model.final_layer_norm", width, eps)?,
            projection: if config.projection_bias {
                Linear::new(source, "text_model.head", (width, dim), deviation)?
            } else {
                Linear::without_bias(source, "text_projection", (width, dim), deviation)?
            },
            config: config.clone(),
        })
    }
}

impl TextTower {
    /// Pooled outputs `[n, width]` of texts of 1 to `context_length` tokens each.
    ///
    /// Texts of similar length go through together, padded to the longest of them. Where padding
    /// would take part (see [`TextConfig::padded`]) all have `context_length` tokens; otherwise
    /// attention is causal and the pooled token comes before any padding, so it changes nothing.
    ///
    /// # Errors
    /// When a text is empty, too long, too short where padding takes part, or holds an unknown id.
    pub fn pooled<S: AsRef<[u32]>>(&self, texts: &[S]) -> Result<Tensor> {
        let mut order: Vec<u32> = (0..texts.len() as u32).collect();
        order.sort_by_key(|i| texts[*i as usize].as_ref().len());
        let together = !self.tokens.device().is_cpu();
        let mut groups = Vec::new();
        for group in order.chunk_by(|a, b| {
            let length = |i: &u32| texts[*i as usize].as_ref().len().div_ceil(GROUP_STEP);
            together || length(a) == length(b)
        }) {
            let texts: Vec<&[u32]> = group.iter().map(|i| texts[*i as usize].as_ref()).collect();
            groups.push(self.pooled_group(&texts)?);
        }
        if groups.len() == 1 && order.is_sorted() {
            return Ok(groups.remove(0));
        }
        // Where each text went, to bring the rows back into the order of the texts.
        let mut place = vec![0_u32; order.len()];
        for (at, i) in order.iter().enumerate() {
            place[*i as usize] = at as u32;
        }
        let place = Tensor::from_vec(place, order.len(), self.tokens.device())?;
        Tensor::cat(&groups, 0)?.index_select(&place, 0)
    }

    fn pooled_group(&self, texts: &[&[u32]]) -> Result<Tensor> {
        let lengths = || texts.iter().map(|t| t.len());
        let longest = lengths().max().unwrap_or(0);
        self.config.check_lengths(lengths())?;
        let device = self.tokens.device();
        let (n, t) = (texts.len(), longest);
        let mut ids = vec![0_u32; n * t];
        let mut pooled = Vec::with_capacity(n);
        for (i, text) in texts.iter().enumerate() {
            ids[i * t..i * t + text.len()].copy_from_slice(text);
            pooled.push((i * t + self.config.pooling.position(text)) as u32);
        }
        let ids = Tensor::from_vec(ids, n * t, device)?;
        let width = self.config.transformer.width;
        let x = gather_rows(&self.tokens, &ids)?.reshape((n, t * width))?;
        let positions = self.positions.narrow(0, 0, t)?.flatten_all()?;
        let x = add_bias(&x, &positions)?.reshape((n, t, width))?;
        let mask = if self.config.causal {
            Some(causal_mask(t, device)?)
        } else {
            None
        };
        let x = self.transformer.forward(&x, mask.as_ref())?;
        let pooled = Tensor::from_vec(pooled, n, device)?;
        let x = gather_rows(&x.reshape((n * t, width))?, &pooled)?;
        self.norm.forward(&x)
    }

    /// Pooled rows `[n, width]` to the shared space, `[n, dim]`, not yet of unit length.
    ///
    /// # Errors
    /// When the shape does not fit.
    pub fn project(&self, pooled: &Tensor) -> Result<Tensor> {
        self.projection.forward(pooled)
    }

    /// The shared projection, `[dim, width]`.
    pub fn projection(&self) -> &Tensor {
        self.projection.weight()
    }
}

/// `[t, t]`: 0 where a token may look, minus infinity where it may not.
fn causal_mask(t: usize, device: &Device) -> Result<Tensor> {
    let value = |from: usize, to: usize| if to > from { f32::NEG_INFINITY } else { 0.0 };
    let mask: Vec<f32> = (0..t * t).map(|i| value(i / t, i % t)).collect();
    Tensor::from_vec(mask, (t, t), device)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pooled_token_follows_the_convention_of_the_config() {
        assert_eq!(Pooling::LargestId.position(&[5, 9, 3, 9]), 1);
        assert_eq!(Pooling::FirstOf(3).position(&[5, 9, 3, 9, 3]), 2);
        assert_eq!(Pooling::FirstOf(7).position(&[5, 9, 3]), 0);
        assert_eq!(Pooling::First.position(&[5, 9, 3]), 0);
        assert_eq!(Pooling::Last.position(&[5, 9, 3]), 2);
    }
}
