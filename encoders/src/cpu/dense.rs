//! Products of matrices that are made for one call, as training needs them: row-major floats in and
//! out, the factors rounded to bfloat16 on the way where that is wanted.

use std::borrow::Cow;

use super::{
    Precision,
    buffer::Buffer,
    level::Level,
    matmul::{Finish, MatMul, Product},
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

/// `out = rows columns`; `rows` `[m, k]` of elements, whose rows are filled up to whole words, and
/// `out` `[m, n]` for columns of `k` inputs and `n` outputs. What the map adds is added.
///
/// # Panics
/// When a slice is shorter than its shape says, or the columns are of another precision.
pub(crate) fn product<E: Element>(rows: &[E], columns: &Packed, out: &mut [f32]) {
    let (k, n) = (columns.inputs(), columns.outputs());
    let m = out.len() / n.max(1);
    assert_eq!(out.len(), m * n, "out is [m, n]");
    assert_eq!(rows.len(), m * E::stride(k), "rows are [m, k]");
    assert_eq!(columns.precision(), E::PRECISION);
    let rows = (rows.as_ptr().cast(), size_of::<E>() * E::stride(k));
    let finish = Finish::plain(out.as_mut_ptr().cast(), 4 * n);
    let product = columns.product(rows, std::ptr::null(), finish);
    // SAFETY: the asserts say that all rows are there.
    unsafe { columns.run(&product, 0..m, 0..columns.panels()) }
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

/// `out += a' b`, summed over rows: `a` `[r, m]` and `b` `[r, n]` of elements, whose rows are filled
/// up to whole words, `out` `[m, n]`.
///
/// # Panics
/// When a slice has another length than its shape says.
pub(crate) fn outer<E: Element>(
    (a, m): (&[E], usize),
    (b, n): (&[E], usize),
    scratch: &mut Scratch,
    out: &mut [f32],
) {
    let level = Level::best();
    let r = a.len() / E::stride(m).max(1);
    assert_eq!(a.len(), r * E::stride(m), "a is [r, m]");
    assert_eq!(b.len(), r * E::stride(n), "b is [r, n]");
    assert_eq!(out.len(), m * n, "out is [m, n]");
    let width = level.panel();
    turn(b, n, width, &mut scratch.panels);
    // One panel that is as wide as `a`.
    turn(a, m, m, &mut scratch.turned);
    let product = Product {
        rows: scratch.turned.as_ptr(),
        row_stride: 4 * m,
        words: r.div_ceil(E::PER_WORD),
        panels: scratch.panels.as_ptr(),
        columns: n,
        finish: Finish {
            residual: true,
            ..Finish::plain(out.as_mut_ptr().cast(), 4 * n)
        },
    };
    let [_, kernel] = E::kernels(level);
    // SAFETY: the level runs here, and the asserts say that all is there.
    unsafe { kernel(&product, 0..m, 0..n.div_ceil(width)) }
}

/// Words along the rows of `matrix` `[r, n]`, in panels of `width` columns: `[panel][word][width]`.
/// What is missing of the last panel and the last word is zero.
pub(super) fn turn<E: Element>(matrix: &[E], n: usize, width: usize, to: &mut Buffer) {
    let stride = E::stride(n);
    let r = matrix.len() / stride.max(1);
    let words = r.div_ceil(E::PER_WORD);
    let panels = n.div_ceil(width);
    let to = to.words(panels * words * width);
    for (i, panel) in to.chunks_exact_mut((words * width).max(1)).enumerate() {
        let columns = i * width..n.min((i + 1) * width);
        for (word, to) in panel.chunks_exact_mut(width).enumerate() {
            let (to, beyond) = to.split_at_mut(columns.len());
            beyond.fill(0);
            let row = |at: usize| &matrix[at * stride..][columns.clone()];
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
