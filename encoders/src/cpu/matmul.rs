//! Products of rows with packed columns.
//!
//! Columns lie in panels of two registers, packed as `[panel][word][2 * COUNT]`, so that one tile of some
//! rows and one panel keeps all its sums in registers, and reads both operands in order. Of a panel that
//! is at most half full only the first register is computed. What is done with a sum (scales, bias,
//! activation, residual) happens while the tile is at hand.

use std::{mem::MaybeUninit, ops::Range};

use super::{kinds::Kind, lanes::Lanes, math::activate};
use crate::nn::Activation;

/// Rows of a block, in tiles, and their bytes, at most: those that stay in the second-level cache while panels go by.
const BLOCK_TILES: usize = 12;
const BLOCK_BYTES: usize = 640 << 10;

/// The most floats in a tile of any instruction set.
const MAX_TILE: usize = 14 * 32;

/// One product `rows x columns`.
#[derive(Clone, Copy)]
pub(crate) struct Product {
    /// First word of the first row; 4-byte words.
    pub rows: *const u8,
    /// Bytes from a row to the next; of turned rows, from a word to the next.
    pub row_stride: usize,
    /// Words of each segment of a row that count.
    pub words: usize,
    /// Where the segments of a row begin, in bytes from its first word: [`WHOLE`] where it lies in one
    /// piece. A column has those of all segments one after another.
    pub segments: *const [usize],
    /// The packed columns, from panel 0 on.
    pub panels: *const u8,
    /// Number of columns in all.
    pub columns: usize,
    /// What becomes of the sums.
    pub finish: Finish,
}

/// Of rows that lie in one piece.
pub(crate) const WHOLE: &[usize] = &[0];

/// What becomes of a sum, in this order.
#[derive(Clone, Copy)]
pub(crate) struct Finish {
    /// Per column `(scales, corrections)`: `sum * scale - correction`; null for none, else whole
    /// panels of them.
    pub columns: (*const f32, *const f32),
    /// Factor of each row; null for none.
    pub rows: *const f32,
    /// Added per column; null for none, else whole panels of it.
    pub bias: *const f32,
    /// Applied to the result.
    pub activation: Option<Activation>,
    /// Whether what `out` holds (floats) is added.
    pub residual: bool,
    /// Whether bfloat16 is stored, and not floats.
    pub bf16: bool,
    /// Element 0 of row 0.
    pub out: *mut u8,
    /// Bytes from a row to the next.
    pub out_stride: usize,
}

impl Finish {
    /// Sums as they are, as floats.
    pub(super) fn plain(out: *mut u8, out_stride: usize) -> Self {
        Self {
            columns: (std::ptr::null(), std::ptr::null()),
            rows: std::ptr::null(),
            bias: std::ptr::null(),
            activation: None,
            residual: false,
            bf16: false,
            out,
            out_stride,
        }
    }
}

/// A kernel for [`Product`]s: rows `rows`, panels `panels`.
pub(crate) type MatMul = unsafe fn(&Product, rows: Range<usize>, panels: Range<usize>);

/// `TURNED` rows lie side by side, `[word][row]`, and the others one after another, `[row][word]`.
///
/// # Safety
/// The CPU has the instruction set; every pointer of `product` is valid for the rows and panels.
#[inline(always)]
pub(super) unsafe fn matmul<K: Kind, const TURNED: bool>(
    product: &Product,
    rows: Range<usize>,
    panels: Range<usize>,
) {
    let width = 2 * K::L::COUNT;
    // SAFETY: the caller keeps the segments.
    let segments = unsafe { &*product.segments };
    let panel_bytes = segments.len() * product.words * width * 4;
    let count = rows.len();
    let row_bytes = 4 * segments.len() * product.words;
    let tiles = (BLOCK_BYTES / (row_bytes * K::L::ROWS).max(1)).clamp(1, BLOCK_TILES);
    let blocks = count.div_ceil(tiles * K::L::ROWS);
    for block in split(rows, blocks) {
        let tiles = block.len().div_ceil(K::L::ROWS);
        for panel in panels.clone() {
            let whole = product.columns - panel * width > K::L::COUNT;
            for tile in split(block.clone(), tiles) {
                let mut sums = [const { MaybeUninit::<f32>::uninit() }; MAX_TILE];
                let sums = sums.as_mut_ptr().cast::<f32>();
                unsafe {
                    let step = if TURNED { 4 } else { product.row_stride };
                    let from = product.rows.add(tile.start * step);
                    let operands = Operands {
                        rows: from,
                        row_stride: product.row_stride,
                        segments,
                        columns: product.panels.add(panel * panel_bytes),
                        words: product.words,
                    };
                    if whole {
                        sums_of::<K, 2, TURNED>(tile.len(), operands, sums);
                    } else {
                        sums_of::<K, 1, TURNED>(tile.len(), operands, sums);
                    }
                    finish::<K::L>(product, tile, panel, sums);
                }
            }
        }
    }
}

/// `parts` ranges of about the same length.
pub(super) fn split(range: Range<usize>, parts: usize) -> impl Iterator<Item = Range<usize>> {
    let (start, length) = (range.start, range.len());
    (0..parts).map(move |i| start + length * i / parts..start + length * (i + 1) / parts)
}

/// What a tile reads: see [`Product`].
#[derive(Clone, Copy)]
struct Operands<'a> {
    rows: *const u8,
    row_stride: usize,
    segments: &'a [usize],
    columns: *const u8,
    words: usize,
}

/// Writes the sums of one tile, `[rows, 2 * COUNT]`; with `REGISTERS` 1 the second half of each row
/// stays as it is.
#[inline(always)]
unsafe fn sums_of<K: Kind, const REGISTERS: usize, const TURNED: bool>(
    rows: usize,
    operands: Operands<'_>,
    out: *mut f32,
) {
    macro_rules! by_rows {
        ($($n:literal)*) => {
            match rows {
                $($n if const { $n <= K::L::ROWS } => unsafe {
                    tile::<K, $n, REGISTERS, TURNED>(operands, out)
                },)*
                _ => unreachable!("tiles have at most ROWS rows"),
            }
        };
    }
    by_rows!(1 2 3 4 5 6 7 8 9 10 11 12 13 14);
}

#[inline(always)]
unsafe fn tile<K: Kind, const ROWS: usize, const REGISTERS: usize, const TURNED: bool>(
    operands: Operands<'_>,
    out: *mut f32,
) {
    let (stride, mut columns) = (operands.row_stride, operands.columns);
    let lanes = K::L::COUNT;
    unsafe {
        let mut sums = [[K::zero(); REGISTERS]; ROWS];
        for segment in operands.segments {
            let rows = operands.rows.add(*segment);
            for word in 0..operands.words {
                let mut panel = [K::columns(columns); REGISTERS];
                if REGISTERS == 2 {
                    panel[1] = K::columns(columns.add(4 * lanes));
                }
                columns = columns.add(8 * lanes);
                for (i, sums) in sums.iter_mut().enumerate() {
                    let at = if TURNED {
                        word * stride + 4 * i
                    } else {
                        i * stride + 4 * word
                    };
                    let row = K::row(rows.add(at));
                    for (sum, columns) in sums.iter_mut().zip(panel) {
                        *sum = K::mul_add(*sum, row, columns);
                    }
                }
            }
        }
        for (i, sums) in sums.iter().enumerate() {
            for (half, sum) in sums.iter().enumerate() {
                K::L::store(out.add(lanes * (2 * i + half)), K::total(*sum));
            }
        }
    }
}

#[inline(always)]
unsafe fn finish<L: Lanes>(product: &Product, rows: Range<usize>, panel: usize, sums: *const f32) {
    let f = &product.finish;
    let width = 2 * L::COUNT;
    for (i, row) in rows.enumerate() {
        for half in 0..2 {
            let column = panel * width + half * L::COUNT;
            let left = product.columns.saturating_sub(column).min(L::COUNT);
            if left == 0 {
                break;
            }
            unsafe {
                let mut v = L::load(sums.add(i * width + half * L::COUNT));
                if !f.columns.0.is_null() {
                    let correction = L::load(f.columns.1.add(column));
                    v = L::sub(L::mul(v, L::load(f.columns.0.add(column))), correction);
                }
                if !f.rows.is_null() {
                    v = L::mul(v, L::splat(*f.rows.add(row)));
                }
                if !f.bias.is_null() {
                    v = L::add(v, L::load(f.bias.add(column)));
                }
                if let Some(activation) = f.activation {
                    v = activate::<L>(activation, v);
                }
                let out = f.out.add(row * f.out_stride);
                if f.bf16 {
                    L::store_bf16_n(out.cast::<u16>().add(column), v, left);
                    continue;
                }
                let out = out.cast::<f32>().add(column);
                if f.residual {
                    v = L::add(v, L::load_n(out, left));
                }
                L::store_n(out, v, left);
            }
        }
    }
}
