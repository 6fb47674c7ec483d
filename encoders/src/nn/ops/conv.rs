//! Convolution on channels-last pictures as matrix products of unfolded pictures, with its backward pass.
//!
//! Work is split over pictures, so that what is unfolded of some stays in the cache.

mod passes;
mod sizes;

use std::ops::Range;

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor};
use kernels::Precision;
use parking_lot::Mutex;
use rayon::prelude::*;

use self::passes::Convolution;
pub(super) use self::{
    passes::{Wanted, backward},
    sizes::Sizes,
};
use super::{CHUNK, elements, factors, with_elements};
use crate::cpu::{
    dense::{Buffer, Element, Target, filled},
    wide,
};

/// The geometry of a square convolution with zero padding of `kernel / 2`.
#[derive(Debug, Clone, Copy)]
pub struct ConvShape {
    /// Side of the kernel, odd.
    pub kernel: usize,
    /// Step between outputs.
    pub stride: usize,
}

/// Convolves `input` `[n, h, w, c]` with `weight` `[out, kernel, kernel, c]` into
/// `[n, h', w', out]`, where `h' = ceil(h / stride)`.
///
/// # Errors
/// When shapes do not fit each other.
pub fn conv2d(input: &Tensor, weight: &Tensor, shape: ConvShape) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if input.device().is_cuda() {
        return super::cuda::conv2d(input, weight, shape);
    }
    convolve(input, weight, shape, factors())
}

fn convolve(
    input: &Tensor,
    weight: &Tensor,
    shape: ConvShape,
    factors: Precision,
) -> Result<Tensor> {
    let op = Conv2d { shape, factors };
    input.contiguous()?.apply_op2(&weight.contiguous()?, op)
}

#[derive(Debug, Clone, Copy)]
struct Conv2d {
    shape: ConvShape,
    factors: Precision,
}

impl CustomOp2 for Conv2d {
    fn name(&self) -> &'static str {
        "conv2d-channels-last"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let sizes = Sizes::new(self.shape, l1.shape().dims4()?, l2.dims())?;
        let (input, weight) = (elements(s1, l1)?, elements(s2, l2)?);
        let out = match self.factors {
            Precision::Bf16 => forward::<u16>(&sizes, input, weight, |_, _| ()),
            _ => forward::<f32>(&sizes, input, weight, |_, _| ()),
        };
        let shape = (sizes.n, sizes.out_h, sizes.out_w, sizes.out_c);
        Ok((CpuStorage::F32(out), shape.into()))
    }

    fn bwd(
        &self,
        input: &Tensor,
        weight: &Tensor,
        _res: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let sizes = Sizes::new(self.shape, input.dims4()?, weight.dims())?;
        let wanted = if input.track_op() {
            Wanted::Alone
        } else {
            Wanted::Nothing
        };
        let (input_grad, weight_grad) = with_elements(input, |x| {
            with_elements(weight, |w| {
                with_elements(grad, |g| {
                    let slopes = |part: Range<usize>, to: &mut [f32]| to.copy_from_slice(&g[part]);
                    match self.factors {
                        Precision::Bf16 => backward::<u16>(&sizes, x, w, slopes, wanted),
                        _ => backward::<f32>(&sizes, x, w, slopes, wanted),
                    }
                })
            })
        })???;
        let device = input.device();
        let input_grad = match input_grad {
            Some(values) => Some(Tensor::from_vec(values, input.shape(), device)?),
            None => None,
        };
        Ok((
            input_grad,
            Some(Tensor::from_vec(weight_grad, weight.shape(), device)?),
        ))
    }
}

/// `[n, out_h, out_w, out_c]` of `input` `[n, h, w, c]` and `weight` `[out_c, kernel, kernel, c]`. `seen` is
/// called with each part of the outputs, some pictures, and its number; from several threads, in any order.
pub(super) fn forward<E: Element>(
    sizes: &Sizes,
    input: &[f32],
    weight: &[f32],
    seen: impl Fn(usize, &[f32]) + Sync,
) -> Vec<f32> {
    let convolution = Convolution::new::<E>(*sizes, weight);
    let (chunk, pictures) = (
        sizes.at_once() * sizes.out_picture(),
        sizes.at_once() * sizes.picture(),
    );
    let rooms = Rooms::default();
    // SAFETY: a product initializes all of its place.
    #[allow(unsafe_code)]
    unsafe {
        filled(sizes.n * sizes.out_picture(), chunk, |i, out| {
            let pictures = &input[i * pictures..input.len().min((i + 1) * pictures)];
            let mut room = rooms.take(|| Buffer::new(0));
            convolution.run::<E>(pictures, &mut room, Target::New(out));
            rooms.give(room);
            seen(i, out.assume_init_ref());
        })
    }
}

/// Memory that tasks hand on to each other.
struct Rooms<T>(Mutex<Vec<T>>);

impl<T> Default for Rooms<T> {
    fn default() -> Self {
        Self(Mutex::new(Vec::new()))
    }
}

impl<T> Rooms<T> {
    fn take(&self, new: impl FnOnce() -> T) -> T {
        self.0.lock().pop().unwrap_or_else(new)
    }

    fn give(&self, room: T) {
        self.0.lock().push(room);
    }
}

/// The sum of vectors of one length, added in their order.
pub(super) fn in_order(sums: Vec<Vec<f32>>) -> Vec<f32> {
    let mut sums = sums.into_iter();
    let mut total = sums.next().unwrap_or_default();
    let others: Vec<Vec<f32>> = sums.collect();
    total
        .par_chunks_mut(CHUNK)
        .enumerate()
        .for_each(|(i, total)| {
            for other in &others {
                let other = &other[i * CHUNK..][..total.len()];
                wide(
                    #[inline(always)]
                    || {
                        for (total, x) in total.iter_mut().zip(other) {
                            *total += x;
                        }
                    },
                );
            }
        });
    total
}

#[cfg(test)]
mod tests;
