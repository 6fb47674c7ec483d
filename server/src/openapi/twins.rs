//! How types of other crates look as JSON. `engine` and `encoders` know nothing of `OpenAPI`, so
//! that each has a twin here, which is never made; tests compare what is answered with these.

#![expect(dead_code, reason = "only their schemas are used")]

use utoipa::ToSchema;

/// What kind of thing an item is.
#[derive(ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Modality {
    Text,
    Image,
}

/// Which items a search looks at. With `both`, pictures and texts are ranked in one list where
/// neither hides the other.
#[derive(ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Target {
    Image,
    Text,
    Both,
}

/// When a write is answered. `flushed`: when it survives a kill and a power cut. `buffered`: when
/// everybody sees it; it is written out within 200 ms, or with the next write that is flushed.
#[derive(ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(default = "flushed")]
pub(crate) enum Durability {
    Flushed,
    Buffered,
}

/// What the values of a field are; an array of them is fine, too. `keyword`: strings of at most
/// 512 bytes. `integer`: whole numbers between -2^63 and 2^63 - 1. `float`: numbers. `bool`: `true`
/// and `false`. `datetime`: strings as in RFC 3339, kept to the microsecond.
#[derive(ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum FieldKind {
    Keyword,
    Integer,
    Float,
    Bool,
    Datetime,
}

/// The spaces that one model fills. Embeddings meet only when they are of one model.
#[derive(ToSchema)]
pub(crate) struct Spaces {
    /// Name of the model, for people.
    model: String,
    /// Identity of the model, for machines: 32 hexadecimal digits.
    #[schema(pattern = "^[0-9a-f]{32}$")]
    fingerprint: String,
    /// Numbers of a shared embedding.
    shared_dim: usize,
    /// Numbers of a text's specific embedding; null where nothing specific is left.
    #[schema(required)]
    specific_text_dim: Option<usize>,
    /// The same for images.
    #[schema(required)]
    specific_image_dim: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scoring: Option<Scoring>,
}

/// How a cosine of a picture and a text becomes a probability.
#[derive(ToSchema)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub(crate) enum Scoring {
    /// Labels against each other: their probabilities sum to 1.
    Softmax {
        /// Factor from cosines to logits.
        logit_scale: f32,
    },
    /// Each label for itself: any number of them may fit, or none.
    Sigmoid {
        /// Factor from cosines to logits.
        logit_scale: f32,
        /// Added to the scaled cosine.
        logit_bias: f32,
    },
}

/// How full a collection is. `sealed_rows + tail_rows - deleted_rows` is `items`.
#[derive(ToSchema)]
pub(crate) struct Stats {
    /// Items that can be found.
    items: usize,
    /// Images among them.
    images: usize,
    /// Texts among them.
    texts: usize,
    /// Items whose record is damaged: they are not found, and an error when asked for by id.
    damaged_items: usize,
    /// Rows under a sealed index, deleted ones too.
    sealed_rows: usize,
    /// Rows that are scanned exactly, deleted ones too.
    tail_rows: usize,
    /// Rows that wait for the next seal to be dropped.
    deleted_rows: usize,
    /// Whether an index is being built, or waits for it.
    sealing: bool,
    /// Parts that the items of each modality are split into by their id.
    shards: usize,
}

/// What the confidence of hits rests on. `default`: coefficients that come with the engine, a
/// starting point. `self`: pairs that the collection's own items suggest. `pairs`: pairs that were
/// given.
#[derive(ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum CalibrationKind {
    Default,
    #[serde(rename = "self")]
    SelfFitted,
    Pairs,
}

/// How good the confidence of one direction is, on queries that the fit had not seen.
#[derive(ToSchema)]
pub(crate) struct DirectionReport {
    /// What is asked with.
    from: Modality,
    /// What is found.
    to: Modality,
    /// What is in force.
    calibration: CalibrationKind,
    /// Pairs that were tried; 0 when none ever were.
    pairs: usize,
    /// Area under the ROC curve of the first hit's confidence, true item there or not; null before
    /// any fit.
    #[schema(required, minimum = 0, maximum = 1)]
    roc_auc: Option<f64>,
    /// The same for the bare cosine.
    #[schema(required, minimum = 0, maximum = 1)]
    cosine_roc_auc: Option<f64>,
    /// Expected calibration error of the confidence of first hits, over ten bins.
    #[schema(required, minimum = 0, maximum = 1)]
    calibration_error: Option<f64>,
}

/// Recall of the collection's live searches: a share of them is repeated exactly in the background.
#[derive(ToSchema)]
pub(crate) struct Recall {
    /// What it is kept above, as far as more candidates can.
    target: f64,
    /// Searches that were repeated since the start.
    audited_queries: u64,
    /// Searches that were to be repeated, but too many were waiting.
    dropped_queries: u64,
    /// For each kind of items that was searched.
    lanes: Vec<LaneRecall>,
}

/// Recall among the items of one modality in one aspect.
#[derive(ToSchema)]
pub(crate) struct LaneRecall {
    /// Of the items found.
    modality: Modality,
    /// Of the embeddings compared: `shared`, `specific-image` or `specific-text`.
    aspect: String,
    /// Candidates that a search keeps which does not say how many.
    ef_search: usize,
    /// By the part of the items that passed the filter; only those that occurred.
    by_selectivity: Vec<SelectivityRecall>,
}

/// Recall at one selectivity, over about the last few hundred audited searches.
#[derive(ToSchema)]
pub(crate) struct SelectivityRecall {
    selectivity: Selectivity,
    /// Part of the true nearest items that were found.
    #[schema(minimum = 0, maximum = 1)]
    recall: f64,
    /// Searches that it is counted over; older ones count in part.
    #[schema(minimum = 0)]
    queries: f64,
}

/// Part of the items that passed the filter; `all` where there was none.
#[derive(ToSchema)]
pub(crate) enum Selectivity {
    #[serde(rename = "all")]
    All,
    #[serde(rename = "0.5-1")]
    Half,
    #[serde(rename = "0.1-0.5")]
    Tenth,
    #[serde(rename = "0.01-0.1")]
    Hundredth,
    #[serde(rename = "0.001-0.01")]
    Thousandth,
    #[serde(rename = "0-0.001")]
    Fewer,
}

/// How one shard was searched.
#[derive(ToSchema)]
pub(crate) struct ShardPlan {
    /// Which shard: modality, part, aspect.
    shard: String,
    plan: Plan,
    /// Whether the graph found too few or took too long, so that the matching rows were scanned.
    fell_back: bool,
    /// Sealed rows.
    sealed_rows: usize,
    /// Rows of the tail.
    tail_rows: usize,
    /// Sealed rows that match the filter, as the choice was made by.
    estimated_matching: usize,
    /// Live rows that match, sealed and tail.
    matching: usize,
    /// Rows that the query was compared with.
    distances: usize,
    /// Candidates that the graph kept; 0 where it was not used.
    ef_search: usize,
}

/// A way to search the sealed rows of a shard. `scan_matching`: compare with exactly the rows that
/// match. `graph`: walk the graph, keeping those that match. `scan_all`: compare with all rows in
/// order, and keep the nearest of those that match.
#[derive(ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Plan {
    ScanMatching,
    Graph,
    ScanAll,
}

/// Which items may be found, by fields that the collection has declared: all of `must` hold, at
/// least one of `should` (when there are any), none of `must_not`. At most 8 deep, and 256
/// conditions and filters in all.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"must": [{"field": "size", "gte": 3, "lt": 9}]}))]
pub(crate) struct Filter {
    #[serde(default)]
    #[schema(max_items = 256)]
    must: Vec<Clause>,
    #[serde(default)]
    #[schema(max_items = 256)]
    should: Vec<Clause>,
    #[serde(default)]
    #[schema(max_items = 256)]
    must_not: Vec<Clause>,
}

/// A condition, or again a filter.
#[derive(ToSchema)]
#[serde(untagged)]
pub(crate) enum Clause {
    Condition(Condition),
    #[schema(no_recursion)]
    Filter(Filter),
}

/// What is asked of a field: one of `eq`, `in`, `contains` and `exists`, or a range. It holds when it
/// holds for any value of an item.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Condition {
    /// Name of a declared field.
    #[schema(min_length = 1, max_length = 128)]
    field: String,
    /// It is this value.
    #[schema(required = false)]
    eq: Scalar,
    /// It is one of these.
    #[serde(rename = "in")]
    #[schema(required = false, max_items = 1024)]
    one_of: Vec<Scalar>,
    /// Of `keyword` fields: it has these characters in it, in upper or lower case.
    #[schema(required = false)]
    contains: String,
    /// There is any value, or there is none.
    #[schema(required = false)]
    exists: bool,
    /// It is greater than this; not beside `gte`.
    #[schema(required = false)]
    gt: Scalar,
    /// It is at least this.
    #[schema(required = false)]
    gte: Scalar,
    /// It is less than this; not beside `lte`.
    #[schema(required = false)]
    lt: Scalar,
    /// It is at most this.
    #[schema(required = false)]
    lte: Scalar,
}

/// A value as the kind of its field has it.
#[derive(ToSchema)]
#[serde(untagged)]
pub(crate) enum Scalar {
    Text(String),
    Number(f64),
    Flag(bool),
}

/// What is said of a model.
#[derive(ToSchema)]
pub(crate) struct ModelInfo {
    name: String,
    /// `clip`, `siglip` (`SigLIP`, and `SigLIP` 2 of one resolution), `siglip2` (its `NaFlex`) or
    /// `diptych`.
    family: String,
    spaces: Spaces,
    /// Longest text in tokens, special ones included; longer ones are cut.
    context_length: usize,
    /// Side in pixels of the square pictures that it was trained on.
    image_size: usize,
    /// Height and width in pixels of what pictures are made to; null where each keeps nearly its own
    /// proportions.
    #[schema(required, min_items = 2, max_items = 2)]
    input_size: Option<Vec<usize>>,
    /// Number of weights that were learned.
    parameters: usize,
    scoring: Scoring,
    /// How the text tower runs.
    text: TowerInfo,
    /// How the image tower runs.
    image: TowerInfo,
    /// License of the weights, where the model says it.
    #[schema(required)]
    license: Option<String>,
    /// Languages that the text tower was trained for, as BCP 47 writes them; empty where the model
    /// does not say.
    languages: Vec<String>,
    /// What it is for and where it comes from, where the model says it.
    #[schema(required)]
    description: Option<String>,
}

/// How a tower runs.
#[derive(ToSchema)]
pub(crate) struct TowerInfo {
    precision: Precision,
    /// The instruction set of its kernels; `reference` where it does not run on packed weights.
    kernels: String,
    /// Bytes of packed weights; 0 where they are not packed.
    packed_bytes: usize,
    /// How far its embeddings of known inputs were from the stored ones at load; null where the model
    /// brings none.
    #[schema(required)]
    probes: Option<Deviation>,
}

/// How weights and activations are stored.
#[derive(ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Precision {
    F32,
    Int16,
    Bf16,
    Int8,
}

/// How far embeddings are from the stored ones.
#[derive(ToSchema)]
pub(crate) struct Deviation {
    /// Least cosine of an embedding to the stored one.
    least_cosine: f32,
    /// Largest difference of an element.
    max_abs: f32,
}

/// Bytes as they are.
#[derive(ToSchema)]
#[schema(value_type = String, format = Binary)]
pub(crate) struct Bytes(Vec<u8>);
