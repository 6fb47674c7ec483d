//! Embeddings from a file of `NumPy`.

use std::{error::Error, path::Path};

use embedding::Embedding;
use exchange::NpyReader;

/// Reads a `.npy` file, `[n, dim]`. Rows are made unit.
///
/// # Errors
/// When the file cannot be read, holds anything else, or has a row without a direction; the error
/// names the file.
pub fn read_npy(path: &Path) -> Result<Vec<Embedding>, Box<dyn Error>> {
    let rows = NpyReader::open(path)?.enumerate();
    let embedding = |(i, row): (usize, Result<_, _>)| {
        let made = Embedding::normalized(row?);
        made.map_err(|error| format!("{}: row {i}: {error}", path.display()).into())
    };
    rows.map(embedding).collect()
}
