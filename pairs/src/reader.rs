//! All forms of pairs, read into one list.

use std::{
    collections::HashMap,
    ffi::OsStr,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{Location, PairsError, folder, pattern, shards, table};

/// What the column with captions is called, where nobody says.
const CAPTION_COLUMNS: [&str; 2] = ["caption", "text"];

/// Where pairs come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// A .csv, .tsv or .jsonl file; a folder of pictures with captions in .txt files of the same names;
    /// or .tar shards, one or a pattern such as `shards/{000..099}.tar` or `shards/*.tar`.
    pub path: PathBuf,
    /// Column, or key, with the path of the picture, relative to the file.
    #[serde(default = "image_column")]
    pub image_column: String,
    /// Column, or key, with the caption; `caption`, or `text`, where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caption_column: Option<String>,
}

fn image_column() -> String {
    "image".to_owned()
}

impl Source {
    /// With the usual names of columns.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            image_column: image_column(),
            caption_column: None,
        }
    }

    /// Names of the column with captions, the first that exists counts.
    pub(crate) fn caption_columns(&self) -> Vec<&str> {
        match &self.caption_column {
            Some(column) => vec![column],
            None => CAPTION_COLUMNS.to_vec(),
        }
    }
}

/// A picture and what it shows, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Captioned {
    /// Where it is.
    pub location: Location,
    /// What names it wherever its source lies: the path as it is written, or the name of the shard and
    /// what its members have in common.
    pub id: Box<str>,
    /// At least one, each once.
    pub captions: Vec<String>,
}

/// Something that is no pair, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Skipped {
    /// The file, or the shard and its member.
    pub path: String,
    /// What is wrong with it.
    pub reason: String,
}

/// All pairs, each picture once, in the order in which they came.
#[derive(Debug, Default)]
pub struct Pairs {
    /// The pictures.
    pub pictures: Vec<Captioned>,
    /// What cannot be a pair.
    pub skipped: Vec<Skipped>,
}

/// Reads all pairs of all sources. Pictures are not opened.
///
/// # Errors
/// When a file or folder cannot be read, a column is missing, a row lacks its picture or its
/// caption, or a source has no pair at all.
pub fn read(sources: &[Source]) -> Result<Pairs, PairsError> {
    let mut list = List::default();
    for source in sources {
        let (pictures, skipped) = (list.found, list.pairs.skipped.len());
        read_one(source, &mut list)?;
        if list.found == pictures {
            let first = list.pairs.skipped.get(skipped);
            return Err(PairsError::Empty {
                path: source.path.clone(),
                first: first.map(|s| format!("{}: {}", s.path, s.reason)),
            });
        }
    }
    Ok(list.pairs)
}

fn read_one(source: &Source, list: &mut List) -> Result<(), PairsError> {
    let path = &source.path;
    let ending = path.extension().map(OsStr::to_ascii_lowercase);
    match ending.as_deref().and_then(OsStr::to_str) {
        _ if path.is_dir() => folder::read(path, list),
        Some("csv") => table::read_table(source, b',', list)?,
        Some("tsv") => table::read_table(source, b'\t', list)?,
        Some("jsonl" | "ndjson") => table::read_lines(source, list)?,
        Some("tar") => {
            for shard in pattern::expand(path)? {
                shards::read(&shard, source, list)?;
            }
        }
        Some("gz" | "tgz" | "zst") => {
            return Err(PairsError::Pattern {
                pattern: path.display().to_string(),
                problem: "compressed shards are not read, since members are read by their place: \
                          unpack them once"
                    .to_owned(),
            });
        }
        _ => return Err(PairsError::Form { path: path.clone() }),
    }
    Ok(())
}

/// A list that grows.
#[derive(Debug, Default)]
pub(crate) struct List {
    pairs: Pairs,
    places: HashMap<PathBuf, usize>,
    /// Captions that came, known or not.
    found: usize,
}

impl List {
    /// A picture in a file of its own, which may have come before.
    pub(crate) fn add_file(&mut self, path: PathBuf, id: &str, caption: &str) {
        // One picture, however it is written down. What is not there is noticed when it is read.
        let path = fs_err::canonicalize(&path).unwrap_or(path);
        self.found += 1;
        if let Some(place) = self.places.get(&path) {
            let captions = &mut self.pairs.pictures[*place].captions;
            if !captions.iter().any(|known| known == caption) {
                captions.push(caption.to_owned());
            }
            return;
        }
        self.places.insert(path.clone(), self.pairs.pictures.len());
        self.pairs.pictures.push(Captioned {
            location: Location::File(path),
            id: id.into(),
            captions: vec![caption.to_owned()],
        });
    }

    /// A member of a shard with all its captions, of which there is at least one.
    pub(crate) fn add_member(&mut self, picture: Captioned) {
        self.found += 1;
        self.pairs.pictures.push(picture);
    }

    pub(crate) fn skip(&mut self, path: &impl ToString, reason: impl Into<String>) {
        self.pairs.skipped.push(Skipped {
            path: path.to_string(),
            reason: reason.into(),
        });
    }
}

/// The lines of a caption file: each is a caption.
pub(crate) fn captions(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim).filter(|line| !line.is_empty())
}

/// How a path is called below a folder.
pub(crate) fn relative(path: &Path, root: &Path) -> String {
    let below = path.strip_prefix(root).unwrap_or(path);
    below.to_string_lossy().replace('\\', "/")
}
