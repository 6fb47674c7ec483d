//! The function that a fit minimizes, and its gradient.

// The loops are one function for each instruction set: see `kernel`.
#![allow(clippy::inline_always)]

use rayon::prelude::*;

use super::{Samples, shape::Shape};
use crate::index::{Kernel, ROWS, Task, run};

/// Rows whose products are held at a time.
const PANEL: usize = 1024;
/// Vectors that one pass over the rows serves.
const TOGETHER: usize = 4;
/// Numbers of a row that are worked on before the next, so that the sums of some vectors stay in the
/// nearest cache.
const TILE: usize = 512;

/// The rows of a fit, whatever `C` it has.
///
/// They are taken relative to their mean. That changes the intercepts alone, which are not
/// penalized, and so not the minimum; embeddings have a large mean, and without it the search takes
/// several times more steps.
pub(super) struct Problem<'a> {
    samples: &'a Samples<'a>,
    mean: Vec<f64>,
    shape: Shape,
}

/// The mean loss, each row by its weight, plus the penalty divided by `C` and the number of rows.
pub(super) struct Objective<'a> {
    problem: &'a Problem<'a>,
    /// Half of what the squared weights are multiplied with.
    penalty: f64,
}

impl<'a> Problem<'a> {
    pub(super) fn new(samples: &'a Samples<'a>) -> Self {
        let n = samples.labels.len() as f64;
        let mut mean = vec![0.0; samples.dim];
        for row in samples.rows.chunks_exact(samples.dim) {
            add(1.0 / n, row, &mut mean);
        }
        let mut problem = Self {
            samples,
            mean,
            shape: Shape::default(),
        };
        problem.shape = Shape::of(&problem);
        problem
    }

    pub(super) fn with_c(&'a self, c: f64) -> Objective<'a> {
        // Each of two classes has half of scikit-learn's one vector: a quarter of its squared
        // length, twice.
        let vectors = if self.samples.classes == 2 { 2.0 } else { 1.0 };
        Objective {
            problem: self,
            penalty: vectors / (c * self.samples.labels.len() as f64),
        }
    }

    pub(super) fn rows(&self) -> usize {
        self.samples.labels.len()
    }

    pub(super) fn dim(&self) -> usize {
        self.samples.dim
    }

    pub(super) fn classes(&self) -> usize {
        self.samples.classes
    }

    /// Parameters of an objective: `[classes, dim]` weights, then `[classes]` intercepts.
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

    /// Multiplies every row with each of a few vectors, `vectors` is `[n, dim]`, has `change` make other
    /// numbers of the products of a row and tell a loss, and adds up the rows by these numbers: `to`, `[n, dim]`,
    /// becomes the sums relative to the mean, `sums`, `[n]`, those of the numbers. The losses are added up, too.
    /// `offsets`, `[n]`, are added to the products.
    pub(super) fn pass(
        &self,
        vectors: &[f64],
        offsets: &[f64],
        [to, sums]: [&mut [f64]; 2],
        change: impl Fn(usize, &mut [f64]) -> f64 + Sync,
    ) -> f64 {
        let Samples {
            rows: all, dim, ..
        } = *self.samples;
        let (n, count) = (self.rows(), offsets.len());
        to.fill(0.0);
        sums.fill(0.0);
        let mut products = vec![0.0; PANEL.min(n) * count];
        let mut loss = 0.0;
        for start in (0..n).step_by(PANEL) {
            let rows = PANEL.min(n - start);
            let panel = &mut products[..rows * count];
            let losses: Vec<f64> = panel
                .par_chunks_mut(ROWS * count)
                .enumerate()
                .map(|(i, out)| {
                    let first = start + ROWS * i;
                    run(Products {
                        rows: &all[first * dim..][..out.len() / count * dim],
                        dim,
                        vectors,
                        out,
                    });
                    let each = out.chunks_exact_mut(count).enumerate();
                    each.map(|(i, out)| {
                        for (out, offset) in out.iter_mut().zip(offsets) {
                            *out += offset;
                        }
                        change(first + i, out)
                    })
                    .sum()
                })
                .collect();
            loss += losses.iter().sum::<f64>();
            to.par_chunks_mut(TOGETHER * dim)
                .zip(sums.par_chunks_mut(TOGETHER))
                .enumerate()
                .for_each(|(group, (to, sums))| {
                    let first = TOGETHER * group;
                    for (i, sum) in sums.iter_mut().enumerate() {
                        let column = panel.iter().skip(first + i).step_by(count);
                        *sum += column.sum::<f64>();
                    }
                    run(Outer {
                        factors: panel,
                        count,
                        first,
                        rows: &all[start * dim..][..rows * dim],
                        dim,
                        to,
                    });
                });
        }
        for (to, sum) in to.chunks_exact_mut(dim).zip(sums) {
            for (to, mean) in to.iter_mut().zip(&self.mean) {
                *to -= *sum * mean;
            }
        }
        loss
    }

    /// What [`Problem::pass`] adds to products, so that they are those of rows relative to the mean.
    pub(super) fn offsets(&self, vectors: &[f64]) -> Vec<f64> {
        let vectors = vectors.chunks_exact(self.dim());
        vectors.map(|vector| -self.at_mean(vector)).collect()
    }

    /// Mean squared distance of rows from their mean.
    pub(super) fn variance(&self) -> f64 {
        let squares: f64 = self.samples.rows.iter().map(|x| f64::from(*x).powi(2)).sum();
        let of_mean: f64 = self.mean.iter().map(|x| x * x).sum();
        (squares / self.rows() as f64 - of_mean).max(0.0)
    }
}

impl Objective<'_> {
    /// The value at some parameters, and the gradient there.
    pub(super) fn evaluate(&self, at: &[f64], gradient: &mut [f64]) -> f64 {
        let Samples { dim, classes, .. } = *self.problem.samples;
        let split = classes * dim;
        let (weights, offsets) = self.problem.uncenter(at);
        let (of_weights, of_intercepts) = gradient.split_at_mut(split);
        let to = [&mut *of_weights, &mut *of_intercepts];
        let loss = self
            .problem
            .pass(&weights, &offsets, to, |i, out| self.loss(i, out));
        let scale = 1.0 / self.problem.rows() as f64;
        for (g, w) in of_weights.iter_mut().zip(&weights) {
            *g = *g * scale + self.penalty * w;
        }
        for g in of_intercepts {
            *g *= scale;
        }
        let squares: f64 = weights.iter().map(|w| w * w).sum();
        loss * scale + 0.5 * self.penalty * squares
    }

    /// Multiplies a gradient with about the inverse of the second derivatives.
    pub(super) fn precondition(&self, gradient: &mut [f64]) {
        let classes = self.problem.samples.classes;
        self.problem.shape.apply(classes, self.penalty, gradient);
    }

    /// Minus the logarithm of the probability of a row's class, by the row's weight. `out`, its logits, becomes
    /// the probabilities, less 1 for that class, by the weight.
    fn loss(&self, i: usize, out: &mut [f64]) -> f64 {
        let samples = self.problem.samples;
        if let Some(base) = samples.base_of(i) {
            for (out, base) in out.iter_mut().zip(base) {
                *out += base;
            }
        }
        let label = samples.labels[i];
        let weight = samples.weight_of(i);
        let most = out.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let own = out[label] - most;
        let sum = run(Exponentials { most, of: out });
        for out in &mut *out {
            *out *= weight / sum;
        }
        out[label] -= weight;
        weight * (sum.ln() - own)
    }
}

/// Numbers less `most`, which none exceeds, become powers of e; returns their sum.
pub(super) struct Exponentials<'a> {
    pub(super) most: f64,
    pub(super) of: &'a mut [f64],
}

impl Task for Exponentials<'_> {
    type Output = f64;

    #[inline(always)]
    fn run<K: Kernel>(self, kernel: K) -> f64 {
        for x in &mut *self.of {
            *x = exp(kernel, *x - self.most);
        }
        self.of.iter().sum()
    }
}

/// e to a number that is not above 0, to 13 digits at least; 0 where that is below the least normal number. Other than
/// the library's it has no branch, so that a loop of it takes several numbers at a time.
#[inline(always)]
fn exp<K: Kernel>(kernel: K, x: f64) -> f64 {
    use std::f64::consts::{LN_2, LOG2_E};
    /// What is left of ln 2 behind its first 53 bits.
    const LN_2_REST: f64 = 2.319_046_813_846_299_6e-17;
    /// Added to a small number, it leaves the nearest whole one in the lowest bits.
    const ROUND: f64 = 6_755_399_441_055_744.0;
    const LEAST: f64 = -708.0;
    let bounded = x.max(LEAST);
    let shifted = kernel.multiply_add(bounded, LOG2_E, ROUND);
    let whole = shifted - ROUND;
    let rest = kernel.multiply_add(-whole, LN_2, bounded);
    let rest = kernel.multiply_add(-whole, LN_2_REST, rest);
    // Taylor's series: |rest| is at most half of ln 2, and the first term left out below 2e-16.
    let mut sum = 1.0 / 479_001_600.0;
    for factor in [
        1.0 / 39_916_800.0,
        1.0 / 3_628_800.0,
        1.0 / 362_880.0,
        1.0 / 40_320.0,
        1.0 / 5_040.0,
        1.0 / 720.0,
        1.0 / 120.0,
        1.0 / 24.0,
        1.0 / 6.0,
        0.5,
        1.0,
        1.0,
    ] {
        sum = kernel.multiply_add(sum, rest, factor);
    }
    // 2 to the whole number, from its exponent.
    let power = f64::from_bits((shifted.to_bits() << 52).wrapping_add(1.0_f64.to_bits()));
    if x < LEAST { 0.0 } else { sum * power }
}

/// Products of a few rows with some vectors: `out` is `[rows, vectors]`.
struct Products<'a> {
    rows: &'a [f32],
    dim: usize,
    vectors: &'a [f64],
    out: &'a mut [f64],
}

impl Task for Products<'_> {
    type Output = ();

    #[inline(always)]
    fn run<K: Kernel>(self, kernel: K) {
        let count = self.vectors.len() / self.dim;
        let rows: [&[f32]; ROWS] = std::array::from_fn(|i| {
            // Past the last row the first one stands in, and what comes out is not used.
            let row = self.rows.get(i * self.dim..(i + 1) * self.dim);
            row.unwrap_or(&self.rows[..self.dim])
        });
        for (pair, vectors) in self.vectors.chunks(2 * self.dim).enumerate() {
            let (first, second) = vectors.split_at(self.dim);
            // The last of an odd number stands in for the one that is missing.
            let is_alone = second.is_empty();
            let [of_first, of_second] =
                kernel.dots(rows, [first, if is_alone { first } else { second }]);
            for (i, out) in self.out.chunks_exact_mut(count).enumerate() {
                out[2 * pair] = of_first[i];
                if !is_alone {
                    out[2 * pair + 1] = of_second[i];
                }
            }
        }
    }
}

/// Adds up rows by each of a few factors: `to` is `[few, dim]`, `factors` is `[rows, count]`.
struct Outer<'a> {
    factors: &'a [f64],
    count: usize,
    /// The first of the factors that are meant.
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
            let factors = self.factors.chunks(ROWS * self.count);
            for (rows, of_rows) in groups.zip(factors) {
                let tile: [&[f32]; ROWS] = std::array::from_fn(|i| {
                    let row = rows.get(i * self.dim + start..i * self.dim + end);
                    row.unwrap_or(&rows[start..end])
                });
                // Past the last row nothing is added.
                let factors = |number: usize| -> [f64; ROWS] {
                    std::array::from_fn(|i| {
                        let at = i * self.count + self.first + number;
                        of_rows.get(at).copied().unwrap_or(0.0)
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
