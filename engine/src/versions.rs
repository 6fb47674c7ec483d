//! Versions of items: numbers from 1 on that never come twice in a collection, whatever is deleted
//! and whenever it stops.
//!
//! The store keeps a ceiling (`v` number, see [`crate::catalog`]: a u64, little-endian, and a
//! checksum) that no version is above which anybody was told. It is raised by many at once, in the
//! batch whose versions need that; an open goes on above it. Two things must hold over a stop at any
//! moment:
//!
//! - Stored items are not above it. What is durable is a beginning of the batches in the order in
//!   which they were applied, so the batch that raises it must come before all others that need
//!   that: who raises it keeps the counter until the batch is applied.
//! - Lost items are not, either: somebody may still hold their versions. A write is acknowledged
//!   before it is durable only if its version is below a ceiling that is.

use parking_lot::{Mutex, MutexGuard};

use crate::{
    EngineError,
    catalog::{ceiling_key, item_prefix},
    record::{self, Record},
    store::{Batch, Store},
};

/// Versions that a raise reserves. Those that are left at the end are never used.
const RESERVED: u64 = 65_536;

/// More versions than a collection ever deleted, for where the ceiling does not read back.
const UNSEEN: u64 = 1 << 32;

/// Gives out the versions of one collection.
#[derive(Debug)]
pub(crate) struct Versions(Mutex<Counter>);

#[derive(Debug)]
struct Counter {
    next: u64,
    /// In the store.
    ceiling: u64,
    /// What it is at least after a stop.
    durable: u64,
}

/// A higher ceiling, in a batch that is about to be applied. Nobody else raises it meanwhile.
#[derive(Debug)]
pub(crate) struct Raise<'a> {
    counter: MutexGuard<'a, Counter>,
    ceiling: u64,
}

impl Versions {
    /// Goes on above all versions that were ever stored.
    pub(crate) fn open(store: &dyn Store, number: u32) -> Result<Self, EngineError> {
        let key = ceiling_key(number);
        let ceiling = match store.get(&key)? {
            None => 0,
            Some(value) => match read(&key, &value) {
                Some(ceiling) => ceiling,
                None => found(store, number)?.saturating_add(UNSEEN),
            },
        };
        Ok(Self(Mutex::new(Counter {
            next: ceiling.saturating_add(1),
            ceiling,
            durable: ceiling,
        })))
    }

    /// Those of a collection that is created by this batch, from `next` on, to be used when it is
    /// durable.
    pub(crate) fn begin(batch: &mut Batch, number: u32, next: u64) -> Self {
        let ceiling = next.saturating_add(RESERVED);
        put(batch, number, ceiling);
        Self(Mutex::new(Counter {
            next,
            ceiling,
            durable: ceiling,
        }))
    }

    /// The next one. All that were given out are below it.
    pub(crate) fn next(&self) -> u64 {
        self.0.lock().next
    }

    /// Takes one, higher than all before.
    pub(crate) fn take(&self) -> u64 {
        let mut counter = self.0.lock();
        let taken = counter.next;
        counter.next = taken.saturating_add(1);
        taken
    }

    /// Raises the ceiling, if it is below `newest`, in the batch that holds that version. To be
    /// kept until the batch is applied.
    pub(crate) fn raise(&self, batch: &mut Batch, number: u32, newest: u64) -> Option<Raise<'_>> {
        let counter = self.0.lock();
        if newest <= counter.ceiling {
            return None;
        }
        let ceiling = counter.next.saturating_add(RESERVED);
        put(batch, number, ceiling);
        Some(Raise { counter, ceiling })
    }

    /// Whether nobody is told this version again, even if the write that has it is lost.
    pub(crate) fn is_safe(&self, version: u64) -> bool {
        version <= self.0.lock().durable
    }

    /// Takes note that a raise is durable.
    pub(crate) fn durable(&self, ceiling: u64) {
        let mut counter = self.0.lock();
        counter.durable = counter.durable.max(ceiling);
    }
}

impl Raise<'_> {
    /// The batch was applied. Gives the ceiling.
    pub(crate) fn applied(mut self) -> u64 {
        self.counter.ceiling = self.ceiling;
        self.ceiling
    }
}

fn put(batch: &mut Batch, number: u32, ceiling: u64) {
    let key = ceiling_key(number);
    let body = ceiling.to_le_bytes().to_vec();
    batch.put(key.clone(), record::with_checksum(&key, body));
}

fn read(key: &[u8], value: &[u8]) -> Option<u64> {
    let body = record::checked(key, value).ok()?;
    Some(u64::from_le_bytes(body.try_into().ok()?))
}

/// The highest version of an item that is there.
fn found(store: &dyn Store, number: u32) -> Result<u64, EngineError> {
    let mut highest = 0;
    for entry in store.scan(&item_prefix(number)) {
        let (key, value) = entry?;
        if let Ok(record) = Record::read(&key, &value) {
            highest = highest.max(record.version);
        }
    }
    Ok(highest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::MemoryStore;

    fn store(versions: &Versions, store: &MemoryStore, newest: u64) -> usize {
        let mut batch = Batch::default();
        let safe = versions.is_safe(newest);
        let raise = versions.raise(&mut batch, 7, newest);
        let writes = batch.len();
        assert_eq!(safe, writes == 0);
        store.commit(batch).expect("commits");
        if let Some(ceiling) = raise.map(Raise::applied) {
            assert!(!versions.is_safe(newest), "nobody has said so yet");
            versions.durable(ceiling);
        }
        assert!(versions.is_safe(newest));
        writes
    }

    #[test]
    fn versions_go_on_above_the_ceiling_and_it_is_raised_seldom() {
        let kept = MemoryStore::new();
        let mut batch = Batch::default();
        let versions = Versions::begin(&mut batch, 7, 1);
        kept.commit(batch).expect("commits");
        assert_eq!((versions.take(), versions.take()), (1, 2));
        assert_eq!(
            store(&versions, &kept, 2),
            0,
            "the first write raises nothing"
        );
        let raises: usize = (0..3 * RESERVED)
            .map(|_| store(&versions, &kept, versions.take()))
            .sum();
        assert_eq!(raises, 2);
        let last = versions.take();
        let again = Versions::open(&kept, 7).expect("opens");
        let next = again.take();
        assert!(next > last);
        assert_eq!(
            store(&again, &kept, next),
            1,
            "the first write after an open"
        );
    }

    #[test]
    fn a_raise_that_was_not_applied_is_made_by_the_next_write() {
        let kept = MemoryStore::new();
        let versions = Versions::open(&kept, 7).expect("opens");
        let first = versions.take();
        assert!(versions.raise(&mut Batch::default(), 7, first).is_some());
        assert_eq!(store(&versions, &kept, versions.take()), 1);
    }

    #[test]
    fn a_ceiling_that_does_not_read_back_is_far_below_the_next_version() {
        let kept = MemoryStore::new();
        let mut batch = Batch::default();
        batch.put(ceiling_key(7), vec![1; 24]);
        kept.commit(batch).expect("commits");
        let versions = Versions::open(&kept, 7).expect("opens");
        assert_eq!(versions.take(), UNSEEN + 1);
    }
}
