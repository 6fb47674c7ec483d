//! How much to regularize, told from rows that were not learned from.

use serde::Serialize;

use super::{Compared, Comparison, Logistic, Patience, Plan, Samples, compare, stratified_folds};
use crate::EngineError;

/// Values of `C` that are compared.
pub const GRID: [f64; 9] = [0.01, 0.1, 1.0, 10.0, 100.0, 1e3, 1e4, 1e5, 1e6];

/// `C` where there are too few rows to compare: so much penalty that the classes' means decide.
pub(crate) const WITHOUT_COMPARISON: f64 = 1.0;
/// Parts that each serve once to compare with.
const FOLDS: usize = 5;
/// Rows from which one part serves, and not each in turn.
const MANY: usize = 20_000;

/// What was chosen, and why.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Choice {
    /// The `C` with the highest accuracy; of several, the one with the lowest loss.
    pub c: f64,
    /// Parts that the rows were split into; 0 where a class had one row only, and nothing was
    /// compared.
    pub folds: usize,
    /// How many of the parts were predicted from the others: all, or one where rows are many.
    pub compared_folds: usize,
    /// What was compared.
    pub candidates: Vec<Candidate>,
}

/// How well a `C` predicts rows that it did not learn from.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Candidate {
    /// The value.
    pub c: f64,
    /// Part of the rows whose class was the most probable one.
    pub accuracy: f64,
    /// Mean of minus the logarithm of the probability of a row's class.
    pub log_loss: f64,
}

/// Chooses `C` out of [`GRID`] by stratified cross-validation.
///
/// # Errors
/// As for [`Logistic::fit`].
pub fn choose(samples: &Samples<'_>, seed: u64) -> Result<Choice, EngineError> {
    let mut counts = vec![0; samples.classes];
    samples.labels.iter().for_each(|label| counts[*label] += 1);
    let folds = counts.into_iter().min().unwrap_or(0).min(FOLDS);
    if folds < 2 {
        return Ok(Choice {
            c: WITHOUT_COMPARISON,
            folds: 0,
            compared_folds: 0,
            candidates: Vec::new(),
        });
    }
    let compared_folds = if samples.labels.len() >= MANY {
        1
    } else {
        folds
    };
    let plan = Plan {
        grid: GRID.to_vec(),
        fold_of: stratified_folds(samples.labels, folds, seed),
        compared_folds,
        patience: Patience::ENDLESS,
    };
    let judge = |fit: &Logistic, i: usize| fit.probabilities(samples.row(i));
    let Comparison { compared, .. } = compare(samples, &plan, &judge)?;
    let candidates: Vec<Candidate> = compared.iter().map(Compared::candidate).collect();
    Ok(Choice {
        c: best(&candidates).map_or(WITHOUT_COMPARISON, |best| best.c),
        folds,
        compared_folds,
        candidates,
    })
}

/// The one with the highest accuracy; of several, with the lowest loss.
pub(crate) fn best(candidates: &[Candidate]) -> Option<&Candidate> {
    let better = |a: &&Candidate, b: &&Candidate| {
        let by_accuracy = a.accuracy.total_cmp(&b.accuracy);
        by_accuracy.then_with(|| b.log_loss.total_cmp(&a.log_loss))
    };
    candidates.iter().max_by(better)
}
