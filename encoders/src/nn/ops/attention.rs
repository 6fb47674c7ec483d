//! Attention that is trained (Vaswani et al. 2017, equation 1), without its maps in memory: the backward
//! pass makes them again. Sequences are short here, so that plain loops do.

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor, bail};
use kernels::Level;
use rayon::prelude::*;

use super::{elements, with_elements};
use crate::cpu::wide;

/// What queries `[n, a, width]` find in keys and values `[n, t, width]`: `[n, a, width]`, in `heads`
/// heads; `mask` `[a, t]` is added to the logits. On the CPU.
///
/// # Errors
/// When shapes do not fit each other.
pub fn attention([q, k, v]: [&Tensor; 3], heads: usize, mask: Option<&Tensor>) -> Result<Tensor> {
    let mask = mask.map(|mask| mask.flatten_all()?.to_vec1()).transpose()?;
    let op = Attention { heads, mask };
    q.contiguous()?
        .apply_op3(&k.contiguous()?, &v.contiguous()?, op)
}

struct Attention {
    heads: usize,
    mask: Option<Vec<f32>>,
}

/// All sizes of one call.
#[derive(Clone, Copy)]
struct Sizes {
    n: usize,
    a: usize,
    t: usize,
    width: usize,
    size: usize,
}

impl Attention {
    fn sizes(
        &self,
        (n, a, width): (usize, usize, usize),
        keys: (usize, usize, usize),
        values: (usize, usize, usize),
    ) -> Result<Sizes> {
        let (of, t, key_width) = keys;
        let mask_fits = self.mask.as_ref().is_none_or(|mask| mask.len() == a * t);
        let divides = self.heads > 0 && width.is_multiple_of(self.heads);
        if (of, key_width) != (n, width) || values != keys || !mask_fits || !divides {
            bail!(
                "queries {:?}, keys {keys:?}, values {values:?} and their mask do not fit each other \
                 in {} heads",
                (n, a, width),
                self.heads
            );
        }
        let size = width / self.heads;
        Ok(Sizes {
            n,
            a,
            t,
            width,
            size,
        })
    }

    /// Weights `[a, t]` of one sequence in the head that begins at `start`.
    fn weights(&self, s: &Sizes, start: usize, [q, k]: [&[f32]; 2], weights: &mut [f32]) {
        let (scale, level) = ((s.size as f32).powf(-0.5), Level::best());
        for (i, row) in weights.chunks_exact_mut(s.t).enumerate() {
            let query = &q[i * s.width + start..][..s.size];
            for (j, weight) in row.iter_mut().enumerate() {
                let masked = self.mask.as_ref().map_or(0.0, |mask| mask[i * s.t + j]);
                let key = &k[j * s.width + start..][..s.size];
                *weight = if masked == f32::NEG_INFINITY {
                    masked
                } else {
                    dot(query, key) * scale + masked
                };
            }
            // Exponentials of the level are those of the nearest number they know: what diverges has to be seen.
            if row.iter().any(|x| x.is_nan() || *x == f32::INFINITY) {
                row.fill(f32::NAN);
                continue;
            }
            let inverse = level.softmax(row);
            for (j, weight) in row.iter_mut().enumerate() {
                let mask = self.mask.as_ref().map(|mask| mask[i * s.t + j]);
                // The exponential of the least of logits is small and not zero.
                *weight = if mask == Some(f32::NEG_INFINITY) {
                    0.0
                } else {
                    *weight * inverse
                };
            }
        }
    }
}

/// The sum of products, in eight lanes.
#[inline]
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0_f32; 8];
    let (a_lanes, b_lanes) = (a.chunks_exact(8), b.chunks_exact(8));
    let rest = a_lanes.remainder().iter().zip(b_lanes.remainder());
    let rest: f32 = rest.map(|(a, b)| a * b).sum();
    for (a, b) in a_lanes.zip(b_lanes) {
        for i in 0..8 {
            sums[i] += a[i] * b[i];
        }
    }
    sums.iter().sum::<f32>() + rest
}

/// `to += factor * from`.
#[inline]
fn add(to: &mut [f32], factor: f32, from: &[f32]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to += factor * from;
    }
}

impl CustomOp3 for Attention {
    fn name(&self) -> &'static str {
        "attention"
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
        let s = self.sizes(
            l1.shape().dims3()?,
            l2.shape().dims3()?,
            l3.shape().dims3()?,
        )?;
        let (q, k, v) = (elements(s1, l1)?, elements(s2, l2)?, elements(s3, l3)?);
        let mut out = vec![0.0; s.n * s.a * s.width];
        out.par_chunks_mut((s.a * s.width).max(1))
            .enumerate()
            .for_each_init(
                || vec![0.0; s.a * s.t],
                |weights, (at, out)| {
                    let q = &q[at * s.a * s.width..][..s.a * s.width];
                    let keys = at * s.t * s.width..(at + 1) * s.t * s.width;
                    let (k, v) = (&k[keys.clone()], &v[keys]);
                    wide(
                        #[inline(always)]
                        || {
                            for start in (0..s.width).step_by(s.size) {
                                self.weights(&s, start, [q, k], weights);
                                for (i, row) in weights.chunks_exact(s.t).enumerate() {
                                    let out = &mut out[i * s.width + start..][..s.size];
                                    for (j, weight) in row.iter().enumerate() {
                                        add(out, *weight, &v[j * s.width + start..][..s.size]);
                                    }
                                }
                            }
                        },
                    );
                },
            );
        Ok((CpuStorage::F32(out), (s.n, s.a, s.width).into()))
    }

    fn bwd(
        &self,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        _res: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let s = self.sizes(q.dims3()?, k.dims3()?, v.dims3()?)?;
        let [dq, dk, dv] = with_elements(q, |q| {
            with_elements(k, |k| {
                with_elements(v, |v| {
                    with_elements(grad, |grad| self.backward(&s, [q, k, v], grad))
                })
            })
        })????;
        let of = |values: Vec<f32>, like: &Tensor| {
            Tensor::from_vec(values, like.shape(), like.device()).map(Some)
        };
        Ok((of(dq, q)?, of(dk, k)?, of(dv, v)?))
    }
}

impl Attention {
    fn backward(&self, s: &Sizes, [q, k, v]: [&[f32]; 3], grad: &[f32]) -> [Vec<f32>; 3] {
        let scale = (s.size as f32).powf(-0.5);
        let (rows, columns) = (s.a * s.width, s.t * s.width);
        let mut dq = vec![0.0; q.len()];
        let (mut dk, mut dv) = (vec![0.0; k.len()], vec![0.0; v.len()]);
        dq.par_chunks_mut(rows.max(1))
            .zip(dk.par_chunks_mut(columns.max(1)))
            .zip(dv.par_chunks_mut(columns.max(1)))
            .enumerate()
            .for_each_init(
                || (vec![0.0; s.a * s.t], vec![0.0; s.t]),
                |(weights, slopes), (at, ((dq, dk), dv))| {
                    let (q, grad) = (&q[at * rows..][..rows], &grad[at * rows..][..rows]);
                    let (k, v) = (&k[at * columns..][..columns], &v[at * columns..][..columns]);
                    wide(
                        #[inline(always)]
                        || {
                            for start in (0..s.width).step_by(s.size) {
                                self.weights(s, start, [q, k], weights);
                                let part = |row: usize| {
                                    row * s.width + start..row * s.width + start + s.size
                                };
                                for (i, row) in weights.chunks_exact(s.t).enumerate() {
                                    let grad = &grad[part(i)];
                                    // Of a weight; then of its logit, by the softmax.
                                    let mut mean = 0.0;
                                    for (j, (weight, slope)) in
                                        row.iter().zip(&mut *slopes).enumerate()
                                    {
                                        *slope = dot(grad, &v[part(j)]);
                                        mean += weight * *slope;
                                        add(&mut dv[part(j)], *weight, grad);
                                    }
                                    for (j, (weight, slope)) in row.iter().zip(&*slopes).enumerate()
                                    {
                                        let slope = weight * (slope - mean) * scale;
                                        add(&mut dq[part(i)], slope, &k[part(j)]);
                                        add(&mut dk[part(j)], slope, &q[part(i)]);
                                    }
                                }
                            }
                        },
                    );
                },
            );
        [dq, dk, dv]
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{D, Device, Var};

    use super::*;

    fn wave(shape: (usize, usize, usize), step: f32) -> Var {
        let count = shape.0 * shape.1 * shape.2;
        let values: Vec<f32> = (0..count).map(|i| 2.0 * (i as f32 * step).sin()).collect();
        Var::from_vec(values, shape, &Device::Cpu).expect("shape fits")
    }

    #[test]
    fn values_and_gradients_equal_plain_operations() -> Result<()> {
        let (n, width, heads) = (3, 22, 2);
        for (a, t, causal) in [(5, 5, true), (5, 5, false), (1, 4, false), (1, 1, true)] {
            let (q, k) = (wave((n, a, width), 0.37), wave((n, t, width), 0.23));
            let v = wave((n, t, width), 0.71);
            let cell = |i: usize| {
                if causal && i % t > i / t {
                    f32::NEG_INFINITY
                } else {
                    0.0
                }
            };
            let mask: Vec<f32> = (0..a * t).map(cell).collect();
            let mask = Tensor::from_vec(mask, (a, t), &Device::Cpu)?;
            let ours = attention([&q, &k, &v], heads, causal.then_some(&mask))?;
            let size = width / heads;
            let split = |x: &Var| {
                x.reshape((n, x.dim(1)?, heads, size))?
                    .transpose(1, 2)?
                    .contiguous()
            };
            let logits = (split(&q)? * (size as f64).powf(-0.5))?.matmul(&split(&k)?.t()?)?;
            let weights = candle_nn::ops::softmax(&logits.broadcast_add(&mask)?, D::Minus1)?;
            let theirs = weights.matmul(&split(&v)?)?.transpose(1, 2)?;
            let theirs = theirs.reshape((n, a, width))?;
            let seen = |x: &Tensor| (x * wave((n, a, width), 0.11).as_tensor())?.sum_all();
            let (x, y) = (seen(&ours)?.backward()?, seen(&theirs)?.backward()?);
            let gap = |a: &Tensor, b: &Tensor| (a - b)?.abs()?.max_all()?.to_scalar::<f32>();
            assert!(gap(&ours, &theirs)? < 1e-5);
            for (name, var) in [("q", &q), ("k", &k), ("v", &v)] {
                let (x, y) = (x.get(var).expect("a gradient"), y.get(var).expect("one"));
                assert!(gap(x, y)? < 1e-5, "{name}, {a} of {t}: {x} {y}");
            }
        }
        Ok(())
    }

    #[test]
    fn what_diverges_is_no_number() -> Result<()> {
        let k = wave((1, 3, 4), 0.1);
        for bad in [f32::NAN, f32::INFINITY] {
            let q = Tensor::full(bad, (1, 3, 4), &Device::Cpu)?;
            let out = attention([&q, &k, &k], 2, None)?.flatten_all()?;
            assert!(out.to_vec1::<f32>()?.iter().all(|x| x.is_nan()), "{bad}");
        }
        Ok(())
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let (q, k) = (wave((2, 3, 8), 0.1), wave((2, 4, 8), 0.1));
        assert!(attention([&q, &k, &k], 3, None).is_err(), "heads");
        assert!(attention([&q, &k, &q], 2, None).is_err(), "values");
        let mask = Tensor::zeros((3, 3), candle_core::DType::F32, &Device::Cpu).expect("zeros");
        assert!(attention([&q, &k, &k], 2, Some(&mask)).is_err(), "mask");
        assert!(attention([&q, &k, &k], 2, None).is_ok());
    }
}
