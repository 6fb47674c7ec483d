//! What a shared projection discards of a pooled output.

use candle_core::{Result, Tensor};
use rayon::prelude::*;

use crate::cpu::wide;

/// A direction that keeps less than this share of its length after what is known was taken out is
/// rounding, not a new direction.
const INDEPENDENT: f64 = 1e-6;

/// Rows of a projection that are made orthogonal to those before them at the same time.
const BLOCK: usize = 32;

/// The orthogonal complement of the row space of a projection `[dim, width]`.
#[derive(Debug, Clone)]
pub(crate) struct Complement {
    /// Orthonormal rows that span the row space, `[rank, width]`.
    basis: Tensor,
}

impl Complement {
    /// `None` where the projection discards nothing.
    pub(crate) fn new(projection: &Tensor) -> Result<Option<Self>> {
        let (_, width) = projection.dims2()?;
        let mut basis: Vec<Vec<f64>> = Vec::new();
        for block in projection.to_vec2::<f32>()?.chunks(BLOCK) {
            let known = basis.len();
            // What is known before the block is taken out of all its rows at once.
            let rows: Vec<(Vec<f64>, f64)> = block
                .par_iter()
                .map(|row| {
                    let mut row: Vec<f64> = row.iter().copied().map(f64::from).collect();
                    let before = length(&row);
                    take_out(&basis, &mut row);
                    (row, before)
                })
                .collect();
            for (mut row, before) in rows {
                take_out(&basis[known..], &mut row);
                let after = length(&row);
                if after > INDEPENDENT * before {
                    for x in &mut row {
                        *x /= after;
                    }
                    basis.push(row);
                }
            }
        }
        if basis.len() >= width {
            return Ok(None);
        }
        let shape = (basis.len(), width);
        let values: Vec<f32> = basis.into_iter().flatten().map(|x| x as f32).collect();
        Ok(Some(Self {
            basis: Tensor::from_vec(values, shape, projection.device())?,
        }))
    }

    /// Pooled rows `[n, width]` without their part in the row space.
    pub(crate) fn of(&self, pooled: &Tensor) -> Result<Tensor> {
        // A second pass takes out what f32 rounding left of the row space.
        let once = (pooled - pooled.matmul(&self.basis.t()?)?.matmul(&self.basis)?)?;
        &once - once.matmul(&self.basis.t()?)?.matmul(&self.basis)?
    }
}

/// Takes the part in the span of orthonormal rows out of a row.
fn take_out(basis: &[Vec<f64>], row: &mut [f64]) {
    wide(
        #[inline(always)]
        || {
            // Twice is enough (Giraud et al. 2005): the first pass leaves rounding behind.
            for _ in 0..2 {
                for known in basis {
                    let along = dot(known, row);
                    row.iter_mut().zip(known).for_each(|(x, k)| *x -= along * k);
                }
            }
        },
    );
}

// Into the loop above, whose registers it is to use.
#[allow(clippy::inline_always)]
#[inline(always)]
fn dot(a: &[f64], b: &[f64]) -> f64 {
    // Independent sums let the compiler use vector registers.
    let mut sums = [0.0; 8];
    let (a8, a_rest) = a.as_chunks::<8>();
    let (b8, b_rest) = b.as_chunks::<8>();
    for (a, b) in a8.iter().zip(b8) {
        for i in 0..8 {
            sums[i] += a[i] * b[i];
        }
    }
    let rest: f64 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f64>() + rest
}

fn length(row: &[f64]) -> f64 {
    dot(row, row).sqrt()
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    fn rows(n: usize, width: usize, step: f32) -> Tensor {
        let values: Vec<f32> = (0..n * width)
            .map(|i| ((i * i) as f32 * step).sin())
            .collect();
        Tensor::from_vec(values, (n, width), &Device::Cpu).expect("shape fits")
    }

    #[test]
    fn the_complement_is_orthogonal_to_the_projection_and_keeps_the_rest() -> Result<()> {
        let (projection, pooled) = (rows(5, 13, 0.3), rows(4, 13, 0.7));
        let complement = Complement::new(&projection)?.expect("8 directions are left");
        let rest = complement.of(&pooled)?;
        let seen = rest
            .matmul(&projection.t()?)?
            .abs()?
            .max_all()?
            .to_scalar::<f32>()?;
        assert!(seen < 1e-6, "{seen}");
        let again = (complement.of(&rest)? - &rest)?
            .abs()?
            .max_all()?
            .to_scalar::<f32>()?;
        assert!(again < 1e-6, "{again}");
        assert!(rest.abs()?.max_all()?.to_scalar::<f32>()? > 0.1);
        Ok(())
    }

    #[test]
    fn a_projection_of_full_rank_leaves_nothing_and_a_repeated_row_is_counted_once() -> Result<()> {
        assert!(Complement::new(&rows(6, 6, 0.3))?.is_none());
        let twice = Tensor::cat(&[&rows(5, 6, 0.3), &rows(5, 6, 0.3)], 0)?;
        assert!(Complement::new(&twice)?.is_some());
        Ok(())
    }
}
