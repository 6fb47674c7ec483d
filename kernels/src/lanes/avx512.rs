//! AVX-512 as every server since 2017 has it (F, BW, DQ, VL).

use std::arch::x86_64::*;

use super::Lanes;

/// Sixteen floats in a register, 32 registers.
#[derive(Clone, Copy)]
pub(crate) struct Avx512;

/// The first `n` lanes.
#[inline(always)]
fn mask(n: usize) -> __mmask16 {
    if n >= 16 { !0 } else { (1 << n) - 1 }
}

// SAFETY: the caller has these parts of AVX-512; pointers are as the trait says, masked lanes are
// not touched.
impl Lanes for Avx512 {
    const COUNT: usize = 16;
    const ROWS: usize = 14;
    const BYTE_PAIRS: bool = true;
    type V = __m512;
    type I = __m512i;

    #[inline(always)]
    unsafe fn prefetch(at: *const u8) {
        unsafe { _mm_prefetch::<_MM_HINT_T1>(at.cast()) }
    }
    #[inline(always)]
    unsafe fn splat(x: f32) -> Self::V {
        unsafe { _mm512_set1_ps(x) }
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self::V {
        unsafe { _mm512_loadu_ps(from) }
    }
    #[inline(always)]
    unsafe fn load_n(from: *const f32, n: usize) -> Self::V {
        unsafe { _mm512_maskz_loadu_ps(mask(n), from) }
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, v: Self::V) {
        unsafe { _mm512_storeu_ps(to, v) }
    }
    #[inline(always)]
    unsafe fn store_n(to: *mut f32, v: Self::V, n: usize) {
        unsafe { _mm512_mask_storeu_ps(to, mask(n), v) }
    }
    #[inline(always)]
    unsafe fn store_bf16_n(to: *mut u16, v: Self::V, n: usize) {
        unsafe {
            let bits = _mm512_castps_si512(v);
            let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
            let up = _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff));
            let high = _mm512_srli_epi32::<16>(_mm512_add_epi32(bits, up));
            // Narrowed in a register: with a mask and to memory it is one slow instruction.
            let low = _mm512_cvtepi32_epi16(high);
            if n >= 16 {
                _mm256_storeu_si256(to.cast(), low);
            } else {
                _mm256_mask_storeu_epi16(to.cast(), mask(n), low);
            }
        }
    }
    #[inline(always)]
    unsafe fn store_halves_n(to: *mut i16, v: Self::V, n: usize) {
        unsafe {
            let low = _mm512_cvtepi32_epi16(_mm512_cvtps_epi32(v));
            if n >= 16 {
                _mm256_storeu_si256(to.cast(), low);
            } else {
                _mm256_mask_storeu_epi16(to, mask(n), low);
            }
        }
    }
    #[inline(always)]
    unsafe fn store_bytes_n(to: *mut u8, v: Self::V, n: usize) {
        unsafe {
            let whole = _mm512_add_epi32(_mm512_cvtps_epi32(v), _mm512_set1_epi32(Self::SHIFT));
            let low = _mm512_cvtepi32_epi8(whole);
            if n >= 16 {
                _mm_storeu_si128(to.cast(), low);
            } else {
                _mm_mask_storeu_epi8(to.cast(), mask(n), low);
            }
        }
    }
    #[inline(always)]
    unsafe fn add(a: Self::V, b: Self::V) -> Self::V {
        unsafe { _mm512_add_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn sub(a: Self::V, b: Self::V) -> Self::V {
        unsafe { _mm512_sub_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn mul(a: Self::V, b: Self::V) -> Self::V {
        unsafe { _mm512_mul_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn reciprocal(x: Self::V) -> Self::V {
        unsafe {
            // One step of Newton's method; a division takes as long as ten products.
            let y = _mm512_rcp14_ps(x);
            let error = _mm512_fnmadd_ps(x, y, _mm512_set1_ps(1.0));
            _mm512_fmadd_ps(y, error, y)
        }
    }
    #[inline(always)]
    unsafe fn mul_add(a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    unsafe fn max(a: Self::V, b: Self::V) -> Self::V {
        unsafe { _mm512_max_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn min(a: Self::V, b: Self::V) -> Self::V {
        unsafe { _mm512_min_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn abs(v: Self::V) -> Self::V {
        unsafe { _mm512_abs_ps(v) }
    }
    #[inline(always)]
    unsafe fn round(v: Self::V) -> Self::V {
        unsafe { _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(v) }
    }
    #[inline(always)]
    unsafe fn exp2_whole(n: Self::V) -> Self::V {
        unsafe { _mm512_scalef_ps(_mm512_set1_ps(1.0), n) }
    }
    #[inline(always)]
    unsafe fn where_less(x: Self::V, limit: Self::V, a: Self::V, b: Self::V) -> Self::V {
        unsafe { _mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(x, limit), b, a) }
    }
    #[inline(always)]
    unsafe fn with_sign(v: Self::V, sign: Self::V) -> Self::V {
        unsafe {
            let bit = _mm512_set1_ps(-0.0);
            _mm512_or_ps(_mm512_andnot_ps(bit, v), _mm512_and_ps(bit, sign))
        }
    }
    #[inline(always)]
    unsafe fn sum(v: Self::V) -> f32 {
        unsafe { _mm512_reduce_add_ps(v) }
    }
    #[inline(always)]
    unsafe fn largest(v: Self::V) -> f32 {
        unsafe { _mm512_reduce_max_ps(v) }
    }
    #[inline(always)]
    unsafe fn bf16_first(words: *const u8) -> Self::V {
        unsafe {
            let words = _mm512_loadu_si512(words.cast());
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(words))
        }
    }
    #[inline(always)]
    unsafe fn bf16_second(words: *const u8) -> Self::V {
        unsafe {
            let words = _mm512_loadu_si512(words.cast());
            let high = _mm512_set1_epi32(0xffff_0000_u32 as i32);
            _mm512_castsi512_ps(_mm512_and_si512(words, high))
        }
    }
    #[inline(always)]
    unsafe fn zero_i() -> Self::I {
        unsafe { _mm512_setzero_si512() }
    }
    #[inline(always)]
    unsafe fn to_float(v: Self::I) -> Self::V {
        unsafe { _mm512_cvtepi32_ps(v) }
    }
    #[inline(always)]
    unsafe fn splat_i(word: i32) -> Self::I {
        unsafe { _mm512_set1_epi32(word) }
    }
    #[inline(always)]
    unsafe fn load_i(words: *const u8) -> Self::I {
        unsafe { _mm512_loadu_si512(words.cast()) }
    }
    #[inline(always)]
    unsafe fn mul_add_bytes(sum: Self::I, row: Self::I, columns: Self::I) -> Self::I {
        unsafe {
            let pairs = _mm512_maddubs_epi16(row, columns);
            _mm512_add_epi32(sum, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)))
        }
    }
    #[inline(always)]
    unsafe fn mul_add_pairs(sum: Self::I, a: Self::I, b: Self::I) -> Self::I {
        unsafe { _mm512_add_epi32(sum, _mm512_madd_epi16(a, b)) }
    }
}
