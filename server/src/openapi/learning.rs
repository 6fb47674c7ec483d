//! How heads, jobs, maps and explanations look in answers. They are never made; what is answered is put
//! together where it is known.

#![expect(dead_code, reason = "only their schemas are used")]

use serde_json::Value;
use utoipa::ToSchema;

/// Which embeddings a head reads. `both`: one after the other.
#[derive(ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum HeadAspect {
    Shared,
    Specific,
    Both,
}

/// How items to label next are chosen. `margin`: the two most probable labels are near to each other.
/// `entropy`: probabilities are spread evenly. `diverse`: a small margin, and least like each other.
#[derive(ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Strategy {
    Margin,
    Entropy,
    Diverse,
}

/// A version of a head.
#[derive(ToSchema)]
pub(crate) struct HeadOut {
    name: String,
    version: u32,
    /// Those that are kept; in lists alone.
    versions: Option<Vec<u32>>,
    labels: Vec<String>,
    aspect: HeadAspect,
    /// `few_shot`, `zero_shot` or `imported`.
    kind: String,
    /// Whether labels exclude each other not.
    multi_label: bool,
    #[schema(required)]
    made_at: Option<String>,
    /// Examples that it was learned from.
    examples: usize,
    /// Share of examples that heads without them told right; null where none were held out.
    #[schema(required)]
    accuracy: Option<f64>,
    /// How it was made.
    #[schema(value_type = Option<Object>, additional_properties)]
    used: Option<Value>,
    /// How good it is: accuracy with its interval, recall by label, confusion, calibration error.
    #[schema(value_type = Option<Object>, additional_properties)]
    held_out: Option<Value>,
    /// Milliseconds that it took.
    took_ms: Option<f64>,
}

/// The current versions of all heads of a collection.
#[derive(ToSchema)]
pub(crate) struct HeadsOut {
    heads: Vec<HeadOut>,
}

/// What a head says of each input, in the order of the ids and then of the inputs.
#[derive(ToSchema)]
pub(crate) struct PredictedOut {
    #[schema(value_type = Vec<PredictionsOut>)]
    predictions: Vec<PredictionsOut>,
}

/// Labels of one input, or why there are none.
#[derive(ToSchema)]
pub(crate) struct PredictionsOut {
    id: Option<String>,
    labels: Option<Vec<LabelOut>>,
    /// Whether it seems to be nothing that the head knows; null where that cannot be told.
    none_of_these: Option<bool>,
    #[schema(value_type = Option<Object>, additional_properties)]
    error: Option<Value>,
}

/// A label.
#[derive(ToSchema)]
#[schema(as = HeadLabelOut)]
pub(crate) struct LabelOut {
    label: String,
    #[schema(minimum = 0, maximum = 1)]
    probability: f64,
    /// Cosine with the weights of the label.
    score: f32,
}

/// Items whose labels would help most.
#[derive(ToSchema)]
pub(crate) struct SuggestedOut {
    items: Vec<SuggestionOut>,
    version: u32,
    /// Items that were looked at.
    looked_at: usize,
    /// Whether there were more than could be.
    cut_short: bool,
}

/// An item to label.
#[derive(ToSchema)]
pub(crate) struct SuggestionOut {
    id: String,
    uncertainty: f64,
    labels: Vec<LabelOut>,
}

/// Long work.
#[derive(ToSchema)]
pub(crate) struct JobOut {
    id: u64,
    /// `apply_head`, `import` or `reencode`.
    kind: String,
    collection: String,
    /// `queued`, `running`, `done`, `failed` or `canceled`.
    state: String,
    done: u64,
    #[schema(required)]
    total: Option<u64>,
    failed: u64,
    #[schema(required)]
    started_at: Option<String>,
    #[schema(required)]
    ended_at: Option<String>,
    error: Option<String>,
    #[schema(value_type = Option<Object>, additional_properties)]
    result: Option<Value>,
    canceling: Option<bool>,
}

/// Jobs, the last ones first.
#[derive(ToSchema)]
pub(crate) struct JobsOut {
    jobs: Vec<JobOut>,
}

/// A job that was accepted.
#[derive(ToSchema)]
pub(crate) struct AcceptedOut {
    /// Its id; `Location` has the path.
    job: u64,
    /// Lines of the body; of imports alone.
    lines: Option<u64>,
    /// Collection that is filled, and then takes the other's name; of `reencode` alone.
    beside: Option<String>,
}

/// A collection's items as points of a plane.
#[derive(ToSchema)]
pub(crate) struct MapOut {
    ids: Vec<String>,
    xs: Vec<f32>,
    ys: Vec<f32>,
    /// Items that there are; a map has as many of them as were asked for.
    of: usize,
    /// State of the collection that it shows.
    version: u64,
    /// Whether that is the present one.
    current: bool,
}

/// How much of a map is computed.
#[derive(ToSchema)]
pub(crate) struct ProgressOut {
    #[schema(minimum = 0, maximum = 1)]
    progress: f32,
}

/// A grid of cosines over a picture, row by row.
#[derive(ToSchema)]
pub(crate) struct ExplainedOut {
    rows: usize,
    columns: usize,
    /// `rows` times `columns`.
    cosines: Vec<f32>,
    /// Always `shared`.
    space: String,
    took_ms: f64,
}
