//! 512-bit vectors with byte products (VNNI): Intel since 2019, AMD since 2022.

use std::arch::x86_64::{
    __m512i, _mm512_add_epi32, _mm512_add_ps, _mm512_dpbusd_epi32, _mm512_fmadd_ps,
    _mm512_loadu_ps, _mm512_loadu_si512, _mm512_reduce_add_epi32, _mm512_reduce_add_ps,
    _mm512_set1_epi8, _mm512_setzero_ps, _mm512_setzero_si512, _mm512_xor_si512,
};

use super::{Kernel, Task, avx2::prefetch};

/// Numbers of a vector.
const FLOATS: usize = 16;
/// Codes of a vector.
const CODES: usize = 64;

/// Exists only where AVX-512 F, BW and VNNI do.
#[derive(Debug, Clone, Copy)]
pub(super) struct Avx512(());

impl Avx512 {
    pub(super) fn detect() -> Option<Self> {
        let there = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vnni");
        there.then_some(Self(()))
    }

    /// Compiles the task for these instructions, and runs it.
    pub(super) fn run<T: Task>(self, task: T) -> T::Output {
        #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
        fn compiled<T: Task>(kernel: Avx512, task: T) -> T::Output {
            task.run(kernel)
        }
        // SAFETY: `self` exists, so the processor has these instructions.
        unsafe { compiled(self, task) }
    }
}

impl Kernel for Avx512 {
    #[inline(always)]
    fn dot(self, a: &[f32], b: &[f32]) -> f32 {
        let (a_vectors, a_rest) = a.as_chunks::<FLOATS>();
        let (b_vectors, b_rest) = b.as_chunks::<FLOATS>();
        let (a_fours, a_ones) = a_vectors.as_chunks::<4>();
        let (b_fours, b_ones) = b_vectors.as_chunks::<4>();
        // SAFETY: `self` exists, so the processor has these instructions; each load reads the 16
        // numbers of an array of 16.
        let sum = unsafe {
            let mut sums = [_mm512_setzero_ps(); 4];
            for (a, b) in a_fours.iter().zip(b_fours) {
                for i in 0..4 {
                    let (a, b) = (
                        _mm512_loadu_ps(a[i].as_ptr()),
                        _mm512_loadu_ps(b[i].as_ptr()),
                    );
                    sums[i] = _mm512_fmadd_ps(a, b, sums[i]);
                }
            }
            for (a, b) in a_ones.iter().zip(b_ones) {
                let (a, b) = (_mm512_loadu_ps(a.as_ptr()), _mm512_loadu_ps(b.as_ptr()));
                sums[0] = _mm512_fmadd_ps(a, b, sums[0]);
            }
            let low = _mm512_add_ps(sums[0], sums[1]);
            let high = _mm512_add_ps(sums[2], sums[3]);
            _mm512_reduce_add_ps(_mm512_add_ps(low, high))
        };
        a_rest
            .iter()
            .zip(b_rest)
            .fold(sum, |sum, (a, b)| sum + a * b)
    }

    /// The byte product multiplies unsigned with signed bytes, so 128 is added to each code of
    /// `a` and 128 times the sum of `b` taken off the result.
    #[inline(always)]
    fn dot_codes(self, a: &[i8], b: &[i8], b_sum: i32) -> i32 {
        let (a_vectors, a_rest) = a.as_chunks::<CODES>();
        let (b_vectors, b_rest) = b.as_chunks::<CODES>();
        let (a_fours, a_ones) = a_vectors.as_chunks::<4>();
        let (b_fours, b_ones) = b_vectors.as_chunks::<4>();
        // SAFETY: `self` exists, so the processor has these instructions; each load reads the 64
        // codes of an array of 64.
        let sum = unsafe {
            let mut sums = [_mm512_setzero_si512(); 4];
            for (a, b) in a_fours.iter().zip(b_fours) {
                for i in 0..4 {
                    sums[i] = add_products(&a[i], &b[i], sums[i]);
                }
            }
            for (a, b) in a_ones.iter().zip(b_ones) {
                sums[0] = add_products(a, b, sums[0]);
            }
            let low = _mm512_add_epi32(sums[0], sums[1]);
            let high = _mm512_add_epi32(sums[2], sums[3]);
            _mm512_reduce_add_epi32(_mm512_add_epi32(low, high))
        };
        let rest = a_rest.iter().zip(b_rest);
        rest.fold(sum - 128 * b_sum, |sum, (a, b)| {
            sum + (i32::from(*a) + 128) * i32::from(*b)
        })
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

/// Needs AVX-512 VNNI.
#[inline(always)]
unsafe fn add_products(a: &[i8; CODES], b: &[i8; CODES], sum: __m512i) -> __m512i {
    // SAFETY: the caller has the instructions; the arrays are as long as a vector.
    unsafe {
        let a = _mm512_loadu_si512(a.as_ptr().cast());
        let b = _mm512_loadu_si512(b.as_ptr().cast());
        _mm512_dpbusd_epi32(sum, _mm512_xor_si512(a, _mm512_set1_epi8(-128)), b)
    }
}
