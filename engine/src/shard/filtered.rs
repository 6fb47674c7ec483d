//! Searching among the rows of a shard that a filter leaves.

use std::num::NonZeroUsize;

use embedding::{Embedding, mix};
use roaring::RoaringBitmap;

use super::{Found, View, view::Piece};
use crate::{
    Score,
    filter::plan::{Chosen, Estimate, Plan, ShardPlan},
    index::{Live, Neighbor, Reach, Row, SearchParams, TopK, Walked, dot},
};

/// Up to so many matching items their rows are counted, not estimated.
const COUNT_ITEMS: u64 = 2048;
/// Rows that are looked at to estimate how many match.
const SAMPLE_ROWS: usize = 1024;
/// From this part of all rows on, the matching ones are found by going through all.
const LOOKUP_PART: usize = 16;

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
        let counted = self.count(wanted.matching);
        let estimate = Estimate {
            rows: self.sealed.len(),
            matching: match &counted {
                Some(rows) => rows.len(),
                None => self.sample(wanted.matching),
            },
            dim: self.sealed.rows.dim(),
            ef: self.ef(wanted),
        };
        let chosen = estimate.choose();
        let mut distances = 0;
        let rows = || {
            counted
                .clone()
                .unwrap_or_else(|| self.matching_rows(wanted.matching))
        };
        let (sealed, fell_back) =
            self.search_sealed(wanted, (chosen, estimate.matching), &rows, &mut distances);
        let mut found: Vec<Found<&str>> = sealed
            .iter()
            .map(|n| Found {
                score: n.score,
                id: self.sealed.ids.get(n.row.0 as usize),
            })
            .collect();
        let mut matching_tail = 0;
        for Piece { start, chunk } in &self.tail {
            for (i, (id, stamp)) in chunk.ids.iter().zip(&chunk.stamps).enumerate() {
                if !self.dead.get(start + i) && wanted.matching.contains(stamp.ordinal) {
                    matching_tail += 1;
                    let score = Score(dot(wanted.query.as_slice(), chunk.rows.row(i)));
                    found.push(Found { score, id });
                }
            }
        }
        distances += matching_tail;
        found.sort_unstable_by(Found::rank);
        found.truncate(wanted.k.get());
        let matching_sealed = if wanted.explain { rows().len() } else { 0 };
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
        let owned = |f: &Found<&str>| Found {
            score: f.score,
            id: f.id.to_owned(),
        };
        Answer {
            found: found.iter().map(owned).collect(),
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
        matching_rows: &dyn Fn() -> Vec<u32>,
        distances: &mut usize,
    ) -> (Vec<Neighbor>, bool) {
        let k = wanted.k.get().min(self.sealed.len());
        let mut fell_back = false;
        if let (Plan::Graph, Some(graph)) = (chosen.plan, self.sealed.graph()) {
            let live = |row: Row| self.matches(row.0, wanted.matching);
            let reach = Reach {
                k,
                ef: chosen.ef,
                nodes: chosen.most_nodes,
            };
            let walked = graph.walk_rows(wanted.query, reach, Live::only(&live, matching));
            let Walked { neighbors, .. } = walked;
            *distances += walked.distances;
            if neighbors.len() == k {
                return (neighbors, false);
            }
            fell_back = true;
        }
        let mut top = TopK::new(k);
        let mut compare = |row: u32| {
            *distances += 1;
            let score = dot(wanted.query.as_slice(), self.sealed.rows.row(row as usize));
            if top.wants(score) {
                top.push(Neighbor {
                    row: Row(row),
                    score: Score(score),
                });
            }
        };
        if chosen.plan == Plan::ScanAll {
            (0..self.sealed.len() as u32)
                .filter(|row| self.matches(*row, wanted.matching))
                .for_each(&mut compare);
        } else {
            matching_rows().into_iter().for_each(&mut compare);
        }
        (top.into_sorted(), fell_back)
    }

    /// Whether a sealed row is alive and its item matches.
    fn matches(&self, row: u32, matching: &RoaringBitmap) -> bool {
        let row = row as usize;
        !self.dead.get(row) && matching.contains(self.sealed.stamps[row].ordinal)
    }

    /// The sealed rows that are alive and match, ascending.
    fn matching_rows(&self, matching: &RoaringBitmap) -> Vec<u32> {
        let rows = self.sealed.len();
        if matching.len() as usize >= rows / LOOKUP_PART {
            return (0..rows as u32)
                .filter(|row| self.matches(*row, matching))
                .collect();
        }
        let by_ordinal = self.sealed.by_ordinal();
        let ordinal = |row: u32| self.sealed.stamps[row as usize].ordinal;
        let mut found = Vec::with_capacity(matching.len() as usize);
        let mut from = 0;
        for wanted in matching {
            from += by_ordinal[from..].partition_point(|row| ordinal(*row) < wanted);
            // An item that was deleted may have left its ordinal to another one in this segment.
            let same = by_ordinal[from..]
                .iter()
                .take_while(|row| ordinal(**row) == wanted);
            found.extend(same.filter(|row| !self.dead.get(**row as usize)));
        }
        found.sort_unstable();
        found
    }

    /// The matching rows, where there are so few that a sample would say little.
    fn count(&self, matching: &RoaringBitmap) -> Option<Vec<u32>> {
        let few = self.sealed.len() <= SAMPLE_ROWS || matching.len() <= COUNT_ITEMS;
        few.then(|| self.matching_rows(matching))
    }

    /// About how many live sealed rows match, from a sample. Its rows are at uneven distances: a
    /// value that comes every so many items must not meet a sample that does the same.
    fn sample(&self, matching: &RoaringBitmap) -> usize {
        let rows = self.sealed.len();
        let sampled = (0..SAMPLE_ROWS).map(|i| (mix(i as u64) % rows as u64) as u32);
        let hits = sampled.filter(|row| self.matches(*row, matching)).count();
        // None of the sample is not none at all.
        (hits * rows / SAMPLE_ROWS).max(rows / SAMPLE_ROWS / 2)
    }
}

#[cfg(test)]
mod tests;
