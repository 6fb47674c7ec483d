//! The words around names, by language.

use std::{collections::HashMap, sync::LazyLock};

/// Language and sentence or word, separated by a tab; a file, since sources are ASCII.
const TABLE: &str = include_str!("carriers.tsv");

/// What a language puts around a name.
#[derive(Debug, Default)]
pub(super) struct Wording {
    /// Sentences that people put around the name `{}` of what they look for.
    pub carriers: Vec<&'static str>,
    /// Words without a subject of their own, for carriers made up on the spot.
    pub fillers: Vec<&'static str>,
}

/// What `language` puts around a name: nothing where the table has nothing.
pub(super) fn wording(language: &str) -> &'static Wording {
    static NONE: Wording = Wording {
        carriers: Vec::new(),
        fillers: Vec::new(),
    };
    static ALL: LazyLock<HashMap<&str, Wording>> = LazyLock::new(|| {
        let mut all: HashMap<&str, Wording> = HashMap::new();
        let lines = TABLE.lines().filter(|line| !line.starts_with('#'));
        for (language, text) in lines.filter_map(|line| line.split_once('\t')) {
            let wording = all.entry(language).or_default();
            let part = if text.contains("{}") {
                &mut wording.carriers
            } else {
                &mut wording.fillers
            };
            part.push(text);
        }
        all
    });
    ALL.get(language).unwrap_or(&NONE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_has_a_language_and_a_sentence_and_every_fetched_language_has_some() {
        let lines = TABLE.lines().filter(|line| !line.starts_with('#'));
        for line in lines {
            let parts: Vec<_> = line.split('\t').collect();
            assert!(
                matches!(parts[..], [language, text] if !language.is_empty() && text.trim() == text && !text.is_empty()),
                "{line:?}"
            );
        }
        let fetch = include_str!("../../recipes/mini/fetch.sh");
        let languages = fetch
            .split_once("languages=(")
            .and_then(|(_, rest)| rest.split_once(')'));
        let (languages, _) = languages.expect("a list");
        for language in languages.split(' ') {
            assert!(wording(language).carriers.len() >= 8, "{language}");
        }
        assert_eq!(wording("en").carriers.len(), 40);
        assert_eq!(wording("en").fillers.len(), 72);
    }
}
