//! 128-bit vectors with byte products (DotProd): 64-bit ARM servers since 2019, Apple since the M1.
//!
//! Rust has no stable functions for byte products and prefetches, hence assembly. It names the
//! extension itself, as it may come into functions that were not compiled for it.

use std::arch::{
    aarch64::{
        float32x4_t, int32x4_t, vaddq_f32, vaddq_s32, vaddvq_f32, vaddvq_s32, vdupq_n_f32,
        vdupq_n_s32, vfmaq_f32, vld1q_f32, vld1q_s8,
    },
    asm, is_aarch64_feature_detected,
};

use super::{Kernel, Task};

/// Numbers of a vector.
const FLOATS: usize = 4;
/// Codes of a vector.
const CODES: usize = 16;
/// Bytes that a cache holds together; some hold twice as many.
const LINE_BYTES: usize = 64;

/// Exists only where NEON and DotProd do.
#[derive(Debug, Clone, Copy)]
pub(super) struct Neon(());

impl Neon {
    pub(super) fn detect() -> Option<Self> {
        let there = is_aarch64_feature_detected!("neon") && is_aarch64_feature_detected!("dotprod");
        there.then_some(Self(()))
    }

    /// Compiles the task for these instructions, and runs it.
    pub(super) fn run<T: Task>(self, task: T) -> T::Output {
        #[target_feature(enable = "neon,dotprod")]
        fn compiled<T: Task>(kernel: Neon, task: T) -> T::Output {
            task.run(kernel)
        }
        // SAFETY: `self` exists, so the processor has these instructions.
        unsafe { compiled(self, task) }
    }
}

impl Kernel for Neon {
    #[inline(always)]
    fn dot(self, a: &[f32], b: &[f32]) -> f32 {
        let (a_vectors, a_rest) = a.as_chunks::<FLOATS>();
        let (b_vectors, b_rest) = b.as_chunks::<FLOATS>();
        let (a_eights, a_ones) = a_vectors.as_chunks::<8>();
        let (b_eights, b_ones) = b_vectors.as_chunks::<8>();
        // SAFETY: `self` exists, so the processor has these instructions.
        let sum = unsafe {
            let mut sums = [vdupq_n_f32(0.0); 8];
            for (a, b) in a_eights.iter().zip(b_eights) {
                for i in 0..8 {
                    sums[i] = multiply_add(&a[i], &b[i], sums[i]);
                }
            }
            for (a, b) in a_ones.iter().zip(b_ones) {
                sums[0] = multiply_add(a, b, sums[0]);
            }
            let [a, b, c, d, e, f, g, h] = sums;
            let low = vaddq_f32(vaddq_f32(a, b), vaddq_f32(c, d));
            let high = vaddq_f32(vaddq_f32(e, f), vaddq_f32(g, h));
            vaddvq_f32(vaddq_f32(low, high))
        };
        a_rest
            .iter()
            .zip(b_rest)
            .fold(sum, |sum, (a, b)| sum + a * b)
    }

    #[inline(always)]
    fn dot_codes(self, a: &[i8], b: &[i8], _: i32) -> i32 {
        let (a_vectors, a_rest) = a.as_chunks::<CODES>();
        let (b_vectors, b_rest) = b.as_chunks::<CODES>();
        let (a_fours, a_ones) = a_vectors.as_chunks::<4>();
        let (b_fours, b_ones) = b_vectors.as_chunks::<4>();
        // SAFETY: `self` exists, so the processor has these instructions.
        let sum = unsafe {
            let mut sums = [vdupq_n_s32(0); 4];
            for (a, b) in a_fours.iter().zip(b_fours) {
                for i in 0..4 {
                    sums[i] = add_products(&a[i], &b[i], sums[i]);
                }
            }
            for (a, b) in a_ones.iter().zip(b_ones) {
                sums[0] = add_products(a, b, sums[0]);
            }
            let low = vaddq_s32(sums[0], sums[1]);
            let high = vaddq_s32(sums[2], sums[3]);
            vaddvq_s32(vaddq_s32(low, high))
        };
        let rest = a_rest.iter().zip(b_rest);
        rest.fold(sum, |sum, (a, b)| sum + i32::from(*a) * i32::from(*b))
    }

    #[inline(always)]
    fn prefetch<T>(self, data: &[T]) {
        let start = data.as_ptr().cast::<u8>();
        for at in (0..size_of_val(data)).step_by(LINE_BYTES) {
            // SAFETY: a prefetch reads nothing, and the address is inside the slice.
            unsafe {
                asm!(
                    "prfm pldl1keep, [{at}]",
                    at = in(reg) start.add(at),
                    options(readonly, nostack, preserves_flags)
                );
            }
        }
    }
}

/// Needs NEON.
#[inline(always)]
unsafe fn multiply_add(a: &[f32; FLOATS], b: &[f32; FLOATS], sum: float32x4_t) -> float32x4_t {
    // SAFETY: the caller has the instructions; the arrays are as long as a vector.
    unsafe { vfmaq_f32(sum, vld1q_f32(a.as_ptr()), vld1q_f32(b.as_ptr())) }
}

/// Sums of four neighboring products each. Needs DotProd.
#[inline(always)]
unsafe fn add_products(a: &[i8; CODES], b: &[i8; CODES], mut sum: int32x4_t) -> int32x4_t {
    // SAFETY: the caller has the instructions, of which the assembly touches registers only; the
    // arrays are as long as a vector.
    unsafe {
        asm!(
            ".arch_extension dotprod",
            "sdot {sum:v}.4s, {a:v}.16b, {b:v}.16b",
            sum = inout(vreg) sum,
            a = in(vreg) vld1q_s8(a.as_ptr()),
            b = in(vreg) vld1q_s8(b.as_ptr()),
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    sum
}
