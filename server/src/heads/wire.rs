//! What requests about heads look like.

use engine::{HeadAspect, Strategy};
use serde::Deserialize;
use utoipa::ToSchema;

use crate::openapi::learning as twins;

use crate::wire::{Object, object, objects};

/// The body of `PUT .../heads/{h}`: examples, or a field that has labels, or labels alone.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct HeadIn {
    #[serde(default, deserialize_with = "objects")]
    pub(super) examples: Option<Vec<ExampleIn>>,
    #[serde(default, deserialize_with = "object")]
    pub(super) labels_from: Option<LabelsFromIn>,
    /// Alone, what a zero-shot head tells; beside examples, all labels that these may have.
    pub(super) labels: Option<Vec<String>>,
    /// Sentences with `{}` where the label goes, or `"clip"`.
    pub(super) templates: Option<TemplatesIn>,
    #[serde(default)]
    #[schema(value_type = Option<twins::HeadAspect>)]
    pub(super) aspect: HeadAspect,
    pub(super) start: Option<StartIn>,
    pub(super) blend: Option<f64>,
    pub(super) regularization: Option<RegularizationIn>,
    #[serde(default)]
    pub(super) multi_label: bool,
    pub(super) balance: Option<bool>,
    #[serde(default)]
    pub(super) seed: u64,
}

/// One example: exactly one of `id`, `text` and `image`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ExampleIn {
    label: LabelIn,
    id: Option<String>,
    text: Option<String>,
    /// base64 or a data URI.
    image: Option<String>,
}

impl ExampleIn {
    /// What it is labeled as, and what it is.
    pub(super) fn into_parts(self) -> (LabelIn, InputIn) {
        let Self {
            label,
            id,
            text,
            image,
        } = self;
        (label, InputIn { id, text, image })
    }
}

/// A label, or with `multi_label` any number of them.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(untagged, expecting = "expected a label, or an array of labels")]
pub(super) enum LabelIn {
    One(String),
    Many(Vec<String>),
}

/// Exactly one of `id`, `text` and `image`.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = HeadInputIn)]
pub(crate) struct InputIn {
    pub(crate) id: Option<String>,
    pub(crate) text: Option<String>,
    /// base64 or a data URI.
    pub(crate) image: Option<String>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct LabelsFromIn {
    pub(super) field: String,
}

#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(untagged, expecting = "expected an array of templates, or \"clip\"")]
pub(crate) enum TemplatesIn {
    Named(NamedTemplates),
    Own(Vec<String>),
}

#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum NamedTemplates {
    /// The ensemble that CLIP was measured with.
    Clip,
}

/// What weights are pulled towards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum StartIn {
    ZeroShot,
    None,
}

#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(untagged, expecting = "expected a number above 0, or \"auto\"")]
pub(super) enum RegularizationIn {
    Auto(AutoIn),
    Given(f64),
}

#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum AutoIn {
    Auto,
}

/// The body of `POST .../heads/{h}/predict`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PredictIn {
    #[serde(default)]
    pub(super) ids: Vec<String>,
    #[serde(default)]
    pub(super) inputs: Vec<Object<InputIn>>,
    /// Labels of each.
    pub(super) k: Option<usize>,
    pub(super) version: Option<u32>,
}

/// The body of `POST .../heads/{h}/suggest`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SuggestIn {
    pub(super) k: Option<usize>,
    #[serde(default)]
    #[schema(value_type = Option<twins::Strategy>)]
    pub(super) strategy: Strategy,
    /// Read by the engine, which names what is wrong by its path.
    #[schema(value_type = Option<Object>, additional_properties)]
    pub(super) filter: Option<serde_json::Value>,
    pub(super) version: Option<u32>,
}
