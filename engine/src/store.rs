//! Where everything that must not be lost is kept: an ordered map from bytes to bytes.
//!
//! Two implementations: [`DiskStore`], on sled, and [`MemoryStore`], which can be stopped in the
//! middle of a write so that tests see what a reopened store finds.

mod disk;
mod group;
mod memory;
mod parts;

use std::path::PathBuf;

use thiserror::Error;

pub use disk::DiskStore;
pub(crate) use disk::{sync_dir, sync_names};
pub use memory::MemoryStore;

/// Why the store could not do what was asked.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Another process has the store open.
    #[error("{} is in use by another process", dir.display())]
    Locked {
        /// The data directory.
        dir: PathBuf,
    },
    /// The files are there but cannot be opened as a store.
    #[error(
        "the store in {} cannot be opened: {reason}; restore the folder from a copy, or move it \
         away to start empty",
        dir.display()
    )]
    CannotOpen {
        /// Folder of the store.
        dir: PathBuf,
        /// What was found.
        reason: String,
    },
    /// The store was opened, but something in it does not read.
    #[error(
        "the store in {} is damaged: {reason}; what still reads is as it was written, the rest is \
         lost: restore the folder from a copy or a snapshot",
        dir.display()
    )]
    Damaged {
        /// Folder of the store.
        dir: PathBuf,
        /// What was found.
        reason: String,
    },
    /// A file could not be read, written or synced.
    #[error("the store's files in {} could not be used", dir.display())]
    Io {
        /// Folder of the store.
        dir: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The store library failed.
    #[error("the store library failed")]
    Library(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// An earlier write found no room on the disk.
    #[error(
        "the store takes no more writes since the disk was full ({reason}); make room and restart to go on"
    )]
    Full {
        /// The first failure.
        reason: String,
    },
    /// An earlier write failed, and what the disk holds since then is not known.
    #[error("the store takes no more writes since one failed ({reason}); restart to go on")]
    Stopped {
        /// The first failure.
        reason: String,
    },
}

/// Writes that happen together or not at all. The last write of a key wins.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    /// Key and new value, or `None` to remove the key.
    pub(crate) writes: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

impl Batch {
    /// Sets a key.
    pub fn put(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.writes.push((key, Some(value)));
    }

    /// Removes a key, if it is there.
    pub fn remove(&mut self, key: Vec<u8>) {
        self.writes.push((key, None));
    }

    /// Number of writes.
    pub fn len(&self) -> usize {
        self.writes.len()
    }

    /// Bytes of its keys and values.
    pub fn bytes(&self) -> u64 {
        let of = |(key, value): &(Vec<u8>, Option<Vec<u8>>)| {
            key.len() + value.as_ref().map_or(0, Vec::len)
        };
        self.writes.iter().map(|write| of(write) as u64).sum()
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }
}

/// A key and its value, or why the scan ended early.
pub type Entry = Result<(Vec<u8>, Vec<u8>), StoreError>;

/// An ordered, durable map.
///
/// Contract, run by [`check_contract`]: keys do not start with the byte `ff`; a batch is applied
/// whole or not at all, also over a stop at any moment; when [`Store::commit`] returns, the batch survives a stop of the process and of the
/// machine; a scan gives every key with the prefix that is there all the while, in byte order.
pub trait Store: Send + Sync {
    /// The value of a key.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;

    /// Every key that starts with `prefix`, in byte order, behind `after` where that is given. Others may
    /// write meanwhile.
    fn scan_after<'a>(
        &'a self,
        prefix: &[u8],
        after: Option<&[u8]>,
    ) -> Box<dyn Iterator<Item = Entry> + Send + 'a>;

    /// Every key that starts with `prefix`, as [`Store::scan_after`].
    fn scan<'a>(&'a self, prefix: &[u8]) -> Box<dyn Iterator<Item = Entry> + Send + 'a> {
        self.scan_after(prefix, None)
    }

    /// Takes a batch in: [`Store::get`] sees it at once, and it is durable, and seen by scans, when
    /// a later [`Store::sync`] has returned. What is durable is always a beginning of the batches
    /// in the order in which they were applied. Whoever applies must also sync, or have somebody
    /// sync soon: until then the batch is held in memory.
    ///
    /// # Errors
    /// When it was not applied. It is then either there or not there as a whole.
    fn apply(&self, batch: Batch) -> Result<(), StoreError>;

    /// Waits until everything that was applied before is durable.
    ///
    /// # Errors
    /// When it may not be.
    fn sync(&self) -> Result<(), StoreError>;

    /// Applies a batch; it is durable on return.
    ///
    /// # Errors
    /// When it may not be durable. It is then either there or not there as a whole.
    fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        self.apply(batch)?;
        self.sync()
    }
}

/// Runs the contract of [`Store`] on empty stores from `make`; `reopen` closes one and opens it
/// again.
///
/// # Panics
/// When the store breaks its contract, with the clause that it broke.
pub fn check_contract<S: Store>(make: impl Fn() -> S, reopen: impl Fn(S) -> S) {
    let all = |store: &S, prefix: &[u8]| -> Vec<(Vec<u8>, Vec<u8>)> {
        store
            .scan(prefix)
            .collect::<Result<_, _>>()
            .expect("the store can be read")
    };
    let store = make();
    assert!(all(&store, b"").is_empty(), "a new store is empty");
    store
        .commit(Batch::default())
        .expect("an empty batch commits");

    let mut batch = Batch::default();
    for i in (0..1000_u32).rev() {
        batch.put(
            [b"n".as_slice(), &i.to_be_bytes()].concat(),
            vec![i as u8; 700],
        );
    }
    batch.put(b"m".to_vec(), Vec::new());
    batch.put(b"o\xff".to_vec(), vec![0; 3 << 20]);
    batch.put(b"m".to_vec(), vec![7]);
    store.commit(batch).expect("a batch commits");
    let store = reopen(store);
    assert_eq!(
        store.get(b"m").expect("can be read"),
        Some(vec![7]),
        "the last write wins"
    );
    assert_eq!(
        store.get(b"absent").expect("can be read"),
        None,
        "an absent key has no value"
    );
    let numbers = all(&store, b"n");
    assert_eq!(
        numbers.len(),
        1000,
        "a scan gives every key with the prefix and no other"
    );
    assert!(
        numbers.is_sorted_by(|a, b| a.0 < b.0),
        "a scan is in byte order"
    );
    assert!(
        numbers.iter().all(|(k, v)| *v == vec![k[4]; 700]),
        "values are what was written"
    );
    let after = |after: &[u8]| -> Vec<Vec<u8>> {
        let entries = store.scan_after(b"n", Some(after));
        let keys = entries.map(|entry| entry.map(|(key, _)| key));
        keys.collect::<Result<_, _>>()
            .expect("the store can be read")
    };
    let keys: Vec<_> = numbers.iter().map(|(key, _)| key.clone()).collect();
    assert_eq!(after(&keys[10]), keys[11..], "behind a key, without it");
    let between = [&keys[10][..], b"."].concat();
    assert_eq!(
        after(&between),
        keys[11..],
        "behind a key that is not there"
    );
    assert_eq!(after(b"a"), keys, "behind one before the prefix all of it");
    assert_eq!(after(b"o").len(), 0, "behind one after the prefix nothing");
    let large = store.get(b"o\xff").expect("can be read").expect("is there");
    assert_eq!(large.len(), 3 << 20, "a large value comes back whole");

    let mut batch = Batch::default();
    batch.remove(b"m".to_vec());
    batch.remove(b"absent".to_vec());
    batch.put(b"n\0\0\0\0".to_vec(), vec![1]);
    store.commit(batch).expect("a batch commits");
    assert_eq!(all(&store, b"m").len(), 0, "a removed key is gone");
    let store = reopen(store);
    assert_eq!(all(&store, b"m").len(), 0, "a removed key stays gone");
    assert_eq!(
        store.get(b"n\0\0\0\0").expect("can be read"),
        Some(vec![1]),
        "a value changes"
    );

    std::thread::scope(|scope| {
        for writer in 0..4_u8 {
            let store = &store;
            scope.spawn(move || {
                for i in 0..25_u8 {
                    let mut batch = Batch::default();
                    batch.put(vec![b'w', writer, i], vec![i]);
                    store.commit(batch).expect("a batch commits");
                    let found = store.get(&[b'w', writer, i]).expect("can be read");
                    assert_eq!(found, Some(vec![i]), "a committed write is seen at once");
                }
            });
        }
    });
    let store = reopen(store);
    assert_eq!(
        all(&store, b"w").len(),
        100,
        "writes of concurrent writers all survive"
    );
    check_large_values(&store);
}

fn check_large_values(store: &impl Store) {
    let value = |i: u8| vec![i; 5_000 * usize::from(i % 5)];
    let whole = |found: &[u8]| {
        found.iter().all(|byte| *byte == found[0]) && found.len().is_multiple_of(5_000)
    };
    let put = |i: u8| {
        let mut batch = Batch::default();
        batch.put(b"l".to_vec(), value(i));
        store.commit(batch).expect("a batch commits");
    };
    put(1);
    std::thread::scope(|scope| {
        scope.spawn(|| (1..=100).for_each(put));
        for _ in 0..100 {
            let found = store.get(b"l").expect("can be read").expect("is there");
            assert!(whole(&found), "a value is read whole while it changes");
            for entry in store.scan(b"l") {
                let (key, found) = entry.expect("can be read");
                assert_eq!(key, b"l", "a scan gives nothing but the keys that were put");
                assert!(whole(&found), "a value is scanned whole while it changes");
            }
        }
    });
    let found = store.get(b"l").expect("can be read");
    assert_eq!(found, Some(value(100)), "the last value stays");
}
