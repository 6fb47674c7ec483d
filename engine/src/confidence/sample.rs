//! A bounded part of a collection's rows, to see a score among others.

use std::collections::BinaryHeap;

use crate::{
    index::{Rows, dot},
    item::hash_of,
    segment::Segment,
    shard::View,
};

/// Rows of a sample, at most.
pub(crate) const SAMPLE_ROWS: usize = 512;
/// Rows of a segment that are remembered for their low hashes: so many that a sample is among them
/// until most of them are deleted.
const LOWEST_ROWS: usize = 4 * SAMPLE_ROWS;
/// Rows from which a sample says something about the rest.
pub(crate) const LEAST_ROWS: usize = 16;
/// Smallest deviation of cosines that is believed: equal rows have none at all.
const LEAST_DEVIATION: f32 = 1e-3;

/// Mean and standard deviation of some cosines. The deviation is never 0.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Spread {
    pub(crate) mean: f32,
    pub(crate) deviation: f32,
}

impl Spread {
    /// Of these cosines; `None` when there are too few to tell.
    pub(crate) fn of(cosines: &[f32]) -> Option<Self> {
        if cosines.len() < LEAST_ROWS {
            return None;
        }
        let count = cosines.len() as f64;
        let mean = cosines.iter().copied().map(f64::from).sum::<f64>() / count;
        let square = |x: &f32| (f64::from(*x) - mean).powi(2);
        let deviation = (cosines.iter().map(square).sum::<f64>() / count).sqrt() as f32;
        Some(Self {
            mean: mean as f32,
            deviation: deviation.max(LEAST_DEVIATION),
        })
    }

    /// How many deviations a cosine is above the mean.
    pub(crate) fn standing(self, cosine: f32) -> f32 {
        (cosine - self.mean) / self.deviation
    }
}

/// The rows of one modality in one space whose ids have the lowest hashes. So it follows from the
/// items alone, whatever the order in which they came, and most changes of a large collection
/// leave it as it is.
#[derive(Debug)]
pub(crate) struct Sample {
    rows: Rows,
    /// Live rows that it was taken from.
    pub(crate) population: usize,
    /// Hash of the last row; a change of an id with a higher one does not change the sample.
    pub(crate) last_hash: u64,
    /// Mean of the rows, `[dim]`.
    mean: Vec<f32>,
    /// Of the cosines of the rows with their mean.
    around_mean: Option<Spread>,
}

impl Sample {
    /// Takes the sample of these shards, whose rows have `dim` numbers.
    pub(crate) fn take(views: &[View], dim: usize) -> Self {
        let mut lowest: BinaryHeap<(u64, &str, usize, usize)> = BinaryHeap::new();
        let mut population = 0;
        for (shard, view) in views.iter().enumerate() {
            population += view.rows() - view.dead.ones();
            for (hash, row) in candidates(view) {
                let full = lowest.len() == SAMPLE_ROWS;
                let last = lowest.peek().filter(|_| full);
                if last.is_some_and(|last| hash > last.0) {
                    continue;
                }
                let id = view.id(row);
                if last.is_some_and(|last| (hash, id) > (last.0, last.1)) {
                    continue;
                }
                lowest.push((hash, id, shard, row));
                if full {
                    lowest.pop();
                }
            }
        }
        let last = lowest.peek().map(|last| last.0);
        let full = lowest.len() == SAMPLE_ROWS;
        let mut rows = Rows::with_capacity(dim, lowest.len());
        for (_, _, shard, row) in lowest.into_sorted_vec() {
            rows.push(views[shard].row(row));
        }
        let mean = mean(&rows);
        let to_mean: Vec<f32> = (0..rows.len()).map(|i| dot(rows.row(i), &mean)).collect();
        Self {
            rows,
            population,
            // While there is room, every new item belongs to it.
            last_hash: last.filter(|_| full).unwrap_or(u64::MAX),
            mean,
            around_mean: Spread::of(&to_mean),
        }
    }

    /// Number of rows.
    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Row `i`; the first ones are themselves a fair sample.
    pub(crate) fn row(&self, i: usize) -> &[f32] {
        self.rows.row(i)
    }

    /// Cosines with all rows.
    pub(crate) fn cosines(&self, query: &[f32]) -> Vec<f32> {
        (0..self.len())
            .map(|i| dot(query, self.rows.row(i)))
            .collect()
    }

    /// How far a query's cosine with the mean is from that of a usual row, in deviations: near 0
    /// for one of this modality, far below for one of another. `None` when there are too few rows.
    pub(crate) fn belonging(&self, query: &[f32]) -> Option<f32> {
        let spread = self.around_mean?;
        Some(spread.standing(dot(query, &self.mean)))
    }
}

/// Live rows of a shard and the hashes of their ids, and among them all that have the lowest. Most
/// rows of a segment are not looked at, and no id of a tail: a search would wait for that after every
/// other write.
fn candidates(view: &View) -> impl Iterator<Item = (u64, usize)> + '_ {
    let lowest = lowest(&view.sealed).iter();
    let lowest = lowest.map(|(hash, row)| (*hash, *row as usize));
    let lowest: Vec<_> = lowest.filter(|(_, row)| view.is_alive(*row)).collect();
    let sealed = view.sealed.len();
    // After many deletions there may be too few.
    let are_enough = lowest.len() >= SAMPLE_ROWS || sealed <= LOWEST_ROWS;
    let others = if are_enough { 0..0 } else { 0..sealed };
    let others = others.filter(|row| view.is_alive(*row));
    let others = others.map(|row| (hash_of(view.id(row)), row));
    let lowest = lowest.into_iter().filter(move |_| are_enough);
    lowest.chain(others).chain(view.tail_hashes())
}

/// The rows of a segment that a sample may need. They are found once, which goes through all ids:
/// whoever builds a segment asks first.
pub(crate) fn lowest(segment: &Segment) -> &[(u64, u32)] {
    segment.lowest(LOWEST_ROWS, hash_of)
}

fn mean(rows: &Rows) -> Vec<f32> {
    let mut sums = vec![0.0_f64; rows.dim()];
    for i in 0..rows.len() {
        for (sum, x) in sums.iter_mut().zip(rows.row(i)) {
            *sum += f64::from(*x);
        }
    }
    let count = rows.len().max(1) as f64;
    sums.iter().map(|sum| (sum / count) as f32).collect()
}

#[cfg(test)]
mod tests {
    use embedding::Embedding;

    use super::*;
    use crate::{
        EngineConfig,
        record::Stamp,
        segment::{Ids, Segment},
        shard::{Shard, Standing},
    };

    #[test]
    fn a_sample_is_what_a_look_at_all_rows_gives_also_when_most_of_the_lowest_are_deleted() {
        let name = |i: usize| format!("{i:05}");
        let row = |i: usize| {
            let angle = i as f32;
            Embedding::normalized(vec![angle.cos(), angle.sin()]).expect("it has a direction")
        };
        let stamp = |i: usize| Stamp {
            embeddings: [0; 8],
            ordinal: i as u32,
        };
        for (sealed, tail) in [(0, 700), (400, 400), (6000, 0), (6000, 300)] {
            let (mut ids, mut rows) = (Ids::new(), Rows::new(2));
            for i in 0..sealed {
                ids.push(&name(i));
                rows.push(row(i).as_slice());
            }
            let stamps: Vec<Stamp> = (0..sealed).map(stamp).collect();
            let config = EngineConfig {
                graph_rows: usize::MAX,
                ..EngineConfig::default()
            };
            let segment = Segment::build((ids, stamps.into(), rows), &config, &|| false);
            let segment = segment.expect("nobody stops it");
            let mut shard = Shard::loaded(segment, Standing::default());
            (sealed..sealed + tail).for_each(|i| shard.insert(&name(i), stamp(i), &row(i)));
            let mut live: Vec<(u64, usize)> =
                (0..sealed + tail).map(|i| (hash_of(&name(i)), i)).collect();
            live.sort_unstable();
            // Few enough are left of the remembered ones at last.
            for gone in [0, 100, LOWEST_ROWS - 200, 500] {
                for (_, i) in live.drain(..gone.min(live.len())) {
                    shard.remove(&name(i));
                }
                let sample = Sample::take(std::slice::from_ref(&shard.view), 2);
                let expected = live.iter().take(SAMPLE_ROWS).map(|(_, i)| row(*i));
                let expected: Vec<Embedding> = expected.collect();
                assert_eq!(sample.population, live.len());
                assert_eq!(sample.len(), expected.len(), "{sealed} + {tail}");
                for (i, row) in expected.iter().enumerate() {
                    assert_eq!(
                        sample.row(i),
                        row.as_slice(),
                        "row {i} of {sealed} + {tail}"
                    );
                }
            }
        }
    }
}
