//! The nearest rows to several queries, for which the codes are read once.

use std::num::NonZeroUsize;

use embedding::Embedding;

use super::{Asked, Coded, CodedQuery, Kernel, Live, Neighbor, Task, TopK, kernel};

/// Queries that share a pass. More would push the codes they share out of the nearest cache.
const QUERIES: usize = 8;
/// Codes that all queries of a pass are compared with before any goes on: half of a nearest cache.
const BLOCK_BYTES: usize = 16 << 10;

impl Coded {
    /// For each query what [`super::Index::search`] finds, in the order of the queries.
    pub fn search_batch(
        &self,
        queries: &[&Embedding],
        k: NonZeroUsize,
        live: Live<'_>,
    ) -> Vec<Vec<Neighbor>> {
        let passes = queries.chunks(QUERIES).map(|queries| {
            kernel::run(Pass {
                coded: self,
                queries,
                k: k.get().min(self.rows.len()),
                live,
            })
        });
        passes.flatten().collect()
    }
}

struct Pass<'a> {
    coded: &'a Coded,
    queries: &'a [&'a Embedding],
    k: usize,
    live: Live<'a>,
}

impl Task for Pass<'_> {
    type Output = Vec<Vec<Neighbor>>;

    #[inline(always)]
    fn run<K: Kernel>(self, kernel: K) -> Self::Output {
        let Self {
            coded,
            queries,
            k,
            live,
        } = self;
        let codes = &coded.codes;
        let coded_queries: Vec<CodedQuery> =
            queries.iter().map(|q| codes.query(q.as_slice())).collect();
        let mut tops: Vec<TopK> = queries.iter().map(|_| TopK::new(k)).collect();
        let (nodes, block) = (codes.len(), (BLOCK_BYTES / codes.rows.stride()).max(1));
        for start in (0..nodes).step_by(block) {
            for (i, top) in tops.iter_mut().enumerate() {
                let asked = Asked {
                    query: queries[i],
                    coded: &coded_queries[i],
                    live,
                };
                coded.compare_nodes(kernel, asked, start..nodes.min(start + block), top);
            }
        }
        tops.into_iter().map(TopK::into_sorted).collect()
    }
}
