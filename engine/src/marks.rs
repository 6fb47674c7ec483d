//! What the store says about segments: which one of each shard is the good one, and which items
//! have changed since it was sealed. So an open reads the segments, and of the records only those
//! of the changed items.
//!
//! | key | value |
//! |---|---|
//! | `g` number modality aspect slot | generation u64, hash of the file's head `[32]`, checksum `[16]` |
//! | `m` number id | nothing, or a byte 1 |
//!
//! The number and the slot (u16) are big-endian in keys; modality and aspect (0 shared, 1 specific)
//! are a byte each. A hash of zeros says that the good segment is the one without rows, which has no
//! file. No entry at all says that nothing is known of a shard, and all records must be read. A mark
//! with a byte says that the item's record was known to be damaged, and that the indexes of fields
//! have nothing of it.
//!
//! One rule holds at every moment, and so after any stop: **an item about which the good segment of
//! a shard and the record in the store differ has a mark.** A mark says no more than "look in the
//! store", so one too many costs a read and is never wrong. Hence:
//!
//! - A write puts its marks in the batch that holds its records.
//! - A seal writes its file, makes it durable together with its name, and only then changes the
//!   entry of its shard, in one small batch. What was written after the seal had taken up its rows
//!   has its marks already.
//! - Marks that are needed no more are removed after that batch, each by somebody who holds the
//!   item's turn, so that no write of it is under way. They are still needed where any of the shards
//!   that an item may be in, of either modality and aspect, has it in its tail or among its
//!   tombstones, or is in memory another one than the store says.
//! - The old file is removed last, and so is anything that is not a good file at the next open.

use embedding::{Aspect, Modality};

use crate::{
    EngineError, ItemId,
    catalog::item_prefix,
    record,
    shard::ShardKey,
    store::{Batch, Store},
};

/// What stands for the head of a segment without rows.
const NO_FILE: [u8; 32] = [0; 32];

/// The good segment of a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Sealed {
    /// Number of the seal, part of the file's name.
    pub(crate) generation: u64,
    /// Hash of the head of the file; `None` of the segment without rows.
    pub(crate) head: Option<[u8; 32]>,
}

/// Keys of a collection's good segments start so.
pub(crate) fn seal_prefix(number: u32) -> Vec<u8> {
    [b"g".as_slice(), &number.to_be_bytes()].concat()
}

fn seal_key(number: u32, shard: ShardKey) -> Vec<u8> {
    let modality = match shard.modality {
        Modality::Text => 0,
        Modality::Image => 1,
    };
    let aspect = u8::from(shard.aspect != Aspect::Shared);
    let mut key = seal_prefix(number);
    key.extend([modality, aspect]);
    key.extend((shard.slot as u16).to_be_bytes());
    key
}

/// What is known of a shard's segment. An entry that does not read back says nothing.
pub(crate) fn sealed(
    store: &dyn Store,
    number: u32,
    shard: ShardKey,
) -> Result<Option<Sealed>, EngineError> {
    let key = seal_key(number, shard);
    let value = store.get(&key)?;
    let read = |value: &Vec<u8>| {
        let body = record::checked(&key, value).ok()?;
        let (generation, head) = body.split_first_chunk()?;
        let head: [u8; 32] = head.try_into().ok()?;
        Some(Sealed {
            generation: u64::from_le_bytes(*generation),
            head: (head != NO_FILE).then_some(head),
        })
    };
    Ok(value.as_ref().and_then(read))
}

/// Adds to a batch that this is the good segment of a shard from now on; `None` when nothing is
/// known of it.
pub(crate) fn set_sealed(batch: &mut Batch, number: u32, shard: ShardKey, sealed: Option<Sealed>) {
    let key = seal_key(number, shard);
    let Some(Sealed { generation, head }) = sealed else {
        return batch.remove(key);
    };
    let mut body = generation.to_le_bytes().to_vec();
    body.extend(head.unwrap_or(NO_FILE));
    batch.put(key.clone(), record::with_checksum(&key, body));
}

/// Keys of a collection's marks start so.
pub(crate) fn mark_prefix(number: u32) -> Vec<u8> {
    [b"m".as_slice(), &number.to_be_bytes()].concat()
}

fn mark_key(number: u32, id: &ItemId) -> Vec<u8> {
    [&mark_prefix(number), id.as_str().as_bytes()].concat()
}

/// Adds a mark to a batch.
pub(crate) fn put(batch: &mut Batch, number: u32, id: &ItemId) {
    batch.put(mark_key(number, id), Vec::new());
}

/// Adds the mark of an item whose record is damaged to a batch, after which the indexes of fields
/// have nothing of it, or are built again.
pub(crate) fn put_damaged(batch: &mut Batch, number: u32, id: &ItemId) {
    batch.put(mark_key(number, id), vec![1]);
}

/// Adds the removal of a mark to a batch.
pub(crate) fn remove(batch: &mut Batch, number: u32, id: &ItemId) {
    batch.remove(mark_key(number, id));
}

/// A mark as it was found.
#[derive(Debug)]
pub(crate) struct Mark {
    pub(crate) id: ItemId,
    /// Whether the item's record was known to be damaged.
    pub(crate) damaged: bool,
}

/// The marks, in the order of their ids. A key that is no id of an item marks none.
pub(crate) fn marked(
    store: &dyn Store,
    number: u32,
) -> impl Iterator<Item = Result<Mark, EngineError>> {
    let skip = item_prefix(number).len();
    let id = move |key: &[u8]| ItemId::new(std::str::from_utf8(&key[skip..]).ok()?).ok();
    let entries = store.scan(&mark_prefix(number));
    entries.filter_map(move |entry| match entry {
        Ok((key, value)) => {
            let damaged = !value.is_empty();
            id(&key).map(|id| Ok(Mark { id, damaged }))
        }
        Err(error) => Some(Err(error.into())),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::MemoryStore;

    #[test]
    fn what_is_known_of_a_segment_comes_back_and_damage_to_it_says_nothing() {
        let store = MemoryStore::new();
        let shard = |slot, aspect| ShardKey {
            modality: Modality::Image,
            slot,
            aspect,
        };
        let (key, other) = (shard(3, Aspect::Shared), shard(4, Aspect::Shared));
        let specific = shard(3, Aspect::Specific(Modality::Image));
        let set = |key, sealed| {
            let mut batch = Batch::default();
            set_sealed(&mut batch, 7, key, sealed);
            store.commit(batch).expect("commits");
        };
        let get = |key| sealed(&store, 7, key).expect("reads");
        for head in [None, Some([9; 32])] {
            let generation = 5;
            set(key, Some(Sealed { generation, head }));
            assert_eq!(get(key), Some(Sealed { generation, head }));
        }
        assert_eq!((get(other), get(specific)), (None, None));
        let mut value = store
            .get(&seal_key(7, key))
            .expect("reads")
            .expect("is there");
        value[0] ^= 1;
        let mut batch = Batch::default();
        batch.put(seal_key(7, key), value);
        store.commit(batch).expect("commits");
        assert_eq!(get(key), None);
        set(key, Some(Sealed::default()));
        set(key, None);
        assert_eq!(get(key), None);
    }
}
