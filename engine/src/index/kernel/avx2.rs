//! 256-bit vectors: x86-64 processors since 2013.

use std::arch::x86_64::{
    __m256, __m256i, _MM_HINT_T0, _mm_add_epi32, _mm_add_ps, _mm_add_ss, _mm_cvtsi128_si32,
    _mm_cvtss_f32, _mm_movehdup_ps, _mm_movehl_ps, _mm_prefetch, _mm_shuffle_epi32,
    _mm256_abs_epi8, _mm256_add_epi32, _mm256_add_ps, _mm256_castps256_ps128,
    _mm256_castsi256_si128, _mm256_extractf128_ps, _mm256_extracti128_si256, _mm256_fmadd_ps,
    _mm256_loadu_ps, _mm256_loadu_si256, _mm256_madd_epi16, _mm256_maddubs_epi16,
    _mm256_set1_epi16, _mm256_setzero_ps, _mm256_setzero_si256, _mm256_sign_epi8,
};

use super::{Kernel, Task};

/// Numbers of a vector.
const FLOATS: usize = 8;
/// Codes of a vector.
const CODES: usize = 32;
/// Bytes that a cache holds together.
pub(super) const LINE_BYTES: usize = 64;

/// Exists only where AVX2 and FMA do.
#[derive(Debug, Clone, Copy)]
pub(super) struct Avx2(());

impl Avx2 {
    pub(super) fn detect() -> Option<Self> {
        let there = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
        there.then_some(Self(()))
    }

    /// Compiles the task for these instructions, and runs it.
    pub(super) fn run<T: Task>(self, task: T) -> T::Output {
        #[target_feature(enable = "avx2,fma")]
        fn compiled<T: Task>(kernel: Avx2, task: T) -> T::Output {
            task.run(kernel)
        }
        // SAFETY: `self` exists, so the processor has these instructions.
        unsafe { compiled(self, task) }
    }
}

impl Kernel for Avx2 {
    #[inline(always)]
    fn dot(self, a: &[f32], b: &[f32]) -> f32 {
        let (a_vectors, a_rest) = a.as_chunks::<FLOATS>();
        let (b_vectors, b_rest) = b.as_chunks::<FLOATS>();
        let (a_fours, a_ones) = a_vectors.as_chunks::<4>();
        let (b_fours, b_ones) = b_vectors.as_chunks::<4>();
        // SAFETY: `self` exists, so the processor has these instructions; each load reads the
        // eight numbers of an array of eight.
        let sum = unsafe {
            let mut sums = [_mm256_setzero_ps(); 4];
            for (a, b) in a_fours.iter().zip(b_fours) {
                for i in 0..4 {
                    sums[i] = multiply_add(&a[i], &b[i], sums[i]);
                }
            }
            for (a, b) in a_ones.iter().zip(b_ones) {
                sums[0] = multiply_add(a, b, sums[0]);
            }
            let low = _mm256_add_ps(sums[0], sums[1]);
            let high = _mm256_add_ps(sums[2], sums[3]);
            sum_floats(_mm256_add_ps(low, high))
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
        let (a_pairs, a_ones) = a_vectors.as_chunks::<2>();
        let (b_pairs, b_ones) = b_vectors.as_chunks::<2>();
        // SAFETY: `self` exists, so the processor has these instructions; each load reads the 32
        // codes of an array of 32.
        let sum = unsafe {
            let mut sums = [_mm256_setzero_si256(); 2];
            for (a, b) in a_pairs.iter().zip(b_pairs) {
                for i in 0..2 {
                    sums[i] = _mm256_add_epi32(sums[i], products(&a[i], &b[i]));
                }
            }
            for (a, b) in a_ones.iter().zip(b_ones) {
                sums[0] = _mm256_add_epi32(sums[0], products(a, b));
            }
            sum_codes(_mm256_add_epi32(sums[0], sums[1]))
        };
        let rest = a_rest.iter().zip(b_rest);
        rest.fold(sum, |sum, (a, b)| sum + i32::from(*a) * i32::from(*b))
    }

    #[inline(always)]
    fn multiply_add(self, a: f64, b: f64, c: f64) -> f64 {
        a.mul_add(b, c)
    }

    #[inline(always)]
    fn prefetch<T>(self, data: &[T]) {
        prefetch(data);
    }
}

/// Has every cache line of `data` on its way.
#[inline(always)]
pub(super) fn prefetch<T>(data: &[T]) {
    let start = data.as_ptr().cast::<i8>();
    for at in (0..size_of_val(data)).step_by(LINE_BYTES) {
        // SAFETY: a prefetch reads nothing, and the address is inside the slice.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(start.add(at)) };
    }
}

/// Needs AVX2 and FMA.
#[inline(always)]
unsafe fn multiply_add(a: &[f32; FLOATS], b: &[f32; FLOATS], sum: __m256) -> __m256 {
    // SAFETY: the caller has the instructions; the arrays are as long as a vector.
    unsafe {
        _mm256_fmadd_ps(
            _mm256_loadu_ps(a.as_ptr()),
            _mm256_loadu_ps(b.as_ptr()),
            sum,
        )
    }
}

/// Sums of four neighboring products each. Needs AVX2.
///
/// The only byte product multiplies unsigned with signed bytes, so the sign of `a` moves to `b`.
/// Two products of at most 127 * 127 fit into the 16 bits that they are added in.
#[inline(always)]
unsafe fn products(a: &[i8; CODES], b: &[i8; CODES]) -> __m256i {
    // SAFETY: the caller has the instructions; the arrays are as long as a vector.
    unsafe {
        let a = _mm256_loadu_si256(a.as_ptr().cast());
        let b = _mm256_loadu_si256(b.as_ptr().cast());
        let pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(a), _mm256_sign_epi8(b, a));
        _mm256_madd_epi16(pairs, _mm256_set1_epi16(1))
    }
}

/// Needs AVX2.
#[inline(always)]
unsafe fn sum_floats(v: __m256) -> f32 {
    // SAFETY: the caller has the instructions.
    unsafe {
        let four = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
        let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
        _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
    }
}

/// Needs AVX2.
#[inline(always)]
unsafe fn sum_codes(v: __m256i) -> i32 {
    // SAFETY: the caller has the instructions.
    unsafe {
        let four = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256::<1>(v));
        let two = _mm_add_epi32(four, _mm_shuffle_epi32::<0b01_00_11_10>(four));
        _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32::<0b10_11_00_01>(two)))
    }
}
