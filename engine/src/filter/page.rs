//! A page of entries: values in ascending order, each with the ordinals of the items that have it.
//!
//! ```text
//! entry: length u16, value | count u16 = 1 to 16 | low half of each ordinal u16, ascending
//!    or: length u16, value | 0 u16 | length u32, bitmap in the portable format of Roaring
//! ```
//!
//! All numbers are little-endian. All ordinals of a page have one upper half, its block. A value
//! that few items have takes a few bytes; one that many have is a bitmap or its runs.

use std::{borrow::Cow, collections::BTreeMap};

use roaring::RoaringBitmap;

/// Up to so many ordinals are listed one by one: a bitmap's header takes 16 bytes.
const FEW: u64 = 16;
/// A page is split when it is larger than this and has more than one value.
const PAGE_BYTES: usize = 4096;
/// How full the parts of a split page are: there is room for more on both sides.
const SPLIT_BYTES: usize = PAGE_BYTES * 2 / 3;

/// Something in a page does not read back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Damaged;

/// The ordinals of one value, not yet copied.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Postings<'a> {
    /// Low halves.
    Few(&'a [[u8; 2]]),
    /// Whole ordinals, serialized.
    Many(&'a [u8]),
}

impl Postings<'_> {
    /// The ordinals, whose upper half is `block`.
    pub(crate) fn ordinals(self, block: u16) -> Result<RoaringBitmap, Damaged> {
        match self {
            Self::Few(list) => Ok(list.iter().map(|low| ordinal(block, *low)).collect()),
            Self::Many(bytes) => RoaringBitmap::deserialize_from(bytes).map_err(|_| Damaged),
        }
    }
}

fn ordinal(block: u16, low: [u8; 2]) -> u32 {
    u32::from(block) << 16 | u32::from(u16::from_le_bytes(low))
}

/// One entry: a value, its ordinals, and how these are written.
pub(crate) struct Entry<'a> {
    pub(crate) value: &'a [u8],
    pub(crate) postings: Postings<'a>,
    written: &'a [u8],
}

/// The entries of a page. The iterator ends after damage.
pub(crate) fn entries(mut page: &[u8]) -> impl Iterator<Item = Result<Entry<'_>, Damaged>> {
    std::iter::from_fn(move || {
        if page.is_empty() {
            return None;
        }
        let entry = first(page);
        page = entry.as_ref().map_or(&[], |(_, rest)| rest);
        Some(entry.map(|(entry, _)| entry).ok_or(Damaged))
    })
}

fn first(page: &[u8]) -> Option<(Entry<'_>, &[u8])> {
    let (length, rest) = page.split_first_chunk()?;
    let (value, begin) = rest.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
    let (count, rest) = begin.split_first_chunk()?;
    let (postings, rest) = match u16::from_le_bytes(*count) {
        0 => {
            let (length, rest) = rest.split_first_chunk()?;
            let (bytes, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
            (Postings::Many(bytes), rest)
        }
        count => {
            let (list, rest) = rest.split_at_checked(2 * usize::from(count))?;
            (Postings::Few(list.as_chunks().0), rest)
        }
    };
    let written = begin.get(..begin.len() - rest.len())?;
    Some((
        Entry {
            value,
            postings,
            written,
        },
        rest,
    ))
}

/// A page that is being changed. What is not changed stays as it was written.
#[derive(Debug, Default)]
pub(crate) struct Page<'a> {
    entries: BTreeMap<Cow<'a, [u8]>, Cow<'a, [u8]>>,
}

impl<'a> Page<'a> {
    pub(crate) fn read(bytes: &'a [u8]) -> Result<Self, Damaged> {
        let entries = entries(bytes)
            .map(|entry| entry.map(|e| (Cow::Borrowed(e.value), Cow::Borrowed(e.written))))
            .collect::<Result<_, _>>()?;
        Ok(Self { entries })
    }

    /// Puts ordinals, all of them in `block`, under a value or takes them away. A later change of
    /// the same ordinal wins. Gives those that came (`true`) and went, in the same order.
    pub(crate) fn change(
        &mut self,
        value: &'a [u8],
        block: u16,
        changes: &[(u32, bool)],
    ) -> Result<Vec<(u32, bool)>, Damaged> {
        let mut ordinals = match self.entries.get(value) {
            None => RoaringBitmap::new(),
            Some(written) => {
                let page = [&[0, 0], &written[..]].concat();
                first(&page).ok_or(Damaged)?.0.postings.ordinals(block)?
            }
        };
        let mut changed = Vec::with_capacity(changes.len());
        for (ordinal, there) in changes {
            let moved = if *there {
                ordinals.insert(*ordinal)
            } else {
                ordinals.remove(*ordinal)
            };
            if moved {
                changed.push((*ordinal, *there));
            }
        }
        if ordinals.is_empty() {
            self.entries.remove(value);
        } else {
            let written = Cow::Owned(write(ordinals));
            self.entries.insert(Cow::Borrowed(value), written);
        }
        Ok(changed)
    }

    /// The first values and the bytes of the pages that this one becomes: none when it is empty,
    /// several when it is too large.
    pub(crate) fn into_pages(self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let size =
            |(value, written): (&Cow<'_, [u8]>, &Cow<'_, [u8]>)| 2 + value.len() + written.len();
        let whole: usize = self.entries.iter().map(size).sum();
        let most = if whole > PAGE_BYTES {
            SPLIT_BYTES
        } else {
            PAGE_BYTES
        };
        let mut pages: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        for entry in &self.entries {
            match pages.last_mut() {
                Some((_, page)) if page.len() + size(entry) <= most => append(page, entry),
                _ => {
                    let mut page = Vec::with_capacity(whole.min(PAGE_BYTES));
                    append(&mut page, entry);
                    pages.push((entry.0.to_vec(), page));
                }
            }
        }
        pages
    }
}

fn append(page: &mut Vec<u8>, (value, written): (&Cow<'_, [u8]>, &Cow<'_, [u8]>)) {
    page.extend((value.len() as u16).to_le_bytes());
    page.extend_from_slice(value);
    page.extend_from_slice(written);
}

fn write(mut ordinals: RoaringBitmap) -> Vec<u8> {
    let mut out = Vec::new();
    if ordinals.len() <= FEW {
        out.extend((ordinals.len() as u16).to_le_bytes());
        out.extend(ordinals.iter().flat_map(|o| (o as u16).to_le_bytes()));
    } else {
        ordinals.optimize();
        out.extend([0, 0]);
        out.extend((ordinals.serialized_size() as u32).to_le_bytes());
        let written = ordinals.serialize_into(&mut out);
        written.expect("a bitmap writes to memory");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: u16 = 3;

    fn read(page: &[u8]) -> Vec<(Vec<u8>, RoaringBitmap)> {
        let entries = entries(page).map(|entry| {
            let entry = entry.expect("reads");
            let ordinals = entry.postings.ordinals(BLOCK).expect("reads");
            (entry.value.to_vec(), ordinals)
        });
        entries.collect()
    }

    #[test]
    fn changes_add_and_remove_and_a_page_splits_where_it_is_too_large() {
        let base = u32::from(BLOCK) << 16;
        let mut page = Page::default();
        let all: Vec<_> = (0..40_000).map(|i| (base + i, true)).collect();
        page.change(b"many", BLOCK, &all).expect("fine");
        page.change(b"few", BLOCK, &all[..16]).expect("fine");
        page.change(b"gone", BLOCK, &[(base, true), (base, false)])
            .expect("fine");
        let [(first, bytes)] = &page.into_pages()[..] else {
            panic!("runs are short, so it is one page");
        };
        assert_eq!(first, b"few");
        let mut page = Page::read(bytes).expect("reads");
        let every_other: Vec<_> = all.iter().step_by(2).map(|(o, _)| (*o, false)).collect();
        page.change(b"many", BLOCK, &every_other).expect("fine");
        page.change(b"few", BLOCK, &every_other).expect("fine");
        let pages = page.into_pages();
        assert_eq!(pages.len(), 2, "a bitmap of 8 KiB is a page of its own");
        let entries: Vec<_> = pages.iter().flat_map(|(_, page)| read(page)).collect();
        assert_eq!(
            (entries[0].0.as_slice(), entries[0].1.len()),
            (&b"few"[..], 8)
        );
        assert_eq!(
            (entries[1].0.as_slice(), entries[1].1.len()),
            (&b"many"[..], 20_000)
        );
        let mut page = Page::read(&pages[0].1).expect("reads");
        page.change(
            b"few",
            BLOCK,
            &all.iter().map(|(o, _)| (*o, false)).collect::<Vec<_>>(),
        )
        .expect("fine");
        assert!(page.into_pages().is_empty());
    }

    #[test]
    fn a_cut_page_is_noticed() {
        let mut page = Page::default();
        let many: Vec<_> = (0..100).map(|i| (i * 3, true)).collect();
        page.change(b"a", 0, &many[..2]).expect("fine");
        page.change(b"b", 0, &many).expect("fine");
        let bytes = page.into_pages().remove(0).1;
        for end in 1..bytes.len() {
            let whole = entries(&bytes[..end])
                .all(|entry| entry.and_then(|entry| entry.postings.ordinals(0)).is_ok());
            // Entries carry no count, so a cut between two of them is for the digest to notice.
            assert!(!whole || end == 9, "cut after byte {end}");
        }
    }
}
