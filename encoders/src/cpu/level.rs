//! The kernels once per instruction set, and which of them this CPU runs.

use std::{fmt, sync::LazyLock};

use super::{
    Precision,
    kinds::{Bf16, Bytes, F32, Halves, Kind, Whole},
    lanes::{Lanes, Portable},
    matmul::{self, MatMul},
    rows,
};

/// Kernels that were compiled for one instruction set.
///
/// # Safety
/// Those returned by [`Level::all`] run on this CPU. The functions have the contracts of those in
/// [`matmul`] and [`rows`] of the same name.
pub(crate) struct Level {
    /// Its name, for people.
    pub name: &'static str,
    /// Floats in a register.
    pub lanes: usize,
    /// Rows of a tile.
    pub tile_rows: usize,
    /// The precisions worth having, the fastest first; the last is f32.
    pub by_speed: &'static [Precision],
    /// What rows as bytes are shifted by.
    pub(super) shift: f32,
    /// Whether columns of bytes must be small in pairs: see [`Lanes::BYTE_PAIRS`].
    pub(super) byte_pairs: bool,
    pub(super) f32: MatMul,
    pub(super) bf16: MatMul,
    pub(super) int8: MatMul,
    pub(super) int16: MatMul,
    /// Those of turned rows.
    pub(super) f32_turned: MatMul,
    pub(super) bf16_turned: MatMul,
    pub(super) layer_norm: unsafe fn(*const f32, usize, (*const f32, *const f32, f32), *mut f32),
    pub(super) narrow_bf16: unsafe fn(*const f32, usize, *mut u16),
    pub(super) narrow_bytes: unsafe fn(*const f32, usize, *mut u8) -> f32,
    pub(super) narrow_halves: unsafe fn(*const f32, usize, *mut i16) -> f32,
    pub(super) exponentials: unsafe fn(*mut f32, usize, usize, f32) -> f32,
}

impl fmt::Debug for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl Level {
    /// Those that this CPU runs, the fastest first. The last one runs everywhere.
    pub(crate) fn all() -> Vec<&'static Self> {
        let mut all = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::is_x86_feature_detected as has;
            let avx512 =
                has!("avx512f") && has!("avx512bw") && has!("avx512dq") && has!("avx512vl");
            if avx512 && has!("avx512vnni") && has!("avx512bf16") {
                all.push(&avx512_bf16::LEVEL);
            }
            if avx512 && has!("avx512vnni") {
                all.push(&avx512_vnni::LEVEL);
            }
            if avx512 {
                all.push(&avx512_plain::LEVEL);
            }
            if has!("avx2") && has!("fma") {
                all.push(&avx2_fma::LEVEL);
            }
        }
        #[cfg(target_arch = "aarch64")]
        {
            use std::arch::is_aarch64_feature_detected as has;
            if has!("dotprod") && has!("bf16") {
                all.push(&neon_bf16::LEVEL);
            }
            if has!("dotprod") {
                all.push(&neon_dot::LEVEL);
            }
            all.push(&neon_plain::LEVEL);
        }
        all.push(&portable::LEVEL);
        all
    }

    /// The fastest.
    pub(crate) fn best() -> &'static Self {
        static BEST: LazyLock<&Level> = LazyLock::new(|| Level::all()[0]);
        *BEST
    }

    /// Replaces `x` by its exponentials and returns one over their sum.
    pub(crate) fn softmax(&self, x: &mut [f32]) -> f32 {
        // SAFETY: this level runs here, and nothing is padded.
        unsafe { (self.exponentials)(x.as_mut_ptr(), x.len(), x.len(), 1.0) }
    }

    /// Rows `[n, inputs]` as a product of this precision takes them; `None` where they are already.
    pub(super) fn narrow(
        &self,
        precision: Precision,
        rows: &[f32],
        inputs: usize,
    ) -> Option<Narrow> {
        if precision == Precision::F32 {
            return None;
        }
        let stride = 4 * precision.words(inputs);
        let count = rows.len() / inputs.max(1);
        let mut narrow = Narrow {
            bytes: vec![0; count * stride + 64],
            stride,
            steps: vec![0.0; count],
        };
        for (i, row) in rows.chunks_exact(inputs).enumerate() {
            let to = narrow.bytes[i * stride..].as_mut_ptr();
            // SAFETY: a row of `stride` bytes is there, which all elements fit in.
            unsafe {
                narrow.steps[i] = self.narrow_row(precision, row.as_ptr(), inputs, to);
            }
        }
        Some(narrow)
    }

    /// Writes `n` floats at this precision, in whole words; returns the step of whole numbers, 1 of floats.
    /// `to` may be where `x` begins.
    ///
    /// # Safety
    /// As for the kernels: there are `n` floats, and room for the words.
    pub(super) unsafe fn narrow_row(
        &self,
        precision: Precision,
        x: *const f32,
        n: usize,
        to: *mut u8,
    ) -> f32 {
        unsafe {
            match precision {
                Precision::F32 => std::ptr::copy(x.cast(), to, 4 * n),
                Precision::Bf16 => {
                    (self.narrow_bf16)(x, n, to.cast());
                    if n % 2 == 1 {
                        // Whatever is there times zero would be no number if it is none.
                        to.cast::<u16>().add(n).write(0);
                    }
                }
                Precision::Int16 => return (self.narrow_halves)(x, n, to.cast()),
                Precision::Int8 => return (self.narrow_bytes)(x, n, to),
            }
        }
        1.0
    }

    /// The precision of what a tower of this precision does not do with whole numbers: bfloat16 where it is
    /// faster than floats.
    pub(super) fn at_least_bf16(&self, precision: Precision) -> Precision {
        match precision {
            float if !float.is_whole() => float,
            _ if self.by_speed.contains(&Precision::Bf16) => Precision::Bf16,
            _ => Precision::F32,
        }
    }

    /// Columns of a panel.
    pub(super) fn panel(&self) -> usize {
        2 * self.lanes
    }
}

/// Rows in a narrow form.
pub(super) struct Narrow {
    pub bytes: Vec<u8>,
    /// Bytes from a row to the next.
    pub stride: usize,
    /// The step of each row of whole numbers.
    pub steps: Vec<f32>,
}

macro_rules! level {
    (
        $module:ident, $name:literal, $lanes:ty, $bf16:ty, $int16:ty, $int8:ty,
        $by_speed:expr $(, $features:literal)?
    ) => {
        mod $module {
            use std::ops::Range;

            #[allow(clippy::wildcard_imports)]
            use super::*;
            use crate::cpu::matmul::Product;

            pub(super) static LEVEL: Level = Level {
                name: $name,
                lanes: <$lanes>::COUNT,
                tile_rows: <$lanes>::ROWS,
                by_speed: $by_speed,
                shift: <$lanes>::SHIFT as f32,
                byte_pairs: <$int8 as Kind>::BYTE_PAIRS,
                f32,
                bf16,
                int8,
                int16,
                f32_turned,
                bf16_turned,
                layer_norm,
                narrow_bf16,
                narrow_bytes,
                narrow_halves,
                exponentials,
            };

            $(#[target_feature(enable = $features)])?
            unsafe fn f32(product: &Product, rows: Range<usize>, panels: Range<usize>) {
                unsafe { matmul::matmul::<F32<$lanes>, false>(product, rows, panels) }
            }
            $(#[target_feature(enable = $features)])?
            unsafe fn bf16(product: &Product, rows: Range<usize>, panels: Range<usize>) {
                unsafe { matmul::matmul::<$bf16, false>(product, rows, panels) }
            }
            $(#[target_feature(enable = $features)])?
            unsafe fn int8(product: &Product, rows: Range<usize>, panels: Range<usize>) {
                unsafe { matmul::matmul::<$int8, false>(product, rows, panels) }
            }
            $(#[target_feature(enable = $features)])?
            unsafe fn int16(product: &Product, rows: Range<usize>, panels: Range<usize>) {
                unsafe { matmul::matmul::<$int16, false>(product, rows, panels) }
            }
            $(#[target_feature(enable = $features)])?
            unsafe fn f32_turned(product: &Product, rows: Range<usize>, panels: Range<usize>) {
                unsafe { matmul::matmul::<F32<$lanes>, true>(product, rows, panels) }
            }
            $(#[target_feature(enable = $features)])?
            unsafe fn bf16_turned(product: &Product, rows: Range<usize>, panels: Range<usize>) {
                unsafe { matmul::matmul::<$bf16, true>(product, rows, panels) }
            }
            $(#[target_feature(enable = $features)])?
            unsafe fn layer_norm(
                x: *const f32,
                n: usize,
                parameters: (*const f32, *const f32, f32),
                to: *mut f32,
            ) {
                unsafe { rows::layer_norm::<$lanes>(x, n, parameters, to) }
            }
            $(#[target_feature(enable = $features)])?
            unsafe fn narrow_bf16(x: *const f32, n: usize, to: *mut u16) {
                unsafe { rows::narrow_bf16::<$lanes>(x, n, to) }
            }
            $(#[target_feature(enable = $features)])?
            unsafe fn narrow_bytes(x: *const f32, n: usize, to: *mut u8) -> f32 {
                unsafe { rows::narrow_bytes::<$lanes>(x, n, to) }
            }
            $(#[target_feature(enable = $features)])?
            unsafe fn narrow_halves(x: *const f32, n: usize, to: *mut i16) -> f32 {
                unsafe { rows::narrow_halves::<$lanes>(x, n, to) }
            }
            $(#[target_feature(enable = $features)])?
            unsafe fn exponentials(x: *mut f32, n: usize, padded: usize, scale: f32) -> f32 {
                unsafe { rows::exponentials::<$lanes>(x, n, padded, scale) }
            }
        }
    };
}

/// Where nothing is faster than floats.
const ONLY_F32: &[Precision] = &[Precision::F32];
/// Where bfloat16 goes by way of floats, and whole numbers do not.
#[cfg(target_arch = "x86_64")]
const WHOLE_NUMBERS: &[Precision] = &[Precision::Int8, Precision::Int16, Precision::F32];
/// Where only bytes have an instruction of their own.
#[cfg(target_arch = "aarch64")]
const ONLY_BYTES: &[Precision] = &[Precision::Int8, Precision::F32];
/// Where bfloat16 has one, too, and is as fast as 16-bit numbers.
const ALL_NATIVE: &[Precision] = &[Precision::Int8, Precision::Bf16, Precision::F32];

level!(
    portable,
    "portable",
    Portable,
    Bf16<Portable>,
    Whole<Portable, Halves>,
    Whole<Portable, Bytes>,
    ONLY_F32
);
#[cfg(target_arch = "aarch64")]
use super::{
    kinds::neon::{NativeBf16, NativeInt8},
    lanes::neon::Neon,
};
// Products of whole numbers take as many instructions as those of floats here, or more.
#[cfg(target_arch = "aarch64")]
level!(
    neon_plain,
    "neon",
    Neon,
    Bf16<Neon>,
    Whole<Neon, Halves>,
    Whole<Neon, Bytes>,
    ONLY_F32,
    "neon"
);
#[cfg(target_arch = "aarch64")]
level!(
    neon_dot,
    "neon-dot",
    Neon,
    Bf16<Neon>,
    Whole<Neon, Halves>,
    NativeInt8,
    ONLY_BYTES,
    "neon,dotprod"
);
#[cfg(target_arch = "aarch64")]
level!(
    neon_bf16,
    "neon-bf16",
    Neon,
    NativeBf16,
    Whole<Neon, Halves>,
    NativeInt8,
    ALL_NATIVE,
    "neon,dotprod,bf16"
);
#[cfg(target_arch = "x86_64")]
use super::{
    kinds::avx512::{NativeBf16, VnniBytes, VnniHalves},
    lanes::{avx2::Avx2, avx512::Avx512},
};
#[cfg(target_arch = "x86_64")]
level!(
    avx2_fma,
    "avx2",
    Avx2,
    Bf16<Avx2>,
    Whole<Avx2, Halves>,
    Whole<Avx2, Bytes>,
    WHOLE_NUMBERS,
    "avx2,fma"
);
#[cfg(target_arch = "x86_64")]
level!(
    avx512_plain,
    "avx512",
    Avx512,
    Bf16<Avx512>,
    Whole<Avx512, Halves>,
    Whole<Avx512, Bytes>,
    WHOLE_NUMBERS,
    "avx512f,avx512bw,avx512dq,avx512vl"
);
#[cfg(target_arch = "x86_64")]
level!(
    avx512_vnni,
    "avx512-vnni",
    Avx512,
    Bf16<Avx512>,
    Whole<Avx512, VnniHalves>,
    Whole<Avx512, VnniBytes>,
    WHOLE_NUMBERS,
    "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni"
);
#[cfg(target_arch = "x86_64")]
level!(
    avx512_bf16,
    "avx512-bf16",
    Avx512,
    NativeBf16,
    Whole<Avx512, VnniHalves>,
    Whole<Avx512, VnniBytes>,
    ALL_NATIVE,
    "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16"
);
