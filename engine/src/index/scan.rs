//! The exact scan over codes: every row is compared by its codes, and those that could be among
//! the nearest also in full. It finds what [`super::Flat`] finds, and reads a quarter of the memory.
//!
//! [`given`] does the same for a few given rows, [`batch`] for several queries at once.

mod batch;
mod given;

use std::{
    num::NonZeroUsize,
    ops::Range,
    sync::{Arc, OnceLock},
};

use embedding::Embedding;

use super::{
    Index, Live, Neighbor, Row, Rows, SearchParams, TopK,
    codes::{CodedQuery, Codes},
    graph::Lists,
    kernel::{self, Kernel, Task},
};
use crate::Score;
use given::Places;

/// Rows with their codes. Rows with equal codes stand together as one node.
#[derive(Debug, Clone)]
pub struct Coded {
    rows: Arc<Rows>,
    /// One for each node.
    codes: Codes,
    /// Rows of each node, ascending.
    members: Lists,
    /// Made when rows are first given.
    places: OnceLock<Arc<Places>>,
}

impl Coded {
    /// Codes rows.
    pub fn new(rows: Arc<Rows>) -> Self {
        let codes = Codes::new(&rows);
        let groups = equal_codes(&codes);
        let members = Lists::new(groups.iter().map(Vec::as_slice));
        let groups: Vec<&[u32]> = (0..members.len() as u32).map(|i| members.list(i)).collect();
        let codes = codes.arranged(&groups);
        Self {
            rows,
            codes,
            members,
            places: OnceLock::new(),
        }
    }

    /// Rows whose codes were made before; `None` when they do not fit the rows.
    pub(crate) fn from_parts(rows: Arc<Rows>, codes: Codes, members: Lists) -> Option<Self> {
        let fits = codes.is_sound()
            && codes.dim == rows.dim()
            && members.is_partition(rows.len())
            && codes.len() == members.len();
        fits.then_some(Self {
            rows,
            codes,
            members,
            places: OnceLock::new(),
        })
    }

    /// The nodes in another order.
    pub(super) fn arranged(&self, order: &[u32]) -> Self {
        let nodes: Vec<&[u32]> = order.chunks(1).collect();
        Self {
            rows: Arc::clone(&self.rows),
            codes: self.codes.arranged(&nodes),
            members: Lists::new(order.iter().map(|node| self.members.list(*node))),
            places: OnceLock::new(),
        }
    }

    /// The same with the codes in memory of their own.
    pub(super) fn settled(&self) -> Self {
        let mut settled = self.clone();
        settled.codes.rows = self.codes.rows.settled();
        settled
    }

    pub(crate) fn rows(&self) -> &Arc<Rows> {
        &self.rows
    }

    pub(crate) fn codes(&self) -> &Codes {
        &self.codes
    }

    pub(crate) fn members(&self) -> &Lists {
        &self.members
    }

    /// Bytes of codes.
    pub(super) fn code_bytes(&self) -> usize {
        size_of_val(self.codes.rows.data())
    }

    /// Bytes of what is kept of each node beside its codes.
    pub(super) fn list_bytes(&self) -> usize {
        size_of_val(&self.codes.rests[..])
            + size_of_val(&self.members.offsets[..])
            + size_of_val(&self.members.targets[..])
    }

    /// Compares the live rows of a node in full.
    #[inline(always)]
    pub(super) fn compare<K: Kernel>(
        &self,
        kernel: K,
        query: &Embedding,
        node: u32,
        live: Live<'_>,
        top: &mut TopK,
    ) {
        for row in self.members.list(node) {
            if live.is(Row(*row)) {
                self.compare_row(kernel, query, *row, top);
            }
        }
    }

    /// Compares a row in full.
    #[inline(always)]
    fn compare_row<K: Kernel>(&self, kernel: K, query: &Embedding, row: u32, top: &mut TopK) {
        let score = kernel.dot(query.as_slice(), self.rows.row(row as usize));
        if top.wants(score) {
            top.push(Neighbor {
                row: Row(row),
                score: Score(score),
            });
        }
    }

    /// Compares nodes next to each other, those that are near enough in full.
    #[inline(always)]
    fn compare_nodes<K: Kernel>(
        &self,
        kernel: K,
        asked: Asked<'_>,
        nodes: Range<usize>,
        top: &mut TopK,
    ) {
        let Asked { query, coded, live } = asked;
        let rests = &self.codes.rests[nodes.clone()];
        for (node, rest) in (nodes.start as u32..).zip(rests) {
            let score = coded.score(coded.product(kernel, self.codes.row(node)));
            if top.wants(score + coded.error(&self.codes, *rest)) {
                self.compare(kernel, query, node, live, top);
            }
        }
    }

    /// Whether a row of the node is live.
    #[inline(always)]
    pub(super) fn any_live(&self, node: u32, live: Live<'_>) -> bool {
        self.members.list(node).iter().any(|row| live.is(Row(*row)))
    }

    /// The nearest live rows.
    pub(crate) fn scan(&self, query: &Embedding, k: NonZeroUsize, live: Live<'_>) -> Vec<Neighbor> {
        kernel::run(Scan {
            coded: self,
            asked: Asked {
                query,
                coded: &self.codes.query(query.as_slice()),
                live,
            },
            k: k.get().min(self.rows.len()),
        })
    }
}

impl Index for Coded {
    fn len(&self) -> usize {
        self.rows.len()
    }

    fn search(
        &self,
        query: &Embedding,
        k: NonZeroUsize,
        _: &SearchParams,
        live: Live<'_>,
    ) -> Vec<Neighbor> {
        self.scan(query, k, live)
    }
}

/// A query, and the rows that it may find.
#[derive(Clone, Copy)]
struct Asked<'a> {
    query: &'a Embedding,
    coded: &'a CodedQuery,
    live: Live<'a>,
}

struct Scan<'a> {
    coded: &'a Coded,
    asked: Asked<'a>,
    k: usize,
}

impl Task for Scan<'_> {
    type Output = Vec<Neighbor>;

    #[inline(always)]
    fn run<K: Kernel>(self, kernel: K) -> Vec<Neighbor> {
        let mut top = TopK::new(self.k);
        let all = 0..self.coded.codes.len();
        self.coded.compare_nodes(kernel, self.asked, all, &mut top);
        top.into_sorted()
    }
}

/// Groups of rows with equal codes, ordered by their first row.
fn equal_codes(codes: &Codes) -> Vec<Vec<u32>> {
    let mut order: Vec<u32> = (0..codes.len() as u32).collect();
    order.sort_unstable_by(|a, b| codes.row(*a).cmp(codes.row(*b)).then(a.cmp(b)));
    let equal = |a: &u32, b: &u32| codes.row(*a) == codes.row(*b);
    let mut groups: Vec<Vec<u32>> = order.chunk_by(equal).map(<[u32]>::to_vec).collect();
    groups.sort_unstable_by_key(|group| group[0]);
    groups
}

#[cfg(test)]
mod tests;
