//! Finding the nearest rows. An index is immutable once built and derived from the store.
//!
//! Three implementations: [`Flat`] compares with every row and is the oracle; [`Coded`] does the
//! same on one byte per number; [`Hnsw`] walks a graph over the same bytes.

// A search is one function for each instruction set: see `kernel`.
#![allow(clippy::inline_always)]

mod blocks;
mod build;
mod code_rows;
mod codes;
mod flat;
mod graph;
mod hnsw;
mod kernel;
mod rows;
mod scan;
mod short;
mod top;
mod walk;

use std::{cmp::Ordering, num::NonZeroUsize, sync::Arc};

use embedding::Embedding;

pub use flat::Flat;
pub use hnsw::{Hnsw, Stopped};
pub use kernel::kernel_name;
pub use rows::Rows;
pub use scan::Coded;

pub(crate) use blocks::{BlockHash, Blocks, Source, block_bytes};
pub(crate) use code_rows::CodeRows;
pub(crate) use codes::Codes;
pub(crate) use graph::{Graph, Layer, Lists};
pub(crate) use hnsw::{OFTEN_LIVE, Reach, Walked};
pub(crate) use kernel::{Kernel, Task, dot, run, sum_of_products};
#[cfg(test)]
pub(crate) use rows::{along_few, between, clustered};
pub(crate) use short::ShortCodes;
pub(crate) use top::TopK;

use crate::Score;

/// Position of an embedding inside an index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Row(pub u32);

/// A found row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Neighbor {
    /// Which row.
    pub row: Row,
    /// Its cosine with the query.
    pub score: Score,
}

impl Neighbor {
    /// Best first: by score, ties by row.
    pub fn rank(&self, other: &Self) -> Ordering {
        other
            .score
            .0
            .total_cmp(&self.score.0)
            .then(self.row.cmp(&other.row))
    }
}

/// How hard to search.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SearchParams {
    /// Candidates that an approximate index keeps.
    pub ef_search: usize,
}

/// Which rows of an index may be found, and how many these are.
#[derive(Clone, Copy)]
pub struct Live<'a> {
    is: Option<&'a dyn Fn(Row) -> bool>,
    count: usize,
}

impl<'a> Live<'a> {
    /// All of an index's rows.
    pub fn all(rows: usize) -> Self {
        Self {
            is: None,
            count: rows,
        }
    }

    /// Those for which `is` holds. `count` is their number, or more: an index that finds fewer
    /// than it was led to expect looks again at every row.
    pub fn only(is: &'a dyn Fn(Row) -> bool, count: usize) -> Self {
        Self {
            is: Some(is),
            count,
        }
    }

    /// Whether the row may be found.
    #[inline(always)]
    pub fn is(&self, row: Row) -> bool {
        self.is.is_none_or(|is| is(row))
    }

    /// Number of rows that may be found.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Whether no row is left out.
    pub fn are_all(&self) -> bool {
        self.is.is_none()
    }
}

/// Nearest rows by cosine. Immutable once built.
///
/// Contract, run by [`check_contract`]: only live rows; each row once; best first, ties by row;
/// as many as there are live rows, at most `k`; the score is the exact cosine in f32; identical
/// rows are all found.
pub trait Index: Send + Sync {
    /// Number of rows, dead ones too.
    fn len(&self) -> usize;

    /// Whether there are no rows.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The `k` live rows nearest to `query`, whose dim must be that of the rows.
    fn search(
        &self,
        query: &Embedding,
        k: NonZeroUsize,
        params: &SearchParams,
        live: Live<'_>,
    ) -> Vec<Neighbor>;
}

/// Runs the contract of [`Index`] on what `make` builds.
///
/// # Panics
/// When the index breaks its contract, with the clause that it broke.
pub fn check_contract(make: &dyn Fn(Arc<Rows>) -> Box<dyn Index>) {
    let params = SearchParams { ef_search: 32 };
    let count = |n: usize| NonZeroUsize::new(n).expect("counts are not zero here");
    let embedding = |row: &[f32]| Embedding::new(row.to_vec()).expect("rows are unit");

    let none = make(Arc::new(Rows::new(3)));
    let query = Embedding::normalized(vec![1.0, 2.0, 3.0]).expect("has a direction");
    assert!(none.is_empty(), "an index of no rows is empty");
    assert!(
        none.search(&query, count(5), &params, Live::all(0))
            .is_empty(),
        "and finds nothing"
    );

    // Every third row occurs 20 times in all, and one row is alone in its direction.
    let rows = Arc::new(rows::clustered(1500, 24, 10, 7, 3));
    let index = make(rows.clone());
    assert_eq!(
        index.len(),
        rows.len(),
        "an index has as many rows as it was given"
    );
    let lives: [&dyn Fn(Row) -> bool; 4] = [
        &|_| true,
        &|row| row.0 % 2 == 0,
        &|row| row.0 % 100 == 7,
        &|_| false,
    ];
    for live in lives {
        let alive = (0..rows.len()).filter(|row| live(Row(*row as u32))).count();
        for (at, k) in [
            (0, 1),
            (700, 10),
            (1499, 100),
            (3, 1499),
            (9, 1500),
            (11, 5000),
        ] {
            let query = embedding(rows.row(at));
            let found = index.search(&query, count(k), &params, Live::only(live, alive));
            assert_eq!(
                found.len(),
                k.min(alive),
                "k = {k} of {alive} live rows are found"
            );
            assert!(
                found.iter().all(|n| live(n.row)),
                "only live rows are found"
            );
            let sorted = found.is_sorted_by(|a, b| a.rank(b) == Ordering::Less);
            assert!(sorted, "best first, ties by row, no row twice");
            for n in &found {
                let cosine = query.cosine(&embedding(rows.row(n.row.0 as usize)));
                assert!((cosine - n.score.0).abs() < 1e-5, "the score is the cosine");
            }
        }
    }

    let mut same = Rows::new(8);
    let direction = |i: usize| {
        let mut row = vec![0.0; 8];
        row[i] = 1.0;
        row
    };
    (0..500).for_each(|i| same.push(&direction(usize::from(i == 250))));
    let index = make(Arc::new(same));
    let found = index.search(
        &embedding(&direction(0)),
        count(499),
        &params,
        Live::all(500),
    );
    assert!(
        found.iter().all(|n| (n.score.0 - 1.0).abs() < 1e-6),
        "identical rows are all found"
    );
    let found = index.search(&embedding(&direction(1)), count(1), &params, Live::all(500));
    assert_eq!(
        found[0].row,
        Row(250),
        "a row among many identical ones is found"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flat_scan_keeps_the_contract() {
        check_contract(&|rows| Box::new(Flat::new(rows)));
    }

    #[test]
    fn the_scan_over_codes_keeps_the_contract() {
        check_contract(&|rows| Box::new(Coded::new(rows)));
    }

    #[test]
    fn the_graph_keeps_the_contract() {
        for builder in [crate::GraphBuilder::Own, crate::GraphBuilder::HnswRs] {
            let params = crate::HnswParams {
                m: 8,
                ef_construction: 64,
                ef_search: 32,
                builder,
            };
            check_contract(&|rows| {
                Box::new(Hnsw::build(rows, &params, 1, &|| false).expect("nobody stops it"))
            });
        }
    }

    #[test]
    fn a_flat_search_for_k_is_a_prefix_of_the_search_for_one_more() {
        let rows = Arc::new(rows::clustered(300, 8, 4, 2, 5));
        let flat = Flat::new(rows.clone());
        let query = Embedding::new(rows.row(10).to_vec()).expect("rows are unit");
        let search = |k| {
            let k = NonZeroUsize::new(k).expect("not zero");
            flat.search(&query, k, &SearchParams { ef_search: 1 }, Live::all(300))
        };
        for k in 1..=300 {
            assert_eq!(search(k), search(k + 1)[..k], "k = {k}");
        }
    }

    #[test]
    fn the_graph_finds_95_of_100_at_its_defaults_on_20000_clustered_rows() {
        let rows = Arc::new(rows::clustered(20_000, 128, 200, 11, 1));
        let queries = rows::clustered(200, 128, 200, 11, 1);
        let params = crate::HnswParams::default();
        let graph = Hnsw::build(rows.clone(), &params, 1, &|| false).expect("nobody stops it");
        let flat = Flat::new(rows);
        let search = SearchParams {
            ef_search: params.ef_search,
        };
        let k = NonZeroUsize::new(10).expect("not zero");
        let mut found = 0;
        for i in 0..queries.len() {
            let query = rows::between(queries.row(i), queries.row((i * 7 + 1) % queries.len()));
            let truth = flat.search(&query, k, &search, Live::all(20_000));
            let answer = graph.search(&query, k, &search, Live::all(20_000));
            found += answer
                .iter()
                .filter(|n| truth.iter().any(|t| t.row == n.row))
                .count();
        }
        let recall = found as f64 / (10 * queries.len()) as f64;
        assert!(recall >= 0.95, "recall@10 is {recall}");
    }
}
