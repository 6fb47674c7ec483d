//! What a run is trained and evaluated on: manifests of drawings, or pairs.

use std::{collections::BTreeMap, sync::Arc};

use encoders::{PreprocessConfig, RgbaPicture, TextTokenizer};
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;

use crate::{
    TrainingError,
    augment::augment,
    config::{AugmentConfig, DataConfig, RunConfig},
    loader::{BatchSource, Batches},
    manifest::{Concept, Dataset},
    pairs::{PairSet, batches::PairBatches, validate::Validation},
    tokenizer,
};

/// What is no pair and is listed at the start.
const MOST_SKIPPED: usize = 20;

/// Data of either kind.
pub enum Data {
    /// Drawings, in memory.
    Drawings(Dataset),
    /// Pairs, of which only the captions are in memory.
    Pairs(PairSet),
}

impl From<Dataset> for Data {
    fn from(dataset: Dataset) -> Self {
        Self::Drawings(dataset)
    }
}

impl From<PairSet> for Data {
    fn from(pairs: PairSet) -> Self {
        Self::Pairs(pairs)
    }
}

/// What a run is evaluated on.
pub(crate) enum Evaluation {
    /// Concepts of held-out styles with the pixels of a picture each.
    HeldOut(BTreeMap<String, Vec<(Concept, Vec<f32>)>>),
    /// Pairs.
    Pairs(Validation),
    /// Nothing.
    Nothing,
}

impl Data {
    /// Reads what a configuration names.
    ///
    /// # Errors
    /// When it cannot be used; the message names what and where.
    pub fn read(config: &DataConfig) -> Result<Self, TrainingError> {
        if config.pairs.is_empty() {
            Dataset::read(config).map(Self::Drawings)
        } else {
            PairSet::read(config).map(Self::Pairs)
        }
    }

    /// How many things a batch can be drawn from.
    pub fn items(&self) -> usize {
        match self {
            Self::Drawings(dataset) => dataset.training.len(),
            Self::Pairs(pairs) => pairs.training.len(),
        }
    }

    /// In words, for the terminal: how much there is, and what was left out.
    pub fn describe(&self) -> String {
        match self {
            Self::Drawings(Dataset { training, .. }) => {
                let pictures: usize = training.iter().map(|c| c.pictures.len()).sum();
                format!("{pictures} pictures of {} concepts", training.len())
            }
            Self::Pairs(pairs) => {
                let captions: usize = pairs.training.iter().map(|p| p.captions.len()).sum();
                let (pictures, held_out) = (pairs.training.len(), pairs.validation.len());
                let mut lines = vec![format!(
                    "{pictures} pictures with {captions} captions to train on, {held_out} pictures \
                     to evaluate on"
                )];
                for skipped in pairs.skipped.iter().take(MOST_SKIPPED) {
                    lines.push(format!("left out {}: {}", skipped.path, skipped.reason));
                }
                if pairs.skipped.len() > MOST_SKIPPED {
                    let more = pairs.skipped.len() - MOST_SKIPPED;
                    lines.push(format!("left out: {more} more"));
                }
                lines.join("\n")
            }
        }
    }

    /// Refuses less than a batch.
    pub(crate) fn check(&self, batch: usize) -> Result<(), TrainingError> {
        let found = self.items();
        match self {
            _ if found >= batch => Ok(()),
            Self::Drawings(_) => Err(TrainingError::TooFew {
                concepts: found,
                batch,
            }),
            Self::Pairs(_) => Err(TrainingError::TooFewPairs { found, batch }),
        }
    }

    /// The contents of a `tokenizer.json` that is learned from all words.
    pub(crate) fn tokenizer(&self, vocabulary: usize) -> Result<String, TrainingError> {
        match self {
            Self::Drawings(dataset) => tokenizer::train(&dataset.training, vocabulary),
            Self::Pairs(pairs) => {
                let captions = pairs.training.iter().flat_map(|p| p.captions.clone());
                tokenizer::train_on(captions, vocabulary)
            }
        }
    }

    /// Batches, and what is evaluated on.
    pub(crate) fn divide(
        self,
        tokenizer: &TextTokenizer,
        preprocess: &PreprocessConfig,
        side: usize,
        config: &RunConfig,
    ) -> Result<(Arc<dyn Batches>, Evaluation), TrainingError> {
        match self {
            Self::Drawings(dataset) => {
                let held_out = dataset.held_out.into_iter().map(|(style, concepts)| {
                    let shown = |c: Concept| {
                        let pixels = as_it_is(&c, side);
                        (c, pixels)
                    };
                    (style, concepts.into_iter().map(shown).collect())
                });
                let source = BatchSource {
                    concepts: dataset.training,
                    tokenizer: tokenizer.clone(),
                    config: config.clone(),
                    side,
                };
                Ok((Arc::new(source), Evaluation::HeldOut(held_out.collect())))
            }
            Self::Pairs(pairs) => {
                let evaluation = if pairs.validation.is_empty() {
                    Evaluation::Nothing
                } else {
                    Evaluation::Pairs(Validation {
                        pairs: pairs.validation,
                        preprocess: preprocess.clone(),
                    })
                };
                let source = PairBatches::new(
                    pairs.training,
                    tokenizer.clone(),
                    preprocess.clone(),
                    config.clone(),
                )?;
                Ok((Arc::new(source), evaluation))
            }
        }
    }
}

/// The first picture of a concept on white, unvaried.
fn as_it_is(concept: &Concept, side: usize) -> Vec<f32> {
    let first = concept.pictures.first();
    first.map_or_else(Vec::new, |(picture, _)| still(picture, side))
}

/// A picture on white, unvaried.
pub(crate) fn still(picture: &RgbaPicture, side: usize) -> Vec<f32> {
    let mut random = ChaCha8Rng::seed_from_u64(0);
    augment(picture, side, false, &AugmentConfig::STILL, &mut random)
}
