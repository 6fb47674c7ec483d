//! The towers of a model in the form in which they run.

use candle_core::{Device, Result, Tensor};

use crate::{
    ModelError, Pixels, Place, Precision,
    cpu::{self, Plan},
    nn::{self, Form, ImageConfig, Init, NetworkConfig, Source},
};

/// How a tower runs.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Backend {
    /// On weights packed for the kernels of this CPU.
    Packed(Plan),
    /// On candle: what the packed form is compared with, residual towers, and GPUs.
    Candle(Place),
}

impl Backend {
    /// What all others are compared with.
    pub(crate) const REFERENCE: Self = Self::Candle(Place::Cpu);

    /// How weights and activations are stored.
    pub(crate) fn precision(self) -> Precision {
        match self {
            Self::Packed(plan) => plan.precision,
            Self::Candle(_) => Precision::F32,
        }
    }

    /// The instruction set of the kernels.
    pub(crate) fn kernels(self) -> &'static str {
        match self {
            Self::Packed(plan) => plan.level.name,
            Self::Candle(Place::Cpu) => "reference",
            Self::Candle(Place::Cuda(_)) => "cuda",
        }
    }
}

/// Tensors of a source, moved to where they are computed with.
struct OnDevice<'a> {
    source: &'a mut dyn Source,
    device: Device,
}

impl<'a> OnDevice<'a> {
    fn new(source: &'a mut dyn Source, place: Place) -> std::result::Result<Self, ModelError> {
        let device = place.open()?;
        Ok(Self { source, device })
    }
}

impl Source for OnDevice<'_> {
    fn tensor(
        &mut self,
        name: &str,
        shape: &[usize],
        init: Init,
    ) -> std::result::Result<Tensor, ModelError> {
        let tensor = self.source.tensor(name, shape, init)?;
        Ok(tensor.to_device(&self.device)?)
    }
}

/// A text tower. Pooled and projected rows lie in the memory of the CPU.
pub(crate) enum TextRunner {
    Packed(Box<cpu::TextTower>),
    Candle(Box<nn::TextTower>),
}

/// An image tower.
pub(crate) enum ImageRunner {
    Packed(Box<cpu::VitTower>),
    Candle(Box<nn::ImageTower>, Device),
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
            Backend::Candle(place) => {
                let mut source = OnDevice::new(source, place)?;
                let tower = nn::TextTower::new(&mut source, config, dim, Form::Fused)?;
                let shared = tower.projection().to_device(&Device::Cpu)?;
                (Self::Candle(tower.into()), Some(shared))
            }
        })
    }

    /// Bytes of packed weights.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Packed(tower) => tower.bytes(),
            Self::Candle(_) => 0,
        }
    }

    /// Pooled outputs `[n, width]` of token ids.
    pub(crate) fn pooled(&self, texts: &[Vec<u32>]) -> Result<Tensor> {
        match self {
            Self::Packed(tower) => tower.pooled(texts),
            Self::Candle(tower) => tower.pooled(texts)?.to_device(&Device::Cpu),
        }
    }

    /// Pooled rows to the shared space, `[n, dim]`, not yet of unit length.
    pub(crate) fn project(&self, pooled: &Tensor) -> Result<Tensor> {
        match self {
            Self::Packed(tower) => tower.project(pooled),
            Self::Candle(tower) => {
                let pooled = pooled.to_device(tower.projection().device())?;
                tower.project(&pooled)?.to_device(&Device::Cpu)
            }
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
            (config, backend) => {
                let place = match backend {
                    Backend::Packed(_) => Place::Cpu,
                    Backend::Candle(place) => place,
                };
                let mut source = OnDevice::new(source, place)?;
                let device = source.device.clone();
                let tower = nn::ImageTower::new(&mut source, config, dim, Form::Fused)?;
                let shared = tower.projection().map(|p| p.to_device(&Device::Cpu));
                let shared = shared.transpose()?;
                (Self::Candle(tower.into(), device), shared)
            }
        })
    }

    /// Bytes of packed weights.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Packed(tower) => tower.bytes(),
            Self::Candle(..) => 0,
        }
    }

    /// Pooled outputs `[n, width]`; the pictures may differ in size where the tower allows it.
    pub(crate) fn pooled(&self, pictures: &[Pixels]) -> Result<Tensor> {
        match self {
            Self::Packed(tower) => tower.pooled(pictures),
            Self::Candle(tower, device) => {
                let rows: Result<Vec<Tensor>> = of_one_size(pictures, device)
                    .map(|pixels| tower.pooled(&pixels?))
                    .collect();
                Tensor::cat(&rows?, 0)?.to_device(&Device::Cpu)
            }
        }
    }

    /// The same, and the details of each picture where the tower has any.
    pub(crate) fn with_details(&self, pictures: &[Pixels]) -> Result<(Tensor, Option<Tensor>)> {
        match self {
            Self::Packed(tower) => Ok((tower.pooled(pictures)?, None)),
            Self::Candle(tower, device) => {
                let (mut pooled, mut details) = (Vec::new(), Vec::new());
                for pixels in of_one_size(pictures, device) {
                    let (rows, more) = tower.with_details(&pixels?)?;
                    pooled.push(rows);
                    details.extend(more);
                }
                let whole = |rows: &[Tensor]| Tensor::cat(rows, 0)?.to_device(&Device::Cpu);
                let details = (!details.is_empty()).then(|| whole(&details)).transpose()?;
                Ok((whole(&pooled)?, details))
            }
        }
    }

    /// Pooled rows to the shared space, `[n, dim]`, not yet of unit length.
    pub(crate) fn project(&self, pooled: &Tensor) -> Result<Tensor> {
        match self {
            Self::Packed(tower) => tower.project(pooled),
            Self::Candle(tower, device) => {
                let projected = tower.project(&pooled.to_device(device)?)?;
                projected.to_device(&Device::Cpu)
            }
        }
    }
}

/// Pictures as tensors `[n, 3, height, width]`: those of one size that follow each other go through together.
fn of_one_size<'a>(
    pictures: &'a [Pixels],
    device: &'a Device,
) -> impl Iterator<Item = Result<Tensor>> + 'a {
    let groups = pictures.chunk_by(|a, b| size(a) == size(b));
    groups.map(|group| {
        let (height, width) = size(&group[0]);
        let values: Vec<f32> = group.iter().flat_map(Pixels::as_slice).copied().collect();
        Tensor::from_vec(values, (group.len(), 3, height, width), device)
    })
}

fn size(pixels: &Pixels) -> (usize, usize) {
    (pixels.height(), pixels.width())
}
