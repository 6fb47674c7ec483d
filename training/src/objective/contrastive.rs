//! The contrastive loss of two towers.

use candle_core::{D, Result, Tensor};
use candle_nn::ops::log_softmax;
use encoders::nn::unit_rows;

/// Largest factor from cosines to logits (Radford et al. 2021, section 2.5).
pub const MAX_LOGIT_SCALE: f64 = 100.0;

/// Symmetric `InfoNCE` (van den Oord et al. 2018, equation 4; both directions as in Radford et al.
/// 2021, figure 3) with several positives per row (Khosla et al. 2020, equation 2).
///
/// `images` and `texts` are `[n, dim]`, of any length; `log_scale` is a scalar; `positives` is
/// `[n, n]`, 1 where the text (column) is true of the image (row). The result is a scalar in nats.
///
/// # Errors
/// When shapes do not fit each other.
pub fn info_nce(
    images: &Tensor,
    texts: &Tensor,
    log_scale: &Tensor,
    positives: &Tensor,
) -> Result<Tensor> {
    both_ways(&logits(images, texts, log_scale)?, positives)
}

/// Cosines `[n, m]` of images `[n, dim]` and texts `[m, dim]`, of any length, times the exponential of
/// the scalar `log_scale`, which counts up to [`MAX_LOGIT_SCALE`].
///
/// # Errors
/// When shapes do not fit each other.
pub fn logits(images: &Tensor, texts: &Tensor, log_scale: &Tensor) -> Result<Tensor> {
    let cosines = unit_rows(images)?.matmul(&unit_rows(texts)?.t()?)?;
    let scale = log_scale.minimum(MAX_LOGIT_SCALE.ln())?.exp()?;
    cosines.broadcast_mul(&scale)
}

/// Mean of [`contrast`] of rows with columns and of columns with rows.
pub(super) fn both_ways(logits: &Tensor, positives: &Tensor) -> Result<Tensor> {
    let by_row = contrast(logits, positives)?;
    let by_column = contrast(&logits.t()?.contiguous()?, &positives.t()?.contiguous()?)?;
    (by_row + by_column)? * 0.5
}

/// One direction of the contrastive loss: the mean over rows of the cross-entropy with the
/// positives of the row, which share its mass.
///
/// `logits` and `positives` are `[n, m]`, `positives` 1 where the column is true of the row; every
/// row needs one. The result is a scalar in nats.
///
/// # Errors
/// When shapes do not fit each other.
pub fn contrast(logits: &Tensor, positives: &Tensor) -> Result<Tensor> {
    let targets = positives.broadcast_div(&positives.sum_keepdim(1)?)?;
    let log_probabilities = log_softmax(logits, D::Minus1)?;
    (targets * log_probabilities)?.sum(1)?.mean_all()?.neg()
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;

    fn rows(n: usize, dim: usize, step: f32) -> Tensor {
        let values: Vec<f32> = (0..n * dim).map(|i| (i as f32 * step).sin()).collect();
        Tensor::from_vec(values, (n, dim), &Device::Cpu).expect("shape fits")
    }

    #[test]
    fn the_loss_of_equal_embeddings_is_the_logarithm_of_the_batch() -> Result<()> {
        let ones = Tensor::ones((8, 4), candle_core::DType::F32, &Device::Cpu)?;
        let positives = Tensor::eye(8, candle_core::DType::F32, &Device::Cpu)?;
        let scale = Tensor::new(2.0_f32, &Device::Cpu)?;
        let loss = info_nce(&ones, &ones, &scale, &positives)?.to_scalar::<f32>()?;
        assert!((loss - 8.0_f32.ln()).abs() < 1e-5, "{loss}");
        Ok(())
    }

    #[test]
    fn the_loss_equals_the_formula_by_hand_with_several_positives() -> Result<()> {
        let (n, dim) = (4, 3);
        let (images, texts) = (rows(n, dim, 0.7), rows(n, dim, 0.4));
        let p = [
            1., 1., 0., 0., 0., 1., 0., 0., 0., 0., 1., 0., 1., 0., 0., 1.,
        ];
        let positives = Tensor::from_slice(&p.map(|x: f64| x as f32), (n, n), &Device::Cpu)?;
        let log_scale = Tensor::new(1.5_f32, &Device::Cpu)?;
        let loss = info_nce(&images, &texts, &log_scale, &positives)?.to_scalar::<f32>()?;
        let (x, y) = (images.to_vec2::<f32>()?, texts.to_vec2::<f32>()?);
        let cosine = |a: &[f32], b: &[f32]| {
            let dot = |a: &[f32], b: &[f32]| -> f64 {
                a.iter()
                    .zip(b)
                    .map(|(a, b)| f64::from(*a) * f64::from(*b))
                    .sum()
            };
            dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
        };
        let scale = 1.5_f64.exp();
        let mut expected = 0.0;
        for transposed in [false, true] {
            for i in 0..n {
                let at = |j: usize| if transposed { (j, i) } else { (i, j) };
                let logit = |j: usize| scale * cosine(&x[at(j).0], &y[at(j).1]);
                let z: f64 = (0..n).map(|j| logit(j).exp()).sum();
                let weight = |j: usize| p[at(j).0 * n + at(j).1];
                let count: f64 = (0..n).map(weight).sum();
                for j in 0..n {
                    expected -= weight(j) / count * (logit(j) - z.ln()) / (2 * n) as f64;
                }
            }
        }
        assert!(
            (f64::from(loss) - expected).abs() < 1e-5,
            "{loss}, by hand {expected}"
        );
        Ok(())
    }

    #[test]
    fn gradients_equal_finite_differences() -> Result<()> {
        let (n, dim) = (3, 4);
        let start = rows(n, dim, 0.9).to_vec2::<f32>()?.concat();
        let texts = rows(n, dim, 0.35);
        let positives = Tensor::eye(n, candle_core::DType::F32, &Device::Cpu)?;
        let log_scale = Tensor::new(1.0_f32, &Device::Cpu)?;
        let at = |values: Vec<f32>| -> Result<(Var, Tensor)> {
            let images = Var::from_vec(values, (n, dim), &Device::Cpu)?;
            let loss = info_nce(&images, &texts, &log_scale, &positives)?;
            Ok((images, loss))
        };
        let (images, loss) = at(start.clone())?;
        let gradient = loss
            .backward()?
            .get(&images)
            .expect("a gradient")
            .to_vec2::<f32>()?
            .concat();
        for i in 0..start.len() {
            let moved = |by: f32| -> Result<f32> {
                let mut values = start.clone();
                values[i] += by;
                at(values)?.1.to_scalar::<f32>()
            };
            let step = 1e-2;
            let slope = (moved(step)? - moved(-step)?) / (2.0 * step);
            assert!(
                (slope - gradient[i]).abs() < 2e-3,
                "{i}: {slope} against {}",
                gradient[i]
            );
        }
        Ok(())
    }
}
