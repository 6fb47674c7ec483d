//! The kernels once per instruction set, and which of them this CPU runs.

use std::{fmt, ops::Range, sync::LazyLock};

use super::{
    Precision,
    kinds::{Bf16, Bytes, F32, Halves, Kind, Whole},
    lanes::{Lanes, Portable},
    matmul::{MatMul, Product, matmul},
    rows,
};
#[cfg(target_arch = "x86_64")]
use super::{
    kinds::avx512::{NativeBf16, VnniBytes, VnniHalves},
    lanes::{avx2::Avx2, avx512::Avx512},
};
#[cfg(target_arch = "aarch64")]
use super::{
    kinds::neon::{NativeBf16, NativeInt8},
    lanes::neon::Neon,
};

/// Kernels that were compiled for one instruction set.
///
/// # Safety
/// Those returned by [`Level::all`] run on this CPU. Pointers are valid for what is said to be there, and need no
/// alignment.
pub struct Level {
    /// Its name, for people.
    pub name: &'static str,
    /// Floats in a register.
    pub lanes: usize,
    /// Rows of a tile.
    pub tile_rows: usize,
    /// The precisions worth having, the fastest first; the last is f32.
    pub by_speed: &'static [Precision],
    /// What rows as bytes are shifted by.
    pub shift: f32,
    /// Whether bytes of columns must be small in pairs, 0 and 1, and 2 and 3 of each word: those of one sign come to
    /// at most 128, so that no sum of their products is cut off at 16 bits.
    pub byte_pairs: bool,
    /// The product of floats.
    pub f32: MatMul,
    /// The product of bfloat16, two to a word.
    pub bf16: MatMul,
    /// The product of bytes, four to a word; those of rows are shifted by [`Level::shift`].
    pub int8: MatMul,
    /// The product of 16-bit whole numbers up to [`largest_half`](crate::largest_half), two to a word.
    pub int16: MatMul,
    /// The product of floats, of turned rows: those of a word lie side by side.
    pub f32_turned: MatMul,
    /// The product of bfloat16, of turned rows.
    pub bf16_turned: MatMul,
    /// `(x, n, (weight, bias, eps), to)`: `(x - mean) / sqrt(variance + eps) * weight + bias` of `n` floats; `to`
    /// may be `x`.
    pub layer_norm: unsafe fn(*const f32, usize, (*const f32, *const f32, f32), *mut f32),
    /// `(x, n, to)`: `n` floats as bfloat16; `to` may be where `x` begins.
    pub narrow_bf16: unsafe fn(*const f32, usize, *mut u16),
    /// `(x, n, to)`: `n` floats as bytes, each the nearest of 255 steps from minus to plus the largest magnitude,
    /// plus [`Level::shift`]; returns the step. `to` may be where `x` begins.
    pub narrow_bytes: unsafe fn(*const f32, usize, *mut u8) -> f32,
    /// `(x, n, to)`: `n` floats as 16-bit numbers from minus to plus [`largest_half`](crate::largest_half); returns
    /// the step. `to` may be where `x` begins.
    pub narrow_halves: unsafe fn(*const f32, usize, *mut i16) -> f32,
    /// `(x, n, padded, scale)`: replaces `n` floats `x` by `e^(scale x - max)`, and those from `n` to `padded`, which
    /// are there, by 0; returns one over the sum.
    pub exponentials: unsafe fn(*mut f32, usize, usize, f32) -> f32,
}

impl fmt::Debug for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl Level {
    /// Those that this CPU runs, the fastest first. The last one runs everywhere.
    pub fn all() -> Vec<&'static Self> {
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
    pub fn best() -> &'static Self {
        static BEST: LazyLock<&Level> = LazyLock::new(|| Level::all()[0]);
        *BEST
    }

    /// Replaces `x` by its exponentials and returns one over their sum.
    pub fn softmax(&self, x: &mut [f32]) -> f32 {
        // SAFETY: this level runs here, and nothing is padded.
        unsafe { (self.exponentials)(x.as_mut_ptr(), x.len(), x.len(), 1.0) }
    }

    /// Rows `[n, inputs]` as a product of this precision takes them; `None` where they are already.
    pub fn narrow(&self, precision: Precision, rows: &[f32], inputs: usize) -> Option<Narrow> {
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
    pub unsafe fn narrow_row(
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
    pub fn at_least_bf16(&self, precision: Precision) -> Precision {
        match precision {
            float if !float.is_whole() => float,
            _ if self.by_speed.contains(&Precision::Bf16) => Precision::Bf16,
            _ => Precision::F32,
        }
    }

    /// Columns of a panel.
    pub fn panel(&self) -> usize {
        2 * self.lanes
    }
}

/// Rows in a narrow form.
pub struct Narrow {
    /// The rows, one after another.
    pub bytes: Vec<u8>,
    /// Bytes from a row to the next.
    pub stride: usize,
    /// The step of each row of whole numbers.
    pub steps: Vec<f32>,
}

/// Products of one kind for one instruction set.
macro_rules! products {
    ($(#[$features:meta])? $name:ident: $kind:ty, $turned:literal) => {
        $(#[$features])?
        unsafe fn $name(product: &Product, rows: Range<usize>, panels: Range<usize>) {
            unsafe { matmul::<$kind, $turned>(product, rows, panels) }
        }
    };
}

/// All kernels of an instruction set.
macro_rules! level {
    ($(#[$features:meta])? $module:ident, $name:literal, $lanes:ty, $by_speed:expr) => {
        mod $module {
            #[allow(clippy::wildcard_imports)]
            use super::*;

            pub const LEVEL: Level = Level {
                name: $name,
                lanes: <$lanes>::COUNT,
                tile_rows: <$lanes>::ROWS,
                by_speed: $by_speed,
                shift: <$lanes>::SHIFT as f32,
                byte_pairs: <Whole<$lanes, Bytes> as Kind>::BYTE_PAIRS,
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

            products!($(#[$features])? f32: F32<$lanes>, false);
            products!($(#[$features])? bf16: Bf16<$lanes>, false);
            products!($(#[$features])? int8: Whole<$lanes, Bytes>, false);
            products!($(#[$features])? int16: Whole<$lanes, Halves>, false);
            products!($(#[$features])? f32_turned: F32<$lanes>, true);
            products!($(#[$features])? bf16_turned: Bf16<$lanes>, true);

            $(#[$features])?
            unsafe fn layer_norm(
                x: *const f32,
                n: usize,
                parameters: (*const f32, *const f32, f32),
                to: *mut f32,
            ) {
                unsafe { rows::layer_norm::<$lanes>(x, n, parameters, to) }
            }
            $(#[$features])?
            unsafe fn narrow_bf16(x: *const f32, n: usize, to: *mut u16) {
                unsafe { rows::narrow_bf16::<$lanes>(x, n, to) }
            }
            $(#[$features])?
            unsafe fn narrow_bytes(x: *const f32, n: usize, to: *mut u8) -> f32 {
                unsafe { rows::narrow_bytes::<$lanes>(x, n, to) }
            }
            $(#[$features])?
            unsafe fn narrow_halves(x: *const f32, n: usize, to: *mut i16) -> f32 {
                unsafe { rows::narrow_halves::<$lanes>(x, n, to) }
            }
            $(#[$features])?
            unsafe fn exponentials(x: *mut f32, n: usize, padded: usize, scale: f32) -> f32 {
                unsafe { rows::exponentials::<$lanes>(x, n, padded, scale) }
            }
        }
    };
}

/// An instruction set with more products than the one that it has everything else from: each compiled copy takes
/// seconds.
macro_rules! level_above {
    (
        #[$features:meta] $module:ident, $name:literal, $below:ident
        $(, by_speed: $by_speed:expr)? $(, byte_pairs: $byte_pairs:expr)?;
        $($product:ident: $kind:ty, $turned:literal;)*
    ) => {
        mod $module {
            #[allow(clippy::wildcard_imports)]
            use super::*;

            pub const LEVEL: Level = Level {
                name: $name,
                $(by_speed: $by_speed,)?
                $(byte_pairs: $byte_pairs,)?
                $($product,)*
                ..$below::LEVEL
            };

            $(products!(#[$features] $product: $kind, $turned);)*
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
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
const ALL_NATIVE: &[Precision] = &[Precision::Int8, Precision::Bf16, Precision::F32];

level!(portable, "portable", Portable, ONLY_F32);

// Products of whole numbers take as many instructions as those of floats here, or more.
#[cfg(target_arch = "aarch64")]
level!(
    #[target_feature(enable = "neon")]
    neon_plain,
    "neon",
    Neon,
    ONLY_F32
);
#[cfg(target_arch = "aarch64")]
level_above!(
    #[target_feature(enable = "neon,dotprod")]
    neon_dot, "neon-dot", neon_plain,
    by_speed: ONLY_BYTES, byte_pairs: NativeInt8::BYTE_PAIRS;
    int8: NativeInt8, false;
);
#[cfg(target_arch = "aarch64")]
level_above!(
    #[target_feature(enable = "neon,dotprod,bf16")]
    neon_bf16, "neon-bf16", neon_dot, by_speed: ALL_NATIVE;
    bf16: NativeBf16, false;
    bf16_turned: NativeBf16, true;
);

#[cfg(target_arch = "x86_64")]
level!(
    #[target_feature(enable = "avx2,fma")]
    avx2_fma,
    "avx2",
    Avx2,
    WHOLE_NUMBERS
);
#[cfg(target_arch = "x86_64")]
level!(
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    avx512_plain,
    "avx512",
    Avx512,
    WHOLE_NUMBERS
);
#[cfg(target_arch = "x86_64")]
level_above!(
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    avx512_vnni, "avx512-vnni", avx512_plain,
    byte_pairs: <Whole<Avx512, VnniBytes> as Kind>::BYTE_PAIRS;
    int8: Whole<Avx512, VnniBytes>, false;
    int16: Whole<Avx512, VnniHalves>, false;
);
#[cfg(target_arch = "x86_64")]
level_above!(
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16")]
    avx512_bf16, "avx512-bf16", avx512_vnni, by_speed: ALL_NATIVE;
    bf16: NativeBf16, false;
    bf16_turned: NativeBf16, true;
);
