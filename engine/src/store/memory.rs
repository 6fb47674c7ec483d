//! The store in memory, which can be stopped in the middle of a write.

use std::{
    collections::BTreeMap,
    ops::Bound::{Excluded, Included},
    sync::Arc,
};

use parking_lot::{Mutex, RwLock};

use super::{Batch, Entry, Store, StoreError};

/// Bytes of the checksum in front of each batch in the log.
const SUM_BYTES: usize = 16;

/// A [`Store`] without files, for tests and benches.
///
/// One made by [`MemoryStore::stopping_after`] also writes a log, as a disk would hold it, and
/// stops for good when the log has reached a given length: [`MemoryStore::reopened`] then shows
/// what a new process would find.
#[derive(Debug, Default)]
pub struct MemoryStore {
    map: RwLock<BTreeMap<Vec<u8>, Vec<u8>>>,
    disk: Option<Arc<Mutex<Disk>>>,
}

#[derive(Debug)]
struct Disk {
    log: Vec<u8>,
    room: usize,
    /// Whether a batch did not fit.
    stopped: bool,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty store that can write `bytes` bytes and no more: the batch that does not fit is torn
    /// there, and fails, as does everything after it.
    pub fn stopping_after(bytes: usize) -> Self {
        let disk = Disk {
            log: Vec::new(),
            room: bytes,
            stopped: false,
        };
        Self {
            map: RwLock::default(),
            disk: Some(Arc::new(Mutex::new(disk))),
        }
    }

    /// Has a store that writes a log stop after so many more bytes.
    #[cfg(test)]
    pub(crate) fn stop_after(&self, bytes: usize) {
        if let Some(disk) = &self.disk {
            disk.lock().room = bytes;
        }
    }

    /// Whether a write failed, since there was no room for it.
    #[cfg(test)]
    pub(crate) fn has_stopped(&self) -> bool {
        self.disk.as_ref().is_some_and(|disk| disk.lock().stopped)
    }

    /// What a new process finds; it can write without end. The old store must not be used again.
    #[must_use]
    pub fn reopened(&self) -> Self {
        let Some(disk) = &self.disk else {
            return Self {
                map: RwLock::new(self.map.read().clone()),
                disk: None,
            };
        };
        let mut log = disk.lock().log.clone();
        let mut map = BTreeMap::new();
        let mut whole = 0;
        while let Some((batch, length)) = decode(&log[whole..]) {
            apply(&mut map, batch);
            whole += length;
        }
        log.truncate(whole);
        let disk = Disk {
            log,
            room: usize::MAX,
            stopped: false,
        };
        Self {
            map: RwLock::new(map),
            disk: Some(Arc::new(Mutex::new(disk))),
        }
    }

    /// Bytes written so far.
    pub fn written_bytes(&self) -> usize {
        self.disk.as_ref().map_or(0, |disk| disk.lock().log.len())
    }
}

impl Store for MemoryStore {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.map.read().get(key).cloned())
    }

    fn scan_after<'a>(
        &'a self,
        prefix: &[u8],
        after: Option<&[u8]>,
    ) -> Box<dyn Iterator<Item = Entry> + Send + 'a> {
        let mut last = after.filter(|after| *after >= prefix).map(<[u8]>::to_vec);
        let prefix = prefix.to_vec();
        // The lock is taken for one step at a time, so that others can write meanwhile.
        Box::new(std::iter::from_fn(move || {
            let from = last.as_ref().map_or(Included(&prefix), Excluded);
            let bounds = (from, std::ops::Bound::Unbounded);
            let map = self.map.read();
            let (key, value) = map.range::<Vec<u8>, _>(bounds).next()?;
            if !key.starts_with(&prefix) {
                return None;
            }
            last = Some(key.clone());
            Some(Ok((key.clone(), value.clone())))
        }))
    }

    fn apply(&self, batch: Batch) -> Result<(), StoreError> {
        let mut map = self.map.write();
        if let Some(disk) = &self.disk {
            disk.lock().append(&encode(&batch))?;
        }
        apply(&mut map, batch);
        Ok(())
    }

    fn sync(&self) -> Result<(), StoreError> {
        // The log is the disk.
        Ok(())
    }
}

impl Disk {
    fn append(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        let fits = bytes.len().min(self.room);
        self.log.extend_from_slice(&bytes[..fits]);
        self.room -= fits;
        if fits < bytes.len() {
            self.room = 0;
            self.stopped = true;
            return Err(StoreError::Stopped {
                reason: "the memory store was stopped".into(),
            });
        }
        Ok(())
    }
}

fn apply(map: &mut BTreeMap<Vec<u8>, Vec<u8>>, batch: Batch) {
    for (key, value) in batch.writes {
        match value {
            Some(value) => map.insert(key, value),
            None => map.remove(&key),
        };
    }
}

/// `[length u64][checksum][writes]`, each write `[key length u32][value length u32 or MAX]...`.
fn encode(batch: &Batch) -> Vec<u8> {
    let mut body = Vec::new();
    for (key, value) in &batch.writes {
        body.extend((key.len() as u32).to_le_bytes());
        body.extend(
            value
                .as_ref()
                .map_or(u32::MAX, |value| value.len() as u32)
                .to_le_bytes(),
        );
        body.extend(key);
        body.extend(value.iter().flatten());
    }
    let mut bytes = (body.len() as u64).to_le_bytes().to_vec();
    bytes.extend(&blake3::hash(&body).as_bytes()[..SUM_BYTES]);
    bytes.extend(body);
    bytes
}

/// The first batch of a log and its length, or `None` where it is torn.
fn decode(log: &[u8]) -> Option<(Batch, usize)> {
    let (length, rest) = log.split_first_chunk::<8>()?;
    let (sum, rest) = rest.split_at_checked(SUM_BYTES)?;
    let mut body = rest.get(..u64::from_le_bytes(*length) as usize)?;
    if blake3::hash(body).as_bytes()[..SUM_BYTES] != *sum {
        return None;
    }
    let whole = 8 + SUM_BYTES + body.len();
    let mut batch = Batch::default();
    while let Some((key_length, rest)) = body.split_first_chunk::<4>() {
        let (value_length, rest) = rest.split_first_chunk::<4>()?;
        let (key, rest) = rest.split_at_checked(u32::from_le_bytes(*key_length) as usize)?;
        let value_length = u32::from_le_bytes(*value_length);
        let (value, rest) = match value_length {
            u32::MAX => (None, rest),
            length => {
                let (value, rest) = rest.split_at_checked(length as usize)?;
                (Some(value.to_vec()), rest)
            }
        };
        batch.writes.push((key.to_vec(), value));
        body = rest;
    }
    Some((batch, whole))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_store_keeps_the_contract() {
        super::super::check_contract(MemoryStore::new, |store| store.reopened());
        let logged = || MemoryStore::stopping_after(usize::MAX);
        super::super::check_contract(logged, |store| store.reopened());
    }

    #[test]
    fn a_store_that_stops_at_any_byte_reopens_with_whole_batches_only() {
        let batches: Vec<Batch> = (0..4_u8)
            .map(|i| {
                let mut batch = Batch::default();
                batch.put(vec![b'a'], vec![i]);
                batch.put(vec![b'b', i], vec![i; 5]);
                batch.remove(vec![b'b', i.wrapping_sub(1)]);
                batch
            })
            .collect();
        let total: usize = batches.iter().map(|batch| encode(batch).len()).sum();
        for stop in 0..=total {
            let store = MemoryStore::stopping_after(stop);
            let done = batches
                .iter()
                .take_while(|b| store.commit((*b).clone()).is_ok())
                .count();
            assert!(
                done == 4 || store.commit(Batch::default()).is_err(),
                "it stays stopped"
            );
            let mut expected = BTreeMap::new();
            batches[..done]
                .iter()
                .for_each(|batch| apply(&mut expected, batch.clone()));
            assert_eq!(
                *store.reopened().map.read(),
                expected,
                "stopped after {stop} bytes"
            );
        }
    }
}
