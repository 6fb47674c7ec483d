//! Figures of retrieval and of classification, named as in `CLIP_benchmark`, and how sure they are.

mod classes;
mod interval;
mod keywords;
#[cfg(test)]
mod tests;

pub use classes::{
    ACC1, ACC5, Confusion, MEAN_PER_CLASS_RECALL, Verdict, confusions, mean_per_class_recall,
    verdict,
};
pub use interval::{Interval, RESAMPLES, bootstrap, student, wilson};
pub use keywords::keyword_queries;

use embedding::Embedding;
use rayon::prelude::*;

use crate::index::dot;

/// Bins of [`calibration_error`].
const CALIBRATION_BINS: usize = 10;

/// Name of the text-to-image figure: `image_retrieval_recall@k`.
pub fn image_retrieval_recall(k: usize) -> String {
    format!("image_retrieval_recall@{k}")
}

/// Name of the image-to-text figure: `text_retrieval_recall@k`.
pub fn text_retrieval_recall(k: usize) -> String {
    format!("text_retrieval_recall@{k}")
}

/// Part of the queries that have any relevant item among the first `k` of the gallery, for each of
/// `ks`. `relevant` gives the positions of a query's acceptable items.
///
/// Ties count against the query: an item that is not relevant and scores as high as the best
/// relevant one comes before it. So a model that gives everything one embedding scores about 0, not
/// 1. A query without relevant items is a miss. No queries at all give 0.
///
/// # Panics
/// When dims differ, or a relevant position is outside the gallery.
pub fn recall_at_k(
    queries: &[Embedding],
    gallery: &[Embedding],
    relevant: impl Fn(usize) -> Vec<usize> + Sync,
    ks: &[usize],
) -> Vec<f64> {
    let ranks = ranks(queries, gallery, relevant);
    recall_of_ranks(&ranks, ks)
}

/// The [`rank`] of each query's best relevant item in the gallery.
///
/// # Panics
/// When dims differ, or a relevant position is outside the gallery.
pub fn ranks(
    queries: &[Embedding],
    gallery: &[Embedding],
    relevant: impl Fn(usize) -> Vec<usize> + Sync,
) -> Vec<Option<usize>> {
    let rank_of = |(i, query): (usize, &Embedding)| rank(&scores(query, gallery), &relevant(i));
    queries.par_iter().enumerate().map(rank_of).collect()
}

/// Cosine of the query with each of the gallery.
///
/// # Panics
/// When dims differ.
pub fn scores(query: &Embedding, gallery: &[Embedding]) -> Vec<f32> {
    let score = |item: &Embedding| {
        let (ours, theirs) = (query.dim(), item.dim());
        assert_eq!(ours, theirs, "embeddings of different dims never meet");
        dot(query.as_slice(), item.as_slice())
    };
    gallery.iter().map(score).collect()
}

/// Position of the best relevant item, from 0, when everything is sorted by score and ties count
/// against it; `None` when nothing is relevant.
///
/// # Panics
/// When a relevant position is outside the scores.
pub fn rank(scores: &[f32], relevant: &[usize]) -> Option<usize> {
    let best = relevant.iter().map(|i| scores[*i]).max_by(f32::total_cmp)?;
    let before = scores.iter().filter(|score| **score >= best).count();
    let mut level: Vec<usize> = relevant
        .iter()
        .copied()
        .filter(|i| scores[*i] >= best)
        .collect();
    level.sort_unstable();
    level.dedup();
    Some(before - level.len())
}

/// Part of the ranks below `k`, for each of `ks`.
pub fn recall_of_ranks(ranks: &[Option<usize>], ks: &[usize]) -> Vec<f64> {
    let hits = |k: &usize| ranks.iter().flatten().filter(|rank| *rank < k).count();
    ks.iter()
        .map(|k| hits(k) as f64 / ranks.len().max(1) as f64)
        .collect()
}

/// Median of the places of the best relevant items, counted from 1; between the two middle ones
/// where they are even in number. `weights` says how often each query counts. A query without a
/// relevant item comes after all others, so that the median can be infinite.
///
/// # Panics
/// When the lists differ in length.
pub fn median_rank(ranks: &[Option<usize>], weights: &[u32]) -> f64 {
    assert_eq!(ranks.len(), weights.len(), "a weight for each");
    let place = |rank: &Option<usize>| rank.map_or(f64::INFINITY, |rank| rank as f64 + 1.0);
    let mut places: Vec<(f64, u32)> = ranks
        .iter()
        .map(place)
        .zip(weights.iter().copied())
        .collect();
    places.sort_unstable_by(|(a, _), (b, _)| a.total_cmp(b));
    let all: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
    let at = |wanted: u64| {
        let mut passed = 0;
        let mut after = places.iter().map(|(place, weight)| {
            passed += u64::from(*weight);
            (*place, passed)
        });
        let found = after.find(|(_, passed)| *passed > wanted);
        found.map_or(f64::INFINITY, |(place, _)| place)
    };
    f64::midpoint(at(all.saturating_sub(1) / 2), at(all / 2))
}

/// Mean of one over the place of the best relevant item, counted from 1; a query without one adds 0.
pub fn mean_reciprocal_rank(ranks: &[Option<usize>]) -> f64 {
    let sum: f64 = ranks.iter().flatten().map(|rank| reciprocal(*rank)).sum();
    sum / ranks.len().max(1) as f64
}

/// One over a place, which [`rank`] counts from 0.
pub fn reciprocal(rank: usize) -> f64 {
    1.0 / (rank as f64 + 1.0)
}

/// Area under the ROC curve: how often one of `positive` is above one of `negative`, with ties as
/// halves. 0.5 is what guessing gives, and what an empty side gives.
pub fn roc_auc(positive: &[f64], negative: &[f64]) -> f64 {
    if positive.is_empty() || negative.is_empty() {
        return 0.5;
    }
    let mut sorted = negative.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let wins = positive.iter().map(|x| {
        let below = sorted.partition_point(|y| y.total_cmp(x).is_lt());
        let level = sorted.partition_point(|y| y.total_cmp(x).is_le()) - below;
        below as f64 + level as f64 / 2.0
    });
    wins.sum::<f64>() / (positive.len() as f64 * negative.len() as f64)
}

/// Expected calibration error over ten bins of equal width (Guo et al. 2017, equation 3): how far
/// the mean probability of a bin is from the part of it that came true. Pairs are a probability in
/// `[0, 1]` and whether it came true. None at all give 0.
pub fn calibration_error(predicted: &[(f64, bool)]) -> f64 {
    let mut bins = [(0.0, 0.0); CALIBRATION_BINS];
    for (probability, came_true) in predicted {
        let bin = (probability * CALIBRATION_BINS as f64) as usize;
        let (expected, seen) = &mut bins[bin.min(CALIBRATION_BINS - 1)];
        *expected += probability;
        *seen += f64::from(u8::from(*came_true));
    }
    let off: f64 = bins
        .iter()
        .map(|(expected, seen)| f64::abs(expected - seen))
        .sum();
    off / predicted.len().max(1) as f64
}
