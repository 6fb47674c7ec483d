//! What is asked of a collection, and what comes back.

use std::{fmt, num::NonZeroUsize};

use embedding::{Embedding, Modality, Space};
use serde::{Deserialize, Serialize};

use crate::{CalibrationKind, Filter, ItemId, Payload, ShardPlan};

/// Which items a search looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Target {
    /// Images only.
    Image,
    /// Texts only.
    Text,
    /// Both, in one list where neither hides the other: see [`Hit::score`].
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

/// One of the things that a search looks for at the same time.
#[derive(Debug, Clone, PartialEq)]
pub struct Part {
    /// What to look for. All parts of a search are of one space.
    pub query: Query,
    /// What kind of thing it was made from, where that is known.
    pub modality: Option<Modality>,
    /// How much it counts beside the other parts, finite and not 0; below 0, how much what is like
    /// it is avoided. At least one part counts more than 0.
    pub weight: f32,
}

/// What a search compares in a specific space beside the shared one.
#[derive(Debug, Clone, PartialEq)]
pub struct Mix {
    /// What to look for there; the space is the one of the search's target.
    pub parts: Vec<Part>,
    /// Part of a hit's score that comes from there, above 0 and below 1; the rest is the shared
    /// space's.
    pub share: f32,
}

/// Which hits of all come back.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Page {
    /// The best ones.
    #[default]
    First,
    /// Those after so many. What is written meanwhile moves hits from page to page.
    Offset(usize),
    /// Those after the last page, which gave this cursor. What is written meanwhile moves nothing:
    /// no hit comes twice, and none is left out.
    After(Cursor),
}

/// Where a page ended: [`Answer::next`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cursor {
    /// For each modality that is searched.
    pub(crate) legs: Vec<Passed>,
}

/// How far the hits of one modality came back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Passed {
    pub(crate) modality: Modality,
    /// The last one, if any came back.
    pub(crate) last: Option<(f32, ItemId)>,
    /// How many ranked up to there.
    pub(crate) seen: usize,
    /// What the parts were multiplied with, which depends on the rows that were there.
    pub(crate) factors: Vec<f32>,
    /// The same in the specific space.
    pub(crate) mix_factors: Vec<f32>,
}

/// Hits in groups that have a value in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupBy {
    /// Name of a field of payloads, declared or not. Of an array its first value counts; an item
    /// without a value is a group of its own.
    pub field: String,
    /// Most hits of one group.
    pub hits: NonZeroUsize,
}

/// A search.
#[derive(Debug, Clone, PartialEq)]
pub struct SearchRequest {
    /// What to look for: at least one part, at most [`MAX_PARTS`].
    ///
    /// The embedding that is compared with the items is the sum of the parts' embeddings, each
    /// divided by the standard deviation of its cosines with a sample of the target's items, so
    /// that equal weights mean equal influence: the cosines of a picture with pictures spread
    /// several times wider than those of a text.
    pub parts: Vec<Part>,
    /// Compares in a specific space, too.
    pub mix: Option<Mix>,
    /// Which items to look at.
    pub target: Target,
    /// How many hits at most; with `group_by`, how many groups.
    pub k: NonZeroUsize,
    /// How many candidates an approximate index keeps; `None` for the collection's default.
    pub ef_search: Option<usize>,
    /// Compare with every item instead of asking an index.
    pub exact: bool,
    /// Items that must not come back, for instance those that the query was taken from.
    pub exclude: Vec<ItemId>,
    /// Which items may come back, by their payloads; `None` for all.
    pub filter: Option<Filter>,
    /// Least score of a hit.
    pub min_score: Option<Score>,
    /// Least confidence of a hit, 0 to 1; for a search for one thing in one space. A hit whose
    /// confidence cannot be told comes back.
    pub min_confidence: Option<f32>,
    /// Whether hits say how sure they are, which may take longer than the search itself.
    pub confidence: bool,
    /// Which hits of all come back.
    pub page: Page,
    /// Puts hits together.
    pub group_by: Option<GroupBy>,
    /// Items whose cosine with a better hit of their modality is at least this are named with that
    /// hit and do not come back themselves.
    pub collapse: Option<Score>,
    /// Trades likeness to the query for unlikeness among the hits, above 0 (hardly) to 1 (only
    /// unlikeness counts): maximal marginal relevance (Carbonell and Goldstein 1998, with
    /// `1 - lambda` for this number), over the best `4 * k` items, 64 to 256. Both cosines are
    /// scaled to 0 to 1 over these items, since their ranges differ.
    pub diversity: Option<f32>,
    /// Whether the answer says how it was found.
    pub explain: bool,
}

/// Most parts of one search.
pub const MAX_PARTS: usize = 32;

impl Part {
    /// The only part of a search.
    pub fn new(query: Query, modality: Option<Modality>) -> Self {
        Self {
            query,
            modality,
            weight: 1.0,
        }
    }
}

impl SearchRequest {
    /// A search for one thing with the default settings.
    pub fn new(query: Query, target: Target, k: NonZeroUsize) -> Self {
        Self::of(vec![Part::new(query, None)], target, k)
    }

    /// A search for several things with the default settings.
    pub fn of(parts: Vec<Part>, target: Target, k: NonZeroUsize) -> Self {
        Self {
            parts,
            mix: None,
            target,
            k,
            ef_search: None,
            exact: false,
            exclude: Vec::new(),
            filter: None,
            min_score: None,
            min_confidence: None,
            confidence: true,
            page: Page::First,
            group_by: None,
            collapse: None,
            diversity: None,
            explain: false,
        }
    }
}

/// One found item.
#[derive(Debug, Clone, PartialEq)]
pub struct Hit {
    /// The item's id.
    pub id: ItemId,
    /// The item's version.
    pub version: u64,
    /// What kind of thing it is.
    pub modality: Modality,
    /// Cosine with the query, of all parts together, or the weighted mean of two cosines when
    /// spaces are mixed. Scores of different modalities do not compare: in a two-tower model texts
    /// lie nearer to texts than to images.
    pub score: Score,
    /// Probability that it is what was looked for, of queries that have an answer in the
    /// collection as often as not. Of several parts or spaces, and among fewer than 16 items, it
    /// cannot be told.
    pub confidence: Option<f32>,
    /// What the user stored with it.
    pub payload: Payload,
    /// Where it came from.
    pub source: Option<String>,
    /// The words, for a text.
    pub text: Option<String>,
    /// Value of the field that the hits are grouped by.
    pub group: Option<serde_json::Value>,
    /// Items that are nearly the same and rank before the next hit, best first.
    pub duplicates: Vec<ItemId>,
}

/// What a search found.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// Best first; with `group_by` group after group, by the best hit of each.
    pub hits: Vec<Hit>,
    /// For the next page, when there may be one. With `diversity` there is none.
    pub next: Option<Cursor>,
    /// What the confidence of hits rests on that are not of the query's own modality.
    pub calibration: Option<CalibrationKind>,
    /// How the hits were found, when the request asks for it.
    pub explanation: Option<Explanation>,
}

/// How hits were found.
#[derive(Debug, Clone, PartialEq)]
pub struct Explanation {
    /// Items of the collection, whatever their modality, that pass the filter.
    pub matching_items: u64,
    /// What was done in each shard.
    pub shards: Vec<ShardPlan>,
}
