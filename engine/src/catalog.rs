//! Which keys the store holds, and the description of a collection.
//!
//! | key | value |
//! |---|---|
//! | `c` name | description of the collection, JSON |
//! | `d` number | name of a collection that is gone, or not complete yet: its items go at the next open |
//! | `e` number | what the indexes of fields add up to, see [`crate::filter::digests`] |
//! | `f` number field block value | a page of a field's index, see [`crate::filter::postings`] |
//! | `g` number shard | which segment of a shard is the good one, see [`crate::marks`] |
//! | `h` number name | heads, see [`crate::heads`] |
//! | `i` number id | an item's record, see [`crate::record`] |
//! | `j` number | a job, not of a collection; see [`crate::jobs`] |
//! | `k` number | the calibration of confidence, JSON, see [`crate::confidence`] |
//! | `m` number id | what segments say of this item is not to be trusted, see [`crate::marks`] |
//! | `v` number | no item has a version above this, see [`crate::versions`] |
//!
//! A collection's number is big-endian `u32`, and never that of another collection whose items are
//! still there. So a delete is one small atomic batch, and finishes at the next open if it must.
//!
//! Over 400 lines only with its tests, which are about what is private here.

use embedding::{Modality, Space, Spaces};
use serde::{Deserialize, Serialize};

use crate::{
    EngineError, ItemId,
    config::MAX_SHARDS,
    filter::field::FieldSet,
    heads::head_prefix,
    marks, record,
    store::{Batch, Store},
    versions::Versions,
};

/// Keys of collections start so.
pub(crate) const COLLECTIONS: &[u8] = b"c";
/// Keys of deleted collections start so.
const DELETED: &[u8] = b"d";
/// Format of a description, and of everything else in the store that belongs to its collection. A
/// program that knows another one refuses it.
const VERSION: u32 = 5;
/// The same of a collection whose changes were not marked, by an engine that keeps no indexes.
const UNMARKED_VERSION: u32 = 4;
/// Most numbers of an embedding. A description that says more is damaged.
const MAX_DIM: usize = 1 << 16;
/// Items removed in one batch while a collection is being deleted.
const REMOVE_BATCH: usize = 1000;

/// What a collection remembers about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Description {
    version: u32,
    /// Stands for the collection in the keys of its items.
    pub(crate) number: u32,
    /// Parts per modality.
    pub(crate) shards: usize,
    /// The model that made the embeddings.
    pub(crate) spaces: Spaces,
    /// The fields of payloads that are indexed.
    pub(crate) fields: FieldSet,
}

/// What a description of any format says.
#[derive(Deserialize)]
struct Format {
    version: u32,
}

impl Description {
    /// Of a new collection, unmarked.
    pub(crate) fn new(number: u32, shards: usize, spaces: Spaces) -> Self {
        Self {
            version: UNMARKED_VERSION,
            number,
            shards,
            spaces,
            fields: FieldSet::default(),
        }
    }

    /// Whether every change since the seals of its shards is marked.
    pub(crate) fn is_marked(&self) -> bool {
        self.version == VERSION
    }

    /// The same, but for the marks.
    #[must_use]
    pub(crate) fn marked(mut self, marked: bool) -> Self {
        self.version = if marked { VERSION } else { UNMARKED_VERSION };
        self
    }
}

/// Whether this can be the name of a collection, and so of a file: 1 to 64 of a-z, 0-9, _ and -,
/// starting with a letter or a digit.
pub fn is_name(name: &str) -> bool {
    let bytes = name.as_bytes();
    let plain = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    (1..=64).contains(&bytes.len())
        && plain(&bytes[0])
        && bytes.iter().all(|b| plain(b) || matches!(b, b'_' | b'-'))
}

/// Checks the name of a collection.
pub(crate) fn check_name(name: &str) -> Result<(), EngineError> {
    if is_name(name) {
        return Ok(());
    }
    Err(EngineError::BadName {
        name: name.chars().take(80).collect(),
    })
}

/// Checks that there can be rows of every embedding, and that memory for a few can be had.
pub(crate) fn check_spaces(spaces: &Spaces) -> Result<(), EngineError> {
    let specific = |modality| spaces.specific(modality);
    let all =
        std::iter::once(spaces.shared()).chain(Modality::ALL.into_iter().filter_map(specific));
    for Space {
        model, dim, aspect, ..
    } in all
    {
        if !(1..=MAX_DIM).contains(&dim) {
            return Err(EngineError::BadDim { model, aspect, dim });
        }
    }
    Ok(())
}

/// Keys of a collection's items start so.
pub(crate) fn item_prefix(number: u32) -> Vec<u8> {
    [b"i".as_slice(), &number.to_be_bytes()].concat()
}

/// Key of an item.
pub(crate) fn item_key(number: u32, id: &ItemId) -> Vec<u8> {
    [
        b"i".as_slice(),
        &number.to_be_bytes(),
        id.as_str().as_bytes(),
    ]
    .concat()
}

/// Bytes of [`page_prefix`].
pub(crate) const PAGE_PREFIX_BYTES: usize = 5;

/// Keys of the pages of a collection's field indexes start so.
pub(crate) fn page_prefix(number: u32) -> Vec<u8> {
    [b"f".as_slice(), &number.to_be_bytes()].concat()
}

/// Key of the calibration of a collection.
pub(crate) fn calibration_key(number: u32) -> Vec<u8> {
    [b"k".as_slice(), &number.to_be_bytes()].concat()
}

/// Key of the ceiling of a collection's versions.
pub(crate) fn ceiling_key(number: u32) -> Vec<u8> {
    [b"v".as_slice(), &number.to_be_bytes()].concat()
}

/// Key of the sums of a collection's field indexes.
pub(crate) fn digests_key(number: u32) -> Vec<u8> {
    [b"e".as_slice(), &number.to_be_bytes()].concat()
}

/// Key of the description of a collection.
pub(crate) fn collection_key(name: &str) -> Vec<u8> {
    [COLLECTIONS, name.as_bytes()].concat()
}

fn deleted_key(number: u32) -> Vec<u8> {
    [DELETED, &number.to_be_bytes()].concat()
}

/// Writes down a new collection, if it can be opened again. Gives the versions of its items.
pub(crate) fn create(
    store: &dyn Store,
    name: &str,
    description: &Description,
) -> Result<Versions, EngineError> {
    check_spaces(&description.spaces)?;
    let mut batch = Batch::default();
    describe(&mut batch, name, description);
    let versions = Versions::begin(&mut batch, description.number, 1);
    store.commit(batch)?;
    Ok(versions)
}

/// Writes down a collection in place of what was known about it before.
pub(crate) fn write(
    store: &dyn Store,
    name: &str,
    description: &Description,
) -> Result<(), EngineError> {
    let mut batch = Batch::default();
    describe(&mut batch, name, description);
    Ok(store.commit(batch)?)
}

/// Adds the writing down of a collection that was opened to a batch.
pub(crate) fn describe(batch: &mut Batch, name: &str, description: &Description) {
    let body = serde_json::to_vec(description).expect("a description is plain JSON");
    let key = collection_key(name);
    batch.put(key.clone(), record::with_checksum(&key, body));
}

/// Every collection, by name.
pub(crate) fn list(store: &dyn Store) -> Result<Vec<(String, Description)>, EngineError> {
    store.scan(COLLECTIONS).map(|entry| read(&entry?)).collect()
}

fn read((key, value): &(Vec<u8>, Vec<u8>)) -> Result<(String, Description), EngineError> {
    let name = String::from_utf8_lossy(&key[COLLECTIONS.len()..]).into_owned();
    let damaged = |reason: String| EngineError::DamagedCollection {
        collection: name.clone(),
        reason,
    };
    let body = record::checked(key, value).map_err(|reason| damaged(reason.into()))?;
    let Format { version } =
        serde_json::from_slice(body).map_err(|error| damaged(error.to_string()))?;
    if ![VERSION, UNMARKED_VERSION].contains(&version) {
        return Err(EngineError::OtherFormat {
            collection: name,
            format: version,
            expected: VERSION,
        });
    }
    let description: Description =
        serde_json::from_slice(body).map_err(|error| damaged(error.to_string()))?;
    let shards = description.shards;
    if !(1..=MAX_SHARDS).contains(&shards) {
        return Err(damaged(format!(
            "it has {shards} shards, expected 1 to {MAX_SHARDS}"
        )));
    }
    // The next collection, and the next field, must get a number of its own.
    if description.number == u32::MAX || !description.fields.has_good_numbers() {
        let number = description.number;
        return Err(damaged(format!(
            "it has number {number}, or fields share one"
        )));
    }
    check_spaces(&description.spaces).map_err(|error| damaged(error.to_string()))?;
    check_name(&name)?;
    Ok((name, description))
}

/// Takes a collection out of the list, in one step; [`remove_items`] then removes its items.
pub(crate) fn delete(store: &dyn Store, name: &str, number: u32) -> Result<(), EngineError> {
    let mut batch = Batch::default();
    batch.remove(collection_key(name));
    batch.put(deleted_key(number), name.as_bytes().to_vec());
    Ok(store.commit(batch)?)
}

/// Takes a number for a collection that is not in the list before [`complete`]: should that never
/// come, what is stored under the number is removed at the next open.
pub(crate) fn begin(store: &dyn Store, name: &str, number: u32) -> Result<(), EngineError> {
    let mut batch = Batch::default();
    batch.put(deleted_key(number), name.as_bytes().to_vec());
    Ok(store.commit(batch)?)
}

/// Puts a collection that was begun into the list.
pub(crate) fn complete(
    store: &dyn Store,
    name: &str,
    description: &Description,
    versions_below: u64,
) -> Result<Versions, EngineError> {
    let mut batch = Batch::default();
    batch.remove(deleted_key(description.number));
    describe(&mut batch, name, description);
    let versions = Versions::begin(&mut batch, description.number, versions_below);
    store.commit(batch)?;
    Ok(versions)
}

/// Removes the items of all collections that were deleted, or begun and not completed.
pub(crate) fn remove_deleted(store: &dyn Store) -> Result<(), EngineError> {
    let deleted: Vec<_> = store.scan(DELETED).collect::<Result<_, _>>()?;
    for (key, _) in deleted {
        if let Some(number) = key[DELETED.len()..].first_chunk() {
            remove_items(store, u32::from_be_bytes(*number))?;
        }
    }
    Ok(())
}

/// Removes the items of a collection that was deleted, or begun and not completed.
pub(crate) fn remove_items(store: &dyn Store, number: u32) -> Result<(), EngineError> {
    for prefix in [
        page_prefix(number),
        digests_key(number),
        calibration_key(number),
        ceiling_key(number),
        head_prefix(number),
        marks::seal_prefix(number),
        marks::mark_prefix(number),
        item_prefix(number),
    ] {
        remove_all(store, &prefix)?;
    }
    let mut batch = Batch::default();
    batch.remove(deleted_key(number));
    Ok(store.commit(batch)?)
}

fn remove_all(store: &dyn Store, prefix: &[u8]) -> Result<(), EngineError> {
    loop {
        let mut batch = Batch::default();
        for entry in store.scan(prefix).take(REMOVE_BATCH) {
            batch.remove(entry?.0);
        }
        if batch.is_empty() {
            return Ok(());
        }
        store.commit(batch)?;
    }
}

/// A number that no collection, also no half deleted one, has.
pub(crate) fn next_number(store: &dyn Store) -> Result<u32, EngineError> {
    let mut next = list(store)?
        .iter()
        .map(|(_, d)| d.number + 1)
        .max()
        .unwrap_or(0);
    for entry in store.scan(DELETED) {
        if let Some(number) = entry?.0[DELETED.len()..].first_chunk() {
            next = next.max(u32::from_be_bytes(*number).saturating_add(1));
        }
    }
    Ok(next)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::filter::field::LAST_NUMBER;

    /// Found by reading: a description with a good checksum was believed whatever it
    /// said. A number at the end of its range gave the next collection, or the next field, the
    /// number of another one, whose items it then shared, and a huge dim or number of shards brought
    /// the process down for want of memory.
    #[test]
    fn a_description_that_cannot_be_true_is_refused_and_the_last_numbers_are_given() {
        let spaces =
            embedding::Encoder::<&str>::spaces(&embedding::HashEncoder::new(Modality::Text, 4))
                .clone();
        let good = Description::new(u32::MAX - 1, MAX_SHARDS, spaces);
        let fields = |numbers: [u16; 2]| {
            let field = |number| json!({ "number": number, "kind": "bool" });
            json!({ "a": field(numbers[0]), "b": field(numbers[1]) })
        };
        let good = serde_json::to_value(good).expect("plain JSON");
        let opened = |changes: &[(&str, serde_json::Value)]| {
            let mut description = good.clone();
            for (pointer, value) in changes {
                *description.pointer_mut(pointer).expect("is there") = value.clone();
            }
            let key = collection_key("c");
            let body = serde_json::to_vec(&description).expect("plain JSON");
            let value = record::with_checksum(&key, body);
            read(&(key, value)).map(|(_, description)| description)
        };
        let last = opened(&[("/fields", fields([0, LAST_NUMBER]))]).expect("is good");
        let more = crate::Fields::new([("c", crate::FieldKind::Bool)]).expect("good");
        let (_, numbers) = last.fields.with("c", &more).expect("one more fits");
        assert_eq!(numbers, [LAST_NUMBER + 1]);
        for (pointer, bad) in [
            ("/number", json!(u32::MAX)),
            ("/shards", json!(0)),
            ("/shards", json!(MAX_SHARDS + 1)),
            ("/shards", json!(u64::MAX)),
            ("/spaces/shared_dim", json!(0)),
            ("/spaces/shared_dim", json!(u64::MAX / 4)),
            ("/spaces/specific_image_dim", json!(MAX_DIM + 1)),
            ("/fields", fields([7, 7])),
            ("/fields", fields([0, LAST_NUMBER + 1])),
        ] {
            let refused = opened(&[(pointer, bad.clone())]);
            let is_damage = matches!(refused, Err(EngineError::DamagedCollection { .. }));
            assert!(is_damage, "{pointer} {bad}: {refused:?}");
        }
        let store = crate::store::MemoryStore::new();
        let mut batch = Batch::default();
        batch.put(deleted_key(u32::MAX), b"gone".to_vec());
        store.commit(batch).expect("commits");
        assert_eq!(next_number(&store).expect("reads"), u32::MAX);
    }

    #[test]
    fn a_name_is_also_a_safe_folder_name() {
        for good in ["a", "0", "my-photos_2", &"x".repeat(64)] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "-a",
            "_a",
            ".",
            "..",
            "a/b",
            "A",
            "\u{e9}",
            "a b",
            &"x".repeat(65),
        ] {
            assert!(
                matches!(check_name(bad), Err(EngineError::BadName { .. })),
                "{bad}"
            );
        }
    }
}
