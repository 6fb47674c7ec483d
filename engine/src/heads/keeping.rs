//! The heads of a collection in the store, each with its last versions.
//!
//! | key | value |
//! |---|---|
//! | `h` number name 00 | which versions there are, and which is the current one, JSON |
//! | `h` number name 00 version | a file, see [`super::file`] |
//!
//! Both end with a checksum. No name has a byte 00, so that no name's keys are among another's.

use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::{HeadAspect, HeadKind, KeptHead};
use crate::{
    EngineError, catalog,
    collection::Collection,
    record::{checked, with_checksum},
    store::Batch,
};

/// Most heads of a collection.
pub const MAX_HEADS: usize = 100;
/// Versions of a head that are kept: the last ones, and the current one.
pub const MAX_VERSIONS: usize = 10;
/// Heads that are kept in memory.
const MOST_RECENT: usize = 4;

/// Keys of a collection's heads start so.
pub(crate) fn head_prefix(number: u32) -> Vec<u8> {
    [b"h".as_slice(), &number.to_be_bytes()].concat()
}

/// What is said of a version in a list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HeadBrief {
    /// The labels.
    pub labels: Vec<String>,
    /// Which embeddings it reads.
    pub aspect: HeadAspect,
    /// What it is made of.
    pub kind: HeadKind,
    /// Whether any number of its labels may fit.
    pub multi_label: bool,
    /// When it was made, in milliseconds since 1970, where that was said.
    pub made_at_ms: Option<u64>,
    /// Examples that it was learned from.
    pub examples: usize,
    /// The part of held-out examples that it told right, where any were held out.
    pub accuracy: Option<f64>,
}

/// A version that is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VersionEntry {
    /// From 1 on; no other of the same name ever has it.
    pub version: u32,
    /// What it is.
    pub brief: HeadBrief,
}

/// A head of a collection.
#[derive(Debug, Clone, PartialEq)]
pub struct HeadEntry {
    /// Its name.
    pub name: String,
    /// The current version.
    pub current: u32,
    /// All versions that are kept, ascending.
    pub versions: Vec<VersionEntry>,
}

/// What lies under the name of a head.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Index {
    pub(crate) next: u32,
    pub(crate) current: u32,
    pub(crate) versions: Vec<VersionEntry>,
}

/// Heads by name, with what lies under it or why that does not read.
pub(crate) type NamedIndexes = Vec<(String, Result<Index, EngineError>)>;

/// Heads that were used lately, the last one first.
#[derive(Debug, Default)]
pub(crate) struct Recent(Mutex<Vec<(String, u32, Arc<KeptHead>)>>);

impl Collection {
    /// All heads, by name.
    ///
    /// # Errors
    /// When the store fails, or what it holds is damaged.
    pub fn heads(&self) -> Result<Vec<HeadEntry>, EngineError> {
        let indexes = self.head_indexes()?.into_iter();
        indexes
            .map(|(name, index)| Ok(entry_of(name, index?)))
            .collect()
    }

    /// What lies under the name of each head, by name; an inner error is of this head alone.
    pub(crate) fn head_indexes(&self) -> Result<NamedIndexes, EngineError> {
        let prefix = head_prefix(self.description.number);
        let mut indexes = Vec::new();
        // Versions lie among the names; their values are files, and as many as are kept.
        for entry in self.core.store.scan(&prefix) {
            let (key, value) = entry?;
            if let Some((name, [])) = split(&key[prefix.len()..]) {
                let index = self.index(&name, &key, &value);
                indexes.push((name, index));
            }
        }
        Ok(indexes)
    }

    /// One head.
    ///
    /// # Errors
    /// [`EngineError::NoHead`] when it is not there; also as for [`Collection::heads`].
    pub fn head_entry(&self, name: &str) -> Result<HeadEntry, EngineError> {
        let index = self.stored_index(name)?;
        Ok(entry_of(
            name.to_owned(),
            index.ok_or_else(|| self.no_head(name, None))?,
        ))
    }

    /// Keeps a head as the new current version of this name; durable on return. Gives its version. Old
    /// versions beyond [`MAX_VERSIONS`] go.
    ///
    /// # Errors
    /// When the name is not allowed, the head reads other embeddings than those of the collection
    /// ([`EngineError::AnotherSpace`]), there are too many heads, or the store fails.
    pub fn put_head(&self, name: &str, kept: &KeptHead) -> Result<u32, EngineError> {
        check_name(name)?;
        kept.head.inputs.check(self.spaces())?;
        kept.head.check()?;
        let file = kept.to_file();
        if file.len() > super::MAX_HEAD_BYTES {
            let (bytes, most) = (file.len(), super::MAX_HEAD_BYTES);
            return Err(EngineError::BadHead {
                reason: format!("it takes {bytes} bytes, at most {most} are allowed"),
            });
        }
        let _turn = self.declaring.take(&[()]).ok_or_else(|| self.gone())?;
        let mut index = match self.stored_index(name)? {
            Some(index) => index,
            None if self.heads()?.len() >= MAX_HEADS => {
                return Err(EngineError::TooManyHeads {
                    collection: self.name.clone(),
                    most: MAX_HEADS,
                });
            }
            None => Index {
                next: 1,
                current: 1,
                versions: Vec::new(),
            },
        };
        let version = index.next;
        let mut batch = Batch::default();
        index.next = version.saturating_add(1);
        index.current = version;
        index.versions.push(VersionEntry {
            version,
            brief: brief(kept),
        });
        while index.versions.len() > MAX_VERSIONS {
            let oldest = index.versions.remove(0);
            batch.remove(self.head_key(name, Some(oldest.version)));
        }
        put_version(&mut batch, (self.description.number, name), version, file);
        put_index(&mut batch, (self.description.number, name), &index);
        self.core.store.commit(batch)?;
        Ok(version)
    }

    /// A version of a head, or the current one, and which that is.
    ///
    /// # Errors
    /// [`EngineError::NoHead`] when it is not there; when it is damaged, or the store fails.
    pub fn head(
        &self,
        name: &str,
        version: Option<u32>,
    ) -> Result<(u32, Arc<KeptHead>), EngineError> {
        let index = self.stored_index(name)?;
        let index = index.ok_or_else(|| self.no_head(name, None))?;
        let version = version.unwrap_or(index.current);
        if !index.versions.iter().any(|entry| entry.version == version) {
            return Err(self.no_head(name, Some(version)));
        }
        if let Some(kept) = self.recent_heads.get(name, version) {
            return Ok((version, kept));
        }
        let kept = Arc::new(KeptHead::from_file(&self.head_file(name, version)?)?);
        self.recent_heads.add(name, version, &kept);
        Ok((version, kept))
    }

    /// The file of a version of a head, or of the current one.
    ///
    /// # Errors
    /// As for [`Collection::head`].
    pub fn export_head(&self, name: &str, version: Option<u32>) -> Result<Vec<u8>, EngineError> {
        let entry = self.head_entry(name)?;
        let version = version.unwrap_or(entry.current);
        self.head_file(name, version)
    }

    /// Makes a version that is kept the current one; durable on return.
    ///
    /// # Errors
    /// As for [`Collection::head`].
    pub fn roll_back_head(&self, name: &str, version: u32) -> Result<HeadEntry, EngineError> {
        let _turn = self.declaring.take(&[()]).ok_or_else(|| self.gone())?;
        let index = self.stored_index(name)?;
        let mut index = index.ok_or_else(|| self.no_head(name, None))?;
        if !index.versions.iter().any(|entry| entry.version == version) {
            return Err(self.no_head(name, Some(version)));
        }
        index.current = version;
        let mut batch = Batch::default();
        put_index(&mut batch, (self.description.number, name), &index);
        self.core.store.commit(batch)?;
        Ok(entry_of(name.to_owned(), index))
    }

    /// Removes a head and all its versions; durable on return. Gives whether it was there.
    ///
    /// # Errors
    /// When the store fails, or what it holds is damaged.
    pub fn delete_head(&self, name: &str) -> Result<bool, EngineError> {
        let _turn = self.declaring.take(&[()]).ok_or_else(|| self.gone())?;
        if self.stored_index(name)?.is_none() {
            return Ok(false);
        }
        let mut batch = Batch::default();
        for entry in self.core.store.scan(&self.head_key(name, None)) {
            batch.remove(entry?.0);
        }
        self.core.store.commit(batch)?;
        self.recent_heads.forget(name);
        Ok(true)
    }

    pub(crate) fn head_file(&self, name: &str, version: u32) -> Result<Vec<u8>, EngineError> {
        let key = self.head_key(name, Some(version));
        let value = self.core.store.get(&key)?;
        let value = value.ok_or_else(|| self.no_head(name, Some(version)))?;
        let body = checked(&key, &value).map_err(|reason| self.damaged_head(name, reason))?;
        Ok(body.to_vec())
    }

    fn stored_index(&self, name: &str) -> Result<Option<Index>, EngineError> {
        let key = self.head_key(name, None);
        let value = self.core.store.get(&key)?;
        value
            .map(|value| self.index(name, &key, &value))
            .transpose()
    }

    fn index(&self, name: &str, key: &[u8], value: &[u8]) -> Result<Index, EngineError> {
        let body = checked(key, value).map_err(|reason| self.damaged_head(name, reason))?;
        serde_json::from_slice(body).map_err(|error| self.damaged_head(name, &error.to_string()))
    }

    fn head_key(&self, name: &str, version: Option<u32>) -> Vec<u8> {
        head_key((self.description.number, name), version)
    }

    fn no_head(&self, name: &str, version: Option<u32>) -> EngineError {
        EngineError::NoHead {
            collection: self.name.clone(),
            head: name.chars().take(80).collect(),
            version,
        }
    }

    pub(crate) fn damaged_head(&self, name: &str, reason: &str) -> EngineError {
        EngineError::DamagedHead {
            collection: self.name.clone(),
            head: name.to_owned(),
            reason: reason.to_owned(),
        }
    }
}

fn head_key((number, name): (u32, &str), version: Option<u32>) -> Vec<u8> {
    let mut key = head_prefix(number);
    key.extend(name.as_bytes());
    key.push(0);
    key.extend(version.map(u32::to_be_bytes).iter().flatten());
    key
}

/// Says which versions there are of a head of a collection.
pub(crate) fn put_index(batch: &mut Batch, of: (u32, &str), index: &Index) {
    let key = head_key(of, None);
    let body = serde_json::to_vec(index).expect("an index is plain JSON");
    batch.put(key.clone(), with_checksum(&key, body));
}

/// Adds the file of a version of a head.
pub(crate) fn put_version(batch: &mut Batch, of: (u32, &str), version: u32, file: Vec<u8>) {
    let key = head_key(of, Some(version));
    batch.put(key.clone(), with_checksum(&key, file));
}

fn check_name(name: &str) -> Result<(), EngineError> {
    if catalog::is_name(name) {
        return Ok(());
    }
    Err(EngineError::BadHeadName {
        name: name.chars().take(80).collect(),
    })
}

/// What is said of a head in a list.
pub(crate) fn brief(kept: &KeptHead) -> HeadBrief {
    let about = &kept.about;
    HeadBrief {
        labels: kept.head.labels.clone(),
        aspect: kept.head.inputs.aspect(),
        kind: about.kind,
        multi_label: about.multi_label,
        made_at_ms: about.made_at_ms,
        examples: about.examples,
        accuracy: about.accuracy,
    }
}

fn entry_of(name: String, index: Index) -> HeadEntry {
    HeadEntry {
        name,
        current: index.current,
        versions: index.versions,
    }
}

/// The name in a key, and what follows its end.
fn split(key: &[u8]) -> Option<(String, &[u8])> {
    let end = key.iter().position(|byte| *byte == 0)?;
    let name = String::from_utf8(key[..end].to_vec()).ok()?;
    Some((name, &key[end + 1..]))
}

impl Recent {
    fn get(&self, name: &str, version: u32) -> Option<Arc<KeptHead>> {
        let mut recent = self.0.lock();
        let at = recent
            .iter()
            .position(|(n, v, _)| n == name && *v == version)?;
        recent[..=at].rotate_right(1);
        Some(Arc::clone(&recent[0].2))
    }

    fn add(&self, name: &str, version: u32, kept: &Arc<KeptHead>) {
        let mut recent = self.0.lock();
        recent.insert(0, (name.to_owned(), version, Arc::clone(kept)));
        recent.truncate(MOST_RECENT);
    }

    /// A head of this name that is made anew begins with version 1 again.
    fn forget(&self, name: &str) {
        self.0.lock().retain(|(n, _, _)| n != name);
    }
}
