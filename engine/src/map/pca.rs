//! Principal components.

use rayon::prelude::*;

use crate::{
    directions::{Directions, dot},
    product::{Matrix, add_product},
};

/// Rounds: the first directions stand long before.
const ROUNDS: usize = 24;
/// Directions beyond those that are wanted, so that the last of these come as fast as the first.
const MORE: usize = 6;
/// Rows that one thread takes at a time.
const CHUNK: usize = 256;
const SEED: u64 = 0x006d_6170;

/// Coordinates `[n, kept]` of rows `[n, dim]` along the directions in which they differ most, the first
/// first. `kept` is at most `dim`, otherwise it is that.
pub(super) fn reduce(rows: &[f32], dim: usize, kept: usize) -> Vec<f32> {
    let kept = kept.min(dim);
    let width = (kept + MORE).min(dim);
    let n = rows.len() / dim.max(1);
    let mut mean = vec![0.0f64; dim];
    for row in rows.chunks_exact(dim) {
        for (sum, x) in mean.iter_mut().zip(row) {
            *sum += f64::from(*x);
        }
    }
    for sum in &mut mean {
        *sum /= n.max(1) as f64;
    }
    let found = Directions::find((width, dim), (ROUNDS, SEED), |axes| {
        times_covariance(rows, &mean, axes)
    });
    let mut axes = found.axes;
    axes.truncate(kept * dim);
    upright(&mut axes, dim);
    rows.par_chunks_exact(dim)
        .flat_map_iter(|row| {
            let mut row: Vec<f64> = row.iter().map(|x| f64::from(*x)).collect();
            for (x, mean) in row.iter_mut().zip(&mean) {
                *x -= mean;
            }
            let along = axes.chunks_exact(dim);
            along
                .map(|axis| dot(&row, axis) as f32)
                .collect::<Vec<f32>>()
        })
        .collect()
}

/// The covariance of the rows, not divided, times each direction.
fn times_covariance(rows: &[f32], mean: &[f64], axes: &[f64]) -> Vec<f64> {
    let dim = mean.len();
    let count = axes.len() / dim;
    let chunks: Vec<Vec<f64>> = rows
        .par_chunks(CHUNK * dim)
        .map(|chunk| {
            let means = mean.iter().cycle();
            let centered: Vec<f64> = chunk
                .iter()
                .zip(means)
                .map(|(x, mean)| f64::from(*x) - mean)
                .collect();
            let centered = Matrix::of_rows(&centered, dim);
            let mut along = vec![0.0; chunk.len() / dim * count];
            let axes = Matrix::of_rows(axes, dim);
            add_product(centered, axes.transposed(), &mut along);
            let mut sums = vec![0.0; count * dim];
            add_product(
                Matrix::of_rows(&along, count).transposed(),
                centered,
                &mut sums,
            );
            sums
        })
        .collect();
    // In order, so that the same rows give the same bits.
    let mut total = vec![0.0; axes.len()];
    for chunk in chunks {
        for (total, x) in total.iter_mut().zip(chunk) {
            *total += x;
        }
    }
    total
}

/// Turns each direction so that its largest number is positive: a direction has no sign of its own.
fn upright(axes: &mut [f64], dim: usize) {
    for axis in axes.chunks_exact_mut(dim) {
        let largest = axis
            .iter()
            .copied()
            .max_by(|a, b| a.abs().total_cmp(&b.abs()));
        if largest.is_some_and(|x| x < 0.0) {
            for a in axis {
                *a = -*a;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Draws;

    #[test]
    fn the_first_directions_are_those_in_which_the_rows_differ_most() {
        // Along the third number most, then the first, hardly along the others; far from the origin.
        let mut draws = Draws::new(&[1]);
        let mut any = || draws.below(2001) as f32 / 1000.0 - 1.0;
        let rows: Vec<f32> = (0..500)
            .flat_map(|_| {
                [
                    3.0 * any() + 7.0,
                    0.01 * any(),
                    10.0 * any() - 4.0,
                    0.01 * any(),
                ]
            })
            .collect();
        let reduced = reduce(&rows, 4, 2);
        for (row, at) in rows.chunks_exact(4).zip(reduced.chunks_exact(2)) {
            let mean = |i: usize| rows.iter().skip(i).step_by(4).sum::<f32>() / 500.0;
            assert!(
                (at[0] - (row[2] - mean(2))).abs() < 0.5,
                "{at:?} of {row:?}"
            );
            assert!(
                (at[1] - (row[0] - mean(0))).abs() < 0.5,
                "{at:?} of {row:?}"
            );
        }
        assert_eq!(reduced, reduce(&rows, 4, 2), "the same again");
    }

    #[test]
    fn rows_that_do_not_differ_lie_on_one_point() {
        let reduced = reduce(&[0.5; 40], 4, 2);
        assert!(reduced.iter().all(|x| x.abs() < 1e-6), "{reduced:?}");
        assert_eq!(
            reduce(&[1.0, 2.0, 3.0], 1, 2).len(),
            3,
            "never wider than the rows"
        );
    }
}
