//! NEON, which every 64-bit ARM has.

use std::arch::aarch64::*;

use super::Lanes;

/// Four floats in a register, 32 registers.
#[derive(Clone, Copy)]
pub(crate) struct Neon;

// SAFETY: the caller has NEON; pointers are as the trait says.
impl Lanes for Neon {
    const COUNT: usize = 4;
    const ROWS: usize = 12;
    const SHIFT: i32 = 0;
    type V = float32x4_t;
    type I = int32x4_t;

    #[inline(always)]
    unsafe fn prefetch(at: *const u8) {
        // SAFETY: fetching reads nothing that a program could see.
        unsafe {
            std::arch::asm!("prfm pldl2keep, [{at}]", at = in(reg) at, options(nostack, preserves_flags, readonly));
        }
    }
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
        unsafe {
            let bits = vreinterpretq_u32_f32(v);
            let odd = vandq_u32(vshrq_n_u32::<16>(bits), vdupq_n_u32(1));
            let up = vaddq_u32(odd, vdupq_n_u32(0x7fff));
            let high = vshrn_n_u32::<16>(vaddq_u32(bits, up));
            if n >= 4 {
                return vst1_u16(to, high);
            }
            let mut all = [0; 4];
            vst1_u16(all.as_mut_ptr(), high);
            std::ptr::copy_nonoverlapping(all.as_ptr(), to, n);
        }
    }
    #[inline(always)]
    unsafe fn store_halves_n(to: *mut i16, v: Self::V, n: usize) {
        unsafe {
            let halves = vmovn_s32(vcvtnq_s32_f32(v));
            if n >= 4 {
                return vst1_s16(to, halves);
            }
            let mut all = [0_i16; 4];
            vst1_s16(all.as_mut_ptr(), halves);
            std::ptr::copy_nonoverlapping(all.as_ptr(), to, n);
        }
    }
    #[inline(always)]
    unsafe fn store_bytes_n(to: *mut u8, v: Self::V, n: usize) {
        unsafe {
            let halves = vmovn_s32(vcvtnq_s32_f32(v));
            let bytes = vmovn_s16(vcombine_s16(halves, halves));
            let four = vget_lane_u32::<0>(vreinterpret_u32_s8(bytes));
            if n >= 4 {
                return to.cast::<u32>().write_unaligned(four);
            }
            std::ptr::copy_nonoverlapping(four.to_ne_bytes().as_ptr(), to, n);
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
    unsafe fn reciprocal(x: Self::V) -> Self::V {
        unsafe { vdivq_f32(vdupq_n_f32(1.0), x) }
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
    unsafe fn splat_i(word: i32) -> Self::I {
        unsafe { vdupq_n_s32(word) }
    }
    #[inline(always)]
    unsafe fn load_i(words: *const u8) -> Self::I {
        unsafe { vreinterpretq_s32_u8(vld1q_u8(words)) }
    }
    #[inline(always)]
    unsafe fn mul_add_bytes(sum: Self::I, row: Self::I, columns: Self::I) -> Self::I {
        unsafe {
            let (a, b) = (vreinterpretq_s8_s32(row), vreinterpretq_s8_s32(columns));
            let low = vpaddlq_s16(vmull_s8(vget_low_s8(a), vget_low_s8(b)));
            vaddq_s32(sum, vpaddq_s32(low, vpaddlq_s16(vmull_high_s8(a, b))))
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
