//! Rows predicted from the others, in parts.

use super::{Candidate, Logistic, Options, Samples, objective::Problem};
use crate::{Draws, EngineError, metrics::verdict};

/// The precision of fits that are only compared. Gradients of unit embeddings are small: at 1e-4,
/// which is scikit-learn's own, fits with a large `C` end where they begin.
const TOLERANCE: f64 = 1e-5;
/// Their steps, at most.
const MAX_STEPS: usize = 1000;

/// What is compared.
pub(crate) struct Plan {
    /// Values of `C`, ascending.
    pub(crate) grid: Vec<f64>,
    /// Part of each row.
    pub(crate) fold_of: Vec<usize>,
    /// How many of the parts are predicted from the others.
    pub(crate) compared_folds: usize,
    /// When larger values are not tried any more.
    pub(crate) patience: Patience,
}

/// Values of `C` in a row that may be no better than the best before. The largest take by far the most
/// steps, and behind the least loss it only rises.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// By accuracy: rows that any large value tells apart have ever less loss.
    pub(crate) accuracy: usize,
    /// By loss.
    pub(crate) loss: usize,
}

impl Patience {
    /// All values are compared.
    pub(crate) const ENDLESS: Self = Self {
        accuracy: usize::MAX,
        loss: usize::MAX,
    };
}

/// What a `C` says of rows that it did not learn from.
#[derive(Debug, Clone)]
pub(crate) struct Compared {
    pub(crate) c: f64,
    /// Of each row that was predicted: its number, and what was said.
    pub(crate) told: Vec<(usize, Told)>,
}

/// What was said of a row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Told {
    /// The most probable class; where its own has no higher probability than another, the other.
    pub(crate) predicted: usize,
    /// Its probability.
    pub(crate) probability: f64,
    /// The probability of the row's own class.
    pub(crate) own: f64,
    /// Whether its own class is the most probable one.
    pub(crate) is_right: bool,
}

impl Compared {
    /// Its figures.
    pub(crate) fn candidate(&self) -> Candidate {
        Candidate::of(self.c, self.told.iter().map(|(_, told)| told))
    }
}

impl Candidate {
    /// Figures of some predictions.
    pub(crate) fn of<'a>(c: f64, told: impl Iterator<Item = &'a Told>) -> Self {
        let (mut n, mut right, mut loss) = (0_usize, 0_usize, 0.0);
        for told in told {
            n += 1;
            right += usize::from(told.is_right);
            loss -= told.own.max(f64::MIN_POSITIVE).ln();
        }
        let n = n.max(1) as f64;
        Self {
            c,
            accuracy: right as f64 / n,
            log_loss: loss / n,
        }
    }
}

/// What comes of a comparison.
pub(crate) struct Comparison {
    /// What each `C` says, ascending.
    pub(crate) compared: Vec<Compared>,
    /// What the `C` with the least loss learned without the first part: near to what it makes of all rows.
    pub(crate) near: Option<Logistic>,
}

/// Predicts rows from those of other parts, with each `C` in turn. `judge` makes probabilities of a fit
/// and the number of a row.
///
/// # Errors
/// As for [`Logistic::fit`]; also when the other parts lack a class.
pub(crate) fn compare(
    samples: &Samples<'_>,
    plan: &Plan,
    judge: &dyn Fn(&Logistic, usize) -> Vec<f64>,
) -> Result<Comparison, EngineError> {
    let parts: Vec<Part> = (0..plan.compared_folds)
        .map(|fold| Part::without(samples, &plan.fold_of, fold))
        .collect();
    let samples_of = parts.iter().map(|part| part.samples(samples));
    let samples_of: Vec<Samples> = samples_of.collect::<Result<_, _>>()?;
    let problems: Vec<Problem> = samples_of.iter().map(Problem::new).collect();
    let mut near: Vec<Option<Logistic>> = vec![None; parts.len()];
    let mut compared: Vec<Compared> = Vec::with_capacity(plan.grid.len());
    let (mut best, mut since_best) = (f64::NEG_INFINITY, 0);
    let (mut least, mut since_least) = (f64::INFINITY, 0);
    let mut nearest = None;
    for c in &plan.grid {
        let options = Options {
            c: *c,
            tolerance: TOLERANCE,
            max_steps: MAX_STEPS,
        };
        let mut told = Vec::new();
        for ((part, problem), near) in parts.iter().zip(&problems).zip(&mut near) {
            let fit = Logistic::solve(problem, &options, near.as_ref())?;
            for i in &part.held_out {
                let probabilities = judge(&fit, *i);
                let label = samples.labels[*i];
                let verdict = verdict(&probabilities, label);
                let said = Told {
                    predicted: verdict.predicted,
                    probability: probabilities[verdict.predicted],
                    own: probabilities[label],
                    is_right: verdict.rank == 0,
                };
                told.push((*i, said));
            }
            *near = Some(fit);
        }
        let one = Compared { c: *c, told };
        let Candidate {
            accuracy, log_loss, ..
        } = one.candidate();
        compared.push(one);
        if log_loss < least {
            nearest = near.first().cloned().flatten();
        }
        since_least = if log_loss < least { 0 } else { since_least + 1 };
        least = least.min(log_loss);
        since_best = if accuracy > best { 0 } else { since_best + 1 };
        best = best.max(accuracy);
        if since_best > plan.patience.accuracy || since_least > plan.patience.loss {
            break;
        }
    }
    Ok(Comparison {
        compared,
        near: nearest,
    })
}

/// What is learned from while one part is held out.
struct Part {
    rows: Vec<f32>,
    labels: Vec<usize>,
    base: Option<Vec<f64>>,
    weights: Option<Vec<f64>>,
    held_out: Vec<usize>,
}

impl Part {
    fn without(samples: &Samples<'_>, fold_of: &[usize], fold: usize) -> Self {
        let mut part = Self {
            rows: Vec::new(),
            labels: Vec::new(),
            base: samples.base.map(|_| Vec::new()),
            weights: samples.weights.map(|_| Vec::new()),
            held_out: Vec::new(),
        };
        for (i, of) in fold_of.iter().enumerate() {
            if *of == fold {
                part.held_out.push(i);
                continue;
            }
            part.rows.extend_from_slice(samples.row(i));
            part.labels.push(samples.labels[i]);
            if let (Some(to), Some(base)) = (&mut part.base, samples.base_of(i)) {
                to.extend_from_slice(base);
            }
            if let Some(to) = &mut part.weights {
                to.push(samples.weight_of(i));
            }
        }
        part
    }

    fn samples(&self, of: &Samples<'_>) -> Result<Samples<'_>, EngineError> {
        let samples = Samples::new(&self.rows, of.dim, &self.labels, of.classes)?;
        Ok(samples
            .with_base(self.base.as_deref())
            .weighted(self.weights.as_deref()))
    }
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
