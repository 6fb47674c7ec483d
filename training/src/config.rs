//! What a training run is told, as one TOML file.

pub(crate) mod check;
mod data;
mod sources;

use std::path::{Path, PathBuf};

use encoders::nn::{
    Activation, ImageConfig, NetworkConfig, Pooling, ResidualConfig, TextConfig, TransformerConfig,
    VitConfig,
};
use fs_err as fs;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

pub use data::DataConfig;
pub use sources::Validation;

use crate::{
    TrainingError,
    objective::{gamma::GammaConfig, latent::LatentWeights},
};

/// Everything that decides the result of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunConfig {
    /// Seed of every random choice.
    pub seed: u64,
    /// Pictures and their words.
    pub data: DataConfig,
    /// Sizes of the two towers.
    pub model: ModelSection,
    /// What is minimized; plain `InfoNCE` where nothing is said.
    #[serde(default)]
    pub objective: ObjectiveConfig,
    /// Steps and learning rates.
    pub optimizer: OptimizerConfig,
    /// When to stop early; never where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop: Option<StopConfig>,
    /// How captions are worded; as names alone where nothing is said. Those of pairs are as they are.
    #[serde(default)]
    pub captions: CaptionConfig,
    /// How pictures are varied; not at all where nothing is said.
    #[serde(default)]
    pub augment: AugmentConfig,
}

fn one() -> f64 {
    1.0
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_one(x: &f64) -> bool {
    x.to_bits() == one().to_bits()
}

/// Sizes of the two towers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelSection {
    /// Name in the model folder.
    pub name: String,
    /// Elements of a shared embedding, of a model that is trained from nothing.
    #[serde(default)]
    pub dim: usize,
    /// Whether there are trained specific embeddings, of as many elements as shared ones.
    #[serde(default)]
    pub specific: bool,
    /// The model folder that the run begins with, in place of sizes; `builtin` is the built-in model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<PathBuf>,
    /// What of it stands still: `image`, `text`, or names of tensors, in which `*` stands for anything.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub freeze: Vec<String>,
    /// Factor on the learning rate for each layer above a tensor in its tower.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub layer_decay: f64,
    /// Low-rank adapters in place of moving weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lora: Option<LoraConfig>,
    /// Its image tower.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageSection>,
    /// Its text tower.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<TextSection>,
}

/// Low-rank adapters of attention (Hu et al. 2021).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoraConfig {
    /// Rows of `A`.
    pub rank: usize,
    /// `alpha / rank` is the factor on `B A`.
    pub alpha: f64,
    /// Which maps: of `q_proj`, `k_proj`, `v_proj`, `out_proj`.
    #[serde(default = "LoraConfig::all")]
    pub targets: Vec<String>,
}

impl LoraConfig {
    /// The four maps of attention.
    pub fn all() -> Vec<String> {
        ["q_proj", "k_proj", "v_proj", "out_proj"]
            .map(str::to_owned)
            .to_vec()
    }
}

/// The image tower.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum ImageSection {
    /// A residual convolution tower.
    Residual {
        /// Side of the square input in pixels.
        image_size: usize,
        /// Channels after each convolution of the stem.
        stem: Vec<usize>,
        /// Channels of each stage.
        stages: Vec<usize>,
        /// Blocks per stage.
        blocks: usize,
        /// Elements of the pooled output.
        width: usize,
    },
    /// CLIP's vision transformer.
    Vit {
        /// Side of the square input in pixels.
        image_size: usize,
        /// Side of a patch in pixels.
        patch_size: usize,
        /// Elements per token.
        width: usize,
        /// Number of blocks.
        layers: usize,
        /// Heads per block.
        heads: usize,
    },
}

/// The text tower.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextSection {
    /// Number of token ids, at least 514 (two forms of each byte, and two special tokens).
    pub vocabulary: usize,
    /// Longest text in tokens.
    pub context_length: usize,
    /// Elements per token.
    pub width: usize,
    /// Number of blocks.
    pub layers: usize,
    /// Heads per block.
    pub heads: usize,
}

/// What is minimized.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ObjectiveConfig {
    /// How images and texts are contrasted; `InfoNCE` where nothing is said.
    pub contrast: Option<GammaConfig>,
    /// Weights of the terms beside the cross-modal contrast.
    pub latent: LatentWeights,
    /// Share of all steps before which those terms, and the second views that they need, are left
    /// out: one view of each pair costs half as much.
    pub latent_from: f64,
}

impl ObjectiveConfig {
    /// Weights of the terms beside the contrast at a share of all steps.
    pub fn latent_at(&self, progress: f64) -> LatentWeights {
        if progress < self.latent_from {
            LatentWeights::default()
        } else {
            self.latent
        }
    }

    /// Whether a second view of each pair is needed at a share of all steps.
    pub fn second_view(&self, progress: f64) -> bool {
        let w = self.latent_at(progress);
        [w.in_modal, w.separation, w.bridge, w.geometric_views]
            .into_iter()
            .any(|weight| weight > 0.0)
    }
}

/// Steps and learning rates of `AdamW` (Loshchilov, Hutter 2019).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OptimizerConfig {
    /// Pairs per step.
    pub batch: usize,
    /// Number of steps.
    pub steps: usize,
    /// Steps over which the learning rate rises from 0.
    pub warmup_steps: usize,
    /// Highest learning rate; it falls to 0 along a cosine.
    pub learning_rate: f64,
    /// Factor on it for the logit scale, where there is one.
    #[serde(default = "one")]
    pub logit_scale_factor: f64,
    /// Decoupled weight decay of matrices and kernels.
    pub weight_decay: f64,
    /// Longest gradient, over all parameters together.
    pub clip: f64,
    /// Share of the old in the running average of the weights (Polyak, Juditsky 1992), with 0.999 about
    /// the last thousand steps; evaluated and exported are the averages then. 0 leaves them out.
    #[serde(default)]
    pub average: f64,
    /// What the factors of the towers' products are rounded to on a CPU; sums and weights are f32.
    #[serde(default)]
    pub factors: Factors,
    /// Passes that a batch goes through the towers in, one part after the other: memory is that of a part,
    /// the gradient that of the whole batch (`GradCache`: Gao et al. 2021).
    #[serde(default = "once", skip_serializing_if = "is_once")]
    pub accumulate: usize,
    /// Steps between checkpoints.
    pub checkpoint_every: usize,
    /// Steps between evaluations on the held-out styles.
    pub evaluate_every: usize,
}

/// What the factors of products are rounded to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Factors {
    /// Nothing: 32-bit floats.
    #[default]
    F32,
    /// bfloat16, which CPUs with AVX512-BF16 multiply at about twice the speed.
    Bf16,
}

/// When a run stops early.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StopConfig {
    /// What has to rise: a figure of the validation pairs such as `image_retrieval_recall@10`, or of a
    /// held-out style, such as `fxemoji.recall_at_10`.
    pub metric: String,
    /// Evaluations without a better one after which it stops.
    pub patience: usize,
}

fn once() -> usize {
    1
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_once(passes: &usize) -> bool {
    *passes == once()
}

/// How captions are worded.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CaptionConfig {
    /// Share of captions that are a keyword instead of the name, once `tags_from` is passed.
    pub tag_share: f64,
    /// Share of all steps before which captions are names only.
    pub tags_from: f64,
    /// Share of captions that stand in a carrier sentence.
    pub carrier_share: f64,
    /// Share of captions in another language than English, each of `data.languages` that has words
    /// for the concept as often as any other, once `translations_from` is passed.
    pub translated_share: f64,
    /// Share of all steps before which captions are English only.
    pub translations_from: f64,
}

/// How pictures are varied.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AugmentConfig {
    /// Largest rotation in degrees.
    pub rotation: f32,
    /// Smallest and largest size of the picture relative to the frame.
    pub scale: [f32; 2],
    /// Largest shift as a share of the side.
    pub shift: f32,
    /// Share of pictures on a plain white ground.
    pub white_share: f32,
    /// Largest relative change of brightness, contrast and saturation.
    pub color: f32,
    /// Share of pictures without color.
    pub gray_share: f32,
    /// Share of pictures of which a rectangle is hidden.
    pub erase_share: f32,
    /// Share of pictures that are mirrored, where the name says no direction.
    pub mirror_share: f32,
    /// Smallest and largest share of the area of a picture that a random part of it has, which is then
    /// shown in its place, squashed to the square; its width is 3/4 to 4/3 of its height (Szegedy et al.
    /// 2015). All of the picture where nothing is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub crop: Option<[f32; 2]>,
    /// Share of pictures that are blurred.
    #[serde(skip_serializing_if = "is_zero")]
    pub blur_share: f32,
}

/// As serde asks: what older runs did not have is not written where it does nothing.
#[allow(clippy::trivially_copy_pass_by_ref, clippy::float_cmp)]
fn is_zero(x: &f32) -> bool {
    *x == 0.0
}

impl Default for AugmentConfig {
    fn default() -> Self {
        Self::STILL
    }
}

impl AugmentConfig {
    /// The whole picture on white, unvaried.
    pub const STILL: Self = Self {
        rotation: 0.0,
        scale: [1.0, 1.0],
        shift: 0.0,
        white_share: 1.0,
        color: 0.0,
        gray_share: 0.0,
        erase_share: 0.0,
        mirror_share: 0.0,
        crop: None,
        blur_share: 0.0,
    };

    /// For two views of one photograph: crops, colors and blur of Chen et al. (2020, "Improved baselines
    /// with momentum contrastive learning"), with a cast of color in place of a shift of hue.
    pub const STRONG: Self = Self {
        color: 0.4,
        gray_share: 0.2,
        mirror_share: 0.5,
        crop: Some([0.2, 1.0]),
        blur_share: 0.5,
        ..Self::STILL
    };
}

/// The contents of a TOML file, not yet checked.
pub(crate) fn parse<T: DeserializeOwned>(file: &Path) -> Result<T, TrainingError> {
    toml::from_str(&fs::read_to_string(file)?).map_err(|source| TrainingError::Config {
        file: file.to_owned(),
        source: source.into(),
    })
}

impl RunConfig {
    /// Reads and checks a file. Manifest paths are relative to the working folder.
    ///
    /// # Errors
    /// When the file cannot be read or a value is out of range.
    pub fn read(file: &Path) -> Result<Self, TrainingError> {
        let config: Self = parse(file)?;
        config.check()?;
        Ok(config)
    }

    /// Refuses values that would stop or spoil the run.
    ///
    /// # Errors
    /// When a value is out of range; the message names its key.
    pub fn check(&self) -> Result<(), TrainingError> {
        check::check(self)
    }
}

impl ModelSection {
    /// The towers of a model that is trained from nothing.
    ///
    /// # Errors
    /// When one is missing.
    pub fn towers(&self) -> Result<(&ImageSection, &TextSection), TrainingError> {
        let missing = |key: &'static str| TrainingError::Value {
            key,
            expected: "given, or model.from in its place",
        };
        let image = self.image.as_ref().ok_or_else(|| missing("model.image"))?;
        let text = self.text.as_ref().ok_or_else(|| missing("model.text"))?;
        Ok((image, text))
    }

    /// The sizes of a model that is trained from nothing as the networks want them, for a tokenizer
    /// whose end-of-text id is `end`.
    ///
    /// # Errors
    /// When a tower is missing.
    pub fn network(&self, vocabulary: usize, end: u32) -> Result<NetworkConfig, TrainingError> {
        let (image, words) = self.towers()?;
        let text = TextConfig {
            vocabulary,
            context_length: words.context_length,
            pooling: Pooling::FirstOf(end),
            causal: true,
            projection_bias: false,
            transformer: transformer(words.width, words.layers, words.heads),
        };
        Ok(NetworkConfig {
            dim: self.dim,
            text,
            image: image.network(),
            logit_bias: false,
        })
    }
}

impl ImageSection {
    /// The sizes as the network wants them.
    pub fn network(&self) -> ImageConfig {
        match self {
            Self::Residual {
                image_size,
                stem,
                stages,
                blocks,
                width,
            } => ImageConfig::Residual(ResidualConfig {
                image_size: *image_size,
                stem: stem.clone(),
                stages: stages.clone(),
                blocks: *blocks,
                width: *width,
                norm_eps: 1e-5,
            }),
            Self::Vit {
                image_size,
                patch_size,
                width,
                layers,
                heads,
            } => {
                let transformer = transformer(*width, *layers, *heads);
                ImageConfig::Vit(VitConfig::clip(*image_size, *patch_size, transformer))
            }
        }
    }
}

fn transformer(width: usize, layers: usize, heads: usize) -> TransformerConfig {
    TransformerConfig {
        width,
        mlp_width: 4 * width,
        layers,
        heads,
        activation: Activation::QuickGelu,
        layer_norm_eps: 1e-5,
    }
}
