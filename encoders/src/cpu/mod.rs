//! Transformers on the CPU, as fast as it goes: weights packed once, kernels per instruction set.
//!
//! The networks are those of [`crate::nn`], which stay the reference that these are tested against.
#![allow(unsafe_code)]
// Pointer arithmetic on aligned buffers, in words.
#![allow(
    clippy::cast_ptr_alignment,
    clippy::inline_always,
    clippy::missing_safety_doc
)]

mod attention;
mod buffer;
pub(crate) mod dense;
mod head;
mod load;
mod packed;
mod pass;
mod passes;
mod text;
mod transformer;
mod vit;
mod workspace;

use candle_core::{Device, Result, Tensor};
use kernels::Level;
pub(crate) use load::Plan;
pub(crate) use packed::Packed;
pub(crate) use text::TextTower;
pub(crate) use vit::VitTower;

use crate::nn::ops::Elements;

/// Who computes: this thread alone, or all threads of the pool.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Team {
    /// Number of threads, at least 1.
    pub threads: usize,
}

impl Team {
    /// Runs `f(0)` to `f(n - 1)`.
    fn each(self, n: usize, f: impl Fn(usize) + Sync) {
        use rayon::prelude::*;
        if self.threads <= 1 || n <= 1 {
            (0..n).for_each(f);
        } else {
            (0..n).into_par_iter().with_max_len(1).for_each(&f);
        }
    }
}

/// Runs plain loops that are inlined into `f` with registers of eight floats, where there are any. No
/// result changes by it: nothing is reordered or fused.
#[inline]
pub fn wide<R>(f: impl FnOnce() -> R) -> R {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx2")]
        fn with_avx2<R>(f: impl FnOnce() -> R) -> R {
            f()
        }
        if std::arch::is_x86_feature_detected!("avx2") {
            // SAFETY: the CPU has it.
            return unsafe { with_avx2(f) };
        }
    }
    f()
}

/// Rows `[n, inputs]` through a map of f32: `[n, outputs]`.
fn project(projection: &Packed, rows: &Tensor) -> Result<Tensor> {
    let (n, _) = rows.dims2()?;
    let rows = rows.contiguous()?;
    let elements = Elements::of(&rows);
    let out = projection.apply(Level::best(), Team { threads: 1 }, elements.slice()?, None);
    Tensor::from_vec(out, (n, projection.outputs()), &Device::Cpu)
}

#[cfg(test)]
mod tests;
