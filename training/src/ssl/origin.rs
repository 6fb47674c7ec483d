//! Where a tower comes from.

use candle_core::Device;
use encoders::{
    Base, Model, PreprocessConfig,
    nn::{Form, Init, Source as _},
};

use super::{
    SslConfig,
    tower::{HEAD, Sizes, Tower},
};
use crate::{TrainingError, fit::squash, parameters::Parameters};

/// The form in which a tower is trained.
pub(super) const TRAINED: Form = Form::Differentiable {
    batch_statistics: true,
};

/// Where a tower comes from, and what it sees.
pub(super) struct Origin {
    /// The model, where it comes from one.
    pub base: Option<Base>,
    pub sizes: Sizes,
    pub preprocess: PreprocessConfig,
    /// Side of a picture in pixels.
    pub side: usize,
}

impl Origin {
    pub(super) fn of(config: &SslConfig) -> Result<Self, TrainingError> {
        let key = config.contrast.dim;
        if let Some(image) = &config.model.image {
            let image = image.network();
            let (side, width) = (image.image_size(), image.width());
            return Ok(Self {
                base: None,
                // Nothing is projected anywhere.
                sizes: Sizes {
                    image,
                    shared: width,
                    key,
                },
                preprocess: squash(side)?,
                side,
            });
        }
        let base = match &config.model.from {
            Some(folder) => Base::open(folder)?,
            None => Base::builtin()?,
        };
        let preprocess = base.preprocess().clone();
        let square = preprocess.size().filter(|size| size.width == size.height);
        let side = square.ok_or(TrainingError::Value {
            key: "model.from",
            expected: "a model whose image tower sees squares",
        })?;
        let network = base.network();
        let sizes = Sizes {
            image: network.image.clone(),
            shared: network.dim,
            key,
        };
        Ok(Self {
            sizes,
            preprocess,
            side: side.width.get() as usize,
            base: Some(base),
        })
    }
}

/// The model whose text tower stays.
pub(super) fn text_model(config: &SslConfig) -> Result<Model, TrainingError> {
    Ok(match &config.model.from {
        Some(folder) => Model::load(folder)?,
        None => Model::builtin()?,
    })
}

/// The weights before the first step.
pub(super) fn made(
    seed: u64,
    base: Option<&Base>,
    sizes: &Sizes,
    device: &Device,
) -> Result<Parameters, TrainingError> {
    let mut parameters = Parameters::seeded(seed, device.clone());
    Tower::new(&mut parameters, sizes, TRAINED)?;
    if let Some(base) = base {
        let mut source = base.source()?;
        for (name, var) in parameters.all() {
            if !name.starts_with(HEAD) {
                let stored = source.tensor(name, var.dims(), Init::Constant(0.0))?;
                parameters.set(name, &stored)?;
            }
        }
    }
    Ok(parameters)
}
