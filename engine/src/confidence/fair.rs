//! What makes scores of images and of texts comparable.

use super::sample::Spread;
use crate::Score;

/// Nearest items of a modality whose mean is the level of that modality. A search for a mixed list
/// looks for at least so many of each, however few are wanted: else the order would depend on how
/// many that is.
pub(crate) const LEVEL_ROWS: usize = 10;
/// Deviation where a sample is too small to tell; real models have 0.03 to 0.1.
const USUAL_DEVIATION: f32 = 0.05;

/// Makes scores of one query with one modality comparable with those with another: how many
/// deviations a score is above the mean of the ten best. On 1,126 pictures and their descriptions
/// (CLIP) the partner is among the first ten of both in .97 to .98 of all lists; by deviations
/// above the mean of all it is in .90 to .94, by centered cosines in .54 to .58, by cosines in 0.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Level {
    mean_of_best: f32,
    deviation: f32,
}

impl Level {
    /// From the scores of the nearest items, best first, and the query's cosines with a sample of
    /// the modality.
    pub(crate) fn new(nearest: impl Iterator<Item = Score>, spread: Option<Spread>) -> Self {
        let best: Vec<f64> = nearest.take(LEVEL_ROWS).map(|Score(x)| x.into()).collect();
        let mean = best.iter().sum::<f64>() / best.len().max(1) as f64;
        Self {
            mean_of_best: mean as f32,
            deviation: spread.map_or(USUAL_DEVIATION, |spread| spread.deviation),
        }
    }

    /// The key by which hits are ranked, higher is better. Never falls while the score rises.
    pub(crate) fn key(self, score: Score) -> f32 {
        (score.0 - self.mean_of_best) / self.deviation
    }
}
