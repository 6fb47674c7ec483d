//! What requests and answers look like as JSON. Unknown fields are refused by name.

use std::{fmt, marker::PhantomData};

use actix_web::HttpRequest;
use engine::{Durability, Fields, MAX_PARTS, Outcome, Payload, Target};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{DeserializeOwned, MapAccess, Visitor, value::MapAccessDeserializer},
};

use crate::reply::ApiError;

/// One item to be kept: exactly one of `text` and `image`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ItemIn {
    /// Default: the first 32 digits of the BLAKE3 hash of the content, so that adding the same
    /// content again changes nothing.
    pub(crate) id: Option<String>,
    pub(crate) text: Option<String>,
    /// base64 or a data URI.
    pub(crate) image: Option<String>,
    /// The address of a picture, where the operator allows its host.
    pub(crate) image_url: Option<String>,
    pub(crate) payload: Option<Payload>,
    /// Version that the item must have; 0 when it must not be there.
    pub(crate) if_version: Option<u64>,
}

/// A change of an item's payload.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PatchIn {
    /// A JSON merge patch (RFC 7386).
    pub(crate) payload: Payload,
    pub(crate) if_version: Option<u64>,
}

/// A search: exactly one of `text`, `image`, `id` and `embedding`, or several of them in `parts`.
/// What is written again as JSON stands for the search, whichever page of it is asked for.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SearchIn {
    pub(crate) text: Option<String>,
    pub(crate) image: Option<String>,
    /// The address of a picture, where the operator allows its host.
    pub(crate) image_url: Option<String>,
    pub(crate) id: Option<String>,
    pub(crate) embedding: Option<RowIn>,
    #[serde(default, deserialize_with = "objects")]
    pub(crate) parts: Option<Vec<PartIn>>,
    pub(crate) target: Option<Target>,
    #[serde(skip_serializing)]
    pub(crate) k: Option<usize>,
    #[serde(default)]
    pub(crate) space: SpaceIn,
    /// The specific space's part of a score when `space` is `mixed`.
    pub(crate) specific_share: Option<f32>,
    #[serde(default)]
    pub(crate) exact: bool,
    pub(crate) ef_search: Option<usize>,
    /// Read by the engine, which names what is wrong by its path.
    pub(crate) filter: Option<serde_json::Value>,
    /// Ids of items that must not come back.
    #[serde(default)]
    pub(crate) exclude: Vec<String>,
    pub(crate) min_score: Option<f32>,
    pub(crate) min_confidence: Option<f32>,
    /// Whether hits say how sure they are.
    #[serde(default = "yes", skip_serializing)]
    pub(crate) confidence: bool,
    /// Hits to leave out, from the best on.
    #[serde(default)]
    pub(crate) offset: usize,
    /// `next` of the page before.
    #[serde(skip_serializing)]
    pub(crate) cursor: Option<String>,
    #[serde(default, deserialize_with = "object")]
    pub(crate) group_by: Option<GroupByIn>,
    /// Cosine from which items are nearly the same.
    pub(crate) collapse: Option<f32>,
    pub(crate) diversity: Option<f32>,
    /// Whether the answer says how it was found.
    #[serde(default, skip_serializing)]
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
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PartIn {
    pub(crate) text: Option<String>,
    pub(crate) image: Option<String>,
    /// The address of a picture, where the operator allows its host.
    pub(crate) image_url: Option<String>,
    pub(crate) id: Option<String>,
    pub(crate) embedding: Option<RowIn>,
    /// How much it counts; below 0, how much what is like it is avoided.
    pub(crate) weight: Option<f32>,
}

/// A field of payloads that hits are put together by.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct GroupByIn {
    pub(crate) field: String,
    /// Most hits of one group.
    #[serde(default = "one")]
    pub(crate) hits: usize,
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
#[derive(Debug, Deserialize, Serialize)]
#[serde(
    untagged,
    expecting = "expected an array of numbers or base64 of little-endian f32"
)]
pub(crate) enum RowIn {
    Numbers(Vec<f32>),
    Base64(String),
}

/// Which embeddings are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
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

/// What is classified: exactly one of `text` and `image`, among `labels`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ClassifyIn {
    pub(crate) text: Option<String>,
    pub(crate) image: Option<String>,
    /// The address of a picture, where the operator allows its host.
    pub(crate) image_url: Option<String>,
    pub(crate) labels: Vec<String>,
    /// Sentences with `{}` where the label goes; the mean over them stands for the label.
    pub(crate) templates: Option<Vec<String>>,
}

/// The optional body of `PUT /v1/collections/{c}`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CollectionIn {
    /// Fields of payloads that filters may name; those that are there stay.
    #[serde(default)]
    pub(crate) fields: Fields,
}

/// The body of `POST /v1/collections/{c}/snapshots`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SnapshotIn {
    pub(crate) name: String,
    /// Whether damaged items are left out and listed; otherwise one makes the request fail.
    #[serde(default)]
    pub(crate) skip_damaged: bool,
}

/// The body of `POST /v1/collections/{c}/snapshots/{s}/restore`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RestoreIn {
    /// Name of the new collection.
    pub(crate) into: String,
}

/// The optional body of `POST /v1/collections/{c}/calibrate`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CalibrateIn {
    /// Ids of what is asked with and of what should be found, a text and an image in any order.
    pub(crate) pairs: Option<Vec<(String, String)>>,
}

/// The body of `POST .../heads/{h}/rollback`.
#[derive(Debug, Deserialize)]
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
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ItemQuery {
    /// Whether the answer holds the embeddings.
    #[serde(default)]
    pub(crate) embeddings: bool,
}

/// What may follow `?` when items are added or changed.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WriteQuery {
    #[serde(default)]
    pub(crate) durability: Durability,
}

/// What may follow `?` when an item is deleted.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DeleteQuery {
    pub(crate) if_version: Option<u64>,
    #[serde(default)]
    pub(crate) durability: Durability,
}

/// What became of one item.
#[derive(Debug, Serialize)]
pub(crate) struct StoredOut {
    pub(crate) id: String,
    pub(crate) status: Status,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) version: Option<u64>,
}

/// What a write did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
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
