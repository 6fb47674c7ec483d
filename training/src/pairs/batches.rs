//! Batches of pairs.
//!
//! All pictures come once in an epoch, in an order of its own; the pictures behind the last whole batch
//! are left out of it. What a picture shows is read, varied and let go again: in memory are the pixels of
//! the batches that wait, and one decoded picture per thread.
//!
//! A picture that cannot be read is replaced by another one that the batch lacks, drawn from the stream
//! of the step. Since it cannot be read the next time either, a run that goes on sees the same batches.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
};

use encoders::{PreprocessConfig, TextTokenizer};
use engine::metrics::wilson;
use pairs::{Captioned, Skipped};
use rand::{RngExt as _, SeedableRng as _, seq::SliceRandom as _};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use super::decode;
use crate::{
    TrainingError,
    augment::photograph,
    config::RunConfig,
    loader::{Batch, Batches, View, says_direction},
};

/// Streams from here on are those of epochs. Steps count up from 1, and the memory of the loss counts down
/// from the last.
const EPOCHS: u64 = 1 << 63;

/// Everything that batches of pairs are made of.
pub struct PairBatches {
    pairs: Vec<Captioned>,
    tokenizer: TextTokenizer,
    preprocess: PreprocessConfig,
    config: RunConfig,
    /// The order of one epoch.
    order: Mutex<Option<(u64, Arc<Vec<u32>>)>>,
    tally: Mutex<Tally>,
}

/// Which pictures were read so far.
struct Tally {
    state: Vec<State>,
    read: usize,
    unreadable: usize,
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    New,
    Read,
    Unreadable,
}

/// One picture of a batch: what it shows, and how it is spoken of, once for each view.
struct Shown {
    item: usize,
    pixels: Vec<Vec<f32>>,
    captions: Vec<usize>,
}

impl PairBatches {
    /// Of pairs to train on.
    ///
    /// # Errors
    /// When they are too few for a batch.
    pub fn new(
        pairs: Vec<Captioned>,
        tokenizer: TextTokenizer,
        preprocess: PreprocessConfig,
        config: RunConfig,
    ) -> Result<Self, TrainingError> {
        let (found, batch) = (pairs.len(), config.optimizer.batch);
        if found < batch || u32::try_from(found).is_err() {
            return Err(TrainingError::TooFewPairs { found, batch });
        }
        Ok(Self {
            order: Mutex::new(None),
            tally: Mutex::new(Tally {
                state: vec![State::New; found],
                read: 0,
                unreadable: 0,
            }),
            pairs,
            tokenizer,
            preprocess,
            config,
        })
    }

    /// The order of all items in an epoch.
    fn order(&self, epoch: u64) -> Arc<Vec<u32>> {
        let mut kept = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        match &*kept {
            Some((of, order)) if *of == epoch => Arc::clone(order),
            _ => {
                let mut random = ChaCha8Rng::seed_from_u64(self.config.seed);
                random.set_stream(EPOCHS + epoch);
                let mut order: Vec<u32> = (0..self.pairs.len() as u32).collect();
                order.shuffle(&mut random);
                let order = Arc::new(order);
                *kept = Some((epoch, Arc::clone(&order)));
                order
            }
        }
    }

    /// Reads and varies one picture, and chooses its captions: as many of both as there are views.
    fn show(&self, item: usize, views: usize, seed: u64) -> Result<Shown, Skipped> {
        let pair = &self.pairs[item];
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let count = pair.captions.len();
        let mut captions = vec![random.random_range(0..count)];
        if views > 1 {
            // Another one where there is one.
            let step = if count > 1 {
                random.random_range(1..count)
            } else {
                0
            };
            captions.push((captions[0] + step) % count);
        }
        let picture = decode(pair)?;
        let may_mirror = !pair
            .captions
            .iter()
            .any(|c| says_direction(&c.to_lowercase()));
        let mut draw = || {
            let (preprocess, config) = (&self.preprocess, &self.config.augment);
            photograph(&picture, preprocess, may_mirror, config, &mut random)
        };
        let pixels = captions.iter().map(|_| draw()).collect();
        Ok(Shown {
            item,
            pixels,
            captions,
        })
    }

    /// Remembers what could be read. Once more than the configured share surely cannot, the run stops.
    fn count(&self, item: usize, failed: Option<&Skipped>) -> Result<(), TrainingError> {
        let mut tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        if tally.state[item] == State::New {
            tally.read += 1;
            tally.unreadable += usize::from(failed.is_some());
            tally.state[item] = if failed.is_some() {
                State::Unreadable
            } else {
                State::Read
            };
        }
        let (unreadable, read) = (tally.unreadable, tally.read);
        let share = if read == self.pairs.len() {
            unreadable as f64 / read as f64
        } else {
            wilson(unreadable, read).low
        };
        match failed {
            Some(last) if share > self.config.data.unreadable_share => {
                Err(TrainingError::Unreadable {
                    unreadable,
                    read,
                    allowed: self.config.data.unreadable_share,
                    last: format!("{}: {}", last.path, last.reason),
                })
            }
            _ => Ok(()),
        }
    }

    /// The pictures of a step, and those that could not be read.
    fn shown(
        &self,
        chosen: &[u32],
        views: usize,
        random: &mut ChaCha8Rng,
    ) -> Result<(Vec<Shown>, Vec<Skipped>), TrainingError> {
        let mut wanted: Vec<(usize, u64)> = Vec::with_capacity(chosen.len());
        for item in chosen {
            wanted.push((*item as usize, random.random()));
        }
        let mut taken: HashSet<usize> = wanted.iter().map(|(item, _)| *item).collect();
        let (mut done, mut skipped) = (Vec::with_capacity(chosen.len()), Vec::new());
        while !wanted.is_empty() {
            let read: Vec<_> = wanted
                .par_iter()
                .map(|(item, seed)| (*item, self.show(*item, views, *seed)))
                .collect();
            wanted.clear();
            for (item, shown) in read {
                match shown {
                    Ok(shown) => {
                        self.count(item, None)?;
                        done.push(shown);
                    }
                    Err(failed) => {
                        self.count(item, Some(&failed))?;
                        skipped.push(failed);
                        if let Some(other) = other(self.pairs.len(), &taken, random) {
                            taken.insert(other);
                            wanted.push((other, random.random()));
                        }
                    }
                }
            }
        }
        let (found, batch) = (done.len(), chosen.len());
        if found < batch {
            return Err(TrainingError::TooFewPairs { found, batch });
        }
        Ok((done, skipped))
    }
}

impl Batches for PairBatches {
    fn items(&self) -> usize {
        self.pairs.len()
    }

    fn batch(&self, step: usize) -> Result<Batch, TrainingError> {
        let n = self.config.optimizer.batch;
        let in_epoch = self.pairs.len() / n;
        let (epoch, at) = (step / in_epoch, step % in_epoch);
        let mut random = ChaCha8Rng::seed_from_u64(self.config.seed);
        // Stream 0 is the initialisation of the weights.
        random.set_stream(step as u64 + 1);
        let order = self.order(epoch as u64);
        let progress = step as f64 / self.config.optimizer.steps as f64;
        let has_second = self.config.objective.second_view(progress);
        let views = 1 + usize::from(has_second);
        let (shown, skipped) = self.shown(&order[at * n..(at + 1) * n], views, &mut random)?;

        let caption = |shown: &Shown, view: usize| -> &str {
            &self.pairs[shown.item].captions[shown.captions[view]]
        };
        let view = |view: usize| {
            let pixels = shown
                .iter()
                .flat_map(|s| &s.pixels[view])
                .copied()
                .collect();
            let tokens = shown
                .iter()
                .map(|s| self.tokenizer.encode(caption(s, view)));
            let tokens = tokens
                .collect::<Result<_, _>>()
                .map_err(|reason: String| TrainingError::Tokenizer(reason.into()))?;
            Ok::<View, TrainingError>(View { pixels, tokens })
        };
        let (first, second) = (view(0)?, has_second.then(|| view(1)).transpose()?);
        // Which rows a caption is true of, whoever drew it.
        let mut bears: HashMap<&str, Vec<usize>> = HashMap::new();
        for (row, shown) in shown.iter().enumerate() {
            for caption in &self.pairs[shown.item].captions {
                bears.entry(caption).or_default().push(row);
            }
        }
        let mut positives = vec![0.0; n * n];
        let mut text_positives = vec![0.0; if has_second { n * n } else { 0 }];
        for (column, shown) in shown.iter().enumerate() {
            for row in &bears[caption(shown, 0)] {
                positives[row * n + column] = 1.0;
                if has_second {
                    text_positives[column * n + row] = 1.0;
                }
            }
            if has_second {
                for row in &bears[caption(shown, 1)] {
                    text_positives[row * n + column] = 1.0;
                }
            }
        }
        Ok(Batch {
            items: shown.iter().map(|s| s.item).collect(),
            first,
            second,
            positives,
            text_positives,
            skipped,
        })
    }
}

/// An item below `of` that is not taken; none where all are.
fn other(of: usize, taken: &HashSet<usize>, random: &mut ChaCha8Rng) -> Option<usize> {
    if taken.len() == of {
        return None;
    }
    let mut item = random.random_range(0..of);
    while taken.contains(&item) {
        item = (item + 1) % of;
    }
    Some(item)
}

#[cfg(test)]
#[path = "batches/tests.rs"]
mod tests;
