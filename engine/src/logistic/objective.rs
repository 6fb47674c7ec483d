//! The function that a fit minimizes, and its gradient.

use rayon::prelude::*;

use super::Samples;

/// Rows whose residuals are held at a time.
const PANEL: usize = 1024;
/// Sums of a dot product that run side by side.
const LANES: usize = 8;

/// The mean loss plus the penalty divided by `C` and the number of rows.
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
                .par_chunks_exact_mut(classes)
                .enumerate()
                .map(|(i, out)| self.row_loss(start + i, &at[..split], &offsets, out))
                .collect();
            loss += losses.iter().sum::<f64>();
            of_weights
                .par_chunks_exact_mut(dim)
                .zip(&mut *of_intercepts)
                .enumerate()
                .for_each(|(class, (of_weights, of_intercept))| {
                    for i in 0..rows {
                        let residual = panel[i * classes + class];
                        add(residual, self.samples.row(start + i), of_weights);
                        *of_intercept += residual;
                    }
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

    /// Minus the logarithm of the probability of a row's class. `out` becomes the probabilities, less
    /// 1 for that class.
    fn row_loss(&self, i: usize, weights: &[f64], offsets: &[f64], out: &mut [f64]) -> f64 {
        let row = self.samples.row(i);
        let rows = weights.chunks_exact(self.samples.dim);
        for ((out, weights), offset) in out.iter_mut().zip(rows).zip(offsets) {
            *out = dot(row, weights) + offset;
        }
        let label = self.samples.labels[i];
        let most = out.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let own = out[label] - most;
        let mut sum = 0.0;
        for out in &mut *out {
            *out = (*out - most).exp();
            sum += *out;
        }
        for out in &mut *out {
            *out /= sum;
        }
        out[label] -= 1.0;
        sum.ln() - own
    }
}

/// Sum of products, in double precision and in a fixed order.
pub(super) fn dot(row: &[f32], weights: &[f64]) -> f64 {
    let (rows, weights) = (row.chunks_exact(LANES), weights.chunks_exact(LANES));
    let rest = rows.remainder().iter().zip(weights.remainder());
    let rest: f64 = rest.map(|(x, w)| f64::from(*x) * w).sum();
    let mut sums = [0.0; LANES];
    for (row, weights) in rows.zip(weights) {
        for ((sum, x), w) in sums.iter_mut().zip(row).zip(weights) {
            *sum += f64::from(*x) * w;
        }
    }
    sums.iter().sum::<f64>() + rest
}

/// Adds a multiple of a row.
fn add(factor: f64, row: &[f32], to: &mut [f64]) {
    for (to, x) in to.iter_mut().zip(row) {
        *to += factor * f64::from(*x);
    }
}
