//! Two variations of each picture of a batch.

use std::sync::Arc;

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use super::{SslConfig, pictures::Pictures};
use crate::{TrainingError, augment::augment};

/// What one step sees, each `[batch, 3, side, side]`, normalized as the tower wants it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Views {
    pub queries: Vec<f32>,
    pub keys: Vec<f32>,
    /// The pictures as they are served, where they are asked for.
    pub still: Option<Vec<f32>>,
}

/// Everything that batches are made of.
pub(super) struct ViewSource {
    pub pictures: Arc<Pictures>,
    pub config: SslConfig,
    /// Side of a view in pixels.
    pub side: usize,
}

impl ViewSource {
    /// The batch of one step, which depends on the seed and on the step alone.
    pub(super) fn batch(&self, step: usize) -> Result<Views, TrainingError> {
        let n = self.config.optimizer.batch;
        let mut random = ChaCha8Rng::seed_from_u64(self.config.seed);
        // Stream 0 makes the weights.
        random.set_stream(step as u64 + 1);
        if self.pictures.len() < n {
            return Err(TrainingError::TooFewPictures {
                usable: self.pictures.len(),
                skipped: 0,
                batch: n,
            });
        }
        let chosen = rand::seq::index::sample(&mut random, self.pictures.len(), n);
        let drawn: Vec<(usize, [u64; 2])> = chosen
            .into_iter()
            .map(|i| (i, [random.random(), random.random()]))
            .collect();
        let size = 3 * self.side * self.side;
        let anchored = self.config.contrast.anchor > 0.0;
        let mut views = Views {
            queries: vec![0.0; n * size],
            keys: vec![0.0; n * size],
            still: anchored.then(Vec::new),
        };
        let range = self.ranges();
        views
            .queries
            .par_chunks_mut(size)
            .zip(views.keys.par_chunks_mut(size))
            .zip(&drawn)
            .try_for_each(|((query, key), (i, seeds))| {
                let picture = self.pictures.get(*i)?;
                for (view, seed) in [query, key].into_iter().zip(seeds) {
                    let mut random = ChaCha8Rng::seed_from_u64(*seed);
                    let config = &self.config.augment;
                    let pixels = augment(&picture, self.side, true, config, &mut random);
                    for (at, (to, from)) in view.iter_mut().zip(pixels).enumerate() {
                        let [low, high] = range[at / (self.side * self.side)];
                        *to = low + f32::midpoint(from, 1.0) * (high - low);
                    }
                }
                Ok::<_, TrainingError>(())
            })?;
        if let Some(still) = &mut views.still {
            let prepared = drawn.par_iter().map(|(i, _)| self.pictures.prepared(*i));
            *still = prepared.collect::<Result<Vec<_>, _>>()?.concat();
        }
        Ok(views)
    }

    /// What black and white become, by channel.
    fn ranges(&self) -> [[f32; 2]; 3] {
        let levels = self.pictures.copying().preprocess.levels();
        levels.map(|level| [level[0], level[255]])
    }
}
