//! Zero-shot image classification as the tasks of Hugging Face have it.

use engine::Prediction;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    classify::classify,
    content::is_url,
    reply::ApiError,
    state::Caller,
    wire::{ClassifyIn, Object},
};

/// What the pipeline of transformers says where a request has no template.
const DEFAULT_TEMPLATE: &str = "This is a photo of {}.";

/// The body of `POST /zero-shot-image-classification`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ZeroShotIn {
    /// base64, a data URI or the address of a picture.
    inputs: String,
    parameters: Object<ParametersIn>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ParametersIn {
    candidate_labels: Vec<String>,
    /// A sentence with `{}` where the label goes.
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
        let asked = ClassifyIn {
            text: None,
            image,
            image_url,
            labels: parameters.candidate_labels,
            templates: Some(vec![template.unwrap_or_else(|| DEFAULT_TEMPLATE.into())]),
        };
        classify(caller, asked).await.map_err(rename)
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

/// The answer.
pub(crate) fn describe(predictions: Vec<Prediction>) -> Value {
    let each = predictions.into_iter();
    each.map(|p| json!({ "label": p.label, "score": p.probability }))
        .collect()
}
