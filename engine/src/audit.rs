//! Recall of live queries: a share of them is repeated exactly in the background, and where recall
//! falls below its target more candidates are kept.
//!
//! Nothing of it is stored: a start begins with the configuration again.

mod queue;
mod sample;
mod tally;
#[cfg(test)]
mod tests;

use std::{
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
};

use embedding::{Aspect, Embedding, Modality, mix};
use parking_lot::Mutex;
use roaring::RoaringBitmap;
use serde::Serialize;

use crate::{
    Collection, EngineConfig,
    shard::{Found, ShardKey, View},
};
pub(crate) use queue::{AuditQueue, Auditor};
use sample::{Sample, Verdict};
use tally::{Aim, Tally};

/// Lanes of a collection: two modalities in two aspects.
const LANES: usize = 4;
const SELECTIVITIES: usize = Selectivity::ALL.len();

/// Part of the items that pass a filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(into = "&'static str")]
pub enum Selectivity {
    /// There was no filter.
    All,
    /// At least half of them.
    Half,
    /// A tenth to a half.
    Tenth,
    /// One in a hundred to one in ten.
    Hundredth,
    /// One in a thousand to one in a hundred.
    Thousandth,
    /// Fewer.
    Fewer,
}

impl Selectivity {
    /// Every one.
    pub const ALL: [Self; 6] = [
        Self::All,
        Self::Half,
        Self::Tenth,
        Self::Hundredth,
        Self::Thousandth,
        Self::Fewer,
    ];

    /// What figures call it: `all`, or from which part to which.
    pub fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Half => "0.5-1",
            Self::Tenth => "0.1-0.5",
            Self::Hundredth => "0.01-0.1",
            Self::Thousandth => "0.001-0.01",
            Self::Fewer => "0-0.001",
        }
    }

    fn of(matching: usize, rows: usize) -> Self {
        match matching as f64 / rows.max(1) as f64 {
            0.5.. => Self::Half,
            0.1.. => Self::Tenth,
            0.01.. => Self::Hundredth,
            0.001.. => Self::Thousandth,
            _ => Self::Fewer,
        }
    }
}

impl From<Selectivity> for &'static str {
    fn from(selectivity: Selectivity) -> Self {
        selectivity.name()
    }
}

/// Recall of a collection's live queries, as far as they were audited.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Recall {
    /// What it is kept above, as far as more candidates can.
    pub target: f64,
    /// Queries that were repeated since the start.
    pub audited_queries: u64,
    /// Queries that were to be repeated, but too many were waiting.
    pub dropped_queries: u64,
    /// For each kind of items that was searched.
    pub lanes: Vec<LaneRecall>,
}

/// Recall among the items of one modality in one aspect.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LaneRecall {
    /// Of the items found.
    pub modality: Modality,
    /// Of the embeddings compared: `shared`, `specific-image` or `specific-text`.
    pub aspect: String,
    /// Candidates that a search keeps which does not say how many.
    pub ef_search: usize,
    /// By the part of the items that passed the filter; only those that occurred.
    pub by_selectivity: Vec<SelectivityRecall>,
}

/// Recall at one selectivity, over about the last few hundred audited queries.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SelectivityRecall {
    /// Part of the items that passed the filter.
    pub selectivity: Selectivity,
    /// Part of the true nearest items that were found; all of them are wanted equally, whatever `k`
    /// they came from.
    pub recall: f64,
    /// Queries that it is counted over; older ones count in part.
    pub queries: f64,
}

/// A query that was just answered.
pub(crate) struct Answered<'a> {
    /// The shards, as it saw them.
    pub(crate) views: &'a [(ShardKey, View)],
    pub(crate) query: &'a Embedding,
    pub(crate) k: NonZeroUsize,
    /// What passed its filter, where it had one.
    pub(crate) matching: Option<&'a RoaringBitmap>,
    /// At most `k`, best first.
    pub(crate) found: &'a [Found<String>],
    /// Whether a graph was asked.
    pub(crate) walked: bool,
    /// Whether it said itself how many candidates to keep.
    pub(crate) own_ef: bool,
}

/// The recall of one collection.
#[derive(Debug)]
pub(crate) struct Ledger {
    share: f64,
    aim: Aim,
    /// Queries that could have been repeated.
    seen: AtomicU64,
    audited: AtomicU64,
    dropped: AtomicU64,
    lanes: [Lane; LANES],
}

#[derive(Debug)]
struct Lane {
    ef: AtomicUsize,
    cells: Mutex<[Cell; SELECTIVITIES]>,
}

/// One selectivity of a lane.
#[derive(Debug, Clone, Copy, Default)]
struct Cell {
    /// Of all audited queries.
    live: Tally,
    /// Of those that kept as many candidates as are kept now.
    steering: Tally,
}

/// Which lane the rows of a shard are of.
fn lane(key: &ShardKey) -> usize {
    let specific = usize::from(matches!(key.aspect, Aspect::Specific(_)));
    2 * specific + usize::from(key.modality == Modality::Image)
}

/// The reverse of [`lane`].
fn lane_name(lane: usize) -> (Modality, Aspect) {
    let modality = if lane % 2 == 1 {
        Modality::Image
    } else {
        Modality::Text
    };
    let aspect = if lane < 2 {
        Aspect::Shared
    } else {
        Aspect::Specific(modality)
    };
    (modality, aspect)
}

impl Ledger {
    pub(crate) fn new(config: &EngineConfig) -> Self {
        let least = config.hnsw.ef_search;
        let lane = || Lane {
            ef: AtomicUsize::new(least),
            cells: Mutex::default(),
        };
        Self {
            share: config.audit_share,
            aim: Aim {
                target: config.target_recall,
                least,
                most: config.most_ef_search,
            },
            seen: AtomicU64::new(0),
            audited: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            lanes: [lane(), lane(), lane(), lane()],
        }
    }

    /// Candidates that a search of a shard keeps which does not say how many.
    pub(crate) fn ef_search(&self, key: &ShardKey) -> usize {
        self.lanes[lane(key)].ef.load(Relaxed)
    }

    /// Keeps the query to be repeated, if it is its turn.
    pub(crate) fn consider(self: &Arc<Self>, queue: &AuditQueue, answered: &Answered<'_>) {
        if !(answered.walked || answered.matching.is_some()) || !self.is_next() {
            return;
        }
        let sample = Sample {
            ledger: Arc::clone(self),
            views: answered.views.to_vec(),
            query: answered.query.clone(),
            k: answered.k,
            matching: answered.matching.cloned(),
            found: answered.found.to_vec(),
            steers: answered.walked && !answered.own_ef,
        };
        if !queue.push(sample) {
            self.dropped.fetch_add(1, Relaxed);
        }
    }

    /// Whether the next query is to be repeated. The first is, so that a new server has something
    /// to tell; then a share of them, at uneven distances: clients ask in turns, too.
    fn is_next(&self) -> bool {
        if self.share <= 0.0 {
            return false;
        }
        let number = self.seen.fetch_add(1, Relaxed);
        number == 0 || (mix(number) as f64) < self.share * u64::MAX as f64
    }

    /// Enters what a repetition said. `steers` says whether the query kept as many candidates as
    /// the collection tells it to.
    fn enter(&self, verdict: &Verdict, steers: bool) {
        self.audited.fetch_add(1, Relaxed);
        for (lane, outcome) in self.lanes.iter().zip(verdict.lanes) {
            if outcome.wanted == 0 {
                continue;
            }
            let mut cells = lane.cells.lock();
            let cell = &mut cells[verdict.selectivity as usize];
            cell.live.add(outcome);
            if !steers {
                continue;
            }
            cell.steering.add(outcome);
            let ef = lane.ef.load(Relaxed);
            let next = self.aim.steer(ef, cells.iter().map(|cell| &cell.steering));
            if let Some(next) = next {
                tracing::info!("ef_search is {next} from now on, was {ef}");
                lane.ef.store(next, Relaxed);
                cells
                    .iter_mut()
                    .for_each(|cell| cell.steering = Tally::default());
            }
        }
    }

    fn recall(&self) -> Recall {
        let lanes = self.lanes.iter().enumerate().filter_map(|(i, lane)| {
            let cells = *lane.cells.lock();
            let by_selectivity = Selectivity::ALL.into_iter().zip(cells);
            let by_selectivity = by_selectivity.filter_map(|(selectivity, cell)| {
                Some(SelectivityRecall {
                    selectivity,
                    recall: cell.live.recall()?,
                    queries: cell.live.queries,
                })
            });
            let by_selectivity: Vec<SelectivityRecall> = by_selectivity.collect();
            let (modality, aspect) = lane_name(i);
            (!by_selectivity.is_empty()).then(|| LaneRecall {
                modality,
                aspect: aspect.to_string(),
                ef_search: lane.ef.load(Relaxed),
                by_selectivity,
            })
        });
        Recall {
            target: self.aim.target,
            audited_queries: self.audited.load(Relaxed),
            dropped_queries: self.dropped.load(Relaxed),
            lanes: lanes.collect(),
        }
    }
}

impl Collection {
    /// Recall of its live queries, and how many candidates they keep for it.
    pub fn recall(&self) -> Recall {
        self.audit.recall()
    }
}
