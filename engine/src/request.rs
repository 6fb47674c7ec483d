//! What is asked of a collection, and what comes back.

use std::{fmt, num::NonZeroUsize};

use embedding::{Embedding, Modality, Space};
use serde::{Deserialize, Serialize};

use crate::{Filter, ItemId, Payload, ShardPlan};

/// Which items a search looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Target {
    /// Images only.
    Image,
    /// Texts only.
    Text,
    /// Both, in one list by raw cosine. In a two-tower model texts lie nearer to texts than to
    /// images, so a caller who wants a fair mix asks for each modality and merges.
    Both,
}

impl Target {
    /// Whether items of the modality are looked at.
    pub fn includes(self, modality: Modality) -> bool {
        match self {
            Self::Image => modality == Modality::Image,
            Self::Text => modality == Modality::Text,
            Self::Both => true,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Image => "image",
            Self::Text => "text",
            Self::Both => "text or image",
        })
    }
}

/// Cosine of two embeddings: higher is better.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Score(pub f32);

/// An embedding and the space that it lives in.
#[derive(Debug, Clone, PartialEq)]
pub struct Query {
    /// What to look for.
    pub embedding: Embedding,
    /// Which model and aspect made it.
    pub space: Space,
}

/// A search.
#[derive(Debug, Clone, PartialEq)]
pub struct SearchRequest {
    /// What to look for, and in which space.
    pub query: Query,
    /// Which items to look at.
    pub target: Target,
    /// How many hits at most.
    pub k: NonZeroUsize,
    /// How many candidates an approximate index keeps; `None` for the collection's default.
    pub ef_search: Option<usize>,
    /// Compare with every item instead of asking an index.
    pub exact: bool,
    /// An item that must not come back, for instance the one that the query was taken from.
    pub exclude: Option<ItemId>,
    /// Which items may come back, by their payloads; `None` for all.
    pub filter: Option<Filter>,
}

impl SearchRequest {
    /// A search with the default settings.
    pub fn new(query: Query, target: Target, k: NonZeroUsize) -> Self {
        Self {
            query,
            target,
            k,
            ef_search: None,
            exact: false,
            exclude: None,
            filter: None,
        }
    }
}

/// One found item.
#[derive(Debug, Clone, PartialEq)]
pub struct Hit {
    /// The item's id.
    pub id: ItemId,
    /// What kind of thing it is.
    pub modality: Modality,
    /// Cosine with the query.
    pub score: Score,
    /// What the user stored with it.
    pub payload: Payload,
    /// Where it came from.
    pub source: Option<String>,
    /// The words, for a text.
    pub text: Option<String>,
}

/// Hits, and how they were found.
#[derive(Debug, Clone, PartialEq)]
pub struct Explained {
    /// Best first.
    pub hits: Vec<Hit>,
    /// Items of the collection, whatever their modality, that pass the filter.
    pub matching_items: u64,
    /// What was done in each shard.
    pub shards: Vec<ShardPlan>,
}
