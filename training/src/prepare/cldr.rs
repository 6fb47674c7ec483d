//! The annotations of CLDR: what a language calls each emoji.

use std::collections::HashMap;
use std::path::Path;

use fs_err as fs;
use serde::Deserialize;

use super::PrepareError;
use super::icons::read_json;
use super::names::concept_of;

/// Where the annotations of single code points are, by language; those of sequences are apart.
const SINGLE: &str = "annotations/annotations";
const SEQUENCES: &str = "derived/annotationsDerived";

/// What one language says of one emoji.
#[derive(Debug, Deserialize)]
pub struct Annotation {
    /// Keywords.
    #[serde(default)]
    pub default: Vec<String>,
    /// The short name, as it is to be read aloud.
    #[serde(default)]
    pub tts: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct AnnotationsFile {
    #[serde(alias = "annotationsDerived")]
    annotations: Annotations,
}

#[derive(Debug, Deserialize)]
struct Annotations {
    annotations: HashMap<String, Annotation>,
}

/// Every language that was fetched, sorted.
///
/// # Errors
/// When the folder is missing.
pub fn languages(cldr: &Path) -> Result<Vec<String>, PrepareError> {
    let mut languages = Vec::new();
    for folder in fs::read_dir(cldr.join(SINGLE))? {
        languages.push(folder?.file_name().to_string_lossy().into_owned());
    }
    languages.sort_unstable();
    Ok(languages)
}

/// What `language` says, by concept.
///
/// # Errors
/// When a file is missing or is something else.
pub fn read(cldr: &Path, language: &str) -> Result<HashMap<String, Annotation>, PrepareError> {
    let mut annotations = HashMap::new();
    for folder in [SINGLE, SEQUENCES] {
        let file = cldr.join(folder).join(language).join("annotations.json");
        let read: AnnotationsFile = read_json(&file)?;
        let by_text = read.annotations.annotations.into_iter();
        annotations.extend(by_text.map(|(text, said)| (concept_of(&text), said)));
    }
    Ok(annotations)
}
