//! The inverse cosine transform of libjpeg's `islow`, bit for bit.
//!
//! Loeffler, Ligtenberg and Moschytz, "Practical fast 1-D DCT algorithms with 11 multiplications",
//! ICASSP 1989, in fixed point with 13 fractional bits, columns first. Each step works on eight
//! columns at once; the compiler turns that into vector instructions.

/// Fractional bits of the constants.
const BITS: u32 = 13;
/// Fractional bits that are kept between the passes.
const BETWEEN: u32 = 2;

type Lane = [i32; 8];

/// Coefficients of a block, `[8, 8]`, rows first, times `quantizer`, to samples in `out`, whose
/// rows are `stride` apart.
pub(super) fn block(
    coefficients: &[i16; 64],
    quantizer: &[u16; 64],
    out: &mut [u8],
    stride: usize,
) {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has the instructions that the function is compiled for.
        #[allow(unsafe_code)]
        unsafe {
            block_avx2(coefficients, quantizer, out, stride);
        }
        return;
    }
    block_any(coefficients, quantizer, out, stride);
}

/// The same for a block whose only coefficient is `dc`.
pub(super) fn flat(dc: i16, quantizer: u16, out: &mut [u8], stride: usize) {
    let value = i32::from(dc.wrapping_mul(quantizer as i16));
    // What both passes come to.
    let sample = ((value + 4) >> 3).clamp(-128, 127) + 128;
    for row in out.chunks_mut(stride).take(8) {
        row[..8].fill(sample as u8);
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn block_avx2(coefficients: &[i16; 64], quantizer: &[u16; 64], out: &mut [u8], stride: usize) {
    block_with(coefficients, quantizer, out, stride, |rows| {
        transpose_avx2(rows);
    });
}

/// As [`transpose`], which the compiler leaves in single moves.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn transpose_avx2(rows: &mut [Lane; 8]) {
    use std::arch::x86_64::{
        __m256i, _mm256_permute2x128_si256, _mm256_unpackhi_epi32, _mm256_unpackhi_epi64,
        _mm256_unpacklo_epi32, _mm256_unpacklo_epi64,
    };
    // SAFETY: both are 256 bytes without padding, and any bits are integers.
    #[allow(unsafe_code)]
    let r = unsafe { std::mem::transmute::<[Lane; 8], [__m256i; 8]>(*rows) };
    let pairs: [_; 4] = std::array::from_fn(|i| {
        (
            _mm256_unpacklo_epi32(r[2 * i], r[2 * i + 1]),
            _mm256_unpackhi_epi32(r[2 * i], r[2 * i + 1]),
        )
    });
    // Columns 0 and 4, 1 and 5, 2 and 6, 3 and 7, of the upper and the lower four rows.
    let [upper, lower]: [[_; 4]; 2] = std::array::from_fn(|i| {
        let ((a, b), (c, d)) = (pairs[2 * i], pairs[2 * i + 1]);
        [
            _mm256_unpacklo_epi64(a, c),
            _mm256_unpackhi_epi64(a, c),
            _mm256_unpacklo_epi64(b, d),
            _mm256_unpackhi_epi64(b, d),
        ]
    });
    let columns: [_; 8] = std::array::from_fn(|i| {
        let (upper, lower) = (upper[i % 4], lower[i % 4]);
        if i < 4 {
            _mm256_permute2x128_si256::<0x20>(upper, lower)
        } else {
            _mm256_permute2x128_si256::<0x31>(upper, lower)
        }
    });
    // SAFETY: as above.
    #[allow(unsafe_code)]
    let columns = unsafe { std::mem::transmute::<[__m256i; 8], [Lane; 8]>(columns) };
    *rows = columns;
}

fn block_any(coefficients: &[i16; 64], quantizer: &[u16; 64], out: &mut [u8], stride: usize) {
    block_with(coefficients, quantizer, out, stride, transpose);
}

#[inline(always)]
#[allow(
    clippy::inline_always,
    reason = "compiled once per set of instructions"
)]
fn block_with(
    coefficients: &[i16; 64],
    quantizer: &[u16; 64],
    out: &mut [u8],
    stride: usize,
    transpose: impl Fn(&mut [Lane; 8]),
) {
    let mut rows = [[0; 8]; 8];
    for ((row, coefficients), quantizer) in rows
        .iter_mut()
        .zip(coefficients.as_chunks::<8>().0)
        .zip(quantizer.as_chunks::<8>().0)
    {
        for ((value, coefficient), step) in row.iter_mut().zip(coefficients).zip(quantizer) {
            // Products that do not fit are no picture's; libjpeg's vector code wraps, too.
            *value = i32::from(coefficient.wrapping_mul(*step as i16));
        }
    }
    pass::<{ BITS - BETWEEN }>(&mut rows);
    transpose(&mut rows);
    pass::<{ BITS + BETWEEN + 3 }>(&mut rows);
    transpose(&mut rows);
    for (row, out) in rows.iter().zip(out.chunks_mut(stride)) {
        for (sample, value) in out[..8].iter_mut().zip(row) {
            *sample = ((*value).clamp(-128, 127) + 128) as u8;
        }
    }
}

#[inline(always)]
#[allow(
    clippy::inline_always,
    reason = "compiled once per set of instructions"
)]
fn transpose(rows: &mut [Lane; 8]) {
    let from = *rows;
    for (y, row) in rows.iter_mut().enumerate() {
        for (x, value) in row.iter_mut().enumerate() {
            *value = from[x][y];
        }
    }
}

/// One pass along the first axis, rounded to the left of `SHIFT` bits.
#[inline(always)]
#[allow(
    clippy::inline_always,
    reason = "compiled once per set of instructions"
)]
fn pass<const SHIFT: u32>(rows: &mut [Lane; 8]) {
    let times = |value: i32, factor: i32| value.wrapping_mul(factor);
    let rounded = |value: i32| value.wrapping_add(1 << (SHIFT - 1)) >> SHIFT;
    let from = *rows;
    for x in 0..8 {
        // The constants of the paper, times 2^13.
        let z1 = times(from[2][x].wrapping_add(from[6][x]), 4433);
        let even2 = z1.wrapping_add(times(from[6][x], -15_137));
        let even3 = z1.wrapping_add(times(from[2][x], 6270));
        let even0 = times(from[0][x].wrapping_add(from[4][x]), 1 << BITS);
        let even1 = times(from[0][x].wrapping_sub(from[4][x]), 1 << BITS);
        let e0 = even0.wrapping_add(even3);
        let e1 = even1.wrapping_add(even2);
        let e2 = even1.wrapping_sub(even2);
        let e3 = even0.wrapping_sub(even3);

        let (o7, o5, o3, o1) = (from[7][x], from[5][x], from[3][x], from[1][x]);
        let (z3, z4) = (o7.wrapping_add(o3), o5.wrapping_add(o1));
        let z5 = times(z3.wrapping_add(z4), 9633);
        let z1 = times(o7.wrapping_add(o1), -7373);
        let z2 = times(o5.wrapping_add(o3), -20_995);
        let z3 = times(z3, -16_069).wrapping_add(z5);
        let z4 = times(z4, -3196).wrapping_add(z5);
        let o0 = times(o1, 12_299).wrapping_add(z1.wrapping_add(z4));
        let o1 = times(o3, 25_172).wrapping_add(z2.wrapping_add(z3));
        let o2 = times(o5, 16_819).wrapping_add(z2.wrapping_add(z4));
        let o3 = times(o7, 2446).wrapping_add(z1.wrapping_add(z3));

        rows[0][x] = rounded(e0.wrapping_add(o0));
        rows[1][x] = rounded(e1.wrapping_add(o1));
        rows[2][x] = rounded(e2.wrapping_add(o2));
        rows[3][x] = rounded(e3.wrapping_add(o3));
        rows[4][x] = rounded(e3.wrapping_sub(o3));
        rows[5][x] = rounded(e2.wrapping_sub(o2));
        rows[6][x] = rounded(e1.wrapping_sub(o1));
        rows[7][x] = rounded(e0.wrapping_sub(o0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers that follow from `seed`.
    fn random(seed: u64) -> impl FnMut() -> u64 {
        let mut state = seed;
        move || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            state >> 33
        }
    }

    #[test]
    fn vector_instructions_give_the_samples_of_the_plain_form() {
        let mut next = random(3);
        for round in 0..2000 {
            // Sparse and full blocks, small and absurd numbers, in rows that are wider than a
            // block.
            let reach = [8, 300, 1 << 16][round % 3];
            let mut coefficients = [0_i16; 64];
            for value in coefficients.iter_mut().take(1 + round % 64) {
                *value = (next() % reach) as i16;
            }
            let quantizer = std::array::from_fn(|_| (next() % reach + 1) as u16);
            for stride in [8, 11, 16] {
                let mut plain = vec![7; 7 * stride + 8];
                let mut best = plain.clone();
                block_any(&coefficients, &quantizer, &mut plain, stride);
                block(&coefficients, &quantizer, &mut best, stride);
                assert_eq!(plain, best, "round {round}, stride {stride}");
            }
        }
    }

    #[test]
    fn a_block_with_one_coefficient_is_flat() {
        for dc in [-3000, -1024, -5, -4, -3, 0, 3, 4, 5, 12, 1023, 3000] {
            let mut coefficients = [0; 64];
            coefficients[0] = dc;
            let (mut whole, mut quick) = ([0; 64], [0; 64]);
            block(&coefficients, &[2; 64], &mut whole, 8);
            flat(dc, 2, &mut quick, 8);
            assert_eq!(whole, quick, "{dc}");
        }
    }
}
