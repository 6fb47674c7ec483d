//! What can be wrong with pairs.

use std::path::PathBuf;

use thiserror::Error;

/// Why pairs cannot be read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PairsError {
    /// A file or folder cannot be read; the message names it.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The ending says nothing, or a form that is not read.
    #[error("{}: expected a folder, or a file that ends in .csv, .tsv, .jsonl or .tar", path.display())]
    Form {
        /// The path.
        path: PathBuf,
    },
    /// A table lacks a column, or a line a key.
    #[error("{place} has no {which} {column:?}, it has {}: name one with {option}", has.join(", "))]
    Column {
        /// The file, and the line where there are keys.
        place: String,
        /// `column` or `key`.
        which: &'static str,
        /// What is missing.
        column: String,
        /// What is there.
        has: Vec<String>,
        /// How to name another.
        option: &'static str,
    },
    /// A row lacks its picture or its caption.
    #[error("{}, line {line}: {problem}", file.display())]
    Row {
        /// The file.
        file: PathBuf,
        /// Number of the line, from 1.
        line: u64,
        /// What is missing.
        problem: &'static str,
    },
    /// A table is damaged.
    #[error("{} is not a usable table", file.display())]
    Table {
        /// The file.
        file: PathBuf,
        /// Where and why.
        #[source]
        source: csv::Error,
    },
    /// A line is no JSON object.
    #[error("{}, line {line}: expected a JSON object", file.display())]
    Line {
        /// The file.
        file: PathBuf,
        /// Number of the line, from 1.
        line: u64,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A pattern of shards cannot be used.
    #[error("the pattern {pattern}: {problem}")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        problem: String,
    },
    /// There is no pair at all.
    #[error("{} has no picture with a caption{}", path.display(), first.as_ref().map_or_else(String::new, |f| format!("; {f}")))]
    Empty {
        /// The source.
        path: PathBuf,
        /// The first thing that was left out, if any was.
        first: Option<String>,
    },
}
