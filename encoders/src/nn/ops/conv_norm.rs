//! A convolution, batch normalization (Ioffe, Szegedy 2015, algorithm 1) by the statistics of the batch, and what
//! follows it, as one operation: what normalization needs of a picture is taken while it is in the cache.

mod affine;

use std::ops::Range;

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor};
use kernels::Precision;
use parking_lot::Mutex;
use rayon::prelude::*;

use self::affine::{Affine, Part};
use super::{
    Elements,
    conv::{ConvShape, Sizes, Wanted, backward, forward},
    factors,
    map::{Flow, Map, Slot, token_storage},
    with_elements,
};
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

/// What follows a normalization.
#[derive(Debug, Clone, Copy)]
pub enum Ending<'a> {
    /// Nothing.
    Plain,
    /// A rectifier.
    Relu,
    /// Another map is added, then comes a rectifier: the end of a residual block.
    AddRelu(&'a Map),
}

/// The weights of a convolution and of the normalization behind it.
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

/// Convolves `x` (see [`super::conv2d`]), normalizes by the statistics of the batch, scales and shifts. Returns
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
    let relu = matches!(ending, Ending::Relu);
    let norm = (&*gamma.to_vec1()?, beta.to_vec1()?, weights.eps);
    let affine = Affine::new((&mean, &variance), norm, relu);
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

struct ConvNorm {
    sizes: Sizes,
    factors: Precision,
    x: Flow,
    /// What was normalized.
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
        let c = self.affine.channels();
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
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        // All was computed before; candle gets the token alone.
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
        let c = self.affine.channels();
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
