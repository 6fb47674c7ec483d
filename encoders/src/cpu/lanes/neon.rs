//! NEON, which every 64-bit ARM has.

use std::arch::aarch64::*;

use super::{Lanes, to_bf16};

/// Four floats in a register, 32 registers.
#[derive(Clone, Copy)]
pub(in crate::cpu) struct Neon;

// SAFETY: the caller has NEON; pointers are as the trait says.
impl Lanes for Neon {
    const COUNT: usize = 4;
    const ROWS: usize = 12;
    type V = float32x4_t;
    type I = int32x4_t;

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self::V {
        unsafe { vdupq_n_f32(x) }
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self::V {
        unsafe { vld1q_f32(from) }
    }
    #[inline(always)]
    unsafe fn load_n(from: *const f32, n: usize) -> Self::V {
        unsafe {
            if n >= 4 {
                return vld1q_f32(from);
            }
            let mut all = [0.0; 4];
            std::ptr::copy_nonoverlapping(from, all.as_mut_ptr(), n);
            vld1q_f32(all.as_ptr())
        }
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, v: Self::V) {
        unsafe { vst1q_f32(to, v) }
    }
    #[inline(always)]
    unsafe fn store_n(to: *mut f32, v: Self::V, n: usize) {
        unsafe {
            if n >= 4 {
                return vst1q_f32(to, v);
            }
            let mut all = [0.0; 4];
            vst1q_f32(all.as_mut_ptr(), v);
            std::ptr::copy_nonoverlapping(all.as_ptr(), to, n);
        }
    }
    #[inline(always)]
    unsafe fn store_bf16_n(to: *mut u16, v: Self::V, n: usize) {
        let mut all = [0.0; 4];
        unsafe {
            vst1q_f32(all.as_mut_ptr(), v);
            for (i, x) in all.iter().enumerate().take(n) {
                to.add(i).write_unaligned(to_bf16(*x));
            }
        }
    }
    #[inline(always)]
    unsafe fn store_biased_n(to: *mut u8, v: Self::V, n: usize) {
        let mut all = [0; 4];
        unsafe {
            let whole = vaddq_s32(vcvtnq_s32_f32(v), vdupq_n_s32(128));
            vst1q_s32(all.as_mut_ptr(), whole);
            for (i, x) in all.iter().enumerate().take(n) {
                to.add(i).write(*x as u8);
            }
        }
    }
    #[inline(always)]
    unsafe fn add(a: Self::V, b: Self::V) -> Self::V {
        unsafe { vaddq_f32(a, b) }
    }
    #[inline(always)]
    unsafe fn sub(a: Self::V, b: Self::V) -> Self::V {
        unsafe { vsubq_f32(a, b) }
    }
    #[inline(always)]
    unsafe fn mul(a: Self::V, b: Self::V) -> Self::V {
        unsafe { vmulq_f32(a, b) }
    }
    #[inline(always)]
    unsafe fn div(a: Self::V, b: Self::V) -> Self::V {
        unsafe { vdivq_f32(a, b) }
    }
    #[inline(always)]
    unsafe fn mul_add(a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        unsafe { vfmaq_f32(c, a, b) }
    }
    #[inline(always)]
    unsafe fn max(a: Self::V, b: Self::V) -> Self::V {
        unsafe { vmaxq_f32(a, b) }
    }
    #[inline(always)]
    unsafe fn min(a: Self::V, b: Self::V) -> Self::V {
        unsafe { vminq_f32(a, b) }
    }
    #[inline(always)]
    unsafe fn abs(v: Self::V) -> Self::V {
        unsafe { vabsq_f32(v) }
    }
    #[inline(always)]
    unsafe fn round(v: Self::V) -> Self::V {
        unsafe { vrndnq_f32(v) }
    }
    #[inline(always)]
    unsafe fn exp2_whole(n: Self::V) -> Self::V {
        unsafe {
            let exponent = vaddq_s32(vcvtnq_s32_f32(n), vdupq_n_s32(127));
            vreinterpretq_f32_s32(vshlq_n_s32::<23>(exponent))
        }
    }
    #[inline(always)]
    unsafe fn where_less(x: Self::V, limit: Self::V, a: Self::V, b: Self::V) -> Self::V {
        unsafe { vbslq_f32(vcltq_f32(x, limit), a, b) }
    }
    #[inline(always)]
    unsafe fn with_sign(v: Self::V, sign: Self::V) -> Self::V {
        unsafe { vbslq_f32(vdupq_n_u32(0x8000_0000), sign, v) }
    }
    #[inline(always)]
    unsafe fn sum(v: Self::V) -> f32 {
        unsafe { vaddvq_f32(v) }
    }
    #[inline(always)]
    unsafe fn largest(v: Self::V) -> f32 {
        unsafe { vmaxvq_f32(v) }
    }
    #[inline(always)]
    unsafe fn bf16_first(words: *const u8) -> Self::V {
        unsafe {
            let words = vreinterpretq_u32_u8(vld1q_u8(words));
            vreinterpretq_f32_u32(vshlq_n_u32::<16>(words))
        }
    }
    #[inline(always)]
    unsafe fn bf16_second(words: *const u8) -> Self::V {
        unsafe {
            let words = vreinterpretq_u32_u8(vld1q_u8(words));
            vreinterpretq_f32_u32(vandq_u32(words, vdupq_n_u32(0xffff_0000)))
        }
    }
    #[inline(always)]
    unsafe fn zero_i() -> Self::I {
        unsafe { vdupq_n_s32(0) }
    }
    #[inline(always)]
    unsafe fn to_float(v: Self::I) -> Self::V {
        unsafe { vcvtq_f32_s32(v) }
    }
    #[inline(always)]
    unsafe fn widen_signed(words: *const u8) -> [Self::I; 2] {
        unsafe {
            let words = vreinterpretq_s16_u8(vld1q_u8(words));
            let even = vshrq_n_s16::<8>(vshlq_n_s16::<8>(words));
            let odd = vshrq_n_s16::<8>(words);
            [vreinterpretq_s32_s16(even), vreinterpretq_s32_s16(odd)]
        }
    }
    #[inline(always)]
    unsafe fn widen_unsigned(word: u32) -> [Self::I; 2] {
        unsafe {
            let even = vdupq_n_s32((word & 0x00ff_00ff) as i32);
            [even, vdupq_n_s32((word >> 8 & 0x00ff_00ff) as i32)]
        }
    }
    #[inline(always)]
    unsafe fn mul_add_pairs(sum: Self::I, a: Self::I, b: Self::I) -> Self::I {
        unsafe {
            let (a, b) = (vreinterpretq_s16_s32(a), vreinterpretq_s16_s32(b));
            let low = vmull_s16(vget_low_s16(a), vget_low_s16(b));
            vaddq_s32(sum, vpaddq_s32(low, vmull_high_s16(a, b)))
        }
    }
}
