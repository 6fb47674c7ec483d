//! How much to regularize, told from rows that were not learned from.

use serde::Serialize;

use super::{Logistic, Options, Samples};
use crate::{Draws, EngineError, metrics::verdict};

/// Values of `C` that are compared.
pub const GRID: [f64; 9] = [0.01, 0.1, 1.0, 10.0, 100.0, 1e3, 1e4, 1e5, 1e6];

/// `C` where there are too few rows to compare: so much penalty that the classes' means decide.
const WITHOUT_COMPARISON: f64 = 1.0;
/// Parts that each serve once to compare with.
const FOLDS: usize = 5;
/// Rows from which one part serves, and not each in turn.
const MANY: usize = 20_000;
/// The precision of fits that are only compared. Gradients of unit embeddings are small: at 1e-4,
/// which is scikit-learn's own, fits with a large `C` end where they begin.
const TOLERANCE: f64 = 1e-5;
/// Their steps, at most.
const MAX_STEPS: usize = 1000;

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
    let fold_of = stratified_folds(samples.labels, folds, seed);
    let mut tallies = [(0, 0.0); GRID.len()];
    let mut compared = 0;
    for fold in 0..compared_folds {
        let (mut rows, mut labels, mut held_out) = (Vec::new(), Vec::new(), Vec::new());
        for (i, of) in fold_of.iter().enumerate() {
            if *of == fold {
                held_out.push(i);
            } else {
                rows.extend_from_slice(samples.row(i));
                labels.push(samples.labels[i]);
            }
        }
        compared += held_out.len();
        let learned = Samples::new(&rows, samples.dim, &labels, samples.classes)?;
        let mut near: Option<Logistic> = None;
        for (c, (right, loss)) in GRID.into_iter().zip(&mut tallies) {
            let options = Options {
                tolerance: TOLERANCE,
                max_steps: MAX_STEPS,
                c,
            };
            let fit = Logistic::fit(&learned, &options, near.as_ref())?;
            for i in &held_out {
                let probabilities = fit.probabilities(samples.row(*i));
                let label = samples.labels[*i];
                *right += usize::from(verdict(&probabilities, label).rank == 0);
                *loss -= probabilities[label].max(f64::MIN_POSITIVE).ln();
            }
            near = Some(fit);
        }
    }
    let n = compared.max(1) as f64;
    let candidate = |(c, (right, loss)): (f64, (usize, f64))| Candidate {
        c,
        accuracy: right as f64 / n,
        log_loss: loss / n,
    };
    let candidates: Vec<Candidate> = GRID.into_iter().zip(tallies).map(candidate).collect();
    let better = |a: &&Candidate, b: &&Candidate| {
        let by_accuracy = a.accuracy.total_cmp(&b.accuracy);
        by_accuracy.then_with(|| b.log_loss.total_cmp(&a.log_loss))
    };
    let best = candidates.iter().max_by(better);
    Ok(Choice {
        c: best.map_or(WITHOUT_COMPARISON, |best| best.c),
        folds,
        compared_folds,
        candidates,
    })
}

/// Which of `folds` parts each row is of. Each class is spread over all of them as evenly as can
/// be.
pub fn stratified_folds(labels: &[usize], folds: usize, seed: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..labels.len()).collect();
    Draws::new(&[seed]).shuffle(&mut order);
    // Stable: within a class the order stays random.
    order.sort_by_key(|i| labels[*i]);
    let mut fold_of = vec![0; labels.len()];
    for (place, i) in order.into_iter().enumerate() {
        fold_of[i] = place % folds.max(1);
    }
    fold_of
}
