//! One pass through the blocks of a transformer: what happens to its rows, step by step.

use std::ops::Range;

use kernels::{BLOCK_TILES, Finish, Precision, split};
use parking_lot::Mutex;

use super::{
    Team,
    attention::{Head, Scratch},
    buffer::Shared,
    packed::Packed,
    transformer::{Block, Norm, Transformer},
    workspace::Strides,
};

/// Rows that one task normalizes and narrows.
const ROWS_PER_TASK: usize = 16;

/// Where one sequence lies.
pub(super) struct Sequence {
    pub first: usize,
    pub tokens: usize,
    pub queries: (usize, usize),
    /// Row of its first output.
    pub out: usize,
}

/// One pass through the blocks. Every method keeps to the first `rows` rows, whose tasks are
/// disjoint: that is why the pointers may be shared.
pub(super) struct Pass<'a> {
    pub transformer: &'a Transformer,
    pub team: Team,
    pub x: Shared,
    pub narrow: Shared,
    pub joined: Shared,
    pub hidden: Shared,
    pub steps: Shared,
    pub scratches: &'a Mutex<Vec<Scratch>>,
    pub strides: Strides,
}

impl Pass<'_> {
    fn step(&self, row: usize) -> *mut f32 {
        self.steps.at(4 * row).cast()
    }

    fn each_row(&self, rows: Range<usize>, f: impl Fn(usize) + Sync) {
        let tasks = if self.team.threads > 1 {
            rows.len().div_ceil(ROWS_PER_TASK)
        } else {
            1
        };
        let ranges: Vec<Range<usize>> = split(rows, tasks).collect();
        self.team
            .each(tasks, |task| ranges[task].clone().for_each(&f));
    }

    /// Narrows a row of `n` floats in place.
    unsafe fn narrow_in_place(&self, row: usize, x: *mut f32, n: usize) {
        let precision = self.transformer.precision;
        if precision == Precision::F32 {
            return;
        }
        unsafe {
            let level = self.transformer.level;
            *self.step(row) = level.narrow_row(precision, x, n, x.cast());
        }
    }

    /// Normalized tokens, narrow.
    pub(super) fn norm_narrow(&self, norm: &Norm, rows: usize) {
        self.each_row(0..rows, |row| {
            let x = self.x.at(row * self.strides.x).cast();
            let to = self.narrow.at(row * self.strides.x).cast();
            // SAFETY: each task has rows of its own.
            unsafe {
                norm.apply(self.transformer.level, x, to);
                self.narrow_in_place(row, to, self.transformer.shape.width);
            }
        });
    }

    /// One linear map, its panels over the team.
    fn linear(
        &self,
        packed: &Packed,
        (from, stride): (*const u8, usize),
        rows: Range<usize>,
        finish: Finish,
    ) {
        let product = packed.product((from, stride), self.step(rows.start), finish);
        packed.run_in(self.team, &product, rows.len());
    }

    /// Queries, keys and values.
    pub(super) fn join(&self, block: &Block, rows: usize) {
        let finish = Finish {
            bf16: self.transformer.attention.element() == 2,
            ..Finish::plain(self.joined.at(0), self.strides.joined)
        };
        self.linear(
            &block.qkv,
            (self.narrow.at(0), self.strides.x),
            0..rows,
            finish,
        );
    }

    /// Attention, narrow.
    pub(super) fn attend(&self, sequences: &[Sequence], rows: usize) {
        let t = self.transformer;
        let heads = t.shape.heads;
        let bf16 = t.precision == Precision::Bf16;
        self.team.each(sequences.len() * heads, |task| {
            let (sequence, head) = (&sequences[task / heads], task % heads);
            let head = Head {
                rows: self.joined.at(sequence.first * self.strides.joined),
                row_stride: self.strides.joined,
                number: head,
                tokens: sequence.tokens,
                queries: sequence.queries,
                out: self.narrow.at(sequence.out * self.strides.x),
                out_stride: self.strides.x,
                out_bf16: bf16,
            };
            let scratch = self.scratches.lock().pop();
            let mut scratch = scratch.unwrap_or_else(Scratch::new);
            // SAFETY: the rows are those of the sequence; each task writes the columns of its head.
            unsafe { t.attention.run(&head, &mut scratch) };
            self.scratches.lock().push(scratch);
        });
        if t.precision.is_whole() {
            self.each_row(0..rows, |row| {
                let x = self.narrow.at(row * self.strides.x).cast();
                // SAFETY: each task has rows of its own.
                unsafe { self.narrow_in_place(row, x, t.shape.width) };
            });
        }
    }

    /// Adds the output of attention to the tokens.
    pub(super) fn add_out(&self, block: &Block, rows: usize) {
        let finish = Finish {
            residual: true,
            ..Finish::plain(self.x.at(0), self.strides.x)
        };
        self.linear(
            &block.out,
            (self.narrow.at(0), self.strides.x),
            0..rows,
            finish,
        );
    }

    /// Adds the output of the MLP to the tokens, some rows after another: what lies between its two maps
    /// stays in the caches.
    pub(super) fn mlp(&self, block: &Block, rows: usize) {
        let t = self.transformer;
        let (x, hidden) = (self.strides.x, self.strides.hidden);
        let blocks = rows.div_ceil(BLOCK_TILES * t.level.tile_rows * self.team.threads);
        for rows in split(0..rows, blocks) {
            let finish = Finish {
                activation: Some(t.shape.activation),
                bf16: t.precision == Precision::Bf16,
                ..Finish::plain(self.hidden.at(0), hidden)
            };
            let from = self.narrow.at(rows.start * x);
            self.linear(&block.fc1, (from, x), rows.clone(), finish);
            if t.precision.is_whole() {
                self.each_row(rows.clone(), |row| {
                    let values = self.hidden.at((row - rows.start) * hidden).cast();
                    // SAFETY: each task has rows of its own.
                    unsafe { self.narrow_in_place(row, values, t.shape.mlp_width) };
                });
            }
            let finish = Finish {
                residual: true,
                ..Finish::plain(self.x.at(rows.start * x), x)
            };
            self.linear(&block.fc2, (self.hidden.at(0), hidden), rows, finish);
        }
    }
}
