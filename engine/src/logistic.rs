//! Multinomial logistic regression with a squared penalty on the weights and none on the
//! intercepts: the minimum that scikit-learn's `LogisticRegression` looks for, found by L-BFGS.
//!
//! Sums are in double precision and in a fixed order, so that a fit does not depend on the number
//! of threads.

mod choice;
mod folds;
mod lbfgs;
mod objective;
mod shape;
#[cfg(test)]
mod tests;

use embedding::{Scoring, Space};

pub(crate) use choice::WITHOUT_COMPARISON;
pub use choice::{Candidate, Choice, GRID, choose};
pub use folds::stratified_folds;
pub(crate) use folds::{Compared, Comparison, Patience, Plan, Told, compare};

use self::objective::Problem;
use crate::{EngineError, Head, Inputs, index::sum_of_products};

/// Logits are what the weights make them.
const SCORING: Scoring = Scoring::Softmax { logit_scale: 1.0 };

/// Labeled embeddings.
#[derive(Debug, Clone, Copy)]
pub struct Samples<'a> {
    rows: &'a [f32],
    dim: usize,
    labels: &'a [usize],
    classes: usize,
    base: Option<&'a [f64]>,
    weights: Option<&'a [f64]>,
}

impl<'a> Samples<'a> {
    /// `rows` is `[labels, dim]`; labels are numbers below `classes`.
    ///
    /// # Errors
    /// [`EngineError::BadHead`] when there are less than two classes, a class has no row, a label is
    /// of no class, the rows are of another size, or a number is not finite.
    pub fn new(
        rows: &'a [f32],
        dim: usize,
        labels: &'a [usize],
        classes: usize,
    ) -> Result<Self, EngineError> {
        if classes < 2 {
            return Err(bad(format!("{classes} classes, expected at least 2")));
        }
        if dim == 0 || rows.len() != labels.len() * dim {
            let (numbers, labels) = (rows.len(), labels.len());
            return Err(bad(format!(
                "{numbers} numbers for {labels} rows of dim {dim}"
            )));
        }
        let mut counts = vec![0_usize; classes];
        for label in labels {
            let count = counts.get_mut(*label);
            *count.ok_or_else(|| bad(format!("label {label}, expected less than {classes}")))? += 1;
        }
        if let Some(class) = counts.iter().position(|count| *count == 0) {
            return Err(bad(format!("class {class} has no row to learn from")));
        }
        if !rows.iter().all(|x| x.is_finite()) {
            return Err(bad("a number of a row is not finite".into()));
        }
        Ok(Self {
            rows,
            dim,
            labels,
            classes,
            base: None,
            weights: None,
        })
    }

    /// The same, with logits, `[labels, classes]`, that are there before anything is learned: a fit is then
    /// what is to be added to them.
    ///
    /// # Panics
    /// When there is not one for each row and class.
    #[must_use]
    pub fn with_base(mut self, base: Option<&'a [f64]>) -> Self {
        if let Some(base) = base {
            let expected = self.labels.len() * self.classes;
            assert_eq!(base.len(), expected, "a logit for each row and class");
        }
        self.base = base;
        self
    }

    /// The same, with how much each row counts: scikit-learn's `sample_weight`.
    ///
    /// # Panics
    /// When there is not one for each row.
    #[must_use]
    pub fn weighted(mut self, weights: Option<&'a [f64]>) -> Self {
        if let Some(weights) = weights {
            assert_eq!(weights.len(), self.labels.len(), "a weight for each row");
        }
        self.weights = weights;
        self
    }

    fn row(&self, i: usize) -> &'a [f32] {
        &self.rows[i * self.dim..][..self.dim]
    }

    fn base_of(&self, i: usize) -> Option<&'a [f64]> {
        Some(&self.base?[i * self.classes..][..self.classes])
    }

    fn weight_of(&self, i: usize) -> f64 {
        self.weights.map_or(1.0, |weights| weights[i])
    }
}

/// How a fit is made.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Options {
    /// scikit-learn's `C`: how much the rows count beside the penalty, above 0.
    pub c: f64,
    /// The fit ends when no part of the gradient of the mean loss is larger.
    pub tolerance: f64,
    /// Steps at most.
    pub max_steps: usize,
}

impl Options {
    /// The usual ones for this `C`.
    pub fn new(c: f64) -> Self {
        Self {
            c,
            tolerance: 1e-6,
            max_steps: 3000,
        }
    }
}

/// A fitted classifier.
#[derive(Debug, Clone, PartialEq)]
pub struct Logistic {
    /// `[classes, dim]`.
    pub weights: Vec<f64>,
    /// `[classes]`.
    pub intercepts: Vec<f64>,
    /// Numbers in a row.
    pub dim: usize,
    /// Steps that the fit took.
    pub steps: usize,
    /// Whether the gradient became as small as was asked for.
    pub converged: bool,
}

impl Logistic {
    /// The classifier that minimizes the sum of all losses times `C` plus half the squared length of
    /// the weights. Two classes have one weight vector in scikit-learn; here each class has half of
    /// it, with opposed signs, and the probabilities are the same. `near` is where to begin, such as
    /// a fit with another `C`.
    ///
    /// # Errors
    /// [`EngineError::BadHead`] when `C` or the tolerance is not a positive number, or `near` is of
    /// other classes or another dim.
    pub fn fit(
        samples: &Samples<'_>,
        options: &Options,
        near: Option<&Self>,
    ) -> Result<Self, EngineError> {
        Self::solve(&Problem::new(samples), options, near)
    }

    /// The same of a problem that several fits may have.
    fn solve(
        problem: &Problem<'_>,
        options: &Options,
        near: Option<&Self>,
    ) -> Result<Self, EngineError> {
        for (name, value) in [("C", options.c), ("the tolerance", options.tolerance)] {
            if !(value.is_finite() && value > 0.0) {
                return Err(bad(format!(
                    "{name} is {value}, expected a positive number"
                )));
            }
        }
        let (classes, dim) = (problem.classes(), problem.dim());
        if let Some(near) = near
            && (near.intercepts.len(), near.dim) != (classes, dim)
        {
            return Err(bad(format!(
                "a fit for {} classes of dim {} to begin with, expected {classes} and {dim}",
                near.intercepts.len(),
                near.dim
            )));
        }
        let objective = problem.with_c(options.c);
        let start = near.map_or_else(
            || vec![0.0; classes * (dim + 1)],
            |near| problem.center(&near.weights, &near.intercepts),
        );
        let minimum = lbfgs::minimize(
            start,
            options,
            |at, gradient| objective.evaluate(at, gradient),
            |gradient| objective.precondition(gradient),
        );
        let (weights, intercepts) = problem.uncenter(&minimum.at);
        Ok(Self {
            weights,
            intercepts,
            dim,
            steps: minimum.steps,
            converged: minimum.converged,
        })
    }

    /// Probability of each class; they sum to 1.
    ///
    /// # Panics
    /// When the row has another dim.
    pub fn probabilities(&self, row: &[f32]) -> Vec<f64> {
        SCORING.probabilities(&self.logits(row))
    }

    /// The logit of each class, without those that were there before.
    ///
    /// # Panics
    /// When the row has another dim.
    pub fn logits(&self, row: &[f32]) -> Vec<f64> {
        assert_eq!(row.len(), self.dim, "a row of another dim");
        let weights = self.weights.chunks_exact(self.dim);
        weights
            .zip(&self.intercepts)
            .map(|(weights, intercept)| sum_of_products(row, weights) + intercept)
            .collect()
    }

    /// The same classifier as a head.
    ///
    /// # Errors
    /// [`EngineError::BadHead`] when the space has another dim, or there is not one distinct name
    /// for each class.
    pub fn head(&self, space: Space, labels: Vec<String>) -> Result<Head, EngineError> {
        let narrow = |numbers: &[f64]| numbers.iter().map(|x| *x as f32).collect();
        let head = Head {
            inputs: Inputs::one(space),
            labels,
            weights: narrow(&self.weights),
            bias: narrow(&self.intercepts),
            scoring: SCORING,
        };
        head.check()?;
        Ok(head)
    }
}

fn bad(reason: String) -> EngineError {
    EngineError::BadHead { reason }
}
