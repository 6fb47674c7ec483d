//! The vision transformer on packed weights.

use candle_core::{Device, Result, Tensor};
use kernels::{Finish, Precision};

use super::{
    Plan, Team,
    buffer::Shared,
    head::PoolingHead,
    load::norm,
    packed::Packed,
    passes::Workspaces,
    project,
    transformer::{Norm, Transformer},
    workspace::Workspace,
};
use crate::{
    ModelError, Pixels,
    nn::{self, Source, VitConfig, ops::Elements, vit},
};

/// Pixels to pooled and projected rows; [`nn::VitTower`] says what it computes.
pub(crate) struct VitTower {
    plan: Plan,
    class: Option<Vec<f32>>,
    patches: Packed,
    /// For the grid that they were learned for, `[tokens, width]`.
    positions: Tensor,
    pre_norm: Option<Norm>,
    transformer: Transformer,
    post_norm: Norm,
    pool: Pool,
    projection: Option<Packed>,
    config: VitConfig,
    workspaces: Workspaces,
}

enum Pool {
    ClassToken,
    MeanThenNorm,
    NormThenMean,
    Attention(Box<PoolingHead>),
}

impl VitTower {
    /// Takes the tensors that [`nn::VitTower::new`] takes; also returns the shared projection,
    /// `[dim, width]`, where there is one.
    ///
    /// # Errors
    /// When one is missing or has another shape.
    pub(crate) fn new(
        source: &mut dyn Source,
        config: &VitConfig,
        dim: usize,
        plan: Plan,
    ) -> std::result::Result<(Self, Option<Tensor>), ModelError> {
        let parts = nn::VitTower::with(source, config, dim, nn::Form::Fused, |source, prefix| {
            plan.stack(source, prefix, &config.transformer, false)
        })?;
        let nn::TransformerConfig {
            heads, activation, ..
        } = config.transformer;
        let pool = match &parts.pool {
            vit::Pool::ClassToken => Pool::ClassToken,
            vit::Pool::MeanThenNorm => Pool::MeanThenNorm,
            vit::Pool::NormThenMean => Pool::NormThenMean,
            vit::Pool::AttentionHead(head) => {
                Pool::Attention(Box::new(PoolingHead::new(plan, head, heads, activation)?))
            }
        };
        let class = parts.class.as_ref();
        let projection = parts.projection.as_ref();
        let shared = projection.map(|linear| linear.weight().clone());
        let tower = Self {
            plan,
            class: class
                .map(|class| Ok::<_, candle_core::Error>(Elements::of(class).slice()?.to_vec()))
                .transpose()?,
            patches: plan.pack_as(plan.at_least_bf16(), &parts.patches)?,
            pre_norm: parts.pre_norm.as_ref().map(norm).transpose()?,
            post_norm: norm(&parts.post_norm)?,
            pool,
            projection: projection
                .map(|linear| plan.pack_as(Precision::F32, linear))
                .transpose()?,
            positions: parts.positions,
            transformer: parts.transformer,
            config: parts.config,
            workspaces: Workspaces::new(),
        };
        Ok((tower, shared))
    }

    /// Bytes of weights.
    pub(crate) fn bytes(&self) -> usize {
        let head = match &self.pool {
            Pool::Attention(head) => head.bytes(),
            _ => 0,
        };
        let projection = self.projection.as_ref().map_or(0, Packed::bytes);
        let positions = 4 * self.positions.elem_count();
        self.patches.bytes() + positions + self.transformer.bytes() + head + projection
    }

    /// Pooled outputs `[n, width]` of pictures of at least one patch each; they may differ in size.
    ///
    /// # Errors
    /// When a picture is smaller than a patch.
    pub(crate) fn pooled(&self, pictures: &[Pixels]) -> Result<Tensor> {
        let (p, width) = (self.config.patch_size, self.config.transformer.width);
        let first = usize::from(self.config.class_token);
        let mut grids = Vec::with_capacity(pictures.len());
        for pixels in pictures {
            let (rows, columns) = (pixels.height() / p, pixels.width() / p);
            if rows == 0 || columns == 0 {
                let (height, width) = (pixels.height(), pixels.width());
                candle_core::bail!("expected pixels of at least {p} x {p}, got {height} x {width}");
            }
            grids.push((rows, columns));
        }
        let mut positions: Vec<((usize, usize), Tensor)> = Vec::new();
        for grid in &grids {
            if !positions.iter().any(|(known, _)| known == grid) {
                let resized = vit::positions_for(&self.positions, &self.config, *grid)?;
                positions.push((*grid, resized.contiguous()?));
            }
        }
        let positions: Vec<_> = positions
            .iter()
            .map(|(grid, positions)| (*grid, Elements::of(positions)))
            .collect();
        let mut by_grid = Vec::with_capacity(positions.len());
        for (grid, elements) in &positions {
            by_grid.push((*grid, elements.slice()?));
        }
        let lengths: Vec<usize> = grids.iter().map(|(r, c)| r * c + first).collect();
        let rows = self
            .workspaces
            .run(&self.transformer, &lengths, |range, workspace, team| {
                let mut row = 0;
                for i in range.clone() {
                    let positions = by_grid.iter().find(|(grid, _)| *grid == grids[i]);
                    let positions = positions.map_or(&[][..], |(_, positions)| positions);
                    self.embed(&pictures[i], grids[i], positions, (workspace, row), team);
                    row += lengths[i];
                }
                self.blocks_and_pool(workspace, &lengths[range], team)
            });
        Tensor::from_vec(rows, (pictures.len(), width), &Device::Cpu)
    }

    /// Writes the tokens of one picture from `row` on.
    fn embed(
        &self,
        pixels: &Pixels,
        (rows, columns): (usize, usize),
        positions: &[f32],
        (workspace, row): (&mut Workspace, usize),
        team: Team,
    ) {
        let (p, width) = (self.config.patch_size, self.config.transformer.width);
        let count = rows * columns;
        let first = usize::from(self.config.class_token);
        for (at, position) in positions.chunks_exact(width).enumerate() {
            workspace.token(row + at).copy_from_slice(position);
        }
        if let Some(class) = &self.class {
            for (x, class) in workspace.token(row).iter_mut().zip(class) {
                *x += class;
            }
        }
        // Patches as rows, channels first; each is narrowed in place, so that all keep the stride
        // of floats.
        let inputs = 3 * p * p;
        let stride = (4 * inputs).next_multiple_of(64) + 64;
        let buffer = workspace.patches(count * stride);
        let to = Shared(buffer.as_mut_ptr());
        let plane = pixels.height() * pixels.width();
        let gather = |patch: usize| {
            let (top, left) = (patch / columns * p, patch % columns * p);
            let row = to.at(patch * stride);
            // SAFETY: every patch has a row of its own, of `inputs` floats.
            let values = unsafe { std::slice::from_raw_parts_mut(row.cast::<f32>(), inputs) };
            for (i, values) in values.chunks_exact_mut(p).enumerate() {
                let (channel, y) = (i / p, top + i % p);
                let start = channel * plane + y * pixels.width() + left;
                values.copy_from_slice(&pixels.as_slice()[start..start + p]);
            }
            if self.patches.precision() == Precision::Bf16 {
                let level = self.plan.level;
                // SAFETY: as above; the row has room for whole words.
                unsafe { level.narrow_row(Precision::Bf16, row.cast(), inputs, row) };
            }
        };
        team.each(rows, |r| {
            (r * columns..(r + 1) * columns).for_each(gather);
        });
        let stride_out = workspace.row_stride();
        let finish = Finish {
            residual: true,
            ..Finish::plain(workspace.row(row + first).cast(), stride_out)
        };
        let product = self
            .patches
            .product((to.at(0), stride), std::ptr::null(), finish);
        self.patches.run_in(team, &product, count);
    }

    /// Tokens of pictures of `lengths` to pooled rows `[n, width]`.
    fn blocks_and_pool(
        &self,
        workspace: &mut Workspace,
        lengths: &[usize],
        team: Team,
    ) -> Vec<f32> {
        let (level, width) = (self.plan.level, self.config.transformer.width);
        let total: usize = lengths.iter().sum();
        if let Some(norm) = &self.pre_norm {
            for row in 0..total {
                norm.in_place(level, workspace.token(row));
            }
        }
        let first = vec![0; lengths.len()];
        let pooled = matches!(self.pool, Pool::ClassToken).then_some(first.as_slice());
        self.transformer.run(workspace, lengths, pooled, team);
        let mut out = vec![0.0; lengths.len() * width];
        if pooled.is_some() {
            for (i, out) in out.chunks_exact_mut(width).enumerate() {
                self.post_norm.of(level, workspace.token(i), out);
            }
            return out;
        }
        let skip = usize::from(self.config.class_token);
        let mut row = 0;
        let mut pictures = Vec::with_capacity(lengths.len());
        for length in lengths {
            let mut tokens = Vec::with_capacity((length - skip) * width);
            for at in row + skip..row + length {
                let token = workspace.token(at);
                if !matches!(self.pool, Pool::MeanThenNorm) {
                    self.post_norm.in_place(level, token);
                }
                tokens.extend_from_slice(token);
            }
            pictures.push(tokens);
            row += length;
        }
        if let Pool::Attention(head) = &self.pool {
            return head.pool(level, team, &pictures);
        }
        for (tokens, out) in pictures.iter().zip(out.chunks_exact_mut(width)) {
            mean(tokens, out);
            if matches!(self.pool, Pool::MeanThenNorm) {
                self.post_norm.in_place(level, out);
            }
        }
        out
    }

    /// Pooled rows `[n, width]` to the shared space, `[n, dim]`, not yet of unit length.
    ///
    /// # Errors
    /// When the shape does not fit.
    pub(crate) fn project(&self, pooled: &Tensor) -> Result<Tensor> {
        match &self.projection {
            Some(projection) => project(projection, pooled),
            None => Ok(pooled.clone()),
        }
    }
}

/// The mean of rows as long as `out`.
fn mean(rows: &[f32], out: &mut [f32]) {
    let count = rows.len() / out.len();
    for row in rows.chunks_exact(out.len()) {
        for (sum, x) in out.iter_mut().zip(row) {
            *sum += x;
        }
    }
    for sum in out {
        *sum /= count as f32;
    }
}
