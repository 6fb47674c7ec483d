//! Both towers of one model.

use candle_core::{Result, Tensor};

use super::{
    BatchStatistics, Form, ResidualConfig, ResidualTower, TextConfig, TextTower, VitConfig,
    VitTower,
    source::{Init, Source},
};
use crate::ModelError;

/// `ln(1 / 0.07)`: where CLIP's logit scale starts.
const LOGIT_SCALE_START: f32 = 2.659_26;

/// Where `SigLIP`'s logit bias starts (Zhai et al. 2023, section 3.2).
const LOGIT_BIAS_START: f32 = -10.0;

/// The sizes of both towers.
#[derive(Debug, Clone, PartialEq)]
pub struct NetworkConfig {
    /// Elements of a shared embedding.
    pub dim: usize,
    /// The text tower.
    pub text: TextConfig,
    /// The image tower.
    pub image: ImageConfig,
    /// Whether logits have a learned bias: the model was trained with the sigmoid loss then.
    pub logit_bias: bool,
}

/// The sizes of an image tower, by kind.
#[derive(Debug, Clone, PartialEq)]
pub enum ImageConfig {
    /// A vision transformer.
    Vit(VitConfig),
    /// A residual convolution tower.
    Residual(ResidualConfig),
}

impl ImageConfig {
    /// Side in pixels of the square pictures that the tower was trained on.
    pub fn image_size(&self) -> usize {
        match self {
            Self::Vit(config) => config.image_size,
            Self::Residual(config) => config.image_size,
        }
    }

    /// Side of a patch in pixels. A residual tower has none: 16 stands in for it.
    pub fn patch_side(&self) -> usize {
        const SIDE: usize = 16;
        match self {
            Self::Vit(config) => config.patch_size,
            Self::Residual(_) => SIDE,
        }
    }

    /// Elements of a pooled output.
    pub fn width(&self) -> usize {
        match self {
            Self::Vit(config) => config.transformer.width,
            Self::Residual(config) => config.width,
        }
    }

    /// Elements of the details of a picture: see [`ImageTower::with_details`].
    pub fn details(&self) -> usize {
        match self {
            Self::Vit(_) => 0,
            Self::Residual(config) => config.details(),
        }
    }
}

/// An image tower of either kind.
#[derive(Debug)]
pub enum ImageTower {
    /// A vision transformer.
    Vit(VitTower),
    /// A residual convolution tower.
    Residual(ResidualTower),
}

impl ImageTower {
    /// Takes the tensors of its kind.
    ///
    /// # Errors
    /// When a tensor is missing or has another shape.
    pub fn new(
        source: &mut dyn Source,
        config: &ImageConfig,
        dim: usize,
        form: Form,
    ) -> std::result::Result<Self, ModelError> {
        Ok(match config {
            ImageConfig::Vit(config) => Self::Vit(VitTower::new(source, config, dim, form)?),
            ImageConfig::Residual(config) => {
                Self::Residual(ResidualTower::new(source, config, dim, form)?)
            }
        })
    }

    /// Pooled outputs `[n, width]` of pixels `[n, 3, height, width]`: squares of `image_size`, or
    /// for a vision transformer anything of at least one patch.
    ///
    /// # Errors
    /// When the shape does not fit.
    pub fn pooled(&self, pixels: &Tensor) -> Result<Tensor> {
        match self {
            Self::Vit(tower) => tower.pooled(pixels),
            Self::Residual(tower) => tower.pooled(pixels),
        }
    }

    /// The same, and the details of each picture, `[n, details]`, where the tower has any: see
    /// [`ResidualTower::with_details`].
    ///
    /// # Errors
    /// When the shape does not fit.
    pub fn with_details(&self, pixels: &Tensor) -> Result<(Tensor, Option<Tensor>)> {
        match self {
            Self::Vit(tower) => Ok((tower.pooled(pixels)?, None)),
            Self::Residual(tower) => {
                let (pooled, details) = tower.with_details(pixels)?;
                Ok((pooled, Some(details)))
            }
        }
    }

    /// Pooled rows `[n, width]` to the shared space, `[n, dim]`, not yet of unit length.
    ///
    /// # Errors
    /// When the shape does not fit.
    pub fn project(&self, pooled: &Tensor) -> Result<Tensor> {
        match self {
            Self::Vit(tower) => tower.project(pooled),
            Self::Residual(tower) => tower.project(pooled),
        }
    }

    /// The shared projection, `[dim, width]`; `None` where the pooled output is the embedding.
    pub fn projection(&self) -> Option<&Tensor> {
        match self {
            Self::Vit(tower) => tower.projection(),
            Self::Residual(tower) => Some(tower.projection()),
        }
    }

    /// Batch statistics of the last forward pass (see [`ResidualTower::take_statistics`]).
    pub fn take_statistics(&self) -> Vec<(String, BatchStatistics)> {
        match self {
            Self::Vit(_) => Vec::new(),
            Self::Residual(tower) => tower.take_statistics(),
        }
    }
}

/// Two towers and the scale between them.
#[derive(Debug)]
pub struct Network {
    /// Texts to rows.
    pub text: TextTower,
    /// Pixels to rows.
    pub image: ImageTower,
    /// Logarithm of the factor from cosines to logits, a scalar.
    pub logit_scale: Tensor,
    /// Added to logits, a scalar, where the configuration says so.
    pub logit_bias: Option<Tensor>,
}

impl Network {
    /// Takes every tensor from `source`.
    ///
    /// # Errors
    /// When a tensor is missing or has another shape.
    pub fn new(
        source: &mut dyn Source,
        config: &NetworkConfig,
        form: Form,
    ) -> std::result::Result<Self, ModelError> {
        let dim = config.dim;
        let text = TextTower::new(source, &config.text, dim, form)?;
        let image = ImageTower::new(source, &config.image, dim, form)?;
        let (logit_scale, logit_bias) = logits(source, config)?;
        Ok(Self {
            text,
            image,
            logit_scale,
            logit_bias,
        })
    }
}

/// The logarithm of the logit scale, and the bias where the configuration says that there is one.
pub(crate) fn logits(
    source: &mut dyn Source,
    config: &NetworkConfig,
) -> std::result::Result<(Tensor, Option<Tensor>), ModelError> {
    let scale = source.tensor("logit_scale", &[], Init::Constant(LOGIT_SCALE_START))?;
    let bias = config
        .logit_bias
        .then(|| source.tensor("logit_bias", &[], Init::Constant(LOGIT_BIAS_START)))
        .transpose()?;
    Ok((scale, bias))
}

/// What a specific projection of pictures reads where it reads details: `[n, width + details]`, pooled outputs of
/// unit length and behind each the details of its picture.
///
/// # Errors
/// When they are of different pictures.
pub fn beside(pooled: &Tensor, details: &Tensor) -> Result<Tensor> {
    Tensor::cat(&[&unit_rows(pooled)?, details], 1)
}

/// Scales rows `[n, dim]` to unit length, with a backward pass.
///
/// # Errors
/// When `x` is not a matrix.
pub fn unit_rows(x: &Tensor) -> Result<Tensor> {
    let length = (x.sqr()?.sum_keepdim(1)? + 1e-12)?.sqrt()?;
    x.broadcast_div(&length)
}
