//! The nearest among given rows, which lie anywhere.

use std::{num::NonZeroUsize, sync::Arc};

use embedding::Embedding;

use super::{Coded, CodedQuery, Kernel, Neighbor, Task, TopK, kernel};

/// Rows of codes that are on their way to the cache while one is compared.
const AHEAD: usize = 6;

/// Where the rows are among the nodes.
#[derive(Debug)]
pub(super) struct Places {
    /// Node of each row, `[rows]`.
    nodes: Vec<u32>,
    /// Length of the longest rest of any node.
    longest_rest: f32,
}

impl Coded {
    /// The nearest of these rows, which it finds as a plain scan of them would. Each row comes at
    /// most once.
    ///
    /// # Panics
    /// When there is no such row.
    pub fn search_rows(&self, query: &Embedding, k: NonZeroUsize, rows: &[u32]) -> Vec<Neighbor> {
        kernel::run(Given {
            coded: self,
            places: self.places(),
            query,
            coded_query: &self.codes.query(query.as_slice()),
            k: k.get().min(rows.len()),
            rows,
        })
    }

    fn places(&self) -> &Places {
        self.places.get_or_init(|| {
            let mut nodes = vec![0; self.rows.len()];
            for node in 0..self.members.len() as u32 {
                for row in self.members.list(node) {
                    nodes[*row as usize] = node;
                }
            }
            let longest_rest = self.codes.rests.iter().copied().fold(0.0, f32::max);
            Arc::new(Places {
                nodes,
                longest_rest,
            })
        })
    }
}

struct Given<'a> {
    coded: &'a Coded,
    places: &'a Places,
    query: &'a Embedding,
    coded_query: &'a CodedQuery,
    k: usize,
    rows: &'a [u32],
}

impl Task for Given<'_> {
    type Output = Vec<Neighbor>;

    #[inline(always)]
    fn run<K: Kernel>(self, kernel: K) -> Vec<Neighbor> {
        let Self {
            coded,
            places,
            query,
            coded_query,
            k,
            rows,
        } = self;
        let codes = &coded.codes;
        let node = |row: u32| places.nodes[row as usize];
        // The rests lie elsewhere than the codes: most rows are too far for any of them to matter.
        let any_error = coded_query.error(codes, places.longest_rest);
        let mut top = TopK::new(k);
        for row in rows.iter().take(AHEAD) {
            kernel.prefetch(codes.row(node(*row)));
        }
        for (i, row) in rows.iter().enumerate() {
            if let Some(ahead) = rows.get(i + AHEAD) {
                kernel.prefetch(codes.row(node(*ahead)));
            }
            let node = node(*row);
            let score = coded_query.score(coded_query.product(kernel, codes.row(node)));
            if top.wants(score + any_error)
                && top.wants(score + coded_query.error(codes, codes.rests[node as usize]))
            {
                coded.compare_row(kernel, query, *row, &mut top);
            }
        }
        top.into_sorted()
    }
}
