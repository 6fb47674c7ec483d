//! The pre-norm transformer on packed weights.

use std::ops::Range;

use parking_lot::Mutex;

use super::{
    Level, Precision, Team,
    attention::{Attention, Head, Scratch},
    buffer::{Buffer, Shared},
    matmul::{Finish, split},
    packed::Packed,
};
use crate::nn::Activation;

/// Rows that one task normalizes and narrows.
const ROWS_PER_TASK: usize = 16;

/// A weight, row-major, and a bias.
pub(crate) type Affine<'a> = (&'a [f32], &'a [f32]);

/// The weights of one block, as [`crate::nn`] defines it.
pub(crate) struct BlockWeights<'a> {
    /// Normalization before attention.
    pub norm1: Affine<'a>,
    /// Queries, keys and values joined, `[3 width, width]`.
    pub qkv: Affine<'a>,
    /// `[width, width]`.
    pub out: Affine<'a>,
    /// Normalization before the MLP.
    pub norm2: Affine<'a>,
    /// `[mlp_width, width]`.
    pub fc1: Affine<'a>,
    /// `[width, mlp_width]`.
    pub fc2: Affine<'a>,
}

/// What all blocks share.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    /// Elements per token.
    pub width: usize,
    /// Elements between the two layers of an MLP.
    pub mlp_width: usize,
    /// Attention heads; they divide `width`.
    pub heads: usize,
    /// Activation of the MLPs.
    pub activation: Activation,
    /// Added to variances.
    pub eps: f32,
    /// Whether a token sees only those before it and itself.
    pub causal: bool,
}

/// Scale and shift of a layer normalization.
pub(super) struct Norm {
    weight: Vec<f32>,
    bias: Vec<f32>,
    eps: f32,
}

impl Norm {
    pub(super) fn new((weight, bias): Affine<'_>, eps: f32) -> Self {
        Self {
            weight: weight.to_vec(),
            bias: bias.to_vec(),
            eps,
        }
    }

    /// # Safety
    /// `x` and `to`, which may be the same, have as many elements as the weight.
    unsafe fn apply(&self, level: &Level, x: *const f32, to: *mut f32) {
        let parameters = (self.weight.as_ptr(), self.bias.as_ptr(), self.eps);
        unsafe { (level.layer_norm)(x, self.weight.len(), parameters, to) }
    }

    /// Writes the normalized `x` to `to`.
    pub(super) fn of(&self, level: &Level, x: &[f32], to: &mut [f32]) {
        assert!(x.len() == self.weight.len() && to.len() == x.len());
        // SAFETY: all have the same length.
        unsafe { self.apply(level, x.as_ptr(), to.as_mut_ptr()) }
    }

    /// Normalizes `x`.
    pub(super) fn in_place(&self, level: &Level, x: &mut [f32]) {
        assert_eq!(x.len(), self.weight.len());
        // SAFETY: both have the same length.
        unsafe { self.apply(level, x.as_ptr(), x.as_mut_ptr()) }
    }
}

struct Block {
    norm1: Norm,
    qkv: Packed,
    out: Packed,
    norm2: Norm,
    fc1: Packed,
    fc2: Packed,
}

/// A stack of blocks.
pub(crate) struct Transformer {
    level: &'static Level,
    precision: Precision,
    shape: Shape,
    attention: Attention,
    blocks: Vec<Block>,
}

/// The rows of one pass, and everything that is computed from them. Reused, so that no pass
/// allocates.
pub(crate) struct Workspace {
    /// Tokens, `[rows, width]` of f32.
    x: Buffer,
    /// Narrow rows, inputs of the products; also outputs of attention. Rows begin where those of f32
    /// would, so that they can be narrowed in place.
    narrow: Buffer,
    joined: Buffer,
    hidden: Buffer,
    /// Patches of a picture, before they are tokens.
    patches: Buffer,
    /// Steps of narrow rows of bytes.
    steps: Vec<f32>,
    scratches: Mutex<Vec<Scratch>>,
    strides: Strides,
    width: usize,
}

/// Bytes from a row to the next.
#[derive(Clone, Copy)]
struct Strides {
    x: usize,
    joined: usize,
    hidden: usize,
}

/// A line more than the elements take, so that rows do not all fall into the same cache sets.
fn stride(elements: usize) -> usize {
    (4 * elements).next_multiple_of(64) + 64
}

impl Workspace {
    /// The first element of a row of tokens.
    pub(super) fn row(&mut self, row: usize) -> *mut f32 {
        self.x
            .as_mut_ptr()
            .wrapping_add(row * self.strides.x)
            .cast()
    }

    /// One row of tokens, `[width]`.
    ///
    /// # Panics
    /// When there are fewer.
    pub(super) fn token(&mut self, row: usize) -> &mut [f32] {
        assert!(
            (row + 1) * self.strides.x <= self.x.bytes(),
            "a row beyond the last"
        );
        // SAFETY: the row lies inside, and no other reference to it lives.
        unsafe { std::slice::from_raw_parts_mut(self.row(row), self.width) }
    }

    /// At least as many bytes for patches.
    pub(super) fn patches(&mut self, bytes: usize) -> &mut Buffer {
        self.patches.reserve(bytes);
        &mut self.patches
    }

    /// Bytes from a row of tokens to the next.
    pub(super) fn row_stride(&self) -> usize {
        self.strides.x
    }
}

impl Transformer {
    /// Without blocks yet.
    pub(crate) fn new(level: &'static Level, precision: Precision, shape: Shape) -> Self {
        let head = (shape.heads, shape.width / shape.heads);
        Self {
            level,
            precision,
            shape,
            attention: Attention::new(level, precision, head, shape.causal),
            blocks: Vec::new(),
        }
    }

    /// Packs one more block.
    pub(crate) fn push(&mut self, weights: &BlockWeights<'_>) {
        let Shape {
            width,
            mlp_width,
            eps,
            ..
        } = self.shape;
        let pack = |(weight, bias): Affine<'_>, inputs| {
            Packed::new(self.level, self.precision, (weight, inputs), Some(bias))
        };
        self.blocks.push(Block {
            norm1: Norm::new(weights.norm1, eps),
            qkv: pack(weights.qkv, width),
            out: pack(weights.out, width),
            norm2: Norm::new(weights.norm2, eps),
            fc1: pack(weights.fc1, width),
            fc2: pack(weights.fc2, mlp_width),
        });
    }

    /// Bytes of packed weights.
    pub(crate) fn bytes(&self) -> usize {
        let of = |b: &Block| b.qkv.bytes() + b.out.bytes() + b.fc1.bytes() + b.fc2.bytes();
        self.blocks.iter().map(of).sum()
    }

    /// Memory for passes of up to `rows` tokens.
    pub(super) fn workspace(&self, rows: usize) -> Workspace {
        let Shape {
            width, mlp_width, ..
        } = self.shape;
        let joined = match self.precision {
            Precision::F32 => 3 * width,
            Precision::Bf16 | Precision::Int8 => (3 * width).div_ceil(2),
        };
        let hidden = match self.precision {
            Precision::F32 | Precision::Int8 => mlp_width,
            Precision::Bf16 => mlp_width.div_ceil(2),
        };
        let strides = Strides {
            x: stride(width),
            joined: stride(joined),
            hidden: stride(hidden),
        };
        Workspace {
            x: Buffer::new(rows * strides.x),
            narrow: Buffer::new(rows * strides.x),
            joined: Buffer::new(rows * strides.joined),
            hidden: Buffer::new(rows * strides.hidden),
            patches: Buffer::new(0),
            steps: vec![0.0; rows],
            scratches: Mutex::new(Vec::new()),
            strides,
            width,
        }
    }

    /// Runs the sequences that lie in the rows of `workspace` one after another, `lengths` tokens
    /// each. Where `pooled` names a token of each, only these come out, in the first rows.
    ///
    /// # Panics
    /// When the workspace is too small, or `pooled` names a token that a sequence does not have.
    pub(crate) fn run(
        &self,
        workspace: &mut Workspace,
        lengths: &[usize],
        pooled: Option<&[usize]>,
        team: Team,
    ) {
        let rows: usize = lengths.iter().sum();
        assert!(
            rows * workspace.strides.x <= workspace.x.bytes(),
            "too many rows"
        );
        if let Some(pooled) = pooled {
            assert_eq!(pooled.len(), lengths.len(), "one token of each sequence");
            let inside = pooled
                .iter()
                .zip(lengths)
                .all(|(token, length)| token < length);
            assert!(inside, "a pooled token is outside of its sequence");
        }
        let mut sequences = Vec::with_capacity(lengths.len());
        let mut first = 0;
        for (i, tokens) in lengths.iter().enumerate() {
            sequences.push(Sequence {
                first,
                tokens: *tokens,
                queries: (0, *tokens),
                out: first,
            });
            first += tokens;
            if self.blocks.is_empty() && pooled.is_some() {
                // Nothing below would move the pooled rows.
                let token = pooled.map_or(0, |p| p[i]);
                let from = workspace.row(sequences[i].first + token);
                let to = workspace.row(i);
                // SAFETY: both rows are inside, as was asserted.
                unsafe { std::ptr::copy(from, to, self.shape.width) };
            }
        }
        let pass = Pass {
            transformer: self,
            team,
            x: Shared(workspace.x.as_mut_ptr()),
            narrow: Shared(workspace.narrow.as_mut_ptr()),
            joined: Shared(workspace.joined.as_mut_ptr()),
            hidden: Shared(workspace.hidden.as_mut_ptr()),
            steps: Shared(workspace.steps.as_mut_ptr().cast()),
            scratches: &workspace.scratches,
            strides: workspace.strides,
        };
        let mut left = rows;
        for (i, block) in self.blocks.iter().enumerate() {
            pass.norm_narrow(&block.norm1, left);
            pass.join(block, left);
            if let Some(pooled) = pooled
                && i + 1 == self.blocks.len()
            {
                // Only the pooled tokens go on, exactly as if all had.
                for (at, (sequence, token)) in sequences.iter_mut().zip(pooled).enumerate() {
                    sequence.queries = (*token, 1);
                    sequence.out = at;
                    let from = pass.x.at((sequence.first + token) * pass.strides.x);
                    let to = pass.x.at(at * pass.strides.x);
                    // SAFETY: both rows are inside; row `at` was read before, or is the same.
                    unsafe { std::ptr::copy(from, to, 4 * self.shape.width) };
                }
                left = sequences.len();
            }
            pass.attend(&sequences, left);
            pass.add_out(block, left);
            pass.norm_narrow(&block.norm2, left);
            pass.mlp(block, left);
        }
    }
}

/// Where one sequence lies.
struct Sequence {
    first: usize,
    tokens: usize,
    queries: (usize, usize),
    /// Row of its first output.
    out: usize,
}

/// One pass through the blocks. Every method keeps to the first `rows` rows, whose tasks are
/// disjoint: that is why the pointers may be shared.
struct Pass<'a> {
    transformer: &'a Transformer,
    team: Team,
    x: Shared,
    narrow: Shared,
    joined: Shared,
    hidden: Shared,
    steps: Shared,
    scratches: &'a Mutex<Vec<Scratch>>,
    strides: Strides,
}

impl Pass<'_> {
    fn step(&self, row: usize) -> *mut f32 {
        self.steps.at(4 * row).cast()
    }

    fn each_row(&self, rows: usize, f: impl Fn(usize) + Sync) {
        let tasks = if self.team.threads > 1 {
            rows.div_ceil(ROWS_PER_TASK)
        } else {
            1
        };
        let ranges: Vec<Range<usize>> = split(0..rows, tasks).collect();
        self.team
            .each(tasks, |task| ranges[task].clone().for_each(&f));
    }

    /// Narrows a row of `n` floats in place.
    unsafe fn narrow_in_place(&self, row: usize, x: *mut f32, n: usize) {
        let level = self.transformer.level;
        unsafe {
            match self.transformer.precision {
                Precision::F32 => {}
                Precision::Bf16 => {
                    let to = x.cast::<u16>();
                    (level.narrow_bf16)(x, n, to);
                    if n % 2 == 1 {
                        to.add(n).write(0);
                    }
                }
                Precision::Int8 => *self.step(row) = (level.narrow_bytes)(x, n, x.cast()),
            }
        }
    }

    /// Normalized tokens, narrow.
    fn norm_narrow(&self, norm: &Norm, rows: usize) {
        self.each_row(rows, |row| {
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
        (from, stride): (Shared, usize),
        rows: usize,
        finish: Finish,
    ) {
        let product = packed.product((from.at(0), stride), self.step(0), finish);
        packed.run_in(self.team, &product, rows);
    }

    /// Queries, keys and values.
    fn join(&self, block: &Block, rows: usize) {
        let finish = Finish {
            bf16: self.transformer.precision != Precision::F32,
            ..Finish::plain(self.joined.at(0), self.strides.joined)
        };
        self.linear(&block.qkv, (self.narrow, self.strides.x), rows, finish);
    }

    /// Attention, narrow.
    fn attend(&self, sequences: &[Sequence], rows: usize) {
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
        if t.precision == Precision::Int8 {
            self.each_row(rows, |row| {
                let x = self.narrow.at(row * self.strides.x).cast();
                // SAFETY: each task has rows of its own.
                unsafe { self.narrow_in_place(row, x, t.shape.width) };
            });
        }
    }

    /// Adds the output of attention to the tokens.
    fn add_out(&self, block: &Block, rows: usize) {
        let finish = Finish {
            residual: true,
            ..Finish::plain(self.x.at(0), self.strides.x)
        };
        self.linear(&block.out, (self.narrow, self.strides.x), rows, finish);
    }

    /// Adds the output of the MLP to the tokens.
    fn mlp(&self, block: &Block, rows: usize) {
        let t = self.transformer;
        let finish = Finish {
            activation: Some(t.shape.activation),
            bf16: t.precision == Precision::Bf16,
            ..Finish::plain(self.hidden.at(0), self.strides.hidden)
        };
        self.linear(&block.fc1, (self.narrow, self.strides.x), rows, finish);
        if t.precision == Precision::Int8 {
            self.each_row(rows, |row| {
                let x = self.hidden.at(row * self.strides.hidden).cast();
                // SAFETY: each task has rows of its own.
                unsafe { self.narrow_in_place(row, x, t.shape.mlp_width) };
            });
        }
        let finish = Finish {
            residual: true,
            ..Finish::plain(self.x.at(0), self.strides.x)
        };
        self.linear(&block.fc2, (self.hidden, self.strides.hidden), rows, finish);
    }
}
