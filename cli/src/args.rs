//! The command line.
//!
//! Over 400 lines only with its tests: one list of all commands and options, which must fit together.

mod bind;
mod eval;
mod operate;

pub use bind::BindArg;
pub use eval::{
    AspectArg, EvalCommand, EvalDemoArgs, EvalIndexArgs, EvalOptions, EvalRetrievalArgs,
    FewShotArgs, LinearProbeArgs, ProbeArgs, StartArg, ZeroShotArgs,
};
pub use operate::{
    CompletionsArgs, ConfigCommand, KeyAddArgs, KeyCommand, KeyListArgs, KeyRemoveArgs, ManArgs,
};

use std::{ffi::OsString, num::NonZeroUsize, path::PathBuf};

use anyhow::Result;
use clap::{Args, Parser, Subcommand, ValueEnum, builder::FalseyValueParser};
use encoders::{Place, PrecisionChoice, RunOptions};
use server::DEFAULT_PORT;

use crate::settings::{LogFormat, Settings, layers::CONFIG};

/// The collection that `index`, `search` and `serve` use when none is named.
pub const DEFAULT_COLLECTION: &str = "default";

/// Search pictures with words and words with pictures, on your own machine.
#[derive(Debug, Parser)]
#[command(name = "diptych", version, max_term_width = 100)]
pub struct Cli {
    /// Where things are.
    #[command(flatten)]
    pub places: Places,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Debug, Clone, Args)]
pub struct Places {
    /// A TOML file of settings; `diptych.example.toml` lists all [env: `DIPTYCH_CONFIG`]
    #[arg(long, global = true, env = CONFIG, hide_env = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Where collections live [env: `DIPTYCH_DATA`] [default: the platform's data folder, then
    /// `diptych`]
    #[arg(long, global = true, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// A model folder, or OWNER/NAME or OWNER/NAME@REVISION of a model on the Hugging Face Hub, which
    /// is downloaded [env: `DIPTYCH_MODEL`] [default: the built-in model]
    #[arg(long, global = true, value_name = "DIR|OWNER/NAME")]
    pub model: Option<OsString>,
    /// Branch, tag or commit of a model on the hub [default: main]
    #[arg(long, global = true, value_name = "REVISION")]
    pub revision: Option<String>,
    /// Open no connection: take a model of the hub from the cache
    #[arg(long, global = true, env = "HF_HUB_OFFLINE", value_parser = FalseyValueParser::new())]
    pub offline: bool,
    /// How weights and activations are stored: auto, f32, int16, bf16 or int8; auto takes for each tower
    /// the fastest that passes the self-check at .9999 [env: `DIPTYCH_PRECISION`] [default: auto]
    #[arg(long, global = true, value_name = "PRECISION")]
    pub precision: Option<PrecisionChoice>,
    /// What computes the towers: cpu, or in a build with the feature `cuda` cuda or cuda:N [env:
    /// `DIPTYCH_DEVICE`] [default: cpu]
    #[arg(long, global = true, value_name = "DEVICE")]
    pub device: Option<Place>,
}

impl Places {
    /// Takes from the settings what no flag says.
    ///
    /// # Errors
    /// When a setting cannot be read.
    pub fn settle(&mut self, settings: &Settings) -> Result<()> {
        let data = Some(&settings.data).filter(|dir| !dir.as_os_str().is_empty());
        self.data = self.data.take().or_else(|| data.cloned());
        let model = Some(&settings.model).filter(|name| !name.is_empty());
        self.model = self.model.take().or_else(|| model.map(OsString::from));
        let run = RunOptions {
            precision: self.precision.map_or_else(|| settings.precision(), Ok)?,
            place: self.device.map_or_else(|| settings.device(), Ok)?,
        };
        (self.precision, self.device) = (Some(run.precision), Some(run.place));
        Ok(())
    }

    /// How a model is to be run.
    pub fn run_options(&self) -> RunOptions {
        RunOptions {
            precision: self.precision.unwrap_or_default(),
            place: self.device.unwrap_or_default(),
        }
    }
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Index the bundled gallery of emoji and serve it
    Demo(DemoArgs),
    /// Serve the collections over HTTP
    Serve(ServeArgs),
    /// Index the pictures of files and folders
    Index(IndexArgs),
    /// Search a collection by words or by a picture
    Search(SearchArgs),
    /// Tell which of some labels fits a picture or a text
    Classify(ClassifyArgs),
    /// Print the embeddings of texts and pictures
    Embed(EmbedArgs),
    /// Make, restore and check snapshots of collections
    #[command(subcommand)]
    Snapshot(SnapshotCommand),
    /// Write a collection into files that other programs read
    Export(ExportArgs),
    /// Put embeddings out of files into a collection
    Import(ImportArgs),
    /// Measure a model, or a collection's index
    #[command(subcommand)]
    Eval(EvalCommand),
    /// Look at a model
    #[command(subcommand)]
    Model(ModelCommand),
    /// Look at the settings
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Make, list and remove the API keys of a server
    #[command(subcommand)]
    Key(KeyCommand),
    /// Print a script that completes commands and options in a shell
    Completions(CompletionsArgs),
    /// Print the manual page, or write those of all commands into a folder
    Man(ManArgs),
    /// Print the description of the HTTP interface, as `GET /openapi.json` serves it
    Openapi,
}

/// Options of `demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Port on the loopback address; 0 takes a free one
    #[arg(long, default_value_t = DEFAULT_PORT)]
    pub port: u16,
    /// Index only
    #[arg(long)]
    pub no_serve: bool,
    /// Throw the collection `demo` away and index the gallery again
    #[arg(long)]
    pub rebuild: bool,
}

/// Options of `serve`.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Address to listen on [default: 127.0.0.1:7700]
    #[arg(long, value_name = "IP|IP:PORT")]
    pub bind: Option<BindArg>,
    /// Port to listen on, before that of the address; 0 takes a free one
    #[arg(long)]
    pub port: Option<u16>,
    /// Allow an address that other machines reach without keys, and any name in `Host`
    #[arg(long)]
    pub insecure: bool,
    /// The form of the log's lines [default: text]
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
    /// Where an OpenTelemetry collector takes traces, as `http://127.0.0.1:4318`; in a build with the
    /// feature `otel`
    #[arg(long, value_name = "URL")]
    pub otlp_endpoint: Option<String>,
    /// Recall that approximate searches are kept above, more than 0 and at most 1
    #[arg(long, value_name = "SHARE")]
    pub target_recall: Option<f64>,
    /// Memory for the codes and links of indexes, in MiB; those beyond it stay in mapped files
    #[arg(long, value_name = "MIB")]
    pub index_memory: Option<u64>,
    /// Part of all cores that building indexes in the background may take, .01 to 1 [default: .5]
    #[arg(long, value_name = "SHARE")]
    pub seal_share: Option<f64>,
    /// Texts, and as many pictures, that may wait for the model; more are answered with 429
    /// [default: 1024 texts, 256 pictures]
    #[arg(long, value_name = "INPUTS")]
    pub queue: Option<usize>,
    /// Milliseconds that a text or picture which asks may wait for the model; what would come later
    /// is answered with 503 [default: 10000]
    #[arg(long, value_name = "MS")]
    pub deadline_ms: Option<u64>,
    /// Where snapshots are kept that are asked for over HTTP [default: `snapshots` in the data
    /// folder]
    #[arg(long, value_name = "DIR")]
    pub snapshots: Option<PathBuf>,
}

/// Options of `index`.
#[derive(Debug, Args)]
pub struct IndexArgs {
    /// Files and folders; hidden ones below a folder are left out
    #[arg(required = true, value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// The collection; made when it does not exist
    #[arg(long, default_value = DEFAULT_COLLECTION, value_name = "NAME")]
    pub collection: String,
    /// Remove what was indexed below these paths, or where links in them lead, and is gone
    #[arg(long)]
    pub prune: bool,
    /// Print the report as JSON
    #[arg(long)]
    pub json: bool,
}

/// Options of `search`.
#[derive(Debug, Args)]
pub struct SearchArgs {
    /// What to search for, in words
    #[arg(required_unless_present_any = ["image", "like"])]
    pub text: Option<String>,
    /// What to search for, as a picture; may be given again, and beside words
    #[arg(long, value_name = "FILE")]
    pub image: Vec<PathBuf>,
    /// Search for what is like the item with this id; may be given again
    #[arg(long, value_name = "ID")]
    pub like: Vec<String>,
    /// Avoid what is like these words; may be given again
    #[arg(long, value_name = "TEXT")]
    pub not: Vec<String>,
    /// The collection
    #[arg(long, default_value = DEFAULT_COLLECTION, value_name = "NAME")]
    pub collection: String,
    /// How many hits
    #[arg(short, long, default_value = "10")]
    pub k: NonZeroUsize,
    /// How many hits to leave out, from the best on
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub offset: usize,
    /// What to find
    #[arg(long, value_enum, default_value_t = TargetArg::Image)]
    pub target: TargetArg,
    /// Which embeddings to compare
    #[arg(long, value_enum, default_value_t = SpaceArg::Auto)]
    pub space: SpaceArg,
    /// Which items may be found, by declared fields of their payloads, as JSON:
    /// `{"must": [{"field": "size", "gte": 3}]}`
    #[arg(long, value_name = "JSON")]
    pub filter: Option<String>,
    /// Least score of a hit
    #[arg(long, value_name = "COSINE", allow_negative_numbers = true)]
    pub min_score: Option<f32>,
    /// Least confidence of a hit, 0 to 1
    #[arg(long, value_name = "PROBABILITY")]
    pub min_confidence: Option<f32>,
    /// Show one hit for each value of this field of the payloads
    #[arg(long, value_name = "FIELD")]
    pub group_by: Option<String>,
    /// Show one of those items whose cosine is at least this, for instance 0.98
    #[arg(long, value_name = "COSINE")]
    pub collapse: Option<f32>,
    /// Prefer hits that are unlike each other, from 0 (hardly) to 1 (whatever they are)
    #[arg(long, value_name = "SHARE")]
    pub diversity: Option<f32>,
    /// Also print how each part of the collection was searched
    #[arg(long)]
    pub explain: bool,
    /// Print the hits as JSON
    #[arg(long)]
    pub json: bool,
}

/// What a search finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TargetArg {
    /// Pictures.
    Image,
    /// Texts.
    Text,
    /// Pictures and texts.
    Both,
}

/// Which embeddings a search compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SpaceArg {
    /// The one that suits the query and the target.
    Auto,
    /// Where pictures and texts meet.
    Shared,
    /// What only pictures, or only texts, know; for a query and a target of one kind.
    Specific,
    /// Both, half and half.
    Mixed,
}

/// Options of `classify`.
#[derive(Debug, Args)]
pub struct ClassifyArgs {
    /// The picture
    #[arg(
        required_unless_present = "text",
        conflicts_with = "text",
        value_name = "FILE"
    )]
    pub file: Option<PathBuf>,
    /// A text in place of a picture
    #[arg(long)]
    pub text: Option<String>,
    /// What it may be, separated by commas
    #[arg(long, required = true, value_delimiter = ',', value_name = "A,B,C")]
    pub labels: Vec<String>,
    /// A wording with one `{}` where the label goes; may be given again, the labels are then averaged
    /// over all wordings
    #[arg(long = "template", value_name = "TEMPLATE")]
    pub templates: Vec<String>,
    /// Print the answer as JSON
    #[arg(long)]
    pub json: bool,
}

/// Options of `embed`.
#[derive(Debug, Args)]
pub struct EmbedArgs {
    /// Texts
    #[arg(long, num_args = 1.., required_unless_present = "image")]
    pub text: Vec<String>,
    /// Pictures
    #[arg(long, num_args = 1.., value_name = "FILE")]
    pub image: Vec<PathBuf>,
    /// Print every element, as JSON
    #[arg(long)]
    pub json: bool,
}

/// What is done with snapshots.
#[derive(Debug, Subcommand)]
pub enum SnapshotCommand {
    /// Write a collection as it is now to a new folder, or to a file that ends in .tar
    Create(SnapshotCreateArgs),
    /// Make a new collection out of a snapshot; all of it is checked
    Restore(SnapshotRestoreArgs),
    /// Check every byte of a snapshot
    Verify(SnapshotVerifyArgs),
}

/// Options of `snapshot create`.
#[derive(Debug, Args)]
pub struct SnapshotCreateArgs {
    /// The collection
    pub collection: String,
    /// The snapshot: a folder to be made, or a file that ends in .tar; what is the same as in
    /// another snapshot beside it takes no more room
    #[arg(value_name = "DEST")]
    pub to: PathBuf,
    /// Share what is the same with this snapshot, too; it must be on the same disk
    #[arg(long, value_name = "DIR")]
    pub base: Option<PathBuf>,
    /// Leave damaged items and heads out, and list them, in place of failing
    #[arg(long)]
    pub skip_damaged: bool,
    /// Print the report as JSON
    #[arg(long)]
    pub json: bool,
}

/// Options of `snapshot restore`.
#[derive(Debug, Args)]
pub struct SnapshotRestoreArgs {
    /// The snapshot
    #[arg(value_name = "SRC")]
    pub from: PathBuf,
    /// The collection to be made; there must be none with this name
    pub collection: String,
    /// Print the report as JSON
    #[arg(long)]
    pub json: bool,
}

/// Options of `snapshot verify`.
#[derive(Debug, Args)]
pub struct SnapshotVerifyArgs {
    /// The snapshot
    #[arg(value_name = "SRC")]
    pub from: PathBuf,
    /// Print the report as JSON
    #[arg(long)]
    pub json: bool,
}

/// How items lie in files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FormatArg {
    /// One Parquet file, from which everything comes back.
    Parquet,
    /// A folder with .npy and Parquet files, as clip-retrieval makes them.
    ClipRetrieval,
}

/// Options of `export`.
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// The collection
    pub collection: String,
    /// A file or folder that is not there yet
    pub dest: PathBuf,
    /// What to write [default: by the name: parquet if it ends in .parquet, else clip-retrieval]
    #[arg(long, value_enum)]
    pub format: Option<FormatArg>,
    /// Write the .npy files of clip-retrieval in half precision
    #[arg(long)]
    pub f16: bool,
    /// Leave out items that are damaged in the store
    #[arg(long)]
    pub skip_bad: bool,
    /// Print the report as JSON
    #[arg(long)]
    pub json: bool,
}

/// Options of `import`.
#[derive(Debug, Args)]
#[allow(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub struct ImportArgs {
    /// A Parquet file, or a folder of clip-retrieval
    pub src: PathBuf,
    /// The collection; made when it does not exist
    pub collection: String,
    /// What to read [default: by the name: parquet if it ends in .parquet, else clip-retrieval]
    #[arg(long, value_enum)]
    pub format: Option<FormatArg>,
    /// Affirm that the model of --model made these embeddings, which the files do not say
    #[arg(long)]
    pub as_model: bool,
    /// What all rows of a Parquet file without a column `modality` are
    #[arg(long, value_enum)]
    pub modality: Option<ModalityArg>,
    /// Scale embeddings to unit length, where they are not
    #[arg(long)]
    pub normalize: bool,
    /// Leave out rows that cannot become items, and count them
    #[arg(long)]
    pub skip_bad: bool,
    /// In a folder of clip-retrieval, number the items and leave `image_path` out of their ids
    #[arg(long)]
    pub row_ids: bool,
    /// Print the report as JSON
    #[arg(long)]
    pub json: bool,
}

/// What kind of thing items are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ModalityArg {
    /// Pictures.
    Image,
    /// Texts.
    Text,
}

/// What `model` shows.
#[derive(Debug, Subcommand)]
pub enum ModelCommand {
    /// What the model is, what it is for and what it makes
    Info(ModelInfoArgs),
    /// Compare what every kernel computes at every precision with the reference
    Check(ModelCheckArgs),
}

/// Options of `model info`.
#[derive(Debug, Args)]
pub struct ModelInfoArgs {
    /// Print as JSON
    #[arg(long)]
    pub json: bool,
}

/// Options of `model check`.
#[derive(Debug, Args)]
pub struct ModelCheckArgs {
    /// Print as JSON
    #[arg(long)]
    pub json: bool,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_options_of_places_may_follow_the_command() {
        let cli = Cli::try_parse_from(["diptych", "demo", "--data", "d", "--no-serve"]);
        assert_eq!(cli.expect("parses").places.data, Some(PathBuf::from("d")));
    }

    #[test]
    fn a_search_needs_words_a_picture_or_an_item() {
        let parse = |rest: &[&str]| Cli::try_parse_from(["diptych", "search"].iter().chain(rest));
        assert!(parse(&["red bicycle"]).is_ok());
        assert!(parse(&["--image", "cat.jpg"]).is_ok());
        assert!(parse(&[]).is_err());
        assert!(parse(&["red bicycle", "--image", "cat.jpg", "--image", "dog.jpg"]).is_ok());
        assert!(parse(&["--like", "cat.jpg", "--not", "a dog"]).is_ok());
        assert!(parse(&["--not", "a dog"]).is_err());
        assert!(parse(&["red bicycle", "-k", "0"]).is_err());
    }
}
