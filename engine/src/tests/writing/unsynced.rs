//! A store in memory whose disk has only what was synced.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    thread,
};

use parking_lot::{Condvar, Mutex};

use crate::{
    catalog,
    store::{Batch, Entry, MemoryStore, Store, StoreError},
};

/// Cheap to clone; all clones are one store.
#[derive(Clone, Default)]
pub(super) struct Unsynced(Arc<Inner>);

/// Ends when it is dropped.
pub(super) struct Held(Unsynced);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.0.waiting.lock().held = false;
        self.0.0.changed.notify_all();
    }
}

#[derive(Default)]
struct Inner {
    /// What everybody sees who gets.
    seen: MemoryStore,
    /// What a stop leaves, and scans see.
    disk: MemoryStore,
    waiting: Mutex<Waiting>,
    /// Syncs by others than the background.
    syncs: AtomicUsize,
    changed: Condvar,
}

#[derive(Default)]
struct Waiting {
    batches: Vec<Batch>,
    most_bytes: u64,
    held: bool,
    failed: bool,
}

impl Unsynced {
    /// Keeps the background from syncing until this is dropped, which must be before the engine is:
    /// that waits for the background.
    pub(super) fn hold_background(&self) -> Held {
        self.0.waiting.lock().held = true;
        Held(self.clone())
    }

    /// Has the disk fail from now on.
    pub(super) fn fail(&self) {
        self.0.waiting.lock().failed = true;
    }

    pub(super) fn syncs(&self) -> usize {
        self.0.syncs.load(SeqCst)
    }

    pub(super) fn most_waiting_bytes(&self) -> u64 {
        self.0.waiting.lock().most_bytes
    }

    /// What a new process finds.
    pub(super) fn after_a_stop(&self) -> Self {
        let _waiting = self.0.waiting.lock();
        Self(Arc::new(Inner {
            seen: self.0.disk.reopened(),
            disk: self.0.disk.reopened(),
            ..Inner::default()
        }))
    }
}

/// Ids of the items of the only collection.
pub(super) fn items(store: &Unsynced) -> Vec<String> {
    let prefix = catalog::item_prefix(0);
    let keys = store.scan(&prefix).map(|entry| entry.expect("reads").0);
    keys.map(|key| String::from_utf8_lossy(&key[prefix.len()..]).into_owned())
        .collect()
}

impl Store for Unsynced {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.0.seen.get(key)
    }

    fn scan_after<'a>(
        &'a self,
        prefix: &[u8],
        after: Option<&[u8]>,
    ) -> Box<dyn Iterator<Item = Entry> + Send + 'a> {
        self.0.disk.scan_after(prefix, after)
    }

    fn apply(&self, batch: Batch) -> Result<(), StoreError> {
        let mut waiting = self.0.waiting.lock();
        check(&waiting)?;
        self.0.seen.apply(batch.clone())?;
        waiting.batches.push(batch);
        let bytes = waiting.batches.iter().map(Batch::bytes).sum();
        waiting.most_bytes = waiting.most_bytes.max(bytes);
        Ok(())
    }

    fn sync(&self) -> Result<(), StoreError> {
        let mut waiting = self.0.waiting.lock();
        if thread::current().name() == Some("engine-flush") {
            while waiting.held {
                self.0.changed.wait(&mut waiting);
            }
        } else {
            self.0.syncs.fetch_add(1, SeqCst);
        }
        check(&waiting)?;
        for batch in waiting.batches.drain(..) {
            self.0.disk.apply(batch)?;
        }
        Ok(())
    }
}

fn check(waiting: &Waiting) -> Result<(), StoreError> {
    if !waiting.failed {
        return Ok(());
    }
    Err(StoreError::Stopped {
        reason: "the disk fails".into(),
    })
}

#[test]
fn the_store_that_has_only_what_was_synced_keeps_the_contract() {
    crate::store::check_contract(Unsynced::default, |store| store.after_a_stop());
}
