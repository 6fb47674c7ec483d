//! Registers of floats: what the kernels need of an instruction set, and its portable form.

#[cfg(target_arch = "x86_64")]
pub(super) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(super) mod avx512;
#[cfg(target_arch = "aarch64")]
pub(super) mod neon;

/// One register of floats, and one of whole numbers with as many lanes.
///
/// # Safety
/// Every function needs a CPU with the instruction set, and is only fast where it is inlined into
/// a function that is compiled for it. Pointers are read and written without bounds: `load` and
/// `store` touch [`Lanes::COUNT`] elements, their `_n` forms the first `n`; none needs alignment.
pub(super) trait Lanes: Copy + 'static {
    /// Floats in a register.
    const COUNT: usize;
    /// Rows of a tile whose sums, two registers a row, stay in registers.
    const ROWS: usize;
    /// What is added to the bytes of rows: 128 where products want them unsigned, 0 where signed.
    const SHIFT: i32 = 128;
    /// Whether [`Lanes::mul_add_bytes`] adds the products of bytes 0 and 1, and of bytes 2 and 3, in 16 bits.
    /// Those of one sign must not come to more than 128 in a pair of columns, then: 255 * 128 < 2^15.
    const BYTE_PAIRS: bool = false;
    /// Floats.
    type V: Copy;
    /// Whole numbers.
    type I: Copy;

    /// Fetches a cache line into the second-level cache, if there is memory at `at`.
    unsafe fn prefetch(_at: *const u8) {}
    unsafe fn splat(x: f32) -> Self::V;
    unsafe fn load(from: *const f32) -> Self::V;
    /// Lanes from `n` on are 0.
    unsafe fn load_n(from: *const f32, n: usize) -> Self::V;
    unsafe fn store(to: *mut f32, v: Self::V);
    unsafe fn store_n(to: *mut f32, v: Self::V, n: usize);
    /// Stores rounded to bfloat16, ties to even.
    unsafe fn store_bf16_n(to: *mut u16, v: Self::V, n: usize);
    /// Stores the nearest whole numbers, which fit 16 bits.
    unsafe fn store_halves_n(to: *mut i16, v: Self::V, n: usize);
    /// Stores the nearest whole numbers, which lie within -127 and 127, each plus [`Lanes::SHIFT`].
    unsafe fn store_bytes_n(to: *mut u8, v: Self::V, n: usize);
    unsafe fn add(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn sub(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn mul(a: Self::V, b: Self::V) -> Self::V;
    /// `1 / x` of x from 1 to 2^126, within 2 units in the last place.
    unsafe fn reciprocal(x: Self::V) -> Self::V;
    /// `a b + c`, rounded once or twice.
    unsafe fn mul_add(a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    unsafe fn max(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn min(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn abs(v: Self::V) -> Self::V;
    /// Nearest whole number, ties to even, of values below 2^22.
    unsafe fn round(v: Self::V) -> Self::V;
    /// 2^n for whole n from -126 to 127.
    unsafe fn exp2_whole(n: Self::V) -> Self::V;
    /// `a` where `x < limit`, else `b`.
    unsafe fn where_less(x: Self::V, limit: Self::V, a: Self::V, b: Self::V) -> Self::V;
    /// The magnitude of `v` with the sign of `sign`.
    unsafe fn with_sign(v: Self::V, sign: Self::V) -> Self::V;
    unsafe fn sum(v: Self::V) -> f32;
    unsafe fn largest(v: Self::V) -> f32;

    /// The first of each pair of bfloat16 in [`Lanes::COUNT`] words.
    unsafe fn bf16_first(words: *const u8) -> Self::V;
    /// The second of each pair.
    unsafe fn bf16_second(words: *const u8) -> Self::V;

    unsafe fn zero_i() -> Self::I;
    unsafe fn to_float(v: Self::I) -> Self::V;
    /// The same word in every lane.
    unsafe fn splat_i(word: i32) -> Self::I;
    /// [`Lanes::COUNT`] words.
    unsafe fn load_i(words: *const u8) -> Self::I;
    /// `sum` plus the products of the bytes of a row, shifted by [`Lanes::SHIFT`], and signed ones, all four of a
    /// word added.
    unsafe fn mul_add_bytes(sum: Self::I, row: Self::I, columns: Self::I) -> Self::I;
    /// `sum` plus the products of 16-bit halves, added in pairs.
    unsafe fn mul_add_pairs(sum: Self::I, a: Self::I, b: Self::I) -> Self::I;
}

/// bfloat16, ties to even; a NaN stays one.
pub(super) fn to_bf16(x: f32) -> u16 {
    half::bf16::from_f32(x).to_bits()
}

/// No instruction set in particular: arrays, which compilers put into what registers there are.
#[derive(Clone, Copy)]
pub(super) struct Portable;

const N: usize = 8;

#[inline(always)]
fn each(f: impl Fn(usize) -> f32) -> [f32; N] {
    let mut v = [0.0; N];
    for (i, x) in v.iter_mut().enumerate() {
        *x = f(i);
    }
    v
}

// SAFETY: plain code; pointers are as the trait says.
impl Lanes for Portable {
    const COUNT: usize = N;
    const ROWS: usize = 2;
    type V = [f32; N];
    type I = [i32; N];

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self::V {
        [x; N]
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self::V {
        unsafe { from.cast::<Self::V>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn load_n(from: *const f32, n: usize) -> Self::V {
        let mut v = [0.0; N];
        for (i, x) in v.iter_mut().enumerate().take(n) {
            *x = unsafe { from.add(i).read_unaligned() };
        }
        v
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, v: Self::V) {
        unsafe { to.cast::<Self::V>().write_unaligned(v) }
    }
    #[inline(always)]
    unsafe fn store_n(to: *mut f32, v: Self::V, n: usize) {
        for (i, x) in v.iter().enumerate().take(n) {
            unsafe { to.add(i).write_unaligned(*x) };
        }
    }
    #[inline(always)]
    unsafe fn store_bf16_n(to: *mut u16, v: Self::V, n: usize) {
        for (i, x) in v.iter().enumerate().take(n) {
            unsafe { to.add(i).write_unaligned(to_bf16(*x)) };
        }
    }
    #[inline(always)]
    unsafe fn store_halves_n(to: *mut i16, v: Self::V, n: usize) {
        for (i, x) in v.iter().enumerate().take(n) {
            unsafe { to.add(i).write_unaligned(x.round_ties_even() as i16) };
        }
    }
    #[inline(always)]
    unsafe fn store_bytes_n(to: *mut u8, v: Self::V, n: usize) {
        for (i, x) in v.iter().enumerate().take(n) {
            let whole = x.round_ties_even() as i32 + Self::SHIFT;
            unsafe { to.add(i).write(whole as u8) };
        }
    }
    #[inline(always)]
    unsafe fn add(a: Self::V, b: Self::V) -> Self::V {
        each(|i| a[i] + b[i])
    }
    #[inline(always)]
    unsafe fn sub(a: Self::V, b: Self::V) -> Self::V {
        each(|i| a[i] - b[i])
    }
    #[inline(always)]
    unsafe fn mul(a: Self::V, b: Self::V) -> Self::V {
        each(|i| a[i] * b[i])
    }
    #[inline(always)]
    unsafe fn reciprocal(x: Self::V) -> Self::V {
        each(|i| 1.0 / x[i])
    }
    #[inline(always)]
    unsafe fn mul_add(a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        each(|i| a[i] * b[i] + c[i])
    }
    #[inline(always)]
    unsafe fn max(a: Self::V, b: Self::V) -> Self::V {
        each(|i| if a[i] > b[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    unsafe fn min(a: Self::V, b: Self::V) -> Self::V {
        each(|i| if a[i] < b[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    unsafe fn abs(v: Self::V) -> Self::V {
        each(|i| v[i].abs())
    }
    #[inline(always)]
    unsafe fn round(v: Self::V) -> Self::V {
        // Adding 1.5 * 2^23 leaves no bits for the fraction.
        const SHIFT: f32 = 12_582_912.0;
        each(|i| (v[i] + SHIFT) - SHIFT)
    }
    #[inline(always)]
    unsafe fn exp2_whole(n: Self::V) -> Self::V {
        each(|i| f32::from_bits(((n[i] as i32 + 127) << 23) as u32))
    }
    #[inline(always)]
    unsafe fn where_less(x: Self::V, limit: Self::V, a: Self::V, b: Self::V) -> Self::V {
        each(|i| if x[i] < limit[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    unsafe fn with_sign(v: Self::V, sign: Self::V) -> Self::V {
        each(|i| v[i].copysign(sign[i]))
    }
    #[inline(always)]
    unsafe fn sum(v: Self::V) -> f32 {
        v.iter().sum()
    }
    #[inline(always)]
    unsafe fn largest(v: Self::V) -> f32 {
        v.iter().copied().fold(f32::NEG_INFINITY, f32::max)
    }
    #[inline(always)]
    unsafe fn bf16_first(words: *const u8) -> Self::V {
        let words = unsafe { words.cast::<[u32; N]>().read_unaligned() };
        each(|i| f32::from_bits(words[i] << 16))
    }
    #[inline(always)]
    unsafe fn bf16_second(words: *const u8) -> Self::V {
        let words = unsafe { words.cast::<[u32; N]>().read_unaligned() };
        each(|i| f32::from_bits(words[i] & 0xffff_0000))
    }
    #[inline(always)]
    unsafe fn zero_i() -> Self::I {
        [0; N]
    }
    #[inline(always)]
    unsafe fn to_float(v: Self::I) -> Self::V {
        each(|i| v[i] as f32)
    }
    #[inline(always)]
    unsafe fn splat_i(word: i32) -> Self::I {
        [word; N]
    }
    #[inline(always)]
    unsafe fn load_i(words: *const u8) -> Self::I {
        unsafe { words.cast::<Self::I>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn mul_add_bytes(sum: Self::I, row: Self::I, columns: Self::I) -> Self::I {
        let mut out = sum;
        for ((out, row), column) in out.iter_mut().zip(row).zip(columns) {
            let bytes = row.to_le_bytes().into_iter().zip(column.to_le_bytes());
            *out += bytes
                .map(|(a, b)| i32::from(a) * i32::from(b.cast_signed()))
                .sum::<i32>();
        }
        out
    }
    #[inline(always)]
    unsafe fn mul_add_pairs(sum: Self::I, a: Self::I, b: Self::I) -> Self::I {
        let mut out = sum;
        for i in 0..N {
            let low = i32::from(a[i] as i16) * i32::from(b[i] as i16);
            let high = (a[i] >> 16) * (b[i] >> 16);
            out[i] += low + high;
        }
        out
    }
}
