//! The directions in which rows differ most.

use crate::Draws;

/// A direction of which this part is left, when what lies along those before it is taken out, is rounding.
const LEAST: f64 = 1e-9;

/// Directions of `[dim]` numbers, the first told apart best.
#[derive(Debug, Default)]
pub(crate) struct Directions {
    /// `[count, dim]`, orthonormal; one along which nothing differs is 0.
    pub(crate) axes: Vec<f64>,
    /// The sum of squares along each: `[count]`.
    pub(crate) squares: Vec<f64>,
}

impl Directions {
    /// By orthogonal iteration (Golub and Van Loan 2013, algorithm 8.2.8) from random directions that the seed
    /// makes. `times` multiplies each direction, `[count, dim]`, with the products of all rows, `[dim, dim]`, which
    /// nobody writes down. The more rounds, the better directions are told apart.
    pub(crate) fn find(
        (count, dim): (usize, usize),
        (rounds, seed): (usize, u64),
        mut times: impl FnMut(&[f64]) -> Vec<f64>,
    ) -> Self {
        let mut draws = Draws::new(&[seed]);
        // Uniform from -1 to 1.
        let mut axes: Vec<f64> = (0..count * dim)
            .map(|_| draws.below(1 << 20) as f64 / f64::from(1 << 19) - 1.0)
            .collect();
        orthonormalize(&mut axes, dim);
        let mut squares = vec![0.0; count];
        let rounds = if axes.is_empty() { 0 } else { rounds };
        for _ in 0..rounds {
            let mut next = times(&axes);
            let both = next.chunks_exact(dim).zip(axes.chunks_exact(dim));
            for (squares, (next, axis)) in squares.iter_mut().zip(both) {
                *squares = dot(next, axis);
            }
            orthonormalize(&mut next, dim);
            axes = next;
        }
        Self { axes, squares }
    }
}

/// Modified Gram-Schmidt: each becomes orthogonal to those before it and of unit length.
fn orthonormalize(vectors: &mut [f64], dim: usize) {
    for i in 0..vectors.len() / dim.max(1) {
        let (before, from) = vectors.split_at_mut(i * dim);
        let vector = &mut from[..dim];
        let length = dot(vector, vector).sqrt();
        for other in before.chunks_exact(dim) {
            let part = dot(other, vector);
            add(-part, other, vector);
        }
        let left = dot(vector, vector).sqrt();
        let scale = if left > LEAST * length {
            1.0 / left
        } else {
            0.0
        };
        for x in vector {
            *x *= scale;
        }
    }
}

/// Sum of products: of eight sequences side by side, for one alone would wait for each of its sums.
pub(crate) fn dot(a: &[f64], b: &[f64]) -> f64 {
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    let mut sums = [0.0; 8];
    for (a, b) in a.iter().zip(b) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum += a * b;
        }
    }
    let rest = a_rest.iter().zip(b_rest).map(|(a, b)| a * b);
    sums.iter().sum::<f64>() + rest.sum::<f64>()
}

/// Adds a multiple.
pub(crate) fn add(factor: f64, from: &[f64], to: &mut [f64]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to += factor * from;
    }
}
