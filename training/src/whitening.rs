//! Learned whitening: a projection under which different pictures of one thing lie together.
//!
//! What a tower tells of a picture varies with the thing that is shown and with the hand that drew it. Where
//! there are several pictures of many things, the second kind of variation is known, and a projection can
//! make it equally small in all directions, so that what is left tells things apart: Mikolajczyk and Matas,
//! "Improving descriptors for fast tree matching by optimal linear projection" (2007), as Radenovic et al.
//! use it for retrieval ("Fine-tuning CNN image retrieval with no human annotation", 2019). It is the linear
//! discriminant of Fisher with many classes, in closed form.

use embedding::Embedding;
use nalgebra::{Cholesky, DMatrix, DVector, SymmetricEigen};

use crate::TrainingError;

/// Pictures whose variation is added up at a time.
const AT_ONCE: usize = 1024;

/// Pictures of things, as a tower sees them.
#[derive(Debug, Clone, Copy)]
pub struct Pictures<'a> {
    /// What the projection reads of each, `[n, width]`: pooled outputs, and details where there are any.
    pub seen: &'a [Vec<f32>],
    /// Shared embeddings of the same pictures `[n, dim]`.
    pub shared: &'a [Embedding],
    /// Which thing each picture shows: any number, the same for the same thing.
    pub things: &'a [usize],
}

/// A projection to specific embeddings.
#[derive(Debug, Clone, PartialEq)]
pub struct Whitening {
    /// `[dim, width]`, row by row.
    pub projection: Vec<f32>,
    /// Numbers that it reads of a picture.
    pub width: usize,
    /// Mean of the squared inner product of a picture's shared and specific embedding, the shorter one with
    /// zeros behind it: 0 where they are orthogonal.
    pub overlap: f64,
}

/// Learns a projection of what is seen of pictures to `dim` numbers, at least as many as shared embeddings have.
///
/// Variation within things is whitened, after `ridge` times its mean has been added in every direction; of
/// what remains between things the `dim` strongest directions are kept, without that of the overall
/// mean, which every picture has. Cosines do not change when all embeddings are turned, so these are turned
/// away from the shared ones: where those vary most, these vary least.
///
/// # Errors
/// When no thing has two pictures, or `dim` is too small beside shared embeddings, or too large for the things
/// and numbers that there are.
pub fn learned_whitening(
    of: Pictures<'_>,
    ridge: f64,
    dim: usize,
) -> Result<Whitening, TrainingError> {
    let shared = matrix(of.shared.iter().map(Embedding::as_slice));
    if dim < shared.nrows() {
        return Err(TrainingError::Value {
            key: "--specific-dim",
            expected: "at least as many numbers as shared embeddings have",
        });
    }
    let rows = matrix(of.seen.iter().map(Vec::as_slice));
    let width = rows.nrows();
    let means = Means::of(&rows, of.things);
    if means.repeated.is_empty() {
        return Err(TrainingError::NoRepeats);
    }
    // The mean takes one direction, as does its own mean among things.
    if dim + 2 > width.min(means.repeated.len()) {
        return Err(TrainingError::TooFewThings {
            things: means.repeated.len(),
            width,
            dim,
        });
    }

    let mut within = DMatrix::zeros(width, width);
    let compared = (0..rows.ncols()).filter(|i| means.counts[means.of_row[*i]] > 1.0);
    let compared: Vec<usize> = compared.collect();
    for some in compared.chunks(AT_ONCE) {
        let mut apart = rows.select_columns(some);
        for (mut column, i) in apart.column_iter_mut().zip(some) {
            column -= means.all.column(means.of_row[*i]);
        }
        within.gemm(1.0, &apart, &apart.transpose(), 1.0);
    }
    within /= compared.len() as f64;
    let level = ridge * within.trace() / width as f64;
    for i in 0..width {
        within[(i, i)] += level;
    }
    let lower = Cholesky::new(within).ok_or(TrainingError::Unvarying)?;
    let lower = lower.l();
    let white = |x: &DMatrix<f64>| {
        let solved = lower.solve_lower_triangular(x);
        solved.ok_or(TrainingError::Unvarying)
    };

    let mut between = white(&means.all.select_columns(&means.repeated))?;
    let middle = between.column_mean();
    let common = middle.normalize();
    for mut column in between.column_iter_mut() {
        column -= &middle;
        let along = column.dot(&common);
        column.axpy(-along, &common, 1.0);
    }
    let strongest = descending(&between * between.transpose());
    let directions = strongest.columns(0, dim);

    // Rows of the projection are directions times the inverse of the lower factor.
    let upper = lower.transpose();
    let solved = upper.solve_upper_triangular(&directions.into_owned());
    let projection = solved.ok_or(TrainingError::Unvarying)?.transpose();

    let shared = shared.resize_vertically(dim, 0.0);
    let specific = unit_columns(&projection * &rows);
    let (from, to) = (
        descending(&specific * specific.transpose()),
        ascending(&shared * shared.transpose()),
    );
    let turn = to * from.transpose();
    let specific = &turn * specific;
    let products = specific.component_mul(&shared).row_sum();
    let overlap = products.norm_squared() / products.len() as f64;

    // Any factor leaves directions as they are; with this one half precision holds all numbers well.
    let mut projection = turn * projection;
    projection *= (dim as f64).sqrt() / projection.norm();
    let rows = projection.row_iter().flat_map(|row| {
        let row: Vec<f32> = row.iter().map(|x| *x as f32).collect();
        row
    });
    Ok(Whitening {
        projection: rows.collect(),
        width,
        overlap,
    })
}

/// The mean of each thing's rows.
struct Means {
    /// Columns, one for each thing.
    all: DMatrix<f64>,
    /// Rows of each thing.
    counts: Vec<f64>,
    /// Column of the thing of each row.
    of_row: Vec<usize>,
    /// Columns of things that have several rows.
    repeated: Vec<usize>,
}

impl Means {
    fn of(rows: &DMatrix<f64>, things: &[usize]) -> Self {
        let mut known: Vec<usize> = things.to_vec();
        known.sort_unstable();
        known.dedup();
        let of_row: Vec<usize> = things
            .iter()
            .map(|thing| known.partition_point(|other| other < thing))
            .collect();
        let mut all = DMatrix::zeros(rows.nrows(), known.len());
        let mut counts = vec![0.0; known.len()];
        for (row, thing) in rows.column_iter().zip(&of_row) {
            let mut sum = all.column_mut(*thing);
            sum += row;
            counts[*thing] += 1.0;
        }
        for (mut column, count) in all.column_iter_mut().zip(&counts) {
            column /= *count;
        }
        let repeated = (0..known.len()).filter(|thing| counts[*thing] > 1.0);
        Self {
            repeated: repeated.collect(),
            all,
            counts,
            of_row,
        }
    }
}

/// Rows as columns.
fn matrix<'a>(rows: impl ExactSizeIterator<Item = &'a [f32]> + Clone) -> DMatrix<f64> {
    let dim = rows.clone().next().map_or(0, <[f32]>::len);
    let count = rows.len();
    let values = rows.flatten().map(|x| f64::from(*x));
    DMatrix::from_iterator(dim, count, values)
}

fn unit_columns(mut all: DMatrix<f64>) -> DMatrix<f64> {
    for mut column in all.column_iter_mut() {
        let length = column.norm().max(f64::MIN_POSITIVE);
        column /= length;
    }
    all
}

/// Eigenvectors as columns, those of the largest eigenvalue first. The largest element of each is positive, so
/// that the same matrix gives the same ones.
fn descending(symmetric: DMatrix<f64>) -> DMatrix<f64> {
    let found = SymmetricEigen::new(symmetric);
    let mut order: Vec<usize> = (0..found.eigenvalues.len()).collect();
    order.sort_by(|a, b| found.eigenvalues[*b].total_cmp(&found.eigenvalues[*a]));
    let columns: Vec<DVector<f64>> = order
        .into_iter()
        .map(|i| {
            let column = found.eigenvectors.column(i).into_owned();
            let sign = column[column.icamax()].signum();
            column * sign
        })
        .collect();
    DMatrix::from_columns(&columns)
}

/// The same, those of the smallest first.
fn ascending(symmetric: DMatrix<f64>) -> DMatrix<f64> {
    let all = descending(symmetric);
    let columns: Vec<usize> = (0..all.ncols()).rev().collect();
    all.select_columns(&columns)
}

#[cfg(test)]
mod tests {
    use rand::{RngExt as _, SeedableRng as _};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    const WIDTH: usize = 12;
    const DIM: usize = 4;
    const THINGS: usize = 40;

    /// Four pictures of each thing: what tells things apart is small and in five numbers, what hands do is
    /// large and in three others, and all have something in common.
    fn pictures() -> (Vec<Vec<f32>>, Vec<Embedding>, Vec<usize>) {
        let mut random = ChaCha8Rng::seed_from_u64(5);
        let mut draw =
            |n: usize| -> Vec<f32> { (0..n).map(|_| random.random_range(-1.0_f32..1.0)).collect() };
        let things: Vec<Vec<f32>> = (0..THINGS).map(|_| draw(5)).collect();
        let hands: Vec<Vec<f32>> = (0..4).map(|_| draw(3)).collect();
        let (mut seen, mut shared, mut of) = (Vec::new(), Vec::new(), Vec::new());
        for hand in &hands {
            for (i, thing) in things.iter().enumerate() {
                let grain = draw(WIDTH);
                let own = thing.iter().map(|x| 0.1 * x).chain([0.0; 7]);
                let drawn = [0.0; 5].into_iter().chain(hand.iter().copied());
                let drawn = drawn.chain([0.0; 4]);
                let row = own.zip(drawn).zip(&grain).enumerate();
                let row = row.map(|(at, ((own, drawn), grain))| {
                    own + drawn + 0.01 * grain + if at == 11 { 2.0 } else { 0.0 }
                });
                let row = Embedding::normalized(row.collect()).expect("not zero");
                seen.push(row.as_slice().to_vec());
                shared.push(Embedding::normalized(draw(DIM)).expect("not zero"));
                of.push(i);
            }
        }
        (seen, shared, of)
    }

    /// Share of pictures whose nearest other picture by another hand shows the same thing.
    fn found(rows: &[Vec<f32>], things: &[usize]) -> f64 {
        let hits = rows.iter().enumerate().filter(|(i, row)| {
            let others = (0..rows.len()).filter(|j| j / THINGS != i / THINGS);
            let cosine = |j: &usize| -> f32 { row.iter().zip(&rows[*j]).map(|(a, b)| a * b).sum() };
            let best = others.max_by(|a, b| cosine(a).total_cmp(&cosine(b)));
            best.is_some_and(|j| things[j] == things[*i])
        });
        hits.count() as f64 / rows.len() as f64
    }

    fn projected(seen: &[Vec<f32>], whitening: &Whitening) -> Vec<Vec<f32>> {
        seen.iter()
            .map(|row| {
                let rows = whitening.projection.chunks_exact(WIDTH);
                let row = rows.map(|p| p.iter().zip(row).map(|(a, b)| a * b).sum());
                let unit = Embedding::normalized(row.collect()).expect("not zero");
                unit.as_slice().to_vec()
            })
            .collect()
    }

    #[test]
    fn a_thing_by_another_hand_is_found_after_whitening_and_not_before() {
        let (seen, shared, things) = pictures();
        let of = Pictures {
            seen: &seen,
            shared: &shared,
            things: &things,
        };
        let whitening = learned_whitening(of, 1e-3, DIM).expect("learns");
        assert_eq!(whitening.projection.len(), DIM * WIDTH);
        let before = found(&seen, &things);
        let after = projected(&seen, &whitening);
        let now = found(&after, &things);
        assert!(before < 0.7 && now > 0.95, "{before} before, {now} after");
        // What all have in common is gone.
        let mean = |k: usize| after.iter().map(|row| row[k]).sum::<f32>() / after.len() as f32;
        let middle: f32 = (0..DIM).map(|k| mean(k).powi(2)).sum::<f32>().sqrt();
        assert!(middle < 0.2, "{middle}");
        let products = after.iter().zip(&shared).map(|(row, shared)| {
            let product: f32 = row.iter().zip(shared.as_slice()).map(|(a, b)| a * b).sum();
            f64::from(product).powi(2)
        });
        let overlap = products.sum::<f64>() / after.len() as f64;
        assert!((overlap - whitening.overlap).abs() < 1e-5);
        assert_eq!(learned_whitening(of, 1e-3, DIM).expect("learns"), whitening);
    }

    #[test]
    fn specific_embeddings_are_turned_away_from_shared_ones() {
        let (seen, _, things) = pictures();
        // Shared embeddings that vary in one direction only: there specific ones must vary least.
        let along = Embedding::normalized(vec![1.0, 0.02, 0.01, 0.0]).expect("not zero");
        let shared = vec![along; seen.len()];
        let of = Pictures {
            seen: &seen,
            shared: &shared,
            things: &things,
        };
        let whitening = learned_whitening(of, 1e-3, DIM).expect("learns");
        assert!(whitening.overlap < 1.0 / DIM as f64, "{whitening:?}");
        // More numbers than shared ones leave more room beside them.
        let more = learned_whitening(of, 1e-3, 6).expect("learns");
        assert_eq!(more.projection.len(), 6 * WIDTH);
        assert!(more.overlap < whitening.overlap, "{more:?}");
    }

    #[test]
    fn what_cannot_be_learned_from_is_refused() {
        let (seen, shared, things) = pictures();
        let alone: Vec<usize> = (0..things.len()).collect();
        let learn = |things: &[usize], shared: &[Embedding]| {
            let of = Pictures {
                seen: &seen,
                shared,
                things,
            };
            learned_whitening(of, 1e-3, DIM).expect_err("is refused")
        };
        assert!(matches!(learn(&alone, &shared), TrainingError::NoRepeats));
        let few: Vec<usize> = things.iter().map(|i| i % 5).collect();
        let said = learn(&few, &shared).to_string();
        assert!(said.contains("5 things"), "{said}");
        let of = Pictures {
            seen: &seen,
            shared: &shared,
            things: &things,
        };
        let said = learned_whitening(of, 1e-3, 3).expect_err("is refused");
        assert!(said.to_string().contains("--specific-dim"), "{said}");
    }
}
