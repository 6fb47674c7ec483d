//! What happens to single rows between products: normalization, softmax, and their narrow forms.

use super::{lanes::Lanes, math::exp};

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
        let mut sum = L::splat(0.0);
        let mut i = 0;
        while i < n {
            sum = L::add(sum, L::load_n(x.add(i), n - i));
            i += L::COUNT;
        }
        let mean = L::sum(sum) / n as f32;
        let mut squares = L::splat(0.0);
        i = 0;
        while i + L::COUNT <= n {
            let d = L::sub(L::load(x.add(i)), L::splat(mean));
            squares = L::mul_add(d, d, squares);
            i += L::COUNT;
        }
        let mut sum = L::sum(squares);
        for i in i..n {
            let d = *x.add(i) - mean;
            sum += d * d;
        }
        let factor = L::splat(1.0 / (sum / n as f32 + eps).sqrt());
        i = 0;
        while i < n {
            let left = n - i;
            let d = L::mul(L::sub(L::load_n(x.add(i), left), L::splat(mean)), factor);
            let y = L::mul_add(
                d,
                L::load_n(weight.add(i), left),
                L::load_n(bias.add(i), left),
            );
            L::store_n(to.add(i), y, left);
            i += L::COUNT;
        }
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

/// `n` floats as bytes, each the nearest of 255 steps from minus to plus the largest magnitude, plus
/// [`Lanes::SHIFT`]; returns the step. `to` may be where `x` begins.
///
/// # Safety
/// As for [`Lanes`].
#[inline(always)]
pub(super) unsafe fn narrow_bytes<L: Lanes>(x: *const f32, n: usize, to: *mut u8) -> f32 {
    unsafe {
        let mut largest = L::splat(0.0);
        let mut i = 0;
        while i < n {
            largest = L::max(largest, L::abs(L::load_n(x.add(i), n - i)));
            i += L::COUNT;
        }
        // A row of zeros has any step.
        let largest = L::largest(largest).max(f32::MIN_POSITIVE);
        let inverse = L::splat(127.0 / largest);
        i = 0;
        while i < n {
            let v = L::mul(L::load_n(x.add(i), n - i), inverse);
            L::store_bytes_n(to.add(i), v, n - i);
            i += L::COUNT;
        }
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
