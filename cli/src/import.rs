//! `diptych import`: embeddings that are in files become items.

use std::{process::ExitCode, sync::Arc, time::Instant};

use anyhow::{Context, Result, anyhow};
use embedding::{EmbeddingError, Modality};
use engine::{Collection, Engine};
use exchange::{ExchangeError, Format, Ids, ImportOptions, Imported, RowProblem, Source};
use serde::Serialize;

use crate::{
    args::{ImportArgs, ModalityArg, Places},
    home::{self, Home},
    output,
};

/// What a run did.
#[derive(Debug, Serialize)]
struct Report<'a> {
    collection: &'a str,
    #[serde(flatten)]
    imported: Imported,
    seconds: f64,
}

/// Imports, and says at the end what could not be. The exit code is a failure only when rows were
/// left out and none became an item.
///
/// # Errors
/// When the files cannot be used, when they do not fit the collection, or when a row is bad and
/// bad rows are not to be left out; what was written before stays.
pub fn run(places: &Places, args: &ImportArgs) -> Result<ExitCode> {
    let start = Instant::now();
    let options = ImportOptions {
        as_model: args.as_model,
        modality: args.modality.map(|modality| match modality {
            ModalityArg::Image => Modality::Image,
            ModalityArg::Text => Modality::Text,
        }),
        normalize: args.normalize,
        skip_bad: args.skip_bad,
        ids: if args.row_ids { Ids::Row } else { Ids::Path },
    };
    let format = args
        .format
        .map_or_else(|| Format::of(&args.src), Format::from);
    let source = Source::open(&args.src, format)?;
    if source.about().is_none() && !args.as_model {
        let path = args.src.clone();
        return Err(explained(ExchangeError::UnknownModel { path }));
    }
    let engine = Home::new(places)?.open_or_create()?;
    let collection = collection(&engine, places, args, &source, options)?;
    let bar = output::progress("importing", source.rows() as usize);
    let imported = source.import(&collection, options, &mut |done| bar.set_position(done));
    bar.finish_and_clear();
    let imported = imported.map_err(explained)?;
    let nothing_went_well = imported.inserted + imported.updated == 0;
    let failed = imported.skipped > 0 && nothing_went_well;
    print(args, imported, start.elapsed().as_secs_f64())?;
    Ok(if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// The collection, which is made only if the files fit.
fn collection(
    engine: &Engine,
    places: &Places,
    args: &ImportArgs,
    source: &Source,
    options: ImportOptions,
) -> Result<Arc<Collection>> {
    let name = &args.collection;
    let there = engine.collection(name);
    let (spaces, fields) = if let Some(about) = source.about() {
        (about.spaces.clone(), about.fields.clone())
    } else {
        let model = home::model(places)?;
        if there.is_some() {
            home::collection(engine, name, &model)?;
        }
        (model.spaces().clone(), engine::Fields::default())
    };
    if let Some(there) = there {
        source
            .check(name, there.spaces(), options)
            .map_err(explained)?;
        return Ok(there);
    }
    source.check(name, &spaces, options).map_err(explained)?;
    engine
        .create_with_fields(name, &spaces, &fields)
        .context("the collection cannot be made")
}

/// An error with what to do about it on the command line.
fn explained(error: ExchangeError) -> anyhow::Error {
    let hint = match &error {
        ExchangeError::UnknownModel { .. } => {
            "if it was the built-in model, or the one that --model names, affirm it with --as-model"
        }
        ExchangeError::NoColumn {
            column: "modality", ..
        } => "tell it with --modality",
        ExchangeError::BadRow(row) => match row.problem {
            RowProblem::Embedding {
                source: EmbeddingError::NotUnit { .. },
                ..
            } => "--normalize scales such embeddings, --skip-bad leaves such rows out",
            _ => "--skip-bad leaves such rows out",
        },
        _ => return error.into(),
    };
    anyhow!("{}; {hint}", output::chain(&error))
}

fn print(args: &ImportArgs, imported: Imported, seconds: f64) -> Result<()> {
    if args.json {
        let report = Report {
            collection: &args.collection,
            imported,
            seconds,
        };
        return Ok(output::json(&report)?);
    }
    for bad in &imported.bad {
        output::line(&format!("not imported: {}", output::clean(bad)))?;
    }
    for column in &imported.ignored_columns {
        let column = output::clean(column);
        output::line(&format!(
            "column {column} has no place in a payload: left out"
        ))?;
    }
    Ok(output::line(&format!(
        "{} new, {} replaced, {} bad left out, in {seconds:.1} s",
        output::count(imported.inserted),
        output::count(imported.updated),
        output::count(imported.skipped as usize),
    ))?)
}
