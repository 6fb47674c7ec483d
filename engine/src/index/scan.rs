//! The exact scan over codes: every row is compared by its codes, and those that could be among
//! the nearest also in full. It finds what [`super::Flat`] finds, and reads a quarter of the memory.

use std::{num::NonZeroUsize, sync::Arc};

use embedding::Embedding;

use super::{
    Index, Live, Neighbor, Row, Rows, SearchParams, TopK,
    codes::{CodedQuery, Codes},
    graph::Lists,
    kernel::{self, Kernel, Task},
};
use crate::Score;

/// Rows with their codes. Rows with equal codes stand together as one node.
#[derive(Debug, Clone)]
pub struct Coded {
    rows: Arc<Rows>,
    /// One for each node.
    codes: Codes,
    /// Rows of each node, ascending.
    members: Lists,
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
        })
    }

    /// The nodes in another order.
    pub(super) fn arranged(&self, order: &[u32]) -> Self {
        let nodes: Vec<&[u32]> = order.chunks(1).collect();
        Self {
            rows: Arc::clone(&self.rows),
            codes: self.codes.arranged(&nodes),
            members: Lists::new(order.iter().map(|node| self.members.list(*node))),
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

    /// Bytes of codes, beside the rows themselves.
    pub(crate) fn bytes(&self) -> usize {
        size_of_val(&self.codes.rows[..])
            + size_of_val(&self.codes.rests[..])
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
            if !live.is(Row(*row)) {
                continue;
            }
            let score = kernel.dot(query.as_slice(), self.rows.row(*row as usize));
            if top.wants(score) {
                top.push(Neighbor {
                    row: Row(*row),
                    score: Score(score),
                });
            }
        }
    }

    /// Whether a row of the node is live.
    #[inline(always)]
    pub(super) fn any_live(&self, node: u32, live: Live<'_>) -> bool {
        self.members.list(node).iter().any(|row| live.is(Row(*row)))
    }

    /// The nearest live rows.
    pub(super) fn scan(&self, query: &Embedding, k: NonZeroUsize, live: Live<'_>) -> Vec<Neighbor> {
        kernel::run(Scan {
            coded: self,
            query,
            coded_query: &self.codes.query(query.as_slice()),
            k: k.get().min(self.rows.len()),
            live,
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

struct Scan<'a> {
    coded: &'a Coded,
    query: &'a Embedding,
    coded_query: &'a CodedQuery,
    k: usize,
    live: Live<'a>,
}

impl Task for Scan<'_> {
    type Output = Vec<Neighbor>;

    #[inline(always)]
    fn run<K: Kernel>(self, kernel: K) -> Vec<Neighbor> {
        let Self {
            coded,
            query,
            coded_query,
            k,
            live,
        } = self;
        let codes = &coded.codes;
        let mut top = TopK::new(k);
        for (node, rest) in (0..).zip(&*codes.rests) {
            let score = coded_query.score(coded_query.product(kernel, codes.row(node)));
            if top.wants(score + coded_query.error(codes, *rest)) {
                coded.compare(kernel, query, node, live, &mut top);
            }
        }
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
mod tests {
    use super::*;
    use crate::index::{Flat, rows::clustered};

    #[test]
    fn rows_with_equal_codes_are_one_node() {
        let rows = clustered(90, 8, 5, 2, 2);
        let coded = Coded::new(Arc::new(rows));
        assert!(coded.members.len() < 90, "some rows come again");
        assert!(coded.members.is_partition(90));
        for node in 0..coded.members.len() as u32 {
            assert!(coded.members.list(node).is_sorted());
        }
    }

    #[test]
    fn the_scan_over_codes_finds_what_the_plain_scan_finds() {
        for (dim, clusters) in [(17, 4), (64, 50), (200, 1000)] {
            let rows = Arc::new(clustered(3000, dim, clusters, 9, 7));
            let (flat, coded) = (Flat::new(Arc::clone(&rows)), Coded::new(Arc::clone(&rows)));
            let queries = clustered(30, dim, clusters, 10, 1);
            let params = SearchParams { ef_search: 1 };
            let odd = |row: Row| row.0 % 2 == 1;
            for i in 0..queries.len() {
                let query = Embedding::new(queries.row(i).to_vec()).expect("rows are unit");
                for k in [1, 10, 400] {
                    let k = NonZeroUsize::new(k).expect("not zero");
                    for live in [Live::all(3000), Live::only(&odd, 1500)] {
                        assert_eq!(
                            coded.search(&query, k, &params, live),
                            flat.search(&query, k, &params, live),
                            "dim {dim}, k {k}"
                        );
                    }
                }
            }
        }
    }
}
