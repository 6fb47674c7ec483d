//! What a drawing shows: emoji, their names and keywords, and the names that styles give them.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use emojis::Emoji;

use super::cldr::{self, Annotation};
use super::icons::{Drawing, Style};
use super::{PictureEntry, PrepareError};
use crate::words::{ENGLISH, Words, WordsEntry};

/// Names that only one style uses: style, drawing, concept (`-`: no emoji), separated by tabs.
const RENAMES: &str = include_str!("../../recipes/mini/renames.tsv");

/// The selector of the colored form, which some sources write and others leave out.
const COLORED_FORM: u32 = 0xfe0f;

/// Styles that draw flags only and name them by ISO 3166 code.
const FLAG_STYLES: [&str; 3] = ["circle-flags", "flag-icons", "flagpack"];

/// The modifiers that choose a skin tone.
const SKIN_TONES: std::ops::RangeInclusive<char> = '\u{1f3fb}'..='\u{1f3ff}';

/// Code points in lowercase hex joined by `-`, without the selector of the colored form.
pub fn concept_of(text: &str) -> String {
    let points = text
        .chars()
        .map(u32::from)
        .filter(|&point| point != COLORED_FORM);
    points
        .map(|point| format!("{point:x}"))
        .collect::<Vec<_>>()
        .join("-")
}

/// The same from code points that are already hex: any case, any leading zeros.
pub fn concept_of_hex(hex: &str) -> String {
    let points = hex
        .split('-')
        .map(|point| point.trim_start_matches('0').to_ascii_lowercase());
    points
        .filter(|point| point != "fe0f")
        .collect::<Vec<_>>()
        .join("-")
}

/// Every known emoji, by concept.
#[derive(Debug)]
pub struct Emojis {
    known: BTreeMap<String, &'static Emoji>,
    annotations: HashMap<String, Annotation>,
    /// By language, without English.
    translations: BTreeMap<String, HashMap<String, Annotation>>,
}

impl Emojis {
    /// The emoji of the crate `emojis` with the keywords that CLDR gives them, and with their words
    /// in every other language that was fetched.
    ///
    /// # Errors
    /// When a file of CLDR is missing or is something else.
    pub fn read(cldr: &Path) -> Result<Self, PrepareError> {
        let with_tones = |emoji: &'static Emoji| match emoji.skin_tones() {
            Some(tones) => tones.collect(),
            None => vec![emoji],
        };
        let known = emojis::iter()
            .flat_map(with_tones)
            .map(|emoji| (concept_of(emoji.as_str()), emoji))
            .collect();
        let annotations = cldr::read(cldr, ENGLISH)?;
        let mut translations = BTreeMap::new();
        for language in cldr::languages(cldr)? {
            if language != ENGLISH {
                let said = cldr::read(cldr, &language)?;
                translations.insert(language, said);
            }
        }
        Ok(Self {
            known,
            annotations,
            translations,
        })
    }

    /// What every known emoji is called in every language, English included.
    pub fn words(&self) -> Vec<WordsEntry> {
        let entry = |(concept, emoji): (&String, &&'static Emoji)| {
            let translated = self.translations.iter().filter_map(|(language, said)| {
                let name = said.get(concept)?.tts.first()?;
                Some((language.clone(), with_keywords(name, said.get(concept))))
            });
            let english = with_keywords(emoji.name(), self.annotations.get(concept));
            let english = (ENGLISH.to_owned(), english);
            WordsEntry {
                concept: concept.clone(),
                words: std::iter::once(english).chain(translated).collect(),
            }
        };
        self.known.iter().map(entry).collect()
    }

    /// The manifest's line for `concept` in a style; nothing where no emoji is known.
    pub fn entry(&self, concept: &str, style: &str) -> Option<PictureEntry> {
        let emoji = self.known.get(concept)?;
        let Words { name, tags } = with_keywords(emoji.name(), self.annotations.get(concept));
        Some(PictureEntry {
            image: format!("{style}/{concept}.png"),
            concept: concept.to_owned(),
            name,
            tags,
            style: style.to_owned(),
            skin_tone: emoji.as_str().contains(|c| SKIN_TONES.contains(&c)),
        })
    }

    fn is_known(&self, concept: &str) -> bool {
        self.known.contains_key(concept)
    }
}

/// A name and the keywords that go with it, without the name itself.
fn with_keywords(name: &str, said: Option<&Annotation>) -> Words {
    let keywords = said.map_or(&[][..], |said| &said.default);
    Words {
        name: name.to_owned(),
        tags: keywords
            .iter()
            .filter(|&tag| tag != name)
            .cloned()
            .collect(),
    }
}

/// Which concept a drawing's name stands for.
#[derive(Debug)]
pub struct NameIndex {
    renames: HashMap<(&'static str, &'static str), &'static str>,
    /// Keyed by [`squeezed`] names.
    concepts: HashMap<String, String>,
}

impl NameIndex {
    /// An index of the names that the emoji themselves have, today's before CLDR's.
    pub fn new(emojis: &Emojis) -> Self {
        let mut concepts = HashMap::new();
        for (concept, emoji) in &emojis.known {
            concepts
                .entry(squeezed(emoji.name()))
                .or_insert_with(|| concept.clone());
        }
        for concept in emojis.known.keys() {
            for name in emojis
                .annotations
                .get(concept)
                .into_iter()
                .flat_map(|said| &said.tts)
            {
                concepts
                    .entry(squeezed(name))
                    .or_insert_with(|| concept.clone());
            }
        }
        let renames = RENAMES
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| {
                let mut columns = line.split('\t');
                Some(((columns.next()?, columns.next()?), columns.next()?))
            });
        Self {
            renames: renames.collect(),
            concepts,
        }
    }

    /// Adds the names that a style gives to what it says it shows, for the styles that say nothing.
    pub fn learn(&mut self, style: &Style, emojis: &Emojis) {
        for drawing in &style.drawings {
            if let Some(concept) = shortest_known(&drawing.concepts, emojis) {
                for name in std::iter::once(&drawing.name).chain(&drawing.aliases) {
                    self.concepts
                        .entry(squeezed(name))
                        .or_insert_with(|| concept.clone());
                }
            }
        }
    }

    /// The concept that a drawing shows: what the style says, then the renames, then its names.
    pub fn concept(&self, style: &Style, drawing: &Drawing, emojis: &Emojis) -> Option<String> {
        if let Some(concept) = shortest_known(&drawing.concepts, emojis) {
            return Some(concept.clone());
        }
        if FLAG_STYLES.contains(&style.name.as_str()) {
            return concept_of_flag(&drawing.name).filter(|concept| emojis.is_known(concept));
        }
        for style in [style.name.as_str(), "*"] {
            if let Some(&concept) = self.renames.get(&(style, drawing.name.as_str())) {
                return emojis.is_known(concept).then(|| concept.to_owned());
            }
        }
        // A style that draws a thing several times numbers its drawings; the first is the plainest.
        let once = drawing.name.strip_suffix("-1");
        let names = std::iter::once(drawing.name.as_str());
        let mut names = names
            .chain(drawing.aliases.iter().map(String::as_str))
            .chain(once);
        names.find_map(|name| self.concepts.get(&squeezed(name)).cloned())
    }
}

/// The concept of the flag with an ISO 3166 code, such as `de`, `de-4x3` or `gb-sct`.
pub fn concept_of_flag(name: &str) -> Option<String> {
    let code = name.strip_suffix("-4x3").unwrap_or(name);
    let letters: Vec<u32> = code
        .bytes()
        .filter(u8::is_ascii_lowercase)
        .map(u32::from)
        .collect();
    let points: Vec<u32> = match (letters.len(), code.len()) {
        // Two regional indicators.
        (2, 2) => letters
            .iter()
            .map(|letter| 0x1f1e6 + letter - u32::from(b'a'))
            .collect(),
        // A black flag, the code in tag letters, and the tag that ends it.
        (5, 6) => {
            let tags = letters.iter().map(|letter| 0xe0000 + letter);
            std::iter::once(0x1f3f4)
                .chain(tags)
                .chain([0xe007f])
                .collect()
        }
        _ => return None,
    };
    Some(
        points
            .iter()
            .map(|point| format!("{point:x}"))
            .collect::<Vec<_>>()
            .join("-"),
    )
}

/// A drawing may stand for several sequences; the shortest is the plainest.
fn shortest_known<'a>(concepts: &'a [String], emojis: &Emojis) -> Option<&'a String> {
    let known = concepts.iter().filter(|concept| emojis.is_known(concept));
    known.min_by_key(|concept| (concept.len(), concept.as_str()))
}

/// A name without all that styles write differently: case, accents, spaces and signs.
fn squeezed(name: &str) -> String {
    let lower = name.to_lowercase().replace("flag-for-", "flag-");
    let mut squeezed = String::with_capacity(lower.len());
    for letter in lower.chars() {
        match letter {
            'a'..='z' | '0'..='9' => squeezed.push(letter),
            '&' => squeezed.push_str("and"),
            '#' => squeezed.push_str("pound"),
            '*' => squeezed.push_str("asterisk"),
            '\u{e0}'..='\u{e5}' => squeezed.push('a'),
            '\u{e7}' => squeezed.push('c'),
            '\u{e8}'..='\u{eb}' => squeezed.push('e'),
            '\u{ec}'..='\u{ef}' => squeezed.push('i'),
            '\u{f1}' => squeezed.push('n'),
            '\u{f2}'..='\u{f6}' => squeezed.push('o'),
            '\u{f9}'..='\u{fc}' => squeezed.push('u'),
            _ => {}
        }
    }
    squeezed
}
