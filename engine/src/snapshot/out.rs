//! Where a snapshot is written to.

use std::{
    io::Write,
    path::{Path, PathBuf},
};

use fs_err::{self as fs, File};

use super::{
    SnapshotError,
    heads::HEADS,
    manifest::{CHUNKS, MANIFEST},
    partial::{Partial, is_partial},
    tarball,
};
use crate::store::sync_dir;

/// A snapshot that is being written; nothing is left of it unless it is finished.
#[derive(Debug)]
pub(super) enum Out {
    /// A folder.
    Folder {
        partial: Partial,
        /// Snapshots whose files may be shared; where the last was found comes first.
        others: Vec<PathBuf>,
    },
    /// One file.
    Tar(Partial),
}

impl Out {
    /// Starts one at `to`.
    pub(super) fn start(to: &Path, base: Option<&Path>) -> Result<Self, SnapshotError> {
        if tarball::is_tar(to) {
            if base.is_some() {
                return Err(SnapshotError::BadPlace {
                    path: to.to_owned(),
                    reason: "one file shares no chunks with another snapshot; name a folder, or no \
                             base",
                });
            }
            return Ok(Self::Tar(Partial::file(to)?));
        }
        if let Some(base) = base.filter(|base| !base.join(MANIFEST).is_file()) {
            return Err(SnapshotError::None {
                path: base.to_owned(),
                reason: format!("the base must be a folder with a {MANIFEST}"),
            });
        }
        let partial = Partial::folder(to)?;
        let mut others: Vec<PathBuf> = base.map(Path::to_owned).into_iter().collect();
        for entry in fs::read_dir(partial.parent())? {
            let path = entry?.path();
            if !is_partial(&path) && path.join(MANIFEST).is_file() {
                others.push(path);
            }
        }
        fs::create_dir(partial.path().join(CHUNKS))?;
        Ok(Self::Folder { partial, others })
    }

    /// The folder that it will be in.
    pub(super) fn parent(&self) -> &Path {
        match self {
            Self::Folder { partial, .. } | Self::Tar(partial) => partial.parent(),
        }
    }

    /// Adds a file that is named by its content. Gives whether it takes room of its own.
    pub(super) fn put(&mut self, name: &str, bytes: &[u8]) -> Result<bool, SnapshotError> {
        let (partial, others) = match self {
            Self::Tar(partial) => {
                tarball::put(partial.opened(), name, bytes)?;
                return Ok(true);
            }
            Self::Folder { partial, others } => (partial, others),
        };
        let to = partial.path().join(name);
        if let Some(folder) = to.parent() {
            fs::create_dir_all(folder)?;
        }
        let linked = others.iter().position(|other| {
            let from = other.join(name);
            // One that was damaged since must not get into another snapshot.
            has(&from, bytes) && fs::hard_link(&from, &to).is_ok()
        });
        if let Some(found) = linked {
            others[..=found].rotate_right(1);
            return Ok(false);
        }
        write(&to, bytes)?;
        Ok(true)
    }

    /// Completes it; durable on return.
    pub(super) fn finish(self, manifest: &[u8]) -> Result<(), SnapshotError> {
        match self {
            Self::Folder { partial, .. } => {
                for folder in [CHUNKS, HEADS].map(|name| partial.path().join(name)) {
                    if folder.is_dir() {
                        sync_dir(&folder)?;
                    }
                }
                write(&partial.path().join(MANIFEST), manifest)?;
                partial.finish()
            }
            Self::Tar(mut partial) => {
                let file = partial.opened();
                tarball::put(file, MANIFEST, manifest)?;
                tarball::end(file)?;
                file.sync_all()?;
                partial.finish()
            }
        }
    }
}

/// Whether a file has just these bytes.
fn has(path: &Path, bytes: &[u8]) -> bool {
    let length = std::fs::metadata(path).map(|meta| meta.len());
    length.is_ok_and(|length| length == bytes.len() as u64)
        && std::fs::read(path).is_ok_and(|there| there == bytes)
}

fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = File::create_new(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}
