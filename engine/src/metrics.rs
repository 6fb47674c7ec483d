//! Figures of retrieval quality, named as in `CLIP_benchmark`.

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
    let ranks: Vec<Option<usize>> = queries
        .par_iter()
        .enumerate()
        .map(|(i, query)| {
            let score = |item: &Embedding| {
                assert_eq!(
                    query.dim(),
                    item.dim(),
                    "embeddings of different dims never meet"
                );
                dot(query.as_slice(), item.as_slice())
            };
            let scores: Vec<f32> = gallery.iter().map(score).collect();
            rank(&scores, &relevant(i))
        })
        .collect();
    recall_of_ranks(&ranks, ks)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_counts_when_any_relevant_item_is_among_the_first_k() {
        let unit = |x: f32, y: f32| Embedding::normalized(vec![x, y]).expect("has a direction");
        let gallery = [
            unit(1.0, 0.0),
            unit(1.0, 1.0),
            unit(0.0, 1.0),
            unit(-1.0, 0.0),
        ];
        let queries = [
            unit(1.0, 0.1),
            unit(1.0, 0.1),
            unit(0.0, 1.0),
            unit(0.0, 1.0),
        ];
        let relevant = |query| [vec![0], vec![2, 3], vec![2, 0], vec![]][query as usize].clone();
        let recall = recall_at_k(&queries, &gallery, |i| relevant(i as u8), &[1, 2, 3, 100]);
        assert_eq!(recall, [0.5, 0.5, 0.75, 0.75]);
        assert_eq!(recall_at_k(&[], &gallery, |_| vec![], &[1]), [0.0]);
    }

    #[test]
    fn ties_count_against_the_query() {
        assert_eq!(rank(&[1.0, 1.0, 1.0, 0.5], &[0]), Some(2));
        assert_eq!(rank(&[1.0, 1.0, 1.0, 0.5], &[0, 1, 1]), Some(1));
        assert_eq!(rank(&[1.0, 2.0], &[1]), Some(0));
        assert_eq!(rank(&[1.0], &[]), None);
    }

    #[test]
    fn the_area_under_the_curve_counts_pairs_in_the_right_order_and_ties_as_halves() {
        let close = |a: f64, b: f64| (a - b).abs() < 1e-12;
        assert!(close(roc_auc(&[2.0, 3.0], &[0.0, 1.0]), 1.0));
        assert!(close(roc_auc(&[0.0], &[1.0, 2.0]), 0.0));
        assert!(close(roc_auc(&[1.0, 3.0], &[1.0, 2.0]), 0.625));
        assert!(close(roc_auc(&[1.0], &[]), 0.5));
    }

    #[test]
    fn a_probability_that_comes_true_as_often_as_it_says_has_no_error() {
        let good = [(0.25, true), (0.25, false), (0.25, false), (0.25, false)];
        assert!(calibration_error(&good).abs() < 1e-12);
        let bad = [(1.0, false), (1.0, true), (0.0, false), (0.0, false)];
        assert!((calibration_error(&bad) - 0.25).abs() < 1e-12);
        assert!(calibration_error(&[]).abs() < 1e-12);
    }

    #[test]
    fn names_are_those_of_clip_benchmark() {
        assert_eq!(image_retrieval_recall(5), "image_retrieval_recall@5");
        assert_eq!(text_retrieval_recall(1), "text_retrieval_recall@1");
    }
}
