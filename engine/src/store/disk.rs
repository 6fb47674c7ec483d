//! The store on disk. The only module that names sled.
//!
//! sled 0.34 alone does not survive a power cut, because its flush is no `fsync` and it reuses
//! space and rolls its log as if it were. What we add, each seen to be needed by cutting the power
//! of a recorded run (`tests/power_loss`):
//!
//! - Every commit is one sled batch, one flush and one `fdatasync`, and the next begins after
//!   that. So at any moment at most one batch is uncertain, and sled tells a torn batch from a
//!   whole one. For the same reason sled's own timed flush, which also moves pages, is off.
//! - A new store is made aside and then renamed: sled does not sync its settings.
//! - What a cut left of a snapshot is removed before sled takes it for the newest one.

use std::{
    collections::HashSet,
    ffi::OsString,
    fs::TryLockError,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use fs_err::{self as fs, File};
use parking_lot::Mutex;

use super::{Batch, Entry, Store, StoreError, group::GroupCommit};
use crate::error::panic_text;

/// File that one process at a time holds locked.
const LOCK_FILE: &str = "lock";
/// Folder of sled's files.
const STORE_DIR: &str = "store";
/// Folder of a store that is being made.
const NEW_STORE_DIR: &str = "store.new";
/// How often, and how long apart, a lock that sled's own threads are about to release is tried.
const LOCK_TRIES: usize = 40;
const LOCK_PAUSE: Duration = Duration::from_millis(25);

/// A [`Store`] in a folder, on sled 0.34.
pub struct DiskStore {
    // Dropped in this order: the lock goes last.
    db: sled::Db,
    /// sled's data file, opened a second time in order to sync it.
    data: File,
    dir: PathBuf,
    blobs: Mutex<Blobs>,
    group: GroupCommit,
    _lock: File,
}

/// Values too large for a log buffer lie in files of their own, which sled never syncs.
#[derive(Debug, Default)]
struct Blobs {
    changed: Option<SystemTime>,
    synced: HashSet<OsString>,
}

impl DiskStore {
    /// Opens or creates the store of the data directory `dir`.
    ///
    /// # Errors
    /// When another process has it open, when the folder cannot be written, or when the files are
    /// damaged.
    pub fn open(dir: &Path, cache_bytes: u64) -> Result<Self, StoreError> {
        let store_dir = dir.join(STORE_DIR);
        let io = |source| StoreError::Io {
            dir: store_dir.clone(),
            source,
        };
        create_dir(dir).map_err(io)?;
        let lock = lock(dir)?;
        if !store_dir.exists() {
            create(dir, &store_dir, cache_bytes)?;
        }
        remove_unfinished_snapshots(&store_dir).map_err(io)?;
        let db = open_sled(&store_dir, cache_bytes)?;
        let data = File::open(store_dir.join("db")).map_err(io)?;
        let store = Self {
            db,
            data,
            dir: store_dir.clone(),
            blobs: Mutex::default(),
            group: GroupCommit::default(),
            _lock: lock,
        };
        store.sync()?;
        // The names of new files are durable only with their folders.
        sync_dir(&store_dir)
            .and_then(|()| sync_dir(dir))
            .map_err(io)?;
        Ok(store)
    }

    /// Applies a batch, and waits until it is durable.
    fn write(&self, batch: Batch) -> Result<(), StoreError> {
        let mut writes = sled::Batch::default();
        for (key, value) in batch.writes {
            match value {
                Some(value) => writes.insert(key, value),
                None => writes.remove(key),
            }
        }
        // One tree holds everything, because a sled batch is atomic within one tree only.
        self.db.apply_batch(writes).map_err(library)?;
        self.sync()
    }

    /// Writes out everything that was applied, and waits for the disk.
    fn sync(&self) -> Result<(), StoreError> {
        self.db.flush().map_err(library)?;
        self.sync_blobs()
            .and_then(|()| self.data.sync_data())
            .map_err(|source| StoreError::Io {
                dir: self.dir.clone(),
                source,
            })
    }

    fn sync_blobs(&self) -> std::io::Result<()> {
        let dir = self.dir.join("blobs");
        let changed = fs::metadata(&dir)?.modified()?;
        // Only one thread syncs at a time, so this lock is never waited for.
        let mut blobs = self.blobs.lock();
        if blobs.changed == Some(changed) {
            return Ok(());
        }
        let mut present = HashSet::new();
        for entry in fs::read_dir(&dir)? {
            let entry = entry?;
            let name = entry.file_name();
            if !blobs.synced.contains(&name) {
                match File::open(entry.path()).and_then(|file| file.sync_data()) {
                    // sled removes blobs as it likes.
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                    result => result?,
                }
            }
            present.insert(name);
        }
        sync_dir(&dir)?;
        // A clock tick is coarse: a change within the same tick must be seen again next time.
        let old = changed
            .elapsed()
            .is_ok_and(|age| age > Duration::from_secs(1));
        *blobs = Blobs {
            changed: old.then_some(changed),
            synced: present,
        };
        Ok(())
    }
}

/// Makes a folder and all above it, with durable names.
fn create_dir(dir: &Path) -> std::io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    let parent = dir.parent().filter(|parent| *parent != Path::new(""));
    let parent = parent.unwrap_or(Path::new("."));
    create_dir(parent)?;
    fs::create_dir_all(dir)?;
    sync_dir(parent)
}

/// Makes an empty store under another name, and puts it in place when it is durable.
fn create(dir: &Path, store_dir: &Path, cache_bytes: u64) -> Result<(), StoreError> {
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
    sync_dir(dir).map_err(io)
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
fn remove_unfinished_snapshots(dir: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|ending| ending == "generating") {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// Holds the directory for this process.
fn lock(dir: &Path) -> Result<File, StoreError> {
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
fn open_sled(dir: &Path, cache_bytes: u64) -> Result<sled::Db, StoreError> {
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

fn sync_dir(dir: &Path) -> std::io::Result<()> {
    // Elsewhere a folder cannot be opened, and its names need no sync.
    if cfg!(unix) {
        File::open(dir)?.sync_all()
    } else {
        Ok(())
    }
}

impl std::fmt::Debug for DiskStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // sled would print everything it holds.
        f.debug_struct("DiskStore")
            .field("dir", &self.dir)
            .finish_non_exhaustive()
    }
}

fn library(error: sled::Error) -> StoreError {
    StoreError::Library(Box::new(error))
}

impl Store for DiskStore {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self
            .db
            .get(key)
            .map_err(library)?
            .map(|value| value.to_vec()))
    }

    fn scan<'a>(&'a self, prefix: &[u8]) -> Box<dyn Iterator<Item = Entry> + Send + 'a> {
        Box::new(self.db.scan_prefix(prefix).map(|entry| {
            let (key, value) = entry.map_err(library)?;
            Ok((key.to_vec(), value.to_vec()))
        }))
    }

    fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        if batch.is_empty() {
            return Ok(());
        }
        self.group.commit(batch, |batch| self.write(batch))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CACHE_BYTES: u64 = 8 << 20;

    #[test]
    fn the_disk_store_keeps_the_contract() {
        let dirs = Mutex::new(Vec::new());
        let make = || {
            let dir = tempfile::tempdir().expect("a temporary folder");
            let store = DiskStore::open(dir.path(), CACHE_BYTES).expect("opens");
            dirs.lock().push(dir);
            store
        };
        super::super::check_contract(make, |store| {
            let dir = store
                .dir
                .parent()
                .expect("inside the data directory")
                .to_owned();
            drop(store);
            DiskStore::open(&dir, CACHE_BYTES).expect("opens again")
        });
    }

    #[test]
    fn a_second_open_of_a_directory_is_refused() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let first = DiskStore::open(dir.path(), CACHE_BYTES).expect("opens");
        let second = DiskStore::open(dir.path(), CACHE_BYTES);
        assert!(matches!(second, Err(StoreError::Locked { .. })));
        drop(first);
        DiskStore::open(dir.path(), CACHE_BYTES).expect("free again");
    }

    #[test]
    fn files_that_sled_refuses_give_an_error_that_names_the_folder() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let store_dir = dir.path().join(STORE_DIR);
        let other = sled::Config::new().path(&store_dir).segment_size(1 << 20);
        drop(other.open().expect("opens"));
        let error = DiskStore::open(dir.path(), CACHE_BYTES).expect_err("has other settings");
        assert!(matches!(error, StoreError::CannotOpen { .. }), "{error:?}");
        assert!(
            error.to_string().contains(&*store_dir.to_string_lossy()),
            "{error}"
        );
    }
}
