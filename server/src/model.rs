//! The model as the server sees it. Only this file knows `encoders::Model`.

use std::{fmt, sync::Arc};

use embedding::{Encoder, Scoring, Spaces};
use encoders::{Model, Picture, Pixels};
use serde_json::Value;

/// Two towers and what is said about them. Cheap to clone.
///
/// Made from an [`encoders::Model`] by `From`, or field by field from any [`Encoder`]s.
#[derive(Clone)]
pub struct ModelHandle {
    /// What `GET /v1/model` answers.
    pub info: Value,
    /// The spaces that both towers fill.
    pub spaces: Spaces,
    /// How the cosines of a classification become probabilities.
    pub scoring: Scoring,
    /// Words in.
    pub text: Arc<dyn Encoder<String>>,
    /// Whether a text is longer than what the text tower reads of it.
    pub cuts: Arc<dyn Fn(&str) -> bool + Send + Sync>,
    /// Prepared pictures in.
    pub image: Arc<dyn Encoder<Pixels>>,
    /// Turns a decoded picture into what the image tower wants to see.
    pub prepare: Arc<dyn Fn(&Picture) -> Pixels + Send + Sync>,
}

impl From<Model> for ModelHandle {
    fn from(model: Model) -> Self {
        Self {
            // A card that cannot be told as JSON is shown as `null`; the towers work all the same.
            info: serde_json::to_value(model.info()).unwrap_or_default(),
            spaces: model.spaces().clone(),
            scoring: model.scoring(),
            text: model.text(),
            image: model.image(),
            cuts: {
                let model = model.clone();
                Arc::new(move |text: &str| model.cuts(text))
            },
            prepare: Arc::new(move |picture| model.prepare(picture)),
        }
    }
}

impl fmt::Debug for ModelHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ModelHandle")
            .field("spaces", &self.spaces)
            .finish_non_exhaustive()
    }
}
