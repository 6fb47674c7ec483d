//! Zero-shot image classification as the tasks of Hugging Face have it.

use engine::Prediction;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    classify::classify,
    content::is_url,
    heads::TemplatesIn,
    reply::ApiError,
    state::Caller,
    wire::{ClassifyIn, Object},
};

/// What the pipeline of transformers says where a request has no template.
const DEFAULT_TEMPLATE: &str = "This is a photo of {}.";

/// A picture, and the labels that may fit.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ZeroShotIn {
    /// base64, a data URI or the address of a picture.
    inputs: String,
    #[schema(value_type = ParametersIn)]
    parameters: Object<ParametersIn>,
}

/// The labels.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ParametersIn {
    /// All different; at most `limits.labels`.
    #[schema(min_items = 1, max_items = 1000)]
    candidate_labels: Vec<String>,
    /// A sentence with one `{}` where the label goes.
    #[schema(default = "This is a photo of {}.")]
    hypothesis_template: Option<String>,
}

impl ZeroShotIn {
    /// Classifies; the best label comes first.
    pub(crate) async fn run(self, caller: Caller<'_>) -> Result<Vec<Prediction>, ApiError> {
        let Object(parameters) = self.parameters;
        let template = parameters.hypothesis_template;
        let (image, image_url) = if is_url(&self.inputs) {
            (None, Some(self.inputs))
        } else {
            (Some(self.inputs), None)
        };
        let template = template.unwrap_or_else(|| DEFAULT_TEMPLATE.into());
        let asked = ClassifyIn {
            image,
            image_url,
            labels: parameters.candidate_labels,
            templates: Some(TemplatesIn::Own(vec![template])),
            ..ClassifyIn::default()
        };
        let said = classify(caller, asked).await.map_err(rename)?;
        Ok(said.predictions)
    }
}

/// Names fields as this request does.
fn rename(error: ApiError) -> ApiError {
    let field = error.field().unwrap_or_default();
    let name = if field.starts_with("image") {
        "inputs".to_owned()
    } else if let Some(rest) = field.strip_prefix("labels") {
        format!("parameters.candidate_labels{rest}")
    } else if field.starts_with("templates") {
        "parameters.hypothesis_template".to_owned()
    } else {
        return error;
    };
    error.at(&name)
}

/// How well a label fits.
#[derive(Serialize, ToSchema)]
pub(crate) struct LabelOut {
    label: String,
    /// How probable it is.
    #[schema(minimum = 0, maximum = 1)]
    score: f64,
}

/// The answer.
pub(crate) fn describe(predictions: Vec<Prediction>) -> Vec<LabelOut> {
    let one = |p: Prediction| LabelOut {
        label: p.label,
        score: p.probability,
    };
    predictions.into_iter().map(one).collect()
}
