//! Chunks: some records one after the other, and where one chunk ends and the next begins.
//!
//! ```text
//! length of the id u16 | length of the record u64 | id | record without its checksum
//! ```
//!
//! Numbers are little-endian. After which item a chunk ends follows from the item's id and size and
//! from where the chunk began; so a change moves few ends, and the chunks after them are the same
//! as before.

use super::manifest::Chunk;
use crate::ItemId;

/// A chunk does not end before it has so many bytes,
const LEAST: usize = 256 << 10;
/// seldom before it has so many,
const USUAL: usize = 1 << 20;
/// soon after that, and at last with the item that takes it over so many. Smaller chunks would be
/// more files to sync; of larger ones fewer stay as they are, when changes are scattered. (The two
/// chances keep the sizes together, as in Xia et al., "`FastCDC`", 2016.)
const MOST: usize = 4 << 20;
/// Bytes after which a chunk ends by chance, on average, before and after it has the usual size.
const SELDOM: usize = 4 << 20;
const OFTEN: usize = 256 << 10;

/// Puts records into chunks.
#[derive(Debug, Default)]
pub(super) struct Cutter {
    bytes: Vec<u8>,
    items: u64,
    first: Option<ItemId>,
}

impl Cutter {
    /// Adds a record. Gives the chunk, if it ends here.
    pub(super) fn push(&mut self, id: &ItemId, body: &[u8]) -> Option<(Vec<u8>, Chunk)> {
        let before = self.bytes.len();
        let name = id.as_str().as_bytes();
        self.bytes.extend((name.len() as u16).to_le_bytes());
        self.bytes.extend((body.len() as u64).to_le_bytes());
        self.bytes.extend(name);
        self.bytes.extend(body);
        self.items += 1;
        self.first.get_or_insert_with(|| id.clone());
        let (length, added) = (self.bytes.len(), self.bytes.len() - before);
        let chance = if length < USUAL { SELDOM } else { OFTEN };
        let ends = length >= MOST || (length >= LEAST && ends_after(id, added, chance));
        if ends { self.end() } else { None }
    }

    /// The last chunk, unless it is empty.
    pub(super) fn end(&mut self) -> Option<(Vec<u8>, Chunk)> {
        let Self {
            bytes,
            items,
            first,
        } = std::mem::take(self);
        let chunk = Chunk {
            hash: blake3::hash(&bytes).to_hex().to_string(),
            bytes: bytes.len() as u64,
            items,
            first: first?,
        };
        Some((bytes, chunk))
    }
}

/// Whether a chunk that is long enough ends after an item of so many bytes, if one does once in
/// `chance` bytes.
fn ends_after(id: &ItemId, bytes: usize, chance: usize) -> bool {
    let hash = blake3::hash(id.as_str().as_bytes());
    let (_, hash) = hash.as_bytes().split_last_chunk().expect("32 bytes");
    let place = (u128::from(u64::from_le_bytes(*hash)) * chance as u128) >> 64;
    place < bytes as u128
}

/// The id and the record of each item of a chunk; the last is `None` where it is cut short.
pub(super) fn entries(mut bytes: &[u8]) -> impl Iterator<Item = Option<(&str, &[u8])>> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let entry = entry(bytes);
        bytes = entry.map_or(&[], |(_, _, rest)| rest);
        Some(entry.map(|(id, body, _)| (id, body)))
    })
}

fn entry(bytes: &[u8]) -> Option<(&str, &[u8], &[u8])> {
    let (id_length, rest) = bytes.split_first_chunk()?;
    let (body_length, rest) = rest.split_first_chunk()?;
    let (id, rest) = rest.split_at_checked(u16::from_le_bytes(*id_length).into())?;
    let body_length = usize::try_from(u64::from_le_bytes(*body_length)).ok()?;
    let (body, rest) = rest.split_at_checked(body_length)?;
    Some((std::str::from_utf8(id).ok()?, body, rest))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn cut(items: &[(String, Vec<u8>)]) -> Vec<(Vec<u8>, Chunk)> {
        let mut cutter = Cutter::default();
        let id = |id: &String| ItemId::new(id.as_str()).expect("an id");
        let mut chunks: Vec<_> = items
            .iter()
            .filter_map(|(name, body)| cutter.push(&id(name), body))
            .collect();
        chunks.extend(cutter.end());
        chunks
    }

    fn items(n: usize) -> Vec<(String, Vec<u8>)> {
        let body = |i: usize| vec![i as u8; 1000 + i % 50];
        (0..n).map(|i| (format!("{i:06}"), body(i))).collect()
    }

    #[test]
    fn chunks_give_back_what_went_in_and_have_about_the_usual_size() {
        let mut items = items(20_000);
        items[7].1 = vec![1; 9 << 20];
        let chunks = cut(&items);
        let back = chunks.iter().flat_map(|(bytes, _)| entries(bytes));
        let back = back.map(|entry| entry.expect("is whole"));
        let put = items
            .iter()
            .map(|(id, body)| (id.as_str(), body.as_slice()));
        assert!(back.eq(put));
        let total: usize = chunks.iter().map(|(bytes, _)| bytes.len()).sum();
        let mean = total / chunks.len();
        assert!((USUAL / 2..2 * USUAL).contains(&mean), "{mean} bytes");
        let sizes = chunks.iter().map(|(bytes, _)| bytes.len());
        assert!(sizes.clone().filter(|size| *size > MOST + 2000).count() == 1);
        assert!(sizes.rev().skip(1).all(|size| size >= LEAST));
        assert!(cut(&[]).is_empty());
    }

    #[test]
    fn an_item_that_changes_comes_or_goes_leaves_most_chunks_as_they_were() {
        let before = items(20_000);
        let hashes = |items: &[_]| -> BTreeSet<String> {
            cut(items)
                .into_iter()
                .map(|(_, chunk)| chunk.hash)
                .collect()
        };
        let old = hashes(&before);
        let mut changed = before.clone();
        changed[10_000].1 = vec![9; 1700];
        let mut gone = before.clone();
        gone.remove(5_000);
        let mut more = before;
        more.insert(0, ("+".into(), vec![3; 1000]));
        for after in [changed, gone, more] {
            let new = hashes(&after);
            let shared = new.intersection(&old).count();
            assert!(
                shared + 4 >= old.len() && new != old,
                "{shared} of {}",
                old.len()
            );
        }
    }

    #[test]
    fn a_chunk_that_is_cut_short_gives_no_item_for_the_rest() {
        let items = items(3);
        let (bytes, _) = cut(&items).remove(0);
        let sizes = items.iter().map(|(id, body)| 10 + id.len() + body.len());
        let ends: Vec<usize> = sizes
            .scan(0, |end, size| {
                *end += size;
                Some(*end)
            })
            .collect();
        assert_eq!(ends.last(), Some(&bytes.len()));
        for length in 0..bytes.len() {
            let (whole, cut): (Vec<_>, Vec<_>) =
                entries(&bytes[..length]).partition(Option::is_some);
            assert_eq!(
                whole.len(),
                ends.iter().filter(|end| **end <= length).count()
            );
            let is_whole = length == 0 || ends.contains(&length);
            assert_eq!(cut.len(), usize::from(!is_whole), "{length}");
        }
    }
}
