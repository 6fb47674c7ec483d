//! What can be wrong with a snapshot.

use std::{io, path::PathBuf};

use thiserror::Error;

/// Why a snapshot could not be made or read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// What lies there is no snapshot, or nothing is there.
    #[error("{} is no snapshot: {reason}", path.display())]
    None {
        /// What was named.
        path: PathBuf,
        /// What was expected there.
        reason: String,
    },
    /// It does not read as it was written.
    #[error("the snapshot {} is damaged: {what}: {reason}", path.display())]
    Damaged {
        /// The snapshot.
        path: PathBuf,
        /// Which part of it.
        what: String,
        /// What was found.
        reason: String,
    },
    /// A later version of the program made it.
    #[error(
        "the snapshot {} has format {format}, expected {expected}: a later version made it, and \
         can restore it",
        path.display()
    )]
    Format {
        /// The snapshot.
        path: PathBuf,
        /// Its format.
        format: u32,
        /// What this version knows.
        expected: u32,
    },
    /// Something is where the snapshot was to be.
    #[error("{} is there already: choose another name for the snapshot", path.display())]
    Exists {
        /// Where.
        path: PathBuf,
    },
    /// Somebody else is making a snapshot there.
    #[error("{} is being written just now", path.display())]
    InUse {
        /// What is being written.
        path: PathBuf,
    },
    /// It cannot be made there, or not in this way.
    #[error("no snapshot can be made as {}: {reason}", path.display())]
    BadPlace {
        /// Where.
        path: PathBuf,
        /// Why not.
        reason: &'static str,
    },
    /// One snapshot of a collection at a time.
    #[error("a snapshot of collection {collection} is under way: wait for it")]
    Busy {
        /// Name of the collection.
        collection: String,
    },
    /// The collection went away.
    #[error("the snapshot of collection {collection} was given up: it was deleted or closed")]
    Stopped {
        /// Name of the collection.
        collection: String,
    },
    /// Whoever was told how far it is said so.
    #[error("the work on the snapshot was given up before its end")]
    GivenUp,
    /// What writers replaced could not be kept for the snapshot. They went on.
    #[error("the snapshot was given up: what was replaced meanwhile could not be kept: {reason}")]
    NotKept {
        /// What happened.
        reason: String,
    },
    /// A file could not be read or written.
    #[error("a file of the snapshot could not be used")]
    Io(#[from] io::Error),
}
