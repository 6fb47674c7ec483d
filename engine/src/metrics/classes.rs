//! Figures of classification.

use std::collections::HashMap;

use serde::Serialize;

/// Name of the part whose class is the most probable one.
pub const ACC1: &str = "acc1";
/// Name of the part whose class is among the five most probable ones.
pub const ACC5: &str = "acc5";
/// Name of [`mean_per_class_recall`].
pub const MEAN_PER_CLASS_RECALL: &str = "mean_per_class_recall";

/// What some scores say about a thing whose class is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// The class with the highest score; where its own class has no higher one than another, the
    /// other.
    pub predicted: usize,
    /// Place of its own class among all, from 0; ties count against it.
    pub rank: usize,
}

/// Compares the scores of all classes with the one of `label`. `CLIP_benchmark` leaves the order
/// of ties open.
///
/// # Panics
/// When there is no score for the label.
pub fn verdict(scores: &[f64], label: usize) -> Verdict {
    let own = scores[label];
    let others = scores
        .iter()
        .enumerate()
        .filter(|(class, _)| *class != label);
    let others = others.filter(|(_, score)| **score >= own);
    let rank = others.clone().count();
    let best = others.max_by(|(_, a), (_, b)| a.total_cmp(b));
    Verdict {
        predicted: best.map_or(label, |(class, _)| class),
        rank,
    }
}

/// Part of each class that was told right, averaged over the classes that occur: what scikit-learn
/// calls balanced accuracy. `weights` says how often each one counts. None at all give 0.
///
/// # Panics
/// When the lists differ in length.
pub fn mean_per_class_recall(labels: &[usize], predicted: &[usize], weights: &[u32]) -> f64 {
    assert_eq!(labels.len(), predicted.len(), "a prediction for each");
    assert_eq!(labels.len(), weights.len(), "a weight for each");
    let classes = labels.iter().max().map_or(0, |most| most + 1);
    let mut counts = vec![(0_u64, 0_u64); classes];
    for ((label, predicted), weight) in labels.iter().zip(predicted).zip(weights) {
        let (right, all) = &mut counts[*label];
        *all += u64::from(*weight);
        *right += u64::from(*weight) * u64::from(label == predicted);
    }
    let recalls = counts.iter().filter(|(_, all)| *all > 0);
    let recalls: Vec<f64> = recalls
        .map(|(right, all)| *right as f64 / *all as f64)
        .collect();
    recalls.iter().sum::<f64>() / recalls.len().max(1) as f64
}

/// How often one class was taken for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Confusion {
    /// The class.
    pub label: usize,
    /// What it was taken for.
    pub predicted: usize,
    /// How often.
    pub count: usize,
}

/// All pairs of classes that were confused, the most frequent first.
pub fn confusions(labels: &[usize], predicted: &[usize]) -> Vec<Confusion> {
    let mut counts: HashMap<(usize, usize), usize> = HashMap::new();
    for pair in labels.iter().copied().zip(predicted.iter().copied()) {
        if pair.0 != pair.1 {
            *counts.entry(pair).or_default() += 1;
        }
    }
    let confusion = |((label, predicted), count)| Confusion {
        label,
        predicted,
        count,
    };
    let mut all: Vec<Confusion> = counts.into_iter().map(confusion).collect();
    all.sort_by_key(|c| (std::cmp::Reverse(c.count), c.label, c.predicted));
    all
}
