//! Approximate search by walking a graph (Malkov and Yashunin 2018, algorithms 2 and 5).

use std::{
    cmp::{Ordering, Reverse},
    collections::BinaryHeap,
    num::NonZeroUsize,
    sync::Arc,
};

use embedding::Embedding;

use super::{
    Index, Neighbor, Row, Rows, SearchParams, TopK, build::build, flat::scan, graph::Graph,
    rows::dot,
};
use crate::{HnswParams, Score, bits::Bits};

/// A graph search stops and scans instead once it has looked at this part of all nodes: a scan
/// reads memory in order and is about this much cheaper per row.
const SCAN_PART: usize = 3;

/// A graph over rows.
#[derive(Debug, Clone)]
pub struct Hnsw {
    rows: Arc<Rows>,
    graph: Graph,
}

/// The build was stopped before it was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stopped;

/// What a walk found.
#[derive(Debug)]
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

/// A node and its score, ordered by score.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    score: f32,
    node: u32,
}

impl PartialEq for Candidate {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Candidate {}

impl PartialOrd for Candidate {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Candidate {
    fn cmp(&self, other: &Self) -> Ordering {
        self.score
            .total_cmp(&other.score)
            .then(other.node.cmp(&self.node))
    }
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
        let graph = build(&rows, params, seed, stop).ok_or(Stopped)?;
        Ok(Self { rows, graph })
    }

    /// An index with a graph that was built before; `None` when it does not fit the rows.
    pub(crate) fn from_graph(rows: Arc<Rows>, graph: Graph) -> Option<Self> {
        graph.is_sound(rows.len()).then_some(Self { rows, graph })
    }

    pub(crate) fn graph(&self) -> &Graph {
        &self.graph
    }

    fn candidate(&self, query: &Embedding, node: u32) -> Candidate {
        let score = dot(query.as_slice(), self.rows.row(self.graph.row(node)));
        Candidate { score, node }
    }

    /// The live rows nearest to the query. Walks through nodes without live rows too, and finds
    /// fewer than it could where it gives up, or where live rows lie apart from all others.
    pub(crate) fn walk_rows(
        &self,
        query: &Embedding,
        reach: Reach,
        live: &dyn Fn(Row) -> bool,
    ) -> Walked {
        if self.rows.is_empty() {
            return Walked {
                neighbors: Vec::new(),
                distances: 0,
            };
        }
        let mut distances = 0;
        let found = self.walk(query, reach, live, &mut distances);
        let mut top = TopK::new(reach.k);
        for Candidate { score, node } in found.into_iter().flatten() {
            for row in self.graph.members.list(node).iter().map(|row| Row(*row)) {
                if top.wants(score) && live(row) {
                    top.push(Neighbor {
                        row,
                        score: Score(score),
                    });
                }
            }
        }
        Walked {
            neighbors: top.into_sorted(),
            distances,
        }
    }

    /// Walks down the upper layers to a node near the query.
    fn descend(&self, query: &Embedding, distances: &mut usize) -> Candidate {
        *distances += 1;
        let mut best = self.candidate(query, self.graph.entry);
        for layer in self.graph.upper.iter().rev() {
            loop {
                let list = layer.list(best.node);
                *distances += list.len();
                let near = list.iter().map(|node| self.candidate(query, *node));
                match near.max() {
                    Some(nearer) if nearer.score > best.score => best = nearer,
                    _ => break,
                }
            }
        }
        best
    }

    /// The nodes nearest to the query that have a live row, about `ef` of them; `None` when it gave
    /// up.
    fn walk(
        &self,
        query: &Embedding,
        reach: Reach,
        live: &dyn Fn(Row) -> bool,
        distances: &mut usize,
    ) -> Option<Vec<Candidate>> {
        let Reach {
            ef, nodes: budget, ..
        } = reach;
        if ef >= budget {
            return None;
        }
        let has_live = |node| {
            self.graph
                .members
                .list(node)
                .iter()
                .any(|row| live(Row(*row)))
        };
        let mut seen = Bits::unset(self.graph.nodes());
        let mut open = BinaryHeap::new();
        // The worst on top.
        let mut found = BinaryHeap::with_capacity(ef + 1);
        let start = self.descend(query, distances);
        seen.set(start.node as usize);
        open.push(start);
        if has_live(start.node) {
            found.push(Reverse(start));
        }
        while let Some(nearest) = open.pop() {
            let full = found.len() >= ef;
            if full
                && found
                    .peek()
                    .is_some_and(|Reverse(worst)| nearest.score < worst.score)
            {
                break;
            }
            if seen.ones() > budget {
                return None;
            }
            for node in self.graph.base.list(nearest.node) {
                if seen.get(*node as usize) {
                    continue;
                }
                seen.set(*node as usize);
                *distances += 1;
                let next = self.candidate(query, *node);
                let full = found.len() >= ef;
                let worst = found
                    .peek()
                    .map_or(f32::NEG_INFINITY, |Reverse(worst)| worst.score);
                if full && next.score <= worst {
                    continue;
                }
                open.push(next);
                if has_live(*node) {
                    found.push(Reverse(next));
                    if found.len() > ef {
                        found.pop();
                    }
                }
            }
        }
        Some(
            found
                .into_iter()
                .map(|Reverse(candidate)| candidate)
                .collect(),
        )
    }
}

impl Index for Hnsw {
    fn len(&self) -> usize {
        self.rows.len()
    }

    fn search(
        &self,
        query: &Embedding,
        k: NonZeroUsize,
        params: &SearchParams,
        live: &dyn Fn(Row) -> bool,
    ) -> Vec<Neighbor> {
        if self.rows.is_empty() {
            return Vec::new();
        }
        let wanted = k.get().min(self.rows.len());
        let reach = Reach {
            k: wanted,
            ef: params.ef_search.max(wanted),
            nodes: self.graph.nodes() / SCAN_PART,
        };
        let Walked { neighbors, .. } = self.walk_rows(query, reach, live);
        // Fewer than wanted: too few are live, or the walk gave up.
        if neighbors.len() < wanted {
            scan(&self.rows, query, k, live)
        } else {
            neighbors
        }
    }
}
