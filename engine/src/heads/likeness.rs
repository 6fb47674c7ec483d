//! What is like none of the examples.
//!
//! The probabilities of a classifier say which of its labels fits best, and nothing of whether any does.
//! So an item is also compared with the mean of each label's examples: one that is farther from all of
//! them than nearly every example is from the mean of the others of its label is none of these.

use serde::{Deserialize, Serialize};

use crate::index::dot;

/// Examples with others of their label from which their likeness tells anything.
const LEAST_EXAMPLES: usize = 10;
/// The part of the examples that may be farther than what is taken for one of the labels.
const LEFT_OUT: f64 = 0.02;

/// The means of the examples of each label, and how far from them an example may be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Likeness {
    /// Of unit length, `[labels, dim]`.
    pub means: Vec<f32>,
    /// Cosine with the nearest of them below which an item is none of these.
    pub least: f32,
}

impl Likeness {
    /// From rows `[examples, dim]` and the labels of each. `None` where there are too few to tell.
    pub(super) fn of(rows: &[f32], dim: usize, of: &[Vec<usize>], labels: usize) -> Option<Self> {
        let (mut sums, mut counts) = (vec![0.0_f32; labels * dim], vec![0_usize; labels]);
        for (row, of) in rows.chunks_exact(dim).zip(of) {
            for label in of {
                counts[*label] += 1;
                let sum = &mut sums[label * dim..][..dim];
                sum.iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
            }
        }
        let mut cosines = Vec::new();
        for (row, of) in rows.chunks_exact(dim).zip(of) {
            let others = of.iter().filter(|label| counts[**label] > 1);
            let nearest = others.map(|label| {
                let sum = &sums[label * dim..][..dim];
                let others: Vec<f32> = sum.iter().zip(row).map(|(sum, x)| sum - x).collect();
                dot(row, &others) / dot(&others, &others).sqrt().max(f32::MIN_POSITIVE)
            });
            cosines.extend(nearest.max_by(f32::total_cmp));
        }
        if cosines.len() < LEAST_EXAMPLES {
            return None;
        }
        cosines.sort_unstable_by(f32::total_cmp);
        let least = cosines[(LEFT_OUT * cosines.len() as f64) as usize];
        for sum in sums.chunks_exact_mut(dim) {
            let length = dot(sum, sum).sqrt().max(f32::MIN_POSITIVE);
            for x in sum {
                *x /= length;
            }
        }
        Some(Self { means: sums, least })
    }

    /// Whether a row is like none of the labels.
    pub fn is_none_of_these(&self, row: &[f32]) -> bool {
        let means = self.means.chunks_exact(row.len().max(1));
        let nearest = means.map(|mean| dot(row, mean)).max_by(f32::total_cmp);
        nearest.is_none_or(|nearest| nearest < self.least)
    }

    /// Whether its numbers can be those of a head with so many labels and such rows.
    pub(super) fn is_usable(&self, labels: usize, dim: usize) -> bool {
        let finite = self
            .means
            .iter()
            .chain([&self.least])
            .all(|x| x.is_finite());
        finite && self.means.len() == labels.saturating_mul(dim)
    }
}
