//! How a picture is spoken of: its name or a keyword, plain or in a carrier sentence.

mod carriers;

use rand::{Rng, RngExt as _, seq::IndexedRandom};

use crate::{
    config::CaptionConfig,
    manifest::Concept,
    words::{ENGLISH, Words},
};

/// Carrier sentences that no caption of a training run may contain: the evaluation uses them to ask
/// whether a model understands wording that it has never met.
pub const UNSEEN_CARRIERS: [&str; 3] = ["photo with {} in it", "show me {}", "{} please"];

/// What a caption calls the picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caption<'a> {
    /// The whole sentence.
    pub text: String,
    /// The name or keyword in it: every picture that bears it in the language is a positive.
    pub phrase: &'a str,
    /// The language of both.
    pub language: &'a str,
}

impl<'a> Caption<'a> {
    /// Words one concept. `progress` is the share of the run that is done.
    pub fn draw(
        concept: &'a Concept,
        config: &CaptionConfig,
        progress: f64,
        random: &mut impl Rng,
    ) -> Self {
        let (language, name, tags) = match translation(concept, config, progress, random) {
            Some((language, words)) => (language, &words.name, &words.tags),
            None => (ENGLISH, &concept.name, &concept.tags),
        };
        let by_tag = progress >= config.tags_from && random.random_bool(config.tag_share);
        let tag = if by_tag { tags.choose(random) } else { None };
        let phrase = tag.unwrap_or(name);
        let text = if random.random_bool(config.carrier_share) {
            carrier(language, random).replace("{}", phrase)
        } else {
            phrase.clone()
        };
        Self {
            text,
            phrase,
            language,
        }
    }

    /// Every sentence frame and filler of a language, for the tokenizer to learn from.
    pub fn wording(language: &str) -> impl Iterator<Item = String> {
        let carriers::Wording { carriers, fillers } = carriers::wording(language);
        carriers.iter().chain(fillers).map(|c| c.replace("{}", ""))
    }
}

/// One of the concept's languages besides English, or none where the caption is to be English. A run
/// without other languages draws nothing, and so all that it drew before there were any.
fn translation<'a>(
    concept: &'a Concept,
    config: &CaptionConfig,
    progress: f64,
    random: &mut impl Rng,
) -> Option<(&'a str, &'a Words)> {
    let languages = concept.translations.len();
    let may_be = config.translated_share > 0.0 && progress >= config.translations_from;
    if languages == 0 || !may_be || !random.random_bool(config.translated_share) {
        return None;
    }
    let chosen = random.random_range(0..languages);
    let (language, words) = concept.translations.iter().nth(chosen)?;
    Some((language, words))
}

/// A sentence of the language around `{}`: for English half of them are made up on the spot.
fn carrier(language: &str, random: &mut impl Rng) -> String {
    let carriers::Wording { carriers, fillers } = carriers::wording(language);
    loop {
        let carrier = if fillers.is_empty() || random.random_bool(0.5) {
            carriers.choose(random).map_or("{}", |c| *c).to_owned()
        } else {
            made_up_carrier(fillers, random)
        };
        if !UNSEEN_CARRIERS.iter().any(|u| carrier.contains(u)) {
            return carrier;
        }
    }
}

/// Up to four filler words before the name and up to three behind it. A tower that has met a name
/// between many such words learns to look past ones that it has not met.
fn made_up_carrier(fillers: &[&str], random: &mut impl Rng) -> String {
    let mut words: Vec<&str> = Vec::new();
    for _ in 0..random.random_range(0..=4) {
        words.extend(fillers.choose(random));
    }
    words.push("{}");
    for _ in 0..random.random_range(0..=3) {
        words.extend(fillers.choose(random));
    }
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;

    fn concept() -> Concept {
        let words = |name: &str, tag: &str| Words {
            name: name.into(),
            tags: vec![tag.into()],
        };
        Concept {
            key: "x".into(),
            name: "red heart".into(),
            tags: vec!["love".into()],
            skin_tone: false,
            translations: BTreeMap::from([
                ("de".into(), words("rotes herz", "liebe")),
                ("it".into(), words("cuore rosso", "amore")),
                ("tlh".into(), words("tiq doq", "parmaq")),
            ]),
            pictures: Vec::new(),
        }
    }

    const CONFIG: CaptionConfig = CaptionConfig {
        tag_share: 0.3,
        tags_from: 0.5,
        carrier_share: 0.9,
        translated_share: 0.0,
        translations_from: 0.0,
    };

    /// "the {} please" was once drawn, and with it "{} please".
    #[test]
    fn no_caption_contains_a_carrier_of_the_evaluation() {
        let concept = concept();
        let mut random = ChaCha8Rng::seed_from_u64(7);
        let mut tags = 0;
        for i in 0..200_000 {
            let caption = Caption::draw(&concept, &CONFIG, f64::from(i) / 200_000.0, &mut random);
            assert!(caption.text.contains(caption.phrase));
            assert_eq!(caption.language, ENGLISH);
            tags += u32::from(caption.phrase == "love");
            for unseen in UNSEEN_CARRIERS {
                let unseen = unseen.replace("{}", caption.phrase);
                assert!(!caption.text.contains(&unseen), "{}", caption.text);
            }
        }
        assert!(
            (25_000..35_000).contains(&tags),
            "{tags} captions by keyword"
        );
    }

    #[test]
    fn other_languages_have_their_share_each_as_much_as_any_other_and_only_from_their_step_on() {
        let concept = concept();
        let config = CaptionConfig {
            translated_share: 0.6,
            translations_from: 0.25,
            ..CONFIG
        };
        let mut random = ChaCha8Rng::seed_from_u64(8);
        let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
        let mut sentences = BTreeMap::new();
        for i in 0..40_000 {
            let progress = f64::from(i) / 40_000.0;
            let caption = Caption::draw(&concept, &config, progress, &mut random);
            if progress < 0.25 {
                assert_eq!(caption.language, ENGLISH);
                continue;
            }
            *counts.entry(caption.language).or_default() += 1;
            assert!(concept.bears(caption.language, caption.phrase));
            assert!(caption.text.contains(caption.phrase));
            if caption.text != caption.phrase {
                sentences.insert(caption.language, caption.text);
            }
        }
        let seen: Vec<_> = counts.keys().copied().collect();
        assert_eq!(seen, ["de", "en", "it", "tlh"]);
        assert!((11_500..12_500).contains(&counts["en"]), "{counts:?}");
        for language in ["de", "it", "tlh"] {
            assert!((5_700..6_300).contains(&counts[language]), "{counts:?}");
        }
        // A language without carriers has its phrases only.
        let in_sentences: Vec<_> = sentences.keys().copied().collect();
        assert_eq!(in_sentences, ["de", "en", "it"], "{sentences:?}");
    }

    #[test]
    fn a_concept_without_translations_is_spoken_of_in_english() {
        let mut concept = concept();
        concept.translations.clear();
        let config = CaptionConfig {
            translated_share: 1.0,
            ..CONFIG
        };
        let mut random = ChaCha8Rng::seed_from_u64(9);
        let caption = Caption::draw(&concept, &config, 0.0, &mut random);
        assert_eq!((caption.language, caption.phrase), (ENGLISH, "red heart"));
    }
}
