//! Many pictures and texts, through the towers.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use embedding::{Embedding, Encoded};
use encoders::Model;

use crate::{inputs, output, pipeline, walk::Failure};

/// Pictures that could be encoded.
pub struct Pictures<T> {
    /// Where among those given, ascending.
    pub places: Vec<usize>,
    /// What was kept of each.
    pub rows: Vec<T>,
}

/// Encodes pictures and gives what `keep` keeps of each; the rest joins the failures.
///
/// # Errors
/// When none can be read, or the model or `keep` fails.
pub fn pictures<T>(
    paths: &[&Path],
    model: &Model,
    failed: &mut Vec<Failure>,
    keep: impl Fn(Encoded) -> Result<T>,
) -> Result<Pictures<T>> {
    let bar = output::progress("encoding pictures", paths.len());
    let mut rows: Vec<Option<T>> = paths.iter().map(|_| None).collect();
    let mut unread = Vec::new();
    let prepare = |path: &&Path| {
        Ok(inputs::prepare(path, model).map_err(|error| Failure::new(path, error.as_ref())))
    };
    pipeline::in_batches(paths, prepare, |places, prepared| {
        bar.inc(places.len() as u64);
        let (mut readable, mut pixels) = (Vec::new(), Vec::new());
        for (place, prepared) in places.into_iter().zip(prepared) {
            match prepared {
                Ok(picture) => {
                    readable.push(place);
                    pixels.push(picture);
                }
                Err(failure) => unread.push((place, failure)),
            }
        }
        if pixels.is_empty() {
            return Ok(());
        }
        for (place, encoded) in readable.into_iter().zip(model.image().encode(&pixels)?) {
            rows[place] = Some(keep(encoded)?);
        }
        Ok(())
    })?;
    bar.finish_and_clear();
    unread.sort_by_key(|(place, _)| *place);
    if let [(_, first), ..] = unread.as_slice()
        && unread.len() == paths.len()
    {
        bail!(
            "none of the {} pictures can be read; {}: {}",
            paths.len(),
            first.path,
            first.reason
        );
    }
    failed.extend(unread.into_iter().map(|(_, failure)| failure));
    let (places, rows) = rows
        .into_iter()
        .enumerate()
        .filter_map(|(place, row)| Some((place, row?)))
        .unzip();
    Ok(Pictures { places, rows })
}

/// Shared embeddings of texts, in their order.
///
/// # Errors
/// When the model cannot use one of them.
pub fn texts(what: &'static str, texts: &[String], model: &Model) -> Result<Vec<Embedding>> {
    let bar = output::progress(what, texts.len());
    let embeddings = inputs::shared_of_texts(texts, model, |done| bar.inc(done as u64));
    bar.finish_and_clear();
    embeddings
}

/// Paths of owned ones.
pub fn borrowed(paths: &[PathBuf]) -> Vec<&Path> {
    paths.iter().map(PathBuf::as_path).collect()
}
