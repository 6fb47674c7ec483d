//! Batch normalisation (Ioffe, Szegedy 2015, algorithm 1) over the last axis, with an optional
//! rectifier behind it, in two passes over memory.

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::{elements, with_elements};
use crate::cpu::wide;

/// Rows that one task works on.
const ROWS: usize = 2048;

/// Mean and biased variance per channel, on the device of the input and without a gradient.
#[derive(Debug, Clone)]
pub struct BatchStatistics {
    /// Mean per channel, `[c]`.
    pub mean: Tensor,
    /// Biased variance per channel, `[c]`.
    pub variance: Tensor,
    /// Number of values per channel that they were taken over.
    pub count: usize,
}

/// The same in the memory of the CPU, between the two passes.
#[derive(Debug, Clone, Default)]
struct Moments {
    mean: Vec<f32>,
    variance: Vec<f32>,
    count: usize,
}

/// Normalises `x` `[.., c]` by the statistics of this batch, scales by `gamma` `[c]`, shifts by
/// `beta` `[c]`, and rectifies where `relu` is set. Returns the statistics for the running means.
///
/// # Errors
/// When shapes do not fit each other.
pub fn batch_norm(
    x: &Tensor,
    gamma: &Tensor,
    beta: &Tensor,
    eps: f64,
    relu: bool,
) -> Result<(Tensor, BatchStatistics)> {
    #[cfg(feature = "cuda")]
    if x.device().is_cuda() {
        return super::cuda::batch_norm(x, gamma, beta, eps, relu);
    }
    let statistics = Arc::new(Mutex::new(Moments::default()));
    let op = BatchNorm {
        eps,
        relu,
        statistics: Arc::clone(&statistics),
    };
    let y = x.contiguous()?.apply_op3(gamma, beta, op)?;
    let moments = statistics
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone();
    let vector = |values: Vec<f32>| Tensor::from_vec(values, gamma.shape(), x.device());
    let statistics = BatchStatistics {
        mean: vector(moments.mean)?,
        variance: vector(moments.variance)?,
        count: moments.count,
    };
    Ok((y, statistics))
}

struct BatchNorm {
    eps: f64,
    relu: bool,
    /// Written by the forward pass, read by the backward pass.
    statistics: Arc<Mutex<Moments>>,
}

impl BatchNorm {
    fn inverse_deviation(&self, variance: &[f32]) -> Vec<f32> {
        variance
            .iter()
            .map(|v| (1.0 / (f64::from(*v) + self.eps).sqrt()) as f32)
            .collect()
    }
}

/// Sums `f(row, sums)` over all rows of `[rows, c]` in a fixed order. `sums` is `[2, c]`.
fn sum_rows(rows: usize, c: usize, f: impl Fn(usize, &mut [f32]) + Sync) -> Vec<f64> {
    let partial: Vec<Vec<f32>> = (0..rows.div_ceil(ROWS))
        .into_par_iter()
        .map(|task| {
            let mut sums = vec![0.0; 2 * c];
            wide(
                #[inline(always)]
                || {
                    for row in task * ROWS..rows.min((task + 1) * ROWS) {
                        f(row, &mut sums);
                    }
                },
            );
            sums
        })
        .collect();
    let mut total = vec![0.0; 2 * c];
    for sums in partial {
        for (t, s) in total.iter_mut().zip(sums) {
            *t += f64::from(s);
        }
    }
    total
}

impl CustomOp3 for BatchNorm {
    fn name(&self) -> &'static str {
        "batch-norm"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
        s3: &CpuStorage,
        l3: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, gamma, beta) = (elements(s1, l1)?, elements(s2, l2)?, elements(s3, l3)?);
        let c = gamma.len();
        let rows = x.len() / c;
        // Sums are taken relative to the first row, so that a large mean does not cancel.
        let origin = &x[..c];
        let sums = sum_rows(
            rows,
            c,
            #[inline(always)]
            |row, sums| {
                let (sum, square) = sums.split_at_mut(c);
                for (((x, o), s), q) in x[row * c..][..c].iter().zip(origin).zip(sum).zip(square) {
                    let d = x - o;
                    *s += d;
                    *q += d * d;
                }
            },
        );
        let count = rows as f64;
        let offset: Vec<f64> = sums[..c].iter().map(|s| s / count).collect();
        let mean: Vec<f32> = offset
            .iter()
            .zip(origin)
            .map(|(d, o)| (d + f64::from(*o)) as f32)
            .collect();
        let variance: Vec<f32> = offset
            .iter()
            .zip(&sums[c..])
            .map(|(d, q)| (q / count - d * d).max(0.0) as f32)
            .collect();
        let scale: Vec<f32> = self
            .inverse_deviation(&variance)
            .iter()
            .zip(gamma)
            .map(|(inverse, gamma)| inverse * gamma)
            .collect();
        let floor = if self.relu { 0.0 } else { f32::NEG_INFINITY };
        let mut y = vec![0.0; x.len()];
        y.par_chunks_mut(ROWS * c)
            .zip(x.par_chunks(ROWS * c))
            .for_each(|(y, x)| {
                wide(
                    #[inline(always)]
                    || {
                        for (y, x) in y.chunks_exact_mut(c).zip(x.chunks_exact(c)) {
                            for ((((y, x), m), s), b) in
                                y.iter_mut().zip(x).zip(&mean).zip(&scale).zip(beta)
                            {
                                let value = (x - m) * s + b;
                                *y = if value > floor { value } else { floor };
                            }
                        }
                    },
                );
            });
        *self
            .statistics
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Moments {
            mean,
            variance,
            count: rows,
        };
        Ok((CpuStorage::F32(y), l1.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        gamma: &Tensor,
        beta: &Tensor,
        _res: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let statistics = self
            .statistics
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let mean = statistics.mean;
        let inverse = self.inverse_deviation(&statistics.variance);
        let c = mean.len();
        let rows = x.elem_count() / c;
        let (gamma, beta) = (gamma.to_vec1::<f32>()?, beta.to_vec1::<f32>()?);
        // As in the forward pass. Whether an output was rectified is seen from its input, so that one
        // tensor less is read; without a rectifier all let their gradient through.
        let scale: Vec<f32> = inverse.iter().zip(&gamma).map(|(i, g)| i * g).collect();
        let floor = if self.relu { 0.0 } else { f32::NEG_INFINITY };
        let (dx, sums) = with_elements(x, |x| {
            with_elements(grad, |g| {
                // sums: of g, and of g times the normalised input.
                let sums = sum_rows(
                    rows,
                    c,
                    #[inline(always)]
                    |row, sums| {
                        let (sum, dot) = sums.split_at_mut(c);
                        let (x, g) = (&x[row * c..][..c], &g[row * c..][..c]);
                        let (mean, inverse, scale) = (&mean[..c], &inverse[..c], &scale[..c]);
                        let (sum, dot, beta) = (&mut sum[..c], &mut dot[..c], &beta[..c]);
                        for j in 0..c {
                            let d = x[j] - mean[j];
                            let g = if d * scale[j] + beta[j] > floor {
                                g[j]
                            } else {
                                0.0
                            };
                            sum[j] += g;
                            dot[j] += g * d * inverse[j];
                        }
                    },
                );
                let count = rows as f64;
                let mean_g: Vec<f32> = sums[..c].iter().map(|s| (s / count) as f32).collect();
                let mean_gx: Vec<f32> = sums[c..].iter().map(|s| (s / count) as f32).collect();
                let mut dx = vec![0.0; x.len()];
                dx.par_chunks_mut(ROWS * c)
                    .zip(x.par_chunks(ROWS * c).zip(g.par_chunks(ROWS * c)))
                    .for_each(|(dx, (x, g))| {
                        let (mean, inverse, scale) = (&mean[..c], &inverse[..c], &scale[..c]);
                        let (mean_g, mean_gx, beta) = (&mean_g[..c], &mean_gx[..c], &beta[..c]);
                        wide(
                            #[inline(always)]
                            || {
                                let rows = x.chunks_exact(c).zip(g.chunks_exact(c));
                                for (dx, (x, g)) in dx.chunks_exact_mut(c).zip(rows) {
                                    for j in 0..c {
                                        let d = x[j] - mean[j];
                                        let g = if d * scale[j] + beta[j] > floor {
                                            g[j]
                                        } else {
                                            0.0
                                        };
                                        let normal = d * inverse[j];
                                        dx[j] = scale[j] * (g - mean_g[j] - normal * mean_gx[j]);
                                    }
                                }
                            },
                        );
                    });
                (dx, sums)
            })
        })??;
        let device = x.device();
        let vector = |sums: &[f64]| {
            let values: Vec<f32> = sums.iter().map(|s| *s as f32).collect();
            Tensor::from_vec(values, c, device)
        };
        let dx = Tensor::from_vec(dx, x.shape(), device)?;
        Ok((
            Some(dx),
            Some(vector(&sums[c..])?),
            Some(vector(&sums[..c])?),
        ))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;

    #[test]
    fn values_and_gradients_equal_the_formula_in_plain_operations() -> Result<()> {
        let device = Device::Cpu;
        let (rows, c) = (3 * ROWS + 5, 3);
        let values: Vec<f32> = (0..rows * c)
            .map(|i| (i as f32 * 0.7).sin() * 2.0 + 5.0)
            .collect();
        let weights: Vec<f32> = (0..rows * c).map(|i| (i as f32 * 0.31).cos()).collect();
        let weights = Tensor::from_vec(weights, (rows, c), &device)?;
        for relu in [false, true] {
            let x = Var::from_vec(values.clone(), (rows, c), &device)?;
            let gamma = Var::new(&[1.5_f32, -0.5, 2.0], &device)?;
            let beta = Var::new(&[0.1_f32, 0.2, -0.3], &device)?;
            let (ours, statistics) = batch_norm(&x, &gamma, &beta, 1e-5, relu)?;
            let mean = x.mean_keepdim(0)?;
            let centered = x.broadcast_sub(&mean)?;
            let variance = centered.sqr()?.mean_keepdim(0)?;
            let normal = centered.broadcast_div(&(&variance + 1e-5)?.sqrt()?)?;
            let mut theirs = normal.broadcast_mul(&gamma)?.broadcast_add(&beta)?;
            if relu {
                theirs = theirs.relu()?;
            }
            let variance = variance.flatten_all()?;
            let apart = (statistics.variance - variance)?.abs()?.max_all()?;
            assert!(apart.to_scalar::<f32>()? < 1e-4);
            let a = (&ours * &weights)?.sum_all()?.backward()?;
            let b = (&theirs * &weights)?.sum_all()?.backward()?;
            let gap = |a: &Tensor, b: &Tensor| (a - b)?.abs()?.max_all()?.to_scalar::<f32>();
            assert!(gap(&ours, &theirs)? < 1e-4);
            for var in [&x, &gamma, &beta] {
                let (a, b) = (
                    a.get(var).expect("a gradient"),
                    b.get(var).expect("a gradient"),
                );
                let scale = b.abs()?.max_all()?.to_scalar::<f32>()?.max(1.0);
                assert!(gap(a, b)? < 1e-3 * scale, "relu {relu}: {a} {b}");
            }
        }
        Ok(())
    }
}
