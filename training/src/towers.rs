//! The towers of a run as training and its evaluation see them: inputs in, unit rows out.

use candle_core::{Result, Tensor};
use encoders::nn::{Form, Init, Network, NetworkConfig, Source as _, unit_rows};

use crate::{TrainingError, parameters::Parameters};

/// The names under which a model folder holds specific projections: of images, of texts.
pub(crate) const VISUAL_SPECIFIC: &str = "visual_specific_projection.weight";
const TEXT_SPECIFIC: &str = "text_specific_projection.weight";

/// The two embeddings of a batch.
#[derive(Debug, Clone)]
pub struct Rows {
    /// Where images and texts meet, `[n, dim]`, of unit length.
    pub shared: Tensor,
    /// What is of the modality alone, `[n, specific_dim]`, of unit length; where the model has it.
    pub specific: Option<Tensor>,
}

/// Both towers with their heads.
#[derive(Debug)]
pub struct Towers {
    /// The towers themselves.
    pub network: Network,
    /// Projections to the specific spaces, `[specific_dim, width]`: of images, of texts.
    specific: Option<[Tensor; 2]>,
}

impl Towers {
    /// Takes every tensor from `parameters`; `specific_dim` 0 leaves the specific heads out.
    ///
    /// # Errors
    /// When a tensor has another shape.
    pub fn new(
        parameters: &mut Parameters,
        config: &NetworkConfig,
        specific_dim: usize,
        form: Form,
    ) -> std::result::Result<Self, TrainingError> {
        let network = Network::new(parameters, config, form)?;
        let mut head = |name: &str, width: usize| {
            let deviation = (width as f32).powf(-0.5);
            parameters.tensor(name, &[specific_dim, width], Init::Normal { deviation })
        };
        let specific = if specific_dim == 0 {
            None
        } else {
            let images = head(VISUAL_SPECIFIC, config.image.width())?;
            Some([images, head(TEXT_SPECIFIC, config.text.transformer.width)?])
        };
        Ok(Self { network, specific })
    }

    /// Whether there are specific heads.
    pub fn has_specific(&self) -> bool {
        self.specific.is_some()
    }

    /// Of pixels `[n, 3, side, side]`.
    ///
    /// # Errors
    /// When the shape does not fit.
    pub fn images(&self, pixels: &Tensor) -> Result<Rows> {
        let tower = &self.network.image;
        let pooled = tower.pooled(pixels)?;
        self.rows(0, &pooled, &tower.project(&pooled)?)
    }

    /// Of token ids.
    ///
    /// # Errors
    /// When a text is too long.
    pub fn texts(&self, ids: &[Vec<u32>]) -> Result<Rows> {
        let tower = &self.network.text;
        let pooled = tower.pooled(ids)?;
        self.rows(1, &pooled, &tower.project(&pooled)?)
    }

    fn rows(&self, modality: usize, pooled: &Tensor, shared: &Tensor) -> Result<Rows> {
        let head = self.specific.as_ref().map(|heads| &heads[modality]);
        let specific = head.map(|head| unit_rows(&pooled.matmul(&head.t()?)?));
        Ok(Rows {
            shared: unit_rows(shared)?,
            specific: specific.transpose()?,
        })
    }
}
