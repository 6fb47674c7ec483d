//! Products of matrices that are made for one call, as training needs them: row-major floats in and
//! out, the factors rounded to bfloat16 on the way where that is wanted.

use std::{borrow::Cow, mem::MaybeUninit};

use rayon::prelude::*;

pub(crate) use super::buffer::Buffer;
use super::{
    Precision,
    level::Level,
    matmul::{Finish, MatMul, Product, WHOLE, packed},
    packed::Packed,
};

/// An element of a factor: a float, or a bfloat16 as its bits.
pub(crate) trait Element: Copy + Default + Send + Sync + 'static {
    /// How many make a 4-byte word. Words run along what is summed over.
    const PER_WORD: usize;
    /// The same as a precision.
    const PRECISION: Precision;

    /// The word of as many elements.
    fn word(elements: [Self; 2]) -> u32;
    /// Rows of `columns` floats as elements, each row filled up to whole words with zeros.
    fn rows(rows: &[f32], columns: usize) -> Cow<'_, [Self]>;
    /// The kernel for rows that lie one after another, and the one for turned rows.
    fn kernels(level: &Level) -> [MatMul; 2];

    /// Elements from a row of `columns` to the next.
    fn stride(columns: usize) -> usize {
        columns.next_multiple_of(Self::PER_WORD)
    }
}

impl Element for f32 {
    const PER_WORD: usize = 1;
    const PRECISION: Precision = Precision::F32;

    fn word([first, _]: [Self; 2]) -> u32 {
        first.to_bits()
    }
    fn rows(rows: &[f32], _columns: usize) -> Cow<'_, [Self]> {
        Cow::Borrowed(rows)
    }
    fn kernels(level: &Level) -> [MatMul; 2] {
        [level.f32, level.f32_turned]
    }
}

impl Element for u16 {
    const PER_WORD: usize = 2;
    const PRECISION: Precision = Precision::Bf16;

    fn word([first, second]: [Self; 2]) -> u32 {
        u32::from(first) | u32::from(second) << 16
    }
    fn rows(rows: &[f32], columns: usize) -> Cow<'_, [Self]> {
        let stride = Self::stride(columns);
        let mut narrow = vec![0; rows.len() / columns.max(1) * stride];
        let narrow_bf16 = Level::best().narrow_bf16;
        // Without gaps, all rows are one.
        let whole = if stride == columns {
            rows.len()
        } else {
            columns
        };
        for (to, from) in narrow
            .chunks_exact_mut(Self::stride(whole).max(1))
            .zip(rows.chunks_exact(whole.max(1)))
        {
            // SAFETY: the level runs here, and `to` is as long as `from` or longer.
            unsafe { narrow_bf16(from.as_ptr(), from.len(), to.as_mut_ptr()) }
        }
        Cow::Owned(narrow)
    }
    fn kernels(level: &Level) -> [MatMul; 2] {
        [level.bf16, level.bf16_turned]
    }
}

/// A vector of `n` floats whose chunks are filled in parallel by `write`, which is told the number of
/// its chunk. Large outputs need not be cleared before they are written then.
///
/// # Safety
/// `write` initializes every element of its chunk.
pub(crate) unsafe fn filled(
    n: usize,
    chunk: usize,
    write: impl Fn(usize, &mut [MaybeUninit<f32>]) + Sync,
) -> Vec<f32> {
    let mut out = Vec::with_capacity(n);
    out.spare_capacity_mut()[..n]
        .par_chunks_mut(chunk.max(1))
        .enumerate()
        .for_each(|(i, chunk)| write(i, chunk));
    // SAFETY: all chunks were written, as the caller says.
    unsafe { out.set_len(n) };
    out
}

/// Floats as a place to write.
pub(crate) fn place(floats: &mut [f32]) -> &mut [MaybeUninit<f32>] {
    let (start, n) = (floats.as_mut_ptr(), floats.len());
    // SAFETY: the layout is the same, and only floats are ever written there.
    unsafe { std::slice::from_raw_parts_mut(start.cast(), n) }
}

/// Rows of elements: each is made of segments of one length, filled up to whole words.
#[derive(Clone, Copy)]
pub(crate) struct Rows<'a, E> {
    /// Where they lie.
    pub elements: &'a [E],
    /// Elements from a row to the next.
    pub stride: usize,
    /// Where the segments of a row begin, in bytes from its first element.
    pub segments: &'a [usize],
}

impl<'a, E: Element> Rows<'a, E> {
    /// Rows of `columns` elements, one after another.
    pub(crate) fn whole(elements: &'a [E], columns: usize) -> Self {
        Self {
            elements,
            stride: E::stride(columns),
            segments: WHOLE,
        }
    }
}

/// Writes `out = rows columns`, or adds it where `adds` is set; as many rows as `out` `[m, n]` has, for
/// columns of `n` outputs. What the map adds is added. All of `out` is initialized.
///
/// # Panics
/// When a slice is shorter than its shape says, or the columns are of another precision.
pub(crate) fn product<E: Element>(
    rows: Rows<'_, E>,
    columns: &Packed,
    out: &mut [MaybeUninit<f32>],
    adds: bool,
) {
    let n = columns.outputs();
    let m = out.len() / n.max(1);
    assert_eq!(out.len(), m * n, "out is [m, n]");
    assert_eq!(columns.precision(), E::PRECISION);
    let element = size_of::<E>();
    let words = E::PRECISION.words(columns.inputs()) / rows.segments.len();
    let last = rows.segments.iter().max().copied().unwrap_or_default();
    let reach = m.saturating_sub(1) * rows.stride * element + last + 4 * words;
    assert!(
        m == 0 || reach <= size_of_val(rows.elements),
        "rows are [m, k]"
    );
    let at = (rows.elements.as_ptr().cast(), element * rows.stride);
    let finish = Finish {
        residual: adds,
        ..Finish::plain(out.as_mut_ptr().cast(), 4 * n)
    };
    let product = Product {
        words,
        segments: rows.segments,
        ..columns.product(at, std::ptr::null(), finish)
    };
    // SAFETY: the asserts say that all rows are there.
    unsafe { columns.run(&product, 0..m, 0..columns.panels()) }
}

/// A matrix of elements, its rows filled up to whole words at least.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a, E> {
    /// Row after row; what follows the last row's columns may be missing.
    pub elements: &'a [E],
    /// Number of rows.
    pub rows: usize,
    /// Columns that count.
    pub columns: usize,
    /// Elements from a row to the next.
    pub stride: usize,
}

impl<'a, E: Element> Matrix<'a, E> {
    /// Rows of `columns` elements, one after another.
    pub(crate) fn whole(elements: &'a [E], columns: usize) -> Self {
        let stride = E::stride(columns);
        Self {
            elements,
            rows: elements.len() / stride.max(1),
            columns,
            stride,
        }
    }

    /// Whether all of its rows are there, `columns` wide.
    fn reaches(&self, columns: usize) -> bool {
        self.rows == 0
            || (columns <= self.stride
                && (self.rows - 1) * self.stride + columns <= self.elements.len())
    }
}

/// Memory of [`outer`], kept from call to call.
pub(crate) struct Scratch {
    turned: Buffer,
    panels: Buffer,
}

impl Default for Scratch {
    fn default() -> Self {
        let (turned, panels) = (Buffer::new(0), Buffer::new(0));
        Self { turned, panels }
    }
}

/// `out += a' b`, summed over rows: `a` `[r, m]`, `b` `[r, n]`; `out` has rows of `n`, `out_stride` apart.
///
/// # Panics
/// When a slice is shorter than its shape says.
pub(crate) fn outer<E: Element>(
    a: Matrix<'_, E>,
    b: Matrix<'_, E>,
    scratch: &mut Scratch,
    (out, out_stride): (&mut [f32], usize),
) {
    let level = Level::best();
    let (r, m, n) = (a.rows, a.columns, b.columns);
    assert_eq!(r, b.rows, "as many rows of each");
    assert!(a.reaches(m) && b.reaches(n), "all rows are there");
    assert!(
        m == 0 || (m - 1) * out_stride + n <= out.len(),
        "out is [m, n]"
    );
    let width = level.panel();
    let words = r.div_ceil(E::PER_WORD);
    // Words run along the rows: floats are such words already, and whole registers of them may be read where
    // the rows are wide enough.
    let floats = E::PER_WORD == 1;
    let (panels, panel_strides) = if floats && b.reaches(n.next_multiple_of(level.lanes)) {
        (b.elements.as_ptr().cast(), (4 * b.stride, 4 * width))
    } else {
        turn(b, width, &mut scratch.panels);
        (scratch.panels.as_ptr(), packed(words, width))
    };
    let (rows, row_stride) = if floats {
        (a.elements.as_ptr().cast(), 4 * a.stride)
    } else {
        // One panel that is as wide as `a`.
        turn(a, m, &mut scratch.turned);
        (scratch.turned.as_ptr(), 4 * m)
    };
    let product = Product {
        rows,
        row_stride,
        words,
        segments: WHOLE,
        panels,
        panel_strides,
        columns: n,
        finish: Finish {
            residual: true,
            ..Finish::plain(out.as_mut_ptr().cast(), 4 * out_stride)
        },
    };
    let [_, kernel] = E::kernels(level);
    // SAFETY: the level runs here, and the asserts say that all is there.
    unsafe { kernel(&product, 0..m, 0..n.div_ceil(width)) }
}

/// Words along the rows of `matrix`, in panels of `width` columns: `[panel][word][width]`. What is missing of
/// the last panel and the last word is zero.
pub(super) fn turn<E: Element>(matrix: Matrix<'_, E>, width: usize, to: &mut Buffer) {
    let (r, n) = (matrix.rows, matrix.columns);
    let words = r.div_ceil(E::PER_WORD);
    let panels = n.div_ceil(width);
    let to = to.words(panels * words * width);
    for (i, panel) in to.chunks_exact_mut((words * width).max(1)).enumerate() {
        let columns = i * width..n.min((i + 1) * width);
        for (word, to) in panel.chunks_exact_mut(width).enumerate() {
            let (to, beyond) = to.split_at_mut(columns.len());
            beyond.fill(0);
            let row = |at: usize| &matrix.elements[at * matrix.stride..][columns.clone()];
            let first = row(E::PER_WORD * word);
            if E::PER_WORD == 2 && 2 * word + 1 < r {
                let second = row(2 * word + 1);
                for ((to, a), b) in to.iter_mut().zip(first).zip(second) {
                    *to = E::word([*a, *b]);
                }
            } else {
                for (to, a) in to.iter_mut().zip(first) {
                    *to = E::word([*a, E::default()]);
                }
            }
        }
    }
}
