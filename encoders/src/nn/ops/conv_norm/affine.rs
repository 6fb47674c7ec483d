//! The normalization itself, over rows of channels.

use super::ROWS;
use crate::cpu::{dense::filled, wide};

/// Sums over some rows, relative to the first of them, so that a large mean does not cancel.
pub(super) struct Part {
    origin: Vec<f32>,
    sums: Vec<f32>,
    squares: Vec<f32>,
    count: usize,
}

impl Part {
    /// Of at least one row.
    pub fn of(rows: &[f32], c: usize) -> Self {
        let (origin, mut sums, mut squares) = (rows[..c].to_vec(), vec![0.0; c], vec![0.0; c]);
        wide(
            #[inline(always)]
            || {
                let (origin, sums, squares) = (&origin[..c], &mut sums[..c], &mut squares[..c]);
                for row in rows.chunks_exact(c) {
                    for j in 0..c {
                        let d = row[j] - origin[j];
                        sums[j] += d;
                        squares[j] += d * d;
                    }
                }
            },
        );
        Self {
            origin,
            sums,
            squares,
            count: rows.len() / c,
        }
    }

    /// Mean and biased variance of all parts, which are added in the order of their numbers (Chan et al. 1979,
    /// equation 2.1).
    pub fn together(mut parts: Vec<(usize, Self)>, c: usize) -> (Vec<f32>, Vec<f32>) {
        parts.sort_unstable_by_key(|(i, _)| *i);
        let (mut count, mut mean, mut squares) = (0.0, vec![0.0_f64; c], vec![0.0_f64; c]);
        for (_, part) in parts {
            let own = part.count as f64;
            let all: f64 = count + own;
            for j in 0..c {
                let offset = f64::from(part.sums[j]) / own;
                let within = f64::from(part.squares[j]) - own * offset * offset;
                let apart = f64::from(part.origin[j]) + offset - mean[j];
                squares[j] += within + apart * apart * count * own / all;
                mean[j] += apart * own / all;
            }
            count = all;
        }
        let variance = squares.iter().map(|q| (q / count).max(0.0) as f32);
        (mean.iter().map(|m| *m as f32).collect(), variance.collect())
    }
}

/// What normalization does to a row, and whether a rectifier follows.
pub(super) struct Affine {
    mean: Vec<f32>,
    inverse: Vec<f32>,
    /// `inverse * gamma`.
    scale: Vec<f32>,
    beta: Vec<f32>,
    relu: bool,
}

impl Affine {
    pub fn new(
        (mean, variance): (&[f32], &[f32]),
        (gamma, beta, eps): (&[f32], Vec<f32>, f64),
        relu: bool,
    ) -> Self {
        let inverse = |v: &f32| (1.0 / (f64::from(*v) + eps).sqrt()) as f32;
        let inverse: Vec<f32> = variance.iter().map(inverse).collect();
        Self {
            mean: mean.to_vec(),
            scale: inverse.iter().zip(gamma).map(|(i, g)| i * g).collect(),
            inverse,
            beta,
            relu,
        }
    }

    /// Number of channels.
    pub fn channels(&self) -> usize {
        self.mean.len()
    }

    /// Outputs that are not above it are replaced by it.
    fn floor(&self) -> f32 {
        if self.relu { 0.0 } else { f32::NEG_INFINITY }
    }

    pub fn forward(&self, z: &[f32]) -> Vec<f32> {
        let floor = self.floor();
        self.outputs(z, z, |value, _| if value > floor { value } else { floor })
    }

    /// The sum with another map, rectified.
    pub fn forward_onto(&self, z: &[f32], other: &[f32]) -> Vec<f32> {
        self.outputs(z, other, |value, other| {
            let value = value + other;
            if value > 0.0 { value } else { 0.0 }
        })
    }

    /// `f` of each normalized number and the other one in its place.
    fn outputs(&self, z: &[f32], other: &[f32], f: impl Fn(f32, f32) -> f32 + Sync) -> Vec<f32> {
        let c = self.mean.len();
        // SAFETY: a chunk is as long as its part of the input, so that all of it is written.
        #[allow(unsafe_code)]
        unsafe {
            filled(z.len(), ROWS * c, |i, y| {
                let part = i * ROWS * c..i * ROWS * c + y.len();
                let (z, other) = (&z[part.clone()], &other[part]);
                let (mean, scale, beta) = (&self.mean[..c], &self.scale[..c], &self.beta[..c]);
                wide(
                    #[inline(always)]
                    || {
                        let rows = z.chunks_exact(c).zip(other.chunks_exact(c));
                        for (y, (z, other)) in y.chunks_exact_mut(c).zip(rows) {
                            for j in 0..c {
                                let value = (z[j] - mean[j]) * scale[j] + beta[j];
                                y[j].write(f(value, other[j]));
                            }
                        }
                    },
                );
            })
        }
    }

    /// Sums over rows of the gradient behind the normalization, and of it times what was normalized: the gradients
    /// of `beta` and `gamma`. Whether an output was rectified is seen from its input, so that one map less is
    /// read; without a rectifier all let their gradient through.
    pub fn sums(&self, z: &[f32], g: &[f32], sums: &mut [f32]) {
        let c = self.mean.len();
        let (sum, dot) = sums.split_at_mut(c);
        let (mean, inverse, scale) = (&self.mean[..c], &self.inverse[..c], &self.scale[..c]);
        let (sum, dot, beta) = (&mut sum[..c], &mut dot[..c], &self.beta[..c]);
        let floor = self.floor();
        wide(
            #[inline(always)]
            || {
                for (z, g) in z.chunks_exact(c).zip(g.chunks_exact(c)) {
                    for j in 0..c {
                        let d = z[j] - mean[j];
                        let passes = d * scale[j] + beta[j] > floor;
                        let g = if passes { g[j] } else { 0.0 };
                        sum[j] += g;
                        dot[j] += g * d * inverse[j];
                    }
                }
            },
        );
    }

    /// The gradient before the normalization, by the means of both sums.
    pub fn backward(
        &self,
        z: &[f32],
        g: &[f32],
        (mean_g, mean_gx): (&[f32], &[f32]),
        dz: &mut [f32],
    ) {
        let c = self.mean.len();
        let (mean, inverse, scale) = (&self.mean[..c], &self.inverse[..c], &self.scale[..c]);
        let (mean_g, mean_gx, beta) = (&mean_g[..c], &mean_gx[..c], &self.beta[..c]);
        let floor = self.floor();
        wide(
            #[inline(always)]
            || {
                let rows = z.chunks_exact(c).zip(g.chunks_exact(c));
                for (dz, (z, g)) in dz.chunks_exact_mut(c).zip(rows) {
                    for j in 0..c {
                        let d = z[j] - mean[j];
                        let passes = d * scale[j] + beta[j] > floor;
                        let g = if passes { g[j] } else { 0.0 };
                        let slope = g - mean_g[j] - d * inverse[j] * mean_gx[j];
                        dz[j] = scale[j] * slope;
                    }
                }
            },
        );
    }
}
