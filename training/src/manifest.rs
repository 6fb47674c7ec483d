//! The pictures and words of a run, in memory.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use encoders::{DecodeLimits, RgbaPicture, decode_rgba};
use fs_err as fs;
use rayon::prelude::*;
use serde::de::DeserializeOwned;

use crate::{
    TrainingError,
    config::DataConfig,
    prepare::{PictureEntry, is_test_style},
    words::{self, ENGLISH, Translations},
};

/// One thing and all its pictures.
#[derive(Debug, Clone)]
pub struct Concept {
    /// Its code points, or whatever names it uniquely.
    pub key: String,
    /// What it is called.
    pub name: String,
    /// Other words for it.
    pub tags: Vec<String>,
    /// Whether it is a skin-tone variant.
    pub skin_tone: bool,
    /// What the configured languages besides English call it.
    pub translations: Translations,
    /// Its pictures with the weight of their style.
    pub pictures: Vec<(RgbaPicture, f64)>,
}

impl Concept {
    /// Whether `phrase` is its name or another word for it in `language`. The same letters in another
    /// language may mean another thing.
    pub fn bears(&self, language: &str, phrase: &str) -> bool {
        let (name, tags) = match self.translations.get(language) {
            Some(words) => (&words.name, &words.tags),
            None if language == ENGLISH => (&self.name, &self.tags),
            None => return false,
        };
        name == phrase || tags.iter().any(|tag| tag == phrase)
    }
}

/// What is trained on, and what is held out.
#[derive(Debug, Clone, Default)]
pub struct Dataset {
    /// Sorted by key.
    pub training: Vec<Concept>,
    /// Concepts of each held-out style, one picture each.
    pub held_out: BTreeMap<String, Vec<Concept>>,
}

impl Dataset {
    /// Reads every manifest and picture. A style of weight 0 is not trained on.
    ///
    /// # Errors
    /// When a line or a picture cannot be read, or a style or a language is configured that no line
    /// has, or a line has the test style; the message names it.
    pub fn read(config: &DataConfig) -> Result<Self, TrainingError> {
        let mut entries = Vec::new();
        for manifest in &config.manifests {
            entries.extend(read_manifest(manifest)?);
        }
        check_styles(config, &entries)?;
        let words = words::read(&config.manifests, &config.languages)?;
        let weight = |style: &str| config.style_weights.get(style).copied().unwrap_or(1.0);
        let is_held_out = |style: &String| config.held_out.contains(style);
        entries.retain(|(_, entry)| is_held_out(&entry.style) || weight(&entry.style) > 0.0);
        let pictures: Vec<RgbaPicture> = entries
            .par_iter()
            .map(|(file, _)| {
                let bytes = fs::read(file)?;
                decode_rgba(&bytes, &DecodeLimits::default()).map_err(|source| {
                    TrainingError::Picture {
                        file: file.clone(),
                        source,
                    }
                })
            })
            .collect::<Result<_, _>>()?;
        let mut training = BTreeMap::new();
        let mut held_out: BTreeMap<String, BTreeMap<String, Concept>> = BTreeMap::new();
        for ((_, entry), picture) in entries.into_iter().zip(pictures) {
            let weight = weight(&entry.style);
            let concepts = if is_held_out(&entry.style) {
                held_out.entry(entry.style.clone()).or_default()
            } else {
                &mut training
            };
            let concept = concepts
                .entry(entry.concept.clone())
                .or_insert_with(|| Concept {
                    translations: words.get(&entry.concept).cloned().unwrap_or_default(),
                    key: entry.concept,
                    name: entry.name,
                    tags: entry.tags,
                    skin_tone: entry.skin_tone,
                    pictures: Vec::new(),
                });
            concept.pictures.push((picture, weight));
        }
        let list = |concepts: BTreeMap<String, Concept>| concepts.into_values().collect::<Vec<_>>();
        Ok(Self {
            training: list(training),
            held_out: held_out
                .into_iter()
                .map(|(style, c)| (style, list(c)))
                .collect(),
        })
    }
}

/// A style that is misspelled would be trained on, or drawn as often as any other.
fn check_styles(
    config: &DataConfig,
    entries: &[(PathBuf, PictureEntry)],
) -> Result<(), TrainingError> {
    let known: BTreeSet<&String> = entries.iter().map(|(_, entry)| &entry.style).collect();
    let held_out = config.held_out.iter().map(|s| ("data.held_out", s));
    let weighted = config.style_weights.keys();
    let mut named = held_out.chain(weighted.map(|s| ("data.style_weights", s)));
    if let Some((key, style)) = named.find(|(_, style)| !known.contains(style)) {
        return Err(TrainingError::Style {
            key,
            style: style.clone(),
            known: known.into_iter().cloned().collect(),
        });
    }
    Ok(())
}

fn read_manifest(file: &Path) -> Result<Vec<(PathBuf, PictureEntry)>, TrainingError> {
    let folder = file.parent().unwrap_or(Path::new("."));
    let keys = "image, concept, name, tags, style and skin_tone";
    read_lines::<PictureEntry>(file, keys)?
        .into_iter()
        .map(|entry| {
            if is_test_style(&entry.style) {
                return Err(TrainingError::TestStyle {
                    file: file.to_owned(),
                    style: entry.style,
                });
            }
            Ok((folder.join(&entry.image), entry))
        })
        .collect()
}

/// Every line of a file; `keys` says what each is an object with.
pub(crate) fn read_lines<T: DeserializeOwned>(
    file: &Path,
    keys: &'static str,
) -> Result<Vec<T>, TrainingError> {
    let text = fs::read_to_string(file)?;
    let lines = text.lines().enumerate();
    lines
        .filter(|(_, line)| !line.trim().is_empty())
        .map(|(i, line)| {
            serde_json::from_str(line).map_err(|source| TrainingError::Manifest {
                file: file.to_owned(),
                line: i + 1,
                expected: keys,
                source,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A manifest of styles and concepts, each picture one pixel.
    fn manifest(folder: &Path, lines: &[(&str, &str)]) -> PathBuf {
        let mut text = String::new();
        for (style, concept) in lines {
            let pixel = RgbaPicture::new(1, 1, vec![1, 2, 3, 255]).expect("sizes fit");
            let image = format!("{style}-{concept}.png");
            fs::write(folder.join(&image), pixel.to_png()).expect("a picture");
            let entry = PictureEntry {
                image,
                concept: (*concept).to_owned(),
                name: format!("the {concept}"),
                tags: Vec::new(),
                style: (*style).to_owned(),
                skin_tone: false,
            };
            text += &serde_json::to_string(&entry).expect("a line");
            text += "\n";
        }
        let file = folder.join("manifest.jsonl");
        fs::write(&file, text).expect("a manifest");
        file
    }

    fn config(manifest: PathBuf, held_out: &[&str], weights: &[(&str, f64)]) -> DataConfig {
        let weights = weights.iter().map(|(s, w)| ((*s).to_owned(), *w));
        DataConfig {
            manifests: vec![manifest],
            held_out: held_out.iter().map(|s| (*s).to_owned()).collect(),
            style_weights: weights.collect(),
            ..DataConfig::default()
        }
    }

    const LINES: [(&str, &str); 6] = [
        ("ink", "sun"),
        ("ink", "moon"),
        ("oil", "moon"),
        ("oil", "star"),
        ("pen", "moon"),
        ("pen", "tree"),
    ];

    #[test]
    fn pictures_of_held_out_styles_are_apart_and_others_have_the_weight_of_their_style() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = manifest(folder.path(), &LINES);
        let config = config(file, &["oil"], &[("pen", 0.5), ("oil", 0.0)]);
        let dataset = Dataset::read(&config).expect("reads");
        let seen = |concepts: &[Concept]| {
            let seen = concepts.iter().map(|c| {
                let weights: Vec<f64> = c.pictures.iter().map(|(_, w)| *w).collect();
                format!("{}, {}: {weights:?}", c.key, c.name)
            });
            seen.collect::<Vec<_>>()
        };
        assert_eq!(
            seen(&dataset.training),
            [
                "moon, the moon: [1.0, 0.5]",
                "sun, the sun: [1.0]",
                "tree, the tree: [0.5]"
            ]
        );
        assert_eq!(dataset.held_out.len(), 1);
        let keys: Vec<_> = dataset.held_out["oil"].iter().map(|c| &c.key).collect();
        assert_eq!(keys, ["moon", "star"]);
    }

    #[test]
    fn a_style_of_weight_0_leaves_no_concept_without_pictures() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = manifest(folder.path(), &LINES);
        let dataset = Dataset::read(&config(file, &[], &[("pen", 0.0)])).expect("reads");
        let keys: Vec<_> = dataset.training.iter().map(|c| &c.key).collect();
        assert_eq!(keys, ["moon", "star", "sun"]);
        assert_eq!(dataset.training[0].pictures.len(), 2);
    }

    /// A held-out style with a typing error was once trained on, and nothing said so.
    #[test]
    fn a_style_that_no_manifest_holds_is_refused_by_its_name() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = manifest(folder.path(), &LINES);
        for (key, config) in [
            ("data.held_out", config(file.clone(), &["ink", "oli"], &[])),
            ("data.style_weights", config(file, &[], &[("oli", 0.5)])),
        ] {
            let message = Dataset::read(&config).expect_err("is refused").to_string();
            let says = format!("`{key}` names the style oli, the manifests hold ink, oil, pen");
            assert_eq!(message, says);
        }
    }

    #[test]
    fn concepts_bear_their_words_in_the_configured_languages_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = manifest(folder.path(), &LINES);
        let said = [
            r#"{"concept": "moon", "words": {"de": {"name": "Mond", "tags": ["Nacht", "nacht", "mond"]},
                "en": {"name": "moon", "tags": []}, "tr": {"name": "ay", "tags": []}}}"#,
            r#"{"concept": "comet", "words": {"pl": {"name": "kometa", "tags": []}}}"#,
        ];
        let said = said.map(|line| line.replace('\n', "")).join("\n");
        fs::write(folder.path().join(words::FILE), said).expect("words");
        let mut config = config(file, &["oil"], &[]);
        let plain = Dataset::read(&config).expect("reads");
        assert!(plain.training.iter().all(|c| c.translations.is_empty()));

        config.languages = vec!["pl".to_owned(), "de".to_owned()];
        let dataset = Dataset::read(&config).expect("reads");
        let [moon, star] = &dataset.held_out["oil"][..] else {
            panic!("two concepts");
        };
        assert_eq!(star.translations, Translations::new());
        let languages: Vec<_> = moon.translations.keys().collect();
        assert_eq!(languages, ["de"]);
        // As the tokenizer sees them, which has no capitals.
        assert_eq!(moon.translations["de"].tags, ["nacht"]);
        for (language, phrase, bears) in [
            ("de", "mond", true),
            ("de", "nacht", true),
            ("de", "the moon", false),
            (ENGLISH, "the moon", true),
            (ENGLISH, "mond", false),
            ("tr", "ay", false),
        ] {
            assert_eq!(moon.bears(language, phrase), bears, "{language} {phrase}");
        }
        let training = &dataset.training[0];
        assert_eq!(training.translations, moon.translations);
    }

    #[test]
    fn a_language_that_no_word_is_in_is_refused_by_its_name() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut config = config(manifest(folder.path(), &LINES), &[], &[]);
        config.languages = vec!["de".to_owned(), "dd".to_owned()];
        let message = |config| Dataset::read(config).expect_err("is refused").to_string();
        let none = message(&config);
        assert!(
            none.contains("names de") && none.contains("holds nothing"),
            "{none}"
        );
        let said = r#"{"concept": "sun", "words": {"de": {"name": "Sonne", "tags": []}}}"#;
        fs::write(folder.path().join(words::FILE), said).expect("words");
        let misspelled = message(&config);
        assert!(
            misspelled.contains("names dd") && misspelled.contains("holds de:"),
            "{misspelled}"
        );
        fs::write(folder.path().join(words::FILE), format!("{said}\n{{}}")).expect("words");
        let broken = message(&config);
        assert!(
            broken.contains("words.jsonl, line 2: expected an object with concept"),
            "{broken}"
        );
    }

    #[test]
    fn the_test_style_is_refused_even_when_it_is_held_out() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = manifest(folder.path(), &[("ink", "sun"), ("Twemoji-2", "sun")]);
        for held_out in [&[][..], &["Twemoji-2"]] {
            let refused = Dataset::read(&config(file.clone(), held_out, &[]));
            let message = refused.expect_err("is refused").to_string();
            assert!(message.contains("holds the style Twemoji-2"), "{message}");
        }
    }
}
