//! What can go wrong in a training run.

use std::path::PathBuf;

use thiserror::Error;

/// Why a training run cannot start or go on.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TrainingError {
    /// A file cannot be read or written; the message names it.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// A configuration cannot be read.
    #[error("{} is not a usable configuration", file.display())]
    Config {
        /// The file.
        file: PathBuf,
        /// Where and why.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// A configured value is out of range.
    #[error("`{key}` must be {expected}")]
    Value {
        /// Dotted path of the key.
        key: &'static str,
        /// What it may hold.
        expected: &'static str,
    },
    /// The pictures of digits for an experiment cannot be used.
    #[error("{}: {problem}", file.display())]
    Digits {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A line of a manifest, or of the words beside it, cannot be read.
    #[error("{}, line {line}: expected an object with {expected}", file.display())]
    Manifest {
        /// The file.
        file: PathBuf,
        /// Number of the line, from 1.
        line: usize,
        /// The keys of such an object.
        expected: &'static str,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A configured style is drawn nowhere.
    #[error("`{key}` names the style {style}, the manifests hold {}", known.join(", "))]
    Style {
        /// Dotted path of the key.
        key: &'static str,
        /// The style that it names.
        style: String,
        /// All styles of the manifests, sorted.
        known: Vec<String>,
    },
    /// A configured language is spoken nowhere.
    #[error("`data.languages` names {language}, words.jsonl beside the manifests holds {}: fetch and prepare again", if known.is_empty() { "nothing".to_owned() } else { known.join(", ") })]
    Language {
        /// The language that it names.
        language: String,
        /// All languages of the files, sorted.
        known: Vec<String>,
    },
    /// A manifest holds the style that models are tested on.
    #[error("{} holds the style {style}, which is kept for tests", file.display())]
    TestStyle {
        /// The manifest.
        file: PathBuf,
        /// The style.
        style: String,
    },
    /// A picture of a manifest cannot be read.
    #[error("{} cannot be used as a training picture", file.display())]
    Picture {
        /// The file.
        file: PathBuf,
        /// Why.
        #[source]
        source: encoders::PictureError,
    },
    /// Too few pictures can be read.
    #[error(
        "{usable} pictures in `data.folders` can be used ({skipped} files cannot), a batch needs {batch}: add pictures or lower `optimizer.batch`"
    )]
    TooFewPictures {
        /// Number that can be used.
        usable: usize,
        /// Number of files that cannot.
        skipped: usize,
        /// Number needed.
        batch: usize,
    },
    /// The labeled pictures of a probe cannot be used.
    #[error("the probe in {}: {problem}", folder.display())]
    Probe {
        /// The folder.
        folder: PathBuf,
        /// What is wrong and what to do.
        problem: String,
    },
    /// A linear head cannot be fitted.
    #[error("the linear head of the probe cannot be fitted")]
    Head(#[source] Box<engine::EngineError>),
    /// What was asked for cannot be exported.
    #[error(
        "a tower that was trained from nothing has no text tower beside it, which a model folder needs: adapt one with `model.from`"
    )]
    NoTextTower,
    /// Whitening is learned from things that have several pictures.
    #[error(
        "no thing has two pictures: whitening is learned from what differs between pictures of one thing"
    )]
    NoRepeats,
    /// Whitening needs more things, or more numbers, than an embedding has.
    #[error(
        "{things} things have several pictures, and pooled outputs have {width} numbers: embeddings of \
         {dim} need at least two more of both"
    )]
    TooFewThings {
        /// Things with several pictures.
        things: usize,
        /// Numbers of a pooled output.
        width: usize,
        /// Numbers of an embedding.
        dim: usize,
    },
    /// Whitening found a direction in which nothing varies.
    #[error("pictures of one thing do not differ in some direction: add to the ridge")]
    Unvarying,
    /// Only manifests say which pictures show the same thing.
    #[error(
        "whitening takes pictures of the same thing from `data.manifests`, and this run has pairs: leave it out"
    )]
    NoThings,
    /// Whitening replaces a specific projection.
    #[error(
        "whitening replaces a specific projection, and this model has none: set `model.specific`"
    )]
    NoSpecific,
    /// Too few concepts to fill a batch.
    #[error("the manifests hold {concepts} concepts for training, a batch needs {batch}")]
    TooFew {
        /// Number found.
        concepts: usize,
        /// Number needed.
        batch: usize,
    },
    /// Too few texts.
    #[error("{} holds {texts} texts, at least {least} are needed", file.display())]
    TooFewTexts {
        /// The file.
        file: PathBuf,
        /// Number found.
        texts: usize,
        /// Number needed.
        least: usize,
    },
    /// A step would take more memory than is free.
    #[error("a step takes about {estimate}, {} are free: {lower}; --ignore-memory goes on nevertheless", crate::memory::amount(*free))]
    Memory {
        /// What it takes.
        estimate: crate::memory::Estimate,
        /// What there is, in bytes.
        free: u64,
        /// What to lower.
        lower: &'static str,
    },
    /// A device has no memory left.
    #[error(
        "step {step} takes more memory than the device has: raise optimizer.accumulate, which changes no result, or lower optimizer.batch; the last checkpoint is intact"
    )]
    OutOfMemory {
        /// Number of the step.
        step: usize,
        /// What the device said.
        #[source]
        source: Box<TrainingError>,
    },
    /// A key of a configuration does not fit the model or the data.
    #[error("`{key}`: {problem}")]
    Tuning {
        /// Dotted path of the key.
        key: &'static str,
        /// What is wrong and what to do.
        problem: String,
    },
    /// Pairs cannot be read.
    #[error(transparent)]
    Pairs(#[from] pairs::PairsError),
    /// A share of the pairs is none of them.
    #[error(
        "`data.validation` = {share} leaves none of the {all} pairs to evaluate on: raise it, or name sources"
    )]
    NoValidation {
        /// The share.
        share: f64,
        /// Number of pairs.
        all: usize,
    },
    /// Too few pairs that can be read to fill a batch.
    #[error(
        "there are {found} pairs for training that can be read, a batch needs {batch}: lower optimizer.batch, or name more"
    )]
    TooFewPairs {
        /// Number found.
        found: usize,
        /// Number needed.
        batch: usize,
    },
    /// More pictures are damaged or missing than allowed.
    #[error(
        "{unreadable} of {read} pictures cannot be read, {allowed} are allowed (data.unreadable_share); the last one is {last}"
    )]
    Unreadable {
        /// Number that cannot be read.
        unreadable: usize,
        /// Number that were tried.
        read: usize,
        /// Share that is allowed.
        allowed: f64,
        /// The last one, and why.
        last: String,
    },
    /// The tokenizer could not be trained or written.
    #[error("the tokenizer cannot be made")]
    Tokenizer(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The loss is no longer a number.
    #[error(
        "the loss of step {step} is {loss}: lower the learning rate; the last checkpoint is intact"
    )]
    Diverged {
        /// Number of the step.
        step: usize,
        /// The loss.
        loss: f32,
    },
    /// A term of the loss lacks what it compares.
    #[error("the term {term} needs {view}: give them or set its weight to 0")]
    View {
        /// Name of the term's weight.
        term: &'static str,
        /// What is absent.
        view: &'static str,
    },
    /// The gradient is no longer a number.
    #[error(
        "the gradient of step {step} has length {length}: lower the learning rate; the last checkpoint is intact"
    )]
    Gradient {
        /// Number of the step.
        step: usize,
        /// Its length.
        length: f64,
    },
    /// A checkpoint does not belong to this run.
    #[error("{}: {problem}", file.display())]
    Checkpoint {
        /// The file.
        file: PathBuf,
        /// What is wrong and what to do.
        problem: String,
    },
    /// The loader stopped early.
    #[error("the loader stopped before step {step}")]
    Loader {
        /// Number of the step.
        step: usize,
    },
    /// A model folder cannot be written or read.
    #[error(transparent)]
    Model(#[from] encoders::ModelError),
    /// The network made a row that is no embedding.
    #[error("the network made an unusable embedding")]
    Embedding(#[from] embedding::EmbeddingError),
    /// Texts cannot be encoded.
    #[error(transparent)]
    Encoding(#[from] embedding::EncodeError),
    /// The network failed.
    #[error("the network failed")]
    Network(#[from] candle_core::Error),
}

impl From<engine::EngineError> for TrainingError {
    fn from(error: engine::EngineError) -> Self {
        Self::Head(Box::new(error))
    }
}
