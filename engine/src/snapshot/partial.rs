//! A snapshot that is being made has another name beside its place, and is locked. One that a stop
//! cut short is not locked any more. A folder is then removed by the next snapshot that is made
//! beside it; a file only by one of its name, since nothing in it says that it is ours.

use std::{
    fs::TryLockError,
    path::{Path, PathBuf},
};

use fs_err::{self as fs, File, OpenOptions};

use super::SnapshotError;
use crate::store::{sync_dir, sync_names};

/// Added to the name.
const ENDING: &str = "partial";
/// In a folder, so that it can be locked, and nothing else is taken for one of ours.
const LOCK: &str = "diptych-snapshot.lock";

/// Whether this is the name of what is being made.
pub(super) fn is_partial(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending == ENDING)
}

/// Something that is being made. It is removed when this is dropped.
#[derive(Debug)]
pub(super) struct Partial {
    path: PathBuf,
    to: PathBuf,
    parent: PathBuf,
    is_done: bool,
    /// Locked.
    file: File,
}

impl Partial {
    /// A folder.
    pub(super) fn folder(to: &Path) -> Result<Self, SnapshotError> {
        Self::start(to, |path| {
            // Left empty by a stop before there was a lock.
            let _ = fs::remove_dir(path);
            match fs::create_dir(path) {
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                    Err(SnapshotError::InUse {
                        path: path.to_owned(),
                    })
                }
                made => Ok(made?),
            }?;
            lock(&path.join(LOCK), path)
        })
    }

    /// A file.
    pub(super) fn file(to: &Path) -> Result<Self, SnapshotError> {
        Self::start(to, |path| {
            let file = lock(path, path)?;
            file.set_len(0)?;
            Ok(file)
        })
    }

    fn start(
        to: &Path,
        make: impl FnOnce(&Path) -> Result<File, SnapshotError>,
    ) -> Result<Self, SnapshotError> {
        let to = std::path::absolute(to)?;
        let bad = |reason| SnapshotError::BadPlace {
            path: to.clone(),
            reason,
        };
        let (Some(parent), Some(name)) = (to.parent(), to.file_name()) else {
            return Err(bad("it has no name"));
        };
        if is_partial(&to) {
            return Err(bad("names that end so are those of unfinished ones"));
        }
        check_free(&to)?;
        fs::create_dir_all(parent)?;
        remove_leftovers(parent)?;
        let mut partial = name.to_owned();
        partial.push(".");
        partial.push(ENDING);
        let path = parent.join(partial);
        Ok(Self {
            file: make(&path)?,
            parent: parent.to_owned(),
            path,
            is_done: false,
            to,
        })
    }

    /// What is being made.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The folder that it is in.
    pub(super) fn parent(&self) -> &Path {
        &self.parent
    }

    /// The file, or the lock of the folder.
    pub(super) fn opened(&mut self) -> &mut File {
        &mut self.file
    }

    /// Puts it in its place, durably. All that is in it is durable already.
    pub(super) fn finish(mut self) -> Result<(), SnapshotError> {
        check_free(&self.to)?;
        if self.path.is_dir() {
            fs::remove_file(self.path.join(LOCK))?;
            sync_dir(&self.path)?;
        }
        fs::rename(&self.path, &self.to)?;
        self.is_done = true;
        Ok(sync_names(&self.parent)?)
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if !self.is_done
            && let Err(error) = remove(&self.path)
        {
            tracing::warn!("an unfinished snapshot is left behind: {error}");
        }
    }
}

fn check_free(to: &Path) -> Result<(), SnapshotError> {
    match fs::symlink_metadata(to) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error.into()),
        Ok(_) => Err(SnapshotError::Exists {
            path: to.to_owned(),
        }),
    }
}

fn lock(path: &Path, what: &Path) -> Result<File, SnapshotError> {
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(path)?;
    match file.file().try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(SnapshotError::InUse {
            path: what.to_owned(),
        }),
        Err(TryLockError::Error(source)) => Err(source.into()),
    }
}

/// Removes unfinished folders that nobody makes any more.
fn remove_leftovers(parent: &Path) -> Result<(), SnapshotError> {
    for entry in fs::read_dir(parent)? {
        let path = entry?.path();
        let its_lock = path.join(LOCK);
        if is_partial(&path) && its_lock.is_file() {
            match lock(&its_lock, &path) {
                Ok(_locked) => remove(&path)?,
                Err(SnapshotError::InUse { .. }) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

fn remove(path: &Path) -> std::io::Result<()> {
    if path.is_dir() {
        fs::remove_dir_all(path)
    } else {
        fs::remove_file(path)
    }
}
