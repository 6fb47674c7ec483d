//! What answers look like as JSON; `wire` has the requests.

use embedding::{Embedding, Modality, Spaces};
use engine::{
    CalibrationKind, DirectionReport, Durability, Fields, ItemId, Outcome, Payload, Recall, Score,
    ShardPlan, SnapshotInfo, Stats, Target,
};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::openapi::{learning, twins};

/// What is said of a collection.
#[derive(Serialize, ToSchema)]
pub(crate) struct CollectionOut {
    #[schema(example = "demo")]
    pub(crate) name: String,
    /// The spaces of the model that made it, and that searches of it need.
    #[schema(value_type = twins::Spaces)]
    pub(crate) spaces: Spaces,
    /// The fields of payloads that filters may name, with their kinds.
    #[schema(value_type = std::collections::BTreeMap<String, twins::FieldKind>)]
    pub(crate) fields: Fields,
    /// What confidence rests on: from text to image, and from image to text.
    #[schema(value_type = Vec<twins::DirectionReport>)]
    pub(crate) calibration: Vec<DirectionReport>,
    #[schema(value_type = twins::Recall)]
    pub(crate) recall: Recall,
    #[schema(value_type = twins::Stats)]
    pub(crate) stats: Stats,
}

/// All collections, in the order of their names.
#[derive(Serialize, ToSchema)]
pub(crate) struct CollectionsOut {
    pub(crate) collections: Vec<CollectionOut>,
}

/// What confidence rests on now, and how good it is.
#[derive(Serialize, ToSchema)]
pub(crate) struct CalibrationOut {
    /// From text to image, then from image to text.
    #[schema(value_type = Vec<twins::DirectionReport>)]
    pub(crate) calibration: Vec<DirectionReport>,
}

/// One item.
#[derive(Serialize, ToSchema)]
pub(crate) struct ItemOut {
    #[schema(value_type = String, example = "1f34e")]
    pub(crate) id: ItemId,
    /// Changes with every write of the item, and is higher then.
    #[schema(minimum = 1)]
    pub(crate) version: u64,
    #[schema(value_type = twins::Modality)]
    pub(crate) modality: Modality,
    /// What was stored with it.
    #[schema(value_type = Object, additional_properties)]
    pub(crate) payload: Payload,
    /// The words, of a text.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(crate) text: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = EmbeddingsOfItemOut, required = false)]
    pub(crate) embeddings: Option<EmbeddingsOfItemOut>,
}

/// Items in the order of their ids.
#[derive(Serialize, ToSchema)]
pub(crate) struct ListOut {
    /// Without their embeddings.
    pub(crate) items: Vec<ItemOut>,
    /// What to send as `after` for the next page; null where nothing follows. A page with a rare filter may hold
    /// fewer items than `limit`, or none, and yet not be the last.
    #[schema(value_type = Option<String>)]
    pub(crate) next: Option<ItemId>,
}

/// The embeddings of an item, each of unit length.
#[derive(Serialize, ToSchema)]
pub(crate) struct EmbeddingsOfItemOut {
    /// Its place among images and texts.
    #[schema(value_type = Vec<f32>)]
    pub(crate) shared: Embedding,
    /// Its place among its own modality; null where the model has none.
    #[schema(value_type = Option<Vec<f32>>, required)]
    pub(crate) specific: Option<Embedding>,
}

/// What was found.
#[derive(Serialize, ToSchema)]
pub(crate) struct FoundOut {
    /// Best first; with `group_by` group after group, by the best hit of each.
    pub(crate) hits: Vec<HitOut>,
    /// The `cursor` of the next page; null when there is none.
    #[schema(required)]
    pub(crate) next: Option<String>,
    /// What was searched.
    #[schema(value_type = twins::Target)]
    pub(crate) target: Target,
    /// Which embeddings were compared.
    #[schema(value_type = ChosenSpace)]
    pub(crate) space: &'static str,
    /// Milliseconds that the request took.
    #[schema(minimum = 0)]
    pub(crate) took_ms: f64,
    /// What the confidence of hits rests on that are not of the query's own modality.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = twins::CalibrationKind, required = false)]
    pub(crate) calibration: Option<CalibrationKind>,
    /// How it was found, where the request asks for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = ExplainOut, required = false)]
    pub(crate) explain: Option<ExplainOut>,
}

/// Which embeddings were compared.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[expect(dead_code, reason = "only its schema is used")]
pub(crate) enum ChosenSpace {
    Shared,
    Specific,
    Mixed,
}

/// One found item.
#[derive(Serialize, ToSchema)]
pub(crate) struct HitOut {
    #[schema(value_type = String)]
    pub(crate) id: ItemId,
    #[schema(minimum = 1)]
    pub(crate) version: u64,
    #[schema(value_type = twins::Modality)]
    pub(crate) modality: Modality,
    /// Cosine with the query: higher is better. Scores of pictures and of texts do not compare.
    #[schema(value_type = f32)]
    pub(crate) score: Score,
    /// Probability that it is what was looked for, of queries that have an answer in the collection
    /// as often as not; null where it cannot be told or was not asked for.
    #[schema(required, minimum = 0, maximum = 1)]
    pub(crate) confidence: Option<f32>,
    /// What was stored with it.
    #[schema(value_type = Object, additional_properties)]
    pub(crate) payload: Payload,
    /// Value of the field that the hits are grouped by.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Value, required = false)]
    pub(crate) group: Option<Value>,
    /// Ids of items that are nearly the same and rank before the next hit, best first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>, required = false)]
    pub(crate) duplicates: Vec<ItemId>,
    /// The words, of a text.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(crate) text: Option<String>,
    /// Where the picture is shown, if it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(crate) image_url: Option<String>,
}

/// How hits were found.
#[derive(Serialize, ToSchema)]
pub(crate) struct ExplainOut {
    #[schema(value_type = Vec<twins::ShardPlan>)]
    pub(crate) shards: Vec<ShardPlan>,
}

/// What became of one item.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct StoredOut {
    pub(crate) id: String,
    pub(crate) status: Status,
    /// The item's version from now on.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, minimum = 1)]
    pub(crate) version: Option<u64>,
}

/// What a write did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Status {
    Inserted,
    Updated,
    Deleted,
    NotThere,
}

impl StoredOut {
    pub(crate) fn new(id: impl Into<String>, outcome: Outcome) -> Self {
        let (status, version) = match outcome {
            Outcome::Inserted(version) => (Status::Inserted, Some(version)),
            Outcome::Updated(version) => (Status::Updated, Some(version)),
            Outcome::Deleted => (Status::Deleted, None),
            Outcome::NotThere => (Status::NotThere, None),
        };
        Self {
            id: id.into(),
            status,
            version,
        }
    }
}

/// What became of items that were added together.
#[derive(Serialize, ToSchema)]
pub(crate) struct WrittenOut {
    /// In the order of the request.
    pub(crate) items: Vec<StoredOut>,
    #[schema(value_type = twins::Durability)]
    pub(crate) durability: Durability,
    /// Milliseconds that the request took.
    #[schema(minimum = 0)]
    pub(crate) took_ms: f64,
}

/// What became of an item that was written alone.
#[derive(Serialize, ToSchema)]
pub(crate) struct ChangedOut {
    pub(crate) id: String,
    pub(crate) status: Status,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, minimum = 1)]
    pub(crate) version: Option<u64>,
    #[schema(value_type = twins::Durability)]
    pub(crate) durability: Durability,
}

impl ChangedOut {
    pub(crate) fn new(stored: StoredOut, durability: Durability) -> Self {
        let StoredOut {
            id,
            status,
            version,
        } = stored;
        Self {
            id,
            status,
            version,
            durability,
        }
    }
}

/// How well labels fit one thing, or each of several items.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum ClassifiedOut {
    One(ClassifiedOneOut),
    Items(ClassifiedItemsOut),
}

/// How well labels fit.
#[derive(Serialize, ToSchema)]
pub(crate) struct ClassifiedOneOut {
    /// One for each label, the best first.
    pub(crate) predictions: Vec<PredictionOut>,
    /// Whether no label seems to fit; null where that cannot be told, as without a collection.
    #[schema(required)]
    pub(crate) none_of_these: Option<bool>,
    #[schema(value_type = ChosenSpace)]
    pub(crate) space: &'static str,
    /// Milliseconds that the request took.
    #[schema(minimum = 0)]
    pub(crate) took_ms: f64,
}

/// How well labels fit items.
#[derive(Serialize, ToSchema)]
pub(crate) struct ClassifiedItemsOut {
    /// In the order of the ids.
    #[schema(value_type = Vec<learning::PredictionsOut>)]
    pub(crate) items: Vec<Value>,
    #[schema(value_type = ChosenSpace)]
    pub(crate) space: &'static str,
    /// Milliseconds that the request took.
    #[schema(minimum = 0)]
    pub(crate) took_ms: f64,
}

/// How well one label fits.
#[derive(Serialize, ToSchema)]
pub(crate) struct PredictionOut {
    pub(crate) label: String,
    /// How probable the label is. They sum to 1, except where the model is a `SigLIP`, whose labels
    /// each stand for themselves.
    #[schema(minimum = 0, maximum = 1)]
    pub(crate) probability: f64,
    /// Cosine with the label's sentences.
    #[schema(value_type = f32)]
    pub(crate) score: Score,
}

/// The snapshots of a collection.
#[derive(Serialize, ToSchema)]
pub(crate) struct SnapshotsOut {
    pub(crate) snapshots: Vec<SnapshotOut>,
}

/// What a snapshot says of itself.
#[derive(Serialize, ToSchema)]
pub(crate) struct SnapshotOut {
    #[schema(example = "monday")]
    name: String,
    /// The collection that it was made of.
    collection: String,
    /// Name of the model that made the embeddings.
    model: String,
    /// When it was made, in milliseconds since 1970; null where the clock was not known.
    #[schema(required)]
    made_at_ms: Option<u64>,
    /// Number of items.
    items: u64,
    /// Bytes of all its chunks and heads, shared with other snapshots or not.
    bytes: u64,
    /// Number of chunks.
    chunks: usize,
    /// Number of heads.
    heads: usize,
    /// Items that were left out because their records were damaged.
    skipped_items: u64,
    /// The first 100 of them.
    skipped: Vec<String>,
    /// Heads, and versions of heads, that were left out because they were damaged.
    skipped_heads: Vec<String>,
    /// Bytes of the files that are not shared with an earlier snapshot; told when it is made.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    new_bytes: Option<u64>,
}

impl SnapshotOut {
    pub(crate) fn new(name: &str, info: SnapshotInfo, new_bytes: Option<u64>) -> Self {
        Self {
            name: name.to_owned(),
            collection: info.collection,
            model: info.model,
            made_at_ms: info.made_at_ms,
            items: info.items,
            bytes: info.bytes,
            chunks: info.chunks,
            heads: info.heads,
            skipped_items: info.skipped_items,
            skipped: info.skipped,
            skipped_heads: info.skipped_heads,
            new_bytes,
        }
    }
}

/// How the server is.
#[derive(Serialize, ToSchema)]
pub(crate) struct HealthOut {
    /// `ok`: the process answers. `ready`: requests can be sent.
    #[schema(example = "ready")]
    pub(crate) status: &'static str,
}
