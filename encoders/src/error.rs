//! What can be wrong with a model folder or a picture.

use std::path::PathBuf;

use embedding::Modality;
use thiserror::Error;

use crate::{Place, Precision};

/// Why a model folder cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ModelError {
    /// A file cannot be read or written; the message names it.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// A device cannot be used.
    #[error("the device {place} cannot be used: {reason}")]
    Device {
        /// The device.
        place: Place,
        /// Why not, and what to do.
        reason: String,
    },
    /// A folder holds no model.
    #[error("{} is no model folder: it has neither config.json nor open_clip_config.json. \
             Supported are {supported}", folder.display())]
    NoModel {
        /// The folder.
        folder: PathBuf,
        /// Every family.
        supported: &'static str,
    },
    /// A file of a model folder is missing.
    #[error("{} is missing: {hint}", file.display())]
    MissingFile {
        /// The file.
        file: PathBuf,
        /// What is there instead, and what to do.
        hint: String,
    },
    /// A file is not valid JSON.
    #[error("{} is not valid JSON", file.display())]
    Json {
        /// The file.
        file: PathBuf,
        /// Where and why.
        #[source]
        source: serde_json::Error,
    },
    /// A key is missing.
    #[error("{}: key `{key}` is missing, expected {expected}", file.display())]
    MissingKey {
        /// The file.
        file: PathBuf,
        /// Dotted path of the key.
        key: String,
        /// What it should hold.
        expected: &'static str,
    },
    /// A key holds something that is not supported.
    #[error("{}: key `{key}` is {value}, expected {expected}", file.display())]
    BadValue {
        /// The file.
        file: PathBuf,
        /// Dotted path of the key.
        key: String,
        /// What it holds.
        value: String,
        /// What it may hold.
        expected: String,
    },
    /// A tensor is missing or has another shape or type.
    #[error("{}: tensor `{name}`: {problem}", file.display())]
    Tensor {
        /// The file.
        file: PathBuf,
        /// Name of the tensor.
        name: String,
        /// What is wrong, with the expected shape.
        problem: String,
    },
    /// The weights file is damaged.
    #[error("{} is not a usable safetensors file: {hint}", file.display())]
    Weights {
        /// The file.
        file: PathBuf,
        /// What it is, and what to do.
        hint: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The tokenizer file is damaged or does not fit the model.
    #[error("{} is not a usable tokenizer: {problem}", file.display())]
    Tokenizer {
        /// The file.
        file: PathBuf,
        /// Why.
        problem: String,
    },
    /// The probes of a model folder do not fit it.
    #[error(
        "the probes of the model cannot be used: {problem}; delete `probes` from diptych.json and run `diptych model check`"
    )]
    BadProbes {
        /// Why.
        problem: String,
    },
    /// A probe could not be encoded.
    #[error("a probe of the model cannot be encoded")]
    Probing(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The embeddings of the probes are not what they should be.
    #[error(
        "self-check failed: the {tower} tower at {precision} with the kernels {kernels} gives an embedding with cosine {cosine:.6} to the one that is stored, at least {needed} is needed; choose a more exact precision, and run `diptych model check` to see all of them: if f32 fails, too, the weights are damaged or this build computes wrongly on this CPU"
    )]
    SelfCheck {
        /// Which tower.
        tower: Modality,
        /// At which precision.
        precision: Precision,
        /// With which kernels.
        kernels: &'static str,
        /// Least cosine to a stored embedding.
        cosine: f32,
        /// What it should be at least.
        needed: f32,
    },
    /// The network failed.
    #[error("the network failed")]
    Network(#[from] candle_core::Error),
}

/// Why a picture cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PictureError {
    /// More bytes than allowed.
    #[error("the picture has {bytes} bytes, at most {max} are allowed")]
    TooManyBytes {
        /// Its size.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// More pixels than allowed; nothing was decoded.
    #[error("the picture has {width} x {height} pixels, at most {max} in all are allowed")]
    TooManyPixels {
        /// Its width.
        width: u32,
        /// Its height.
        height: u32,
        /// The limit of their product.
        max: u64,
    },
    /// A side is longer than allowed; nothing was decoded.
    #[error("the picture has {width} x {height} pixels, a side may have at most {max}")]
    TooLong {
        /// Its width.
        width: u32,
        /// Its height.
        height: u32,
        /// The limit of each side.
        max: u32,
    },
    /// Not a format that is read.
    #[error("not a picture in a supported format: expected {expected}")]
    UnknownFormat {
        /// What is read.
        expected: &'static str,
    },
    /// Broken data.
    #[error("the {format} data cannot be decoded")]
    Undecodable {
        /// The format found.
        format: &'static str,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A buffer of another size than its shape says.
    #[error("{got} values do not fill shape [3, {height}, {width}]")]
    WrongSize {
        /// Number of values.
        got: usize,
        /// Height of the shape.
        height: usize,
        /// Width of the shape.
        width: usize,
    },
    /// A buffer of another size than its shape says.
    #[error("{got} bytes do not fill shape [{height}, {width}, 4] with sides of at least 1")]
    WrongRgbaSize {
        /// Number of bytes.
        got: usize,
        /// Height of the shape.
        height: u32,
        /// Width of the shape.
        width: u32,
    },
}
