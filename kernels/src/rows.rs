//! What happens to single rows between products: normalization, softmax, and their narrow forms.

use super::{lanes::Lanes, math::exp};

/// The first `left` elements of a register, or all.
macro_rules! part {
    ($L:ty, $from:expr, $left:expr) => {
        if $left >= <$L>::COUNT {
            <$L>::load($from)
        } else {
            <$L>::load_n($from, $left)
        }
    };
}

/// For each register of `n` elements: its first, and how many there are from it on.
macro_rules! each {
    ($L:ty, $n:expr, |$i:ident, $left:ident| $body:expr) => {
        let mut $i = 0;
        while $i < $n {
            let $left = $n - $i;
            $body;
            $i += <$L>::COUNT;
        }
    };
}

/// Four results, of every fourth register each, so that none waits for the one before it; from zeros on, and
/// with zeros beyond the last element.
macro_rules! fold {
    ($L:ty, $x:expr, $n:expr, |$sum:ident, $v:ident| $result:expr) => {{
        let mut all = [<$L>::splat(0.0); 4];
        let mut i = 0;
        while i + 4 * <$L>::COUNT <= $n {
            for (lane, all) in all.iter_mut().enumerate() {
                let ($sum, $v) = (*all, <$L>::load($x.add(i + lane * <$L>::COUNT)));
                *all = $result;
            }
            i += 4 * <$L>::COUNT;
        }
        while i < $n {
            let ($sum, $v) = (all[0], part!($L, $x.add(i), $n - i));
            all[0] = $result;
            i += <$L>::COUNT;
        }
        all
    }};
}

/// `(x - mean) / sqrt(variance + eps) * weight + bias` of `n` floats; `to` may be `x`.
///
/// # Safety
/// As for [`Lanes`]; all slices have `n` elements.
#[inline(always)]
pub(super) unsafe fn layer_norm<L: Lanes>(
    x: *const f32,
    n: usize,
    (weight, bias, eps): (*const f32, *const f32, f32),
    to: *mut f32,
) {
    unsafe {
        let [a, b, c, d] = fold!(L, x, n, |sum, v| L::add(sum, v));
        let mean = L::sum(L::add(L::add(a, b), L::add(c, d))) / n as f32;
        // Lanes beyond the last element count nothing here, while they would differ from the mean.
        let whole = n - n % L::COUNT;
        let [a, b, c, d] = fold!(L, x, whole, |sum, v| {
            let d = L::sub(v, L::splat(mean));
            L::mul_add(d, d, sum)
        });
        let mut sum = L::sum(L::add(L::add(a, b), L::add(c, d)));
        for i in whole..n {
            let d = *x.add(i) - mean;
            sum += d * d;
        }
        let factor = L::splat(1.0 / (sum / n as f32 + eps).sqrt());
        let mean = L::splat(mean);
        each!(L, n, |i, left| {
            let d = L::mul(L::sub(part!(L, x.add(i), left), mean), factor);
            let (weight, bias) = (weight.add(i), bias.add(i));
            let y = L::mul_add(d, part!(L, weight, left), part!(L, bias, left));
            if left >= L::COUNT {
                L::store(to.add(i), y);
            } else {
                L::store_n(to.add(i), y, left);
            }
        });
    }
}

/// `n` floats as bfloat16; `to` may be where `x` begins.
///
/// # Safety
/// As for [`Lanes`].
#[inline(always)]
pub(super) unsafe fn narrow_bf16<L: Lanes>(x: *const f32, n: usize, to: *mut u16) {
    let mut i = 0;
    while i < n {
        unsafe { L::store_bf16_n(to.add(i), L::load_n(x.add(i), n - i), n - i) };
        i += L::COUNT;
    }
}

/// The largest magnitude of the 16-bit numbers in rows and columns of `n`: no sum of their products needs more
/// than 32 bits.
pub fn largest_half(n: usize) -> f32 {
    let root = (f64::from(i32::MAX) / n.max(1) as f64).sqrt().floor();
    root.min(f64::from(i16::MAX)) as f32
}

/// What counts as the largest magnitude of a row at least. Its inverse is finite, times the largest whole
/// number, too: rows of zeros become zeros.
pub const LEAST: f32 = 1e-30;

/// The largest magnitude of `n` floats, [`LEAST`] at least.
#[inline(always)]
unsafe fn largest<L: Lanes>(x: *const f32, n: usize) -> f32 {
    unsafe {
        let [a, b, c, d] = fold!(L, x, n, |largest, v| L::max(largest, L::abs(v)));
        L::largest(L::max(L::max(a, b), L::max(c, d))).max(LEAST)
    }
}

/// `n` floats as 16-bit numbers from minus to plus [`largest_half`]; returns the step. `to` may be where `x`
/// begins.
///
/// # Safety
/// As for [`Lanes`].
#[inline(always)]
pub(super) unsafe fn narrow_halves<L: Lanes>(x: *const f32, n: usize, to: *mut i16) -> f32 {
    unsafe {
        let (largest, most) = (largest::<L>(x, n), largest_half(n));
        let inverse = L::splat(most / largest);
        each!(L, n, |i, left| {
            let v = L::mul(part!(L, x.add(i), left), inverse);
            L::store_halves_n(to.add(i), v, left);
        });
        largest / most
    }
}

/// `n` floats as bytes, each the nearest of 255 steps from minus to plus the largest magnitude, plus
/// [`Lanes::SHIFT`]; returns the step. `to` may be where `x` begins.
///
/// # Safety
/// As for [`Lanes`].
#[inline(always)]
pub(super) unsafe fn narrow_bytes<L: Lanes>(x: *const f32, n: usize, to: *mut u8) -> f32 {
    unsafe {
        let largest = largest::<L>(x, n);
        let inverse = L::splat(127.0 / largest);
        each!(L, n, |i, left| {
            let v = L::mul(part!(L, x.add(i), left), inverse);
            L::store_bytes_n(to.add(i), v, left);
        });
        largest / 127.0
    }
}

/// Replaces `n` floats `x` by `e^(scale x - max)`, and those from `n` to `padded` by 0; returns one
/// over the sum.
///
/// # Safety
/// As for [`Lanes`]; `padded` elements are there.
#[inline(always)]
pub(super) unsafe fn exponentials<L: Lanes>(
    x: *mut f32,
    n: usize,
    padded: usize,
    scale: f32,
) -> f32 {
    unsafe {
        let mut largest = L::splat(f32::NEG_INFINITY);
        let mut i = 0;
        while i + L::COUNT <= n {
            largest = L::max(largest, L::load(x.add(i)));
            i += L::COUNT;
        }
        let mut largest = L::largest(largest);
        for i in i..n {
            largest = largest.max(*x.add(i));
        }
        let shift = L::splat(-largest * scale);
        let mut sum = L::splat(0.0);
        i = 0;
        while i + L::COUNT <= n {
            let e = exp::<L>(L::mul_add(L::load(x.add(i)), L::splat(scale), shift));
            sum = L::add(sum, e);
            L::store(x.add(i), e);
            i += L::COUNT;
        }
        let mut total = L::sum(sum);
        if i < n {
            let e = exp::<L>(L::mul_add(
                L::load_n(x.add(i), n - i),
                L::splat(scale),
                shift,
            ));
            L::store_n(x.add(i), e, n - i);
            for i in i..n {
                total += *x.add(i);
            }
        }
        for i in n..padded {
            *x.add(i) = 0.0;
        }
        1.0 / total
    }
}
