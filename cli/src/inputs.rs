//! From files to what a tower reads.

use std::path::Path;

use anyhow::{Context, Result};
use embedding::{Embedding, Encoded};
use encoders::{DecodeLimits, Model, Picture, Pixels};
use pairs::Location;

use crate::pipeline::BATCH;

/// Reads, decodes and prepares a picture.
///
/// # Errors
/// When the file cannot be read or is no picture; the message names it.
pub fn pixels(path: &Path, model: &Model) -> Result<Pixels> {
    prepare(&Location::File(path.to_owned()), model)
        .with_context(|| format!("{} cannot be used", path.display()))
}

/// The same, with an error that says the reason alone.
///
/// # Errors
/// When the file cannot be read or is no picture.
pub fn prepare(picture: &Location, model: &Model) -> Result<Pixels> {
    Ok(model.prepare(&decode(picture)?))
}

/// Reads and decodes a picture.
///
/// # Errors
/// When the file cannot be read or is no picture.
pub fn decode(picture: &Location) -> Result<Picture> {
    let limits = DecodeLimits::default();
    let bytes = picture.read(limits.max_bytes)?;
    Ok(encoders::decode(&bytes, &limits)?)
}

/// Shared embeddings of texts, in their order; `done` hears of how many each batch had.
///
/// # Errors
/// When the model cannot use one of them.
pub fn shared_of_texts(
    texts: &[String],
    model: &Model,
    done: impl Fn(usize),
) -> Result<Vec<Embedding>> {
    let mut embeddings = Vec::with_capacity(texts.len());
    for batch in texts.chunks(BATCH) {
        let encoded = model.text().encode(batch)?;
        embeddings.extend(encoded.into_iter().map(|encoded| encoded.shared));
        done(batch.len());
    }
    Ok(embeddings)
}

/// Encodes a picture.
///
/// # Errors
/// When the file cannot be used.
pub fn encode_picture(path: &Path, model: &Model) -> Result<Encoded> {
    one(model.image().encode(&[pixels(path, model)?])?)
}

/// Encodes a text.
///
/// # Errors
/// When the model cannot use it.
pub fn encode_text(text: &str, model: &Model) -> Result<Encoded> {
    one(model.text().encode(&[text.to_owned()])?)
}

fn one(encoded: Vec<Encoded>) -> Result<Encoded> {
    encoded
        .into_iter()
        .next()
        .context("the encoder gave no answer for its input")
}
