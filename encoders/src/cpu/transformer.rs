//! The pre-norm transformer on packed weights.

use kernels::{Activation, Level, Precision};
use parking_lot::Mutex;

use super::{
    Team,
    attention::Attention,
    buffer::{Buffer, Shared},
    packed::Packed,
    pass::{Pass, Sequence},
    workspace::{Strides, Workspace, stride},
};

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
    pub(super) unsafe fn apply(&self, level: &Level, x: *const f32, to: *mut f32) {
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

pub(super) struct Block {
    pub norm1: Norm,
    pub qkv: Packed,
    pub out: Packed,
    pub norm2: Norm,
    pub fc1: Packed,
    pub fc2: Packed,
}

/// A stack of blocks.
pub(crate) struct Transformer {
    pub(super) level: &'static Level,
    pub(super) precision: Precision,
    pub(super) shape: Shape,
    pub(super) attention: Attention,
    pub(super) blocks: Vec<Block>,
}

impl Transformer {
    /// Without blocks yet.
    pub(crate) fn new(level: &'static Level, precision: Precision, shape: Shape) -> Self {
        let head = (shape.heads, shape.width / shape.heads);
        Self {
            level,
            precision,
            shape,
            attention: Attention::new(level, level.at_least_bf16(precision), head, shape.causal),
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
        let joined = (3 * width * self.attention.element()).div_ceil(4);
        let hidden = match self.precision {
            Precision::F32 | Precision::Int16 | Precision::Int8 => mlp_width,
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
