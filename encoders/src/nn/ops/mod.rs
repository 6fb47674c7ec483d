//! CPU kernels that candle lacks or that are far slower there, each with its backward pass. On other
//! devices the same functions are composed of candle's own operations.
//!
//! candle's own `conv2d` backward makes training a convolution tower five times slower than the
//! machine allows, and its fused `layer_norm` has no backward pass at all.

mod batch_norm;
mod composed;
mod conv;
mod layer_norm;
mod matmul;
mod relu;

use candle_core::{CpuStorage, Layout, Result, Storage, Tensor, bail};
use parking_lot::RwLockReadGuard;

pub use batch_norm::{BatchStatistics, batch_norm};
pub use conv::{ConvShape, conv2d};
pub use layer_norm::layer_norm;
pub use relu::{add_relu, quick_gelu};

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
pub(crate) struct Elements<'a> {
    storage: RwLockReadGuard<'a, Storage>,
    layout: &'a Layout,
}

impl<'a> Elements<'a> {
    pub(crate) fn of(tensor: &'a Tensor) -> Self {
        let (storage, layout) = tensor.storage_and_layout();
        Self { storage, layout }
    }

    /// In row-major order.
    pub(crate) fn slice(&self) -> Result<&[f32]> {
        match &*self.storage {
            Storage::Cpu(storage) => elements(storage, self.layout),
            _ => bail!("these elements are not in the memory of the CPU"),
        }
    }
}
