//! Opening sled's folder, which a power cut may have left in any state.

use std::{
    fs::TryLockError,
    io::ErrorKind::{InvalidInput, PermissionDenied, UnexpectedEof},
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    time::Duration,
};

use fs_err::{self as fs, File};

use crate::{error::panic_text, store::StoreError};

/// File that one process at a time holds locked.
const LOCK_FILE: &str = "lock";
/// Folder of a store that is being made.
const NEW_STORE_DIR: &str = "store.new";
/// How often, and how long apart, a lock that sled's own threads are about to release is tried.
const LOCK_TRIES: usize = 40;
const LOCK_PAUSE: Duration = Duration::from_millis(25);

/// Makes an empty store under another name, and puts it in place when it is durable.
pub(super) fn create(dir: &Path, store_dir: &Path, cache_bytes: u64) -> Result<(), StoreError> {
    let io = |source| StoreError::Io {
        dir: dir.to_owned(),
        source,
    };
    let new = dir.join(NEW_STORE_DIR);
    // One that was cut short.
    if new.exists() {
        fs::remove_dir_all(&new).map_err(io)?;
    }
    fs::create_dir(&new).map_err(io)?;
    drop(open_sled(&new, cache_bytes)?);
    sync_all(&new).map_err(io)?;
    fs::rename(&new, store_dir).map_err(io)?;
    sync_names(dir).map_err(io)
}

/// Syncs a folder and all above it, as any of them may have been made a moment ago.
pub(crate) fn sync_names(dir: &Path) -> std::io::Result<()> {
    let dir = fs::canonicalize(dir)?;
    dir.ancestors().try_for_each(|above| match sync_dir(above) {
        // Nor could we have made anything in it; or it knows no sync of folders.
        Err(error) if matches!(error.kind(), PermissionDenied | InvalidInput) => Ok(()),
        result => result,
    })
}

/// Syncs a folder and everything in it.
fn sync_all(dir: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_all(&entry.path())?;
        } else {
            File::open(entry.path())?.sync_all()?;
        }
    }
    sync_dir(dir)
}

/// Removes snapshots of sled's page table that were still being written. sled would take such a
/// file for the newest snapshot and refuse to open; the one before it is still there.
pub(super) fn remove_unfinished_snapshots(dir: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path
            .extension()
            .is_some_and(|ending| ending == "generating")
        {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// Holds the directory for this process.
pub(super) fn lock(dir: &Path) -> Result<File, StoreError> {
    let path = dir.join(LOCK_FILE);
    let io = |source| StoreError::Io {
        dir: dir.to_owned(),
        source,
    };
    let file = fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .map_err(io)?;
    match file.file().try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::Locked {
            dir: dir.to_owned(),
        }),
        Err(TryLockError::Error(source)) => Err(io(source)),
    }
}

/// Opens sled, which has been seen to panic on files that a hard stop left behind.
pub(super) fn open_sled(dir: &Path, cache_bytes: u64) -> Result<sled::Db, StoreError> {
    let config = sled::Config::new()
        .path(dir)
        .cache_capacity(cache_bytes)
        .flush_every_ms(None);
    let refused = |reason: String| StoreError::CannotOpen {
        dir: dir.to_owned(),
        reason,
    };
    let mut tries = 0;
    loop {
        let opened = catch_unwind(AssertUnwindSafe(|| config.open()));
        match opened {
            Ok(Ok(db)) => return Ok(db),
            Ok(Err(sled::Error::Io(error))) if error.to_string().contains("acquire lock") => {
                // We hold our own lock, so this is a store of this process that was just closed.
                tries += 1;
                if tries == LOCK_TRIES {
                    return Err(StoreError::Locked {
                        dir: dir.to_owned(),
                    });
                }
                std::thread::sleep(LOCK_PAUSE);
            }
            Ok(Err(sled::Error::Io(source))) if source.kind() == UnexpectedEof => {
                return Err(refused("a file is cut short".to_owned()));
            }
            Ok(Err(sled::Error::Io(source))) => {
                return Err(StoreError::Io {
                    dir: dir.to_owned(),
                    source,
                });
            }
            Ok(Err(error)) => return Err(refused(error.to_string())),
            Err(panic) => return Err(refused(panic_text(panic.as_ref()))),
        }
    }
}

/// Syncs the names in a folder.
pub(crate) fn sync_dir(dir: &Path) -> std::io::Result<()> {
    // Elsewhere a folder cannot be opened, and its names need no sync.
    if cfg!(unix) {
        File::open(dir)?.sync_all()
    } else {
        Ok(())
    }
}
