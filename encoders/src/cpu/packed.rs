//! The weights of a linear map, packed once for the kernels.

use std::ops::Range;

use half::bf16;
use rayon::prelude::*;

use super::{
    Precision, Team,
    buffer::{Buffer, Shared},
    dense::{Element, whole},
    level::Level,
    matmul::{Finish, MatMul, Product, WHOLE, split},
};

/// The largest magnitude of a weight as a byte.
const LARGEST: f32 = 127.0;

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
    /// Per output: the step of its bytes, and what the shift of the rows adds to each sum.
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
        let (mut scales, mut corrections) = (Vec::new(), Vec::new());
        if precision == Precision::Int8 {
            scales = vec![0.0; panels * width];
            corrections = vec![0.0; panels * width];
            for (row, scale) in weights.chunks_exact(inputs).zip(&mut scales) {
                let largest = row.iter().fold(0.0_f32, |m, x| m.max(x.abs()));
                *scale = largest.max(f32::MIN_POSITIVE) / LARGEST;
            }
        }
        let start = Shared(data.as_mut_ptr());
        let steps = &scales;
        let sums: Vec<Vec<f32>> = (0..panels)
            .into_par_iter()
            .map(|panel| {
                let rows = panel * width..outputs.min((panel + 1) * width);
                let mut sums = Vec::new();
                for (lane, row) in rows.enumerate() {
                    let values = &weights[row * inputs..][..inputs];
                    // SAFETY: panels are disjoint, and this one has `words * width` words.
                    unsafe {
                        let to = start.at(panel * panel_bytes + 4 * lane);
                        match precision {
                            Precision::F32 => {
                                for (word, x) in values.iter().enumerate() {
                                    to.add(4 * width * word).cast::<f32>().write(*x);
                                }
                            }
                            Precision::Bf16 => {
                                for (word, pair) in values.chunks(2).enumerate() {
                                    let to = to.add(4 * width * word).cast::<[bf16; 2]>();
                                    let second = pair.get(1).copied().unwrap_or_default();
                                    to.write([bf16::from_f32(pair[0]), bf16::from_f32(second)]);
                                }
                            }
                            Precision::Int8 => {
                                let step = 1.0 / steps[row];
                                let mut sum = 0;
                                for (word, four) in values.chunks(4).enumerate() {
                                    let to = to.add(4 * width * word).cast::<i8>();
                                    for (i, x) in four.iter().enumerate() {
                                        let q = (x * step).round_ties_even();
                                        let q = q.clamp(-LARGEST, LARGEST) as i8;
                                        sum += i32::from(q);
                                        to.add(i).write(q);
                                    }
                                }
                                sums.push(level.shift * sum as f32 * steps[row]);
                            }
                        }
                    }
                }
                sums
            })
            .collect();
        for (correction, sum) in corrections.iter_mut().zip(sums.iter().flatten()) {
            *correction = *sum;
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
    /// rows of bytes. Bias and scales of `finish` are filled in.
    pub(super) fn product(
        &self,
        (rows, row_stride): (*const u8, usize),
        scales: *const f32,
        mut finish: Finish,
    ) -> Product {
        finish.bias = self.bias.as_ptr();
        if self.precision == Precision::Int8 {
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

/// A product that tasks share: each writes columns of its own.
struct Task<'a>(&'a Product);

// SAFETY: its pointers are read, or written in disjoint columns.
unsafe impl Sync for Task<'_> {}

impl Task<'_> {
    fn get(&self) -> &Product {
        self.0
    }
}
