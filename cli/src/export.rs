//! `diptych export`: a collection becomes a file or folder that other programs read.

use std::time::Instant;

use anyhow::{Result, anyhow, bail};
use engine::EngineError;
use exchange::{ExchangeError, ExportOptions, Exported, Format};
use serde::Serialize;

use crate::{
    args::{ExportArgs, FormatArg, Places},
    home::{self, Home},
    output,
};

/// What a run did.
#[derive(Debug, Serialize)]
struct Report<'a> {
    collection: &'a str,
    #[serde(flatten)]
    exported: Exported,
    seconds: f64,
}

/// Writes a collection, and says how much it was.
///
/// # Errors
/// When there is no such collection, something of that name is there, an item is damaged or the
/// disk fails; nothing is left then.
pub fn run(places: &Places, args: &ExportArgs) -> Result<()> {
    let start = Instant::now();
    let format = args
        .format
        .map_or_else(|| Format::of(&args.dest), Format::from);
    if args.f16 && format == Format::Parquet {
        bail!("--f16 is for --format clip-retrieval: Parquet files keep every bit");
    }
    let engine = Home::new(places)?.open_existing()?;
    let collection = home::find(&engine, &args.collection)?;
    let options = ExportOptions {
        half: args.f16,
        skip_bad: args.skip_bad,
        ..ExportOptions::default()
    };
    let bar = output::progress("exporting", collection.stats().items);
    let exported = exchange::export(&collection, &args.dest, format, &options, &mut |done| {
        bar.set_position(done);
    });
    bar.finish_and_clear();
    let exported = exported.map_err(|error| match error {
        ExchangeError::Engine(EngineError::DamagedItem { .. }) => {
            let why = output::chain(&error);
            anyhow!("{why}; --skip-bad leaves damaged items out")
        }
        error => error.into(),
    })?;
    let seconds = start.elapsed().as_secs_f64();
    if args.json {
        let collection = &args.collection;
        let report = Report {
            collection,
            exported,
            seconds,
        };
        return Ok(output::json(&report)?);
    }
    let count = |n: u64| output::count(n as usize);
    Ok(output::line(&format!(
        "{} images and {} texts written, {} damaged left out, in {seconds:.1} s",
        count(exported.images),
        count(exported.texts),
        count(exported.skipped),
    ))?)
}

impl From<FormatArg> for Format {
    fn from(format: FormatArg) -> Self {
        match format {
            FormatArg::Parquet => Self::Parquet,
            FormatArg::ClipRetrieval => Self::ClipRetrieval,
        }
    }
}
