//! Vision transformers (Dosovitskiy et al. 2021): those of CLIP, `SigLIP` and `SigLIP` 2.

use candle_core::{Result, Tensor};

use super::{
    Form,
    layers::{LayerNorm, Linear},
    positions::{Resampling, resized},
    source::{Init, Source},
    transformer::{AttentionHead, Transformer, TransformerConfig},
};
use crate::ModelError;

/// How the tokens of a picture become one row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VitPooling {
    /// The class token, normalized: CLIP.
    ClassToken,
    /// The mean of all patches, then normalized: CLIPA.
    MeanThenNorm,
    /// The mean of all normalized patches.
    NormThenMean,
    /// A learned query that attends to all normalized patches, and an MLP: `SigLIP`.
    AttentionHead,
}

/// Which sizes of pictures a tower sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sizing {
    /// One size. Where it is not the one that the positions were learned for, these are
    /// interpolated (bicubic, as transformers' `interpolate_pos_encoding`).
    Fixed,
    /// Every picture its own: `NaFlex`. Positions are resized to each grid (bilinear, antialiased).
    /// Its files store patches as `[width, patch * patch * 3]`.
    Native,
}

/// The sizes of a vision transformer.
#[derive(Debug, Clone, PartialEq)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "each is a part that a family has or has not"
)]
pub struct VitConfig {
    /// Side in pixels of the square pictures that the positions were learned for.
    pub image_size: usize,
    /// Side of a square patch in pixels.
    pub patch_size: usize,
    /// Which sizes of pictures it sees.
    pub sizing: Sizing,
    /// Whether a learned token comes before the patches.
    pub class_token: bool,
    /// Whether patches are embedded with a bias.
    pub patch_bias: bool,
    /// Whether tokens are normalized before the first block.
    pub pre_norm: bool,
    /// How tokens become one row.
    pub pooling: VitPooling,
    /// Whether the row is projected into the shared space; otherwise it is there already, and
    /// the width of the transformer is the dim of the model.
    pub projection: bool,
    /// The transformer.
    pub transformer: TransformerConfig,
}

impl VitConfig {
    /// What Radford et al. (2021) describe.
    pub fn clip(image_size: usize, patch_size: usize, transformer: TransformerConfig) -> Self {
        Self {
            image_size,
            patch_size,
            sizing: Sizing::Fixed,
            class_token: true,
            patch_bias: false,
            pre_norm: true,
            pooling: VitPooling::ClassToken,
            projection: true,
            transformer,
        }
    }

    /// Patches along one side of the grid that the positions were learned for.
    pub fn grid(&self) -> usize {
        self.image_size / self.patch_size
    }
}

/// [`VitPooling`] with its tensors.
#[derive(Debug, Clone)]
pub(crate) enum Pool {
    ClassToken,
    MeanThenNorm,
    NormThenMean,
    AttentionHead(AttentionHead),
}

/// Pixels to pooled and projected rows; `T` is the stack of blocks.
#[derive(Debug, Clone)]
pub struct VitTower<T = Transformer> {
    pub(crate) class: Option<Tensor>,
    /// `[width, 3 * patch * patch]`, with a bias or without.
    pub(crate) patches: Linear,
    pub(crate) positions: Tensor,
    pub(crate) pre_norm: Option<LayerNorm>,
    pub(crate) transformer: T,
    pub(crate) post_norm: LayerNorm,
    pub(crate) pool: Pool,
    pub(crate) projection: Option<Linear>,
    pub(crate) config: VitConfig,
}

impl VitTower {
    /// Takes the tensors `vision_model.*` and, where it projects, `visual_projection.weight`
    /// `[dim, width]`.
    ///
    /// # Errors
    /// When a tensor is missing or has another shape.
    pub fn new(
        source: &mut dyn Source,
        config: &VitConfig,
        dim: usize,
        form: Form,
    ) -> std::result::Result<Self, ModelError> {
        Self::with(source, config, dim, form, |source, prefix| {
            Transformer::new(source, prefix, &config.transformer, form)
        })
    }
}

impl<T> VitTower<T> {
    /// As [`VitTower::new`], with a stack that is made of the tensors below a prefix.
    pub(crate) fn with(
        source: &mut dyn Source,
        config: &VitConfig,
        dim: usize,
        form: Form,
        stack: impl FnOnce(&mut dyn Source, &str) -> std::result::Result<T, ModelError>,
    ) -> std::result::Result<Self, ModelError> {
        let TransformerConfig {
            width,
            layer_norm_eps: eps,
            ..
        } = config.transformer;
        let deviation = (width as f32).powf(-0.5);
        let init = Init::Normal { deviation };
        let prefix = "vision_model.embeddings";
        let class = config
            .class_token
            .then(|| source.tensor(&format!("{prefix}.class_embedding"), &[width], init))
            .transpose()?;
        let patches = patches(source, &format!("{prefix}.patch_embedding"), config)?;
        let count = config.grid().pow(2) + usize::from(config.class_token);
        let positions = source.tensor(
            &format!("{prefix}.position_embedding.weight"),
            &[count, width],
            init,
        )?;
        // The name is misspelled in every published checkpoint.
        let pre_norm = config
            .pre_norm
            .then(|| LayerNorm::new(source, "vision_model.pre_layrnorm", width, eps))
            .transpose()?;
        let transformer = stack(source, "vision_model.encoder")?;
        let post_norm = LayerNorm::new(source, "vision_model.post_layernorm", width, eps)?;
        let pool = match config.pooling {
            VitPooling::ClassToken => Pool::ClassToken,
            VitPooling::MeanThenNorm => Pool::MeanThenNorm,
            VitPooling::NormThenMean => Pool::NormThenMean,
            VitPooling::AttentionHead => {
                let name = "vision_model.head";
                Pool::AttentionHead(AttentionHead::new(source, name, &config.transformer, form)?)
            }
        };
        let projection = config
            .projection
            .then(|| Linear::without_bias(source, "visual_projection", (width, dim), deviation))
            .transpose()?;
        Ok(Self {
            class,
            patches,
            positions,
            pre_norm,
            transformer,
            post_norm,
            pool,
            projection,
            config: config.clone(),
        })
    }

    /// The shared projection, `[dim, width]`; `None` where the pooled output is the embedding.
    pub fn projection(&self) -> Option<&Tensor> {
        self.projection.as_ref().map(Linear::weight)
    }
}

impl VitTower {
    /// Pooled outputs `[n, width]` of pixels `[n, 3, height, width]` of at least one patch; rows
    /// and columns that fill no patch play no part.
    ///
    /// # Errors
    /// When the shape does not fit.
    pub fn pooled(&self, pixels: &Tensor) -> Result<Tensor> {
        let (n, _, height, width) = pixels.dims4()?;
        let p = self.config.patch_size;
        let (rows, columns) = (height / p, width / p);
        if rows == 0 || columns == 0 {
            candle_core::bail!("expected pixels of at least {p} x {p}, got {height} x {width}");
        }
        let patches = pixels
            .narrow(2, 0, rows * p)?
            .narrow(3, 0, columns * p)?
            .contiguous()?
            .reshape(vec![n, 3, rows, p, columns, p])?
            .permute([0, 2, 4, 1, 3, 5])?
            .reshape((n, rows * columns, 3 * p * p))?;
        let mut x = self.patches.forward(&patches)?;
        if let Some(class) = &self.class {
            let class = class.reshape((1, 1, ()))?.repeat((n, 1, 1))?;
            x = Tensor::cat(&[&class, &x], 1)?;
        }
        x = x.broadcast_add(&positions_for(
            &self.positions,
            &self.config,
            (rows, columns),
        )?)?;
        if let Some(norm) = &self.pre_norm {
            x = norm.forward(&x)?;
        }
        self.pool(&self.transformer.forward(&x, None)?)
    }

    /// Tokens `[n, t, width]` to rows `[n, width]`.
    fn pool(&self, x: &Tensor) -> Result<Tensor> {
        let first = usize::from(self.config.class_token);
        let mean = |x: &Tensor| x.narrow(1, first, x.dim(1)? - first)?.mean(1);
        match &self.pool {
            Pool::ClassToken => self.post_norm.forward(&x.narrow(1, 0, 1)?.squeeze(1)?),
            Pool::MeanThenNorm => self.post_norm.forward(&mean(x)?),
            Pool::NormThenMean => mean(&self.post_norm.forward(x)?),
            Pool::AttentionHead(head) => head.forward(&self.post_norm.forward(x)?),
        }
    }

    /// Pooled rows `[n, width]` to the shared space, `[n, dim]`, not yet of unit length.
    ///
    /// # Errors
    /// When the shape does not fit.
    pub fn project(&self, pooled: &Tensor) -> Result<Tensor> {
        match &self.projection {
            Some(projection) => projection.forward(pooled),
            None => Ok(pooled.clone()),
        }
    }
}

/// The positions of a tower for a grid of `rows` by `columns` patches, `[tokens, width]`.
pub(crate) fn positions_for(
    positions: &Tensor,
    config: &VitConfig,
    (rows, columns): (usize, usize),
) -> Result<Tensor> {
    let grid = config.grid();
    if (rows, columns) == (grid, grid) {
        return Ok(positions.clone());
    }
    let resampling = match config.sizing {
        Sizing::Fixed => Resampling::Bicubic,
        Sizing::Native => Resampling::BilinearAntialiased,
    };
    let first = usize::from(config.class_token);
    let learned = positions.narrow(0, first, grid * grid)?;
    let patches = resized(&learned, grid, (rows, columns), resampling)?;
    Tensor::cat(&[&positions.narrow(0, 0, first)?, &patches], 0)
}

/// The map from patches, channels first, to tokens.
fn patches(
    source: &mut dyn Source,
    name: &str,
    config: &VitConfig,
) -> std::result::Result<Linear, ModelError> {
    let (p, width) = (config.patch_size, config.transformer.width);
    let deviation = ((3 * p * p) as f32).powf(-0.5);
    let init = Init::Normal { deviation };
    let weight = format!("{name}.weight");
    let weight = match config.sizing {
        Sizing::Fixed => source.tensor(&weight, &[width, 3, p, p], init)?,
        Sizing::Native => source
            .tensor(&weight, &[width, p * p * 3], init)?
            .reshape((width, p, p, 3))?
            .permute([0, 3, 1, 2])?
            .contiguous()?,
    };
    let bias = config
        .patch_bias
        .then(|| source.tensor(&format!("{name}.bias"), &[width], Init::Constant(0.0)))
        .transpose()?;
    Ok(Linear::from_tensors(weight.flatten_from(1)?, bias))
}
