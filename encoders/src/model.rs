//! A model folder as two encoders.

use std::{path::Path, sync::Arc};

use embedding::{EncodeError, Encoded, Encoder, Modality, Scoring, Spaces};
use serde::Serialize;

use crate::{
    Deviation, ModelError, Picture, Pixels, Precision, PreprocessConfig, RunOptions,
    folder::{Description, SmallFiles, family},
    halves::{ImageHalf, TextHalf},
    load::{Chosen, Loader},
    weights::give_back_memory,
};

/// Facts about a model.
#[derive(Debug, Clone, Serialize)]
pub struct ModelInfo {
    /// Its name.
    pub name: String,
    /// `"clip"`, `"siglip"` (`SigLIP`, and `SigLIP` 2 of one resolution), `"siglip2"` (its `NaFlex`), all
    /// with two transformers, or `"diptych"` (text transformer, residual convolution tower).
    pub family: &'static str,
    /// The spaces that it fills.
    pub spaces: Spaces,
    /// Longest text in tokens, special ones included.
    pub context_length: usize,
    /// Side in pixels of the square pictures that it was trained on.
    pub image_size: usize,
    /// Height and width in pixels of what pictures are made to; `None` where each keeps nearly its
    /// own proportions.
    pub input_size: Option<[usize; 2]>,
    /// Number of weights that were learned: neither running statistics nor position ids count.
    pub parameters: usize,
    /// How cosines become probabilities.
    pub scoring: Scoring,
    /// How the text tower runs.
    pub text: TowerInfo,
    /// How the image tower runs.
    pub image: TowerInfo,
    /// License of the weights, where the folder says it.
    pub license: Option<String>,
    /// Languages that the text tower was trained for, as BCP 47 writes them; empty where the folder
    /// does not say.
    pub languages: Vec<String>,
    /// What it is for and where it comes from, where the folder says it.
    pub description: Option<String>,
}

/// How a tower runs.
#[derive(Debug, Clone, Serialize)]
pub struct TowerInfo {
    /// How weights and activations are stored.
    pub precision: Precision,
    /// The instruction set of its kernels; `"reference"` where it does not run on packed weights.
    pub kernels: &'static str,
    /// Bytes of packed weights; 0 where they are not packed.
    pub packed_bytes: usize,
    /// How far its embeddings of the first probes were from the stored ones at load; `None` where
    /// the model has no probes.
    pub probes: Option<Deviation>,
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
    /// Reads a model folder and runs it as [`RunOptions::default`] says.
    ///
    /// # Errors
    /// When a file is missing, damaged, or asks for something that is not supported, the message
    /// names file and key; or when the embeddings of its probes are wrong.
    pub fn load(folder: &Path) -> Result<Self, ModelError> {
        Self::load_with(folder, RunOptions::default())
    }

    /// Reads a model folder.
    ///
    /// # Errors
    /// As [`Model::load`].
    pub fn load_with(folder: &Path, options: impl Into<RunOptions>) -> Result<Self, ModelError> {
        let name = folder.file_name().map(|name| name.to_string_lossy());
        Self::load_named(folder, name.as_deref().unwrap_or("model"), options)
    }

    /// Reads a model folder whose own name says nothing: `name` stands in for it where the folder has
    /// no card, or the card no name.
    ///
    /// # Errors
    /// As [`Model::load_with`].
    pub fn load_named(
        folder: &Path,
        name: &str,
        options: impl Into<RunOptions>,
    ) -> Result<Self, ModelError> {
        let small = SmallFiles::read(folder)?;
        Self::from_loader(Loader::of(folder, name, &small)?, options.into())
    }

    /// The model that is part of the binary: drawings and emoji, not photographs.
    ///
    /// # Errors
    /// Only when the binary was built from damaged files, or its kernels compute wrongly here.
    pub fn builtin() -> Result<Self, ModelError> {
        Self::builtin_with(RunOptions::default())
    }

    /// The same, run as asked for.
    ///
    /// # Errors
    /// As [`Model::builtin`].
    pub fn builtin_with(options: impl Into<RunOptions>) -> Result<Self, ModelError> {
        Self::from_loader(Loader::builtin()?, options.into())
    }

    pub(crate) fn from_loader(loader: Loader<'_>, options: RunOptions) -> Result<Self, ModelError> {
        // Parts of one are read and packed while the other waits.
        let (text, image) = rayon::join(
            || loader.chosen_text(options),
            || loader.chosen_image(options),
        );
        let ((text, text_run), (image, image_run)) = (text?, image?);
        give_back_memory();
        let (parameters, scoring) = (loader.source()?.files().parameters(), loader.scoring()?);
        let Description {
            network,
            preprocess,
            card,
            fingerprint,
            ..
        } = loader.description;
        let spaces = Spaces {
            model: card.name.clone(),
            fingerprint,
            shared_dim: network.dim,
            specific_text_dim: text.specific_dim()?,
            specific_image_dim: image.specific_dim()?,
            scoring: Some(scoring),
        };
        let input = preprocess.size();
        let info = ModelInfo {
            name: card.name,
            family: family(&network),
            spaces: spaces.clone(),
            context_length: network.text.context_length,
            image_size: network.image.image_size(),
            input_size: input.map(|size| [size.height, size.width].map(|side| side.get() as usize)),
            parameters,
            scoring,
            text: TowerInfo::new(text_run, text.bytes()),
            image: TowerInfo::new(image_run, image.bytes()),
            license: card.license,
            languages: card.languages,
            description: card.description,
        };
        let text = TextEncoder {
            half: text,
            spaces: spaces.clone(),
        };
        let image = ImageEncoder {
            half: image,
            spaces,
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

    /// How cosines of pictures and texts become probabilities.
    pub fn scoring(&self) -> Scoring {
        self.info.scoring
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
        self.text.half.tokenizer.encode(text)
    }

    /// Whether a text is longer than what the text tower reads of it.
    pub fn cuts(&self, text: &str) -> bool {
        self.text.half.tokenizer.cuts(text)
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

impl TowerInfo {
    fn new(run: Chosen, packed_bytes: usize) -> Self {
        Self {
            precision: run.backend.precision(),
            kernels: run.backend.kernels(),
            packed_bytes,
            probes: run.deviation,
        }
    }
}

struct TextEncoder {
    half: TextHalf,
    spaces: Spaces,
}

impl Encoder<String> for TextEncoder {
    fn spaces(&self) -> &Spaces {
        &self.spaces
    }

    fn modality(&self) -> Modality {
        Modality::Text
    }

    fn cost(&self, input: &String) -> usize {
        self.half.tokens(input).max(1)
    }

    fn encode(&self, batch: &[String]) -> Result<Vec<Encoded>, EncodeError> {
        self.half.encode(batch)
    }
}

struct ImageEncoder {
    half: ImageHalf,
    spaces: Spaces,
}

impl Encoder<Pixels> for ImageEncoder {
    fn spaces(&self) -> &Spaces {
        &self.spaces
    }

    fn modality(&self) -> Modality {
        Modality::Image
    }

    fn cost(&self, input: &Pixels) -> usize {
        self.half.patches(input).max(1)
    }

    fn encode(&self, batch: &[Pixels]) -> Result<Vec<Encoded>, EncodeError> {
        self.half.encode(batch)
    }
}
