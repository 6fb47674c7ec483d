//! Approximate search by walking a graph over codes (Malkov and Yashunin 2018, algorithm 5).
//!
//! Over 400 lines only with its tests, which are about what is private here.

use std::{num::NonZeroUsize, sync::Arc};

use embedding::Embedding;

use super::{
    Coded, Index, Live, Neighbor, Rows, SearchParams, TopK,
    build::build,
    code_rows::CodeRows,
    codes::CodedQuery,
    graph::Graph,
    kernel::{self, Kernel, Task},
    short::ShortCodes,
    walk::{Candidate, Distance, Scratch, descend, walk, walk_live},
};
use crate::HnswParams;

/// A walk stops and scans instead once it has looked at this part of all nodes: a scan reads
/// memory in order and is about this much cheaper per row.
const SCAN_PART: usize = 3;
/// Where at least one in so many rows is live, a walk over all of them, and as many more of them, is
/// cheaper than one that asks for each. With fewer, most of its time goes into keeping the many
/// candidates in order.
pub(crate) const OFTEN_LIVE: usize = 16;

/// Candidates that are compared in full at least: all whose score by codes, and so many times its
/// usual error, could still count.
const MARGIN: f32 = 3.0;
/// Rows that are on their way to the cache while one is compared in full.
const NEAR_AHEAD: usize = 2;

/// A graph over rows.
#[derive(Debug, Clone)]
pub struct Hnsw {
    coded: Arc<Coded>,
    /// What walks compare, where the rows can be told apart by little.
    short: Option<ShortCodes>,
    graph: Graph,
}

/// The build was stopped before it was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stopped;

/// What a walk found.
#[derive(Debug, Default)]
pub(crate) struct Walked {
    /// Best first.
    pub(crate) neighbors: Vec<Neighbor>,
    /// How many nodes were compared with the query.
    pub(crate) distances: usize,
}

/// How far a walk goes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reach {
    /// Neighbors wanted.
    pub(crate) k: usize,
    /// Live candidates kept.
    pub(crate) ef: usize,
    /// Nodes looked at before the walk gives up and finds nothing.
    pub(crate) nodes: usize,
}

impl Hnsw {
    /// Builds the graph, on the calling thread. Equal arguments give equal graphs.
    ///
    /// # Errors
    /// When `stop` says so before it is done.
    ///
    /// # Panics
    /// When `m` is not between 2 and 128; see [`crate::EngineConfig::validate`].
    pub fn build(
        rows: Arc<Rows>,
        params: &HnswParams,
        seed: u64,
        stop: &dyn Fn() -> bool,
    ) -> Result<Self, Stopped> {
        assert!(
            (2..=128).contains(&params.m),
            "m is {}, expected 2 to 128",
            params.m
        );
        let coded = Coded::new(rows);
        if stop() {
            return Err(Stopped);
        }
        let whole = &coded.codes().rows;
        let short = ShortCodes::new(coded.codes().dim, whole);
        // Links are as good by short codes, and found in half of the time.
        let compared = short.as_ref().map_or(whole, ShortCodes::rows);
        let (graph, order) = build(compared, params, seed, stop).ok_or(Stopped)?;
        Ok(Self {
            coded: Arc::new(coded.arranged(&order)),
            short: short.map(|short| short.arranged(&order)),
            graph,
        })
    }

    /// An index with a graph that was built before; `None` when it does not fit the rows.
    pub(crate) fn from_graph(
        coded: Arc<Coded>,
        short: Option<ShortCodes>,
        graph: Graph,
    ) -> Option<Self> {
        let nodes = coded.codes().len();
        let fits = |short: &ShortCodes| short.rows().len() == nodes;
        let is_sound = graph.is_sound(nodes) && short.as_ref().is_none_or(fits);
        is_sound.then_some(Self {
            coded,
            short,
            graph,
        })
    }

    /// The same with links, and the codes that walks compare, in memory of their own, in large
    /// pages where the system has them: walks are faster there. Whole codes stay where they are
    /// if walks compare short ones.
    #[must_use]
    pub fn settled(mut self) -> Self {
        match &mut self.short {
            Some(short) => *short = short.settled(),
            None => self.coded = Arc::new(self.coded.settled()),
        }
        for layer in std::iter::once(&mut self.graph.base).chain(&mut self.graph.upper) {
            layer.links = layer.links.settled();
        }
        self
    }

    pub(crate) fn graph(&self) -> &Graph {
        &self.graph
    }

    /// What walks compare first, where that is not the whole codes.
    pub(crate) fn short(&self) -> Option<&ShortCodes> {
        self.short.as_ref()
    }

    /// The rows and codes that the graph is over.
    pub(crate) fn coded(&self) -> &Arc<Coded> {
        &self.coded
    }

    /// The live rows nearest to the query. Walks through nodes without live rows too, and finds
    /// fewer than it could where it gives up, or where live rows lie apart from all others.
    pub(crate) fn walk_rows(&self, query: &Embedding, reach: Reach, live: Live<'_>) -> Walked {
        if reach.k == 0 || live.count() == 0 || reach.ef >= reach.nodes {
            return Walked::default();
        }
        let search = Search {
            index: self,
            query,
            coded_query: &self.coded.codes().query(query.as_slice()),
            reach,
            live,
        };
        Scratch::with(|scratch| kernel::run(Walk { search, scratch }))
    }

    /// Bytes of links, and of the codes that walks compare: what is in memory of its own once it
    /// is [`Self::settled`].
    pub fn bytes(&self) -> usize {
        let layers = std::iter::once(&self.graph.base).chain(&self.graph.upper);
        let links: usize = layers.map(|layer| size_of_val(&layer.links[..])).sum();
        links
            + self
                .short
                .as_ref()
                .map_or_else(|| self.coded.code_bytes(), ShortCodes::bytes)
    }

    /// Bytes of what a segment's file has beside, and the system may take back: whole codes where
    /// walks compare short ones, and which rows belong to which node.
    pub fn mapped_bytes(&self) -> usize {
        let codes = if self.short.is_some() {
            self.coded.code_bytes()
        } else {
            0
        };
        codes + self.coded.list_bytes()
    }
}

impl Index for Hnsw {
    fn len(&self) -> usize {
        self.coded.len()
    }

    fn search(
        &self,
        query: &Embedding,
        k: NonZeroUsize,
        params: &SearchParams,
        live: Live<'_>,
    ) -> Vec<Neighbor> {
        let wanted = k.get().min(live.count());
        if wanted == 0 {
            return Vec::new();
        }
        let reach = Reach {
            k: wanted,
            ef: params.ef_search.max(wanted),
            nodes: self.coded.codes().len() / SCAN_PART,
        };
        let Walked { neighbors, .. } = self.walk_rows(query, reach, live);
        // Fewer than wanted: the live ones are elsewhere, or the walk gave up.
        if neighbors.len() < wanted {
            return self.coded.scan(query, k, live);
        }
        neighbors
    }
}

#[derive(Clone, Copy)]
struct Search<'a> {
    index: &'a Hnsw,
    query: &'a Embedding,
    coded_query: &'a CodedQuery,
    reach: Reach,
    live: Live<'a>,
}

/// The smaller, the greater the score: by whole codes, or by short ones.
#[derive(Clone, Copy)]
struct ByCodes<'a, K> {
    kernel: K,
    codes: &'a CodeRows,
    query: &'a [i8],
    /// Of the query's codes.
    sum: i32,
}

impl<K: Kernel> Distance for ByCodes<'_, K> {
    #[inline(always)]
    fn to(self, node: u32) -> i32 {
        -self
            .kernel
            .dot_codes(self.codes.row(node), self.query, self.sum)
    }
}

impl Search<'_> {
    /// Leaves the nearest nodes in the pool; whether it came to an end.
    #[inline(always)]
    fn go<K: Kernel>(
        self,
        kernel: K,
        codes: &CodeRows,
        distance: impl Distance,
        scratch: &mut Scratch,
    ) -> bool {
        let Self {
            index, reach, live, ..
        } = self;
        let Reach { ef, nodes, .. } = reach;
        let Hnsw { coded, graph, .. } = index;
        let mut start = Candidate::new(distance.to(0), 0);
        for layer in graph.upper.iter().rev() {
            start = descend(layer, start, distance);
        }
        let base = (codes, &graph.base);
        if live.count() * OFTEN_LIVE >= coded.len() {
            let ef = ef * coded.len() / live.count();
            walk(kernel, base, start, ef, distance, scratch);
            return true;
        }
        let is_live = |node| coded.any_live(node, live);
        let limits = (ef, nodes);
        walk_live(kernel, base, start, limits, distance, is_live, scratch)
    }
}

struct Walk<'a> {
    search: Search<'a>,
    scratch: &'a mut Scratch,
}

impl Task for Walk<'_> {
    type Output = Walked;

    #[inline(always)]
    fn run<K: Kernel>(self, kernel: K) -> Walked {
        let Self { search, scratch } = self;
        let Search {
            index,
            query,
            coded_query,
            reach,
            live,
        } = search;
        let Reach { k, ef, .. } = reach;
        let Hnsw { coded, short, .. } = index;
        let whole = ByCodes {
            kernel,
            codes: &coded.codes().rows,
            query: &coded_query.codes,
            sum: coded_query.sum,
        };
        let done = match short {
            Some(short) => {
                let (query, sum) = short.query(kernel, coded_query);
                let by_short = ByCodes {
                    kernel,
                    codes: short.rows(),
                    query: &query,
                    sum,
                };
                let done = search.go(kernel, short.rows(), by_short, scratch);
                scratch.rank_again(kernel, whole.codes, whole);
                done
            }
            None => search.go(kernel, whole.codes, whole, scratch),
        };
        if !done {
            return Walked {
                neighbors: Vec::new(),
                distances: scratch.seen,
            };
        }
        // The order by codes is nearly that of the scores: few have the best in them.
        let close = 2 * k + 4 + ef / 16;
        scratch.keep_near(close, coded.members(), |node| {
            live.are_all() || coded.any_live(node, live)
        });
        let margin = MARGIN * coded_query.deviation(coded.codes());
        let (rows, mut top) = (coded.rows(), TopK::new(k));
        for next in scratch.near.iter().take(NEAR_AHEAD) {
            kernel.prefetch(rows.peek(*next as usize));
        }
        for (i, candidate) in scratch.pool.iter().enumerate() {
            let score = coded_query.score(-candidate.distance);
            if !top.wants(score + margin) {
                break;
            }
            if let Some(next) = scratch.near.get(i + NEAR_AHEAD) {
                kernel.prefetch(rows.peek(*next as usize));
            }
            coded.compare(kernel, query, candidate.node(), live, &mut top);
        }
        Walked {
            neighbors: top.into_sorted(),
            distances: scratch.seen,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::{graph::NONE, rows::clustered};

    fn reached(graph: &Graph) -> usize {
        let mut seen = vec![false; graph.base.len()];
        let mut open = vec![0_u32];
        seen[0] = true;
        while let Some(node) = open.pop() {
            for target in graph.base.list(node) {
                if !std::mem::replace(&mut seen[*target as usize], true) {
                    open.push(*target);
                }
            }
        }
        seen.iter().filter(|seen| **seen).count()
    }

    #[test]
    fn every_node_is_reached_and_equal_seeds_build_equal_graphs() {
        let rows = Arc::new(clustered(2000, 16, 50, 3, 1));
        for m in [2, 4] {
            let params = HnswParams {
                m,
                ef_construction: 16,
                ef_search: 16,
                ..HnswParams::default()
            };
            let built = |seed| {
                Hnsw::build(Arc::clone(&rows), &params, seed, &|| false).expect("not stopped")
            };
            let index = built(5);
            assert!(index.graph.is_sound(2000));
            assert_eq!(reached(&index.graph), 2000, "m = {m}");
            assert_eq!(built(5).graph, index.graph);
            assert_ne!(built(6).graph, index.graph);
        }
    }

    #[test]
    fn nodes_that_were_cut_off_are_tied_in() {
        let rows = Arc::new(clustered(300, 16, 5, 3, 1));
        let params = HnswParams::default();
        let mut graph = Hnsw::build(rows, &params, 1, &|| false)
            .expect("not stopped")
            .graph;
        for node in 0..300 {
            let places = graph.base.places_mut(node);
            // All lead to one cluster of ten, and nothing out of it.
            places.fill(NONE);
            places[0] = node % 10;
        }
        assert!(reached(&graph) <= 10);
        graph.tie_in();
        assert_eq!(reached(&graph), 300);
        assert!(graph.is_sound(300));
    }

    #[test]
    fn a_build_can_be_stopped() {
        let rows = Arc::new(clustered(50, 8, 5, 1, 1));
        let stopped = Hnsw::build(rows, &HnswParams::default(), 1, &|| true);
        assert_eq!(stopped.err(), Some(Stopped));
    }
}
