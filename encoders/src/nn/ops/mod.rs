//! CPU kernels that candle lacks or that are far slower there, each with its backward pass. On
//! NVIDIA GPUs the same functions have kernels of their own.
//!
//! candle's own `conv2d` backward makes training a convolution tower five times slower than the
//! machine allows, and its fused `layer_norm` has no backward pass at all.

mod attention;
mod conv;
mod conv_norm;
#[cfg(feature = "cuda")]
mod cuda;
mod layer_norm;
mod linear;
mod map;
mod relu;

use std::cell::Cell;

use candle_core::{CpuStorage, DType, Layout, Result, Storage, Tensor, bail};
use kernels::Precision;
use parking_lot::RwLockReadGuard;

pub use attention::attention;
pub use conv::{ConvShape, conv2d};
pub use conv_norm::{BatchStatistics, Ending, NormWeights, conv_norm};
pub use layer_norm::layer_norm;
pub use linear::linear;
pub use map::Map;
pub use relu::{add_relu, quick_gelu};

use crate::cpu::{dense::filled, wide};

/// Elements that one task of an elementwise operation works on.
const CHUNK: usize = 1 << 15;

thread_local! {
    static NARROW: Cell<bool> = const { Cell::new(false) };
}

/// Runs `f`, in which convolutions and linear maps that are trained round the factors of their products
/// to bfloat16 where `narrow` is set; weights, what is kept between layers and optimizers stay f32
/// (Micikevicius et al. 2018, section 3.1). Sums are f32 on a CPU; on a GPU they are rounded at the end,
/// too. Backward passes do as their forward passes did, wherever they run.
pub fn with_narrow_factors<R>(narrow: bool, f: impl FnOnce() -> R) -> R {
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            NARROW.set(self.0);
        }
    }
    let _restore = Restore(NARROW.replace(narrow));
    f()
}

/// What factors are rounded to on this thread.
fn factors() -> Precision {
    if NARROW.get() {
        Precision::Bf16
    } else {
        Precision::F32
    }
}

/// `a b`, `[n, i]` and `[i, m]`, with the factors and the result rounded as [`with_narrow_factors`] says.
pub fn matmul(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    match factors() {
        Precision::Bf16 => {
            let narrow = |x: &Tensor| x.to_dtype(DType::BF16);
            narrow(a)?.matmul(&narrow(b)?)?.to_dtype(DType::F32)
        }
        _ => a.matmul(b),
    }
}

/// Adds `bias` `[c]` to every row of `x` `[.., c]`.
///
/// # Errors
/// When shapes do not fit each other.
pub fn add_bias(x: &Tensor, bias: &Tensor) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if x.device().is_cuda() {
        return cuda::add_bias(x, bias);
    }
    x.broadcast_add(bias)
}

/// Rows of `table` `[.., c]` by their numbers `ids` `[n]`: `[n, c]`.
///
/// # Errors
/// When shapes do not fit each other, or a number is too large.
pub fn gather_rows(table: &Tensor, ids: &Tensor) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if table.device().is_cuda() {
        return cuda::gather_rows(table, ids);
    }
    table.index_select(ids, 0)
}

/// `f` of each two elements.
fn pairwise(a: &[f32], b: &[f32], f: impl Fn(f32, f32) -> f32 + Sync) -> Vec<f32> {
    assert_eq!(a.len(), b.len(), "as many of each");
    // SAFETY: a chunk is as long as its parts of the operands, so that all of it is written.
    #[allow(unsafe_code)]
    unsafe {
        filled(a.len(), CHUNK, |i, out| {
            let n = out.len();
            let (a, b) = (&a[i * CHUNK..][..n], &b[i * CHUNK..][..n]);
            wide(
                #[inline(always)]
                || {
                    for ((out, a), b) in out.iter_mut().zip(a).zip(b) {
                        out.write(f(*a, *b));
                    }
                },
            );
        })
    }
}

/// The elements of a contiguous f32 operand of a kernel.
fn elements<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    let Some((from, to)) = layout.contiguous_offsets() else {
        bail!("a kernel needs contiguous operands");
    };
    Ok(&storage.as_slice::<f32>()?[from..to])
}

/// Runs `f` on the elements of a tensor, in row-major order.
fn with_elements<R>(tensor: &Tensor, f: impl FnOnce(&[f32]) -> R) -> Result<R> {
    Ok(f(Elements::of(&tensor.contiguous()?).slice()?))
}

/// The f32 elements of a contiguous tensor in the memory of the CPU, without a copy.
pub struct Elements<'a> {
    storage: RwLockReadGuard<'a, Storage>,
    layout: &'a Layout,
}

impl<'a> Elements<'a> {
    /// Keeps the tensor readable; it must be contiguous.
    pub fn of(tensor: &'a Tensor) -> Self {
        let (storage, layout) = tensor.storage_and_layout();
        Self { storage, layout }
    }

    /// In row-major order.
    ///
    /// # Errors
    /// When the tensor is not contiguous, not f32, or on a GPU.
    pub fn slice(&self) -> Result<&[f32]> {
        match &*self.storage {
            Storage::Cpu(storage) => elements(storage, self.layout),
            _ => bail!("these elements are not in the memory of the CPU"),
        }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;

    #[test]
    fn narrow_factors_round_a_product_and_its_gradient_and_nothing_else() -> Result<()> {
        let numbers =
            |n: usize, step: f32| (0..n).map(|i| 1.0 + step * i as f32).collect::<Vec<_>>();
        let a = Var::from_vec(numbers(6, 1e-3), (2, 3), &Device::Cpu)?;
        let b = Var::from_vec(numbers(12, 2e-3), (3, 4), &Device::Cpu)?;
        let pass = |narrow: bool| {
            with_narrow_factors(narrow, || {
                let product = matmul(&a, &b)?;
                let gradient = product.sqr()?.sum_all()?.backward()?;
                let gradient = gradient.get(&a).map(Tensor::to_vec2::<f32>);
                Ok::<_, candle_core::Error>((
                    product.to_vec2::<f32>()?,
                    gradient.transpose()?.unwrap_or_default(),
                ))
            })
        };
        let (exact, exact_gradient): (Vec<Vec<f32>>, Vec<Vec<f32>>) = pass(false)?;
        let (near, near_gradient) = pass(true)?;
        for (exact, near) in [(exact, near), (exact_gradient, near_gradient)] {
            let (exact, near) = (exact.concat(), near.concat());
            assert_eq!(exact.len(), near.len());
            // bfloat16 has 8 bits.
            assert!(
                exact
                    .iter()
                    .zip(&near)
                    .all(|(e, n)| (e - n).abs() <= e.abs() / 64.0),
                "{exact:?} {near:?}"
            );
            assert_ne!(exact, near);
        }
        assert_eq!(
            matmul(&a, &b)?.to_vec2::<f32>()?,
            a.matmul(&b)?.to_vec2::<f32>()?
        );
        Ok(())
    }
}
