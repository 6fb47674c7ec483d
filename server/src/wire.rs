//! What requests and answers look like as JSON. Unknown fields are refused by name.

mod read;
mod search;

use embedding::Modality;
use engine::{Durability, Fields, Payload};
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

pub(crate) use self::{
    read::{Object, object, objects, parse, parse_value, query},
    search::{PartIn, RowIn, SearchIn, SpaceIn},
};
use crate::{heads::TemplatesIn, openapi::twins};

/// One item to be kept: exactly one of `text` and `image`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ItemIn {
    /// Without control characters. Left out, it is the first 32 digits of the BLAKE3 hash of the
    /// content, so that adding the same content again makes no second item.
    #[schema(min_length = 1, max_length = 512)]
    pub(crate) id: Option<String>,
    /// At most 32 KiB (`limits.text_bytes`). Longer than what the model reads, it is cut for the
    /// embedding and kept whole.
    #[schema(min_length = 1, max_length = 32768)]
    pub(crate) text: Option<String>,
    /// A picture file as base64 or a data URI: JPEG, PNG, WebP, GIF, BMP or TIFF, of at most 32 MiB
    /// (`limits.picture_bytes`) and 50 megapixels (`limits.picture_pixels`). Nothing is fetched from
    /// an address.
    #[schema(min_length = 1)]
    pub(crate) image: Option<String>,
    /// The address of a picture, where the operator allows its host.
    pub(crate) image_url: Option<String>,
    /// Comes back with every hit; at most 64 KiB of JSON (`limits.payload_bytes`). Fields that the
    /// collection has declared must be of their kind.
    #[schema(value_type = Option<Object>, additional_properties)]
    pub(crate) payload: Option<Payload>,
    /// Version that the item must have; 0 when it must not be there. Otherwise 409.
    pub(crate) if_version: Option<u64>,
}

/// One item, or up to 1,000 (`limits.items`).
#[derive(ToSchema)]
#[serde(untagged)]
#[expect(
    dead_code,
    reason = "only its schema is used: errors name the item that is wrong"
)]
pub(crate) enum ItemsIn {
    One(ItemIn),
    Many(Vec<ItemIn>),
}

/// Picture files, each after what belongs to it.
#[derive(ToSchema)]
#[expect(
    dead_code,
    reason = "only its schema is used: a form is read as it comes in"
)]
pub(crate) struct FormIn {
    /// Id of the next file's item.
    #[schema(required = false, min_length = 1, max_length = 512)]
    id: String,
    /// Version that the next file's item must have; 0 when it must not be there.
    #[schema(required = false)]
    if_version: u64,
    /// Payload of the next file's item, a JSON object. Without a `name` it gets that of the file.
    #[schema(value_type = Object, additional_properties, required = false)]
    payload: Payload,
    /// A picture file; the field may have any name.
    #[schema(value_type = String, format = Binary)]
    picture: Vec<u8>,
}

/// A change of an item's payload.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PatchIn {
    /// A JSON merge patch (RFC 7386): what is `null` is removed, objects are merged, everything else
    /// takes the place of what was there.
    #[schema(value_type = Object, additional_properties)]
    pub(crate) payload: Payload,
    /// Version that the item must have. Otherwise 409.
    pub(crate) if_version: Option<u64>,
}

/// What is classified: exactly one of `text`, `image`, `image_url` and `ids`, among `labels`.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ClassifyIn {
    /// At most 32 KiB (`limits.text_bytes`).
    #[schema(min_length = 1, max_length = 32768)]
    pub(crate) text: Option<String>,
    /// A picture file as base64 or a data URI.
    #[schema(min_length = 1)]
    pub(crate) image: Option<String>,
    /// The address of a picture, where the operator allows its host.
    pub(crate) image_url: Option<String>,
    /// Items of `collection`, at most 1,000 (`limits.items`). One that is absent fails alone.
    #[schema(min_items = 1, max_items = 1000)]
    pub(crate) ids: Option<Vec<String>>,
    /// All different; at most `limits.labels`.
    #[schema(min_items = 1, max_items = 1000)]
    pub(crate) labels: Vec<String>,
    /// Sentences with one `{}` each where the label goes, or `"clip"`; the mean over them stands for the
    /// label. Labels times templates are at most 10,000 (`limits.prompts`). Left out, the server has some.
    pub(crate) templates: Option<TemplatesIn>,
    /// Its items say whether any label fits at all.
    pub(crate) collection: Option<String>,
    /// Whether any number of labels may fit. Where the model only tells labels from each other, that takes
    /// a `collection` of 16 items.
    #[serde(default)]
    pub(crate) multi_label: bool,
    /// Labels of each, the best ones; left out, all of one thing, and five of each of `ids`.
    #[schema(minimum = 1, maximum = 1000)]
    pub(crate) k: Option<usize>,
}

/// What a collection should have.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CollectionIn {
    /// Fields of payloads that filters may name, at most 64, with names of 1 to 128 bytes. Those that
    /// are there stay.
    #[serde(default)]
    #[schema(value_type = std::collections::BTreeMap<String, twins::FieldKind>)]
    pub(crate) fields: Fields,
}

/// A snapshot that should be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SnapshotIn {
    /// 1 to 64 of a-z, 0-9, _ and -, starting with a letter or a digit.
    #[schema(pattern = "^[a-z0-9][a-z0-9_-]{0,63}$", example = "monday")]
    pub(crate) name: String,
    /// Whether damaged items and heads are left out and listed; otherwise one makes the request fail.
    #[serde(default)]
    pub(crate) skip_damaged: bool,
}

/// What a snapshot should become.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RestoreIn {
    /// Name of the new collection.
    #[schema(pattern = "^[a-z0-9][a-z0-9_-]{0,63}$", example = "mine-again")]
    pub(crate) into: String,
}

/// What confidence should be fitted on.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CalibrateIn {
    /// Ids of what is asked with and of what should be found, a text and an image in any order; at
    /// least 50 pairs. Left out, the collection's own items suggest them.
    #[schema(value_type = Option<Vec<[String; 2]>>)]
    pub(crate) pairs: Option<Vec<(String, String)>>,
}

/// The body of `POST .../heads/{h}/rollback`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RollBackIn {
    pub(crate) version: u32,
}

/// What may follow `?` when a head is asked for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct VersionQuery {
    /// The current one, unless another is named.
    pub(crate) version: Option<u32>,
}

/// What may follow `?` when one item is asked for.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ItemQuery {
    /// Whether the answer holds the embeddings.
    #[serde(default)]
    #[param(default = false)]
    pub(crate) embeddings: bool,
}

/// What may follow `?` when items are listed.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListQuery {
    /// A filter as in a search, as JSON: `{"must": [{"field": "kind", "eq": "fruit"}]}`.
    #[param(example = json!("{}"))]
    pub(crate) filter: Option<String>,
    /// Pictures or texts; both where it is left out.
    #[param(value_type = Option<crate::openapi::twins::Modality>, inline)]
    pub(crate) modality: Option<Modality>,
    /// Items of a page, at most.
    #[serde(default = "page_size")]
    #[param(minimum = 1, maximum = 1000, default = 100, required = false)]
    pub(crate) limit: usize,
    /// The `next` of the page before.
    #[param(min_length = 1, max_length = 512)]
    pub(crate) after: Option<String>,
}

/// Items of a page where nobody says.
fn page_size() -> usize {
    100
}

/// What may follow `?` when items are added or changed.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct WriteQuery {
    /// When the write is answered.
    #[serde(default)]
    #[param(value_type = Option<twins::Durability>, inline)]
    pub(crate) durability: Durability,
}

/// What may follow `?` when an item is deleted.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct DeleteQuery {
    /// Version that the item must have. Otherwise 409.
    pub(crate) if_version: Option<u64>,
    /// When the write is answered.
    #[serde(default)]
    #[param(value_type = Option<twins::Durability>, inline)]
    pub(crate) durability: Durability,
}
