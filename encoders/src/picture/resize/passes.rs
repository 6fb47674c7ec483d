//! The two passes of a resize.

use super::Coefficients;
use crate::wide;

/// Fractional bits of a coefficient: 32 less the 8 of a sample and 2 for sums above one.
pub(super) const PRECISION_BITS: u32 = 22;
/// Half of the last bit kept, so that the shift rounds.
const ROUND: i32 = 1 << (PRECISION_BITS - 1);
/// Rows that go through the horizontal pass together.
const BLOCK_ROWS: usize = 16;
/// Bytes of one column of such a block: `[3, BLOCK_ROWS]`.
const BLOCK_COLUMN: usize = 3 * BLOCK_ROWS;

/// One sample of each row of a block, or as many of one row.
type Line = [u8; BLOCK_ROWS];
type Square = [Line; BLOCK_ROWS];

/// Resizes along rows of `stride` bytes, the first column of which is source column `offset`:
/// `[h, stride / 3, 3]` to `[h, outputs, 3]`.
///
/// A block of rows is transposed so that the arithmetic runs over contiguous samples that share
/// one weight.
pub(super) fn pass_x(
    source: &[u8],
    stride: usize,
    offset: usize,
    coefficients: &Coefficients,
) -> Vec<u8> {
    wide(
        #[inline(always)]
        || {
            let reach = coefficients.reach();
            let bytes = 3 * (reach.start - offset)..3 * (reach.end - offset);
            let out_stride = 3 * coefficients.bounds.len();
            let mut out = vec![0; source.len() / stride * out_stride];
            let mut block = vec![[0; BLOCK_ROWS]; bytes.len()];
            let mut sums = vec![[0; BLOCK_ROWS]; out_stride];
            for (rows, out_rows) in source
                .chunks(BLOCK_ROWS * stride)
                .zip(out.chunks_mut(BLOCK_ROWS * out_stride))
            {
                to_columns(&rows[bytes.start..], stride, &mut block);
                let columns = block.as_flattened();
                let sums_of_pixels = sums.as_flattened_mut().as_chunks_mut::<BLOCK_COLUMN>().0;
                for ((first, weights), sums) in coefficients.rows().zip(sums_of_pixels) {
                    let columns = &columns[(first - reach.start) * BLOCK_COLUMN..];
                    weigh(sums, columns, BLOCK_COLUMN, weights);
                }
                to_rows(&sums, out_rows, out_stride);
            }
            out
        },
    )
}

/// Samples `[rows, stride]`, of which the first `columns.len()` of each row are taken, by columns.
/// Rows that are not there keep what was.
#[inline(always)]
#[allow(
    clippy::inline_always,
    reason = "compiled once per set of instructions"
)]
fn to_columns(rows: &[u8], stride: usize, columns: &mut [Line]) {
    let is_whole = rows.len() >= (BLOCK_ROWS - 1) * stride + columns.len();
    let squares = if is_whole {
        columns.len() / BLOCK_ROWS
    } else {
        0
    };
    let done = squares * BLOCK_ROWS;
    let (square_columns, rest) = columns.split_at_mut(done);
    let square_columns = square_columns.as_chunks_mut::<BLOCK_ROWS>().0;
    for (i, square) in square_columns.iter_mut().enumerate() {
        for (r, line) in square.iter_mut().enumerate() {
            line.copy_from_slice(&rows[r * stride + i * BLOCK_ROWS..][..BLOCK_ROWS]);
        }
        transpose(square);
    }
    for (r, row) in rows.chunks(stride).enumerate() {
        for (column, sample) in rest.iter_mut().zip(&row[done..]) {
            column[r] = *sample;
        }
    }
}

/// The way back, into as many `rows` of `stride` bytes as there are.
#[inline(always)]
#[allow(
    clippy::inline_always,
    reason = "compiled once per set of instructions"
)]
fn to_rows(columns: &[Line], rows: &mut [u8], stride: usize) {
    let is_whole = rows.len() == BLOCK_ROWS * stride;
    let squares = if is_whole {
        columns.len() / BLOCK_ROWS
    } else {
        0
    };
    let done = squares * BLOCK_ROWS;
    let (square_columns, rest) = columns.split_at(done);
    for (i, square) in square_columns
        .as_chunks::<BLOCK_ROWS>()
        .0
        .iter()
        .enumerate()
    {
        let mut square = *square;
        transpose(&mut square);
        for (r, line) in square.iter().enumerate() {
            rows[r * stride + i * BLOCK_ROWS..][..BLOCK_ROWS].copy_from_slice(line);
        }
    }
    for (r, row) in rows.chunks_exact_mut(stride).enumerate() {
        for (sample, column) in row[done..].iter_mut().zip(rest) {
            *sample = column[r];
        }
    }
}

/// Columns to rows: each of four rounds lays the lower half of the lines between those of the upper.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
#[allow(
    clippy::inline_always,
    reason = "compiled once per set of instructions"
)]
fn transpose(square: &mut Square) {
    use std::arch::x86_64::{__m128i, _mm_unpackhi_epi8, _mm_unpacklo_epi8};
    // SAFETY: both are 256 bytes without padding, and any bits are integers.
    #[allow(unsafe_code)]
    let mut lines = unsafe { std::mem::transmute::<Square, [__m128i; BLOCK_ROWS]>(*square) };
    for _ in 0..BLOCK_ROWS.ilog2() {
        let from = lines;
        let (upper, lower) = from.split_at(BLOCK_ROWS / 2);
        for ((pair, upper), lower) in lines.as_chunks_mut().0.iter_mut().zip(upper).zip(lower) {
            // SAFETY: every x86-64 has these instructions.
            #[allow(unsafe_code)]
            let [low, high] = unsafe {
                [
                    _mm_unpacklo_epi8(*upper, *lower),
                    _mm_unpackhi_epi8(*upper, *lower),
                ]
            };
            *pair = [low, high];
        }
    }
    // SAFETY: as above.
    #[allow(unsafe_code)]
    let done = unsafe { std::mem::transmute::<[__m128i; BLOCK_ROWS], Square>(lines) };
    *square = done;
}

#[cfg(not(target_arch = "x86_64"))]
fn transpose(square: &mut Square) {
    let from = *square;
    for (r, line) in square.iter_mut().enumerate() {
        for (sample, column) in line.iter_mut().zip(&from) {
            *sample = column[r];
        }
    }
}

/// Resizes along columns: rows of `stride` bytes, the first of which is source row `offset`, to
/// one row per output.
pub(super) fn pass_y(
    source: &[u8],
    stride: usize,
    offset: usize,
    coefficients: &Coefficients,
) -> Vec<u8> {
    wide(
        #[inline(always)]
        || {
            let mut out = vec![0; coefficients.bounds.len() * stride];
            for (out_row, (first, weights)) in out.chunks_exact_mut(stride).zip(coefficients.rows())
            {
                let source = &source[(first - offset) * stride..];
                let (pieces, rest) = out_row.as_chunks_mut::<BLOCK_COLUMN>();
                let done = pieces.len() * BLOCK_COLUMN;
                for (i, piece) in pieces.iter_mut().enumerate() {
                    weigh(piece, &source[i * BLOCK_COLUMN..], stride, weights);
                }
                for (i, sum) in rest.iter_mut().enumerate() {
                    weigh(
                        std::array::from_mut(sum),
                        &source[done + i..],
                        stride,
                        weights,
                    );
                }
            }
            out
        },
    )
}

/// Sums of `weights[k] * source[k * stride + i]`, rounded to samples; they stay in registers over all
/// weights.
#[inline(always)]
#[allow(
    clippy::inline_always,
    reason = "compiled once per set of instructions"
)]
fn weigh<const N: usize>(out: &mut [u8; N], source: &[u8], stride: usize, weights: &[i32]) {
    let mut sums = [ROUND; N];
    for (k, weight) in weights.iter().enumerate() {
        for (sum, sample) in sums.iter_mut().zip(&source[k * stride..][..N]) {
            *sum += weight * i32::from(*sample);
        }
    }
    for (out, sum) in out.iter_mut().zip(sums) {
        *out = (sum >> PRECISION_BITS).clamp(0, 255) as u8;
    }
}
