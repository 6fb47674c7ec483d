//! Products of matrices that are made for one call, as training needs them: row-major floats in and
//! out, the factors rounded to bfloat16 on the way where that is wanted.

use std::{borrow::Cow, mem::MaybeUninit, ops::Range};

use kernels::{Finish, Level, MatMul, Precision, Product, WHOLE};
use rayon::prelude::*;

pub(crate) use super::buffer::Buffer;
use super::{packed::Packed, wide};

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

    #[inline(always)]
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

    #[inline(always)]
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

/// Where results go.
pub(crate) enum Target<'a> {
    /// They are written.
    New(&'a mut [MaybeUninit<f32>]),
    /// They are added to what is there.
    Onto(&'a mut [f32]),
}

impl Target<'_> {
    /// Its part from one element to another.
    pub(crate) fn part(&mut self, range: Range<usize>) -> Target<'_> {
        match self {
            Self::New(out) => Target::New(&mut out[range]),
            Self::Onto(sums) => Target::Onto(&mut sums[range]),
        }
    }

    /// Number of elements.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::New(out) => out.len(),
            Self::Onto(sums) => sums.len(),
        }
    }

    /// Floats to add to: zeros where nothing was.
    pub(crate) fn sums(&mut self) -> &mut [f32] {
        match self {
            Self::New(out) => {
                out.fill(MaybeUninit::new(0.0));
                // SAFETY: all of it has just been written.
                unsafe { out.assume_init_mut() }
            }
            Self::Onto(sums) => sums,
        }
    }
}

/// `out = rows columns`, or `out += rows columns`; as many rows as `out` `[m, n]` has, for
/// columns of `n` outputs. What the map adds is added. All of `out` is initialized.
///
/// # Panics
/// When a slice is shorter than its shape says, or the columns are of another precision.
pub(crate) fn product<E: Element>(rows: Rows<'_, E>, columns: &Packed, mut out: Target<'_>) {
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
    let to = match &mut out {
        Target::New(out) => out.as_mut_ptr().cast(),
        Target::Onto(sums) => sums.as_mut_ptr().cast(),
    };
    let finish = Finish {
        residual: matches!(out, Target::Onto(_)),
        ..Finish::plain(to, 4 * n)
    };
    let product = Product {
        words,
        segments: rows.segments,
        ..columns.product(at, std::ptr::null(), finish)
    };
    // SAFETY: the asserts say that all rows are there.
    unsafe { columns.run(&product, 0..m, 0..columns.panels()) }
}

/// Rows of some columns, wherever each of them lies.
pub(crate) struct Scattered<R> {
    /// Number of rows.
    pub rows: usize,
    /// Number of columns.
    pub columns: usize,
    /// A row of as many elements.
    pub row: R,
}

/// Rows of `columns` elements, each filled up to whole words, one after another.
pub(crate) fn whole<'a, E: Element>(
    elements: &'a [E],
    columns: usize,
) -> Scattered<impl Fn(usize) -> &'a [E]> {
    let stride = E::stride(columns);
    Scattered {
        rows: elements.len() / stride.max(1),
        columns,
        row: move |i| &elements[i * stride..][..columns],
    }
}

impl<'a, E: Element, R: Fn(usize) -> &'a [E]> Scattered<R> {
    /// Writes the words along the rows in some columns, `[word][width]`. What is missing of the width and of
    /// the last word is zero.
    fn turn(&self, columns: Range<usize>, width: usize, to: &mut [u32]) {
        wide(
            #[inline(always)]
            || {
                for (word, to) in to.chunks_exact_mut(width.max(1)).enumerate() {
                    let (to, beyond) = to.split_at_mut(columns.len());
                    beyond.fill(0);
                    let row = |at: usize| &(self.row)(at)[columns.clone()];
                    let first = row(E::PER_WORD * word);
                    if E::PER_WORD == 2 && 2 * word + 1 < self.rows {
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
            },
        );
    }

    /// The same of all columns in panels: `[panel][word][width]`.
    pub(super) fn panels(&self, width: usize, to: &mut Buffer) {
        let words = self.rows.div_ceil(E::PER_WORD);
        let panels = self.columns.div_ceil(width.max(1));
        let to = to.words(panels * words * width);
        for (i, panel) in to.chunks_exact_mut((words * width).max(1)).enumerate() {
            let columns = i * width..self.columns.min((i + 1) * width);
            self.turn(columns, width, panel);
        }
    }
}

/// Memory of [`outer`], kept from call to call.
pub(crate) struct Scratch {
    turned: Buffer,
    panel: Buffer,
}

impl Default for Scratch {
    fn default() -> Self {
        let (turned, panel) = (Buffer::new(0), Buffer::new(0));
        Self { turned, panel }
    }
}

/// `out += a' b`, summed over rows: `a` `[r, m]`, its rows filled up to whole words, and `b` `[r, n]`; `out` has rows
/// of `n`, `out_stride` apart.
///
/// # Panics
/// When a slice is shorter than its shape says.
pub(crate) fn outer<'b, E: Element>(
    (a, m): (&[E], usize),
    b: &Scattered<impl Fn(usize) -> &'b [E]>,
    scratch: &mut Scratch,
    (out, out_stride): (&mut [f32], usize),
) {
    let level = Level::best();
    let (r, n) = (b.rows, b.columns);
    assert_eq!(a.len(), r * E::stride(m), "a is [r, m]");
    assert!(
        m == 0 || (m - 1) * out_stride + n <= out.len(),
        "out is [m, n]"
    );
    let width = level.panel();
    let words = r.div_ceil(E::PER_WORD);
    // Words run along the rows. Floats are such words already.
    let rows = if E::PER_WORD == 1 {
        a.as_ptr().cast()
    } else {
        // One panel that is as wide as `a`.
        whole(a, m).panels(m, &mut scratch.turned);
        scratch.turned.as_ptr()
    };
    let [_, kernel] = E::kernels(level);
    for from in (0..n).step_by(width) {
        // One panel at a time, which is at hand for all of `a` then.
        let columns = from..n.min(from + width);
        let panel = scratch.panel.words(words * width);
        b.turn(columns.clone(), width, panel);
        let product = Product {
            rows,
            row_stride: 4 * m,
            words,
            segments: WHOLE,
            panels: scratch.panel.as_ptr(),
            columns: columns.len(),
            finish: Finish {
                residual: true,
                ..Finish::plain(out[from..].as_mut_ptr().cast(), 4 * out_stride)
            },
        };
        // SAFETY: the level runs here, and the asserts say that all is there.
        unsafe { kernel(&product, 0..m, 0..1) }
    }
}
