//! The items of a collection as they were at one moment, read while others write.
//!
//! The store's scans see writes as they come. So from the moment on every writer, before its batch
//! is applied, keeps what the store holds under each of its keys that the reader has not passed,
//! unless that is kept already: the first to come after the moment keeps what was there in it. The
//! reader takes what was kept in place of what the scan gives. Hence:
//!
//! - The moment is one at which no batch is half applied: writers hold the gate while they keep and
//!   apply, and it is chosen while nobody does. What was applied before is then made durable, for
//!   scans see no other.
//! - An item of which nothing is kept when the reader passes it was not written since the moment,
//!   so what the scan gave is right. The reader looks and passes under one lock; a writer that
//!   keeps it later keeps it for nobody.
//! - An item that was deleted since is not in the scan, but is kept, and is put in by its id.
//!
//! What is kept lies in an unnamed file; ids that are not passed yet are in memory.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{Read, Seek, SeekFrom, Write},
    path::Path,
    sync::{Arc, atomic::Ordering::SeqCst},
};

use parking_lot::{Mutex, RwLock, RwLockReadGuard};

use super::SnapshotError;
use crate::{
    EngineError, Fields,
    catalog::item_prefix,
    collection::Collection,
    store::{Batch, Store},
};

/// What writers pass.
#[derive(Debug, Default)]
pub(crate) struct Gate(RwLock<Option<Arc<Keeping>>>);

impl Gate {
    /// Must be held from before a batch that writes items is applied until it is. The writer holds
    /// the turns of the items.
    pub(crate) fn enter(&self, store: &dyn Store, batch: &Batch) -> impl Sized + '_ {
        let inside: RwLockReadGuard<'_, _> = self.0.read();
        if let Some(keeping) = &*inside {
            keeping.keep(store, batch);
        }
        inside
    }
}

/// What the items were, as far as they were written since.
#[derive(Debug)]
struct Keeping {
    /// Keys of items start so.
    prefix: Vec<u8>,
    table: Mutex<Table>,
    /// Held while a record is copied; only writers of this collection, and the reader, want it.
    spill: Mutex<Spill>,
}

#[derive(Debug, Default)]
struct Table {
    /// The reader is past this key; it starts before all keys.
    passed: Vec<u8>,
    /// The reader is past all keys.
    ended: bool,
    kept: BTreeMap<Vec<u8>, Old>,
    failed: Option<String>,
}

/// What was under a key.
#[derive(Debug, Clone, Copy)]
enum Old {
    Nothing,
    /// A value, kept in the file.
    At {
        start: u64,
        length: usize,
    },
}

/// Values that were replaced, one after the other.
#[derive(Debug)]
struct Spill {
    file: File,
    end: u64,
}

impl Table {
    fn wants(&self, key: &[u8]) -> bool {
        let is_ahead = !self.ended && *key > *self.passed;
        is_ahead && self.failed.is_none() && !self.kept.contains_key(key)
    }
}

impl Keeping {
    /// Keeps what a batch is about to replace. A failure is the reader's, not the writer's.
    fn keep(&self, store: &dyn Store, batch: &Batch) {
        for (key, _) in &batch.writes {
            if !key.starts_with(&self.prefix) || !self.table.lock().wants(key) {
                continue;
            }
            let old = store.get(key).map_err(|error| error.to_string());
            let old = old.and_then(|old| match old {
                Some(value) => self.copy(&value).map_err(|error| error.to_string()),
                None => Ok(Old::Nothing),
            });
            let mut table = self.table.lock();
            match old {
                Ok(old) if table.wants(key) => drop(table.kept.insert(key.clone(), old)),
                Ok(_) => {}
                Err(reason) => drop(table.failed.get_or_insert(reason)),
            }
        }
    }

    fn copy(&self, value: &[u8]) -> std::io::Result<Old> {
        let mut spill = self.spill.lock();
        let start = spill.end;
        spill.file.seek(SeekFrom::Start(start))?;
        spill.file.write_all(value)?;
        spill.end += value.len() as u64;
        let length = value.len();
        Ok(Old::At { start, length })
    }

    fn value(&self, old: Old) -> std::io::Result<Option<Vec<u8>>> {
        let Old::At { start, length } = old else {
            return Ok(None);
        };
        let mut spill = self.spill.lock();
        let mut value = vec![0; length];
        spill.file.seek(SeekFrom::Start(start))?;
        spill.file.read_exact(&mut value)?;
        Ok(Some(value))
    }

    /// Passes a key, or all of them, and takes what was kept up to there.
    fn pass(&self, key: Option<&[u8]>) -> Result<Vec<(Vec<u8>, Old)>, SnapshotError> {
        let mut table = self.table.lock();
        let mut taken = Vec::new();
        while let Some(first) = table.kept.first_entry()
            && key.is_none_or(|key| **first.key() <= *key)
        {
            taken.push(first.remove_entry());
        }
        match key {
            Some(key) => key.clone_into(&mut table.passed),
            None => table.ended = true,
        }
        match &table.failed {
            Some(reason) => Err(SnapshotError::NotKept {
                reason: reason.clone(),
            }),
            None => Ok(taken),
        }
    }
}

/// A collection as it was at one moment. Writers keep what it needs until it is dropped.
pub(super) struct Frozen<'a> {
    gate: &'a Gate,
    keeping: Arc<Keeping>,
    /// The fields that filters could name.
    pub(super) fields: Fields,
    /// All versions of items, also of those that were gone, are below it.
    pub(super) versions_below: u64,
}

impl Collection {
    /// Chooses the moment: now. What is replaced is kept in a file in `spill_in`.
    pub(super) fn freeze(&self, spill_in: &Path) -> Result<Frozen<'_>, EngineError> {
        let keeping = Arc::new(Keeping {
            prefix: item_prefix(self.description.number),
            table: Mutex::default(),
            spill: Mutex::new(Spill {
                file: tempfile::tempfile_in(spill_in).map_err(SnapshotError::from)?,
                end: 0,
            }),
        });
        let mut gate = self.gate.0.write();
        if gate.is_some() {
            let collection = self.name.clone();
            return Err(SnapshotError::Busy { collection }.into());
        }
        *gate = Some(Arc::clone(&keeping));
        let fields = self.fields();
        let versions_below = self.versions.next();
        drop(gate);
        let frozen = Frozen {
            gate: &self.gate,
            keeping,
            fields,
            versions_below,
        };
        self.core.store.sync()?;
        Ok(frozen)
    }
}

impl Frozen<'_> {
    /// Gives every item's key and value, in the order of ids.
    pub(super) fn each(
        &self,
        collection: &Collection,
        mut take: impl FnMut(&[u8], &[u8]) -> Result<(), EngineError>,
    ) -> Result<(), EngineError> {
        let mut entries = collection.core.store.scan(&self.keeping.prefix);
        loop {
            let entry = entries.next().transpose()?;
            let key = entry.as_ref().map(|(key, _)| key.as_slice());
            let kept = self.keeping.pass(key)?;
            if collection.stopping.load(SeqCst) {
                // Its items may be going without anybody keeping them.
                let collection = collection.name.clone();
                return Err(SnapshotError::Stopped { collection }.into());
            }
            let is_kept = kept.last().map(|(last, _)| last.as_slice()) == key && key.is_some();
            for (key, old) in kept {
                if let Some(value) = self.keeping.value(old).map_err(SnapshotError::from)? {
                    take(&key, &value)?;
                }
            }
            match entry {
                Some((key, value)) if !is_kept => take(&key, &value)?,
                Some(_) => {}
                None => return Ok(()),
            }
        }
    }
}

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        *self.gate.0.write() = None;
    }
}
