//! How rows lie, as far as it tells the second derivatives of their loss.
//!
//! These are about the covariance of the rows times the mean of `p (1 - p)`, plus the penalty. Embeddings
//! vary far more in a few directions than in all others; told of these, L-BFGS needs about half as many steps.

use rayon::prelude::*;

use super::objective::Problem;
use crate::directions::{Directions, add, dot};

/// Directions that are told apart, at most; also one for so many numbers of a row, and one for a class, so
/// that finding them takes no longer than a few evaluations of the loss.
const MOST: usize = 64;
const NUMBERS: usize = 8;
/// Passes over the rows that find them.
const PASSES: usize = 4;
const SEED: u64 = 3;
/// A variance of this part of the whole is as good as none.
const LEAST: f64 = 1e-9;

/// Main directions of rows.
#[derive(Debug, Default)]
pub(super) struct Shape {
    dim: usize,
    found: Directions,
    /// The variance in each of them.
    variances: Vec<f64>,
    /// The mean variance in all others.
    rest: f64,
}

impl Shape {
    /// Directions that are not told apart when the passes end do no harm: any precondition, better or worse.
    pub(super) fn of(problem: &Problem<'_>) -> Self {
        let (dim, classes) = (problem.dim(), problem.classes());
        let count = MOST.min(dim / NUMBERS).min(classes);
        let (offsets, mut sums) = (vec![0.0; count], vec![0.0; count]);
        let found = Directions::find((count, dim), (PASSES, SEED), |axes| {
            let mut next = vec![0.0; axes.len()];
            problem.pass(axes, &offsets, [&mut next, &mut sums], |_, _| 0.0);
            next
        });
        let rows = problem.rows() as f64;
        let variances: Vec<f64> = found.squares.iter().map(|sum| sum / rows).collect();
        let whole = problem.variance();
        let told: f64 = variances.iter().sum();
        Self {
            dim,
            found,
            variances,
            rest: (whole - told).max(LEAST * whole) / (dim - count).max(1) as f64,
        }
    }

    /// Multiplies `[classes, dim]` numbers for weights and `[classes]` for intercepts with about the inverse of the
    /// second derivatives.
    pub(super) fn apply(&self, classes: usize, penalty: f64, numbers: &mut [f64]) {
        // The mean of p (1 - p) while nothing is known. It sinks as probabilities become sure, by much the same
        // in all directions, and the last step tells L-BFGS about a common factor.
        let spread = (1.0 - 1.0 / classes as f64) / classes as f64;
        let (of_weights, of_intercepts) = numbers.split_at_mut(classes * self.dim);
        let rest = 1.0 / (penalty + spread * self.rest);
        of_weights.par_chunks_mut(self.dim).for_each(|numbers| {
            let directions = self.found.axes.chunks_exact(self.dim);
            let parts: Vec<f64> = directions
                .clone()
                .map(|direction| dot(direction, numbers))
                .collect();
            for x in &mut *numbers {
                *x *= rest;
            }
            for ((direction, part), variance) in directions.zip(parts).zip(&self.variances) {
                let along = 1.0 / (penalty + spread * variance);
                add(part * (along - rest), direction, numbers);
            }
        });
        for x in of_intercepts {
            *x /= spread;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Samples, *};
    use crate::Draws;

    /// Rows that vary in three directions only, by 3, 2 and 1, and in all others by a little.
    #[test]
    fn the_directions_that_rows_vary_most_in_are_found() {
        let (n, dim, classes) = (600, 32, 3);
        let mut draws = Draws::new(&[9]);
        let mut number = || draws.below(2001) as f32 / 1000.0 - 1.0;
        let rows: Vec<f32> = (0..n)
            .flat_map(|_| {
                let mut row: Vec<f32> = (0..dim).map(|_| 5.0 + 0.01 * number()).collect();
                for (at, by) in [(4, 3.0), (11, 2.0), (30, 1.0)] {
                    row[at] += by * number();
                }
                row
            })
            .collect();
        let labels: Vec<usize> = (0..n).map(|i| i % classes).collect();
        let samples = Samples::new(&rows, dim, &labels, classes).expect("fine");
        let shape = Shape::of(&Problem::new(&samples));
        for (i, (at, by)) in [(4, 3.0), (11, 2.0), (30, 1.0_f64)].into_iter().enumerate() {
            let along = shape.found.axes[i * dim + at];
            assert!(along.abs() > 0.97, "{at}: {along}");
            let expected = by * by / 3.0;
            let found = shape.variances[i] / expected;
            assert!((found - 1.0).abs() < 0.15, "{at}: {found}");
        }
        assert!(shape.rest < 1e-3, "{}", shape.rest);
        // The inverse, multiplied with what it is of, is what it was.
        let mut numbers = vec![0.0; classes * (dim + 1)];
        numbers[11] = 1.0;
        shape.apply(classes, 0.5, &mut numbers);
        let expected = 1.0 / (0.5 + 2.0 / 9.0 * shape.variances[1]);
        assert!(
            (numbers[11] / expected - 1.0).abs() < 0.01,
            "{}",
            numbers[11]
        );
    }
}
