//! The two towers of the experiment and how they learn.

use candle_core::{DType, Device, Tensor};
use encoders::nn::{Init, Source as _, unit_rows};
use rand::{SeedableRng as _, seq::SliceRandom as _};
use rand_chacha::ChaCha8Rng;

use super::data::{INPUTS, Pairs, augment};
use crate::{
    TrainingError,
    experiment::net::{Dense, Rate, minimize},
    objective::latent::{Latent, LatentWeights, Positives, Views, latent_loss},
    parameters::Parameters,
};

/// Width of both hidden layers.
const HIDDEN: usize = 128;
const BATCH: usize = 128;
const RATE: Rate = Rate::Constant(2e-3);
/// The temperature that training begins with.
const TEMPERATURE: f32 = 0.07;

pub(super) struct Towers {
    pub(super) image: Tower,
    pub(super) text: Tower,
    log_scale: Tensor,
    parameters: Parameters,
}

pub(super) struct Tower {
    layers: [Dense; 2],
    shared: Dense,
    specific: Dense,
}

/// What a tower makes of observations.
pub(super) struct Encoded {
    /// The last hidden layer, `[n, 128]`.
    pub(super) hidden: Tensor,
    /// Shared embeddings, `[n, dim]`, of unit length.
    pub(super) shared: Tensor,
    /// Specific embeddings, `[n, dim]`, of unit length.
    pub(super) specific: Tensor,
}

impl Towers {
    pub(super) fn new(seed: u64, dim: usize) -> Result<Self, TrainingError> {
        let mut parameters = Parameters::seeded(seed, Device::Cpu);
        let mut tower = |name: &str| -> Result<Tower, TrainingError> {
            let mut dense =
                |part: &str, shape| Dense::new(&mut parameters, &format!("{name}.{part}"), shape);
            Ok(Tower {
                layers: [
                    dense("first", [INPUTS, HIDDEN])?,
                    dense("second", [HIDDEN, HIDDEN])?,
                ],
                shared: dense("shared", [HIDDEN, dim])?,
                specific: dense("specific", [HIDDEN, dim])?,
            })
        };
        let (image, text) = (tower("image")?, tower("text")?);
        let log_scale = Init::Constant((1.0 / TEMPERATURE).ln());
        let log_scale = parameters.tensor("logit_scale", &[], log_scale)?;
        Ok(Self {
            image,
            text,
            log_scale,
            parameters,
        })
    }
}

impl Tower {
    pub(super) fn encode(&self, x: &Tensor) -> candle_core::Result<Encoded> {
        let hidden = self.layers[0].forward(x)?.relu()?;
        let hidden = self.layers[1].forward(&hidden)?.relu()?;
        Ok(Encoded {
            shared: unit_rows(&self.shared.forward(&hidden)?)?,
            specific: unit_rows(&self.specific.forward(&hidden)?)?,
            hidden,
        })
    }
}

/// Trains in place.
pub(super) fn train(
    towers: &Towers,
    pairs: &Pairs,
    weights: &LatentWeights,
    steps: usize,
    seed: u64,
) -> Result<(), TrainingError> {
    let mut random = ChaCha8Rng::seed_from_u64(seed ^ 0x7261_696e);
    let mut order: Vec<u32> = (0..pairs.image.dim(0)? as u32).collect();
    let identity = Tensor::eye(BATCH, DType::F32, &Device::Cpu)?;
    let positives = Positives {
        cross: identity.clone(),
        images: identity.clone(),
        texts: identity,
    };
    let per_epoch = order.len() / BATCH;
    let augmented = *weights != LatentWeights::default();
    minimize(&towers.parameters, steps, RATE, |step| {
        if step % per_epoch == 0 {
            order.shuffle(&mut random);
        }
        let batch = &order[step % per_epoch * BATCH..][..BATCH];
        let batch = Tensor::new(batch, &Device::Cpu)?;
        let image = pairs.image.index_select(&batch, 0)?;
        let text = pairs.text.index_select(&batch, 0)?;
        let mut shared = Vec::with_capacity(4);
        let mut specific = Vec::with_capacity(4);
        let mut encode = |tower: &Tower, x: &Tensor| -> candle_core::Result<()> {
            let encoded = tower.encode(x)?;
            shared.push(encoded.shared);
            specific.push(encoded.specific);
            Ok(())
        };
        encode(&towers.image, &image)?;
        encode(&towers.text, &text)?;
        if augmented {
            encode(&towers.image, &augment(&image, &mut random)?)?;
            encode(&towers.text, &augment(&text, &mut random)?)?;
        }
        let views = |of: &[Tensor]| Views {
            image: of[0].clone(),
            text: of[1].clone(),
            image_augmented: of.get(2).cloned(),
            text_augmented: of.get(3).cloned(),
        };
        let of = Latent {
            shared: &views(&shared),
            specific: Some(&views(&specific)),
            log_scale: &towers.log_scale,
            positives: &positives,
        };
        Ok(latent_loss(&of, weights)?.0)
    })
}
