//! Principal components by orthogonal iteration (Golub and Van Loan, algorithm 7.3.2 of the fourth
//! edition, on the covariance, which is never written down).

use rayon::prelude::*;

use crate::Draws;

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
    let mean: Vec<f32> = mean
        .iter()
        .map(|sum| (sum / n.max(1) as f64) as f32)
        .collect();
    let mut draws = Draws::new(&[SEED]);
    // Uniform from -1 to 1.
    let mut basis: Vec<f32> = (0..width * dim)
        .map(|_| draws.below(1 << 20) as f32 / (1 << 19) as f32 - 1.0)
        .collect();
    orthonormal(&mut basis, dim);
    for _ in 0..ROUNDS {
        basis = times_covariance(rows, &mean, &basis);
        orthonormal(&mut basis, dim);
    }
    upright(&mut basis, dim);
    rows.par_chunks_exact(dim)
        .flat_map_iter(|row| {
            let along = basis.chunks_exact(dim).take(kept);
            along
                .map(|axis| along_axis(row, &mean, axis))
                .collect::<Vec<f32>>()
        })
        .collect()
}

fn along_axis(row: &[f32], mean: &[f32], axis: &[f32]) -> f32 {
    let centered = row.iter().zip(mean).map(|(x, mean)| x - mean);
    centered.zip(axis).map(|(x, a)| x * a).sum()
}

/// The covariance of the rows, not divided, times each direction.
fn times_covariance(rows: &[f32], mean: &[f32], basis: &[f32]) -> Vec<f32> {
    let dim = mean.len();
    let chunks: Vec<Vec<f32>> = rows
        .par_chunks(CHUNK * dim)
        .map(|chunk| {
            let mut sums = vec![0.0; basis.len()];
            for row in chunk.chunks_exact(dim) {
                for (axis, sum) in basis.chunks_exact(dim).zip(sums.chunks_exact_mut(dim)) {
                    let at = along_axis(row, mean, axis);
                    for ((sum, x), mean) in sum.iter_mut().zip(row).zip(mean) {
                        *sum += at * (x - mean);
                    }
                }
            }
            sums
        })
        .collect();
    // In order, so that the same rows give the same bits.
    let mut total = vec![0.0; basis.len()];
    for chunk in chunks {
        for (total, x) in total.iter_mut().zip(chunk) {
            *total += x;
        }
    }
    total
}

/// Makes directions orthogonal and of unit length, each to those before it (modified Gram-Schmidt); one
/// along which nothing differs becomes 0.
fn orthonormal(basis: &mut [f32], dim: usize) {
    for i in 0..basis.len() / dim {
        let (before, rest) = basis.split_at_mut(i * dim);
        let axis = &mut rest[..dim];
        let was = norm(axis);
        for other in before.chunks_exact(dim) {
            let along: f32 = axis.iter().zip(other).map(|(a, b)| a * b).sum();
            for (a, b) in axis.iter_mut().zip(other) {
                *a -= along * b;
            }
        }
        let length = norm(axis);
        // What is left of rounding is no direction.
        let scale = if length > 1e-5 * was && length > 0.0 {
            1.0 / length
        } else {
            0.0
        };
        for a in axis {
            *a *= scale;
        }
    }
}

fn norm(axis: &[f32]) -> f32 {
    axis.iter().map(|a| a * a).sum::<f32>().sqrt()
}

/// Turns each direction so that its largest number is positive: a direction has no sign of its own.
fn upright(basis: &mut [f32], dim: usize) {
    for axis in basis.chunks_exact_mut(dim) {
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
