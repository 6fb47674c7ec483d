//! Dot products, in the widest form that this processor has.
//!
//! A loop that is to be fast is written once, as a [`Task`] generic over [`Kernel`], and [`run`]
//! compiles it once per instruction set, so that the dot product is part of the loop and not a
//! call. A kernel is a value that exists only where its instructions do, so that its methods need
//! no `unsafe` outside of here.

#![allow(
    unsafe_code,
    reason = "instructions that the compiler does not choose by itself"
)]

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;

use std::sync::LazyLock;

/// Lanes of the portable dot product: wide enough for the compiler to keep two vector registers
/// busy.
const LANES: usize = 16;
/// Largest magnitude of a code. -128 has no positive counterpart, so no code is.
pub(crate) const CODE_MAX: i8 = 127;

/// Dot products of one instruction set.
pub(crate) trait Kernel: Copy {
    /// Of the first elements that both have. The order of summation depends on the length only,
    /// so that equal rows score equally.
    fn dot(self, a: &[f32], b: &[f32]) -> f32;

    /// Of codes in `-CODE_MAX..=CODE_MAX`, exact. `b_sum` is the sum of `b`.
    fn dot_codes(self, a: &[i8], b: &[i8], b_sum: i32) -> i32;

    /// `a * b + c`, rounded once where an instruction does that.
    #[inline(always)]
    fn multiply_add(self, a: f64, b: f64, c: f64) -> f64 {
        a * b + c
    }

    /// Has memory on its way to the cache. Only a hint.
    fn prefetch<T>(self, data: &[T]);
}

/// A computation that is compiled for each instruction set. Everything below [`Task::run`] that is
/// generic over the kernel must be `#[inline(always)]`: it is part of one function.
pub(crate) trait Task {
    /// What comes out.
    type Output;

    /// Does it.
    fn run<K: Kernel>(self, kernel: K) -> Self::Output;
}

/// Runs a task with the fastest kernel of this processor.
pub(crate) fn run<T: Task>(task: T) -> T::Output {
    match *BEST {
        #[cfg(target_arch = "x86_64")]
        Best::Avx512(kernel) => kernel.run(task),
        #[cfg(target_arch = "x86_64")]
        Best::Avx2(kernel) => kernel.run(task),
        #[cfg(target_arch = "aarch64")]
        Best::Neon(kernel) => kernel.run(task),
        Best::Portable => task.run(Portable),
    }
}

/// Name of the kernel in use.
pub fn kernel_name() -> &'static str {
    match *BEST {
        #[cfg(target_arch = "x86_64")]
        Best::Avx512(_) => "avx512-vnni",
        #[cfg(target_arch = "x86_64")]
        Best::Avx2(_) => "avx2",
        #[cfg(target_arch = "aarch64")]
        Best::Neon(_) => "neon-dot",
        Best::Portable => "portable",
    }
}

#[derive(Debug, Clone, Copy)]
enum Best {
    #[cfg(target_arch = "x86_64")]
    Avx512(avx512::Avx512),
    #[cfg(target_arch = "x86_64")]
    Avx2(avx2::Avx2),
    #[cfg(target_arch = "aarch64")]
    Neon(neon::Neon),
    Portable,
}

static BEST: LazyLock<Best> = LazyLock::new(|| {
    // One that miscounts is not used: few developers have every processor at hand.
    #[cfg(target_arch = "x86_64")]
    {
        if let Some(kernel) = avx512::Avx512::detect().filter(|kernel| kernel.run(Agrees)) {
            return Best::Avx512(kernel);
        }
        if let Some(kernel) = avx2::Avx2::detect().filter(|kernel| kernel.run(Agrees)) {
            return Best::Avx2(kernel);
        }
    }
    #[cfg(target_arch = "aarch64")]
    if let Some(kernel) = neon::Neon::detect().filter(|kernel| kernel.run(Agrees)) {
        return Best::Neon(kernel);
    }
    Best::Portable
});

/// Whether a kernel agrees with the portable one on a few lengths and on extreme values.
struct Agrees;

impl Task for Agrees {
    type Output = bool;

    fn run<K: Kernel>(self, kernel: K) -> bool {
        [1, 31, 64, 130, 512, 1027].into_iter().all(|len| {
            let codes = |seed: i32| -> Vec<i8> {
                let code = |i: i32| ((i * seed) % 255 - 127) as i8;
                (0..len).map(code).collect()
            };
            let (a, b) = (codes(89), codes(151));
            let floats = |codes: &[i8]| -> Vec<f32> {
                codes.iter().map(|c| f32::from(*c) / 127.0).collect()
            };
            let (x, y) = (floats(&a), floats(&b));
            let extreme = vec![-CODE_MAX; a.len()];
            let close = (kernel.dot(&x, &y) - Portable.dot(&x, &y)).abs() < 1e-3;
            let equal = |a: &[i8], b: &[i8]| {
                kernel.dot_codes(a, b, sum(b)) == Portable.dot_codes(a, b, sum(b))
            };
            close && equal(&a, &b) && equal(&extreme, &b) && equal(&extreme, &extreme)
        })
    }
}

/// Sum of codes.
pub(crate) fn sum(codes: &[i8]) -> i32 {
    codes.iter().map(|c| i32::from(*c)).sum()
}

/// Dot product. The order of summation depends on the dim only, so equal rows score equally.
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    struct Dot<'a>(&'a [f32], &'a [f32]);

    impl Task for Dot<'_> {
        type Output = f32;

        #[inline(always)]
        fn run<K: Kernel>(self, kernel: K) -> f32 {
            kernel.dot(self.0, self.1)
        }
    }

    run(Dot(a, b))
}

/// What every processor can do. On 64-bit ARM the compiler makes NEON of it, which is part of its
/// baseline.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Portable;

impl Kernel for Portable {
    #[inline(always)]
    fn dot(self, a: &[f32], b: &[f32]) -> f32 {
        let (a_chunks, a_rest) = a.as_chunks::<LANES>();
        let (b_chunks, b_rest) = b.as_chunks::<LANES>();
        let mut sums = [0.0_f32; LANES];
        for (a, b) in a_chunks.iter().zip(b_chunks) {
            for lane in 0..LANES {
                sums[lane] += a[lane] * b[lane];
            }
        }
        let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
        sums.iter().sum::<f32>() + rest
    }

    #[inline(always)]
    fn dot_codes(self, a: &[i8], b: &[i8], _: i32) -> i32 {
        let products = a.iter().zip(b).map(|(a, b)| i32::from(*a) * i32::from(*b));
        products.sum()
    }

    #[inline(always)]
    fn prefetch<T>(self, _: &[T]) {}
}

/// In double precision, of eight sequences side by side, for one alone would wait for each of its sums.
#[inline(always)]
pub(crate) fn sum_of_products(row: &[f32], with: &[f64]) -> f64 {
    const LANES: usize = 8;
    let (row_chunks, row_rest) = row.as_chunks::<LANES>();
    let (with_chunks, with_rest) = with.as_chunks::<LANES>();
    let mut sums = [0.0; LANES];
    for (row, with) in row_chunks.iter().zip(with_chunks) {
        for lane in 0..LANES {
            sums[lane] += f64::from(row[lane]) * with[lane];
        }
    }
    let rest = row_rest.iter().zip(with_rest);
    let rest: f64 = rest.map(|(x, w)| f64::from(*x) * w).sum();
    sums.iter().sum::<f64>() + rest
}

#[cfg(test)]
mod tests {
    use embedding::mix;

    use super::*;

    /// Compares with sums in higher precision, at every length up to 1,100.
    struct EveryLength;

    impl Task for EveryLength {
        type Output = ();

        fn run<K: Kernel>(self, kernel: K) {
            let code = |seed: u64, i: u64| (mix(seed ^ mix(i)) % 255) as i32 - 127;
            let a: Vec<i8> = (0..1100).map(|i| code(1, i) as i8).collect();
            let b: Vec<i8> = (0..1100).map(|i| code(2, i) as i8).collect();
            let extremes = [[CODE_MAX; 1100], [-CODE_MAX; 1100]];
            let x: Vec<f32> = a.iter().map(|c| f32::from(*c) / 127.0).collect();
            let y: Vec<f32> = b.iter().map(|c| f32::from(*c) / 127.0).collect();
            for len in 0..=1100 {
                let (a, b) = (&a[..len], &b[..len]);
                let plain = |a: &[i8], b: &[i8]| -> i32 {
                    a.iter()
                        .zip(b)
                        .map(|(a, b)| i32::from(*a) * i32::from(*b))
                        .sum()
                };
                for (a, b) in [
                    (a, b),
                    (&extremes[0][..len], &extremes[1][..len]),
                    (&extremes[1][..len], &extremes[1][..len]),
                    (&extremes[0][..len], b),
                    (a, &extremes[1][..len]),
                ] {
                    assert_eq!(kernel.dot_codes(a, b, sum(b)), plain(a, b), "{len} codes");
                }
                let (x, y) = (&x[..len], &y[..len]);
                let plain: f64 = x
                    .iter()
                    .zip(y)
                    .map(|(x, y)| f64::from(*x) * f64::from(*y))
                    .sum();
                let got = f64::from(kernel.dot(x, y));
                assert!(
                    (got - plain).abs() < 1e-4,
                    "{len} numbers: {got}, not {plain}"
                );
                let wide: Vec<f64> = y.iter().map(|y| f64::from(*y)).collect();
                assert!((sum_of_products(x, &wide) - plain).abs() < 1e-11);
                assert!((kernel.multiply_add(3.0, 0.5, 0.25) - 1.75).abs() < 1e-15);
                let infinite = vec![f32::INFINITY; len];
                assert!(len == 0 || kernel.dot(&infinite, &infinite).is_infinite());
                kernel.prefetch(x);
                kernel.prefetch(a);
            }
        }
    }

    #[test]
    fn the_portable_kernel_is_right_at_every_length() {
        EveryLength.run(Portable);
    }

    #[test]
    #[allow(clippy::print_stderr, reason = "says what could not be tested here")]
    fn the_kernels_of_this_processor_are_right_at_every_length() {
        #[cfg(target_arch = "x86_64")]
        {
            match avx2::Avx2::detect() {
                Some(kernel) => kernel.run(EveryLength),
                None => eprintln!("this processor has no AVX2: not tested"),
            }
            match avx512::Avx512::detect() {
                Some(kernel) => kernel.run(EveryLength),
                None => eprintln!("this processor has no AVX-512 VNNI: not tested"),
            }
        }
        #[cfg(target_arch = "aarch64")]
        match neon::Neon::detect() {
            Some(kernel) => kernel.run(EveryLength),
            None => eprintln!("this processor has no DotProd: not tested"),
        }
        run(EveryLength);
    }
}
