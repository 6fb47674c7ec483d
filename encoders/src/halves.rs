//! The two halves of a model: inputs in, embeddings out.

use candle_core::Tensor;
use embedding::{Embedding, EncodeError, Encoded};

use crate::{
    ModelError, Pixels, PreprocessConfig, TextTokenizer,
    folder::FolderSource,
    nn::NetworkConfig,
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
    width: usize,
    patch_side: usize,
    input: Input,
}

/// Which pictures an image tower takes.
enum Input {
    /// Those of this height and width.
    Size(usize, usize),
    /// Those of whole patches.
    Patches {
        /// Side of a patch in pixels.
        patch: usize,
        /// Most patches of a picture.
        most: usize,
    },
}

impl Input {
    /// What is wrong with pixels of this size.
    fn problem(&self, height: usize, width: usize) -> Option<String> {
        match *self {
            Self::Size(rows, columns) if (height, width) != (rows, columns) => Some(format!(
                "pixels are {height} x {width}, expected {rows} x {columns}"
            )),
            Self::Patches { patch, most }
                if !height.is_multiple_of(patch)
                    || !width.is_multiple_of(patch)
                    || (height / patch).saturating_mul(width / patch) > most =>
            {
                Some(format!(
                    "pixels are {height} x {width}, expected at most {most} whole patches of \
                     {patch} x {patch}"
                ))
            }
            _ => None,
        }
    }
}

impl TextHalf {
    pub(crate) fn new(
        source: &mut FolderSource<'_>,
        network: &NetworkConfig,
        tokenizer: TextTokenizer,
        backend: Backend,
    ) -> Result<Self, ModelError> {
        let width = network.text.transformer.width;
        let (tower, shared) = TextRunner::new(source, network, backend)?;
        Ok(Self {
            tokenizer,
            tower,
            specific: Specific::new(source, "text", shared.as_ref(), (width, 0))?,
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
                let specific = self.specific.of(&pooled, None)?;
                Ok((self.tower.project(&pooled)?, specific))
            };
            collect(&mut rows, pass())?;
        }
        Ok(rows)
    }
}

impl ImageHalf {
    pub(crate) fn new(
        source: &mut FolderSource<'_>,
        network: &NetworkConfig,
        preprocess: &PreprocessConfig,
        backend: Backend,
    ) -> Result<Self, ModelError> {
        let (tower, shared) = ImageRunner::new(source, network, backend)?;
        let width = network.image.width();
        let sizes = (width, network.image.details());
        let specific = Specific::new(source, "visual", shared.as_ref(), sizes)?;
        let side = network.image.image_size();
        let size = preprocess.size();
        Ok(Self {
            tower,
            specific,
            width,
            patch_side: network.image.patch_side(),
            input: match preprocess.patches() {
                Some((patch, most)) => Input::Patches { patch, most },
                None => size.map_or(Input::Size(side, side), |size| {
                    Input::Size(size.height.get() as usize, size.width.get() as usize)
                }),
            },
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

    /// Patches of a picture, whole or not.
    pub(crate) fn patches(&self, pixels: &Pixels) -> usize {
        let along = |side: usize| side.div_ceil(self.patch_side);
        along(pixels.height()) * along(pixels.width())
    }

    /// One embedding per picture, in order.
    pub(crate) fn encode(&self, batch: &[Pixels]) -> Result<Vec<Encoded>, EncodeError> {
        for (position, pixels) in batch.iter().enumerate() {
            if let Some(reason) = self.input.problem(pixels.height(), pixels.width()) {
                return Err(EncodeError::BadInput { position, reason });
            }
        }
        let mut rows = Vec::with_capacity(batch.len());
        for part in batch.chunks(PASS) {
            let pass = || {
                let (pooled, details) = if self.specific.reads_details() {
                    self.tower.with_details(part)?
                } else {
                    (self.tower.pooled(part)?, None)
                };
                let specific = self.specific.of(&pooled, details.as_ref())?;
                Ok((self.tower.project(&pooled)?, specific))
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
