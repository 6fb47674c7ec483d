//! Layer normalisation (Ba, Kiros, Hinton 2016, equation 3) over the last axis.

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::{elements, with_elements};

/// Rows that one task works on.
const ROWS: usize = 64;

/// Normalises each row of `x` `[.., c]`, scales by `gamma` `[c]` and shifts by `beta` `[c]`.
///
/// # Errors
/// When shapes do not fit each other.
pub fn layer_norm(x: &Tensor, gamma: &Tensor, beta: &Tensor, eps: f64) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if x.device().is_cuda() {
        return super::cuda::layer_norm(x, gamma, beta, eps);
    }
    x.contiguous()?.apply_op3(gamma, beta, LayerNorm { eps })
}

struct LayerNorm {
    eps: f64,
}

impl LayerNorm {
    /// Mean and inverse deviation of one row. Sums are f64: parity with the reference needs it
    /// more than it costs.
    fn moments(&self, row: &[f32]) -> (f32, f32) {
        let count = row.len() as f64;
        let mean = row.iter().map(|x| f64::from(*x)).sum::<f64>() / count;
        let square = row
            .iter()
            .map(|x| (f64::from(*x) - mean).powi(2))
            .sum::<f64>()
            / count;
        (mean as f32, (1.0 / (square + self.eps).sqrt()) as f32)
    }
}

impl CustomOp3 for LayerNorm {
    fn name(&self) -> &'static str {
        "layer-norm"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
        s3: &CpuStorage,
        l3: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, gamma, beta) = (elements(s1, l1)?, elements(s2, l2)?, elements(s3, l3)?);
        let c = gamma.len();
        if beta.len() != c || l1.dims().last() != Some(&c) {
            candle_core::bail!("layer_norm of {:?} got weights of {c}", l1.shape());
        }
        let mut y = vec![0.0; x.len()];
        y.par_chunks_mut(ROWS * c)
            .zip(x.par_chunks(ROWS * c))
            .for_each(|(y, x)| {
                for (y, x) in y.chunks_exact_mut(c).zip(x.chunks_exact(c)) {
                    let (mean, inverse) = self.moments(x);
                    for (((y, x), g), b) in y.iter_mut().zip(x).zip(gamma).zip(beta) {
                        *y = (x - mean) * inverse * g + b;
                    }
                }
            });
        Ok((CpuStorage::F32(y), l1.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        gamma: &Tensor,
        _beta: &Tensor,
        _res: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let gamma_values = gamma.to_vec1::<f32>()?;
        let c = gamma_values.len();
        let (dx, sums) = with_elements(x, |x| {
            with_elements(grad, |grad| {
                let mut dx = vec![0.0; x.len()];
                let sums: Vec<Vec<f32>> = dx
                    .par_chunks_mut(ROWS * c)
                    .zip(x.par_chunks(ROWS * c))
                    .zip(grad.par_chunks(ROWS * c))
                    .map(|((dx, x), g)| self.backward_rows(dx, x, g, &gamma_values))
                    .collect();
                let mut total = vec![0.0; 2 * c];
                for sum in sums {
                    for (t, s) in total.iter_mut().zip(sum) {
                        *t += s;
                    }
                }
                (dx, total)
            })
        })??;
        let device = x.device();
        Ok((
            Some(Tensor::from_vec(dx, x.shape(), device)?),
            Some(Tensor::from_slice(&sums[..c], c, device)?),
            Some(Tensor::from_slice(&sums[c..], c, device)?),
        ))
    }
}

impl LayerNorm {
    /// Fills `dx` for some rows and returns the sums for gamma and beta, `[2, c]`.
    fn backward_rows(&self, dx: &mut [f32], x: &[f32], grad: &[f32], gamma: &[f32]) -> Vec<f32> {
        let c = gamma.len();
        let mut sums = vec![0.0; 2 * c];
        let (gamma_sum, beta_sum) = sums.split_at_mut(c);
        for ((dx, x), g) in dx
            .chunks_exact_mut(c)
            .zip(x.chunks_exact(c))
            .zip(grad.chunks_exact(c))
        {
            let (mean, inverse) = self.moments(x);
            let (mut mean_g, mut mean_gx) = (0.0, 0.0);
            for j in 0..c {
                let normal = (x[j] - mean) * inverse;
                gamma_sum[j] += g[j] * normal;
                beta_sum[j] += g[j];
                mean_g += g[j] * gamma[j];
                mean_gx += g[j] * gamma[j] * normal;
            }
            mean_g /= c as f32;
            mean_gx /= c as f32;
            for j in 0..c {
                let normal = (x[j] - mean) * inverse;
                dx[j] = inverse * (g[j] * gamma[j] - mean_g - normal * mean_gx);
            }
        }
        sums
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;

    #[test]
    fn values_and_gradients_equal_the_formula_in_plain_operations() -> Result<()> {
        let device = Device::Cpu;
        let (rows, c) = (2 * ROWS + 3, 5);
        let wave = |step: f32| {
            (0..rows * c)
                .map(|i| (i as f32 * step).sin() * 3.0 + 1.0)
                .collect()
        };
        let x = Var::from_vec(wave(0.7), (rows, c), &device)?;
        let weights = Tensor::from_vec(wave(0.31), (rows, c), &device)?;
        let gamma = Var::new(&[1.5_f32, -0.5, 2.0, 1.0, 0.7], &device)?;
        let beta = Var::new(&[0.1_f32, 0.2, -0.3, 0.0, 1.0], &device)?;
        let ours = layer_norm(&x, &gamma, &beta, 1e-5)?;
        let centered = x.broadcast_sub(&x.mean_keepdim(1)?)?;
        let variance = centered.sqr()?.mean_keepdim(1)?;
        let normal = centered.broadcast_div(&(variance + 1e-5)?.sqrt()?)?;
        let theirs = normal.broadcast_mul(&gamma)?.broadcast_add(&beta)?;
        let gap = |a: &Tensor, b: &Tensor| (a - b)?.abs()?.max_all()?.to_scalar::<f32>();
        assert!(gap(&ours, &theirs)? < 1e-5);
        let a = (&ours * &weights)?.sum_all()?.backward()?;
        let b = (&theirs * &weights)?.sum_all()?.backward()?;
        for var in [&x, &gamma, &beta] {
            let (a, b) = (
                a.get(var).expect("a gradient"),
                b.get(var).expect("a gradient"),
            );
            let scale = b.abs()?.max_all()?.to_scalar::<f32>()?.max(1.0);
            assert!(gap(a, b)? < 1e-4 * scale);
        }
        Ok(())
    }
}
