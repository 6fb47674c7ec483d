//! AVX2 with fused multiply-add.

use std::arch::x86_64::*;

use super::Lanes;

/// Eight floats in a register, sixteen registers.
#[derive(Clone, Copy)]
pub(crate) struct Avx2;

/// All bits of the first `n` lanes.
#[inline(always)]
unsafe fn mask(n: usize) -> __m256i {
    unsafe {
        let lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
        _mm256_cmpgt_epi32(_mm256_set1_epi32(n.min(8) as i32), lanes)
    }
}

// SAFETY: the caller has AVX2 and FMA; pointers are as the trait says, masked lanes are not touched.
impl Lanes for Avx2 {
    const COUNT: usize = 8;
    const ROWS: usize = 6;
    const BYTE_PAIRS: bool = true;
    type V = __m256;
    type I = __m256i;

    #[inline(always)]
    unsafe fn prefetch(at: *const u8) {
        unsafe { _mm_prefetch::<_MM_HINT_T1>(at.cast()) }
    }
    #[inline(always)]
    unsafe fn splat(x: f32) -> Self::V {
        unsafe { _mm256_set1_ps(x) }
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self::V {
        unsafe { _mm256_loadu_ps(from) }
    }
    #[inline(always)]
    unsafe fn load_n(from: *const f32, n: usize) -> Self::V {
        unsafe { _mm256_maskload_ps(from, mask(n)) }
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, v: Self::V) {
        unsafe { _mm256_storeu_ps(to, v) }
    }
    #[inline(always)]
    unsafe fn store_n(to: *mut f32, v: Self::V, n: usize) {
        unsafe { _mm256_maskstore_ps(to, mask(n), v) }
    }
    #[inline(always)]
    unsafe fn store_bf16_n(to: *mut u16, v: Self::V, n: usize) {
        unsafe {
            let bits = _mm256_castps_si256(v);
            let odd = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
            let up = _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff));
            let high = _mm256_srli_epi32::<16>(_mm256_add_epi32(bits, up));
            let packed = _mm_packus_epi32(
                _mm256_castsi256_si128(high),
                _mm256_extracti128_si256::<1>(high),
            );
            if n >= 8 {
                _mm_storeu_si128(to.cast(), packed);
            } else {
                let mut all = [0_u16; 8];
                _mm_storeu_si128(all.as_mut_ptr().cast(), packed);
                std::ptr::copy_nonoverlapping(all.as_ptr(), to, n);
            }
        }
    }
    #[inline(always)]
    unsafe fn store_halves_n(to: *mut i16, v: Self::V, n: usize) {
        unsafe {
            let whole = _mm256_cvtps_epi32(v);
            let packed = _mm_packs_epi32(
                _mm256_castsi256_si128(whole),
                _mm256_extracti128_si256::<1>(whole),
            );
            if n >= 8 {
                _mm_storeu_si128(to.cast(), packed);
            } else {
                let mut all = [0_i16; 8];
                _mm_storeu_si128(all.as_mut_ptr().cast(), packed);
                std::ptr::copy_nonoverlapping(all.as_ptr(), to, n);
            }
        }
    }
    #[inline(always)]
    unsafe fn store_bytes_n(to: *mut u8, v: Self::V, n: usize) {
        unsafe {
            let whole = _mm256_add_epi32(_mm256_cvtps_epi32(v), _mm256_set1_epi32(Self::SHIFT));
            let halves = _mm_packus_epi32(
                _mm256_castsi256_si128(whole),
                _mm256_extracti128_si256::<1>(whole),
            );
            let bytes = _mm_packus_epi16(halves, halves);
            if n >= 8 {
                _mm_storel_epi64(to.cast(), bytes);
            } else {
                let mut all = [0_u8; 16];
                _mm_storeu_si128(all.as_mut_ptr().cast(), bytes);
                std::ptr::copy_nonoverlapping(all.as_ptr(), to, n);
            }
        }
    }
    #[inline(always)]
    unsafe fn add(a: Self::V, b: Self::V) -> Self::V {
        unsafe { _mm256_add_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn sub(a: Self::V, b: Self::V) -> Self::V {
        unsafe { _mm256_sub_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn mul(a: Self::V, b: Self::V) -> Self::V {
        unsafe { _mm256_mul_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn reciprocal(x: Self::V) -> Self::V {
        unsafe { _mm256_div_ps(_mm256_set1_ps(1.0), x) }
    }
    #[inline(always)]
    unsafe fn mul_add(a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        unsafe { _mm256_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    unsafe fn max(a: Self::V, b: Self::V) -> Self::V {
        unsafe { _mm256_max_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn min(a: Self::V, b: Self::V) -> Self::V {
        unsafe { _mm256_min_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn abs(v: Self::V) -> Self::V {
        unsafe { _mm256_andnot_ps(_mm256_set1_ps(-0.0), v) }
    }
    #[inline(always)]
    unsafe fn round(v: Self::V) -> Self::V {
        unsafe { _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(v) }
    }
    #[inline(always)]
    unsafe fn exp2_whole(n: Self::V) -> Self::V {
        unsafe {
            let exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
            _mm256_castsi256_ps(_mm256_slli_epi32::<23>(exponent))
        }
    }
    #[inline(always)]
    unsafe fn where_less(x: Self::V, limit: Self::V, a: Self::V, b: Self::V) -> Self::V {
        unsafe { _mm256_blendv_ps(b, a, _mm256_cmp_ps::<_CMP_LT_OQ>(x, limit)) }
    }
    #[inline(always)]
    unsafe fn with_sign(v: Self::V, sign: Self::V) -> Self::V {
        unsafe {
            let bit = _mm256_set1_ps(-0.0);
            _mm256_or_ps(_mm256_andnot_ps(bit, v), _mm256_and_ps(bit, sign))
        }
    }
    #[inline(always)]
    unsafe fn sum(v: Self::V) -> f32 {
        unsafe {
            let four = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
        }
    }
    #[inline(always)]
    unsafe fn largest(v: Self::V) -> f32 {
        unsafe {
            let four = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
            let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps::<1>(two, two)))
        }
    }
    #[inline(always)]
    unsafe fn bf16_first(words: *const u8) -> Self::V {
        unsafe {
            let words = _mm256_loadu_si256(words.cast());
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(words))
        }
    }
    #[inline(always)]
    unsafe fn bf16_second(words: *const u8) -> Self::V {
        unsafe {
            let words = _mm256_loadu_si256(words.cast());
            let high = _mm256_set1_epi32(0xffff_0000_u32 as i32);
            _mm256_castsi256_ps(_mm256_and_si256(words, high))
        }
    }
    #[inline(always)]
    unsafe fn zero_i() -> Self::I {
        unsafe { _mm256_setzero_si256() }
    }
    #[inline(always)]
    unsafe fn to_float(v: Self::I) -> Self::V {
        unsafe { _mm256_cvtepi32_ps(v) }
    }
    #[inline(always)]
    unsafe fn splat_i(word: i32) -> Self::I {
        unsafe { _mm256_set1_epi32(word) }
    }
    #[inline(always)]
    unsafe fn load_i(words: *const u8) -> Self::I {
        unsafe { _mm256_loadu_si256(words.cast()) }
    }
    #[inline(always)]
    unsafe fn mul_add_bytes(sum: Self::I, row: Self::I, columns: Self::I) -> Self::I {
        unsafe {
            let pairs = _mm256_maddubs_epi16(row, columns);
            _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
        }
    }
    #[inline(always)]
    unsafe fn mul_add_pairs(sum: Self::I, a: Self::I, b: Self::I) -> Self::I {
        unsafe { _mm256_add_epi32(sum, _mm256_madd_epi16(a, b)) }
    }
}
