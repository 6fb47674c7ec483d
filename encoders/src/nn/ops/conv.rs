//! Convolution on channels-last pictures as im2col and matrix products, with its backward pass.
//!
//! Work is split over pictures, so that the unfolded patches of some pictures stay in the cache.

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor, bail};
use parking_lot::Mutex;
use rayon::prelude::*;

use super::{CHUNK, elements, factors, with_elements};
use crate::{
    cpu::{
        Level, Packed,
        dense::{Element, Scratch, filled, outer, place, product},
        wide,
    },
    run::Precision,
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

/// All sizes of one call.
#[derive(Debug, Clone, Copy)]
struct Sizes {
    n: usize,
    h: usize,
    w: usize,
    c: usize,
    out_h: usize,
    out_w: usize,
    out_c: usize,
    kernel: usize,
    stride: usize,
}

impl Sizes {
    fn new(
        shape: ConvShape,
        input: (usize, usize, usize, usize),
        weight: &[usize],
    ) -> Result<Self> {
        let (n, h, w, c) = input;
        let ConvShape { kernel, stride } = shape;
        let &[out_c, kh, kw, wc] = weight else {
            bail!("a convolution weight is [out, kernel, kernel, c], got {weight:?}");
        };
        if (kh, kw, wc) != (kernel, kernel, c) || kernel % 2 == 0 || stride == 0 {
            bail!("weight {weight:?} does not fit kernel {kernel}, stride {stride}, {c} channels");
        }
        let (out_h, out_w) = (h.div_ceil(stride), w.div_ceil(stride));
        Ok(Self {
            n,
            h,
            w,
            c,
            out_h,
            out_w,
            out_c,
            kernel,
            stride,
        })
    }

    /// Elements of one input picture.
    fn picture(&self) -> usize {
        self.h * self.w * self.c
    }

    /// Output positions of one picture.
    fn positions(&self) -> usize {
        self.out_h * self.out_w
    }

    /// Elements of one unfolded patch.
    fn patch(&self) -> usize {
        self.kernel * self.kernel * self.c
    }

    /// So many pictures are worked on at once: enough rows for the products, few enough for the cache.
    fn at_once(&self) -> usize {
        256_usize.div_ceil(self.positions().max(1))
    }

    /// Calls `f(offset in patches, offset in picture, length)` for each run of channels that lies
    /// inside the picture; `row` is the offset from a patch to the next. Patches of neighbouring
    /// kernel columns are neighbours in the picture too, so a run spans up to `kernel * c` elements.
    fn for_each_run(&self, row: usize, mut f: impl FnMut(usize, usize, usize)) {
        let pad = self.kernel / 2;
        for oy in 0..self.out_h {
            for ox in 0..self.out_w {
                let patch = (oy * self.out_w + ox) * row;
                let left = (ox * self.stride) as isize - pad as isize;
                let first = (-left).max(0) as usize;
                let last = self.kernel.min((self.w as isize - left).max(0) as usize);
                for ky in 0..self.kernel {
                    let y = (oy * self.stride + ky) as isize - pad as isize;
                    if y < 0 || y >= self.h as isize || first >= last {
                        continue;
                    }
                    let x = (left + first as isize) as usize;
                    let to = patch + (ky * self.kernel + first) * self.c;
                    f(
                        to,
                        (y as usize * self.w + x) * self.c,
                        (last - first) * self.c,
                    );
                }
            }
        }
    }

    /// Unfolds pictures into rows of elements, `[positions, patch]` each; padding stays as `patches`
    /// has it (zero).
    fn unfold<E: Element>(&self, pictures: &[E], patches: &mut [E]) {
        let row = E::stride(self.patch());
        let pictures = pictures.chunks_exact(self.picture());
        for (picture, patches) in pictures.zip(patches.chunks_exact_mut(self.positions() * row)) {
            self.for_each_run(row, |to, from, len| {
                patches[to..to + len].copy_from_slice(&picture[from..from + len]);
            });
        }
    }

    /// Adds the patches of one picture back to where they came from.
    fn fold(&self, patches: &[f32], picture: &mut [f32]) {
        self.for_each_run(self.patch(), |from, to, len| {
            let sums = &mut picture[to..to + len];
            for (sum, x) in sums.iter_mut().zip(&patches[from..from + len]) {
                *sum += x;
            }
        });
    }

    /// Room for the patches of as many pictures as are worked on at once.
    fn room<E: Element>(&self) -> Vec<E> {
        vec![E::default(); self.at_once() * self.positions() * E::stride(self.patch())]
    }
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
            Precision::Bf16 => forward::<u16>(&sizes, input, weight),
            _ => forward::<f32>(&sizes, input, weight),
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
        let backward = match self.factors {
            Precision::Bf16 => backward::<u16>,
            _ => backward::<f32>,
        };
        let (input_grad, weight_grad) = with_elements(input, |x| {
            with_elements(weight, |w| {
                with_elements(grad, |g| backward(&sizes, x, w, g, input.track_op()))
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

/// `[n, out_h, out_w, out_c]` of `input` `[n, h, w, c]` and `weight` `[out_c, kernel, kernel, c]`.
fn forward<E: Element>(sizes: &Sizes, input: &[f32], weight: &[f32]) -> Vec<f32> {
    let out_picture = sizes.positions() * sizes.out_c;
    let columns = Packed::new(Level::best(), E::PRECISION, (weight, sizes.patch()), None);
    let row = E::stride(sizes.patch());
    let (chunk, pictures) = (
        sizes.at_once() * out_picture,
        sizes.at_once() * sizes.picture(),
    );
    let rooms = Rooms::default();
    // SAFETY: a product initializes all of its place.
    #[allow(unsafe_code)]
    unsafe {
        filled(sizes.n * out_picture, chunk, |i, out| {
            let pictures = &input[i * pictures..input.len().min((i + 1) * pictures)];
            let mut patches = rooms.take(|| sizes.room::<E>());
            sizes.unfold(&E::rows(pictures, pictures.len()), &mut patches);
            product(&patches[..out.len() / sizes.out_c * row], &columns, out);
            rooms.give(patches);
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

/// Into so many parts of a batch the backward pass is split, at most.
const SHARES: usize = 8;

/// Gradients of the input (where wanted) and the weight.
fn backward<E: Element>(
    sizes: &Sizes,
    input: &[f32],
    weight: &[f32],
    grad: &[f32],
    wants_input: bool,
) -> (Option<Vec<f32>>, Vec<f32>) {
    // With stride 1, the gradient of the input is a convolution of the other one.
    let convolved = wants_input && sizes.stride == 1;
    let folded = wants_input && !convolved;
    let out_picture = sizes.positions() * sizes.out_c;
    let columns = folded.then(|| {
        let weight = E::rows(weight, sizes.patch());
        Packed::turned::<E>(Level::best(), &weight, sizes.patch())
    });
    let mut input_grad = vec![0.0; if folded { input.len() } else { 0 }];
    // Summed in order: the result depends neither on timing nor on the number of threads.
    let share = sizes.n.div_ceil(SHARES).max(1);
    let shares: Vec<&mut [f32]> = if folded {
        input_grad.chunks_mut(share * sizes.picture()).collect()
    } else {
        (0..sizes.n.div_ceil(share)).map(|_| &mut [][..]).collect()
    };
    let row = E::stride(sizes.patch());
    let sums: Vec<Vec<f32>> = shares
        .into_par_iter()
        .enumerate()
        .map(|(i, input_grad)| {
            let mut weight_grad = vec![0.0; weight.len()];
            let mut patches = sizes.room::<E>();
            let mut scratch = Scratch::default();
            let mut patch_grads = Vec::new();
            let pictures = i * share..sizes.n.min((i + 1) * share);
            for from in pictures.clone().step_by(sizes.at_once()) {
                let to = pictures.end.min(from + sizes.at_once());
                let part = &input[from * sizes.picture()..to * sizes.picture()];
                let grad = &grad[from * out_picture..to * out_picture];
                let grad = E::rows(grad, sizes.out_c);
                let positions = (to - from) * sizes.positions();
                let patches = &mut patches[..positions * row];
                sizes.unfold(&E::rows(part, part.len()), patches);
                let (grad, patches) = ((&*grad, sizes.out_c), (&*patches, sizes.patch()));
                outer(grad, patches, &mut scratch, &mut weight_grad);
                let Some(columns) = &columns else { continue };
                patch_grads.resize(positions * sizes.patch(), 0.0);
                product(grad.0, columns, place(&mut patch_grads));
                let at = (from - pictures.start) * sizes.picture();
                let input_grad = input_grad[at..].chunks_exact_mut(sizes.picture());
                let patch_grads = patch_grads.chunks_exact(sizes.positions() * sizes.patch());
                for (picture, patches) in input_grad.zip(patch_grads) {
                    sizes.fold(patches, picture);
                }
            }
            weight_grad
        })
        .collect();
    let weight_grad = in_order(sums);
    let input_grad = if convolved {
        let turned = turned_kernel(sizes, weight);
        let back = Sizes {
            c: sizes.out_c,
            out_c: sizes.c,
            ..*sizes
        };
        Some(forward::<E>(&back, grad, &turned))
    } else {
        folded.then_some(input_grad)
    };
    (input_grad, weight_grad)
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

/// The kernel that brings gradients back: `[c, kernel, kernel, out_c]`, turned by 180 degrees.
fn turned_kernel(sizes: &Sizes, weight: &[f32]) -> Vec<f32> {
    let (taps, c, out) = (sizes.kernel * sizes.kernel, sizes.c, sizes.out_c);
    let mut turned = vec![0.0; weight.len()];
    for (o, weight) in weight.chunks_exact((taps * c).max(1)).enumerate() {
        for (tap, weight) in weight.chunks_exact(c.max(1)).enumerate() {
            for (channel, w) in weight.iter().enumerate() {
                turned[(channel * taps + taps - 1 - tap) * out + o] = *w;
            }
        }
    }
    turned
}

#[cfg(test)]
mod tests;
