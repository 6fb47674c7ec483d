//! The options of `eval`.

use std::{num::NonZeroUsize, path::PathBuf};

use clap::{Args, Subcommand, ValueEnum};

/// What `eval` measures.
#[derive(Debug, Subcommand)]
pub enum EvalCommand {
    /// Recall on the bundled gallery of emoji, pictures against their names
    Demo(EvalDemoArgs),
    /// How well your captions find your pictures, and the reverse
    Retrieval(EvalRetrievalArgs),
    /// How well the names of classes alone tell your pictures apart
    ZeroShot(ZeroShotArgs),
    /// How well a linear classifier tells your pictures apart that is learned from many of them
    LinearProbe(LinearProbeArgs),
    /// The same, learned from a few pictures of each class
    FewShot(FewShotArgs),
    /// How many of the true nearest items the index of a collection finds, and how fast
    Index(EvalIndexArgs),
}

/// Options of `eval demo`.
#[derive(Debug, Args)]
pub struct EvalDemoArgs {
    /// Measure keywords and names in other languages, too: a words.jsonl as `diptych-train prepare`
    /// writes it
    #[arg(long, value_name = "FILE")]
    pub words: Option<PathBuf>,
    /// Measure whether drawings by another hand find the same thing, too: a folder of pictures named by
    /// code points (1f308.png), as `diptych-train prepare` writes one of each style; may be repeated
    #[arg(long, value_name = "DIR")]
    pub drawings: Vec<PathBuf>,
    /// Print the figures as JSON
    #[arg(long)]
    pub json: bool,
}

/// Options of all measurements on the user's own data.
#[derive(Debug, Args)]
pub struct EvalOptions {
    /// Measure so many pictures only (of an index: queries), chosen by the seed
    #[arg(long, value_name = "N")]
    pub limit: Option<NonZeroUsize>,
    /// What every choice depends on: subsets, splits, resamples
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub seed: u64,
    /// Also write a page with the figures, and with pictures of the best and worst cases
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Print the figures as JSON
    #[arg(long)]
    pub json: bool,
}

/// Options of `eval retrieval`.
#[derive(Debug, Args)]
pub struct EvalRetrievalArgs {
    /// A .csv, .tsv or .jsonl file; a folder of pictures with captions in .txt files of the same
    /// names, one a line; or .tar shards, as in "shards/{000..099}.tar"
    pub path: PathBuf,
    /// Column, or key, with the path of the picture, relative to the file
    #[arg(long, default_value = "image", value_name = "NAME")]
    pub image_column: String,
    /// Column, or key, with the caption; in JSONL it may be a list [default: caption, or text]
    #[arg(long, value_name = "NAME")]
    pub caption_column: Option<String>,
    /// What all measurements have in common.
    #[command(flatten)]
    pub options: EvalOptions,
}

/// Where classes come from.
#[derive(Debug, Args)]
pub struct ClassFolderArgs {
    /// A folder with a folder of pictures for each class; its name is that of the class, with `_`
    /// for a blank
    pub folder: PathBuf,
    /// Names of classes by folder, as JSON: `{"n02123045": "tabby cat"}` [default: classes.json in
    /// the folder, if it is there]
    #[arg(long, value_name = "FILE")]
    pub classes: Option<PathBuf>,
}

/// Options of `eval zero-shot`.
#[derive(Debug, Args)]
pub struct ZeroShotArgs {
    /// The classes.
    #[command(flatten)]
    pub data: ClassFolderArgs,
    /// Wordings that the names are put into and averaged over: a file with one a line, each with one
    /// `{}`; or `clip`, the 80 of CLIP's own prompt ensemble [default: `{}` and `a photo of {}`]
    #[arg(long, value_name = "FILE")]
    pub templates: Option<PathBuf>,
    /// What all measurements have in common.
    #[command(flatten)]
    pub options: EvalOptions,
}

/// What a linear classifier learns from.
#[derive(Debug, Args)]
pub struct ProbeArgs {
    /// The classes; with folders `train` and `test` in the folder, classes in each of them.
    #[command(flatten)]
    pub data: ClassFolderArgs,
    /// Which embeddings to learn from
    #[arg(long, value_enum, default_value_t = AspectArg::Shared)]
    pub aspect: AspectArg,
    /// scikit-learn's `C`, where it is not to be chosen by cross-validation
    #[arg(long, value_name = "NUMBER")]
    pub c: Option<f64>,
    /// What all measurements have in common.
    #[command(flatten)]
    pub options: EvalOptions,
}

/// Options of `eval linear-probe`.
#[derive(Debug, Args)]
pub struct LinearProbeArgs {
    /// What is learned from.
    #[command(flatten)]
    pub probe: ProbeArgs,
}

/// Options of `eval few-shot`.
#[derive(Debug, Args)]
pub struct FewShotArgs {
    /// What is learned from.
    #[command(flatten)]
    pub probe: ProbeArgs,
    /// Pictures of each class, separated by commas
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "1,2,4,8,16",
        value_name = "K,K"
    )]
    pub shots: Vec<NonZeroUsize>,
    /// How often pictures are drawn for each of them
    #[arg(long, default_value = "5", value_name = "N")]
    pub draws: NonZeroUsize,
    /// What weights are pulled towards: nothing, or what the names of the classes say
    #[arg(long, value_enum, default_value_t = StartArg::None)]
    pub start: StartArg,
}

/// What the weights of a classifier are pulled towards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum StartArg {
    /// Nothing: small weights
    None,
    /// The zero-shot classifier of the names
    ZeroShot,
}

/// Which embeddings a classifier learns from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AspectArg {
    /// Where pictures and texts meet.
    Shared,
    /// What only pictures know.
    Specific,
    /// One after the other.
    Both,
}

/// Options of `eval index`.
#[derive(Debug, Args)]
pub struct EvalIndexArgs {
    /// The collection
    pub collection: String,
    /// Candidates that a search keeps [default: 64, with which every collection starts]
    #[arg(long, value_name = "N")]
    pub ef_search: Option<NonZeroUsize>,
    /// What all measurements have in common.
    #[command(flatten)]
    pub options: EvalOptions,
}
