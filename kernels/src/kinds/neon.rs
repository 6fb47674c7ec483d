//! The products that later 64-bit ARMs have in one instruction. Rust has no stable functions for
//! them, hence assembly, which names the extension for copies of the functions that were not inlined.
//! The first word of the row's register is multiplied with each of the columns.

use std::arch::{aarch64::*, asm};

use super::Kind;
use crate::lanes::neon::Neon;

/// Pairs of bfloat16 in one instruction (BF16: Graviton 3, Apple's M2).
pub(crate) struct NativeBf16;

impl Kind for NativeBf16 {
    type L = Neon;
    /// The bits of a word: as a float it is loaded to where it is needed.
    type Row = f32;
    type Columns = float32x4_t;
    type Sum = float32x4_t;

    #[inline(always)]
    unsafe fn zero() -> Self::Sum {
        unsafe { vdupq_n_f32(0.0) }
    }
    #[inline(always)]
    unsafe fn row(word: *const u8) -> Self::Row {
        unsafe { word.cast::<f32>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn columns(words: *const u8) -> Self::Columns {
        unsafe { vld1q_f32(words.cast()) }
    }
    #[inline(always)]
    unsafe fn mul_add(mut sum: Self::Sum, row: Self::Row, columns: Self::Columns) -> Self::Sum {
        // SAFETY: the caller has BF16; only registers are touched.
        unsafe {
            asm!(
                ".arch_extension bf16",
                "bfdot {sum:v}.4s, {columns:v}.8h, {row:v}.2h[0]",
                sum = inout(vreg) sum,
                columns = in(vreg) columns,
                row = in(vreg) row,
                options(pure, nomem, nostack, preserves_flags)
            );
        }
        sum
    }
    #[inline(always)]
    unsafe fn total(sum: Self::Sum) -> float32x4_t {
        sum
    }
}

/// Four bytes in one instruction (DotProd: every server since 2019, Apple's M1).
pub(crate) struct NativeInt8;

impl Kind for NativeInt8 {
    type L = Neon;
    /// As for [`NativeBf16`].
    type Row = f32;
    type Columns = int32x4_t;
    type Sum = int32x4_t;

    #[inline(always)]
    unsafe fn zero() -> Self::Sum {
        unsafe { vdupq_n_s32(0) }
    }
    #[inline(always)]
    unsafe fn row(word: *const u8) -> Self::Row {
        unsafe { word.cast::<f32>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn columns(words: *const u8) -> Self::Columns {
        unsafe { vreinterpretq_s32_u8(vld1q_u8(words)) }
    }
    #[inline(always)]
    unsafe fn mul_add(mut sum: Self::Sum, row: Self::Row, columns: Self::Columns) -> Self::Sum {
        // SAFETY: the caller has DotProd; only registers are touched.
        unsafe {
            asm!(
                ".arch_extension dotprod",
                "sdot {sum:v}.4s, {columns:v}.16b, {row:v}.4b[0]",
                sum = inout(vreg) sum,
                columns = in(vreg) columns,
                row = in(vreg) row,
                options(pure, nomem, nostack, preserves_flags)
            );
        }
        sum
    }
    #[inline(always)]
    unsafe fn total(sum: Self::Sum) -> float32x4_t {
        unsafe { vcvtq_f32_s32(sum) }
    }
}
