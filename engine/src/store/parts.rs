//! Large values, cut into parts that sled keeps in its log.
//!
//! A page of sled that is larger than a quarter of a part of its log goes to a file of its own,
//! whose name is not synced before the log speaks of it. After a power cut sled skips pages whose
//! file is missing, and with them a part of a batch that is otherwise there. A page holds up to 17
//! entries, so with parts of this size no page becomes that large.
//!
//! | key | value |
//! |---|---|
//! | key | the value, `0` |
//! | key | number of parts `u32`, identity of the value `[16]`, `1` |
//! | `ff` key, number of the part `u32` | identity of the value `[16]`, the part |
//!
//! Numbers are big-endian. The identity is the start of the value's BLAKE3: a reader sees by it
//! that a part belongs to a value that was put in place meanwhile.

use std::collections::HashMap;

use super::Batch;

/// Longest value that is kept whole. 17 of them with keys of 530 bytes are below 128 KiB.
const PART_BYTES: usize = 6 << 10;
/// Keys of parts start so, and no others.
const PARTS: u8 = 0xff;
const WHOLE: u8 = 0;
const CUT: u8 = 1;
const IDENTITY_BYTES: usize = 16;

/// What lies under a key.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Stored<'a> {
    /// The value itself.
    Whole(&'a [u8]),
    /// So many parts, which start so.
    Cut {
        parts: u32,
        identity: [u8; IDENTITY_BYTES],
    },
}

/// Takes apart what lies under a key; `None` when it is nothing of ours.
pub(super) fn read(stored: &[u8]) -> Option<Stored<'_>> {
    match stored.split_last()? {
        (&WHOLE, value) => Some(Stored::Whole(value)),
        (&CUT, rest) => {
            let (parts, identity) = rest.split_first_chunk()?;
            Some(Stored::Cut {
                parts: u32::from_be_bytes(*parts),
                identity: identity.try_into().ok()?,
            })
        }
        _ => None,
    }
}

/// Keys of parts start so.
pub(super) fn prefix() -> [u8; 1] {
    [PARTS]
}

/// Whether a key is that of a part.
pub(super) fn is_part(key: &[u8]) -> bool {
    key.first() == Some(&PARTS)
}

/// Key of a part.
pub(super) fn part_key(key: &[u8], part: u32) -> Vec<u8> {
    [&[PARTS], key, &part.to_be_bytes()].concat()
}

/// The bytes of a part, if it belongs to the value.
pub(super) fn part(stored: &[u8], identity: [u8; IDENTITY_BYTES]) -> Option<&[u8]> {
    let (start, bytes) = stored.split_first_chunk()?;
    (*start == identity).then_some(bytes)
}

/// The batch as it is written: large values cut, and the parts of those that they replace removed.
/// `old_parts` says how many there are of a key.
pub(super) fn cut<E>(
    batch: Batch,
    old_parts: impl Fn(&[u8]) -> Result<u32, E>,
) -> Result<Batch, E> {
    let mut out = Batch::default();
    // The last write of a key wins; an earlier one must not leave parts behind.
    let mut cut_before: HashMap<Vec<u8>, u32> = HashMap::new();
    for (key, value) in batch.writes {
        let old = old_parts(&key)?.max(cut_before.get(&key).copied().unwrap_or(0));
        let mut parts = 0;
        let stored = match value {
            Some(value) if value.len() > PART_BYTES => {
                let hash = blake3::hash(&value);
                let identity = &hash.as_bytes()[..IDENTITY_BYTES];
                for part in value.chunks(PART_BYTES) {
                    out.put(part_key(&key, parts), [identity, part].concat());
                    parts += 1;
                }
                cut_before.insert(key.clone(), parts);
                Some([parts.to_be_bytes().as_slice(), identity, &[CUT]].concat())
            }
            Some(mut value) => {
                value.push(WHOLE);
                Some(value)
            }
            None => None,
        };
        for part in parts..old {
            out.remove(part_key(&key, part));
        }
        out.writes.push((key, stored));
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, convert::Infallible};

    use super::*;

    type Map = BTreeMap<Vec<u8>, Vec<u8>>;

    fn apply(map: &mut Map, batch: Batch) {
        let old_parts = |key: &[u8]| -> Result<u32, Infallible> {
            Ok(match map.get(key).map(|stored| read(stored)) {
                Some(Some(Stored::Cut { parts, .. })) => parts,
                _ => 0,
            })
        };
        let Ok(batch) = cut(batch, old_parts);
        for (key, value) in batch.writes {
            match value {
                Some(value) => map.insert(key, value),
                None => map.remove(&key),
            };
        }
    }

    fn value(map: &Map, key: &[u8]) -> Option<Vec<u8>> {
        match read(map.get(key)?)? {
            Stored::Whole(value) => Some(value.to_vec()),
            Stored::Cut { parts, identity } => (0..parts)
                .map(|i| part(map.get(&part_key(key, i))?, identity).map(<[u8]>::to_vec))
                .collect::<Option<Vec<_>>>()
                .map(|parts| parts.concat()),
        }
    }

    #[test]
    fn a_value_of_any_size_comes_back_and_leaves_nothing_behind_when_it_goes() {
        let mut map = Map::new();
        let sizes = [0, 1, PART_BYTES, PART_BYTES + 1, 5 * PART_BYTES, 100_000, 7];
        for size in sizes.into_iter().chain(sizes.into_iter().rev()) {
            let wanted: Vec<u8> = (0..size).map(|i| i as u8).collect();
            let mut batch = Batch::default();
            batch.put(b"k".to_vec(), vec![9; 50_000]);
            batch.put(b"k".to_vec(), wanted.clone());
            apply(&mut map, batch);
            assert_eq!(value(&map, b"k"), Some(wanted), "of {size} bytes");
            let parts = if size > PART_BYTES {
                size.div_ceil(PART_BYTES)
            } else {
                0
            };
            assert_eq!(map.len(), 1 + parts, "{size} bytes");
            let longest = map.values().map(Vec::len).max();
            assert!(longest <= Some(PART_BYTES + IDENTITY_BYTES), "{longest:?}");
        }
        let mut batch = Batch::default();
        batch.put(b"k".to_vec(), vec![9; 50_000]);
        apply(&mut map, batch);
        let mut batch = Batch::default();
        batch.remove(b"k".to_vec());
        apply(&mut map, batch);
        assert!(map.is_empty(), "{} keys are left", map.len());
    }

    #[test]
    fn a_part_of_another_value_is_not_taken_for_one_of_this() {
        let mut map = Map::new();
        let mut batch = Batch::default();
        batch.put(b"k".to_vec(), vec![1; 20_000]);
        apply(&mut map, batch);
        let pointer = map[b"k".as_slice()].clone();
        let mut batch = Batch::default();
        batch.put(b"k".to_vec(), vec![2; 20_000]);
        apply(&mut map, batch);
        map.insert(b"k".to_vec(), pointer);
        assert_eq!(value(&map, b"k"), None);
        assert_eq!(read(b""), None);
        assert_eq!(read(b"abc\x02"), None);
    }
}
