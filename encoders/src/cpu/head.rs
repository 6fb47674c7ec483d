//! The attention that pools: one learned query looks at all tokens.
//!
//! The query is the same for every picture. So its product with the keys is a product of the tokens
//! with `W_k^T q`, one column per head, and as attention is linear in the values, the tokens are
//! mixed first and projected after: exact, and no token is mapped to keys or values.

use candle_core::Result;
use kernels::{Activation, Finish, Level, Precision};

use super::{Plan, Team, load::norm, packed::Packed, transformer::Norm};
use crate::nn::{layers::Linear, ops::Elements, transformer::AttentionHead};

pub(super) struct PoolingHead {
    width: usize,
    heads: usize,
    /// `[heads, width]`: tokens to the logits of each head, scaled.
    looks: Packed,
    /// Per head `[width / heads, width]`: mixed tokens to values.
    values: Vec<Packed>,
    out: Packed,
    norm: Norm,
    fc1: Packed,
    fc2: Packed,
    activation: Activation,
}

impl PoolingHead {
    pub(super) fn new(
        plan: Plan,
        head: &AttentionHead,
        heads: usize,
        activation: Activation,
    ) -> Result<Self> {
        let width = head.q.weight().dim(0)?;
        let size = width / heads;
        let query = head.q.forward(&head.probe)?.reshape((heads, 1, size))?;
        let keys = head.k.weight().reshape((heads, size, width))?;
        // The bias of the keys adds the same to every logit of a head: softmax does not see it.
        let looks = (query.matmul(&keys)? * (size as f64).powf(-0.5))?.reshape((heads, width))?;
        // Half the bytes of weights: it is their reading that takes time here.
        let precision = match plan.precision {
            Precision::F32 => Precision::F32,
            Precision::Int16 | Precision::Bf16 | Precision::Int8 => Precision::Bf16,
        };
        let values = (0..heads).map(|i| {
            let part = |x: &candle_core::Tensor| x.narrow(0, i * size, size)?.contiguous();
            let bias = head.v.bias().map(part).transpose()?;
            let linear = Linear::from_tensors(part(head.v.weight())?, bias);
            plan.pack_as(Precision::F32, &linear)
        });
        Ok(Self {
            width,
            heads,
            looks: {
                let looks = looks.contiguous()?;
                let looks = Elements::of(&looks);
                Packed::new(plan.level, Precision::F32, (looks.slice()?, width), None)
            },
            values: values.collect::<Result<_>>()?,
            out: plan.pack_as(Precision::F32, &head.out)?,
            norm: norm(&head.norm)?,
            fc1: plan.pack_as(precision, &head.mlp.fc1)?,
            fc2: plan.pack_as(precision, &head.mlp.fc2)?,
            activation,
        })
    }

    pub(super) fn bytes(&self) -> usize {
        let values: usize = self.values.iter().map(Packed::bytes).sum();
        let [a, b, c, d] = [&self.looks, &self.out, &self.fc1, &self.fc2].map(Packed::bytes);
        values + a + b + c + d
    }

    /// Normalized tokens `[t, width]` of each picture to a row each, `[n, width]`: the maps that see one row of
    /// a picture are read once for all of them.
    pub(super) fn pool(&self, level: &Level, team: Team, pictures: &[Vec<f32>]) -> Vec<f32> {
        let (width, heads, n) = (self.width, self.heads, pictures.len());
        let size = width / heads;
        // `[heads][n][width]`.
        let mut mixed = vec![0.0; heads * n * width];
        for (i, tokens) in pictures.iter().enumerate() {
            let count = tokens.len() / width;
            // `[t, heads]` to weights `[heads][t]`.
            let logits = self.looks.apply(level, team, tokens, None);
            for (head, mixed) in mixed.chunks_exact_mut(n * width).enumerate() {
                let mixed = &mut mixed[i * width..][..width];
                let mut weights: Vec<f32> = (0..count).map(|t| logits[t * heads + head]).collect();
                let inverse = level.softmax(&mut weights);
                super::wide(|| {
                    for (token, weight) in tokens.chunks_exact(width).zip(&weights) {
                        let weight = weight * inverse;
                        for (sum, x) in mixed.iter_mut().zip(token) {
                            *sum += weight * x;
                        }
                    }
                });
            }
        }
        let mut values = vec![0.0; n * width];
        for (head, (map, mixed)) in self
            .values
            .iter()
            .zip(mixed.chunks_exact(n * width))
            .enumerate()
        {
            let of_head = map.apply(level, team, mixed, None);
            for (to, from) in values
                .chunks_exact_mut(width)
                .zip(of_head.chunks_exact(size))
            {
                to[head * size..][..size].copy_from_slice(from);
            }
        }
        let mut x = self.out.apply(level, team, &values, None);
        let mut normed = vec![0.0; n * width];
        for (x, normed) in x.chunks_exact(width).zip(normed.chunks_exact_mut(width)) {
            self.norm.of(level, x, normed);
        }
        let hidden = self.fc1.apply(level, team, &normed, Some(self.activation));
        let y = self.fc2.apply(level, team, &hidden, None);
        for (x, y) in x.iter_mut().zip(&y) {
            *x += y;
        }
        x
    }
}

impl Packed {
    /// Rows `[n, inputs]` of f32 to `[n, outputs]`, the columns over the team.
    pub(super) fn apply(
        &self,
        level: &Level,
        team: Team,
        rows: &[f32],
        activation: Option<Activation>,
    ) -> Vec<f32> {
        let inputs = self.inputs();
        let count = rows.len() / inputs.max(1);
        let narrow = level.narrow(self.precision(), rows, inputs);
        let (from, stride, steps) = narrow.as_ref().map_or(
            (rows.as_ptr().cast(), 4 * inputs, std::ptr::null()),
            |narrow| (narrow.bytes.as_ptr(), narrow.stride, narrow.steps.as_ptr()),
        );
        let mut out = vec![0.0_f32; count * self.outputs()];
        let finish = Finish {
            activation,
            ..Finish::plain(out.as_mut_ptr().cast(), 4 * self.outputs())
        };
        let product = self.product((from, stride), steps, finish);
        // The rows are in the precision of the map, and `out` has as many rows.
        self.run_in(team, &product, count);
        out
    }
}
