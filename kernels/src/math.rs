//! Functions of single floats, over the lanes of a register. The polynomials are least-maximum fits
//! of the relative error (Lawson's algorithm in f64), rounded to f32.

use super::lanes::Lanes;
use crate::Activation;

/// `c[0] + c[1] x + ...`.
#[inline(always)]
unsafe fn polynomial<L: Lanes, const N: usize>(x: L::V, c: [f32; N]) -> L::V {
    unsafe {
        let mut sum = L::splat(c[N - 1]);
        for i in (0..N - 1).rev() {
            sum = L::mul_add(sum, x, L::splat(c[i]));
        }
        sum
    }
}

/// `e^x`, within 2 units in the last place from -87 to 88; beyond, that of the nearer end.
#[inline(always)]
pub(super) unsafe fn exp<L: Lanes>(x: L::V) -> L::V {
    // ln 2 as two floats: n times the first is exact.
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    unsafe {
        let x = L::max(L::min(x, L::splat(88.0)), L::splat(-87.0));
        let n = L::round(L::mul(x, L::splat(std::f32::consts::LOG2_E)));
        let r = L::mul_add(n, L::splat(-LN2_HIGH), x);
        let r = L::mul_add(n, L::splat(-LN2_LOW), r);
        // (e^r - 1 - r) / r^2 for |r| <= ln 2 / 2.
        let tail = polynomial::<L, 5>(
            r,
            [0.5, 0.166_665_2, 0.041_668_39, 8.368_716e-3, 1.381_46e-3],
        );
        let power = L::mul_add(L::mul(r, r), tail, L::add(r, L::splat(1.0)));
        L::mul(power, L::exp2_whole(n))
    }
}

/// The error function, within 2e-7.
#[inline(always)]
unsafe fn erf<L: Lanes>(x: L::V) -> L::V {
    unsafe {
        let t = L::min(L::abs(x), L::splat(4.0));
        let squared = L::mul(t, t);
        let near = polynomial::<L, 7>(
            squared,
            [
                std::f32::consts::FRAC_2_SQRT_PI,
                -0.376_126_26,
                0.112_835_854,
                -0.026_853_813,
                5.188_329_6e-3,
                -8.010_208e-4,
                7.853_906_6e-5,
            ],
        );
        let near = L::mul(near, t);
        // -ln(1 - erf(t)) from 1 to 4; beyond, 1 - erf is less than half a unit in the last place.
        let far = polynomial::<L, 7>(
            t,
            [
                3.415_223e-4,
                1.127_089_1,
                0.638_144_85,
                0.103_106_76,
                -0.021_838_067,
                2.947_659e-3,
                -1.863_792_6e-4,
            ],
        );
        let one = L::splat(1.0);
        let far = L::sub(one, exp::<L>(L::sub(L::splat(0.0), far)));
        L::with_sign(L::where_less(t, one, near, far), x)
    }
}

/// `x / (1 + e^-ax)`, for `-a` and with what else belongs into the exponent.
#[inline(always)]
unsafe fn gated<L: Lanes>(x: L::V, exponent: L::V) -> L::V {
    // Beyond, the reciprocal is subnormal, which takes a hundred times as long.
    const LARGEST: f32 = 87.0;
    unsafe {
        let exponent = L::min(exponent, L::splat(LARGEST));
        L::mul(x, L::reciprocal(L::add(L::splat(1.0), exp::<L>(exponent))))
    }
}

/// An activation as [`Activation`] defines it.
#[inline(always)]
pub(super) unsafe fn activate<L: Lanes>(activation: Activation, x: L::V) -> L::V {
    // tanh(u) = 2 / (1 + e^-2u) - 1, so that the halves of the tanh form cancel.
    const TWICE: f32 = -std::f32::consts::FRAC_2_SQRT_PI * std::f32::consts::SQRT_2;
    unsafe {
        match activation {
            Activation::QuickGelu => gated::<L>(x, L::mul(x, L::splat(-1.702))),
            Activation::GeluTanh => {
                let squared = L::mul(x, x);
                let cubic = L::mul_add(squared, L::splat(TWICE * 0.044_715), L::splat(TWICE));
                gated::<L>(x, L::mul(x, cubic))
            }
            Activation::Gelu => {
                let half = L::mul(x, L::splat(0.5));
                let erf = erf::<L>(L::mul(x, L::splat(std::f32::consts::FRAC_1_SQRT_2)));
                L::mul_add(half, erf, half)
            }
        }
    }
}
