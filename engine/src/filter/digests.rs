//! What the index of a field adds up to, so that an open can compare the index with what its items
//! made of it, and needs no item for that.
//!
//! The store keeps the sums (`e` number, see [`crate::catalog`]): each field's number u16 and its sum
//! u64, little-endian, and a checksum. They change in the batch that changes the pages. Where it is
//! not certain which entries an item has left behind, since its record did not read back, they are
//! removed, and the next open builds the indexes again.

use std::collections::BTreeMap;

use embedding::mix;

use super::{field::FieldSet, value};
use crate::{
    EngineError, Payload,
    catalog::digests_key,
    record,
    store::{Batch, Store},
};

/// Bytes of a field and its sum.
const ENTRY_BYTES: usize = 10;

/// Sums over all pairs of an entry and an ordinal, by field: equal sets have equal sums, whatever
/// the order in which they came to be.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Digests(BTreeMap<u16, u64>);

impl Digests {
    /// Takes up an item as its record says it is.
    pub(crate) fn add_item(&mut self, fields: &FieldSet, ordinal: u32, payload: &Payload) {
        for (name, field) in &fields.0 {
            let entries = value::entries(field.kind, payload.get(name)).unwrap_or_default();
            for entry in entries {
                self.add(field.number, salt(&entry), ordinal);
            }
        }
    }

    /// Takes up a pair.
    pub(super) fn add(&mut self, field: u16, salt: u64, ordinal: u32) {
        let sum = self.0.entry(field).or_default();
        *sum = sum.wrapping_add(pair(salt, ordinal));
    }

    /// Takes a pair away.
    pub(super) fn subtract(&mut self, field: u16, salt: u64, ordinal: u32) {
        let sum = self.0.entry(field).or_default();
        *sum = sum.wrapping_sub(pair(salt, ordinal));
    }

    /// Forgets a field.
    pub(super) fn forget(&mut self, field: u16) {
        self.0.remove(&field);
    }

    /// What the store says that the indexes of a collection add up to; `None` where it does not say
    /// or is not sure, and they must be built again.
    pub(crate) fn stored(store: &dyn Store, number: u32) -> Result<Option<Self>, EngineError> {
        let key = digests_key(number);
        let value = store.get(&key)?;
        let read = |value: &Vec<u8>| {
            let (sums, rest) = record::checked(&key, value)
                .ok()?
                .as_chunks::<ENTRY_BYTES>();
            let sum = |entry: &[u8; ENTRY_BYTES]| {
                let (field, sum) = entry.split_first_chunk()?;
                let sum = u64::from_le_bytes(sum.try_into().ok()?);
                Some((u16::from_le_bytes(*field), sum))
            };
            let sums = sums.iter().map(sum).collect::<Option<_>>()?;
            rest.is_empty().then_some(Self(sums))
        };
        Ok(value.as_ref().and_then(read))
    }

    /// Adds to a batch that the indexes of a collection add up to this after it.
    pub(super) fn store(&self, batch: &mut Batch, number: u32) {
        let key = digests_key(number);
        let entry =
            |(field, sum): (&u16, &u64)| [&field.to_le_bytes()[..], &sum.to_le_bytes()].concat();
        let body: Vec<u8> = self.0.iter().flat_map(entry).collect();
        batch.put(key.clone(), record::with_checksum(&key, body));
    }

    /// The sum of a field.
    pub(crate) fn of(&self, field: u16) -> u64 {
        self.0.get(&field).copied().unwrap_or_default()
    }
}

fn pair(salt: u64, ordinal: u32) -> u64 {
    mix(salt ^ mix(u64::from(ordinal)))
}

/// A number that stands for an entry.
pub(super) fn salt(entry: &[u8]) -> u64 {
    let hash = blake3::hash(entry);
    u64::from_le_bytes(*hash.as_bytes().first_chunk().expect("a hash has 32 bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::MemoryStore;

    #[test]
    fn sums_do_not_depend_on_the_order_and_come_back_from_the_store() {
        let (mut a, mut b) = (Digests::default(), Digests::default());
        a.add(1, salt(b"x"), 5);
        a.add(1, salt(b"y"), 6);
        a.add(2, salt(b"x"), 5);
        b.add(2, salt(b"x"), 5);
        b.add(1, salt(b"y"), 6);
        b.add(1, salt(b"z"), 5);
        assert_ne!(a, b);
        b.subtract(1, salt(b"z"), 5);
        b.add(1, salt(b"x"), 5);
        assert_eq!(a, b);
        let store = MemoryStore::new();
        assert_eq!(Digests::stored(&store, 3).expect("reads"), None);
        let mut batch = Batch::default();
        a.store(&mut batch, 3);
        store.commit(batch).expect("commits");
        assert_eq!(Digests::stored(&store, 3).expect("reads"), Some(a));
        let mut value = store
            .get(&digests_key(3))
            .expect("reads")
            .expect("is there");
        value[4] ^= 1;
        let mut batch = Batch::default();
        batch.put(digests_key(3), value);
        store.commit(batch).expect("commits");
        assert_eq!(Digests::stored(&store, 3).expect("reads"), None);
    }
}
