//! Live queries that are repeated, exactly and on the same views, so that writes in between do not
//! look like lost recall.

use std::{cmp::Ordering, num::NonZeroUsize, sync::Arc};

use embedding::Embedding;
use roaring::RoaringBitmap;

use super::{LANES, Ledger, Selectivity, lane, tally::Outcome};
use crate::{
    index::SearchParams,
    shard::{Found, ShardKey, View, Wanted},
};

/// A query that was answered, with everything that a repetition needs.
pub(crate) struct Sample {
    pub(super) ledger: Arc<Ledger>,
    /// As the query saw them.
    pub(super) views: Vec<(ShardKey, View)>,
    pub(super) query: Embedding,
    pub(super) k: NonZeroUsize,
    /// What passed the filter, where there was one.
    pub(super) matching: Option<RoaringBitmap>,
    /// What the query found.
    pub(super) found: Vec<Found<String>>,
    /// Whether it says anything about the collection's own candidates.
    pub(super) steers: bool,
}

/// What a repetition says, for each lane.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) lanes: [Outcome; LANES],
    pub(super) selectivity: Selectivity,
}

/// Every true neighbor with the lane it is of.
type Truth = Vec<(usize, Found<String>)>;

impl Sample {
    /// Whether both can be answered by one pass over the codes.
    fn goes_with(&self, other: &Self) -> bool {
        let same = |((a, a_view), (b, b_view)): (&(ShardKey, View), &(ShardKey, View))| {
            a == b && a_view.is(b_view)
        };
        self.matching.is_none()
            && other.matching.is_none()
            && self.views.len() == other.views.len()
            && self.views.iter().zip(&other.views).all(same)
    }

    /// Compares what was found with the truth.
    fn verdict(&self, mut truth: Truth, selectivity: Selectivity) -> Verdict {
        truth.sort_unstable_by(|(_, a), (_, b)| a.rank(b));
        truth.truncate(self.k.get());
        // Where no better than a true one was left out, others with its very score came instead.
        let last = self
            .found
            .last()
            .filter(|_| self.found.len() >= truth.len());
        let mut lanes = [Outcome::default(); LANES];
        for (lane, t) in truth {
            let tied = |last: &Found<String>| last.score.0.total_cmp(&t.score.0) != Ordering::Less;
            let hit = last.is_some_and(tied) || self.found.iter().any(|f| f.id == t.id);
            lanes[lane].wanted += 1;
            lanes[lane].hits += usize::from(hit);
        }
        Verdict { lanes, selectivity }
    }

    /// The true answer under a filter, and how many rows pass it.
    fn repeat_matching(&self, matching: &RoaringBitmap) -> Verdict {
        let wanted = Wanted {
            query: &self.query,
            k: self.k,
            params: SearchParams { ef_search: 1 },
            exact: true,
            matching,
            explain: true,
        };
        let (mut truth, mut passed, mut rows) = (Truth::new(), 0, 0);
        for (key, view) in &self.views {
            let answer = view.search_matching(&wanted, String::new());
            passed += answer.plan.matching;
            rows += view.rows() - view.dead.ones();
            truth.extend(answer.found.into_iter().map(|found| (lane(key), found)));
        }
        self.verdict(truth, Selectivity::of(passed, rows))
    }
}

/// Repeats samples, those on the same views together; one verdict for each.
pub(super) fn repeat(samples: &[Sample]) -> Vec<Verdict> {
    let mut verdicts = Vec::with_capacity(samples.len());
    for together in samples.chunk_by(Sample::goes_with) {
        if let [sample] = together
            && let Some(matching) = &sample.matching
        {
            verdicts.push(sample.repeat_matching(matching));
            continue;
        }
        // A search for fewer finds a prefix of what one for more does.
        let Some(k) = together.iter().map(|sample| sample.k).max() else {
            continue;
        };
        let queries: Vec<&Embedding> = together.iter().map(|sample| &sample.query).collect();
        let mut truths: Vec<Truth> = together.iter().map(|_| Truth::new()).collect();
        for (key, view) in &together[0].views {
            for (truth, found) in truths.iter_mut().zip(view.search_batch(&queries, k)) {
                truth.extend(found.into_iter().map(|found| (lane(key), found)));
            }
        }
        let judged = together.iter().zip(truths);
        verdicts.extend(judged.map(|(sample, truth)| sample.verdict(truth, Selectivity::All)));
    }
    verdicts
}
