//! Small fused activations.

use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::{elements, with_elements};
use crate::cpu::wide;

/// Elements that one task works on.
const CHUNK: usize = 1 << 15;

/// `max(a + b, 0)` for tensors of one shape: the end of a residual block.
///
/// # Errors
/// When shapes differ.
pub fn add_relu(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    if a.shape() != b.shape() {
        candle_core::bail!(
            "add_relu needs equal shapes, got {:?} and {:?}",
            a.shape(),
            b.shape()
        );
    }
    #[cfg(feature = "cuda")]
    if a.device().is_cuda() {
        return super::cuda::add_relu(a, b);
    }
    a.contiguous()?.apply_op2(&b.contiguous()?, AddRelu)
}

struct AddRelu;

impl CustomOp2 for AddRelu {
    fn name(&self) -> &'static str {
        "add-relu"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (a, b) = (elements(s1, l1)?, elements(s2, l2)?);
        let mut y = vec![0.0; a.len()];
        y.par_chunks_mut(CHUNK)
            .zip(a.par_chunks(CHUNK))
            .zip(b.par_chunks(CHUNK))
            .for_each(|((y, a), b)| {
                wide(
                    #[inline(always)]
                    || {
                        for ((y, a), b) in y.iter_mut().zip(a).zip(b) {
                            let sum = a + b;
                            *y = if sum > 0.0 { sum } else { 0.0 };
                        }
                    },
                );
            });
        Ok((CpuStorage::F32(y), l1.shape().clone()))
    }

    fn bwd(
        &self,
        _a: &Tensor,
        _b: &Tensor,
        y: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let dx = masked(y, grad, |y, g| if y > 0.0 { g } else { 0.0 })?;
        Ok((Some(dx.clone()), Some(dx)))
    }
}

/// `x * sigmoid(1.702 x)` (Hendrycks, Gimpel 2016, section 2): CLIP's activation.
///
/// # Errors
/// When `x` is not f32 on the CPU.
pub fn quick_gelu(x: &Tensor) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if x.device().is_cuda() {
        return super::cuda::quick_gelu(x, SLOPE);
    }
    x.contiguous()?.apply_op1(QuickGelu)
}

/// Slope of the sigmoid.
const SLOPE: f32 = 1.702;

struct QuickGelu;

impl CustomOp1 for QuickGelu {
    fn name(&self) -> &'static str {
        "quick-gelu"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = elements(storage, layout)?;
        let mut y = vec![0.0; x.len()];
        y.par_chunks_mut(CHUNK)
            .zip(x.par_chunks(CHUNK))
            .for_each(|(y, x)| {
                for (y, x) in y.iter_mut().zip(x) {
                    *y = x / (1.0 + (-SLOPE * x).exp());
                }
            });
        Ok((CpuStorage::F32(y), layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, _res: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let dx = masked(x, grad, |x, g| {
            let s = 1.0 / (1.0 + (-SLOPE * x).exp());
            g * s * (1.0 + SLOPE * x * (1.0 - s))
        })?;
        Ok(Some(dx))
    }
}

/// `f(value, gradient)` for each element.
fn masked(values: &Tensor, grad: &Tensor, f: impl Fn(f32, f32) -> f32 + Sync) -> Result<Tensor> {
    let dx = with_elements(values, |v| {
        with_elements(grad, |g| {
            let mut dx = vec![0.0; v.len()];
            dx.par_chunks_mut(CHUNK)
                .zip(v.par_chunks(CHUNK))
                .zip(g.par_chunks(CHUNK))
                .for_each(|((dx, v), g)| {
                    wide(
                        #[inline(always)]
                        || {
                            for ((dx, v), g) in dx.iter_mut().zip(v).zip(g) {
                                *dx = f(*v, *g);
                            }
                        },
                    );
                });
            dx
        })
    })??;
    Tensor::from_vec(dx, values.shape(), values.device())
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;

    #[test]
    fn values_and_gradients_equal_plain_operations() -> Result<()> {
        let device = Device::Cpu;
        let wave = |step: f32| (0..40_000).map(|i| (i as f32 * step).sin() * 4.0).collect();
        let x = Var::from_vec(wave(0.7), 40_000, &device)?;
        let z = Var::from_vec(wave(0.3), 40_000, &device)?;
        let sigmoid = ((x.as_tensor() * -1.702)?.exp()? + 1.0)?.recip()?;
        for (name, ours, theirs) in [
            ("quick_gelu", quick_gelu(&x)?, (x.as_tensor() * &sigmoid)?),
            (
                "add_relu",
                add_relu(&x, &z)?,
                (x.as_tensor() + z.as_tensor())?.relu()?,
            ),
        ] {
            let gap = |a: &Tensor, b: &Tensor| (a - b)?.abs()?.max_all()?.to_scalar::<f32>();
            assert!(gap(&ours, &theirs)? < 1e-5, "{name}");
            let (a, b) = (
                (&ours * z.as_tensor())?.sum_all()?.backward()?,
                (&theirs * z.as_tensor())?.sum_all()?.backward()?,
            );
            for var in [&x, &z] {
                let (a, b) = (
                    a.get(var).expect("a gradient"),
                    b.get(var).expect("a gradient"),
                );
                assert!(gap(a, b)? < 1e-4, "{name}");
            }
        }
        Ok(())
    }
}
