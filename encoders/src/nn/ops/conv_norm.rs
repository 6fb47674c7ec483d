//! A convolution, batch normalisation (Ioffe, Szegedy 2015, algorithm 1) by the statistics of the batch, and what
//! follows it, as one operation: what normalisation needs of a picture is taken while it is in the cache.

use std::ops::Range;

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor};
use parking_lot::Mutex;
use rayon::prelude::*;

use super::{
    Elements,
    conv::{ConvShape, Sizes, Wanted, backward, forward},
    elements, factors,
    map::{Flow, Map, Slot, token_storage},
    with_elements,
};
use crate::{
    cpu::{dense::filled, wide},
    run::Precision,
};

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

/// What follows a normalisation.
#[derive(Debug, Clone, Copy)]
pub enum Ending<'a> {
    /// Nothing.
    Plain,
    /// A rectifier.
    Relu,
    /// Another map is added, then comes a rectifier: the end of a residual block.
    AddRelu(&'a Map),
}

/// The weights of a convolution and of the normalisation behind it.
#[derive(Debug, Clone, Copy)]
pub struct NormWeights<'a> {
    /// `[out, kernel, kernel, c]`.
    pub weight: &'a Tensor,
    /// Scale, `[out]`.
    pub gamma: &'a Tensor,
    /// Shift, `[out]`.
    pub beta: &'a Tensor,
    /// Added to variances.
    pub eps: f64,
}

/// Convolves `x` (see [`super::conv2d`]), normalises by the statistics of the batch, scales and shifts. Returns
/// the statistics for the running means.
///
/// # Errors
/// When shapes do not fit each other.
pub fn conv_norm(
    x: &Map,
    weights: NormWeights<'_>,
    shape: ConvShape,
    ending: Ending<'_>,
) -> Result<(Map, BatchStatistics)> {
    #[cfg(feature = "cuda")]
    if weights.weight.device().is_cuda() {
        let NormWeights {
            weight,
            gamma,
            beta,
            eps,
        } = weights;
        let y = super::conv2d(&x.tensor()?, weight, shape)?;
        let relu = matches!(ending, Ending::Relu);
        let (y, statistics) = super::cuda::batch_norm(&y, gamma, beta, eps, relu)?;
        let y = match ending {
            Ending::AddRelu(other) => super::add_relu(&y, &other.tensor()?)?,
            Ending::Plain | Ending::Relu => y,
        };
        return Ok((y.into(), statistics));
    }
    on_cpu(x, weights, shape, ending, factors())
}

fn on_cpu(
    x: &Map,
    weights: NormWeights<'_>,
    shape: ConvShape,
    ending: Ending<'_>,
    factors: Precision,
) -> Result<(Map, BatchStatistics)> {
    let x = x.flow()?;
    let weight = weights.weight.contiguous()?;
    let sizes = Sizes::new(shape, x.values.dims4()?, weight.dims())?;
    let (n, out_h, out_w, c) = (sizes.n, sizes.out_h, sizes.out_w, sizes.out_c);
    let (gamma, beta) = (weights.gamma, weights.beta);
    if gamma.dims() != [c] || beta.dims() != [c] || n * out_h * out_w == 0 {
        candle_core::bail!(
            "{n} pictures of {c} channels, {out_h} x {out_w} each, cannot be normalized with {gamma:?}, {beta:?}"
        );
    }
    let other = match ending {
        Ending::AddRelu(other) => Some(other.flow()?),
        Ending::Plain | Ending::Relu => None,
    };
    if let Some(other) = &other
        && other.values.dims() != [n, out_h, out_w, c]
    {
        let got = other.values.dims();
        candle_core::bail!("[{n}, {out_h}, {out_w}, {c}] and {got:?} cannot be added");
    }
    let parts = Mutex::new(Vec::new());
    let seen = |i: usize, rows: &[f32]| {
        // Before the lock, so that threads do not wait for each other's sums.
        let part = Part::of(rows, c);
        parts.lock().push((i, part));
    };
    let z = with_elements(&x.values, |x| {
        with_elements(&weight, |w| match factors {
            Precision::Bf16 => forward::<u16>(&sizes, x, w, seen),
            _ => forward::<f32>(&sizes, x, w, seen),
        })
    })??;
    let (mean, variance) = Part::together(parts.into_inner(), c);
    let inverse = inverse_deviation(&variance, weights.eps);
    let affine = Affine {
        scale: inverse
            .iter()
            .zip(gamma.to_vec1::<f32>()?)
            .map(|(inverse, gamma)| inverse * gamma)
            .collect(),
        mean: mean.clone(),
        inverse,
        beta: beta.to_vec1()?,
        relu: matches!(ending, Ending::Relu),
    };
    let y = match &other {
        Some(other) => with_elements(&other.values, |other| affine.forward_onto(&z, other))?,
        None => affine.forward(&z),
    };
    let device = x.values.device();
    let vector = |values: Vec<f32>| Tensor::from_vec(values, c, device);
    let statistics = BatchStatistics {
        mean: vector(mean)?,
        variance: vector(variance)?,
        count: n * out_h * out_w,
    };
    let values = Tensor::from_vec(y, (n, out_h, out_w, c), device)?;
    let mut before = x.token.clone();
    if let Some(other) = &other {
        before = (before + &other.token)?;
    }
    let slot = Slot::default();
    let op = ConvNorm {
        sizes,
        factors,
        slot: slot.clone(),
        z,
        affine,
        sum: other.map(|other| Sum {
            wanted: other.token.track_op().then_some(other.slot),
            values: values.clone(),
        }),
        x,
    };
    let norm = Tensor::stack(&[gamma, beta], 0)?;
    let token = before.apply_op3(&weight, &norm, op)?;
    let flow = Flow {
        values,
        token,
        slot,
    };
    Ok((flow.into(), statistics))
}

fn inverse_deviation(variance: &[f32], eps: f64) -> Vec<f32> {
    let inverse = |v: &f32| (1.0 / (f64::from(*v) + eps).sqrt()) as f32;
    variance.iter().map(inverse).collect()
}

/// Sums over some rows, relative to the first of them, so that a large mean does not cancel.
struct Part {
    origin: Vec<f32>,
    sums: Vec<f32>,
    squares: Vec<f32>,
    count: usize,
}

impl Part {
    /// Of at least one row.
    fn of(rows: &[f32], c: usize) -> Self {
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
    fn together(mut parts: Vec<(usize, Self)>, c: usize) -> (Vec<f32>, Vec<f32>) {
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

/// What normalisation does to a row, and whether a rectifier follows.
struct Affine {
    mean: Vec<f32>,
    inverse: Vec<f32>,
    /// `inverse * gamma`.
    scale: Vec<f32>,
    beta: Vec<f32>,
    relu: bool,
}

impl Affine {
    /// Outputs that are not above it are replaced by it.
    fn floor(&self) -> f32 {
        if self.relu { 0.0 } else { f32::NEG_INFINITY }
    }

    fn forward(&self, z: &[f32]) -> Vec<f32> {
        let c = self.mean.len();
        let floor = self.floor();
        // SAFETY: a chunk is as long as its part of the input, so that all of it is written.
        #[allow(unsafe_code)]
        unsafe {
            filled(z.len(), ROWS * c, |i, y| {
                let z = &z[i * ROWS * c..][..y.len()];
                let (mean, scale, beta) = (&self.mean[..c], &self.scale[..c], &self.beta[..c]);
                wide(
                    #[inline(always)]
                    || {
                        for (y, z) in y.chunks_exact_mut(c).zip(z.chunks_exact(c)) {
                            for j in 0..c {
                                let value = (z[j] - mean[j]) * scale[j] + beta[j];
                                y[j].write(if value > floor { value } else { floor });
                            }
                        }
                    },
                );
            })
        }
    }

    /// The sum with another map, rectified.
    fn forward_onto(&self, z: &[f32], other: &[f32]) -> Vec<f32> {
        let c = self.mean.len();
        // SAFETY: as above.
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
                                let value = (z[j] - mean[j]) * scale[j] + beta[j] + other[j];
                                y[j].write(if value > 0.0 { value } else { 0.0 });
                            }
                        }
                    },
                );
            })
        }
    }

    /// Sums over rows of the gradient behind the normalisation, and of it times what was normalised: the gradients
    /// of `beta` and `gamma`. Whether an output was rectified is seen from its input, so that one map less is
    /// read; without a rectifier all let their gradient through.
    fn sums(&self, z: &[f32], g: &[f32], sums: &mut [f32]) {
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

    /// The gradient before the normalisation, by the means of both sums.
    fn backward(&self, z: &[f32], g: &[f32], (mean_g, mean_gx): (&[f32], &[f32]), dz: &mut [f32]) {
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

struct ConvNorm {
    sizes: Sizes,
    factors: Precision,
    x: Flow,
    /// What was normalised.
    z: Vec<f32>,
    affine: Affine,
    sum: Option<Sum>,
    /// Where the gradient of the output comes together.
    slot: Slot,
}

/// The sum at the end of a residual block.
struct Sum {
    /// The output, which says where the rectifier let something through.
    values: Tensor,
    /// Where the gradient of the other map comes together, where it has one.
    wanted: Option<Slot>,
}

impl ConvNorm {
    /// Sums over all rows in a fixed order (see [`Affine::sums`]), `[2, c]`. What a rectifier behind a sum held back
    /// is struck from the gradient.
    fn sums(&self, gradient: &mut [f32]) -> Result<Vec<f64>> {
        let c = self.affine.mean.len();
        let output = self.sum.as_ref().map(|sum| Elements::of(&sum.values));
        let output = output.as_ref().map(Elements::slice).transpose()?;
        let parts: Vec<Vec<f32>> = gradient
            .par_chunks_mut(ROWS * c)
            .enumerate()
            .map(|(i, g)| {
                let part = i * ROWS * c..i * ROWS * c + g.len();
                if let Some(y) = output {
                    strike(g, &y[part.clone()]);
                }
                let mut sums = vec![0.0; 2 * c];
                self.affine.sums(&self.z[part], g, &mut sums);
                sums
            })
            .collect();
        let mut total = vec![0.0; 2 * c];
        for sums in parts {
            for (total, sum) in total.iter_mut().zip(sums) {
                *total += f64::from(sum);
            }
        }
        Ok(total)
    }
}

/// Strikes from a gradient what a rectifier held back.
fn strike(gradient: &mut [f32], output: &[f32]) {
    wide(
        #[inline(always)]
        || {
            for (g, y) in gradient.iter_mut().zip(output) {
                *g = if *y > 0.0 { *g } else { 0.0 };
            }
        },
    );
}

impl CustomOp3 for ConvNorm {
    fn name(&self) -> &'static str {
        "conv-norm"
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        elements(s2, l2)?;
        Ok(token_storage())
    }

    fn bwd(
        &self,
        token: &Tensor,
        weight: &Tensor,
        norm: &Tensor,
        _res: &Tensor,
        _grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let mut gradient = self.slot.whole()?;
        let sums = self.sums(&mut gradient)?;
        let c = self.affine.mean.len();
        let count = (self.z.len() / c) as f64;
        let means: Vec<f32> = sums.iter().map(|sum| (sum / count) as f32).collect();
        let means = means.split_at(c);
        let slopes = |part: Range<usize>, dz: &mut [f32]| {
            let (z, g) = (&self.z[part.clone()], &gradient[part]);
            self.affine.backward(z, g, means, dz);
        };
        let wanted = if !self.x.token.track_op() {
            Wanted::Nothing
        } else if let Some(sums) = self.x.slot.take() {
            Wanted::Onto(sums)
        } else {
            Wanted::Alone
        };
        let (input, weight_grad) = with_elements(&self.x.values, |x| {
            with_elements(weight, |w| match self.factors {
                Precision::Bf16 => backward::<u16>(&self.sizes, x, w, slopes, wanted),
                _ => backward::<f32>(&self.sizes, x, w, slopes, wanted),
            })
        })??;
        if let Some(input) = input {
            self.x.slot.give(input);
        }
        if let Some(slot) = self.sum.as_ref().and_then(|sum| sum.wanted.as_ref()) {
            slot.give(gradient);
        }
        // Those of gamma first.
        let of_norm = sums[c..].iter().chain(&sums[..c]).map(|s| *s as f32);
        let of_norm = Tensor::from_vec(of_norm.collect(), norm.shape(), norm.device())?;
        let token = token.track_op().then(|| token.zeros_like()).transpose()?;
        let weight_grad = Tensor::from_vec(weight_grad, weight.shape(), weight.device())?;
        Ok((token, Some(weight_grad), Some(of_norm)))
    }
}

#[cfg(test)]
mod tests;
