//! `diptych embed`: embeddings of texts and pictures, as they are.

use std::path::PathBuf;

use anyhow::{Context, Result};
use embedding::{Embedding, Encoded, Fingerprint, Modality};
use encoders::Model;
use serde::Serialize;

use crate::{
    args::{EmbedArgs, Places},
    home, inputs, output,
    pipeline::{self, BATCH},
};

/// Elements of an embedding that the table shows.
const SHOWN: usize = 4;

#[derive(Debug, Serialize)]
struct Answer {
    model: String,
    fingerprint: Fingerprint,
    items: Vec<Embedded>,
}

#[derive(Debug, Serialize)]
struct Embedded {
    input: String,
    modality: Modality,
    shared: Embedding,
    specific: Option<Embedding>,
}

/// Encodes and prints; texts first, then pictures, each in the order given.
///
/// # Errors
/// When any input cannot be used: an answer of another length would be mistaken.
pub fn run(places: &Places, args: &EmbedArgs) -> Result<()> {
    let model = home::model(places)?;
    let mut items = texts(&args.text, &model)?;
    items.extend(pictures(&args.image, &model)?);
    let spaces = model.spaces();
    let answer = Answer {
        model: spaces.model.clone(),
        fingerprint: spaces.fingerprint,
        items,
    };
    if args.json {
        return Ok(output::json(&answer)?);
    }
    let rows: Vec<_> = answer.items.iter().map(row).collect();
    Ok(output::table(
        ["input", "modality", "shared", "specific"],
        &rows,
    )?)
}

fn texts(texts: &[String], model: &Model) -> Result<Vec<Embedded>> {
    let mut items = Vec::with_capacity(texts.len());
    for batch in texts.chunks(BATCH) {
        let encoded = model.text().encode(batch)?;
        let embedded = |(text, encoded): (&String, _)| of(text.clone(), Modality::Text, encoded);
        items.extend(batch.iter().zip(encoded).map(embedded));
    }
    Ok(items)
}

fn pictures(files: &[PathBuf], model: &Model) -> Result<Vec<Embedded>> {
    let mut items: Vec<Option<Embedded>> = files.iter().map(|_| None).collect();
    let prepare = |file: &PathBuf| inputs::pixels(file, model);
    pipeline::pictures(files, model, prepare, |some| {
        for (row, encoded) in some {
            items[row] = Some(of(
                files[row].display().to_string(),
                Modality::Image,
                encoded,
            ));
        }
        Ok(())
    })?;
    items
        .into_iter()
        .collect::<Option<_>>()
        .context("a picture was not encoded")
}

fn of(input: String, modality: Modality, encoded: Encoded) -> Embedded {
    Embedded {
        input,
        modality,
        shared: encoded.shared,
        specific: encoded.specific,
    }
}

fn row(item: &Embedded) -> [String; 4] {
    let short = |embedding: &Embedding| {
        let start = embedding.as_slice().iter().take(SHOWN);
        let start: Vec<String> = start.map(|x| format!("{x:.4}")).collect();
        format!("{} ... ({} in all)", start.join(" "), embedding.dim())
    };
    let specific = item
        .specific
        .as_ref()
        .map_or_else(|| "none".to_owned(), short);
    [
        item.input.clone(),
        item.modality.to_string(),
        short(&item.shared),
        specific,
    ]
}
