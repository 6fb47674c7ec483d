//! The products that later parts of AVX-512 have in one instruction.

use std::arch::x86_64::*;
use std::mem::transmute;

use super::{Dot, Kind};
use crate::lanes::avx512::Avx512;

/// Pairs of bfloat16 in one instruction (AVX512-BF16).
pub(crate) struct NativeBf16;

impl Kind for NativeBf16 {
    type L = Avx512;
    type Row = __m512bh;
    type Columns = __m512bh;
    type Sum = __m512;

    #[inline(always)]
    unsafe fn zero() -> Self::Sum {
        unsafe { _mm512_setzero_ps() }
    }
    #[inline(always)]
    unsafe fn row(word: *const u8) -> Self::Row {
        // SAFETY: both types are 64 bytes without invalid values.
        unsafe { transmute(_mm512_set1_epi32(word.cast::<i32>().read_unaligned())) }
    }
    #[inline(always)]
    unsafe fn columns(words: *const u8) -> Self::Columns {
        // SAFETY: as above.
        unsafe { transmute(_mm512_loadu_si512(words.cast())) }
    }
    #[inline(always)]
    unsafe fn mul_add(sum: Self::Sum, row: Self::Row, columns: Self::Columns) -> Self::Sum {
        unsafe { _mm512_dpbf16_ps(sum, row, columns) }
    }
    #[inline(always)]
    unsafe fn total(sum: Self::Sum) -> __m512 {
        sum
    }
}

/// Pairs of 16-bit numbers in one instruction (AVX512-VNNI).
pub(crate) struct VnniHalves;

impl Dot<Avx512> for VnniHalves {
    #[inline(always)]
    unsafe fn mul_add(sum: __m512i, row: __m512i, columns: __m512i) -> __m512i {
        unsafe { _mm512_dpwssd_epi32(sum, row, columns) }
    }
}

/// Four bytes in one instruction (AVX512-VNNI).
pub(crate) struct VnniBytes;

impl Dot<Avx512> for VnniBytes {
    #[inline(always)]
    unsafe fn mul_add(sum: __m512i, row: __m512i, columns: __m512i) -> __m512i {
        unsafe { _mm512_dpbusd_epi32(sum, row, columns) }
    }
}
