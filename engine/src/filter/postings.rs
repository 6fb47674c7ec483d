//! The indexes of fields: which ordinals have which value. They lie in the store, change in the
//! same batch as the items, and are built again from the items when they do not fit them.
//!
//! ```text
//! f | collection u32 | field u16 | block u16 | first value  ->  page, see `page`
//! ```
//!
//! Keys are big-endian, values are bytes in the order of the values (see `value`). A block is
//! 65,536 ordinals, so that one value of one block is at most one container of a Roaring bitmap.
//! Within a field and block the pages follow each other like the leaves of a B-tree: each holds the
//! values from its first one to that of the next page; the first page holds all before, too. A page
//! is split at 4 KiB, so that a write changes a few KiB per field whatever the number of values,
//! and disappears when it is empty. (Pages are not merged.)
//!
//! What a range costs: every value in it must be read, but values lie side by side. 1,000,000
//! distinct numbers in 16 blocks are some 5,000 pages, not 1,000,000 keys, and each block is
//! gathered in a bitmap of 8 KiB that stays in the first-level cache. A value that many items have
//! is one container per block. So the cost of any condition is bounded by the pages of its field.
//! `examples/filter_costs.rs` measures it.
//!
//! Which pages there are is kept in memory. A writer holds the lock while it reads, changes and
//! applies pages, not while it waits for the disk; a search holds it while it reads them, so that
//! it sees whole batches.
//!
//! Over 400 lines, since what is read, changed, evaluated and checked is one layout: a change of it
//! must meet all four.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    sync::Arc,
};

use roaring::RoaringBitmap;

use super::{
    checked::{Checked, Entries, Part, all_values, has_part, is_within},
    digests::{Digests, salt},
    field::FieldSet,
    page::{self, Damaged, Page, Postings},
    value::{self, PRESENT, WrongValue},
};
use crate::{
    EngineError, Payload,
    catalog::{PAGE_PREFIX_BYTES, digests_key, page_prefix},
    store::{Batch, Store},
};

/// A field and 65,536 ordinals.
type Place = (u16, u16);

/// Ordinals that come (`true`) and go under values, in the order in which they do.
type Moves = BTreeMap<Vec<u8>, Vec<(u32, bool)>>;

/// What writes change: which ordinals come and go under which values.
#[derive(Debug, Default)]
pub(crate) struct Changes(BTreeMap<Place, Moves>);

impl Changes {
    /// Takes up that an item's payload changes. On an error the name of the field comes along.
    pub(crate) fn add<'a>(
        &mut self,
        fields: &'a FieldSet,
        ordinal: u32,
        old: Option<&Payload>,
        new: Option<&Payload>,
    ) -> Result<(), (&'a str, WrongValue)> {
        for (name, field) in &fields.0 {
            let value = |payload: Option<&Payload>| {
                let value = payload.and_then(|payload| payload.get(name));
                value::entries(field.kind, value)
            };
            let new = value(new).map_err(|wrong| (name.as_str(), wrong))?;
            // What does not fit never got in.
            let old = value(old).unwrap_or_default();
            let place = (field.number, (ordinal >> 16) as u16);
            let gone = old.difference(&new).map(|entry| (entry, false));
            // Also what stays: it may not be there yet while the field is being built.
            let there = new
                .iter()
                .filter(|entry| !field.ready || !old.contains(*entry));
            for (entry, there) in gone.chain(there.map(|entry| (entry, true))) {
                let values = self.0.entry(place).or_default();
                let changes = values.entry(entry.clone()).or_default();
                changes.push((ordinal, there));
            }
        }
        Ok(())
    }
}

/// Changed pages, not yet in the store.
#[derive(Debug, Default)]
pub(crate) struct Staged {
    pub(crate) batch: Batch,
    pages: Vec<(Place, Vec<Vec<u8>>)>,
    digests: Digests,
}

/// The indexes of all fields of a collection.
#[derive(Debug)]
pub(crate) struct FieldIndex {
    collection: String,
    number: u32,
    fields: Arc<FieldSet>,
    /// First values of the pages, ascending.
    pages: BTreeMap<Place, Vec<Vec<u8>>>,
    /// What all entries that were put and not taken away add up to.
    digests: Digests,
    /// Whether entries may have been left behind that no item has.
    doubtful: bool,
}

/// What the store holds, as it was found.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) index: FieldIndex,
    /// Of the good fields, by number.
    pub(crate) digests: Digests,
    /// Numbers of fields that must be built again, or are not declared.
    pub(crate) damaged: BTreeSet<u16>,
}

impl FieldIndex {
    /// Reads and checks every page.
    pub(crate) fn open(
        store: &dyn Store,
        collection: String,
        number: u32,
        fields: Arc<FieldSet>,
    ) -> Result<Found, EngineError> {
        let declared: BTreeSet<u16> = fields.0.values().map(|field| field.number).collect();
        let mut pages: BTreeMap<Place, Vec<Vec<u8>>> = BTreeMap::new();
        let (mut digests, mut damaged) = (Digests::default(), BTreeSet::new());
        let mut before = (None, Vec::new());
        for entry in store.scan(&page_prefix(number)) {
            let (key, page) = entry?;
            let Some((place, first)) = place_of(&key) else {
                continue;
            };
            if before.0 != Some(place) {
                before = (Some(place), Vec::new());
            } else if before.1.as_slice() >= first {
                damaged.insert(place.0);
            }
            let firsts = pages.entry(place).or_default();
            // The first page is for all before it, too.
            let least = if firsts.is_empty() { &[] } else { first };
            let good = digest_page(&page, place, least, &mut digests, &mut before.1);
            if good.is_err() || !declared.contains(&place.0) {
                damaged.insert(place.0);
            }
            firsts.push(first.to_vec());
        }
        let index = Self {
            collection,
            number,
            fields,
            pages,
            digests: Digests::default(),
            doubtful: false,
        };
        Ok(Found {
            index,
            digests,
            damaged,
        })
    }

    /// The fields that are indexed, ready or not.
    pub(crate) fn fields(&self) -> &Arc<FieldSet> {
        &self.fields
    }

    /// Takes note of what the items' entries add up to.
    pub(crate) fn expect(&mut self, digests: Digests) {
        self.digests = digests;
    }

    /// What the items' entries add up to.
    pub(crate) fn digests(&self) -> &Digests {
        &self.digests
    }

    /// Has the next open build all fields again, unless somebody is sure before: entries may be
    /// left that no item has, or not be there yet.
    pub(crate) fn doubt(&mut self) {
        self.doubtful = true;
    }

    /// The entries are those of the items.
    pub(crate) fn be_sure(&mut self) {
        self.doubtful = false;
    }

    /// Adds to a batch what the indexes add up to after it.
    pub(crate) fn write_digests(&self, batch: &mut Batch) {
        self.write(&self.digests, batch);
    }

    fn write(&self, digests: &Digests, batch: &mut Batch) {
        if self.doubtful {
            batch.remove(digests_key(self.number));
        } else {
            digests.store(batch, self.number);
        }
    }

    pub(crate) fn set_fields(&mut self, fields: Arc<FieldSet>) {
        self.fields = fields;
    }

    /// Reads and changes the pages of a write; nothing is stored yet.
    pub(crate) fn stage(
        &self,
        store: &dyn Store,
        changes: &Changes,
    ) -> Result<Staged, EngineError> {
        let mut staged = Staged {
            digests: self.digests.clone(),
            ..Staged::default()
        };
        for (place, values) in &changes.0 {
            let none = Vec::new();
            let firsts = self.pages.get(place).unwrap_or(&none);
            let mut by_page: BTreeMap<usize, Vec<_>> = BTreeMap::new();
            for change in values {
                by_page
                    .entry(page_of(firsts, change.0))
                    .or_default()
                    .push(change);
            }
            let mut after = Vec::with_capacity(firsts.len() + 1);
            let mut kept = 0;
            for (i, changes) in by_page {
                after.extend_from_slice(&firsts[kept..i]);
                kept = firsts.len().min(i + 1);
                let old_key = firsts.get(i).map(|first| self.key(*place, first));
                let old = match &old_key {
                    None => Vec::new(),
                    Some(key) => store.get(key)?.ok_or_else(|| self.damaged(place.0))?,
                };
                let damaged = |_: Damaged| self.damaged(place.0);
                let mut page = Page::read(&old).map_err(damaged)?;
                for (value, changes) in changes {
                    let salt = salt(value);
                    let changed = page.change(value, place.1, changes).map_err(damaged)?;
                    for (ordinal, there) in changed {
                        if there {
                            staged.digests.add(place.0, salt, ordinal);
                        } else {
                            staged.digests.subtract(place.0, salt, ordinal);
                        }
                    }
                }
                let mut pages = page.into_pages();
                if let Some((first, _)) = pages.first_mut() {
                    // The first page is for all before the second, so it is named so.
                    *first = if i == 0 {
                        Vec::new()
                    } else {
                        firsts[i].clone()
                    };
                }
                if let Some(key) = old_key {
                    staged.batch.remove(key);
                }
                for (first, page) in pages {
                    staged.batch.put(self.key(*place, &first), page);
                    after.push(first);
                }
            }
            after.extend_from_slice(&firsts[kept..]);
            staged.pages.push((*place, after));
        }
        if !changes.0.is_empty() || self.doubtful {
            self.write(&staged.digests, &mut staged.batch);
        }
        Ok(staged)
    }

    /// Takes note of pages that are now in the store.
    pub(crate) fn adopt(&mut self, staged: StagedPages) {
        self.digests = staged.digests;
        for (place, firsts) in staged.pages {
            if firsts.is_empty() {
                self.pages.remove(&place);
            } else {
                self.pages.insert(place, firsts);
            }
        }
    }

    /// Forgets a field's pages and gives the writes that remove them.
    pub(crate) fn clear(&mut self, field: u16) -> Batch {
        let mut batch = Batch::default();
        let of_field = |place: &Place| place.0 == field;
        for (place, firsts) in self.pages.iter().filter(|(place, _)| of_field(place)) {
            for first in firsts {
                batch.remove(self.key(*place, first));
            }
        }
        self.pages.retain(|place, _| !of_field(place));
        self.digests.forget(field);
        self.write_digests(&mut batch);
        batch
    }

    /// The ordinals of the items that pass, out of `all`.
    pub(crate) fn passing(
        &self,
        store: &dyn Store,
        filter: &Checked,
        all: &RoaringBitmap,
    ) -> Result<RoaringBitmap, EngineError> {
        let mut out: Option<RoaringBitmap> = None;
        for part in &filter.must {
            let holds = self.holding(store, part, all)?;
            out = Some(out.map_or_else(|| holds.clone(), |out| out & &holds));
            if out.as_ref().is_some_and(RoaringBitmap::is_empty) {
                return Ok(RoaringBitmap::new());
            }
        }
        if !filter.should.is_empty() {
            let mut any = RoaringBitmap::new();
            for part in &filter.should {
                any |= self.holding(store, part, all)?;
            }
            out = Some(out.map_or_else(|| any.clone(), |out| out & &any));
        }
        let mut out = out.unwrap_or_else(|| all.clone());
        for part in &filter.must_not {
            out -= self.holding(store, part, all)?;
        }
        Ok(out)
    }

    fn holding(
        &self,
        store: &dyn Store,
        part: &Part,
        all: &RoaringBitmap,
    ) -> Result<RoaringBitmap, EngineError> {
        match part {
            Part::Filter(filter) => self.passing(store, filter, all),
            Part::Within(looked, ranges) => {
                self.gather(store, looked.field.number, ranges, &|_| true)
            }
            Part::Contains(looked, part) => {
                let has = |entry: &[u8]| has_part(entry, part);
                self.gather(store, looked.field.number, &[all_values()], &has)
            }
            Part::Missing(looked) => {
                let present = (
                    Bound::Included(PRESENT.to_vec()),
                    Bound::Included(PRESENT.to_vec()),
                );
                Ok(all - self.gather(store, looked.field.number, &[present], &|_| true)?)
            }
        }
    }

    /// The ordinals of a field's entries that lie in any of the ranges, which are ascending and
    /// apart, and are to be kept.
    fn gather(
        &self,
        store: &dyn Store,
        field: u16,
        ranges: &[Entries],
        keep: &dyn Fn(&[u8]) -> bool,
    ) -> Result<RoaringBitmap, EngineError> {
        let damaged = |_: Damaged| self.damaged(field);
        let mut out = RoaringBitmap::new();
        for (place, firsts) in self.pages.range((field, 0)..=(field, u16::MAX)) {
            let mut few = Block::default();
            for i in pages_of(firsts, ranges) {
                let page = store.get(&self.key(*place, &firsts[i]))?;
                let page = page.ok_or_else(|| self.damaged(field))?;
                for entry in page::entries(&page) {
                    let entry = entry.map_err(damaged)?;
                    if !is_in_any(ranges, entry.value) || !keep(entry.value) {
                        continue;
                    }
                    match entry.postings {
                        Postings::Few(list) => few.add(list),
                        many @ Postings::Many(_) => {
                            out |= many.ordinals(place.1).map_err(damaged)?;
                        }
                    }
                }
            }
            out |= few.ordinals(place.1);
        }
        Ok(out)
    }

    fn key(&self, (field, block): Place, first: &[u8]) -> Vec<u8> {
        let mut key = page_prefix(self.number);
        key.extend(field.to_be_bytes());
        key.extend(block.to_be_bytes());
        key.extend_from_slice(first);
        key
    }

    fn damaged(&self, field: u16) -> EngineError {
        EngineError::DamagedField {
            collection: self.collection.clone(),
            field: self.fields.name(field).to_owned(),
        }
    }
}

/// What is to be [adopted](FieldIndex::adopt) when the batch has been applied.
#[derive(Debug)]
pub(crate) struct StagedPages {
    pages: Vec<(Place, Vec<Vec<u8>>)>,
    digests: Digests,
}

impl Staged {
    /// The writes, and what to take note of after them.
    pub(crate) fn into_parts(self) -> (Batch, StagedPages) {
        let Self {
            batch,
            pages,
            digests,
        } = self;
        (batch, StagedPages { pages, digests })
    }
}

/// Checks a page, whose values are not below `least` and come after `last`, and adds it up; `last`
/// becomes its last value.
fn digest_page(
    page: &[u8],
    place: Place,
    least: &[u8],
    digests: &mut Digests,
    last: &mut Vec<u8>,
) -> Result<(), Damaged> {
    for entry in page::entries(page) {
        let entry = entry?;
        let ordinals = entry.postings.ordinals(place.1)?;
        let outside = |ordinal: u32| (ordinal >> 16) as u16 != place.1;
        let ends = [ordinals.min(), ordinals.max()];
        let misplaced = entry.value < least || last.as_slice() >= entry.value;
        if misplaced || ends.into_iter().any(|end| end.is_none_or(outside)) {
            return Err(Damaged);
        }
        let salt = salt(entry.value);
        for ordinal in ordinals {
            digests.add(place.0, salt, ordinal);
        }
        *last = entry.value.to_vec();
    }
    Ok(())
}

fn place_of(key: &[u8]) -> Option<(Place, &[u8])> {
    let (field, rest) = key.get(PAGE_PREFIX_BYTES..)?.split_first_chunk()?;
    let (block, first) = rest.split_first_chunk()?;
    Some((
        (u16::from_be_bytes(*field), u16::from_be_bytes(*block)),
        first,
    ))
}

/// The page that a value belongs to.
fn page_of(firsts: &[Vec<u8>], value: &[u8]) -> usize {
    let after = firsts.partition_point(|first| first.as_slice() <= value);
    after.saturating_sub(1)
}

/// The pages that may have entries in any of the ranges, each once.
fn pages_of(firsts: &[Vec<u8>], ranges: &[Entries]) -> Vec<usize> {
    let mut pages = Vec::new();
    for (from, to) in ranges {
        let begin = match from {
            Bound::Included(from) | Bound::Excluded(from) => page_of(firsts, from),
            Bound::Unbounded => 0,
        };
        let end = match to {
            Bound::Included(to) | Bound::Excluded(to) => page_of(firsts, to) + 1,
            Bound::Unbounded => firsts.len(),
        };
        let begin = begin.max(pages.last().map_or(0, |last| last + 1));
        pages.extend(begin..end.min(firsts.len()));
    }
    pages
}

fn is_in_any(ranges: &[Entries], value: &[u8]) -> bool {
    // The one range that may hold it is the first that does not end before it.
    let i = ranges.partition_point(|(_, to)| super::checked::is_beyond(to, value));
    ranges.get(i).is_some_and(|range| is_within(range, value))
}

/// Which ordinals of a block there are, gathered one by one.
#[derive(Default)]
struct Block(Option<Box<[u64; 1024]>>);

impl Block {
    fn add(&mut self, list: &[[u8; 2]]) {
        let words = self.0.get_or_insert_with(|| Box::new([0; 1024]));
        for low in list {
            let low = u16::from_le_bytes(*low);
            words[usize::from(low >> 6)] |= 1 << (low & 63);
        }
    }

    fn ordinals(self, block: u16) -> RoaringBitmap {
        let Some(words) = self.0 else {
            return RoaringBitmap::new();
        };
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        RoaringBitmap::from_lsb0_bytes(u32::from(block) << 16, &bytes)
    }
}
