//! API keys: who may do what. A key is shown once, when it is made; what is kept is its hash.
//!
//! A key is 256 random bits, so that a plain cryptographic hash is enough: there is nothing to guess
//! that a slow hash would make expensive.

use std::{
    io::{self, Write as _},
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use fs_err as fs;
use serde::{Deserialize, Serialize};
use subtle::{Choice, ConstantTimeEq as _};
use thiserror::Error;

/// How keys begin, so that one that was published by mistake is known for what it is.
const PREFIX: &str = "diptych_";

/// Random bytes of a key.
const BYTES: usize = 32;

/// What a key may do. Each role may do all that those before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Search, classify, embed, and read what is kept.
    Read,
    /// Add, change and delete items, too.
    Write,
    /// Everything.
    Admin,
}

impl Role {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Admin => "admin",
        }
    }
}

/// What is kept of a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Key {
    /// Whom or what it is for.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// The collections that it may see; `None` for all.
    pub collections: Option<Vec<String>>,
    /// When it was made, in milliseconds since 1970.
    pub created_at_ms: u64,
    /// BLAKE3 of the key, in hexadecimal digits.
    hash: String,
}

impl Key {
    /// Whether it may see a collection.
    pub fn sees(&self, collection: &str) -> bool {
        let only = self.collections.as_ref();
        only.is_none_or(|only| only.iter().any(|name| name == collection))
    }
}

/// A key to be made.
#[derive(Debug, Clone)]
pub struct NewKey {
    /// Whom or what it is for: 1 to 64 of a-z, 0-9, _ and -.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// The collections that it may see; `None` for all.
    pub collections: Option<Vec<String>>,
}

/// Why keys cannot be read or changed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The file cannot be read or written.
    #[error("the API keys cannot be read or written")]
    Io(#[from] io::Error),
    /// The file is not what was written.
    #[error("the API keys in {} are damaged; put the file right or remove it", file.display())]
    Damaged {
        /// The file.
        file: PathBuf,
        /// Where and why.
        #[source]
        source: serde_json::Error,
    },
    /// The name is taken.
    #[error("there is a key {name:?} already: remove it, or choose another name")]
    Exists {
        /// The name.
        name: String,
    },
    /// No key has this name.
    #[error("there is no key {name:?}")]
    NoKey {
        /// The name.
        name: String,
    },
    /// The name cannot be that of a key, or of a collection.
    #[error(
        "{name:?} is no name: expected 1 to 64 of a-z, 0-9, _ and -, starting with a letter or a digit"
    )]
    BadName {
        /// The name.
        name: String,
    },
    /// The system has no random numbers.
    #[error("the system gives no random numbers: {reason}")]
    Random {
        /// What it says.
        reason: String,
    },
}

/// A file of keys, which need not be there.
#[derive(Debug, Clone)]
pub struct KeyFile {
    path: PathBuf,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Contents {
    keys: Vec<Key>,
}

impl KeyFile {
    /// The file at `path`. Nothing is touched yet.
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All keys; none where there is no file.
    ///
    /// # Errors
    /// When the file is there and cannot be read.
    pub fn read(&self) -> Result<Vec<Key>, KeyError> {
        let bytes = match fs::read(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            read => read?,
        };
        let contents: Contents =
            serde_json::from_slice(&bytes).map_err(|source| KeyError::Damaged {
                file: self.path.clone(),
                source,
            })?;
        Ok(contents.keys)
    }

    /// Makes a key and returns it. It cannot be had again.
    ///
    /// # Errors
    /// When the name is taken or none, or the file cannot be changed.
    pub fn add(&self, new: NewKey) -> Result<String, KeyError> {
        let names = new.collections.iter().flatten().chain([&new.name]);
        for name in names {
            if !engine::is_name(name) {
                let name = name.clone();
                return Err(KeyError::BadName { name });
            }
        }
        let mut random = [0; BYTES];
        getrandom::fill(&mut random).map_err(|error| KeyError::Random {
            reason: error.to_string(),
        })?;
        let secret = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(random));
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let key = Key {
            name: new.name,
            role: new.role,
            collections: new.collections,
            created_at_ms: now.map_or(0, |now| now.as_millis() as u64),
            hash: hash(&secret),
        };
        self.change(|keys| {
            if keys.iter().any(|other| other.name == key.name) {
                return Err(KeyError::Exists { name: key.name });
            }
            keys.push(key);
            Ok(())
        })?;
        Ok(secret)
    }

    /// Removes a key. A running server asks for it no more within a second.
    ///
    /// # Errors
    /// When there is none of this name, or the file cannot be changed.
    pub fn remove(&self, name: &str) -> Result<(), KeyError> {
        self.change(|keys| {
            let before = keys.len();
            keys.retain(|key| key.name != name);
            let name = name.to_owned();
            (keys.len() < before)
                .then_some(())
                .ok_or(KeyError::NoKey { name })
        })
    }

    /// Changes the file, whole or not at all, with nobody else changing it.
    fn change(
        &self,
        change: impl FnOnce(&mut Vec<Key>) -> Result<(), KeyError>,
    ) -> Result<(), KeyError> {
        let folder = self.path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder)?;
        let lock = private(&self.path.with_extension("lock"), false)?;
        lock.lock()?;
        let mut keys = self.read()?;
        change(&mut keys)?;
        let aside = self.path.with_extension("new");
        let mut file = private(&aside, true)?;
        let mut bytes = serde_json::to_vec_pretty(&Contents { keys }).map_err(io::Error::other)?;
        bytes.push(b'\n');
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&aside, &self.path)?;
        // The name of the file is durable with its folder.
        fs::File::open(folder)?.sync_all()?;
        Ok(())
    }
}

/// A file that only its owner may read, to be written.
pub(crate) fn private(path: &Path, empty: bool) -> io::Result<std::fs::File> {
    let mut options = std::fs::OpenOptions::new();
    options.create(true).truncate(empty);
    if empty {
        options.write(true);
    } else {
        options.append(true);
    }
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let name =
        |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    options.open(path).map_err(name)
}

/// The key that this secret is, if it is one. How long that takes says nothing about any key.
pub(crate) fn find<'a>(
    keys: impl IntoIterator<Item = &'a std::sync::Arc<Key>>,
    secret: &str,
) -> Option<&'a std::sync::Arc<Key>> {
    let hash = hash(secret);
    let mut found = None;
    for key in keys {
        let same: Choice = key.hash.as_bytes().ct_eq(hash.as_bytes());
        if bool::from(same) {
            found = Some(key);
        }
    }
    found
}

fn hash(secret: &str) -> String {
    blake3::hash(secret.as_bytes()).to_hex().to_string()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn new(name: &str) -> NewKey {
        NewKey {
            name: name.into(),
            role: Role::Write,
            collections: Some(vec!["photos".into()]),
        }
    }

    #[test]
    fn a_key_is_found_by_its_secret_and_the_file_does_not_have_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = KeyFile::new(folder.path().join("data/keys.json"));
        assert_eq!(file.read().expect("none is fine"), []);
        let secrets = ["a", "b"].map(|name| file.add(new(name)).expect("is made"));
        let keys: Vec<_> = file
            .read()
            .expect("reads")
            .into_iter()
            .map(Arc::new)
            .collect();
        let found = find(&keys, &secrets[1]).expect("is one");
        assert_eq!((found.name.as_str(), found.role), ("b", Role::Write));
        assert!(found.sees("photos") && !found.sees("others"));
        for wrong in [
            "",
            "diptych_",
            &secrets[1][1..],
            &format!("{}x", secrets[1]),
        ] {
            assert!(find(&keys, wrong).is_none(), "{wrong}");
        }
        let text = fs::read_to_string(file.path()).expect("reads");
        let secret = secrets[0].strip_prefix(PREFIX).expect("begins so");
        assert!(secret.len() == 43 && !text.contains(secret), "{text}");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = fs::metadata(file.path())
                .expect("is there")
                .permissions()
                .mode();
            assert_eq!(mode & 0o777, 0o600);
        }
    }

    #[test]
    fn names_are_unique_and_what_is_removed_is_gone() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = KeyFile::new(folder.path().join("keys.json"));
        file.add(new("a")).expect("is made");
        assert!(matches!(file.add(new("a")), Err(KeyError::Exists { .. })));
        assert!(matches!(
            file.add(new("A b")),
            Err(KeyError::BadName { .. })
        ));
        assert!(matches!(file.remove("b"), Err(KeyError::NoKey { .. })));
        file.remove("a").expect("is there");
        assert_eq!(file.read().expect("reads"), []);
    }

    #[test]
    fn keys_that_are_made_at_once_are_all_kept() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = KeyFile::new(folder.path().join("keys.json"));
        std::thread::scope(|scope| {
            for i in 0..8 {
                let file = &file;
                scope.spawn(move || file.add(new(&format!("k{i}"))).expect("is made"));
            }
        });
        assert_eq!(file.read().expect("reads").len(), 8);
    }

    #[test]
    fn a_damaged_file_is_told_with_its_name() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = KeyFile::new(folder.path().join("keys.json"));
        fs::write(file.path(), "{\"keys\": [{}]}").expect("writes");
        let error = file.read().expect_err("is damaged").to_string();
        assert!(error.contains("keys.json"), "{error}");
    }
}
