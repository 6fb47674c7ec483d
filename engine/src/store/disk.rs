//! The store on disk. The only module that names sled.
//!
//! sled 0.34 alone does not survive a power cut: its flush is no `fsync`, and it rolls its log and
//! reuses space as if it were. What we add is what it took until every power cut of a recorded run
//! left a store that opens and holds what was acknowledged (`tests/power_loss`):
//!
//! - Every commit is one sled batch, one flush and one `fdatasync`, and the next begins after
//!   that. So at any moment at most one batch is uncertain, and sled tells a torn batch from a
//!   whole one. sled's own timed flush, which also moves pages between our commits, is off; pages
//!   then move within batches.
//! - Large values are cut ([`parts`]), so that sled keeps no files beside its log, which it would
//!   not sync in time.
//! - A new store is made aside and then renamed: sled does not sync its settings.
//! - What a cut left of a snapshot is removed before sled takes it for the newest one.
//! - A close opens sled once more, so that nothing is left to replay: sled takes damage within
//!   what it replays for the end of the log.

mod opening;

use std::{
    io::ErrorKind::UnexpectedEof,
    ops::Bound,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering::SeqCst},
};

use fs_err::{self as fs, File};
use opening::{create, lock, open_sled, remove_unfinished_snapshots};
pub(crate) use opening::{sync_dir, sync_names};

use super::{
    Batch, Entry, Store, StoreError,
    group::{GroupCommit, Pending, Writes},
    parts::{self, Stored},
};
use crate::error::panic_text;

/// Folder of sled's files.
const STORE_DIR: &str = "store";

/// A [`Store`] in a folder, on sled 0.34.
pub struct DiskStore {
    /// Open until this is dropped.
    db: Option<sled::Db>,
    /// sled's data file, opened a second time in order to sync it.
    data: File,
    dir: PathBuf,
    cache_bytes: u64,
    group: GroupCommit,
    /// Whether any value is in parts. Mostly none is, and then a write need not look at what it
    /// replaces.
    has_parts: AtomicBool,
    // Dropped last.
    _lock: File,
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
        fs::create_dir_all(dir).map_err(io)?;
        let lock = lock(dir)?;
        if !store_dir.exists() {
            create(dir, &store_dir, cache_bytes)?;
        }
        remove_unfinished_snapshots(&store_dir).map_err(io)?;
        let db = open_sled(&store_dir, cache_bytes)?;
        let data = File::open(store_dir.join("db")).map_err(io)?;
        let store = Self {
            db: Some(db),
            data,
            dir: store_dir.clone(),
            cache_bytes,
            group: GroupCommit::default(),
            has_parts: AtomicBool::new(false),
            _lock: lock,
        };
        let part = store.guarded(|| store.db().scan_prefix(parts::prefix()).next().transpose())?;
        store.has_parts.store(part.is_some(), SeqCst);
        store.write_out()?;
        // The names of new files are durable only with their folders.
        sync_dir(&store_dir)
            .and_then(|()| sync_dir(dir))
            .map_err(io)?;
        Ok(store)
    }

    /// Makes writes durable.
    fn write(&self, all: &Writes) -> Result<(), StoreError> {
        let batch = Batch {
            writes: all.clone().into_iter().collect(),
        };
        self.guarded(|| {
            let batch = parts::cut(batch, |key| -> sled::Result<u32> {
                if !self.has_parts.load(SeqCst) {
                    return Ok(0);
                }
                let stored = self.db().get(key)?;
                Ok(match stored.as_deref().and_then(parts::read) {
                    Some(Stored::Cut { parts, .. }) => parts,
                    _ => 0,
                })
            })?;
            let mut writes = sled::Batch::default();
            for (key, value) in batch.writes {
                if parts::is_part(&key) {
                    self.has_parts.store(true, SeqCst);
                }
                match value {
                    Some(value) => writes.insert(key, value),
                    None => writes.remove(key),
                }
            }
            // One tree holds everything, because a sled batch is atomic within one tree only.
            self.db().apply_batch(writes)
        })?;
        self.write_out()
    }

    /// Writes out everything that was applied, and waits for the disk.
    fn write_out(&self) -> Result<(), StoreError> {
        self.guarded(|| self.db().flush())?;
        self.data.sync_data().map_err(|source| StoreError::Io {
            dir: self.dir.clone(),
            source,
        })
    }

    fn db(&self) -> &sled::Db {
        self.db.as_ref().expect("it is open until it is dropped")
    }

    /// Calls sled, which panics on some damage that it meets.
    fn guarded<T>(&self, call: impl FnOnce() -> sled::Result<T>) -> Result<T, StoreError> {
        let damaged = |reason| StoreError::Damaged {
            dir: self.dir.clone(),
            reason,
        };
        match catch_unwind(AssertUnwindSafe(call)) {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(sled::Error::Io(source))) if source.kind() == UnexpectedEof => {
                Err(damaged("its log is cut short".to_owned()))
            }
            Ok(Err(sled::Error::Io(source))) => Err(StoreError::Io {
                dir: self.dir.clone(),
                source,
            }),
            Ok(Err(sled::Error::Corruption { at, .. })) => Err(damaged(match at {
                Some(at) => format!("its log does not read at {at:?}"),
                None => "its log does not read".to_owned(),
            })),
            Ok(Err(error)) => Err(StoreError::Library(Box::new(error))),
            Err(panic) => Err(damaged(panic_text(panic.as_ref()))),
        }
    }

    /// The value of a key under which `stored` was found, if it is still there.
    fn whole(&self, key: &[u8], stored: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let damaged = |reason: &str| StoreError::Damaged {
            dir: self.dir.clone(),
            reason: reason.to_owned(),
        };
        let (count, identity) = match parts::read(stored) {
            None => {
                return Err(damaged(
                    "a value is of an unknown kind, as another version may write it",
                ));
            }
            Some(Stored::Whole(value)) => return Ok(Some(value.to_vec())),
            Some(Stored::Cut { parts, identity }) => (parts, identity),
        };
        let mut value = Vec::new();
        for i in 0..count {
            let part = self.guarded(|| self.db().get(parts::part_key(key, i)))?;
            if let Some(part) = part.as_ref().and_then(|part| parts::part(part, identity)) {
                value.extend_from_slice(part);
                continue;
            }
            // Either somebody wrote meanwhile, or it will never be whole.
            let Some(now) = self.guarded(|| self.db().get(key))? else {
                return Ok(None);
            };
            if now == stored {
                return Err(damaged("a part of a value is missing"));
            }
            return self.whole(key, &now);
        }
        Ok(Some(value))
    }
}

impl Drop for DiskStore {
    /// Closes sled. What was written since it was opened is then found by replaying its log, and
    /// damage in that part of the log would pass for an earlier state. So it is opened once more,
    /// which writes down where everything is; the next open has nothing to replay.
    fn drop(&mut self) {
        let db = self.db.take();
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(db))) {
            tracing::error!("closing the store: {}", panic_text(panic.as_ref()));
            return;
        }
        if !self.group.wrote_well() {
            return;
        }
        let again = open_sled(&self.dir, self.cache_bytes);
        let closed = again.map(|db| catch_unwind(AssertUnwindSafe(|| drop(db))));
        if let Err(error) = closed {
            tracing::warn!("the next open replays the log: {error}");
        }
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

impl Store for DiskStore {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        match self.group.pending(key) {
            Pending::Value(value) => return Ok(Some(value)),
            Pending::Removal => return Ok(None),
            Pending::Nothing => {}
        }
        match self.guarded(|| self.db().get(key))? {
            Some(stored) => self.whole(key, &stored),
            None => Ok(None),
        }
    }

    fn scan_after<'a>(
        &'a self,
        prefix: &[u8],
        after: Option<&[u8]>,
    ) -> Box<dyn Iterator<Item = Entry> + Send + 'a> {
        let from = match after.filter(|after| *after >= prefix) {
            Some(after) => Bound::Excluded(after.to_vec()),
            None => Bound::Included(prefix.to_vec()),
        };
        let mut entries = Some(self.db().range((from, Bound::Unbounded)));
        let prefix = prefix.to_vec();
        Box::new(std::iter::from_fn(move || {
            loop {
                let next = self.guarded(|| entries.as_mut().and_then(Iterator::next).transpose());
                let entry = next.and_then(|entry| match entry {
                    Some((key, _)) if parts::is_part(&key) || !key.starts_with(&prefix) => Ok(None),
                    Some((key, stored)) => Ok(Some((self.whole(&key, &stored)?, key))),
                    None => Ok(None),
                });
                match entry {
                    Ok(Some((Some(value), key))) => return Some(Ok((key.to_vec(), value))),
                    // It was removed a moment ago.
                    Ok(Some((None, _))) => {}
                    Ok(None) => return None,
                    Err(error) => {
                        // sled's place in its pages is not known any more.
                        entries = None;
                        return Some(Err(error));
                    }
                }
            }
        }))
    }

    fn apply(&self, batch: Batch) -> Result<(), StoreError> {
        self.group.enter(batch)
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.group.wait(|all| self.write(all))
    }
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;

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

    /// sled takes a snapshot of its pages that was cut short while it was written for the newest
    /// one, and refuses to open. Seen after a power cut; a kill at that moment does the same.
    #[test]
    fn what_was_being_made_when_the_power_was_cut_does_not_stop_an_open() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let new = dir.path().join("store.new");
        fs_err::create_dir_all(&new).expect("makes");
        fs_err::write(new.join("conf"), b"segment_size: 52").expect("writes");
        let store = DiskStore::open(dir.path(), CACHE_BYTES).expect("makes a store");
        let mut batch = Batch::default();
        batch.put(b"k".to_vec(), b"v".to_vec());
        store.commit(batch).expect("commits");
        drop(store);
        let unfinished = dir
            .path()
            .join(STORE_DIR)
            .join("snap.7FFFFFFFFFFFFFFF.generating");
        fs_err::write(&unfinished, b"the start of a snapshot").expect("writes");
        let store = DiskStore::open(dir.path(), CACHE_BYTES).expect("opens");
        assert_eq!(store.get(b"k").expect("reads"), Some(b"v".to_vec()));
        assert!(!unfinished.exists() && !new.exists());
    }
}
