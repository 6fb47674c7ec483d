//! What the `README.md` of a model folder states about the model, in the YAML between its first two
//! lines of dashes: `license`, `license_name` and `language`. Everything else in it is passed over.

use std::{io::Read as _, path::Path};

/// Longest part of a file that is looked at, in bytes.
const MOST: usize = 1 << 16;

/// Longest text that is taken over, in characters.
const LONGEST: usize = 100;

/// Most languages that are taken over.
const LANGUAGES: usize = 200;

/// What is stated; nothing where the file states nothing.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Stated {
    pub license: Option<String>,
    pub languages: Vec<String>,
}

/// The part of a file that is looked at; nothing where it cannot be read.
pub(super) fn head(file: &Path) -> Option<Vec<u8>> {
    let mut contents = Vec::new();
    let file = fs_err::File::open(file).ok()?;
    file.take(MOST as u64).read_to_end(&mut contents).ok()?;
    Some(contents)
}

/// Reads a file.
pub(super) fn stated(contents: &[u8]) -> Stated {
    let text = String::from_utf8_lossy(&contents[..contents.len().min(MOST)]);
    let mut lines = text.trim_start_matches('\u{feff}').lines();
    let mut stated = Stated::default();
    if lines.next().map(str::trim_end) != Some("---") {
        return stated;
    }
    let (mut named, mut license, mut in_languages) = (None, None, false);
    for line in lines {
        let line = line.trim_end();
        if line == "---" || line == "..." {
            // The name says more than "other".
            stated.license = named.or(license);
            return stated;
        }
        if in_languages && let Some(item) = line.trim_start().strip_prefix("- ") {
            if stated.languages.len() < LANGUAGES {
                stated.languages.extend(value(item));
            }
            continue;
        }
        // Keys of the first level only.
        let Some((key, rest)) = line.split_once(':') else {
            continue;
        };
        in_languages = key == "language" && rest.trim().is_empty();
        match key {
            "license" => license = value(rest),
            "license_name" => named = value(rest),
            "language" => {
                let list = rest.trim().trim_start_matches('[').trim_end_matches(']');
                let said = list.split(',').filter_map(value).take(LANGUAGES);
                stated.languages = said.collect();
            }
            _ => {}
        }
    }
    // Without its last line it is no head of a file, whatever it looks like.
    Stated::default()
}

/// A scalar without quotes and remarks, where there is one.
fn value(text: &str) -> Option<String> {
    let text = text.split(" #").next().unwrap_or_default().trim();
    let text = text.trim_matches(['"', '\'']).trim();
    let is_shown = !text.is_empty() && !text.chars().any(char::is_control);
    is_shown.then(|| text.chars().take(LONGEST).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> (Option<String>, Vec<String>) {
        let Stated { license, languages } = stated(text.as_bytes());
        (license, languages)
    }

    #[test]
    fn license_and_languages_are_read_in_the_forms_that_are_in_use() {
        for (text, license, languages) in [
            (
                "---\nlicense: mit\nlanguage: en\n---\n# Model\n",
                Some("mit"),
                &["en"][..],
            ),
            (
                "---\ntags:\n- vision\nlanguage:\n- en\n- \"de\"  # too\nlicense: apache-2.0\n---\n",
                Some("apache-2.0"),
                &["en", "de"],
            ),
            (
                "---\r\nlanguage: [en, 'pt']\r\n---\r\n",
                None,
                &["en", "pt"],
            ),
            (
                "---\nlicense: other\nlicense_name: apple-amlr\nlicense_link: LICENSE\n---\n",
                Some("apple-amlr"),
                &[],
            ),
            ("# license: mit\n---\nlicense: mit\n---\n", None, &[]),
            ("---\nlicense: mit\nnever closed", None, &[]),
            ("---\nwidget:\n  license: gpl\n---\n", None, &[]),
            ("", None, &[]),
        ] {
            let (got, spoken) = of(text);
            assert_eq!(got.as_deref(), license, "{text:?}");
            assert_eq!(spoken, languages, "{text:?}");
        }
    }

    #[test]
    fn bytes_that_are_no_text_and_endless_heads_state_nothing() {
        assert_eq!(stated(&[0xff, 0xfe, 0, 1]), Stated::default());
        let endless = format!("---\n{}", "language: en\n".repeat(1 << 16));
        assert_eq!(stated(endless.as_bytes()), Stated::default());
        let many = format!("---\nlanguage:\n{}---\n", "- en\n".repeat(1000));
        assert!(stated(many.as_bytes()).languages.len() == LANGUAGES);
    }
}
