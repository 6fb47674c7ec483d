//! Many pictures and texts, through the towers.

use anyhow::{Result, bail};
use embedding::{Embedding, Encoded};
use encoders::Model;
use pairs::Location;

use crate::{inputs, output, walk::Failure};

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
    pictures: &[Location],
    model: &Model,
    failed: &mut Vec<Failure>,
    keep: impl Fn(Encoded) -> Result<T>,
) -> Result<Pictures<T>> {
    let bar = output::progress("encoding pictures", pictures.len());
    let mut rows: Vec<Option<T>> = pictures.iter().map(|_| None).collect();
    let mut unread = Vec::new();
    let prepare = |picture: &Location| -> Result<_> {
        Ok(match inputs::prepare(picture, model) {
            Ok(pixels) => (None, Some(pixels)),
            Err(error) => (Some(Failure::new(picture, error.as_ref())), None),
        })
    };
    encoders::encode_all(pictures, model.image().as_ref(), prepare, |done| {
        bar.inc(done.len() as u64);
        for one in done {
            if let Some(encoded) = one.encoded {
                rows[one.index] = Some(keep(encoded)?);
            }
            unread.extend(one.note.map(|failure| (one.index, failure)));
        }
        Ok(())
    })?;
    bar.finish_and_clear();
    unread.sort_by_key(|(place, _)| *place);
    if let [(_, first), ..] = unread.as_slice()
        && unread.len() == pictures.len()
    {
        bail!(
            "none of the {} pictures can be read; {}: {}",
            pictures.len(),
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
