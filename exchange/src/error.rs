//! Everything that can go wrong when items are exchanged.

use std::{io, path::PathBuf};

use embedding::EmbeddingError;
use engine::EngineError;
use parquet::errors::ParquetError;
use thiserror::Error;

use crate::NpyError;

/// Why items could not be written or read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ExchangeError {
    /// A file or folder could not be used.
    #[error("a file could not be used")]
    Io(#[from] io::Error),
    /// A `.npy` file could not be used.
    #[error(transparent)]
    Npy(#[from] NpyError),
    /// The engine refused or failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The Parquet library refused or failed.
    #[error("{} cannot be read or written as Parquet", path.display())]
    Parquet {
        /// The file.
        path: PathBuf,
        /// What it said.
        #[source]
        source: ParquetError,
    },
    /// A file is not as it was written.
    #[error("{} is damaged: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was found.
        reason: String,
    },
    /// A column that is needed is not there.
    #[error("{} has no column {column}, expected {expected}", path.display())]
    NoColumn {
        /// The file.
        path: PathBuf,
        /// Its name.
        column: &'static str,
        /// What it holds, and what to do without it.
        expected: &'static str,
    },
    /// A column holds something else.
    #[error("{}: column {column} has type {found}, expected {expected}", path.display())]
    WrongColumn {
        /// The file.
        path: PathBuf,
        /// Its name.
        column: String,
        /// Its type.
        found: String,
        /// What it should be.
        expected: String,
    },
    /// What the file says of itself cannot be understood.
    #[error("{}: the metadata {key:?} {reason}", path.display())]
    BadAbout {
        /// The file.
        path: PathBuf,
        /// Name of the metadata.
        key: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// Nothing says which model made the embeddings.
    #[error(
        "{} does not say which model made its embeddings, and those of different models cannot \
         meet",
        path.display()
    )]
    UnknownModel {
        /// The file or folder.
        path: PathBuf,
    },
    /// Another model made the embeddings than those of the collection.
    #[error(
        "the embeddings of {} were made by {made_by}, those of collection {collection} by \
         {expected}: embeddings of different models cannot meet",
        path.display()
    )]
    AnotherModel {
        /// The file or folder.
        path: PathBuf,
        /// The model of the file.
        made_by: String,
        /// Name of the collection.
        collection: String,
        /// Its model.
        expected: String,
    },
    /// The files of a folder do not fit together.
    #[error("{}: {reason}", path.display())]
    Layout {
        /// The folder, or one of its files.
        path: PathBuf,
        /// What is wrong, and what was expected.
        reason: String,
    },
    /// What would be written is there.
    #[error("{} is there already: remove it, or choose another name", path.display())]
    Exists {
        /// The file or folder.
        path: PathBuf,
    },
    /// A row is no item.
    #[error(transparent)]
    BadRow(Box<BadRow>),
}

/// A row that cannot become an item.
#[derive(Debug, Error)]
#[error("row {row} of {}{}", path.display(), in_words(id.as_deref()))]
pub struct BadRow {
    /// The file.
    pub path: PathBuf,
    /// Which row, counted from 0.
    pub row: u64,
    /// What is in its column `id`, as far as that could be read.
    pub id: Option<String>,
    /// What is wrong with it.
    #[source]
    pub problem: RowProblem,
}

fn in_words(id: Option<&str>) -> String {
    id.map(|id| format!(" (id {id:?})")).unwrap_or_default()
}

/// What is wrong with a row.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RowProblem {
    /// Something that every item has is missing.
    #[error("{column} is null")]
    Null {
        /// Name of the column.
        column: &'static str,
    },
    /// An embedding has another number of elements.
    #[error("{column} has {got} numbers, expected {expected}")]
    WrongDim {
        /// Name of the column.
        column: &'static str,
        /// How many it has.
        got: usize,
        /// How many it should have.
        expected: usize,
    },
    /// An embedding is none.
    #[error("{column}: {source}")]
    Embedding {
        /// Name of the column.
        column: &'static str,
        /// What is wrong with it.
        #[source]
        source: EmbeddingError,
    },
    /// A modality that is not known.
    #[error("modality is {found:?}, expected \"image\" or \"text\"")]
    Modality {
        /// What it is.
        found: String,
    },
    /// A hash of another length.
    #[error("content_hash has {bytes} bytes, expected 32")]
    Hash {
        /// Its length.
        bytes: usize,
    },
    /// A payload that is no JSON object.
    #[error("payload is no JSON object: {0}")]
    Payload(#[source] serde_json::Error),
    /// The collection does not take the item.
    #[error(transparent)]
    Refused(#[from] EngineError),
}
