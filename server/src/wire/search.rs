//! What a search looks like.

use engine::{MAX_PARTS, Target};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{object, objects};
use crate::{openapi::twins, reply::ApiError};

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
