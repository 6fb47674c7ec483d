//! The function that a fit minimizes, and its gradient.

// The loops are one function for each instruction set: see `kernel`.
#![allow(clippy::inline_always)]

use rayon::prelude::*;

use super::{Samples, shape::Shape};
use crate::{
    index::{Kernel, Task, run},
    product::{Matrix, add_product},
};

/// Rows that are held in double precision at a time, with their products.
const PANEL: usize = 512;
/// Rows that one thread multiplies at a time.
const BLOCK: usize = 128;
/// Vectors whose sums one thread adds up at a time.
const TOGETHER: usize = 16;

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

    /// Multiplies every row, relative to the mean, with each of a few vectors, `vectors` is `[n, dim]`, has `change`
    /// make other numbers of the products of a row and tell a loss, and adds up the rows by these numbers: `to`,
    /// `[n, dim]`, becomes the sums, `sums`, `[n]`, those of the numbers. The losses are added up, too. `offsets`,
    /// `[n]`, are added to the products.
    pub(super) fn pass(
        &self,
        vectors: &[f64],
        offsets: &[f64],
        [to, sums]: [&mut [f64]; 2],
        change: impl Fn(usize, &mut [f64]) -> f64 + Sync,
    ) -> f64 {
        let Samples { rows: all, dim, .. } = *self.samples;
        let (n, count) = (self.rows(), offsets.len());
        to.fill(0.0);
        sums.fill(0.0);
        let mut panel = vec![0.0; PANEL.min(n) * dim];
        let mut products = vec![0.0; PANEL.min(n) * count];
        let vectors = Matrix::of_rows(vectors, dim).transposed();
        let mut loss = 0.0;
        for start in (0..n).step_by(PANEL) {
            let rows = PANEL.min(n - start);
            let (panel, products) = (&mut panel[..rows * dim], &mut products[..rows * count]);
            let blocks = panel.par_chunks_mut(BLOCK * dim);
            let losses: Vec<f64> = blocks
                .zip(products.par_chunks_mut(BLOCK * count))
                .enumerate()
                .map(|(i, (centered, out))| {
                    let first = start + BLOCK * i;
                    let rows = all[first * dim..].chunks_exact(dim);
                    for (centered, row) in centered.chunks_exact_mut(dim).zip(rows) {
                        for ((to, x), mean) in centered.iter_mut().zip(row).zip(&self.mean) {
                            *to = f64::from(*x) - mean;
                        }
                    }
                    for out in out.chunks_exact_mut(count) {
                        out.copy_from_slice(offsets);
                    }
                    add_product(Matrix::of_rows(centered, dim), vectors, out);
                    let each = out.chunks_exact_mut(count).enumerate();
                    each.map(|(i, out)| change(first + i, out)).sum()
                })
                .collect();
            loss += losses.iter().sum::<f64>();
            for row in products.chunks_exact(count) {
                for (sum, factor) in sums.iter_mut().zip(row) {
                    *sum += factor;
                }
            }
            let (panel, factors) = (
                Matrix::of_rows(panel, dim),
                Matrix::of_rows(products, count),
            );
            let groups = to.par_chunks_mut(TOGETHER * dim).enumerate();
            groups.for_each(|(group, to)| {
                let factors = factors.columns(TOGETHER * group, to.len() / dim);
                add_product(factors.transposed(), panel, to);
            });
        }
        loss
    }

    /// Mean squared distance of rows from their mean.
    pub(super) fn variance(&self) -> f64 {
        let squares: f64 = self
            .samples
            .rows
            .iter()
            .map(|x| f64::from(*x).powi(2))
            .sum();
        let of_mean: f64 = self.mean.iter().map(|x| x * x).sum();
        (squares / self.rows() as f64 - of_mean).max(0.0)
    }
}

impl Objective<'_> {
    /// The value at some parameters, and the gradient there.
    pub(super) fn evaluate(&self, at: &[f64], gradient: &mut [f64]) -> f64 {
        let Samples { dim, classes, .. } = *self.problem.samples;
        let split = classes * dim;
        let (weights, offsets) = at.split_at(split);
        let (of_weights, of_intercepts) = gradient.split_at_mut(split);
        let to = [&mut *of_weights, &mut *of_intercepts];
        let loss = self
            .problem
            .pass(weights, offsets, to, |i, out| self.loss(i, out));
        let scale = 1.0 / self.problem.rows() as f64;
        for (g, w) in of_weights.iter_mut().zip(weights) {
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

/// Adds a multiple of a row.
fn add(factor: f64, row: &[f32], to: &mut [f64]) {
    for (to, x) in to.iter_mut().zip(row) {
        *to += factor * f64::from(*x);
    }
}
