//! Convolution on channels-last pictures as im2col and matrix products, with its backward pass.
//!
//! Work is split over pictures, so that the unfolded patches of one picture stay in the cache.

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use super::{
    elements,
    matmul::{MatMul, matmul_f32},
    with_elements,
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
    input
        .contiguous()?
        .apply_op2(&weight.contiguous()?, Conv2d(shape))
}

#[derive(Debug, Clone, Copy)]
struct Conv2d(ConvShape);

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

    /// Calls `f(offset in patches, offset in picture, length)` for each run of channels that lies
    /// inside the picture. Patches of neighbouring kernel columns are neighbours in the picture
    /// too, so a run spans up to `kernel * c` elements.
    fn for_each_run(&self, mut f: impl FnMut(usize, usize, usize)) {
        let pad = self.kernel / 2;
        for oy in 0..self.out_h {
            for ox in 0..self.out_w {
                let patch = (oy * self.out_w + ox) * self.patch();
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

    /// Unfolds one picture into `[positions, patch]`; padding stays as `patches` has it (zero).
    fn unfold(&self, picture: &[f32], patches: &mut [f32]) {
        self.for_each_run(|to, from, len| {
            patches[to..to + len].copy_from_slice(&picture[from..from + len]);
        });
    }

    /// Adds patches back to where they came from.
    fn fold(&self, patches: &[f32], picture: &mut [f32]) {
        self.for_each_run(|from, to, len| {
            let sums = &mut picture[to..to + len];
            for (sum, x) in sums.iter_mut().zip(&patches[from..from + len]) {
                *sum += x;
            }
        });
    }

    /// Whether a patch is the pixel itself, so that unfolding would only copy.
    fn is_pointwise(&self) -> bool {
        self.kernel == 1 && self.stride == 1
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
        let sizes = Sizes::new(self.0, l1.shape().dims4()?, l2.dims())?;
        let (input, weight) = (elements(s1, l1)?, elements(s2, l2)?);
        let out_picture = sizes.positions() * sizes.out_c;
        let mut out = vec![0.0; sizes.n * out_picture];
        let product = MatMul {
            m: sizes.positions(),
            n: sizes.out_c,
            k: sizes.patch(),
            transpose_a: false,
            transpose_b: true,
            accumulate: false,
        };
        out.par_chunks_mut(out_picture)
            .zip(input.par_chunks(sizes.picture()))
            .for_each_init(
                || {
                    vec![
                        0.0;
                        if sizes.is_pointwise() {
                            0
                        } else {
                            sizes.positions() * sizes.patch()
                        }
                    ]
                },
                |patches, (out, picture)| {
                    if sizes.is_pointwise() {
                        matmul_f32(product, out, picture, weight);
                    } else {
                        sizes.unfold(picture, patches);
                        matmul_f32(product, out, patches, weight);
                    }
                },
            );
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
        let sizes = Sizes::new(self.0, input.dims4()?, weight.dims())?;
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

/// Into so many parts of a batch the backward pass is split, at most.
const SHARES: usize = 16;

/// Gradients of the input (where wanted) and the weight.
fn backward(
    sizes: &Sizes,
    input: &[f32],
    weight: &[f32],
    grad: &[f32],
    wants_input: bool,
) -> (Option<Vec<f32>>, Vec<f32>) {
    let out_picture = sizes.positions() * sizes.out_c;
    let weight_product = MatMul {
        m: sizes.out_c,
        n: sizes.patch(),
        k: sizes.positions(),
        transpose_a: true,
        transpose_b: false,
        accumulate: true,
    };
    let input_product = MatMul {
        m: sizes.positions(),
        n: sizes.patch(),
        k: sizes.out_c,
        transpose_a: false,
        transpose_b: false,
        accumulate: false,
    };
    let mut input_grad = vec![0.0; if wants_input { input.len() } else { 0 }];
    // Summed in order: the result depends neither on timing nor on the number of threads.
    let share = sizes.n.div_ceil(SHARES).max(1);
    let shares: Vec<&mut [f32]> = if wants_input {
        input_grad.chunks_mut(share * sizes.picture()).collect()
    } else {
        (0..sizes.n.div_ceil(share)).map(|_| &mut [][..]).collect()
    };
    let sums: Vec<Vec<f32>> = shares
        .into_par_iter()
        .enumerate()
        .map(|(i, input_grad)| {
            let mut weight_grad = vec![0.0; weight.len()];
            let mut patches = vec![0.0; sizes.positions() * sizes.patch()];
            let mut patch_grads = vec![0.0; patches.len()];
            for n in i * share..sizes.n.min((i + 1) * share) {
                let picture = &input[n * sizes.picture()..(n + 1) * sizes.picture()];
                let grad = &grad[n * out_picture..(n + 1) * out_picture];
                if sizes.is_pointwise() {
                    matmul_f32(weight_product, &mut weight_grad, grad, picture);
                } else {
                    sizes.unfold(picture, &mut patches);
                    matmul_f32(weight_product, &mut weight_grad, grad, &patches);
                }
                if wants_input {
                    let at = (n - i * share) * sizes.picture();
                    let picture_grad = &mut input_grad[at..at + sizes.picture()];
                    matmul_f32(input_product, &mut patch_grads, grad, weight);
                    sizes.fold(&patch_grads, picture_grad);
                }
            }
            weight_grad
        })
        .collect();
    let mut weight_grad = vec![0.0; weight.len()];
    for sum in sums {
        for (total, x) in weight_grad.iter_mut().zip(sum) {
            *total += x;
        }
    }
    (wants_input.then_some(input_grad), weight_grad)
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;

    fn wave(shape: &[usize], step: f32) -> Tensor {
        let count = shape.iter().product::<usize>();
        let values: Vec<f32> = (0..count).map(|i| (i as f32 * step).sin()).collect();
        Tensor::from_vec(values, shape, &Device::Cpu).expect("shape fits")
    }

    #[test]
    fn values_and_gradients_equal_those_of_candles_convolution() -> Result<()> {
        // candle's own backward pass takes the padding of both sides from the height, so that strided
        // cases have sides of equal parity.
        for (kernel, stride, h, w, c, out) in [
            (3, 1, 5, 4, 3, 2),
            (3, 2, 7, 5, 2, 4),
            (3, 2, 6, 8, 2, 4),
            (1, 1, 3, 3, 5, 2),
            (1, 2, 5, 7, 3, 3),
            (3, 2, 1, 1, 2, 2),
        ] {
            let x = Var::from_tensor(&wave(&[3, h, w, c], 0.37))?;
            let k = Var::from_tensor(&wave(&[out, kernel, kernel, c], 0.23))?;
            let ours = conv2d(&x, &k, ConvShape { kernel, stride })?;
            let nchw = x.permute((0, 3, 1, 2))?;
            let theirs = nchw
                .conv2d(&k.permute((0, 3, 1, 2))?, kernel / 2, stride, 1, 1)?
                .permute((0, 2, 3, 1))?;
            let seen = |t: &Tensor| (t * wave(t.dims(), 0.11)).and_then(|t| t.sum_all());
            let (a, b) = (seen(&ours)?.backward()?, seen(&theirs)?.backward()?);
            for (name, ours, theirs) in [
                ("value", ours, theirs),
                (
                    "input",
                    a.get(&x).expect("has a gradient").clone(),
                    b.get(&x).expect("has").clone(),
                ),
                (
                    "weight",
                    a.get(&k).expect("has a gradient").clone(),
                    b.get(&k).expect("has").clone(),
                ),
            ] {
                let gap = (ours - theirs)?.abs()?.max_all()?.to_scalar::<f32>()?;
                assert!(
                    gap < 1e-4,
                    "{name}, kernel {kernel}, stride {stride}: {gap}"
                );
            }
        }
        Ok(())
    }

    /// A share for each thread once made gradients differ in their last bits between machines.
    #[test]
    fn gradients_do_not_depend_on_the_number_of_threads() -> Result<()> {
        let x = Var::from_tensor(&wave(&[37, 5, 4, 3], 0.37))?;
        let k = Var::from_tensor(&wave(&[2, 3, 3, 3], 0.23))?;
        let shape = ConvShape {
            kernel: 3,
            stride: 1,
        };
        let gradient = || -> Result<Vec<u32>> {
            let out = conv2d(&x, &k, shape)?;
            let gradients = (&out * wave(out.dims(), 0.11))?.sum_all()?.backward()?;
            let gradient = gradients.get(&k).expect("has a gradient");
            let values = gradient.flatten_all()?.to_vec1::<f32>()?;
            Ok(values.into_iter().map(f32::to_bits).collect())
        };
        let within = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
            pool.build().expect("a pool").install(gradient)
        };
        let one = within(1)?;
        for threads in [2, 3, 8] {
            assert_eq!(within(threads)?, one, "{threads} threads");
        }
        Ok(())
    }

    #[test]
    fn a_weight_that_does_not_fit_is_refused() {
        let x = wave(&[1, 4, 4, 3], 0.1);
        let k = wave(&[2, 3, 3, 4], 0.1);
        assert!(
            conv2d(
                &x,
                &k,
                ConvShape {
                    kernel: 3,
                    stride: 1
                }
            )
            .is_err()
        );
    }
}
