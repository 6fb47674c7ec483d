//! From files to what a tower reads.

use std::{io::Read, path::Path};

use anyhow::{Context, Result};
use embedding::{Embedding, Encoded};
use encoders::{DecodeLimits, Model, Picture, Pixels};
use thiserror::Error;

use crate::pipeline::BATCH;

/// Why a file cannot be read as a picture.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum FileError {
    /// It cannot be read; the message names it.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// It is larger than allowed.
    #[error("the file has {bytes} bytes, at most {max} are allowed")]
    TooLarge {
        /// Its size.
        bytes: u64,
        /// The limit.
        max: usize,
    },
}

/// Reads a file, but never more than `limits` allow.
///
/// # Errors
/// When it cannot be read or is too large.
pub fn read(path: &Path, limits: &DecodeLimits) -> Result<Vec<u8>, FileError> {
    let file = fs_err::File::open(path)?;
    let bytes = file.metadata()?.len();
    let too_large = |bytes| FileError::TooLarge {
        bytes,
        max: limits.max_bytes,
    };
    if bytes > limits.max_bytes as u64 {
        return Err(too_large(bytes));
    }
    let mut contents = Vec::with_capacity(bytes as usize + 1);
    // It may grow while it is read.
    file.take(limits.max_bytes as u64 + 1)
        .read_to_end(&mut contents)?;
    if contents.len() > limits.max_bytes {
        return Err(too_large(contents.len() as u64));
    }
    Ok(contents)
}

/// Reads, decodes and prepares a picture.
///
/// # Errors
/// When the file cannot be read or is no picture; the message names it.
pub fn pixels(path: &Path, model: &Model) -> Result<Pixels> {
    prepare(path, model).with_context(|| format!("{} cannot be used", path.display()))
}

/// The same, with an error that says the reason alone.
///
/// # Errors
/// When the file cannot be read or is no picture.
pub fn prepare(path: &Path, model: &Model) -> Result<Pixels> {
    Ok(model.prepare(&decode(path)?))
}

/// Reads and decodes a picture.
///
/// # Errors
/// When the file cannot be read or is no picture.
pub fn decode(path: &Path) -> Result<Picture> {
    let limits = DecodeLimits::default();
    Ok(encoders::decode(&read(path, &limits)?, &limits)?)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_over_the_limit_is_refused_with_both_sizes() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        fs_err::write(file.path(), [0; 11]).expect("written");
        let limits = DecodeLimits {
            max_bytes: 10,
            ..DecodeLimits::default()
        };
        let error = read(file.path(), &limits).expect_err("too large");
        assert_eq!(
            error.to_string(),
            "the file has 11 bytes, at most 10 are allowed"
        );
        let limits = DecodeLimits {
            max_bytes: 11,
            ..limits
        };
        assert_eq!(read(file.path(), &limits).expect("fits").len(), 11);
    }
}
