//! The text tower on packed weights.

use candle_core::{Device, Result, Tensor};
use half::bf16;
use kernels::Precision;

use super::{
    Plan,
    load::norm,
    packed::Packed,
    passes::Workspaces,
    project,
    transformer::{Norm, Transformer},
};
use crate::{
    ModelError,
    nn::{self, Source, TextConfig, ops::Elements},
};

/// Token ids to pooled and projected rows; [`nn::TextTower`] says what it computes.
pub(crate) struct TextTower {
    plan: Plan,
    tokens: Table,
    positions: Vec<f32>,
    transformer: Transformer,
    norm: Norm,
    projection: Packed,
    config: TextConfig,
    workspaces: Workspaces,
}

/// Rows of token embeddings.
enum Table {
    F32(Vec<f32>),
    Bf16(Vec<bf16>),
}

impl Table {
    fn bytes(&self) -> usize {
        match self {
            Self::F32(values) => 4 * values.len(),
            Self::Bf16(values) => 2 * values.len(),
        }
    }

    /// Writes the sum of row `id` and `position`.
    fn add(&self, id: usize, position: &[f32], to: &mut [f32]) {
        let width = position.len();
        match self {
            Self::F32(values) => {
                let row = &values[id * width..][..width];
                for ((to, a), b) in to.iter_mut().zip(row).zip(position) {
                    *to = a + b;
                }
            }
            Self::Bf16(values) => {
                let row = &values[id * width..][..width];
                for ((to, a), b) in to.iter_mut().zip(row).zip(position) {
                    *to = a.to_f32() + b;
                }
            }
        }
    }
}

impl TextTower {
    /// Takes the tensors that [`nn::TextTower::new`] takes; also returns the shared projection,
    /// `[dim, width]`.
    ///
    /// # Errors
    /// When one is missing or has another shape.
    pub(crate) fn new(
        source: &mut dyn Source,
        config: &TextConfig,
        dim: usize,
        plan: Plan,
    ) -> std::result::Result<(Self, Tensor), ModelError> {
        let causal = config.causal;
        let parts = nn::TextTower::with(source, config, dim, |source, prefix| {
            plan.stack(source, prefix, &config.transformer, causal)
        })?;
        let tokens = {
            let tokens = Elements::of(&parts.tokens);
            match plan.precision {
                Precision::F32 => Table::F32(tokens.slice()?.to_vec()),
                Precision::Int16 | Precision::Bf16 | Precision::Int8 => {
                    Table::Bf16(tokens.slice()?.iter().map(|x| bf16::from_f32(*x)).collect())
                }
            }
        };
        let shared = parts.projection.weight().clone();
        let tower = Self {
            plan,
            tokens,
            positions: Elements::of(&parts.positions).slice()?.to_vec(),
            norm: norm(&parts.norm)?,
            projection: plan.pack_as(Precision::F32, &parts.projection)?,
            transformer: parts.transformer,
            config: parts.config,
            workspaces: Workspaces::new(),
        };
        Ok((tower, shared))
    }

    /// Bytes of weights.
    pub(crate) fn bytes(&self) -> usize {
        let positions = 4 * self.positions.len();
        self.tokens.bytes() + positions + self.transformer.bytes() + self.projection.bytes()
    }

    /// Pooled outputs `[n, width]`; [`nn::TextTower::pooled`] says of which texts.
    ///
    /// Nothing is padded, and what comes after the pooled token of a causal tower is left out: it
    /// cannot be seen from there.
    ///
    /// # Errors
    /// When a text has a length that is not supported, or holds an unknown id.
    pub(crate) fn pooled<S: AsRef<[u32]> + Sync>(&self, texts: &[S]) -> Result<Tensor> {
        let config = &self.config;
        config.check_lengths(texts.iter().map(|text| text.as_ref().len()))?;
        let known = |id: &u32| (*id as usize) < config.vocabulary;
        if let Some(id) = texts.iter().flat_map(AsRef::as_ref).find(|id| !known(id)) {
            candle_core::bail!("token id {id} is not below {}", config.vocabulary);
        }
        let pooled: Vec<usize> = texts
            .iter()
            .map(|text| config.pooling.position(text.as_ref()))
            .collect();
        let lengths: Vec<usize> = texts
            .iter()
            .zip(&pooled)
            .map(|(text, pooled)| {
                if config.causal {
                    pooled + 1
                } else {
                    text.as_ref().len()
                }
            })
            .collect();
        let width = config.transformer.width;
        let rows = self
            .workspaces
            .run(&self.transformer, &lengths, |range, workspace, team| {
                let mut row = 0;
                for i in range.clone() {
                    for (at, id) in texts[i].as_ref()[..lengths[i]].iter().enumerate() {
                        let position = &self.positions[at * width..][..width];
                        self.tokens
                            .add(*id as usize, position, workspace.token(row));
                        row += 1;
                    }
                }
                let pooled = &pooled[range.clone()];
                self.transformer
                    .run(workspace, &lengths[range.clone()], Some(pooled), team);
                let mut out = vec![0.0; range.len() * width];
                for (i, out) in out.chunks_exact_mut(width).enumerate() {
                    self.norm.of(self.plan.level, workspace.token(i), out);
                }
                out
            });
        Tensor::from_vec(rows, (texts.len(), width), &Device::Cpu)
    }

    /// Pooled rows `[n, width]` to the shared space, `[n, dim]`, not yet of unit length.
    ///
    /// # Errors
    /// When the shape does not fit.
    pub(crate) fn project(&self, pooled: &Tensor) -> Result<Tensor> {
        project(&self.projection, pooled)
    }
}
