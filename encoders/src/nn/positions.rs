//! Position embeddings for grids that they were not learned for, as torch's `interpolate` makes
//! them (`align_corners=False`).

use candle_core::{Device, Result, Tensor};

/// How learned positions are brought to another grid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Resampling {
    /// Keys' cubic with a = -0.75 over four neighbors, whatever the scale.
    Bicubic,
    /// A triangle that widens when shrinking.
    BilinearAntialiased,
}

/// Positions `[from * from, width]` of a square grid as `[rows * columns, width]` of another.
pub(super) fn resized(
    positions: &Tensor,
    from: usize,
    (rows, columns): (usize, usize),
    resampling: Resampling,
) -> Result<Tensor> {
    let (_, width) = positions.dims2()?;
    let device = positions.device();
    // The filter is separable: first the rows of the grid, then its columns.
    let tall = weights(from, rows, resampling, device)?
        .matmul(&positions.reshape((from, from * width))?)?
        .reshape((rows, from, width))?
        .transpose(0, 1)?
        .reshape((from, rows * width))?;
    weights(from, columns, resampling, device)?
        .matmul(&tall)?
        .reshape((columns, rows, width))?
        .transpose(0, 1)?
        .reshape((rows * columns, width))
}

/// What each of `to` outputs takes of `from` inputs, `[to, from]`.
fn weights(from: usize, to: usize, resampling: Resampling, device: &Device) -> Result<Tensor> {
    let scale = from as f64 / to as f64;
    let mut matrix = vec![0.0_f32; to * from];
    for (i, row) in matrix.chunks_exact_mut(from).enumerate() {
        let center = (i as f64 + 0.5) * scale;
        match resampling {
            Resampling::Bicubic => {
                let first = (center - 0.5).floor();
                for tap in -1_i64..=2 {
                    let at = first as i64 + tap;
                    let weight = cubic((center - 0.5 - at as f64).abs());
                    // Beyond the border the outermost sample counts again.
                    row[at.clamp(0, from as i64 - 1) as usize] += weight as f32;
                }
            }
            Resampling::BilinearAntialiased => {
                let support = scale.max(1.0);
                let first = (center - support + 0.5).max(0.0) as usize;
                let end = ((center + support + 0.5) as usize).min(from);
                let triangle =
                    |at: usize| (1.0 - ((at as f64 + 0.5 - center) / support).abs()).max(0.0);
                let sum: f64 = (first..end).map(triangle).sum();
                for (at, weight) in row.iter_mut().enumerate().take(end).skip(first) {
                    *weight = (triangle(at) / sum) as f32;
                }
            }
        }
    }
    Tensor::from_vec(matrix, (to, from), device)
}

/// Keys (1981), equation 4, with torch's a = -0.75.
fn cubic(x: f64) -> f64 {
    const A: f64 = -0.75;
    if x <= 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        ((A * x - 5.0 * A) * x + 8.0 * A) * x - 4.0 * A
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: [Resampling; 2] = [Resampling::Bicubic, Resampling::BilinearAntialiased];

    #[test]
    fn every_output_is_a_weighted_mean() -> Result<()> {
        for resampling in BOTH {
            for (from, to) in [(1, 5), (4, 4), (5, 3), (3, 11), (16, 1)] {
                let sums = weights(from, to, resampling, &Device::Cpu)?.sum(1)?;
                for sum in sums.to_vec1::<f32>()? {
                    assert!((sum - 1.0).abs() < 1e-6, "{resampling:?} {from} to {to}");
                }
            }
        }
        Ok(())
    }

    #[test]
    fn the_same_grid_keeps_its_positions() -> Result<()> {
        let values: Vec<f32> = (0..18).map(|i| (i as f32).sin()).collect();
        let positions = Tensor::from_vec(values, (9, 2), &Device::Cpu)?;
        for resampling in BOTH {
            let same = resized(&positions, 3, (3, 3), resampling)?;
            let worst = (same - &positions)?.abs()?.max_all()?.to_scalar::<f32>()?;
            assert!(worst < 1e-6, "{resampling:?}: {worst}");
        }
        Ok(())
    }

    #[test]
    fn rows_and_columns_are_not_mixed_up() -> Result<()> {
        // The position of row y and column x is (y, x).
        let values = (0..16).flat_map(|i| [(i / 4) as f32, (i % 4) as f32]);
        let positions = Tensor::from_vec(values.collect(), (16, 2), &Device::Cpu)?;
        for resampling in BOTH {
            let wide = resized(&positions, 4, (2, 4), resampling)?.to_vec2::<f32>()?;
            for (i, row) in wide.iter().enumerate() {
                assert!((row[1] - (i % 4) as f32).abs() < 1e-6, "{resampling:?} {i}");
                assert!(row[0] < 1.5 || i >= 4, "{resampling:?} {i}: {}", row[0]);
            }
        }
        Ok(())
    }
}
