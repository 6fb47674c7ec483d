//! A model folder as two encoders.

use std::{path::Path, sync::Arc};

use candle_core::Tensor;
use embedding::{Embedding, EncodeError, Encoded, Encoder, Modality, Spaces};
use serde::Serialize;

use crate::{
    ModelError, Picture, Pixels, PreprocessConfig, TextTokenizer, builtin,
    complement::Complement,
    cpu::{Level, Plan, Precision},
    folder::{Description, Files, SmallFiles, WEIGHTS, family},
    nn::{FileSource, Init, NetworkConfig, Source, network::logits},
    towers::{Backend, ImageRunner, TextRunner},
    weights::map_file,
};

/// Inputs that one pass through a tower takes at most, which bounds its memory.
const PASS: usize = 32;

/// Facts about a model.
#[derive(Debug, Clone, Serialize)]
pub struct ModelInfo {
    /// Its name.
    pub name: String,
    /// `"clip"` (text transformer, vision transformer) or `"diptych"` (text transformer, residual
    /// convolution tower).
    pub family: &'static str,
    /// The spaces that it fills.
    pub spaces: Spaces,
    /// Longest text in tokens, special ones included.
    pub context_length: usize,
    /// Side of the square pictures that it sees, in pixels.
    pub image_size: usize,
    /// Number of weights that were learned: neither running statistics nor position ids count.
    pub parameters: usize,
    /// Factor from cosines to logits.
    pub logit_scale: f32,
    /// License of the weights, where the folder says it.
    pub license: Option<String>,
    /// What it is for and where it comes from, where the folder says it.
    pub description: Option<String>,
}

/// Two towers, ready to encode. Cheap to clone.
#[derive(Clone)]
pub struct Model {
    info: Arc<ModelInfo>,
    preprocess: Arc<PreprocessConfig>,
    text: Arc<TextEncoder>,
    image: Arc<ImageEncoder>,
}

impl Model {
    /// Reads a model folder.
    ///
    /// # Errors
    /// When a file is missing, damaged, or asks for something that is not supported; the message
    /// names file and key.
    pub fn load(folder: &Path) -> Result<Self, ModelError> {
        let small = SmallFiles::read(folder)?;
        let weights = map_file(&folder.join(WEIGHTS))?;
        Self::from_files(&Files {
            folder: folder.to_owned(),
            config: &small.config,
            preprocessor: &small.preprocessor,
            tokenizer: &small.tokenizer,
            weights: &weights,
            card: small.card.as_deref(),
        })
    }

    /// The model that is part of the binary: drawings and emoji, not photographs.
    ///
    /// # Errors
    /// Only when the binary was built from damaged files.
    pub fn builtin() -> Result<Self, ModelError> {
        Self::from_files(&builtin::files())
    }

    pub(crate) fn from_files(files: &Files<'_>) -> Result<Self, ModelError> {
        let Description {
            network,
            preprocess,
            tokenizer,
            card,
            fingerprint,
        } = files.describe()?;
        let file = files.folder.join(WEIGHTS);
        let mut source = FileSource::new(files.weights, &file)?;
        let backend = Backend::Packed(Plan {
            level: Level::best(),
            precision: Precision::F32,
        });
        let (text_width, image_width) = (network.text.transformer.width, network.image.width());
        let (text, shared) = TextRunner::new(&mut source, &network, backend)?;
        let text_specific = Specific::new(&mut source, "text", shared.as_ref(), text_width)?;
        let (image, shared) = ImageRunner::new(&mut source, &network, backend)?;
        let image_specific = Specific::new(&mut source, "visual", shared.as_ref(), image_width)?;
        let (logit_scale, _) = logits(&mut source, &network)?;
        let spaces = Spaces {
            model: card.name.clone(),
            fingerprint,
            shared_dim: network.dim,
            specific_text_dim: text_specific.dim(text_width)?,
            specific_image_dim: image_specific.dim(image_width)?,
        };
        let info = ModelInfo {
            name: card.name,
            family: family(&network),
            spaces: spaces.clone(),
            context_length: network.text.context_length,
            image_size: network.image.image_size(),
            parameters: source.parameters(),
            logit_scale: logit_scale.to_scalar::<f32>()?.exp(),
            license: card.license,
            description: card.description,
        };
        let text = TextEncoder {
            tokenizer,
            tower: text,
            specific: text_specific,
            spaces: spaces.clone(),
        };
        let image = ImageEncoder {
            tower: image,
            specific: image_specific,
            spaces,
            network,
        };
        Ok(Self {
            info: Arc::new(info),
            preprocess: Arc::new(preprocess),
            text: Arc::new(text),
            image: Arc::new(image),
        })
    }

    /// Facts about the model.
    pub fn info(&self) -> &ModelInfo {
        &self.info
    }

    /// The spaces that it fills.
    pub fn spaces(&self) -> &Spaces {
        &self.info.spaces
    }

    /// Factor from cosines to logits.
    pub fn logit_scale(&self) -> f32 {
        self.info.logit_scale
    }

    /// What the image tower wants to see of a picture.
    pub fn prepare(&self, picture: &Picture) -> Pixels {
        self.preprocess.prepare(picture)
    }

    /// Token ids of a text as the text tower gets them.
    ///
    /// # Errors
    /// When the tokenizer's rules fail on this text; the reason is in words.
    pub fn tokenize(&self, text: &str) -> Result<Vec<u32>, String> {
        self.text.tokenizer.encode(text)
    }

    /// The text tower.
    pub fn text(&self) -> Arc<dyn Encoder<String>> {
        Arc::clone(&self.text) as _
    }

    /// The image tower.
    pub fn image(&self) -> Arc<dyn Encoder<Pixels>> {
        Arc::clone(&self.image) as _
    }
}

/// Where specific embeddings come from.
enum Specific {
    /// A projection of their own, `[dim, width]`.
    Projection(Tensor),
    /// What the shared projection discards.
    Complement(Complement),
    /// The shared projection discards nothing.
    Nothing,
}

impl Specific {
    /// Takes `{tower}_specific_projection.weight` where the file has it. `shared` is the shared
    /// projection, `[dim, width]`, where there is one.
    fn new(
        source: &mut FileSource<'_>,
        tower: &str,
        shared: Option<&Tensor>,
        width: usize,
    ) -> Result<Self, ModelError> {
        let name = format!("{tower}_specific_projection.weight");
        if let Some(shape) = source.shape(&name) {
            // As many rows as the file has, but at least one: an embedding has elements.
            let rows = shape.first().copied().unwrap_or_default().max(1);
            let shape = [rows, width];
            return Ok(Self::Projection(source.tensor(
                &name,
                &shape,
                Init::Constant(0.0),
            )?));
        }
        let complement = shared.map(Complement::new).transpose()?.flatten();
        Ok(complement.map_or(Self::Nothing, Self::Complement))
    }

    fn dim(&self, width: usize) -> Result<Option<usize>, ModelError> {
        Ok(match self {
            Self::Projection(weight) => Some(weight.dim(0)?),
            Self::Complement(_) => Some(width),
            Self::Nothing => None,
        })
    }

    fn of(&self, pooled: &Tensor) -> candle_core::Result<Option<Tensor>> {
        match self {
            Self::Projection(weight) => pooled.matmul(&weight.t()?).map(Some),
            Self::Complement(complement) => complement.of(pooled).map(Some),
            Self::Nothing => Ok(None),
        }
    }
}

struct TextEncoder {
    tokenizer: TextTokenizer,
    tower: TextRunner,
    specific: Specific,
    spaces: Spaces,
}

impl Encoder<String> for TextEncoder {
    fn spaces(&self) -> &Spaces {
        &self.spaces
    }

    fn modality(&self) -> Modality {
        Modality::Text
    }

    fn encode(&self, batch: &[String]) -> Result<Vec<Encoded>, EncodeError> {
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

struct ImageEncoder {
    tower: ImageRunner,
    specific: Specific,
    spaces: Spaces,
    network: NetworkConfig,
}

impl Encoder<Pixels> for ImageEncoder {
    fn spaces(&self) -> &Spaces {
        &self.spaces
    }

    fn modality(&self) -> Modality {
        Modality::Image
    }

    fn encode(&self, batch: &[Pixels]) -> Result<Vec<Encoded>, EncodeError> {
        let side = self.network.image.image_size();
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
