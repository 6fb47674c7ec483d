//! Maps averaged over a grid.

use candle_core::{Device, Result, Tensor};

/// Means over the cells of a grid, `[n, grid, grid, channels]`, of maps `[n, side, side, channels]`. Where the side is no
/// multiple of the grid, cells share a row or column.
pub(super) fn on_grid(maps: &Tensor, grid: usize) -> Result<Tensor> {
    let (n, side, _, channels) = maps.dims4()?;
    let rows = means(side, grid, maps.device())?;
    let x = maps.reshape((n, side, side * channels))?;
    let x = rows.broadcast_matmul(&x)?;
    let x = x.reshape((n * grid, side, channels))?;
    rows.broadcast_matmul(&x)?
        .reshape((n, grid, grid, channels))
}

/// `[grid, side]`: which part of each place belongs to the mean of a cell.
fn means(side: usize, grid: usize, device: &Device) -> Result<Tensor> {
    let mut weights = vec![0.0_f32; grid * side];
    for (cell, row) in weights.chunks_exact_mut(side).enumerate() {
        let (start, end) = (cell * side / grid, ((cell + 1) * side).div_ceil(grid));
        row[start..end].fill(1.0 / (end - start) as f32);
    }
    Tensor::from_vec(weights, (grid, side), device)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_of_a_grid_have_the_means_of_what_they_cover() {
        // Two pictures of 5 x 5 and 2 channels; a grid of 2 shares the middle row and column.
        let values: Vec<f32> = (0..2 * 5 * 5 * 2).map(|i| (i * i % 97) as f32).collect();
        let maps = Tensor::from_slice(&values, (2, 5, 5, 2), &Device::Cpu).expect("fits");
        let cells = on_grid(&maps, 2).and_then(|cells| cells.flatten_all()?.to_vec1::<f32>());
        let mut expected = Vec::new();
        for picture in 0..2 {
            for (top, left) in [(0_usize, 0_usize), (0, 2), (2, 0), (2, 2)] {
                for channel in 0..2 {
                    let places = (0..9).map(|i| (top + i / 3, left + i % 3));
                    let value = |(y, x)| values[((picture * 5 + y) * 5 + x) * 2 + channel];
                    expected.push(places.map(value).sum::<f32>() / 9.0);
                }
            }
        }
        let cells = cells.expect("computes");
        assert_eq!(cells.len(), expected.len());
        for (cell, expected) in cells.iter().zip(&expected) {
            assert!((cell - expected).abs() < 1e-4, "{cell}, not {expected}");
        }
        let same = on_grid(&maps, 5).and_then(|cells| cells.flatten_all()?.to_vec1::<f32>());
        assert_eq!(same.expect("computes"), values);
    }
}
