//! How well a head does on examples that it did not learn from.

use serde::{Deserialize, Serialize};

use crate::{
    logistic::{Candidate, Compared, Told, stratified_folds},
    metrics::{calibration_error, wilson},
};

/// Parts that each serve once to compare with.
const FOLDS: usize = 5;
/// Examples up to which each one is a part.
const TINY: usize = 30;
/// Examples times labels times numbers of a row from which one part serves, and not each in turn.
const MUCH: usize = 20_000_000;
/// Labels up to which all confusions are listed: their number grows as the square.
const MOST_CONFUSED: usize = 200;

/// How examples are held out.
pub(super) struct Held {
    pub(super) fold_of: Vec<usize>,
    pub(super) folds: usize,
    /// How many of them are predicted from the others.
    pub(super) compared: usize,
}

impl Held {
    /// `None` where a class has one example only.
    pub(super) fn of(labels: &[usize], classes: usize, work: usize, seed: u64) -> Option<Self> {
        let mut counts = vec![0; classes];
        for label in labels {
            counts[*label] += 1;
        }
        let least = counts.into_iter().min().unwrap_or(0);
        if least < 2 {
            return None;
        }
        if labels.len() <= TINY {
            let (fold_of, folds) = ((0..labels.len()).collect(), labels.len());
            return Some(Self {
                fold_of,
                folds,
                compared: folds,
            });
        }
        let folds = FOLDS.min(least);
        Some(Self {
            fold_of: stratified_folds(labels, folds, seed),
            folds,
            compared: if work >= MUCH { 1 } else { folds },
        })
    }

    pub(super) fn method(&self, examples: usize) -> String {
        if self.folds == examples {
            return "leave-one-out".into();
        }
        match self.compared {
            1 => format!("one of {} parts, each example in one of them", self.folds),
            folds => format!("{folds}-fold, each example in one of them"),
        }
    }
}

/// Figures of examples, each predicted by a head that was learned without it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HeldOut {
    /// The part that was told right; with several labels an example, of all pairs of example and label.
    pub accuracy: f64,
    /// Where the accuracy lies with 95 percent confidence (Wilson 1927), from low to high.
    pub interval: [f64; 2],
    /// Of each label.
    pub per_label: Vec<LabelRecall>,
    /// How often each label (row) was told as each (column); with several labels an example, for each
    /// label `[found, missed, wrongly found, rightly not found]`. `None` with more than 200 labels.
    pub confusion: Option<Vec<Vec<usize>>>,
    /// Expected calibration error of the told labels' probabilities, over ten bins.
    pub calibration_error: f64,
    /// How examples were held out.
    pub method: String,
    /// Examples that were held out.
    pub examples: usize,
}

/// How often a label was found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LabelRecall {
    /// The label.
    pub label: String,
    /// Part of its examples that were told right; `None` where none was held out.
    pub recall: Option<f64>,
    /// Examples that were held out.
    pub examples: usize,
}

/// What was said of each example, each by the `C` that the examples of the other parts chose.
pub(super) fn chosen_by_others(compared: &[Compared], fold_of: &[usize]) -> Vec<(usize, Told)> {
    let folds = fold_of.iter().max().map_or(0, |last| last + 1);
    let mut all = Vec::new();
    for fold in 0..folds {
        let figures = |one: &Compared| {
            let others = one.told.iter().filter(|(i, _)| fold_of[*i] != fold);
            Candidate::of(one.c, others.map(|(_, told)| told))
        };
        let candidates: Vec<Candidate> = compared.iter().map(figures).collect();
        let c = by_loss(&candidates).map(|best| best.c);
        let chosen = compared.iter().find(|one| Some(one.c) == c);
        let told = chosen.into_iter().flat_map(|one| &one.told);
        all.extend(told.filter(|(i, _)| fold_of[*i] == fold));
    }
    all
}

/// The most probable on the whole; of several, the more accurate one.
pub(super) fn by_loss(candidates: &[Candidate]) -> Option<&Candidate> {
    let better = |a: &&Candidate, b: &&Candidate| {
        let by_loss = b.log_loss.total_cmp(&a.log_loss);
        by_loss.then_with(|| a.accuracy.total_cmp(&b.accuracy))
    };
    candidates.iter().max_by(better)
}

/// Of examples with one label each.
pub(super) fn of_one_label(
    labels: &[String],
    of: &[usize],
    told: &[(usize, Told)],
    method: String,
) -> HeldOut {
    let mut confusion = vec![vec![0; labels.len()]; labels.len()];
    for (i, told) in told {
        confusion[of[*i]][told.predicted] += 1;
    }
    let recalls = labels.iter().zip(&confusion).enumerate();
    let per_label = recalls.map(|(i, (label, row))| {
        let examples = row.iter().sum();
        LabelRecall {
            label: label.clone(),
            recall: (examples > 0).then(|| row[i] as f64 / examples as f64),
            examples,
        }
    });
    let per_label = per_label.collect();
    figures(
        told.iter().map(|(_, told)| told),
        per_label,
        confusion,
        method,
    )
}

/// Of examples with any number of labels; `told` has what was said for each label, where 1 is yes.
pub(super) fn of_many_labels(
    labels: &[String],
    of: &[Vec<usize>],
    told: &[Vec<(usize, Told)>],
    method: String,
) -> HeldOut {
    let (mut per_label, mut confusion) = (Vec::new(), Vec::new());
    for (number, (label, told)) in labels.iter().zip(told).enumerate() {
        let mut row = vec![0; 4];
        for (i, told) in told {
            let place = match (of[*i].contains(&number), told.predicted == 1) {
                (true, true) => 0,
                (true, false) => 1,
                (false, true) => 2,
                (false, false) => 3,
            };
            row[place] += 1;
        }
        let examples = row[0] + row[1];
        per_label.push(LabelRecall {
            label: label.clone(),
            recall: (examples > 0).then(|| row[0] as f64 / examples as f64),
            examples,
        });
        confusion.push(row);
    }
    let all = told.iter().flatten().map(|(_, told)| told);
    figures(all, per_label, confusion, method)
}

fn figures<'a>(
    told: impl Iterator<Item = &'a Told> + Clone,
    per_label: Vec<LabelRecall>,
    confusion: Vec<Vec<usize>>,
    method: String,
) -> HeldOut {
    let examples = told.clone().count();
    let right = told.clone().filter(|told| told.is_right).count();
    let interval = wilson(right, examples);
    let pairs: Vec<(f64, bool)> = told.map(|told| (told.probability, told.is_right)).collect();
    HeldOut {
        accuracy: right as f64 / examples.max(1) as f64,
        interval: [interval.low, interval.high],
        confusion: (per_label.len() <= MOST_CONFUSED).then_some(confusion),
        per_label,
        calibration_error: calibration_error(&pairs),
        method,
        examples,
    }
}
