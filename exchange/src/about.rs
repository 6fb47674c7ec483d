//! What a file says of itself in its metadata: the model that made the embeddings, and a checksum.

use std::{
    io::{self, Read, Write},
    path::Path,
};

use embedding::Spaces;
use engine::{Collection, Fields};
use fs_err::File;
use parquet::file::metadata::{FileMetaData, KeyValue};
use serde::{Deserialize, Serialize};

use crate::ExchangeError;

/// Key of [`About`] among the metadata of a Parquet file.
pub(crate) const ABOUT: &str = "diptych";
/// Key of the checksum.
const CHECKSUM: &str = "diptych.checksum";
/// Version of the columns and of the metadata.
const VERSION: u32 = 1;
/// What the file says wrote it. Other programs keep the metadata of what they change, so that the
/// checksum counts only in files with this name.
pub(crate) const CREATED_BY: &str = "diptych exchange";

/// Where the items of a file come from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct About {
    version: u32,
    /// The model that made the embeddings.
    pub spaces: Spaces,
    /// Fields of payloads that filters may name.
    pub fields: Fields,
}

impl About {
    pub(crate) fn of(collection: &Collection) -> Self {
        Self {
            version: VERSION,
            spaces: collection.spaces().clone(),
            fields: collection.fields(),
        }
    }

    pub(crate) fn to_metadata(&self) -> KeyValue {
        let json = serde_json::to_string(self).expect("it is plain JSON");
        KeyValue::new(ABOUT.to_owned(), json)
    }

    /// What is there; `None` in a file of another program.
    pub(crate) fn read(path: &Path, file: &FileMetaData) -> Result<Option<Self>, ExchangeError> {
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        let Some(json) = value(file, ABOUT) else {
            return Ok(None);
        };
        let bad = |reason: String| ExchangeError::BadAbout {
            path: path.to_owned(),
            key: ABOUT,
            reason,
        };
        let unreadable = |error: serde_json::Error| bad(format!("cannot be read: {error}"));
        let Version { version } = serde_json::from_str(json).map_err(unreadable)?;
        if version != VERSION {
            let what = format!("has version {version}, expected {VERSION}: use a newer program");
            return Err(bad(what));
        }
        serde_json::from_str(json).map(Some).map_err(unreadable)
    }
}

fn value<'a>(file: &'a FileMetaData, key: &str) -> Option<&'a str> {
    let all = file.key_value_metadata()?;
    all.iter().find(|kv| kv.key == key)?.value.as_deref()
}

/// BLAKE3 of the first bytes of a file, which are all its pages.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Checksum {
    bytes: u64,
    blake3: String,
}

/// Hashes what is written through it.
#[derive(Debug)]
pub(crate) struct Hashed {
    file: File,
    hasher: blake3::Hasher,
}

impl Hashed {
    pub(crate) fn new(file: File) -> Self {
        let hasher = blake3::Hasher::new();
        Self { file, hasher }
    }

    /// Of everything that was written so far.
    pub(crate) fn to_metadata(&self) -> KeyValue {
        let checksum = Checksum {
            bytes: self.hasher.count(),
            blake3: self.hasher.finalize().to_string(),
        };
        let json = serde_json::to_string(&checksum).expect("it is plain JSON");
        KeyValue::new(CHECKSUM.to_owned(), json)
    }

    pub(crate) fn sync(&self) -> io::Result<()> {
        self.file.sync_all()
    }
}

impl Write for Hashed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Compares a file of ours with its checksum.
pub(crate) fn verify(path: &Path, about: &FileMetaData) -> Result<(), ExchangeError> {
    if about.created_by() != Some(CREATED_BY) {
        return Ok(());
    }
    let damaged = |reason: &str| ExchangeError::Damaged {
        path: path.to_owned(),
        reason: reason.to_owned(),
    };
    let checksum = value(about, CHECKSUM).and_then(|json| serde_json::from_str(json).ok());
    let Some(Checksum { bytes, blake3 }) = checksum else {
        return Err(damaged("its checksum is missing"));
    };
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(File::open(path)?.take(bytes))?;
    if hasher.count() == bytes && hasher.finalize().to_string() == blake3 {
        Ok(())
    } else {
        Err(damaged("its checksum does not fit"))
    }
}
