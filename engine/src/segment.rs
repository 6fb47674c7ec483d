//! The sealed part of a shard: rows that never change, and an index over them.

mod by_ordinal;

use std::sync::{Arc, OnceLock};

use crate::{
    budget::{Budget, Lease},
    column::Column,
    config::EngineConfig,
    index::{Coded, Hnsw, Index, Rows, Stopped},
    record::Stamp,
};
use by_ordinal::ByOrdinal;

/// Seed of the order in which rows are linked; any would do.
const BUILD_SEED: u64 = 1;

/// Ids in ascending order, packed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ids {
    /// Id `i` is `bytes[offsets[i]..offsets[i + 1]]`.
    offsets: Column<u64>,
    bytes: Column<u8>,
}

impl Ids {
    pub(crate) fn new() -> Self {
        Self {
            offsets: vec![0].into(),
            bytes: Column::default(),
        }
    }

    /// Takes packed ids; `None` when they are not UTF-8 or not in ascending order.
    pub(crate) fn from_parts(offsets: Column<u64>, bytes: Column<u8>) -> Option<Self> {
        let ends_fit = offsets.first() == Some(&0) && offsets.last() == Some(&(bytes.len() as u64));
        if !ends_fit || !offsets.is_sorted() {
            return None;
        }
        let ids = Self { offsets, bytes };
        let valid = (0..ids.len()).all(|i| std::str::from_utf8(ids.id_bytes(i)).is_ok());
        let ascending = (1..ids.len()).all(|i| ids.id_bytes(i - 1) < ids.id_bytes(i));
        (valid && ascending).then_some(ids)
    }

    pub(crate) fn parts(&self) -> (&[u64], &[u8]) {
        (&self.offsets, &self.bytes)
    }

    /// Adds an id that comes after all others.
    pub(crate) fn push(&mut self, id: &str) {
        self.bytes.to_mut().extend_from_slice(id.as_bytes());
        let end = self.bytes.len() as u64;
        self.offsets.to_mut().push(end);
    }

    pub(crate) fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    pub(crate) fn get(&self, i: usize) -> &str {
        std::str::from_utf8(self.id_bytes(i)).expect("ids were strings when they came in")
    }

    fn id_bytes(&self, i: usize) -> &[u8] {
        &self.bytes[self.offsets[i] as usize..self.offsets[i + 1] as usize]
    }

    /// Position of an id.
    pub(crate) fn find(&self, id: &str) -> Option<usize> {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = usize::midpoint(low, high);
            match self.id_bytes(middle).cmp(id.as_bytes()) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Equal => return Some(middle),
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        None
    }
}

/// Rows sorted by id, so that ties by row are ties by id, and an index over them.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) ids: Ids,
    pub(crate) stamps: Column<Stamp>,
    pub(crate) rows: Arc<Rows>,
    coded: Arc<Coded>,
    graph: Option<Hnsw>,
    /// Made when a filter first needs it.
    by_ordinal: OnceLock<ByOrdinal>,
    /// Made when a sample is first taken.
    lowest: OnceLock<Vec<(u64, u32)>>,
    /// For codes and links in memory of their own.
    lease: Option<Lease>,
}

impl Segment {
    /// A segment without rows.
    pub(crate) fn empty(dim: usize) -> Self {
        let coded = Coded::new(Arc::new(Rows::new(dim)));
        Self::new(Ids::new(), Column::default(), Arc::new(coded), None)
    }

    /// Puts a segment together. All parts have one entry per row.
    pub(crate) fn new(
        ids: Ids,
        stamps: Column<Stamp>,
        coded: Arc<Coded>,
        graph: Option<Hnsw>,
    ) -> Self {
        let rows = Arc::clone(coded.rows());
        debug_assert!(ids.len() == rows.len() && stamps.len() == rows.len());
        Self {
            ids,
            stamps,
            rows,
            coded,
            graph,
            by_ordinal: OnceLock::new(),
            lowest: OnceLock::new(),
            lease: None,
        }
    }

    /// Builds the index for these rows: a graph where there are enough of them.
    pub(crate) fn build(
        (ids, stamps, rows): (Ids, Column<Stamp>, Rows),
        config: &EngineConfig,
        stop: &dyn Fn() -> bool,
    ) -> Result<Self, Stopped> {
        let rows = Arc::new(rows);
        if rows.len() < config.graph_rows {
            return Ok(Self::new(ids, stamps, Arc::new(Coded::new(rows)), None));
        }
        let graph = Hnsw::build(rows, &config.hnsw, BUILD_SEED, stop)?;
        Ok(Self::new(
            ids,
            stamps,
            Arc::clone(graph.coded()),
            Some(graph),
        ))
    }

    /// Has the codes and links of a mapped graph in memory of their own, if there is room.
    pub(crate) fn settled(mut self, budget: &Arc<Budget>) -> Self {
        let Some(graph) = self.graph.take() else {
            return self;
        };
        self.lease = budget.take(graph.bytes());
        let graph = if self.lease.is_some() {
            graph.settled()
        } else {
            graph
        };
        self.coded = Arc::clone(graph.coded());
        self.graph = Some(graph);
        self
    }

    /// Number of rows.
    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    /// The index, or the exact scan.
    pub(crate) fn index(&self, exact: bool) -> &dyn Index {
        match &self.graph {
            Some(graph) if !exact => graph,
            _ => &*self.coded,
        }
    }

    /// The rows and their codes.
    pub(crate) fn coded(&self) -> &Coded {
        &self.coded
    }

    /// The rows by their items' ordinals.
    pub(crate) fn by_ordinal(&self) -> &ByOrdinal {
        self.by_ordinal.get_or_init(|| ByOrdinal::new(&self.stamps))
    }

    /// The `n` rows whose ids have the lowest of these hashes, lowest first, ties by id. `n` and
    /// `hash` are always the same.
    pub(crate) fn lowest(&self, n: usize, hash: fn(&str) -> u64) -> &[(u64, u32)] {
        self.lowest.get_or_init(|| {
            let rows = 0..self.len() as u32;
            let mut all: Vec<(u64, u32)> = rows
                .map(|row| (hash(self.ids.get(row as usize)), row))
                .collect();
            if all.len() > n {
                all.select_nth_unstable(n);
                all.truncate(n);
                all.shrink_to_fit();
            }
            all.sort_unstable();
            all
        })
    }

    /// Numbers of each node that a walk compares.
    pub(crate) fn walked(&self) -> usize {
        let short = self.graph.as_ref().and_then(Hnsw::short);
        short.map_or(self.rows.dim(), |short| short.rows().stride())
    }

    /// The graph, where there is one.
    pub(crate) fn graph(&self) -> Option<&Hnsw> {
        self.graph.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_ids_are_found_by_name_and_checked_when_they_come_from_a_file() {
        let mut ids = Ids::new();
        let names = ["a", "a/b", "b", "\u{e9}"];
        for name in names {
            ids.push(name);
        }
        for (i, name) in names.iter().enumerate() {
            assert_eq!((ids.find(name), ids.get(i)), (Some(i), *name));
        }
        assert_eq!(
            (ids.find(""), ids.find("aa"), ids.find("z")),
            (None, None, None)
        );
        let from_parts = |offsets: &[u64], bytes: &[u8]| {
            Ids::from_parts(offsets.to_vec().into(), bytes.to_vec().into())
        };
        let (offsets, bytes) = ids.parts();
        assert_eq!(
            Ids::from_parts(offsets.to_vec().into(), bytes.to_vec().into()),
            Some(ids)
        );
        assert_eq!(from_parts(&[0, 1, 2], b"ba"), None);
        assert_eq!(from_parts(&[0, 1, 2], b"aa"), None);
        assert_eq!(from_parts(&[0, 1], &[0xff]), None);
        assert_eq!(from_parts(&[0, 2, 1], b"a"), None);
        assert_eq!(from_parts(&[], &[]), None);
    }
}
