//! The store on disk. The only module that names sled.

use std::{
    collections::HashSet,
    ffi::OsString,
    fs::TryLockError,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use fs_err::{self as fs, File};
use parking_lot::{Mutex, RwLock};

use super::{
    Batch, Entry, Store, StoreError,
    group::{GroupCommit, caught},
};
use crate::error::panic_text;

/// File that one process at a time holds locked.
const LOCK_FILE: &str = "lock";
/// Folder of sled's files.
const STORE_DIR: &str = "store";
/// How often, and how long apart, a lock that sled's own threads are about to release is tried.
const LOCK_TRIES: usize = 40;
const LOCK_PAUSE: Duration = Duration::from_millis(25);

/// A [`Store`] in a folder, on sled 0.34.
///
/// On Linux sled's flush starts the writing of the pages but does not wait for the disk's own
/// cache, so every commit is followed by an `fdatasync` of our own, shared by all who wait.
pub struct DiskStore {
    // Dropped in this order: the lock goes last.
    db: sled::Db,
    /// sled's data file, opened a second time in order to sync it.
    data: File,
    dir: PathBuf,
    blobs: Mutex<Blobs>,
    /// Held for reading while sled may write a blob, so that whoever holds it for writing sees
    /// whole ones only. sled also splits nodes, and so writes blobs, while it reads.
    in_sled: RwLock<()>,
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
        create_dir(&store_dir).map_err(io)?;
        let lock = lock(dir)?;
        let db = open_sled(&store_dir, cache_bytes)?;
        let data = File::open(store_dir.join("db")).map_err(io)?;
        let store = Self {
            db,
            data,
            dir: store_dir.clone(),
            blobs: Mutex::default(),
            in_sled: RwLock::default(),
            group: GroupCommit::default(),
            _lock: lock,
        };
        store.write_out()?;
        // The names of new files are durable only with their folders.
        sync_dir(&store_dir)
            .and_then(|()| sync_dir(dir))
            .map_err(io)?;
        Ok(store)
    }

    /// Writes out everything that was applied, and waits for the disk.
    fn write_out(&self) -> Result<(), StoreError> {
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
        // What is listed is whole: a blob that is still being written when it is synced would be
        // remembered as synced, and its end never be.
        let listed: Vec<_> = {
            let _nobody_writes = self.in_sled.write();
            fs::read_dir(&dir)?.collect::<Result<_, _>>()?
        };
        let mut present = HashSet::new();
        for entry in listed {
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
    let config = sled::Config::new().path(dir).cache_capacity(cache_bytes);
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

/// Creates a folder and those above it, and makes the names of the new ones durable.
fn create_dir(dir: &Path) -> std::io::Result<()> {
    let absent = absent(dir);
    fs::create_dir_all(dir)?;
    for new in absent {
        let parent = match new.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        match sync_dir(parent) {
            // A folder that one may write to but not list.
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {}
            result => result?,
        }
    }
    Ok(())
}

/// Which of a folder and those above it are not there, the topmost first.
fn absent(dir: &Path) -> Vec<&Path> {
    let named = dir.ancestors().filter(|dir| !dir.as_os_str().is_empty());
    let mut absent: Vec<&Path> = named.take_while(|dir| !dir.exists()).collect();
    absent.reverse();
    absent
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

/// The entries up to the first error. sled's iterator gives the same error again and again.
fn up_to_error<T, E>(
    mut entries: impl Iterator<Item = Result<T, E>>,
) -> impl Iterator<Item = Result<T, E>> {
    let mut failed = false;
    std::iter::from_fn(move || {
        if failed {
            return None;
        }
        let entry = entries.next();
        failed = matches!(entry, Some(Err(_)));
        entry
    })
}

fn library(error: sled::Error) -> StoreError {
    StoreError::Library(Box::new(error))
}

impl Store for DiskStore {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let _in_sled = self.in_sled.read();
        Ok(self
            .db
            .get(key)
            .map_err(library)?
            .map(|value| value.to_vec()))
    }

    fn scan<'a>(&'a self, prefix: &[u8]) -> Box<dyn Iterator<Item = Entry> + Send + 'a> {
        let mut entries = self.db.scan_prefix(prefix);
        let step = move || {
            let _in_sled = self.in_sled.read();
            entries.next()
        };
        Box::new(up_to_error(std::iter::from_fn(step)).map(|entry| {
            let (key, value) = entry.map_err(library)?;
            Ok((key.to_vec(), value.to_vec()))
        }))
    }

    fn apply(&self, batch: Batch) -> Result<(), StoreError> {
        self.group.check()?;
        let mut writes = sled::Batch::default();
        for (key, value) in batch.writes {
            match value {
                Some(value) => writes.insert(key, value),
                None => writes.remove(key),
            }
        }
        // One tree holds everything, because a sled batch is atomic within one tree only.
        let applied = caught(|| {
            let _in_sled = self.in_sled.read();
            self.db.apply_batch(writes).map_err(library)
        });
        applied.map_err(|error| self.group.fail(error))
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.group.wait_durable(|| self.write_out())
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
    fn a_blob_that_is_still_being_written_is_not_remembered_as_synced() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let store = DiskStore::open(dir.path(), CACHE_BYTES).expect("opens");
        let blob = store.dir.join("blobs").join("123456789");
        let writing = store.in_sled.read();
        fs::write(&blob, b"ha").expect("writes");
        std::thread::scope(|scope| {
            let sync = scope.spawn(|| store.sync_blobs());
            std::thread::sleep(Duration::from_millis(50));
            assert!(!sync.is_finished(), "half a blob was taken for a whole one");
            fs::write(&blob, b"half").expect("writes");
            drop(writing);
            sync.join().expect("does not panic").expect("syncs");
        });
        assert!(
            store
                .blobs
                .lock()
                .synced
                .contains(&OsString::from("123456789"))
        );
    }

    #[test]
    fn every_folder_that_is_made_for_the_store_is_known_so_that_its_name_is_synced() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let deep = dir.path().join("a/b");
        assert_eq!(absent(&deep), [&dir.path().join("a"), &deep]);
        drop(DiskStore::open(&deep, CACHE_BYTES).expect("opens"));
        assert_eq!(absent(&deep), [""; 0].map(Path::new));
        assert_eq!(
            absent(Path::new("not/there")),
            ["not", "not/there"].map(Path::new)
        );
    }

    #[test]
    fn a_scan_that_cannot_go_on_ends_with_its_first_error() {
        // Whoever went on after an error, as one does for a damaged item, never came to an end.
        let stuck = [Ok(1), Ok(2)]
            .into_iter()
            .chain(std::iter::repeat(Err("unreadable")));
        let mut entries = up_to_error(stuck);
        let seen: Vec<_> = entries.by_ref().take(9).collect();
        assert_eq!(seen, [Ok(1), Ok(2), Err("unreadable")]);
        assert_eq!(entries.next(), None);
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
