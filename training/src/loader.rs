//! Batches by step number: what step `s` sees depends on the seed and on `s` alone, so that a
//! resumed run sees what the uninterrupted one would have seen.

use std::{
    sync::mpsc::{Receiver, sync_channel},
    thread,
};

use encoders::TextTokenizer;
use pairs::Skipped;
use rand::{RngExt as _, SeedableRng, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use crate::{
    TrainingError, augment::augment, captions::Caption, config::RunConfig, manifest::Concept,
};

/// Batches that wait while a step runs.
const PREFETCH: usize = 2;

/// The pairs of one step, all of distinct concepts.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// Which concept each pair is of: stable positions in the training data.
    pub items: Vec<usize>,
    /// One picture and one caption of each.
    pub first: View,
    /// Another picture (where there is one) and another caption of each, where the run wants them.
    pub second: Option<View>,
    /// `[n, n]`: 1 where the caption (column) is true of the picture (row).
    pub positives: Vec<f32>,
    /// `[n, n]`: 1 where the first caption (row) is true of the concept of the second (column), or the
    /// other way round; empty where there is no second view.
    pub text_positives: Vec<f32>,
    /// Pictures that could not be read and in whose places others are.
    pub skipped: Vec<Skipped>,
}

/// Where batches come from. What step `s` sees depends on the seed and on `s` alone.
pub trait Batches: Send + Sync {
    /// Number of items that batches are drawn from.
    fn items(&self) -> usize;

    /// The batch of one step.
    ///
    /// # Errors
    /// When there are too few items, or a caption cannot be tokenized.
    fn batch(&self, step: usize) -> Result<Batch, TrainingError>;
}

/// Pictures and captions, one of each concept of a batch.
#[derive(Debug, Clone, PartialEq)]
pub struct View {
    /// `[n, 3, side, side]` in `[-1, 1]`.
    pub pixels: Vec<f32>,
    /// Token ids of each caption.
    pub tokens: Vec<Vec<u32>>,
}

/// Makes batches ahead of time on a thread of its own.
pub struct Loader<B = Batch> {
    batches: Receiver<Result<B, TrainingError>>,
}

impl<B: Send + 'static> Loader<B> {
    /// Starts at step `first`; `make` makes the batch of a step.
    pub fn start(
        first: usize,
        make: impl Fn(usize) -> Result<B, TrainingError> + Send + 'static,
    ) -> Self {
        let (sender, batches) = sync_channel(PREFETCH);
        thread::spawn(move || {
            for step in first.. {
                // A closed channel means that the run is over.
                if sender.send(make(step)).is_err() {
                    return;
                }
            }
        });
        Self { batches }
    }

    /// The next batch in step order.
    ///
    /// # Errors
    /// When the batch could not be made, or the loader's thread died.
    pub fn next(&self, step: usize) -> Result<B, TrainingError> {
        self.batches
            .recv()
            .map_err(|_| TrainingError::Loader { step })?
    }
}

/// Everything that batches are made of.
pub struct BatchSource {
    /// What is trained on.
    pub concepts: Vec<Concept>,
    /// Words to ids.
    pub tokenizer: TextTokenizer,
    /// The run.
    pub config: RunConfig,
    /// Side of a picture in pixels.
    pub side: usize,
}

impl Batches for BatchSource {
    fn items(&self) -> usize {
        self.concepts.len()
    }

    fn batch(&self, step: usize) -> Result<Batch, TrainingError> {
        let mut random = ChaCha8Rng::seed_from_u64(self.config.seed);
        // Stream 0 is the initialisation of the weights.
        random.set_stream(step as u64 + 1);
        let n = self.config.optimizer.batch;
        let too_few = || TrainingError::TooFew {
            concepts: self.concepts.len(),
            batch: n,
        };
        let weight = |i: usize| {
            let tone = self.concepts[i].skin_tone;
            if tone {
                self.config.data.skin_tone_weight
            } else {
                1.0
            }
        };
        let chosen = rand::seq::index::sample_weighted(&mut random, self.concepts.len(), weight, n)
            .map_err(|_| too_few())?;
        if chosen.len() < n {
            return Err(too_few());
        }
        let progress = step as f64 / self.config.optimizer.steps as f64;
        let items: Vec<usize> = chosen.into_iter().collect();
        let concepts: Vec<&Concept> = items.iter().map(|i| &self.concepts[*i]).collect();
        let views = 1 + usize::from(self.config.objective.second_view(progress));
        let mut drawn: Vec<Vec<Drawn>> = vec![Vec::with_capacity(n); views];
        let mut captions: Vec<Vec<Caption>> = vec![Vec::with_capacity(n); views];
        for concept in &concepts {
            let mut before = None;
            for view in 0..views {
                let at = choose(concept, before, &mut random).ok_or_else(too_few)?;
                before = Some(at);
                // Each picture has a stream of its own, so that changing how one is varied leaves
                // the choice of the others alone.
                let seed = random.random();
                drawn[view].push(Drawn { concept, at, seed });
                let config = &self.config.captions;
                captions[view].push(Caption::draw(concept, config, progress, &mut random));
            }
        }
        let mut made = Vec::with_capacity(views);
        for (drawn, captions) in drawn.iter().zip(&captions) {
            made.push(self.view(drawn, captions)?);
        }
        let bears =
            |i: usize, caption: &Caption| concepts[i].bears(caption.language, caption.phrase);
        let mask = |is: &dyn Fn(usize, usize) -> bool| {
            let cell = |at: usize| f32::from(u8::from(at / n == at % n || is(at / n, at % n)));
            (0..n * n).map(cell).collect::<Vec<f32>>()
        };
        let first = &captions[0];
        let positives = mask(&|i, j| bears(i, &first[j]));
        let text_positives = captions.get(1).map_or_else(Vec::new, |second| {
            mask(&|i, j| bears(j, &first[i]) || bears(i, &second[j]))
        });
        let mut made = made.into_iter();
        Ok(Batch {
            items,
            first: made.next().ok_or_else(too_few)?,
            second: made.next(),
            positives,
            text_positives,
            skipped: Vec::new(),
        })
    }
}

impl BatchSource {
    fn view(&self, drawn: &[Drawn], captions: &[Caption]) -> Result<View, TrainingError> {
        let size = 3 * self.side * self.side;
        let mut pixels = vec![0.0; drawn.len() * size];
        pixels
            .par_chunks_mut(size)
            .zip(drawn)
            .for_each(|(pixels, Drawn { concept, at, seed })| {
                let may_mirror = !says_direction(&concept.name);
                let mut variation = ChaCha8Rng::seed_from_u64(*seed);
                let config = &self.config.augment;
                let picture = &concept.pictures[*at].0;
                let varied = augment(picture, self.side, may_mirror, config, &mut variation);
                pixels.copy_from_slice(&varied);
            });
        let tokens = captions
            .iter()
            .map(|caption| self.tokenizer.encode(&caption.text))
            .collect::<Result<_, _>>()
            .map_err(|reason: String| TrainingError::Tokenizer(reason.into()))?;
        Ok(View { pixels, tokens })
    }
}

/// A picture of a concept, and the seed of its variation.
#[derive(Clone)]
struct Drawn<'a> {
    concept: &'a Concept,
    at: usize,
    seed: u64,
}

/// Position of one of the pictures by their weights: another one than `before` where there is one.
fn choose(concept: &Concept, before: Option<usize>, random: &mut ChaCha8Rng) -> Option<usize> {
    let weights = concept
        .pictures
        .iter()
        .map(|(_, weight)| *weight)
        .enumerate();
    let mut weights: Vec<(usize, f64)> = weights.collect();
    if let Some(before) = before
        && weights
            .iter()
            .any(|(i, weight)| *i != before && *weight > 0.0)
    {
        weights.remove(before);
    }
    let chosen = weights.choose_weighted(random, |(_, weight)| *weight);
    chosen.ok().map(|(i, _)| *i)
}

/// Whether a mirrored picture would be wrong for the name: directions, letters, flags, clocks.
pub(crate) fn says_direction(name: &str) -> bool {
    const WORDS: [&str; 16] = [
        "left",
        "right",
        "arrow",
        "flag",
        "button",
        "clock",
        "letter",
        "keycap",
        "o’clock",
        "thirty",
        "backhand",
        "facing",
        "input",
        "symbol",
        "sign",
        "mark",
    ];
    name.split(|c: char| !c.is_alphanumeric() && c != '’')
        .any(|word| WORDS.contains(&word))
}

/// What every source of batches promises. `make` gives one of at least twice as many items as a batch
/// has, by its seed.
#[cfg(test)]
pub(crate) fn check_contract<B: Batches>(make: impl Fn(u64) -> B) {
    let source = make(1);
    let batch = source.batch(5).expect("a batch");
    assert_ne!(source.batch(6).expect("a batch"), batch);
    assert_eq!(source.batch(5).expect("a batch"), batch);
    let n = batch.items.len();
    let distinct: std::collections::BTreeSet<_> = batch.items.iter().collect();
    assert_eq!(distinct.len(), n, "an item twice");
    assert!(batch.items.iter().all(|i| *i < source.items()));
    assert!((0..n).all(|i| batch.positives[i * n + i] > 0.5));
    assert_ne!(make(2).batch(5).expect("a batch"), batch);
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use encoders::RgbaPicture;

    use super::*;
    use crate::{
        tokenizer,
        words::{Translations, Words},
    };

    fn concept(name: &str, tags: &[&str]) -> Concept {
        let picture = RgbaPicture::new(1, 1, vec![0; 4]).expect("sizes fit");
        Concept {
            key: name.to_owned(),
            name: name.to_owned(),
            tags: tags.iter().map(|t| (*t).to_owned()).collect(),
            skin_tone: false,
            translations: Translations::new(),
            pictures: vec![(picture, 1.0)],
        }
    }

    /// Batches of all `concepts`, whose captions are names, or keywords where there are any.
    fn source(concepts: Vec<Concept>, by_tag: bool) -> BatchSource {
        let recipe = include_str!("testing/plain.toml");
        let mut config: RunConfig = toml::from_str(recipe).expect("parses");
        config.optimizer.batch = concepts.len();
        config.captions.carrier_share = 0.0;
        config.captions.tags_from = 0.0;
        config.captions.tag_share = f64::from(u8::from(by_tag));
        let words = tokenizer::train(&concepts, 700).expect("trains");
        let tokenizer = tokenizer::load(&words, Path::new("tokenizer.json"), 16);
        BatchSource {
            tokenizer: tokenizer.expect("loads"),
            concepts,
            config,
            side: 4,
        }
    }

    /// The positives of a batch, by the captions of their rows and columns.
    fn positives(source: &BatchSource, captions: &[&str]) -> Vec<(usize, usize)> {
        let batch = source.batch(3).expect("a batch");
        let ids = captions.iter().map(|c| source.tokenizer.encode(c));
        let ids: Vec<Vec<u32>> = ids.collect::<Result<_, _>>().expect("encodes");
        let which = |at: usize| {
            let found = ids.iter().position(|ids| *ids == batch.first.tokens[at]);
            found.expect("one of the captions")
        };
        let n = batch.items.len();
        let ones = (0..n * n).filter(|i| batch.positives[*i] > 0.0);
        let mut pairs: Vec<_> = ones.map(|i| (which(i / n), which(i % n))).collect();
        pairs.sort_unstable();
        pairs
    }

    #[test]
    fn a_caption_is_true_of_every_picture_that_bears_it() {
        let concepts = vec![
            concept("sun", &["sky"]),
            concept("moon", &["sky", "sun"]),
            concept("tree", &["leaf"]),
        ];
        // "sun" is true of the moon, whose keyword it is; "moon" is not true of the sun.
        let by_name = positives(&source(concepts.clone(), false), &["sun", "moon", "tree"]);
        assert_eq!(by_name, [(0, 0), (1, 0), (1, 1), (2, 2)]);
        // "sky" is said of two pictures, and each is positive for both.
        let mut concepts = concepts;
        concepts[1].tags.truncate(1);
        let by_tag = positives(&source(concepts, true), &["sky", "leaf"]);
        assert_eq!(by_tag, [(0, 0), (0, 0), (0, 0), (0, 0), (1, 1)]);
    }

    #[test]
    fn a_caption_in_another_language_is_true_of_what_bears_it_in_that_language() {
        let words = |language: &str, name: &str, tags: &[&str]| {
            let words = Words {
                name: name.to_owned(),
                tags: tags.iter().map(|t| (*t).to_owned()).collect(),
            };
            (language.to_owned(), words)
        };
        let mut concepts = vec![
            concept("red", &["rot"]),
            concept("mould", &["rot"]),
            concept("cherry", &[]),
        ];
        concepts[0].translations = [words("de", "rot", &[])].into();
        concepts[1].translations = [words("nl", "schimmel", &[])].into();
        concepts[2].translations = [words("de", "kirsche", &["rot"])].into();
        let mut source = source(concepts, false);
        source.config.captions.translated_share = 1.0;
        // "rot" is true of the German cherry, and not of the English mould.
        let found = positives(&source, &["rot", "schimmel", "kirsche"]);
        assert_eq!(found, [(0, 0), (1, 1), (2, 0), (2, 2)]);
    }

    #[test]
    fn batches_of_drawings_keep_the_contract() {
        let concepts: Vec<Concept> = (0..8).map(|i| concept(&i.to_string(), &["x"])).collect();
        check_contract(|seed| {
            let mut source = source(concepts.clone(), true);
            source.config.optimizer.batch = 4;
            source.config.seed = seed;
            source
        });
    }
}
