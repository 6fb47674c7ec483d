//! CPU kernels that candle lacks or that are far slower there, each with its backward pass. On
//! NVIDIA GPUs the same functions have kernels of their own.
//!
//! candle's own `conv2d` backward makes training a convolution tower five times slower than the
//! machine allows, and its fused `layer_norm` has no backward pass at all.

mod attention;
mod batch_norm;
mod conv;
#[cfg(feature = "cuda")]
mod cuda;
mod layer_norm;
mod linear;
mod relu;

use std::cell::Cell;

use candle_core::{CpuStorage, Layout, Result, Storage, Tensor, bail};
use parking_lot::RwLockReadGuard;

pub use attention::attention;
pub use batch_norm::{BatchStatistics, batch_norm};
pub use conv::{ConvShape, conv2d};
pub use layer_norm::layer_norm;
pub use linear::linear;
pub use relu::{add_relu, quick_gelu};

use crate::run::Precision;

thread_local! {
    static NARROW: Cell<bool> = const { Cell::new(false) };
}

/// Runs `f`, in which convolutions and linear maps that are trained on a CPU round the factors of their
/// products to bfloat16 where `narrow` is set; sums and weights stay f32. Backward passes do as their
/// forward passes did, wherever they run.
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
