//! What is written appears under its name when it is complete, or not at all.

use std::path::{Path, PathBuf};

use fs_err as fs;

use crate::ExchangeError;

/// A file or folder that is being written as `NAME.part`; removed again unless it is committed.
#[derive(Debug)]
pub(crate) struct Aside {
    dest: PathBuf,
    part: PathBuf,
}

impl Aside {
    /// For a file or folder that is not there yet; an empty folder counts as not there.
    pub(crate) fn new(dest: &Path) -> Result<Self, ExchangeError> {
        let mut part = dest.file_name().unwrap_or_default().to_owned();
        part.push(".part");
        let part = dest.with_file_name(part);
        let is_empty = fs::read_dir(dest).is_ok_and(|mut entries| entries.next().is_none());
        for path in [dest, &part] {
            if path.symlink_metadata().is_ok() && !(path == dest && is_empty) {
                let path = path.to_owned();
                return Err(ExchangeError::Exists { path });
            }
        }
        let dest = dest.to_owned();
        Ok(Self { dest, part })
    }

    /// Where to write.
    pub(crate) fn path(&self) -> &Path {
        &self.part
    }

    /// Gives it its name, durably; everything in it was synced.
    pub(crate) fn commit(self) -> Result<(), ExchangeError> {
        // An empty folder of that name; anything else makes the rename fail.
        let _ = fs::remove_dir(&self.dest);
        fs::rename(&self.part, &self.dest)?;
        let parent = self.dest.parent().filter(|p| !p.as_os_str().is_empty());
        sync_folder(parent.unwrap_or(Path::new(".")))
    }
}

/// Makes the names in a folder durable.
pub(crate) fn sync_folder(dir: &Path) -> Result<(), ExchangeError> {
    if cfg!(unix) {
        fs::File::open(dir)?.sync_all()?;
    }
    Ok(())
}

impl Drop for Aside {
    fn drop(&mut self) {
        // After a commit there is nothing under this name. What cannot be removed is in the way of
        // the next export, which names it.
        let _ = if self.part.is_dir() {
            fs::remove_dir_all(&self.part)
        } else {
            fs::remove_file(&self.part)
        };
    }
}
