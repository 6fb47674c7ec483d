//! What things are called in each language: `words.jsonl`, which may lie beside a manifest.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{TrainingError, manifest::read_lines};

/// The language of the manifests themselves.
pub const ENGLISH: &str = "en";

/// Name of the file, in the folder of the manifest.
pub const FILE: &str = "words.jsonl";

/// By language, what it calls one concept.
pub type Translations = BTreeMap<String, Words>;

/// What one language calls one concept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Words {
    /// Its CLDR short name.
    pub name: String,
    /// Its CLDR keywords, without the name itself.
    pub tags: Vec<String>,
}

/// One line of `words.jsonl`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WordsEntry {
    /// As in the manifest.
    pub concept: String,
    /// By language, as BCP 47 writes it.
    pub words: Translations,
}

/// The words of `languages` by concept, from the files beside the manifests that have one; in lower
/// case, as the tokenizer reads them: "Uhr" and "uhr" are one phrase.
///
/// # Errors
/// When a line cannot be read, or no file has a word of one of the languages.
pub fn read(
    manifests: &[PathBuf],
    languages: &[String],
) -> Result<HashMap<String, Translations>, TrainingError> {
    let mut words: HashMap<String, Translations> = HashMap::new();
    let mut known = BTreeSet::new();
    if languages.is_empty() {
        return Ok(words);
    }
    for manifest in manifests {
        let file = manifest.parent().unwrap_or(Path::new(".")).join(FILE);
        if !file.exists() {
            continue;
        }
        for entry in read_lines::<WordsEntry>(&file, "concept and words")? {
            let translations = words.entry(entry.concept).or_default();
            for (language, said) in entry.words {
                if languages.contains(&language) {
                    let said = in_lower_case(&said);
                    translations.entry(language.clone()).or_insert(said);
                }
                known.insert(language);
            }
        }
    }
    if let Some(language) = languages.iter().find(|language| !known.contains(*language)) {
        return Err(TrainingError::Language {
            language: language.clone(),
            known: known.into_iter().collect(),
        });
    }
    Ok(words)
}

fn in_lower_case(words: &Words) -> Words {
    let name = words.name.to_lowercase();
    let mut tags: Vec<String> = Vec::with_capacity(words.tags.len());
    for tag in &words.tags {
        let tag = tag.to_lowercase();
        if tag != name && !tags.contains(&tag) {
            tags.push(tag);
        }
    }
    Words { name, tags }
}
