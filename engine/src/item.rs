//! What a user stores.

use std::{fmt, str::FromStr};

use embedding::{Embedding, Modality, mix};
use serde::{Deserialize, Serialize};

use crate::EngineError;

/// Longest id of an item, in bytes of UTF-8.
const MAX_ID_BYTES: usize = 512;

/// The user's name for an item, unique in its collection: 1 to 512 bytes of UTF-8 without control
/// characters. Ids are ordered by their bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ItemId(String);

impl ItemId {
    /// Takes a name.
    ///
    /// # Errors
    /// When it is empty, too long, or has control characters.
    pub fn new(id: impl Into<String>) -> Result<Self, EngineError> {
        let id = id.into();
        let reason = if id.is_empty() {
            "it is empty"
        } else if id.len() > MAX_ID_BYTES {
            "it is longer than 512 bytes"
        } else if id.chars().any(char::is_control) {
            "it has control characters"
        } else {
            return Ok(Self(id));
        };
        Err(EngineError::BadId {
            id: id.chars().take(64).collect(),
            reason,
        })
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ItemId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for ItemId {
    type Err = EngineError;

    fn from_str(id: &str) -> Result<Self, Self::Err> {
        Self::new(id)
    }
}

impl TryFrom<String> for ItemId {
    type Error = EngineError;

    fn try_from(id: String) -> Result<Self, Self::Error> {
        Self::new(id)
    }
}

impl From<ItemId> for String {
    fn from(id: ItemId) -> Self {
        id.0
    }
}

/// What a user wants back with a hit: a JSON object.
pub type Payload = serde_json::Map<String, serde_json::Value>;

/// One stored thing, with its embeddings.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    /// Unique in the collection.
    pub id: ItemId,
    /// What kind of thing it is.
    pub modality: Modality,
    /// Its place among images and texts.
    pub shared: Embedding,
    /// Its place among its own modality, where the model has one.
    pub specific: Option<Embedding>,
    /// Comes back with every hit.
    pub payload: Payload,
    /// Where it came from, for instance a path.
    pub source: Option<String>,
    /// Hash of what was encoded, so that an unchanged source need not be encoded again.
    pub content_hash: Option<[u8; 32]>,
    /// The words, for a text.
    pub text: Option<String>,
}

impl Item {
    /// An item with nothing but its shared embedding.
    pub fn new(id: ItemId, modality: Modality, shared: Embedding) -> Self {
        Self {
            id,
            modality,
            shared,
            specific: None,
            payload: Payload::new(),
            source: None,
            content_hash: None,
            text: None,
        }
    }
}

/// An [`Item`] without its embeddings.
#[derive(Debug, Clone, PartialEq)]
pub struct ItemMeta {
    /// Unique in the collection.
    pub id: ItemId,
    /// Changes with every write of the item, and is higher then; from 1 on. No two items or states
    /// of an item in a collection ever have the same.
    pub version: u64,
    /// What kind of thing it is.
    pub modality: Modality,
    /// Comes back with every hit.
    pub payload: Payload,
    /// Where it came from, for instance a path.
    pub source: Option<String>,
    /// Hash of what was encoded.
    pub content_hash: Option<[u8; 32]>,
    /// The words, for a text.
    pub text: Option<String>,
}

/// What an upsert did. The second of two items with one id replaces the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Upserted {
    /// Items whose id was new.
    pub inserted: usize,
    /// Items that replaced an older one.
    pub updated: usize,
}

/// How full a collection is. Rows are counted in the shared space only, so that
/// `sealed_rows + tail_rows - deleted_rows == items`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Stats {
    /// Searchable items.
    pub items: usize,
    /// Images among them.
    pub images: usize,
    /// Texts among them.
    pub texts: usize,
    /// Items whose record is damaged: not searchable, and an error when asked for by id.
    pub damaged_items: usize,
    /// Rows under a sealed index, deleted ones too.
    pub sealed_rows: usize,
    /// Rows that are scanned exactly, deleted ones too.
    pub tail_rows: usize,
    /// Rows that wait for the next seal to be dropped.
    pub deleted_rows: usize,
    /// Whether an index is being built, or waits for it.
    pub sealing: bool,
    /// Number of parts that the items of each modality are split into by their id.
    pub shards: usize,
}

/// A number that spreads ids evenly. Not kept anywhere, so it may change.
pub(crate) fn hash_of(id: &str) -> u64 {
    let word = |bytes: &[u8]| {
        let mut word = [0; 8];
        word[..bytes.len()].copy_from_slice(bytes);
        u64::from_le_bytes(word)
    };
    let start = id.len() as u64;
    id.as_bytes()
        .chunks(8)
        .fold(mix(start), |hash, bytes| mix(hash ^ word(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_refused_when_empty_too_long_or_with_control_characters() {
        assert!(ItemId::new("photos/\u{e9}t\u{e9} 1.jpg").is_ok());
        assert!(ItemId::new("a".repeat(MAX_ID_BYTES)).is_ok());
        for bad in [
            String::new(),
            "a".repeat(MAX_ID_BYTES + 1),
            "a\nb".into(),
            "\0".into(),
        ] {
            assert!(matches!(ItemId::new(bad), Err(EngineError::BadId { .. })));
        }
        assert!(serde_json::from_str::<ItemId>("\"\"").is_err());
    }
}
