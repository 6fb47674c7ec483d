//! The towers of a model in the form in which they run.

use candle_core::{Device, Result, Tensor};

use crate::{
    ModelError, Pixels, Precision,
    cpu::{self, Plan},
    nn::{self, Form, ImageConfig, NetworkConfig, Source},
};

/// How a tower runs.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Backend {
    /// On weights packed for the kernels of this CPU.
    Packed(Plan),
    /// On candle: what the packed form is compared with, and residual towers.
    Reference,
}

impl Backend {
    /// How weights and activations are stored.
    pub(crate) fn precision(self) -> Precision {
        match self {
            Self::Packed(plan) => plan.precision,
            Self::Reference => Precision::F32,
        }
    }

    /// The instruction set of the kernels.
    pub(crate) fn kernels(self) -> &'static str {
        match self {
            Self::Packed(plan) => plan.level.name,
            Self::Reference => "reference",
        }
    }
}

/// A text tower.
pub(crate) enum TextRunner {
    Packed(Box<cpu::TextTower>),
    Reference(Box<nn::TextTower>),
}

/// An image tower.
pub(crate) enum ImageRunner {
    Packed(Box<cpu::VitTower>),
    Reference(Box<nn::ImageTower>),
}

impl TextRunner {
    /// The tower, and its shared projection `[dim, width]`.
    pub(crate) fn new(
        source: &mut dyn Source,
        network: &NetworkConfig,
        backend: Backend,
    ) -> std::result::Result<(Self, Option<Tensor>), ModelError> {
        let (config, dim) = (&network.text, network.dim);
        Ok(match backend {
            Backend::Packed(plan) => {
                let (tower, shared) = cpu::TextTower::new(source, config, dim, plan)?;
                (Self::Packed(tower.into()), Some(shared))
            }
            Backend::Reference => {
                let tower = nn::TextTower::new(source, config, dim, Form::Fused)?;
                let shared = tower.projection().clone();
                (Self::Reference(tower.into()), Some(shared))
            }
        })
    }

    /// Bytes of packed weights.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Packed(tower) => tower.bytes(),
            Self::Reference(_) => 0,
        }
    }

    /// Pooled outputs `[n, width]` of token ids.
    pub(crate) fn pooled(&self, texts: &[Vec<u32>]) -> Result<Tensor> {
        match self {
            Self::Packed(tower) => tower.pooled(texts),
            Self::Reference(tower) => tower.pooled(texts),
        }
    }

    /// Pooled rows to the shared space, `[n, dim]`, not yet of unit length.
    pub(crate) fn project(&self, pooled: &Tensor) -> Result<Tensor> {
        match self {
            Self::Packed(tower) => tower.project(pooled),
            Self::Reference(tower) => tower.project(pooled),
        }
    }
}

impl ImageRunner {
    /// The tower, and its shared projection `[dim, width]` where it has one. A residual tower runs
    /// on kernels of its own, in any backend.
    pub(crate) fn new(
        source: &mut dyn Source,
        network: &NetworkConfig,
        backend: Backend,
    ) -> std::result::Result<(Self, Option<Tensor>), ModelError> {
        let dim = network.dim;
        Ok(match (&network.image, backend) {
            (ImageConfig::Vit(config), Backend::Packed(plan)) => {
                let (tower, shared) = cpu::VitTower::new(source, config, dim, plan)?;
                (Self::Packed(tower.into()), shared)
            }
            (config, _) => {
                let tower = nn::ImageTower::new(source, config, dim, Form::Fused)?;
                let shared = tower.projection().cloned();
                (Self::Reference(tower.into()), shared)
            }
        })
    }

    /// Bytes of packed weights.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Packed(tower) => tower.bytes(),
            Self::Reference(_) => 0,
        }
    }

    /// Pooled outputs `[n, width]`; the pictures may differ in size where the tower allows it.
    pub(crate) fn pooled(&self, pictures: &[Pixels]) -> Result<Tensor> {
        match self {
            Self::Packed(tower) => tower.pooled(pictures),
            Self::Reference(tower) => {
                let mut rows = Vec::new();
                // Those of one size that follow each other go through together.
                for group in pictures.chunk_by(|a, b| size(a) == size(b)) {
                    let (height, width) = size(&group[0]);
                    let values: Vec<f32> =
                        group.iter().flat_map(Pixels::as_slice).copied().collect();
                    let shape = (group.len(), 3, height, width);
                    rows.push(tower.pooled(&Tensor::from_vec(values, shape, &Device::Cpu)?)?);
                }
                Tensor::cat(&rows, 0)
            }
        }
    }

    /// Pooled rows to the shared space, `[n, dim]`, not yet of unit length.
    pub(crate) fn project(&self, pooled: &Tensor) -> Result<Tensor> {
        match self {
            Self::Packed(tower) => tower.project(pooled),
            Self::Reference(tower) => tower.project(pooled),
        }
    }
}

fn size(pixels: &Pixels) -> (usize, usize) {
    (pixels.height(), pixels.width())
}
