//! The function that a fit minimizes, and its gradient.

// The loops are one function for each instruction set: see `kernel`.
#![allow(clippy::inline_always)]

use rayon::prelude::*;

use super::Samples;
use crate::index::{Kernel, ROWS, Task, run};

/// Rows whose residuals are held at a time.
const PANEL: usize = 1024;
/// Classes that one pass over the rows serves.
const TOGETHER: usize = 4;
/// Numbers of a row that are worked on before the next, so that the gradients of some classes stay in the
/// nearest cache.
const TILE: usize = 512;

/// The mean loss, each row by its weight, plus the penalty divided by `C` and the number of rows.
///
/// Rows are taken relative to their mean. That changes the intercepts alone, which are not
/// penalized, and so not the minimum; embeddings have a large mean, and without it the search takes
/// several times more steps.
pub(super) struct Objective<'a> {
    samples: &'a Samples<'a>,
    mean: Vec<f64>,
    /// Half of what the squared weights are multiplied with.
    penalty: f64,
}

impl<'a> Objective<'a> {
    pub(super) fn new(samples: &'a Samples<'a>, c: f64) -> Self {
        let n = samples.labels.len() as f64;
        let mut mean = vec![0.0; samples.dim];
        for row in samples.rows.chunks_exact(samples.dim) {
            add(1.0 / n, row, &mut mean);
        }
        // Each of two classes has half of scikit-learn's one vector: a quarter of its squared
        // length, twice.
        let vectors = if samples.classes == 2 { 2.0 } else { 1.0 };
        let penalty = vectors / (c * n);
        Self {
            samples,
            mean,
            penalty,
        }
    }

    /// Parameters of this function: `[classes, dim]` weights, then `[classes]` intercepts.
    pub(super) fn center(&self, weights: &[f64], intercepts: &[f64]) -> Vec<f64> {
        let shift = |(weights, intercept): (&[f64], &f64)| intercept + self.at_mean(weights);
        let rows = weights.chunks_exact(self.samples.dim);
        let shifted = rows.zip(intercepts).map(shift);
        weights.iter().copied().chain(shifted).collect()
    }

    /// Weights and intercepts for rows as they are.
    pub(super) fn uncenter(&self, at: &[f64]) -> (Vec<f64>, Vec<f64>) {
        let (weights, intercepts) = at.split_at(self.samples.classes * self.samples.dim);
        let rows = weights.chunks_exact(self.samples.dim);
        let shifted = rows
            .zip(intercepts)
            .map(|(weights, intercept)| intercept - self.at_mean(weights));
        (weights.to_vec(), shifted.collect())
    }

    fn at_mean(&self, weights: &[f64]) -> f64 {
        self.mean.iter().zip(weights).map(|(m, w)| m * w).sum()
    }

    /// The value at some parameters, and the gradient there.
    pub(super) fn evaluate(&self, at: &[f64], gradient: &mut [f64]) -> f64 {
        let Samples {
            dim,
            labels,
            classes,
            ..
        } = *self.samples;
        let (n, split) = (labels.len(), classes * dim);
        let (_, offsets) = self.uncenter(at);
        gradient.fill(0.0);
        let (of_weights, of_intercepts) = gradient.split_at_mut(split);
        let mut residuals = vec![0.0; PANEL.min(n) * classes];
        let mut loss = 0.0;
        for start in (0..n).step_by(PANEL) {
            let rows = PANEL.min(n - start);
            let panel = &mut residuals[..rows * classes];
            let losses: Vec<f64> = panel
                .par_chunks_mut(ROWS * classes)
                .enumerate()
                .map(|(i, out)| self.losses(start + ROWS * i, &at[..split], &offsets, out))
                .collect();
            loss += losses.iter().sum::<f64>();
            of_weights
                .par_chunks_mut(TOGETHER * dim)
                .zip(of_intercepts.par_chunks_mut(TOGETHER))
                .enumerate()
                .for_each(|(group, (of_weights, of_intercepts))| {
                    let first = TOGETHER * group;
                    for (class, of_intercept) in of_intercepts.iter_mut().enumerate() {
                        let column = panel.iter().skip(first + class).step_by(classes);
                        *of_intercept += column.sum::<f64>();
                    }
                    run(Outer {
                        residuals: panel,
                        classes,
                        first,
                        rows: &self.samples.rows[start * dim..][..rows * dim],
                        dim,
                        to: of_weights,
                    });
                });
        }
        let scale = 1.0 / n as f64;
        let classes = of_weights.chunks_exact_mut(dim).zip(at.chunks_exact(dim));
        for ((of_weights, weights), of_intercept) in classes.zip(of_intercepts) {
            for ((g, w), mean) in of_weights.iter_mut().zip(weights).zip(&self.mean) {
                *g = (*g - *of_intercept * mean) * scale + self.penalty * w;
            }
            *of_intercept *= scale;
        }
        let squares: f64 = at[..split].iter().map(|w| w * w).sum();
        loss * scale + 0.5 * self.penalty * squares
    }

    /// Minus the logarithm of the probability of the class of each row from `first` on, by their
    /// weights, summed. `out`, `[rows, classes]`, becomes the probabilities, less 1 for that class, by the
    /// weights.
    fn losses(&self, first: usize, weights: &[f64], offsets: &[f64], out: &mut [f64]) -> f64 {
        let Samples {
            rows, dim, classes, ..
        } = *self.samples;
        let count = out.len() / classes;
        run(Logits {
            rows: &rows[first * dim..][..count * dim],
            dim,
            weights,
            out,
        });
        let each = out.chunks_exact_mut(classes).enumerate();
        each.map(|(i, out)| self.loss(first + i, offsets, out))
            .sum()
    }

    /// The same of one row, from its logits without offsets.
    fn loss(&self, i: usize, offsets: &[f64], out: &mut [f64]) -> f64 {
        for (out, offset) in out.iter_mut().zip(offsets) {
            *out += offset;
        }
        if let Some(base) = self.samples.base_of(i) {
            for (out, base) in out.iter_mut().zip(base) {
                *out += base;
            }
        }
        let label = self.samples.labels[i];
        let weight = self.samples.weight_of(i);
        let most = out.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let own = out[label] - most;
        let mut sum = 0.0;
        for out in &mut *out {
            *out = (*out - most).exp();
            sum += *out;
        }
        for out in &mut *out {
            *out *= weight / sum;
        }
        out[label] -= weight;
        weight * (sum.ln() - own)
    }
}

/// Logits of a few rows: `out` is `[rows, classes]`.
struct Logits<'a> {
    rows: &'a [f32],
    dim: usize,
    weights: &'a [f64],
    out: &'a mut [f64],
}

impl Task for Logits<'_> {
    type Output = ();

    #[inline(always)]
    fn run<K: Kernel>(self, kernel: K) {
        let classes = self.weights.len() / self.dim;
        let rows: [&[f32]; ROWS] = std::array::from_fn(|i| {
            // Past the last row the first one stands in, and what comes out is not used.
            let row = self.rows.get(i * self.dim..(i + 1) * self.dim);
            row.unwrap_or(&self.rows[..self.dim])
        });
        for (pair, weights) in self.weights.chunks(2 * self.dim).enumerate() {
            let (first, second) = weights.split_at(self.dim);
            // The last of an odd number stands in for the one that is missing.
            let is_alone = second.is_empty();
            let [of_first, of_second] =
                kernel.dots(rows, [first, if is_alone { first } else { second }]);
            for (i, out) in self.out.chunks_exact_mut(classes).enumerate() {
                out[2 * pair] = of_first[i];
                if !is_alone {
                    out[2 * pair + 1] = of_second[i];
                }
            }
        }
    }
}

/// Adds to each of a few classes, `to` is `[classes, dim]`, all rows by their residuals for it.
struct Outer<'a> {
    residuals: &'a [f64],
    /// Of the residuals; `first` is the first one of `to`.
    classes: usize,
    first: usize,
    rows: &'a [f32],
    dim: usize,
    to: &'a mut [f64],
}

impl Task for Outer<'_> {
    type Output = ();

    #[inline(always)]
    fn run<K: Kernel>(self, kernel: K) {
        let mut start = 0;
        while start < self.dim {
            let end = self.dim.min(start + TILE);
            let groups = self.rows.chunks(ROWS * self.dim);
            let residuals = self.residuals.chunks(ROWS * self.classes);
            for (rows, residuals) in groups.zip(residuals) {
                let tile: [&[f32]; ROWS] = std::array::from_fn(|i| {
                    let row = rows.get(i * self.dim + start..i * self.dim + end);
                    row.unwrap_or(&rows[start..end])
                });
                // Past the last row nothing is added.
                let factors = |class: usize| -> [f64; ROWS] {
                    std::array::from_fn(|i| {
                        let at = i * self.classes + self.first + class;
                        residuals.get(at).copied().unwrap_or(0.0)
                    })
                };
                for (pair, to) in self.to.chunks_mut(2 * self.dim).enumerate() {
                    let (one, other) = to.split_at_mut(self.dim);
                    let one = &mut one[start..end];
                    let factors = [factors(2 * pair), factors(2 * pair + 1)];
                    if other.is_empty() {
                        add_all(kernel, factors[0], tile, one);
                    } else {
                        add_to_both(kernel, factors, tile, [one, &mut other[start..end]]);
                    }
                }
            }
            start = end;
        }
    }
}

/// Adds a multiple of each of a few rows.
#[inline(always)]
fn add_all<K: Kernel>(kernel: K, factors: [f64; ROWS], rows: [&[f32]; ROWS], to: &mut [f64]) {
    let n = to.len();
    let rows = rows.map(|row| &row[..n]);
    for i in 0..n {
        for (factor, row) in factors.iter().zip(&rows) {
            to[i] = kernel.multiply_add(*factor, f64::from(row[i]), to[i]);
        }
    }
}

/// The same for two, so that each number of a row is widened once.
#[inline(always)]
fn add_to_both<K: Kernel>(
    kernel: K,
    [factors, others]: [[f64; ROWS]; 2],
    rows: [&[f32]; ROWS],
    [to, other]: [&mut [f64]; 2],
) {
    let n = to.len();
    let other = &mut other[..n];
    let rows = rows.map(|row| &row[..n]);
    for i in 0..n {
        let mut x = [0.0; ROWS];
        for r in 0..ROWS {
            x[r] = f64::from(rows[r][i]);
        }
        for r in 0..ROWS {
            to[i] = kernel.multiply_add(factors[r], x[r], to[i]);
            other[i] = kernel.multiply_add(others[r], x[r], other[i]);
        }
    }
}

/// Adds a multiple of a row.
fn add(factor: f64, row: &[f32], to: &mut [f64]) {
    for (to, x) in to.iter_mut().zip(row) {
        *to += factor * f64::from(*x);
    }
}
