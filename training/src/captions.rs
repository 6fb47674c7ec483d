//! How a picture is spoken of: its name or a keyword, plain or in a carrier sentence.

use rand::{Rng, RngExt as _, seq::IndexedRandom};

use crate::{config::CaptionConfig, manifest::Concept};

/// Carrier sentences that no caption of a training run may contain: the evaluation uses them to ask
/// whether a model understands wording that it has never met.
pub const UNSEEN_CARRIERS: [&str; 3] = ["photo with {} in it", "show me {}", "{} please"];

/// Sentences that people put around the name of what they look for.
const CARRIERS: [&str; 40] = [
    "a picture of {}",
    "a picture of a {}",
    "a picture of the {}",
    "an image of {}",
    "an image of a {}",
    "the image of the {}",
    "a drawing of {}",
    "a drawing of a {}",
    "an icon of {}",
    "an icon for {}",
    "icon: {}",
    "{} icon",
    "{} emoji",
    "the {} emoji",
    "{} symbol",
    "the symbol for {}",
    "{} sticker",
    "{} picture",
    "{} image",
    "{} drawing",
    "{} clip art",
    "a photo of a {}",
    "a photo of {}",
    "a photo of the {}",
    "this is {}",
    "this is a {}",
    "here is the {}",
    "i am looking for {}",
    "looking for a {}",
    "find {}",
    "find me a {}",
    "search for {}",
    "i want to see {}",
    "i need a {}",
    "do you have {}?",
    "is there a {} here?",
    "give me the {}",
    "what does {} look like?",
    "something like {}",
    "an illustration that contains {}",
];

/// Words without a subject of their own, for carriers made up on the spot. A tower that has met a
/// name between many such words learns to look past ones that it has not met.
const FILLERS: [&str; 72] = [
    "a",
    "an",
    "the",
    "some",
    "any",
    "this",
    "that",
    "my",
    "your",
    "our",
    "of",
    "for",
    "with",
    "in",
    "on",
    "at",
    "to",
    "from",
    "about",
    "like",
    "and",
    "or",
    "is",
    "are",
    "was",
    "be",
    "it",
    "its",
    "there",
    "here",
    "i",
    "you",
    "we",
    "they",
    "me",
    "us",
    "want",
    "need",
    "see",
    "find",
    "show",
    "get",
    "give",
    "have",
    "has",
    "look",
    "looking",
    "search",
    "picture",
    "photo",
    "image",
    "drawing",
    "icon",
    "emoji",
    "symbol",
    "graphic",
    "illustration",
    "sticker",
    "pic",
    "please",
    "can",
    "could",
    "would",
    "now",
    "just",
    "again",
    "one",
    "inside",
    "which",
    "what",
    "thanks",
    "hello",
];

/// What a caption calls the picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caption {
    /// The whole sentence.
    pub text: String,
    /// The name or keyword in it: every picture that bears it is a positive.
    pub phrase: String,
}

impl Caption {
    /// Words one concept. `progress` is the share of the run that is done.
    pub fn draw(
        concept: &Concept,
        config: &CaptionConfig,
        progress: f64,
        random: &mut impl Rng,
    ) -> Self {
        let by_tag = progress >= config.tags_from && random.random_bool(config.tag_share);
        let tag = if by_tag {
            concept.tags.choose(random)
        } else {
            None
        };
        let phrase = tag.unwrap_or(&concept.name).clone();
        if !random.random_bool(config.carrier_share) {
            return Self {
                text: phrase.clone(),
                phrase,
            };
        }
        loop {
            let carrier = if random.random_bool(0.5) {
                CARRIERS
                    .choose(random)
                    .map_or_else(String::new, |c| (*c).to_owned())
            } else {
                made_up_carrier(random)
            };
            if !UNSEEN_CARRIERS.iter().any(|u| carrier.contains(u)) {
                return Self {
                    text: carrier.replace("{}", &phrase),
                    phrase,
                };
            }
        }
    }

    /// Every sentence frame and filler, for the tokenizer to learn from.
    pub fn wording() -> impl Iterator<Item = String> {
        let carriers = CARRIERS.iter().map(|c| c.replace("{}", ""));
        carriers.chain(FILLERS.iter().map(|f| (*f).to_owned()))
    }
}

/// Up to four filler words before the name and up to three behind it.
fn made_up_carrier(random: &mut impl Rng) -> String {
    let mut words: Vec<&str> = Vec::new();
    for _ in 0..random.random_range(0..=4) {
        words.extend(FILLERS.choose(random));
    }
    words.push("{}");
    for _ in 0..random.random_range(0..=3) {
        words.extend(FILLERS.choose(random));
    }
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;

    /// "the {} please" was once drawn, and with it "{} please".
    #[test]
    fn no_caption_contains_a_carrier_of_the_evaluation() {
        let concept = Concept {
            key: "x".into(),
            name: "red heart".into(),
            tags: vec!["love".into()],
            skin_tone: false,
            pictures: Vec::new(),
        };
        let config = CaptionConfig {
            tag_share: 0.3,
            tags_from: 0.5,
            carrier_share: 0.9,
        };
        let mut random = ChaCha8Rng::seed_from_u64(7);
        let mut tags = 0;
        for i in 0..200_000 {
            let caption = Caption::draw(&concept, &config, f64::from(i) / 200_000.0, &mut random);
            assert!(caption.text.contains(&caption.phrase));
            tags += u32::from(caption.phrase == "love");
            for unseen in UNSEEN_CARRIERS {
                let unseen = unseen.replace("{}", &caption.phrase);
                assert!(!caption.text.contains(&unseen), "{}", caption.text);
            }
        }
        assert!(
            (25_000..35_000).contains(&tags),
            "{tags} captions by keyword"
        );
    }
}
