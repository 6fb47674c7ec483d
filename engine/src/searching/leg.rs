//! The nearest items of one modality.

use std::{
    cell::OnceCell,
    collections::{HashMap, HashSet},
    num::NonZeroUsize,
};

use embedding::{Aspect, Embedding, Modality};
use rayon::prelude::*;
use roaring::RoaringBitmap;

use super::compose::{Factors, compose};
use crate::{
    EngineError, Part, Plan, Score, ShardPlan,
    audit::Ledger,
    filter::plan::Estimate,
    index::{SearchParams, dot},
    shard::{self, Found, ShardKey, View, Wanted},
    state::slot_of,
};

/// Numbers compared by one search from which the shards are searched in parallel; below, waking
/// other threads takes longer than it saves.
const PARALLEL_NUMBERS: usize = 1 << 21;
/// Items of each space among which the best of both together are looked for, at most, unless
/// every item is to be compared.
const MAX_MIX_DEPTH: usize = 4096;

/// How legs are searched.
pub(super) struct How<'a> {
    /// What says how many candidates are kept, unless the request does.
    pub(super) ledger: &'a Ledger,
    pub(super) ef_search: Option<usize>,
    pub(super) exact: bool,
    /// Ordinals of the items that may come back, where not all may.
    pub(super) matching: Option<&'a RoaringBitmap>,
    pub(super) explain: bool,
    /// Way of a search among those that match; `None` for the cheapest.
    pub(super) plan: Option<Plan>,
    /// Whether large shards may be searched at the same time.
    pub(super) parallel: bool,
}

/// A found item.
#[derive(Debug, Clone)]
pub(super) struct Candidate {
    pub(super) score: Score,
    pub(super) id: String,
    /// Which view of the leg's base, and which row there.
    at: (usize, usize),
}

/// The items of one modality, and what they are compared with.
pub(super) struct Leg {
    pub(super) modality: Modality,
    pub(super) aspect: Aspect,
    pub(super) base: Side,
    /// A second space, and its share of the score.
    pub(super) mix: Option<(Side, f32)>,
}

/// The shards of one modality in one space, and what their rows are compared with.
pub(super) struct Side {
    pub(super) views: Vec<(ShardKey, View)>,
    pub(super) query: Embedding,
    /// What the parts of the query were multiplied with.
    pub(super) factors: Vec<f32>,
}

impl Leg {
    /// The `n` nearest items, best first, ties by id; fewer only when there are no more.
    pub(super) fn nearest(&self, n: usize, how: &How<'_>) -> (Vec<Candidate>, Vec<ShardPlan>) {
        match &self.mix {
            None => self.base.nearest(n, how),
            Some((second, share)) => self.nearest_mixed(n, how, second, *share),
        }
    }

    /// All shards that are searched.
    pub(super) fn views(&self) -> impl Iterator<Item = &(ShardKey, View)> {
        let mix = self.mix.iter().flat_map(|(side, _)| &side.views);
        self.base.views.iter().chain(mix)
    }

    /// The embedding of a found item.
    pub(super) fn row(&self, found: &Candidate) -> &[f32] {
        let (view, row) = found.at;
        self.base.views[view].1.row(row)
    }

    /// The best by a weighted mean of two cosines: the threshold algorithm (Fagin, Lotem and Naor
    /// 2003). Both lists are followed until no item that is in neither can be among the best.
    fn nearest_mixed(
        &self,
        n: usize,
        how: &How<'_>,
        second: &Side,
        share: f32,
    ) -> (Vec<Candidate>, Vec<ShardPlan>) {
        let tails = (self.base.tails(), second.tails());
        let mut depth = n;
        loop {
            let (of_base, mut plans) = self.base.nearest(depth, how);
            let (of_second, more) = second.nearest(depth, how);
            plans.extend(more);
            // Every item has a row in the base; one without a second has nothing in common there.
            let ended = of_base.len() < depth;
            let last = |found: &[Candidate]| found.last().map_or(0.0, |found| found.score.0);
            let (low, second_low) = (last(&of_base), last(&of_second));
            let second_low = if of_second.len() < depth {
                0.0
            } else {
                second_low
            };
            let bound = (1.0 - share) * low + share * second_low;

            let seen: HashSet<String> = of_base.iter().map(|found| found.id.clone()).collect();
            let others = of_second
                .into_iter()
                .filter(|found| !seen.contains(&found.id));
            let others = others.filter_map(|found| {
                let at = self.base.find(&found.id, &tails.0)?;
                let score = Score(self.base.cosine(at));
                Some(Candidate { score, at, ..found })
            });
            let mut all: Vec<Candidate> = of_base.into_iter().chain(others).collect();
            for found in &mut all {
                let at = second.find(&found.id, &tails.1);
                let second = at.map_or(0.0, |at| second.cosine(at));
                found.score = Score((1.0 - share) * found.score.0 + share * second);
            }
            all.sort_unstable_by(Candidate::rank);
            let certain = all.len() >= n && all[n - 1].score.0 >= bound;
            if ended || certain || (depth >= MAX_MIX_DEPTH.max(n) && !how.exact) {
                all.truncate(n);
                return (all, plans);
            }
            depth = depth.saturating_mul(2);
        }
    }
}

impl Candidate {
    /// The same, without the shard.
    pub(super) fn found(&self) -> Found<String> {
        Found {
            score: self.score,
            id: self.id.clone(),
            row: self.at.1,
        }
    }

    fn rank(&self, other: &Self) -> std::cmp::Ordering {
        let by_score = other.score.0.total_cmp(&self.score.0);
        by_score.then_with(|| self.id.cmp(&other.id))
    }
}

/// Rows of the tail of each view by id, made when first needed.
type Tails<'a> = Vec<OnceCell<HashMap<&'a str, usize>>>;

impl Side {
    /// Puts what is looked for beside the shards.
    pub(super) fn new(
        parts: &[Part],
        views: Vec<(ShardKey, View)>,
        factors: Factors<'_>,
    ) -> Result<Self, EngineError> {
        let (query, factors) = compose(parts, factors)?;
        Ok(Self {
            views,
            query,
            factors,
        })
    }

    fn nearest(&self, n: usize, how: &How<'_>) -> (Vec<Candidate>, Vec<ShardPlan>) {
        let rows: usize = self.views.iter().map(|(_, view)| view.rows()).sum();
        let k = NonZeroUsize::new(n.min(rows)).unwrap_or(NonZeroUsize::MIN);
        let search = |(i, (key, view)): (usize, &(ShardKey, View))| {
            let (found, plan) = self.search(*key, view, k, how);
            let candidate = move |Found { score, id, row }| Candidate {
                score,
                id,
                at: (i, row),
            };
            let found: Vec<Candidate> = found.into_iter().map(candidate).collect();
            (found, plan)
        };
        let large = rows * self.query.dim() >= PARALLEL_NUMBERS;
        let parallel = how.parallel && large && self.views.len() > 1;
        let (found, plans): (Vec<_>, Vec<_>) = if parallel {
            self.views.par_iter().enumerate().map(search).unzip()
        } else {
            self.views.iter().enumerate().map(search).unzip()
        };
        let mut found: Vec<Candidate> = found.into_iter().flatten().collect();
        found.sort_unstable_by(Candidate::rank);
        found.truncate(n);
        (found, plans.into_iter().flatten().collect())
    }

    fn search(
        &self,
        key: ShardKey,
        view: &View,
        k: NonZeroUsize,
        how: &How<'_>,
    ) -> (Vec<Found<String>>, Option<ShardPlan>) {
        let ef_search = how.ef_search.unwrap_or_else(|| how.ledger.ef_search(&key));
        let (params, exact) = (SearchParams { ef_search }, how.exact);
        let Some(matching) = how.matching else {
            return (view.search(&self.query, k, params, exact), None);
        };
        let wanted = Wanted {
            query: &self.query,
            k,
            params,
            exact,
            matching,
            explain: how.explain,
        };
        let answer = match how.plan {
            None => view.search_matching(&wanted, key.to_string()),
            Some(plan) => {
                let by = |estimate: &Estimate| estimate.by(plan);
                view.search_matching_by(&wanted, key.to_string(), by)
            }
        };
        let shard::Answer { found, plan } = answer;
        (found, Some(plan))
    }

    /// Whether a search may ask a graph.
    pub(super) fn has_graph(&self) -> bool {
        self.views
            .iter()
            .any(|(_, view)| view.sealed.graph().is_some())
    }

    fn tails(&self) -> Tails<'_> {
        self.views.iter().map(|_| OnceCell::new()).collect()
    }

    /// Where an item is.
    fn find<'a>(&'a self, id: &str, tails: &Tails<'a>) -> Option<(usize, usize)> {
        let slot = slot_of(id, self.views.len());
        let i = self.views.iter().position(|(key, _)| key.slot == slot)?;
        let view = &self.views[i].1;
        let in_tail = || {
            let tail = tails[i].get_or_init(|| view.tail_rows().collect());
            tail.get(id).copied()
        };
        let row = view.find_sealed(id).or_else(in_tail)?;
        Some((i, row))
    }

    fn cosine(&self, (view, row): (usize, usize)) -> f32 {
        dot(self.query.as_slice(), self.views[view].1.row(row))
    }
}
