//! The CLIP image tower: a vision transformer (Dosovitskiy et al. 2021), pooled at its class token.

use candle_core::{Result, Tensor};

use super::{
    Form,
    layers::{LayerNorm, Linear},
    source::{Init, Source},
    transformer::{Transformer, TransformerConfig},
};
use crate::ModelError;

/// The sizes of a vision transformer.
#[derive(Debug, Clone, PartialEq)]
pub struct VitConfig {
    /// Side of the square input in pixels.
    pub image_size: usize,
    /// Side of a square patch in pixels.
    pub patch_size: usize,
    /// The transformer.
    pub transformer: TransformerConfig,
}

/// Pixels to pooled and projected rows.
#[derive(Debug, Clone)]
pub struct VitTower {
    class: Tensor,
    /// `[width, 3 * patch * patch]`.
    patches: Tensor,
    positions: Tensor,
    pre_norm: LayerNorm,
    transformer: Transformer,
    post_norm: LayerNorm,
    projection: Linear,
    config: VitConfig,
}

impl VitTower {
    /// Takes the tensors `vision_model.*` and `visual_projection.weight` `[dim, width]`.
    ///
    /// # Errors
    /// When a tensor is missing or has another shape.
    pub fn new(
        source: &mut dyn Source,
        config: &VitConfig,
        dim: usize,
        form: Form,
    ) -> std::result::Result<Self, ModelError> {
        let VitConfig {
            image_size,
            patch_size,
            ..
        } = *config;
        let TransformerConfig {
            width,
            layer_norm_eps: eps,
            ..
        } = config.transformer;
        let deviation = (width as f32).powf(-0.5);
        let normal = |deviation| Init::Normal { deviation };
        let prefix = "vision_model.embeddings";
        let class = source.tensor(
            &format!("{prefix}.class_embedding"),
            &[width],
            normal(deviation),
        )?;
        let patches = source.tensor(
            &format!("{prefix}.patch_embedding.weight"),
            &[width, 3, patch_size, patch_size],
            normal(((3 * patch_size * patch_size) as f32).powf(-0.5)),
        )?;
        let count = (image_size / patch_size).pow(2) + 1;
        let positions = source.tensor(
            &format!("{prefix}.position_embedding.weight"),
            &[count, width],
            normal(deviation),
        )?;
        Ok(Self {
            class,
            patches: patches.flatten_from(1)?,
            positions,
            // The name is misspelled in every published checkpoint.
            pre_norm: LayerNorm::new(source, "vision_model.pre_layrnorm", width, eps)?,
            transformer: Transformer::new(
                source,
                "vision_model.encoder",
                &config.transformer,
                form,
            )?,
            post_norm: LayerNorm::new(source, "vision_model.post_layernorm", width, eps)?,
            projection: Linear::without_bias(source, "visual_projection", (width, dim), deviation)?,
            config: config.clone(),
        })
    }

    /// Pooled outputs `[n, width]` of pixels `[n, 3, image_size, image_size]`.
    ///
    /// # Errors
    /// When the shape does not fit.
    pub fn pooled(&self, pixels: &Tensor) -> Result<Tensor> {
        let (n, _, height, width) = pixels.dims4()?;
        let VitConfig {
            image_size,
            patch_size: p,
            ..
        } = self.config;
        if (height, width) != (image_size, image_size) {
            candle_core::bail!("expected pixels of side {image_size}, got {height} x {width}");
        }
        let grid = image_size / p;
        let used = grid * p;
        let patches = pixels
            .narrow(2, 0, used)?
            .narrow(3, 0, used)?
            .contiguous()?
            .reshape(vec![n, 3, grid, p, grid, p])?
            .permute([0, 2, 4, 1, 3, 5])?
            .reshape((n * grid * grid, 3 * p * p))?;
        let tokens = patches
            .matmul(&self.patches.t()?)?
            .reshape((n, grid * grid, ()))?;
        let class = self.class.reshape((1, 1, ()))?.repeat((n, 1, 1))?;
        let x = Tensor::cat(&[&class, &tokens], 1)?.broadcast_add(&self.positions)?;
        let x = self
            .transformer
            .forward(&self.pre_norm.forward(&x)?, None)?;
        self.post_norm.forward(&x.narrow(1, 0, 1)?.squeeze(1)?)
    }

    /// Pooled rows `[n, width]` to the shared space, `[n, dim]`, not yet of unit length.
    ///
    /// # Errors
    /// When the shape does not fit.
    pub fn project(&self, pooled: &Tensor) -> Result<Tensor> {
        self.projection.forward(pooled)
    }

    /// The shared projection, `[dim, width]`.
    pub fn projection(&self) -> &Tensor {
        self.projection.weight()
    }
}
