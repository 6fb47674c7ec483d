//! The heads of a collection in its snapshots: which versions there are of each, and which is the current
//! one, in the manifest; the files as they lie in the store, each named by its hash, beside the chunks.
//!
//! They are of one moment: from before they are read until they are written nobody changes a head, and
//! the moment of the items is chosen meanwhile ([`super::frozen`]).

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{SnapshotError, manifest::is_hash, out::Out, source::Source};
use crate::{
    EngineError, KeptHead, MAX_HEAD_BYTES, MAX_HEADS, MAX_VERSIONS,
    catalog::{Description, is_name},
    collection::Collection,
    heads::{self, Index},
    store::{Batch, Store},
};

/// Name of the folder of heads.
pub(super) const HEADS: &str = "heads";

/// A head.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SavedHead {
    pub(super) name: String,
    /// The version that the next one will have.
    pub(super) next: u32,
    pub(super) current: u32,
    /// Ascending.
    pub(super) versions: Vec<SavedVersion>,
}

/// A version of a head, and its file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SavedVersion {
    pub(super) version: u32,
    /// BLAKE3 of the bytes of the file, in hexadecimal; its name.
    pub(super) hash: String,
    pub(super) bytes: u64,
}

/// The heads that a snapshot has.
#[derive(Debug, Default)]
pub(super) struct Saved {
    pub(super) heads: Vec<SavedHead>,
    /// Heads, and versions of heads, that were damaged.
    pub(super) skipped: Vec<String>,
    /// Bytes of files that no other snapshot had.
    pub(super) new_bytes: u64,
}

impl SavedVersion {
    /// Where its file is in the snapshot. Equal files are one.
    pub(super) fn path(&self) -> String {
        format!("{HEADS}/{}", self.hash)
    }
}

/// The files of heads, each once, by their hash.
pub(super) fn files(heads: &[SavedHead]) -> BTreeSet<(&str, u64)> {
    let versions = heads.iter().flat_map(|head| &head.versions);
    versions.map(|one| (one.hash.as_str(), one.bytes)).collect()
}

/// Writes the files of all heads of a collection, whose heads nobody changes meanwhile.
pub(super) fn save(
    collection: &Collection,
    out: &mut Out,
    skip_damaged: bool,
    tell: impl Fn() -> Result<(), SnapshotError>,
) -> Result<Saved, EngineError> {
    let mut saved = Saved::default();
    let mut written = BTreeSet::new();
    for (name, index) in collection.head_indexes()? {
        let index = match index {
            Err(EngineError::DamagedHead { .. }) if skip_damaged => {
                saved.skipped.push(name);
                continue;
            }
            index => index?,
        };
        let mut versions = Vec::with_capacity(index.versions.len());
        for entry in &index.versions {
            let version = entry.version;
            let file = match read(collection, &name, version) {
                Err(EngineError::DamagedHead { .. }) if skip_damaged => {
                    saved.skipped.push(format!("{name}, version {version}"));
                    continue;
                }
                file => file?,
            };
            let one = SavedVersion {
                version,
                hash: blake3::hash(&file).to_hex().to_string(),
                bytes: file.len() as u64,
            };
            if written.insert(one.hash.clone()) && out.put(&one.path(), &file)? {
                saved.new_bytes += one.bytes;
            }
            versions.push(one);
            tell()?;
        }
        // In place of a damaged one the latest is the current one.
        let there = |version: u32| versions.iter().any(|one| one.version == version);
        let latest = versions.last().map(|one| one.version);
        if let Some(latest) = latest {
            let current = Some(index.current).filter(|current| there(*current));
            saved.heads.push(SavedHead {
                name,
                next: index.next,
                current: current.unwrap_or(latest),
                versions,
            });
        }
    }
    Ok(saved)
}

/// The file of a version, if it can be restored.
fn read(collection: &Collection, name: &str, version: u32) -> Result<Vec<u8>, EngineError> {
    let damaged = |error: EngineError| match error {
        error @ (EngineError::NoHead { .. }
        | EngineError::BadHead { .. }
        | EngineError::AnotherSpace { .. }) => collection.damaged_head(name, &error.to_string()),
        error => error,
    };
    let file = collection.head_file(name, version).map_err(damaged)?;
    let kept = KeptHead::from_file(&file).map_err(damaged)?;
    kept.head
        .inputs
        .check(collection.spaces())
        .map_err(damaged)?;
    Ok(file)
}

/// Whether they can be what we wrote, as far as the manifest says.
pub(super) fn check(heads: &[SavedHead]) -> Result<(), String> {
    if heads.len() > MAX_HEADS {
        let got = heads.len();
        return Err(format!("it has {got} heads, expected at most {MAX_HEADS}"));
    }
    if !heads.is_sorted_by(|a, b| a.name < b.name) {
        return Err("its heads are out of order".to_owned());
    }
    for head in heads {
        let SavedHead {
            name,
            next,
            current,
            versions,
        } = head;
        let fits = is_name(name)
            && versions.len() <= MAX_VERSIONS
            && versions.is_sorted_by(|a, b| a.version < b.version)
            && versions.iter().any(|one| one.version == *current)
            && versions.iter().all(|one| {
                (1..*next).contains(&one.version)
                    && is_hash(&one.hash)
                    && one.bytes <= MAX_HEAD_BYTES as u64
            });
        if !fits {
            return Err(format!("head {name:?} is none that we keep"));
        }
    }
    Ok(())
}

/// Gives every version of every head, checked: its head, what is said of it, and its file.
pub(super) fn each<E: From<SnapshotError>>(
    source: &mut Source,
    (heads, description): (&[SavedHead], &Description),
    mut take: impl FnMut(&SavedHead, u32, &KeptHead, Vec<u8>) -> Result<(), E>,
) -> Result<(), E> {
    for head in heads {
        for one in &head.versions {
            let file = source.file(&one.path(), (&one.hash, one.bytes));
            let of =
                |reason: String| format!("head {:?}, version {}: {reason}", head.name, one.version);
            let file = file.map_err(|error| match error {
                SnapshotError::Damaged { path, what, reason } => SnapshotError::Damaged {
                    path,
                    what,
                    reason: of(reason),
                },
                error => error,
            })?;
            let kept = KeptHead::from_file(&file)
                .and_then(|kept| kept.head.inputs.check(&description.spaces).map(|()| kept))
                .map_err(|error| source.damaged(&one.path(), of(error.to_string())))?;
            take(head, one.version, &kept, file)?;
        }
    }
    Ok(())
}

/// Stores them under the number of a collection.
pub(super) fn restore(
    source: &mut Source,
    of: (&[SavedHead], &Description),
    store: &dyn Store,
) -> Result<(), EngineError> {
    let number = of.1.number;
    let mut entries = Vec::new();
    each(source, of, |head, version, kept, file| {
        let mut batch = Batch::default();
        heads::put_version(&mut batch, (number, &head.name), version, file);
        entries.push(heads::VersionEntry {
            version,
            brief: heads::brief(kept),
        });
        if entries.len() == head.versions.len() {
            let index = Index {
                next: head.next,
                current: head.current,
                versions: std::mem::take(&mut entries),
            };
            heads::put_index(&mut batch, (number, &head.name), &index);
        }
        Ok::<_, EngineError>(store.commit(batch)?)
    })
}
