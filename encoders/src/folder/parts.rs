//! Which files of a folder hold its weights: one, or several that an index lists.
//!
//! transformers cuts large weights into `model-00001-of-00002.safetensors` and so on, and writes
//! `model.safetensors.index.json` beside them: which tensor is in which file. As there, what counts
//! is which files there are; each says itself what it holds.

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    io::Read as _,
    path::{Path, PathBuf},
};

use fs_err as fs;

use super::Layout;
use crate::{
    ModelError,
    keys::{self, Keys},
};

/// Longest index that is read, in bytes: some ten times that of a model with two towers of 100 layers.
const MOST_INDEX: u64 = 4 << 20;

/// The files that hold the weights of a folder, by name.
pub(crate) struct WeightFiles {
    /// The only one, or the index: what is named where a tensor is in none.
    pub named: String,
    /// Each of them, sorted.
    pub parts: Vec<String>,
}

impl WeightFiles {
    /// Of a folder that has the one file or the index; `None` where it has neither. One file goes
    /// before an index.
    pub(super) fn find(folder: &Path, layout: Layout) -> Result<Option<Self>, ModelError> {
        let (whole, index) = (layout.weights(), layout.index());
        if folder.join(whole).is_file() {
            return Ok(Some(Self {
                named: whole.to_owned(),
                parts: vec![whole.to_owned()],
            }));
        }
        let file = folder.join(&index);
        if !file.is_file() {
            return Ok(None);
        }
        let parts = listed(&read(&file)?, &file)?;
        if let Some(part) = parts.iter().find(|part| !folder.join(part).is_file()) {
            return Err(ModelError::MissingFile {
                file: folder.join(part),
                hint: format!(
                    "{index} lists it among {} files of the weights",
                    parts.len()
                ),
            });
        }
        Ok(Some(Self {
            named: index,
            parts: parts.into_iter().collect(),
        }))
    }
}

/// The contents of an index.
fn read(file: &Path) -> Result<Vec<u8>, ModelError> {
    let mut contents = Vec::new();
    let open = fs::File::open(file)?;
    open.take(MOST_INDEX + 1).read_to_end(&mut contents)?;
    if contents.len() as u64 > MOST_INDEX {
        return Err(ModelError::BadValue {
            file: PathBuf::from(file),
            key: ".".to_owned(),
            value: format!("of more than {MOST_INDEX} bytes"),
            expected: "a list of tensors and their files".to_owned(),
        });
    }
    Ok(contents)
}

/// The names of all files that an index lists.
pub(crate) fn listed(contents: &[u8], file: &Path) -> Result<BTreeSet<String>, ModelError> {
    const EXPECTED: &str = "an object: the name of a file for that of each tensor";
    let value = keys::parse(contents, file)?;
    let root = Keys::root(file, &value)?;
    root.get("weight_map", EXPECTED)?;
    let map = root.section_or_empty("weight_map")?;
    let mut names = BTreeSet::new();
    for (tensor, name) in map.iter() {
        // Else a folder could have files read that are none of its own.
        let plain = |name: &&str| Path::new(name).file_name() == Some(OsStr::new(name));
        let Some(name) = name.as_str().filter(plain) else {
            return Err(map.bad(tensor, "the name of a file of the same folder"));
        };
        names.insert(name.to_owned());
    }
    if names.is_empty() {
        return Err(root.bad("weight_map", EXPECTED));
    }
    Ok(names)
}
