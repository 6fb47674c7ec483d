//! The weights of a linear map, packed once for the kernels.

use std::ops::Range;

use kernels::{Finish, LEAST, Level, MatMul, Precision, Product, WHOLE, largest_half, split};
use rayon::prelude::*;

use super::{
    Team,
    buffer::{Buffer, Shared},
    dense::{Element, whole},
    wide,
};

/// The largest magnitude of a weight as a byte.
const LARGEST: f32 = 127.0;

/// Rows that are turned at once when they are packed; panels hold as many, several times.
const SQUARE: usize = 4;

/// Parts of a product, so that a thread that comes late leaves some to the others.
const TASKS_PER_THREAD: usize = 2;

/// `x W^T + b` with `W` `[outputs, inputs]`.
pub(crate) struct Packed {
    precision: Precision,
    inputs: usize,
    outputs: usize,
    words: usize,
    panels: usize,
    data: Buffer,
    /// Whole panels; zeros where there is none.
    bias: Vec<f32>,
    /// Per output: the step of its whole numbers, and what the shift of the rows adds to each sum.
    scales: Vec<f32>,
    corrections: Vec<f32>,
    kernel: MatMul,
}

impl Packed {
    /// Packs `weights` `[outputs, inputs]` and `bias` `[outputs]`.
    pub(crate) fn new(
        level: &Level,
        precision: Precision,
        (weights, inputs): (&[f32], usize),
        bias: Option<&[f32]>,
    ) -> Self {
        let outputs = weights.len() / inputs.max(1);
        let words = precision.words(inputs);
        let width = level.panel();
        let panels = outputs.div_ceil(width);
        let panel_bytes = words * width * 4;
        let mut data = Buffer::new(panels * panel_bytes);
        let start = Shared(data.as_mut_ptr());
        let steps: Vec<Vec<(f32, i32)>> = (0..panels)
            .into_par_iter()
            .map(|panel| {
                let rows = panel * width..outputs.min((panel + 1) * width);
                let rows = &weights[rows.start * inputs..rows.end * inputs];
                // SAFETY: panels are disjoint, and this one has `words * width` words.
                let to = unsafe {
                    let to = start.at(panel * panel_bytes).cast::<u32>();
                    std::slice::from_raw_parts_mut(to, words * width)
                };
                fill(
                    level,
                    precision,
                    rows.chunks_exact(inputs.max(1)),
                    (to, width),
                )
            })
            .collect();
        let (mut scales, mut corrections) = (Vec::new(), Vec::new());
        if precision.is_whole() {
            scales = vec![0.0; panels * width];
            corrections = vec![0.0; panels * width];
            for (i, (step, sum)) in steps.iter().flatten().enumerate() {
                scales[i] = *step;
                corrections[i] = level.shift * *sum as f32 * step;
            }
        }
        let mut padded = vec![0.0; panels * width];
        if let Some(bias) = bias {
            padded[..outputs].copy_from_slice(bias);
        }
        Self {
            precision,
            inputs,
            outputs,
            words,
            panels,
            data,
            bias: padded,
            scales,
            corrections,
            kernel: match precision {
                Precision::F32 => level.f32,
                Precision::Bf16 => level.bf16,
                Precision::Int16 => level.int16,
                Precision::Int8 => level.int8,
            },
        }
    }

    /// Of weights `[inputs, outputs]` in place of `[outputs, inputs]`, each row of elements filled up to
    /// whole words.
    pub(crate) fn turned<E: Element>(level: &Level, weights: &[E], outputs: usize) -> Self {
        let weights = whole(weights, outputs);
        let width = level.panel();
        let panels = outputs.div_ceil(width);
        let mut data = Buffer::new(0);
        weights.panels(width, &mut data);
        Self {
            precision: E::PRECISION,
            inputs: weights.rows,
            outputs,
            words: E::PRECISION.words(weights.rows),
            panels,
            data,
            bias: vec![0.0; panels * width],
            scales: Vec::new(),
            corrections: Vec::new(),
            kernel: E::kernels(level)[0],
        }
    }

    /// How rows and weights are stored.
    pub(super) fn precision(&self) -> Precision {
        self.precision
    }

    /// Number of inputs.
    pub(crate) fn inputs(&self) -> usize {
        self.inputs
    }

    /// Number of outputs.
    pub(crate) fn outputs(&self) -> usize {
        self.outputs
    }

    /// Number of panels.
    pub(super) fn panels(&self) -> usize {
        self.panels
    }

    /// Bytes of memory.
    pub(super) fn bytes(&self) -> usize {
        self.data.bytes() + 4 * (self.bias.len() + 2 * self.scales.len())
    }

    /// The product with rows of this precision, `row_stride` bytes apart; `scales` are the steps of
    /// rows of whole numbers. Bias and scales of `finish` are filled in.
    pub(super) fn product(
        &self,
        (rows, row_stride): (*const u8, usize),
        scales: *const f32,
        mut finish: Finish,
    ) -> Product {
        finish.bias = self.bias.as_ptr();
        if self.precision.is_whole() {
            finish.columns = (self.scales.as_ptr(), self.corrections.as_ptr());
            finish.rows = scales;
        }
        Product {
            rows,
            row_stride,
            words: self.words,
            segments: WHOLE,
            panels: self.data.as_ptr(),
            columns: self.outputs,
            finish,
        }
    }

    /// Computes some rows and panels of a product of this map.
    ///
    /// # Safety
    /// As for the kernels: the pointers of `product` are valid for the rows, in this precision.
    pub(super) unsafe fn run(&self, product: &Product, rows: Range<usize>, panels: Range<usize>) {
        unsafe { (self.kernel)(product, rows, panels) }
    }

    /// Computes the first `rows` rows of a product of this map, its panels over the team. The
    /// pointers of `product` are valid for them, in this precision.
    pub(super) fn run_in(&self, team: Team, product: &Product, rows: usize) {
        let task = Task(product);
        let tasks = if team.threads > 1 {
            self.panels.min(TASKS_PER_THREAD * team.threads)
        } else {
            1
        };
        let ranges: Vec<Range<usize>> = split(0..self.panels, tasks).collect();
        team.each(tasks, |i| {
            // SAFETY: as the caller says; the tasks write different columns.
            unsafe { self.run(task.get(), 0..rows, ranges[i].clone()) }
        });
    }
}

/// Writes rows of weights into a panel, `[word][width]`; for whole numbers, returns the step of each row, and for
/// bytes their sum.
fn fill<'a>(
    level: &Level,
    precision: Precision,
    rows: impl Iterator<Item = &'a [f32]>,
    (to, width): (&mut [u32], usize),
) -> Vec<(f32, i32)> {
    let words = to.len() / width;
    let mut steps = Vec::new();
    let mut four: [Vec<u32>; SQUARE] = std::array::from_fn(|_| vec![0; words]);
    let mut turn = |lane: usize, rows: &[Vec<u32>; SQUARE]| {
        wide(
            #[inline(always)]
            || {
                let [a, b, c, d] = rows.each_ref().map(Vec::as_slice);
                let words = a.iter().zip(b).zip(c).zip(d);
                for (to, (((a, b), c), d)) in to.chunks_exact_mut(width).zip(words) {
                    to[lane..lane + SQUARE].copy_from_slice(&[*a, *b, *c, *d]);
                }
            },
        );
    };
    let mut lane = 0;
    for row in rows {
        let to = &mut four[lane % SQUARE];
        match precision {
            Precision::F32 => {
                for (to, x) in to.iter_mut().zip(row) {
                    *to = x.to_bits();
                }
            }
            // SAFETY: the level runs here, and the words have room for the row.
            Precision::Bf16 => unsafe {
                (level.narrow_bf16)(row.as_ptr(), row.len(), to.as_mut_ptr().cast());
            },
            Precision::Int16 => steps.push((halves_of(row, to), 0)),
            Precision::Int8 => steps.push(bytes_of(row, level.byte_pairs, to)),
        }
        lane += 1;
        if lane % SQUARE == 0 {
            turn(lane - SQUARE, &four);
        }
    }
    let rest = lane % SQUARE;
    if rest > 0 {
        for empty in &mut four[rest..] {
            empty.fill(0);
        }
        turn(lane - rest, &four);
    }
    steps
}

/// The largest magnitude in a row, or of the sum of those of one sign in a pair; [`LEAST`] at least.
#[inline(always)]
fn largest_of(row: &[f32], in_pairs: bool) -> f32 {
    // Magnitudes order as their bits do, and whole numbers need not be compared one by one.
    let magnitude = |x: f32| x.to_bits() & 0x7fff_ffff;
    let single = row.iter().fold(0, |most, x| magnitude(*x).max(most));
    let mut largest = single;
    if in_pairs {
        for [a, b] in row.as_chunks().0 {
            // Of two signs it is less than one of them.
            largest = largest.max(magnitude(a + b));
        }
    }
    f32::from_bits(largest).max(LEAST)
}

/// The whole number nearest to `x` of magnitude up to `most`, ties to even, in the low bits.
#[inline(always)]
fn nearest(x: f32, most: f32) -> u32 {
    /// Floats of this size have no fraction: what is added to it is rounded, and stands in its last bits.
    const WHOLE_NUMBERS: f32 = 12_582_912.0;
    (x.clamp(-most, most) + WHOLE_NUMBERS).to_bits()
}

/// Writes a row as 16-bit numbers of one step, two to a word; returns the step.
fn halves_of(row: &[f32], to: &mut [u32]) -> f32 {
    wide(
        #[inline(always)]
        || {
            let most = largest_half(row.len());
            let scale = largest_of(row, false) / most;
            let step = 1.0 / scale;
            let half = |x: f32| nearest(x * step, most) & 0xffff;
            let (pairs, rest) = row.as_chunks::<2>();
            for (to, [a, b]) in to.iter_mut().zip(pairs) {
                *to = half(*a) | half(*b) << 16;
            }
            if let [last] = rest {
                to[pairs.len()] = half(*last);
            }
            scale
        },
    )
}

/// Writes a row as bytes of one step, four to a word; returns the step and the sum of the bytes.
/// With `in_pairs` they are small enough for [`Level::byte_pairs`]: each of a pair is rounded
/// to at most one half more.
fn bytes_of(row: &[f32], in_pairs: bool, to: &mut [u32]) -> (f32, i32) {
    wide(
        #[inline(always)]
        || {
            let scale = largest_of(row, in_pairs) / LARGEST;
            let step = 1.0 / scale;
            let byte = |x: f32| nearest(x * step, LARGEST) as i8;
            let mut sum = 0;
            let (fours, rest) = row.as_chunks::<4>();
            for (to, four) in to.iter_mut().zip(fours) {
                let bytes = four.map(byte);
                sum += bytes.map(i32::from).iter().sum::<i32>();
                *to = u32::from_le_bytes(bytes.map(i8::cast_unsigned));
            }
            if !rest.is_empty() {
                let mut bytes = [0; 4];
                for (to, x) in bytes.iter_mut().zip(rest) {
                    *to = byte(*x);
                }
                sum += bytes.map(i32::from).iter().sum::<i32>();
                to[fours.len()] = u32::from_le_bytes(bytes.map(i8::cast_unsigned));
            }
            (scale, sum)
        },
    )
}

/// A product that tasks share: each writes columns of its own.
struct Task<'a>(&'a Product);

// SAFETY: its pointers are read, or written in disjoint columns.
unsafe impl Sync for Task<'_> {}

impl Task<'_> {
    fn get(&self) -> &Product {
        self.0
    }
}
