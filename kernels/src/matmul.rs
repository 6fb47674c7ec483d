//! Products of rows with packed columns.
//!
//! Columns lie in panels of two registers, packed as `[panel][word][2 * COUNT]`, so that one tile of some
//! rows and one panel keeps all its sums in registers, and reads both operands in order. Of a panel that
//! is at most half full only the first register is computed. What is done with a sum (scales, bias,
//! activation, residual) happens while the tile is at hand.

use std::{mem::MaybeUninit, ops::Range};

use super::{kinds::Kind, lanes::Lanes, math::activate};
use crate::Activation;

/// Rows of a block, in tiles, and their bytes, at most: those that stay in the caches while panels go by, and
/// enough that the next panel comes from memory meanwhile.
pub const BLOCK_TILES: usize = 6;
const BLOCK_BYTES: usize = 640 << 10;

/// Bytes of a line of a cache.
const LINE: usize = 64;

/// The most floats in a tile of any instruction set.
const MAX_TILE: usize = 14 * 32;

/// The sums of a tile, none of whose registers lies across two lines.
#[repr(C, align(64))]
struct Sums([MaybeUninit<f32>; MAX_TILE]);

/// One product `rows x columns`.
#[derive(Clone, Copy)]
pub struct Product {
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
pub const WHOLE: &[usize] = &[0];

/// What becomes of a sum, in this order.
#[derive(Clone, Copy)]
pub struct Finish {
    /// Per column `(scales, corrections)`: `sum * scale - correction`; null for none, else whole
    /// panels of them, and `rows` is not null either.
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
    pub fn plain(out: *mut u8, out_stride: usize) -> Self {
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
pub type MatMul = unsafe fn(&Product, rows: Range<usize>, panels: Range<usize>);

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
            for (number, tile) in split(block.clone(), tiles).enumerate() {
                let mut sums = Sums([const { MaybeUninit::uninit() }; MAX_TILE]);
                let sums = sums.0.as_mut_ptr().cast::<f32>();
                unsafe {
                    let step = if TURNED { 4 } else { product.row_stride };
                    let from = product.rows.add(tile.start * step);
                    let columns = product.panels.add(panel * panel_bytes);
                    let operands = Operands {
                        rows: from,
                        row_stride: product.row_stride,
                        segments,
                        columns,
                        words: product.words,
                        ahead: if panel + 1 < panels.end {
                            columns.wrapping_add(panel_bytes + panel_bytes * number / tiles)
                        } else {
                            columns
                        },
                        ahead_step: if panel + 1 < panels.end {
                            width * 4 / tiles
                        } else {
                            0
                        },
                    };
                    prefetch_out::<K::L>(&product.finish, tile.clone(), panel);
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
pub fn split(range: Range<usize>, parts: usize) -> impl Iterator<Item = Range<usize>> {
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
    /// What is fetched into the second-level cache meanwhile: about this tile's share of the next panel, and how
    /// many bytes of it with each word. The first tile of a panel would wait for memory otherwise.
    ahead: *const u8,
    ahead_step: usize,
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

/// Rows that are addressed from one pointer, at 0, 1 and 2 times the step between rows.
const GROUP: usize = 3;

/// `pointer`, of which the compiler knows nothing more: it would compute the place of each row from that of
/// the row before.
#[inline(always)]
#[allow(unused_mut, reason = "only where it is computed")]
#[allow(
    clippy::pointers_in_nomem_asm_block,
    reason = "nothing is read through it"
)]
fn opaque(mut pointer: *const u8) -> *const u8 {
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    // SAFETY: there is no instruction, only a register.
    unsafe {
        std::arch::asm!("/* {0} */", inout(reg) pointer, options(pure, nomem, nostack, preserves_flags));
    }
    pointer
}

#[inline(always)]
unsafe fn tile<K: Kind, const ROWS: usize, const REGISTERS: usize, const TURNED: bool>(
    operands: Operands<'_>,
    out: *mut f32,
) {
    let (stride, mut columns, mut ahead) = (operands.row_stride, operands.columns, operands.ahead);
    let lanes = K::L::COUNT;
    unsafe {
        let mut sums = [[K::zero(); REGISTERS]; ROWS];
        let (step, by_word) = if TURNED { (4, stride) } else { (stride, 4) };
        for segment in operands.segments {
            let first = operands.rows.add(*segment);
            let group = |number: usize| first.wrapping_add(GROUP * number * step);
            let (mut a, mut b, mut c, mut d, mut e) =
                (group(0), group(1), group(2), group(3), group(4));
            for _ in 0..operands.words {
                let mut panel = [K::columns(columns); REGISTERS];
                if REGISTERS == 2 {
                    panel[1] = K::columns(columns.add(4 * lanes));
                }
                columns = columns.add(8 * lanes);
                K::L::prefetch(ahead);
                ahead = ahead.wrapping_add(operands.ahead_step);
                macro_rules! rows {
                    ($($group:ident: $($row:literal)*;)*) => {$($(
                        if let Some(sums) = sums.get_mut($row) {
                            let row = K::row($group.wrapping_add($row % GROUP * step));
                            for (sum, columns) in sums.iter_mut().zip(panel) {
                                *sum = K::mul_add(*sum, row, columns);
                            }
                        }
                    )*)*};
                }
                rows!(a: 0 1 2; b: 3 4 5; c: 6 7 8; d: 9 10 11; e: 12 13;);
                a = opaque(a.wrapping_add(by_word));
                if ROWS > GROUP {
                    b = opaque(b.wrapping_add(by_word));
                }
                if ROWS > 2 * GROUP {
                    c = opaque(c.wrapping_add(by_word));
                }
                if ROWS > 3 * GROUP {
                    d = opaque(d.wrapping_add(by_word));
                }
                if ROWS > 4 * GROUP {
                    e = opaque(e.wrapping_add(by_word));
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

/// Fetches where a tile is stored, so that nothing waits for it when its sums are there.
#[inline(always)]
unsafe fn prefetch_out<L: Lanes>(f: &Finish, rows: Range<usize>, panel: usize) {
    let element = if f.bf16 { 2 } else { 4 };
    let bytes = 2 * L::COUNT * element;
    for row in rows {
        let out = f.out.wrapping_add(row * f.out_stride + panel * bytes);
        for line in (0..bytes).step_by(LINE) {
            // SAFETY: fetching reads nothing.
            unsafe { L::prefetch(out.wrapping_add(line)) }
        }
    }
}

/// Everything that follows the sums of a tile, one step for all its rows after another: they stay in the
/// first-level cache, and nothing is asked for each register.
#[inline(always)]
unsafe fn finish<L: Lanes>(product: &Product, rows: Range<usize>, panel: usize, sums: *mut f32) {
    let f = &product.finish;
    let width = 2 * L::COUNT;
    for half in 0..2 {
        let column = panel * width + half * L::COUNT;
        let left = product.columns.saturating_sub(column).min(L::COUNT);
        if left == 0 {
            break;
        }
        let sums = sums.wrapping_add(half * L::COUNT);
        macro_rules! each {
            (|$v:ident, $row:ident| $result:expr) => {
                for (i, $row) in rows.clone().enumerate() {
                    let at = sums.add(i * width);
                    let $v = L::load(at);
                    L::store(at, $result);
                }
            };
        }
        unsafe {
            let bias = if f.bias.is_null() {
                L::splat(0.0)
            } else {
                L::load(f.bias.add(column))
            };
            if !f.columns.0.is_null() {
                let scales = L::load(f.columns.0.add(column));
                let corrections = L::load(f.columns.1.add(column));
                each!(|v, row| {
                    let v = L::sub(L::mul(v, scales), corrections);
                    L::mul_add(v, L::splat(*f.rows.add(row)), bias)
                });
            } else if !f.rows.is_null() {
                each!(|v, row| L::mul_add(v, L::splat(*f.rows.add(row)), bias));
            } else if !f.bias.is_null() {
                each!(|v, _row| L::add(v, bias));
            }
            macro_rules! activated {
                ($($name:ident)*) => {
                    match f.activation {
                        None => {}
                        $(Some(Activation::$name) => {
                            each!(|v, _row| activate::<L>(Activation::$name, v));
                        })*
                    }
                };
            }
            activated!(QuickGelu Gelu GeluTanh);
            macro_rules! stored {
                ($to:ty, |$v:ident, $out:ident| $store:expr) => {
                    for (i, row) in rows.clone().enumerate() {
                        let $v = L::load(sums.add(i * width));
                        let $out = f.out.add(row * f.out_stride).cast::<$to>().add(column);
                        $store;
                    }
                };
            }
            match (f.bf16, f.residual, left == L::COUNT) {
                (true, _, _) => stored!(u16, |v, out| L::store_bf16_n(out, v, left)),
                (false, false, true) => stored!(f32, |v, out| L::store(out, v)),
                (false, false, false) => stored!(f32, |v, out| L::store_n(out, v, left)),
                (false, true, true) => {
                    stored!(f32, |v, out| L::store(out, L::add(v, L::load(out))));
                }
                (false, true, false) => {
                    stored!(f32, |v, out| L::store_n(
                        out,
                        L::add(v, L::load_n(out, left)),
                        left
                    ));
                }
            }
        }
    }
}
