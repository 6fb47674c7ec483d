//! The two halves of a model: inputs in, embeddings out.

use candle_core::Tensor;
use embedding::{Embedding, EncodeError, Encoded};

use crate::{
    ModelError, Pixels, TextTokenizer,
    nn::{FileSource, ImageConfig, NetworkConfig},
    specific::Specific,
    towers::{Backend, ImageRunner, TextRunner},
};

/// Inputs that one pass through a tower takes at most, which bounds its memory.
const PASS: usize = 32;

/// Texts to embeddings.
pub(crate) struct TextHalf {
    pub tokenizer: TextTokenizer,
    tower: TextRunner,
    specific: Specific,
    width: usize,
}

/// Pixels to embeddings.
pub(crate) struct ImageHalf {
    tower: ImageRunner,
    specific: Specific,
    network: ImageConfig,
}

impl TextHalf {
    pub(crate) fn new(
        source: &mut FileSource<'_>,
        network: &NetworkConfig,
        tokenizer: TextTokenizer,
        backend: Backend,
    ) -> Result<Self, ModelError> {
        let width = network.text.transformer.width;
        let (tower, shared) = TextRunner::new(source, network, backend)?;
        Ok(Self {
            tokenizer,
            tower,
            specific: Specific::new(source, "text", shared.as_ref(), width)?,
            width,
        })
    }

    /// Elements of a specific embedding.
    pub(crate) fn specific_dim(&self) -> Result<Option<usize>, ModelError> {
        self.specific.dim(self.width)
    }

    /// Bytes of packed weights; 0 where the tower is not packed.
    pub(crate) fn bytes(&self) -> usize {
        self.tower.bytes()
    }

    /// Tokens of a text; 0 where it cannot be tokenized.
    pub(crate) fn tokens(&self, text: &str) -> usize {
        self.tokenizer.encode(text).map_or(0, |ids| ids.len())
    }

    /// One embedding per text, in order.
    pub(crate) fn encode(&self, batch: &[String]) -> Result<Vec<Encoded>, EncodeError> {
        let mut ids = Vec::with_capacity(batch.len());
        for (position, text) in batch.iter().enumerate() {
            let bad = |reason| EncodeError::BadInput { position, reason };
            ids.push(self.tokenizer.encode(text).map_err(bad)?);
        }
        let mut rows = Vec::with_capacity(batch.len());
        for part in ids.chunks(PASS) {
            let pass = || {
                let pooled = self.tower.pooled(part)?;
                Ok((self.tower.project(&pooled)?, self.specific.of(&pooled)?))
            };
            collect(&mut rows, pass())?;
        }
        Ok(rows)
    }
}

impl ImageHalf {
    pub(crate) fn new(
        source: &mut FileSource<'_>,
        network: &NetworkConfig,
        backend: Backend,
    ) -> Result<Self, ModelError> {
        let (tower, shared) = ImageRunner::new(source, network, backend)?;
        let specific = Specific::new(source, "visual", shared.as_ref(), network.image.width())?;
        Ok(Self {
            tower,
            specific,
            network: network.image.clone(),
        })
    }

    /// Elements of a specific embedding.
    pub(crate) fn specific_dim(&self) -> Result<Option<usize>, ModelError> {
        self.specific.dim(self.network.width())
    }

    /// Bytes of packed weights; 0 where the tower is not packed.
    pub(crate) fn bytes(&self) -> usize {
        self.tower.bytes()
    }

    /// Patches of a picture.
    pub(crate) fn patches(&self) -> usize {
        self.network.patches()
    }

    /// One embedding per picture, in order.
    pub(crate) fn encode(&self, batch: &[Pixels]) -> Result<Vec<Encoded>, EncodeError> {
        let side = self.network.image_size();
        for (position, pixels) in batch.iter().enumerate() {
            if (pixels.height(), pixels.width()) != (side, side) {
                let (height, width) = (pixels.height(), pixels.width());
                let reason = format!("pixels are {height} x {width}, expected {side} x {side}");
                return Err(EncodeError::BadInput { position, reason });
            }
        }
        let mut rows = Vec::with_capacity(batch.len());
        for part in batch.chunks(PASS) {
            let pass = || {
                let pooled = self.tower.pooled(part)?;
                Ok((self.tower.project(&pooled)?, self.specific.of(&pooled)?))
            };
            collect(&mut rows, pass())?;
        }
        Ok(rows)
    }
}

/// Makes unit embeddings of the rows of one pass.
fn collect(
    rows: &mut Vec<Encoded>,
    pass: candle_core::Result<(Tensor, Option<Tensor>)>,
) -> Result<(), EncodeError> {
    let network = |e: candle_core::Error| EncodeError::Network(e.into());
    let (shared, specific) = pass.map_err(network)?;
    let shared = shared.to_vec2::<f32>().map_err(network)?;
    let specific = specific
        .map(|s| s.to_vec2::<f32>())
        .transpose()
        .map_err(network)?;
    let mut specific = specific.map(Vec::into_iter);
    for row in shared {
        let position = rows.len();
        let unit = |row| {
            Embedding::normalized(row).map_err(|source| EncodeError::BadOutput { position, source })
        };
        let specific = specific
            .as_mut()
            .and_then(Iterator::next)
            .map(unit)
            .transpose()?;
        rows.push(Encoded {
            shared: unit(row)?,
            specific,
        });
    }
    Ok(())
}
