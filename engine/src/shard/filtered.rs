//! Searching among the rows of a shard that a filter leaves.

use std::num::NonZeroUsize;

use embedding::Embedding;
use roaring::RoaringBitmap;

use super::{
    Found, View,
    view::{Chunk, ChunkRows, Piece},
};
use crate::{
    Score,
    filter::plan::{Chosen, Estimate, Plan, ShardPlan},
    index::{Live, Neighbor, Reach, Row, SearchParams, Walked, dot},
    record::Stamp,
};

/// What is wanted of a shard.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted<'a> {
    pub(crate) query: &'a Embedding,
    pub(crate) k: NonZeroUsize,
    pub(crate) params: SearchParams,
    pub(crate) exact: bool,
    /// Ordinals of the items that may come back.
    pub(crate) matching: &'a RoaringBitmap,
    /// Whether all matching rows are to be counted, also where the search does not need it.
    pub(crate) explain: bool,
}

/// What a shard found, best first, and how.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) found: Vec<Found<String>>,
    pub(crate) plan: ShardPlan,
}

impl View {
    /// The `k` nearest live items that match: as many as there are, at most `k`.
    pub(crate) fn search_matching(&self, wanted: &Wanted<'_>, shard: String) -> Answer {
        self.search_matching_by(wanted, shard, Estimate::choose)
    }

    /// The same in a way that is chosen otherwise.
    pub(crate) fn search_matching_by(
        &self,
        wanted: &Wanted<'_>,
        shard: String,
        choose: impl Fn(&Estimate) -> Chosen,
    ) -> Answer {
        let estimate = Estimate {
            rows: self.sealed.len(),
            matching: self.sealed.by_ordinal().count(wanted.matching),
            dim: self.sealed.rows.dim(),
            walked: self.sealed.walked(),
            ef: self.ef(wanted),
        };
        let chosen = choose(&estimate);
        let mut distances = 0;
        let (sealed, fell_back) =
            self.search_sealed(wanted, (chosen, estimate.matching), &mut distances);
        let mut found: Vec<Found<&str>> = sealed
            .iter()
            .map(|n| Found {
                score: n.score,
                id: self.sealed.ids.get(n.row.0 as usize),
                row: n.row.0 as usize,
            })
            .collect();
        let mut matching_tail = 0;
        for piece in &self.tail {
            let rows = self.matching_in(piece, wanted.matching);
            matching_tail += rows.len();
            found.extend(piece.chunk.nearest(piece.start, wanted, &rows));
        }
        distances += matching_tail;
        found.sort_unstable_by(Found::rank);
        found.truncate(wanted.k.get());
        let matching_sealed = if wanted.explain {
            self.matching_rows(wanted.matching).len()
        } else {
            0
        };
        let plan = ShardPlan {
            shard,
            plan: chosen.plan,
            fell_back,
            sealed_rows: self.sealed.len(),
            tail_rows: self.rows() - self.sealed.len(),
            estimated_matching: estimate.matching,
            matching: matching_sealed + matching_tail,
            distances,
            ef_search: chosen.ef,
        };
        Answer {
            found: found.iter().map(Found::to_owned).collect(),
            plan,
        }
    }

    /// Candidates that the graph would keep; `None` where it cannot be asked.
    fn ef(&self, wanted: &Wanted<'_>) -> Option<usize> {
        let asks = !wanted.exact && self.sealed.graph().is_some();
        asks.then(|| wanted.params.ef_search.max(wanted.k.get()))
    }

    fn search_sealed(
        &self,
        wanted: &Wanted<'_>,
        (chosen, matching): (Chosen, usize),
        distances: &mut usize,
    ) -> (Vec<Neighbor>, bool) {
        let k = wanted.k.get().min(self.sealed.len());
        let coded = self.sealed.coded();
        let live = |row: Row| self.matches(row.0, wanted.matching);
        let live = Live::only(&live, matching);
        let mut fell_back = false;
        if let (Plan::Graph, Some(graph)) = (chosen.plan, self.sealed.graph()) {
            let reach = Reach {
                k,
                ef: chosen.ef,
                nodes: chosen.most_nodes,
            };
            let walked = graph.walk_rows(wanted.query, reach, live);
            let Walked { neighbors, .. } = walked;
            *distances += walked.distances;
            if neighbors.len() == k {
                return (neighbors, false);
            }
            fell_back = true;
        }
        let neighbors = if chosen.scan == Plan::ScanAll {
            *distances += self.sealed.len();
            coded.scan(wanted.query, wanted.k, live)
        } else {
            let rows = self.matching_rows(wanted.matching);
            *distances += rows.len();
            coded.search_rows(wanted.query, wanted.k, &rows)
        };
        (neighbors, fell_back)
    }

    /// Whether a sealed row is alive and its item matches.
    fn matches(&self, row: u32, matching: &RoaringBitmap) -> bool {
        let row = row as usize;
        !self.dead.get(row) && matching.contains(self.sealed.stamps[row].ordinal)
    }

    /// The sealed rows that are alive and match.
    fn matching_rows(&self, matching: &RoaringBitmap) -> Vec<u32> {
        let mut rows = self.sealed.by_ordinal().find(matching);
        if self.dead.ones_below(self.sealed.len()) > 0 {
            rows.retain(|row| !self.dead.get(*row as usize));
        }
        rows
    }

    /// The rows of a piece of the tail that are alive and match.
    fn matching_in(&self, piece: &Piece, matching: &RoaringBitmap) -> Vec<u32> {
        let stamps = piece.chunk.stamps.iter().enumerate();
        let matches = |(i, stamp): (usize, &Stamp)| {
            let alive = !self.dead.get(piece.start + i);
            (alive && matching.contains(stamp.ordinal)).then_some(i as u32)
        };
        stamps.filter_map(matches).collect()
    }
}

impl Chunk {
    /// The nearest of these rows, and more where the piece has no codes yet. `start` is the number
    /// of the first row of the piece.
    fn nearest(&self, start: usize, wanted: &Wanted<'_>, rows: &[u32]) -> Vec<Found<&str>> {
        let found = |row: u32, score| Found {
            score,
            id: &*self.ids[row as usize],
            row: start + row as usize,
        };
        if let ChunkRows::Coded(coded) = &self.rows {
            let nearest = coded.search_rows(wanted.query, wanted.k, rows);
            return nearest.iter().map(|n| found(n.row.0, n.score)).collect();
        }
        let score = |row: u32| Score(dot(wanted.query.as_slice(), self.row(row as usize)));
        rows.iter().map(|row| found(*row, score(*row))).collect()
    }
}

#[cfg(test)]
mod tests;
