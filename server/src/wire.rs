//! What requests and answers look like as JSON. Unknown fields are refused by name.

use std::{fmt, marker::PhantomData};

use actix_web::HttpRequest;
use engine::{Durability, Fields, MAX_PARTS, Payload, Target};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{DeserializeOwned, MapAccess, Visitor, value::MapAccessDeserializer},
};
use utoipa::{IntoParams, ToSchema};

use crate::{heads::TemplatesIn, openapi::twins, reply::ApiError};

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

/// A search: exactly one of `text`, `image`, `id` and `embedding`, or several of them in `parts`.
// What is written again as JSON stands for the search, whichever page of it is asked for.
#[derive(Debug, Default, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SearchIn {
    /// Words for what to look for, at most 32 KiB (`limits.text_bytes`).
    #[schema(min_length = 1, max_length = 32768, example = "rainbow")]
    pub(crate) text: Option<String>,
    /// A picture like what to look for, as base64 or a data URI.
    #[schema(min_length = 1)]
    pub(crate) image: Option<String>,
    /// The address of a picture, where the operator allows its host.
    pub(crate) image_url: Option<String>,
    /// Id of an item like what to look for. It does not come back itself.
    #[schema(min_length = 1, max_length = 512)]
    pub(crate) id: Option<String>,
    /// An embedding of the space that is searched.
    pub(crate) embedding: Option<RowIn>,
    /// Several things to look for, or to avoid, at once.
    #[serde(default, deserialize_with = "objects")]
    #[schema(min_items = 1, max_items = 32)]
    pub(crate) parts: Option<Vec<PartIn>>,
    /// Left out, images, unless there are only texts; in a specific space the query's own modality.
    #[schema(value_type = Option<twins::Target>)]
    pub(crate) target: Option<Target>,
    /// Most hits; with `group_by` most groups. At most `limits.k`.
    #[serde(skip_serializing_if = "of_page")]
    #[schema(minimum = 1, maximum = 1000, default = 10)]
    pub(crate) k: Option<usize>,
    #[serde(default)]
    pub(crate) space: SpaceIn,
    /// The specific space's part of a score when `space` is `mixed`; not with any other.
    #[schema(exclusive_minimum = 0, exclusive_maximum = 1, default = 0.5)]
    pub(crate) specific_share: Option<f32>,
    /// Whether every item is compared instead of asking an index.
    #[serde(default)]
    pub(crate) exact: bool,
    /// How many candidates a graph keeps; left out, as many as the recall of the collection needs.
    #[schema(minimum = 1, maximum = 65536)]
    pub(crate) ef_search: Option<usize>,
    // Read by the engine, which names what is wrong by its path.
    /// Which items may be found; left out, all.
    #[schema(value_type = Option<twins::Filter>)]
    pub(crate) filter: Option<serde_json::Value>,
    /// Ids of items that must not come back.
    #[serde(default)]
    #[schema(max_items = 1000)]
    pub(crate) exclude: Vec<String>,
    /// Least score of a hit.
    #[schema(minimum = -1, maximum = 1)]
    pub(crate) min_score: Option<f32>,
    /// Least confidence of a hit; .5 is a good start. Only for one thing in one space.
    #[schema(minimum = 0, maximum = 1)]
    pub(crate) min_confidence: Option<f32>,
    /// Whether hits say how sure they are.
    #[serde(default = "yes", skip_serializing_if = "of_page")]
    #[schema(default = true)]
    pub(crate) confidence: bool,
    /// Hits to leave out, from the best on. Follow `cursor` to get farther.
    #[serde(default)]
    #[schema(maximum = 10000, default = 0)]
    pub(crate) offset: usize,
    /// `next` of the page before; all else as in its request but `k`, `confidence` and `explain`.
    #[serde(skip_serializing_if = "of_page")]
    pub(crate) cursor: Option<String>,
    /// Puts hits together that have a value of a payload field in common.
    #[serde(default, deserialize_with = "object")]
    pub(crate) group_by: Option<GroupByIn>,
    /// Cosine with a better hit from which on an item does not come back, but is named in the
    /// `duplicates` of that hit.
    #[schema(minimum = -1, maximum = 1)]
    pub(crate) collapse: Option<f32>,
    /// Trades likeness to the query for unlikeness among the hits. Neither with groups nor with later
    /// pages.
    #[schema(exclusive_minimum = 0, maximum = 1)]
    pub(crate) diversity: Option<f32>,
    /// Whether the answer says how it was found.
    #[serde(default, skip_serializing_if = "of_page")]
    pub(crate) explain: bool,
}

/// A value whose JSON is an object, and nothing else.
#[derive(Debug)]
pub(crate) struct Object<T>(pub(crate) T);

/// What is derived for a struct takes an array of its fields in their order, too, which nobody means.
impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Fields<T> {
            type Value = Object<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Object)
            }
        }

        deserializer.deserialize_map(Fields(PhantomData))
    }
}

/// Reads what may be left out.
pub(crate) fn object<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    d: D,
) -> Result<Option<T>, D::Error> {
    Ok(Option::<Object<T>>::deserialize(d)?.map(|Object(value)| value))
}

/// Reads several of what may be left out.
pub(crate) fn objects<'de, D, T>(deserializer: D) -> Result<Option<Vec<T>>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    let all = Option::<Vec<Object<T>>>::deserialize(deserializer)?;
    Ok(all.map(|all| all.into_iter().map(|Object(value)| value).collect()))
}

/// One of the things that are looked for: exactly one of `text`, `image`, `id` and `embedding`.
#[derive(Debug, Default, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PartIn {
    #[schema(min_length = 1, max_length = 32768)]
    pub(crate) text: Option<String>,
    /// A picture file as base64 or a data URI.
    #[schema(min_length = 1)]
    pub(crate) image: Option<String>,
    /// The address of a picture, where the operator allows its host.
    pub(crate) image_url: Option<String>,
    /// Id of an item.
    #[schema(min_length = 1, max_length = 512)]
    pub(crate) id: Option<String>,
    pub(crate) embedding: Option<RowIn>,
    /// How much it counts, not 0; below 0, how much what is like it is avoided.
    #[schema(default = 1.0)]
    pub(crate) weight: Option<f32>,
}

/// A field of payloads that hits are put together by.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct GroupByIn {
    /// Need not be declared. Of an array the first value counts; an item without a value is a group
    /// of its own.
    pub(crate) field: String,
    /// Most hits of one group.
    #[serde(default = "one")]
    #[schema(minimum = 1, maximum = 100, default = 1)]
    pub(crate) hits: usize,
}

/// What differs between pages of one search is not written. (What serde always skips, utoipa leaves out.)
fn of_page<T>(_: &T) -> bool {
    true
}

fn one() -> usize {
    1
}

fn yes() -> bool {
    true
}

impl SearchIn {
    /// Takes out what is looked for, each with its path in the request.
    pub(crate) fn parts(&mut self) -> Result<Vec<(String, PartIn)>, ApiError> {
        let alone = PartIn {
            text: self.text.take(),
            image: self.image.take(),
            image_url: self.image_url.take(),
            id: self.id.take(),
            embedding: self.embedding.take(),
            weight: None,
        };
        let Some(parts) = self.parts.take() else {
            return Ok(vec![(String::new(), alone)]);
        };
        let others = [
            ("text", alone.text.is_some()),
            ("image", alone.image.is_some()),
            ("image_url", alone.image_url.is_some()),
            ("id", alone.id.is_some()),
            ("embedding", alone.embedding.is_some()),
        ];
        if let Some((field, _)) = others.into_iter().find(|(_, is)| *is) {
            let message = format!("`parts` and `{field}` do not go together: make it one of them");
            return Err(ApiError::invalid(field, message));
        }
        if !(1..=MAX_PARTS).contains(&parts.len()) {
            let message = format!("{} parts, expected 1 to {MAX_PARTS}", parts.len());
            return Err(ApiError::invalid("parts", message));
        }
        let path = |i| format!("parts[{i}]");
        let parts = parts.into_iter().enumerate();
        Ok(parts.map(|(i, part)| (path(i), part)).collect())
    }
}

/// A row of numbers, or base64 of little-endian f32.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(
    untagged,
    expecting = "expected an array of numbers or base64 of little-endian f32"
)]
pub(crate) enum RowIn {
    Numbers(Vec<f32>),
    Base64(String),
}

/// Which embeddings are compared. `shared`: those in which images and texts meet. `specific`: those
/// that keep what only one modality knows. `mixed`: both, by a weighted mean of the two cosines.
/// `auto`: the server chooses, and says what it chose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum SpaceIn {
    /// The server chooses, and says what it chose.
    #[default]
    Auto,
    /// Where images and texts meet.
    Shared,
    /// What only one modality knows.
    Specific,
    /// Both, by a weighted mean of the two cosines.
    Mixed,
}

impl SpaceIn {
    /// What was chosen.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Auto | Self::Shared => "shared",
            Self::Specific => "specific",
            Self::Mixed => "mixed",
        }
    }
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

/// Reads what follows `?` in the address of a request.
pub(crate) fn query<T: DeserializeOwned>(request: &HttpRequest) -> Result<T, ApiError> {
    let read = actix_web::web::Query::<T>::from_query(request.query_string());
    let read = read.map_err(|error| ApiError::invalid("query string", error.to_string()))?;
    Ok(read.into_inner())
}

/// Reads a JSON object; an error names the field by its path.
pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    parse_value(bytes).map(|Object(value)| value)
}

/// Reads any JSON; an error names the field by its path.
pub(crate) fn parse_value<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let path = error.path().to_string();
        refuse(&path, error.inner())
    })?;
    reader.end().map_err(|error| ApiError::Json {
        message: error.to_string(),
    })?;
    Ok(value)
}

fn refuse(path: &str, error: &serde_json::Error) -> ApiError {
    let message = error.to_string();
    if !error.is_data() {
        return ApiError::Json { message };
    }
    let outer = if path == "." { "" } else { path };
    // serde reports these at the object that holds the field; the client wants the field.
    let named = ["unknown field `", "missing field `"]
        .iter()
        .find_map(|start| message.strip_prefix(start)?.split('`').next());
    let field = match named {
        Some(name) if outer == name || outer.ends_with(&format!(".{name}")) => outer.to_owned(),
        Some(name) if outer.is_empty() => name.to_owned(),
        Some(name) => format!("{outer}.{name}"),
        None if outer.is_empty() => "body".to_owned(),
        None => outer.to_owned(),
    };
    ApiError::Invalid { field, message }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field<T: DeserializeOwned>(json: &str) -> String {
        match parse_value::<T>(json.as_bytes()) {
            Err(ApiError::Invalid { field, .. }) => field,
            Err(other) => panic!("{json}: {other}"),
            Ok(_) => panic!("{json} is read"),
        }
    }

    #[test]
    fn the_field_that_is_wrong_is_named() {
        assert_eq!(field::<SearchIn>(r#"{"txt": "a"}"#), "txt");
        assert_eq!(field::<SearchIn>(r#"{"text": "a", "k": -1}"#), "k");
        assert_eq!(
            field::<SearchIn>(r#"{"text": "a", "target": "video"}"#),
            "target"
        );
        assert_eq!(field::<SearchIn>(r#"{"embedding": {"a": 1}}"#), "embedding");
        assert_eq!(field::<ClassifyIn>(r#"{"text": "a"}"#), "labels");
        assert_eq!(
            field::<ClassifyIn>(r#"{"text": "a", "labels": ["b", 3]}"#),
            "labels[1]"
        );
        assert_eq!(
            field::<Vec<ItemIn>>(r#"[{"text": "a"}, {"image": 3}]"#),
            "[1].image"
        );
        assert_eq!(field::<Vec<ItemIn>>(r#"[{"tags": 1}]"#), "[0].tags");
        assert_eq!(
            field::<CollectionIn>(r#"{"fields": {"size": "number"}}"#),
            "fields.size"
        );
        assert_eq!(
            field::<CollectionIn>(r#"{"fields": {"": "bool"}}"#),
            "fields"
        );
        assert_eq!(field::<ItemIn>("3"), "body");
    }

    #[test]
    fn what_is_no_json_is_told_from_a_wrong_value() {
        for json in ["", "{", "{\"text\": \"a\"} x", "\u{e9}"] {
            let refused = parse::<ItemIn>(json.as_bytes());
            assert!(matches!(refused, Err(ApiError::Json { .. })), "{json:?}");
        }
    }
}
