//! What the gallery is called beyond its names: keywords, and names in other languages.

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
};

use anyhow::{Context, Result};
use embedding::Embedding;
use encoders::Model;
use engine::metrics::{image_retrieval_recall, keyword_queries, recall_at_k};
use serde::{Deserialize, Serialize};

use super::demo::{Figures, KS};
use crate::{gallery::Entry, inputs, output};

/// The language whose keywords are queries and whose names are measured anyway.
const ENGLISH: &str = "en";

/// One line of a `words.jsonl`, as `diptych-train prepare` writes it.
#[derive(Debug, Deserialize)]
struct Line {
    concept: String,
    words: BTreeMap<String, Words>,
}

/// What one language calls one picture.
#[derive(Debug, Default, Deserialize)]
struct Words {
    name: String,
    tags: Vec<String>,
}

/// Figures of such queries, text to image.
#[derive(Debug, Serialize)]
pub struct ByWords {
    /// How many keywords were asked for: those that are no words of the names of what they mean.
    pub keywords: usize,
    /// Share of them with a picture that bears the keyword within the first k.
    pub keyword_hit: Figures,
    /// By language, recall by its names.
    pub languages: BTreeMap<String, Figures>,
}

/// Name of the figure of keywords.
pub fn keyword_hit(k: usize) -> String {
    format!("keyword_hit@{k}")
}

/// Measures on the pictures of `entries` with the words of `file`.
///
/// # Errors
/// When the file cannot be used, or the model fails.
pub fn measure(
    file: &Path,
    entries: &[&Entry],
    pictures: &[Embedding],
    model: &Model,
) -> Result<ByWords> {
    let words = read(file)?;
    let words: Vec<_> = entries.iter().map(|e| words.get(&concept(e))).collect();
    let nothing = Words::default();
    let english = entries.iter().zip(&words).map(|(entry, words)| {
        let words = words.and_then(|words| words.get(ENGLISH));
        (entry.name, &words.unwrap_or(&nothing).tags[..])
    });
    let mut names: BTreeMap<&str, BTreeMap<&str, Vec<usize>>> = BTreeMap::new();
    for (i, words) in words.iter().enumerate() {
        for (language, words) in words.iter().flat_map(|words| words.iter()) {
            let of_language = names.entry(language).or_default();
            of_language.entry(&words.name).or_default().push(i);
        }
    }
    names.remove(ENGLISH);

    let keywords = keyword_queries(english);
    let asked = keywords.len() + names.values().map(BTreeMap::len).sum::<usize>();
    let bar = output::progress("encoding words", asked);
    let figures = |queries: BTreeMap<&str, Vec<usize>>, name: fn(usize) -> String| {
        let texts: Vec<String> = queries.keys().map(|text| (*text).to_owned()).collect();
        let right: Vec<Vec<usize>> = queries.into_values().collect();
        let texts = inputs::shared_of_texts(&texts, model, |done| bar.inc(done as u64))?;
        let recall = recall_at_k(&texts, pictures, |i| right[i].clone(), &KS);
        Ok::<Figures, anyhow::Error>(KS.map(name).into_iter().zip(recall).collect())
    };
    let by_words = ByWords {
        keywords: keywords.len(),
        keyword_hit: figures(keywords, keyword_hit)?,
        languages: names
            .into_iter()
            .map(|(language, names)| {
                let recall = figures(names, image_retrieval_recall)?;
                Ok((language.to_owned(), recall))
            })
            .collect::<Result<_>>()?,
    };
    bar.finish_and_clear();
    Ok(by_words)
}

fn read(file: &Path) -> Result<HashMap<String, BTreeMap<String, Words>>> {
    let text = fs_err::read_to_string(file)?;
    let lines = text.lines().enumerate();
    lines
        .map(|(i, line)| {
            let line: Line = serde_json::from_str(line)
                .with_context(|| format!("{}, line {} has no words", file.display(), i + 1))?;
            Ok((line.concept, line.words))
        })
        .collect()
}

/// As files name it: without the selector of the colored form.
pub(super) fn concept(entry: &Entry) -> String {
    let points = entry.codepoints.split('-').filter(|point| *point != "fe0f");
    points.collect::<Vec<_>>().join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_is_found_in_the_file_without_its_selector() {
        let entry = Entry {
            codepoints: "2764-fe0f-200d-1f525".to_owned(),
            emoji: "",
            name: "heart on fire",
            svg: "",
            skin_tone: false,
        };
        assert_eq!(concept(&entry), "2764-200d-1f525");
    }

    #[test]
    fn a_broken_line_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("words.jsonl");
        let good = r#"{"concept": "1f600", "words": {"de": {"name": "Gesicht", "tags": []}}}"#;
        fs_err::write(&file, format!("{good}\n{{}}\n")).expect("a file");
        let problem = read(&file).expect_err("is refused").to_string();
        assert!(
            problem.ends_with("words.jsonl, line 2 has no words"),
            "{problem}"
        );
        fs_err::write(&file, good).expect("a file");
        assert_eq!(read(&file).expect("reads")["1f600"]["de"].name, "Gesicht");
    }
}
