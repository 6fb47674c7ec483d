//! What a snapshot says of itself: `manifest.json`.
//!
//! Its first line is the BLAKE3 of all that follows; together they are one JSON object.

use std::path::Path;

use embedding::Spaces;
use serde::{Deserialize, Serialize};

use super::{
    SnapshotError, SnapshotInfo,
    heads::{self, SavedHead},
};
use crate::{Fields, ItemId, catalog};

/// Name of the file.
pub(super) const MANIFEST: &str = "manifest.json";
/// Name of the folder of chunks.
pub(super) const CHUNKS: &str = "chunks";
/// Longest manifest that is read: that of two million chunks.
pub(super) const MOST_BYTES: u64 = 512 << 20;

/// Without heads. Versions from before there were heads read it.
const FORMAT: u32 = 1;
const FORMAT_WITH_HEADS: u32 = 2;
const CHECKSUM: &str = "{\"checksum\":\"";
const END_OF_LINE: &str = "\",\n";
const BODY: &str = "\"manifest\":";
const END: &str = "}\n";

/// What is in a snapshot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Manifest {
    pub(super) format: u32,
    pub(super) collection: String,
    pub(super) made_at_ms: Option<u64>,
    pub(super) spaces: Spaces,
    pub(super) fields: Fields,
    /// As the store keeps it; one that does not read costs a fit.
    pub(super) calibration: Option<serde_json::Value>,
    /// All versions that any item ever had are below it.
    pub(super) versions_below: u64,
    pub(super) items: u64,
    pub(super) bytes: u64,
    pub(super) skipped_items: u64,
    pub(super) skipped: Vec<String>,
    /// By name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) heads: Vec<SavedHead>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) skipped_heads: Vec<String>,
    /// In the order of their items.
    pub(super) chunks: Vec<Chunk>,
}

/// A file of records.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Chunk {
    /// BLAKE3 of its bytes, in hexadecimal; its name.
    pub(super) hash: String,
    pub(super) bytes: u64,
    pub(super) items: u64,
    /// Its first id.
    pub(super) first: ItemId,
}

impl Chunk {
    /// Where it is in the snapshot.
    pub(super) fn path(&self) -> String {
        format!("{CHUNKS}/{}", self.hash)
    }
}

/// The part that later versions have, too.
#[derive(Deserialize)]
struct Format {
    format: u32,
}

impl Manifest {
    /// Of a collection without items.
    pub(super) fn new(collection: String, spaces: Spaces) -> Self {
        Self {
            format: FORMAT,
            collection,
            made_at_ms: None,
            spaces,
            fields: Fields::default(),
            calibration: None,
            versions_below: 1,
            items: 0,
            bytes: 0,
            skipped_items: 0,
            skipped: Vec::new(),
            heads: Vec::new(),
            skipped_heads: Vec::new(),
            chunks: Vec::new(),
        }
    }

    /// Says which heads there are.
    pub(super) fn set_heads(&mut self, heads: Vec<SavedHead>, skipped: Vec<String>) {
        (self.heads, self.skipped_heads) = (heads, skipped);
        if self.has_heads() {
            self.format = FORMAT_WITH_HEADS;
        }
    }

    fn has_heads(&self) -> bool {
        !self.heads.is_empty() || !self.skipped_heads.is_empty()
    }

    /// Adds the next chunk.
    pub(super) fn add(&mut self, chunk: Chunk) {
        self.items += chunk.items;
        self.bytes += chunk.bytes;
        self.chunks.push(chunk);
    }

    fn head_bytes(&self) -> u64 {
        let files = heads::files(&self.heads);
        files.into_iter().map(|(_, bytes)| bytes).sum()
    }

    /// Number of files beside the manifest.
    pub(super) fn parts(&self) -> usize {
        self.chunks.len() + heads::files(&self.heads).len()
    }

    /// What people are told.
    pub(super) fn info(&self) -> SnapshotInfo {
        SnapshotInfo {
            collection: self.collection.clone(),
            model: self.spaces.model.clone(),
            made_at_ms: self.made_at_ms,
            items: self.items,
            bytes: self.bytes + self.head_bytes(),
            chunks: self.chunks.len(),
            heads: self.heads.len(),
            skipped_items: self.skipped_items,
            skipped: self.skipped.clone(),
            skipped_heads: self.skipped_heads.clone(),
        }
    }

    /// The bytes of its file.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let body = serde_json::to_string(self).expect("a manifest is plain JSON");
        let rest = format!("{BODY}{body}{END}");
        let hash = blake3::hash(rest.as_bytes()).to_hex();
        format!("{CHECKSUM}{hash}{END_OF_LINE}{rest}").into_bytes()
    }

    /// Reads the manifest of the snapshot at `path`.
    pub(super) fn read(path: &Path, bytes: &[u8]) -> Result<Self, SnapshotError> {
        let damaged = |reason: String| SnapshotError::Damaged {
            path: path.to_owned(),
            what: MANIFEST.to_owned(),
            reason,
        };
        let text = std::str::from_utf8(bytes).map_err(|error| damaged(error.to_string()))?;
        let body = checked(text).ok_or_else(|| damaged("its checksum does not fit".to_owned()))?;
        let parse = |error: serde_json::Error| damaged(error.to_string());
        let Format { format } = serde_json::from_str(body).map_err(parse)?;
        if ![FORMAT, FORMAT_WITH_HEADS].contains(&format) {
            return Err(SnapshotError::Format {
                path: path.to_owned(),
                format,
                expected: FORMAT_WITH_HEADS,
            });
        }
        let manifest: Self = serde_json::from_str(body).map_err(parse)?;
        manifest.check().map_err(damaged)?;
        Ok(manifest)
    }

    /// Whether it can be what we wrote.
    fn check(&self) -> Result<(), String> {
        catalog::check_name(&self.collection).map_err(|error| error.to_string())?;
        catalog::check_spaces(&self.spaces).map_err(|error| error.to_string())?;
        if self.has_heads() != (self.format == FORMAT_WITH_HEADS) {
            return Err("its format is not that of one with heads".to_owned());
        }
        heads::check(&self.heads)?;
        if let Some(chunk) = self.chunks.iter().find(|chunk| !is_hash(&chunk.hash)) {
            return Err(format!("{:?} is no hash", chunk.hash));
        }
        let sum = |of: fn(&Chunk) -> u64| {
            let mut numbers = self.chunks.iter().map(of);
            numbers.try_fold(0_u64, u64::checked_add)
        };
        if sum(|chunk| chunk.items) != Some(self.items) || sum(|c| c.bytes) != Some(self.bytes) {
            return Err("its sums are not those of its chunks".to_owned());
        }
        Ok(())
    }
}

/// Whether this is a BLAKE3 in the digits that we write.
pub(super) fn is_hash(text: &str) -> bool {
    blake3::Hash::from_hex(text).is_ok_and(|hash| *hash.to_hex() == *text)
}

/// The manifest in the text of its file, if the checksum is right.
fn checked(text: &str) -> Option<&str> {
    let (first, rest) = text.strip_prefix(CHECKSUM)?.split_once(END_OF_LINE)?;
    if *blake3::hash(rest.as_bytes()).to_hex() != *first {
        return None;
    }
    rest.strip_prefix(BODY)?.strip_suffix(END)
}
