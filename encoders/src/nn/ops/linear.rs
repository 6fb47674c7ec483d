//! Linear maps that are trained: the products of [`crate::cpu`] and their backward pass.

use candle_core::{CpuStorage, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor, bail};
use kernels::{Level, Precision};
use rayon::prelude::*;

use super::{conv::in_order, elements, factors, with_elements};
use crate::cpu::{
    Packed,
    dense::{Element, Rows, Scratch, Target, filled, outer, product, whole},
};

/// Rows that one task works on.
const ROWS: usize = 256;

/// Into so many parts the rows of a backward pass are split, at most.
const SHARES: usize = 16;

/// `x W^T + b`: `x` `[r, inputs]`, `weight` `[outputs, inputs]`, `bias` `[outputs]`; on the CPU.
///
/// # Errors
/// When shapes do not fit each other.
pub fn linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    map(x, weight, bias, factors())
}

fn map(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, factors: Precision) -> Result<Tensor> {
    let op = Linear { factors };
    let (x, weight) = (x.contiguous()?, weight.contiguous()?);
    match bias {
        Some(bias) => x.apply_op3(&weight, &bias.contiguous()?, op),
        None => x.apply_op2(&weight, op),
    }
}

#[derive(Debug, Clone, Copy)]
struct Linear {
    factors: Precision,
}

impl Linear {
    fn forward(
        self,
        (x, x_layout): (&CpuStorage, &Layout),
        (weight, weight_layout): (&CpuStorage, &Layout),
        bias: Option<&[f32]>,
    ) -> Result<(CpuStorage, Shape)> {
        let (r, inputs) = x_layout.shape().dims2()?;
        let (outputs, expected) = weight_layout.shape().dims2()?;
        if inputs != expected || bias.is_some_and(|bias| bias.len() != outputs) {
            bail!("rows of {inputs} elements do not fit weights {weight_layout:?} and their bias");
        }
        let (x, weight) = (elements(x, x_layout)?, elements(weight, weight_layout)?);
        let out = match self.factors {
            Precision::Bf16 => forward::<u16>(x, (weight, inputs), bias),
            _ => forward::<f32>(x, (weight, inputs), bias),
        };
        Ok((CpuStorage::F32(out), (r, outputs).into()))
    }

    /// Gradients of rows, weights and bias.
    fn backward(self, x: &Tensor, weight: &Tensor, grad: &Tensor) -> Result<[Tensor; 3]> {
        let (outputs, inputs) = weight.dims2()?;
        let backward = match self.factors {
            Precision::Bf16 => backward::<u16>,
            _ => backward::<f32>,
        };
        let (dx, dw, db) = with_elements(x, |x| {
            with_elements(weight, |w| {
                with_elements(grad, |g| backward(x, (w, outputs, inputs), g))
            })
        })???;
        let device = x.device();
        Ok([
            Tensor::from_vec(dx, x.shape(), device)?,
            Tensor::from_vec(dw, weight.shape(), device)?,
            Tensor::from_vec(db, outputs, device)?,
        ])
    }
}

fn forward<E: Element>(
    x: &[f32],
    (weight, inputs): (&[f32], usize),
    bias: Option<&[f32]>,
) -> Vec<f32> {
    let columns = Packed::new(Level::best(), E::PRECISION, (weight, inputs), bias);
    through::<E>(x, &columns)
}

/// Rows through a map.
fn through<E: Element>(x: &[f32], columns: &Packed) -> Vec<f32> {
    let (inputs, outputs) = (columns.inputs(), columns.outputs());
    let n = x.len() / inputs.max(1) * outputs;
    // SAFETY: a product initializes all of its place.
    #[allow(unsafe_code)]
    unsafe {
        filled(n, ROWS * outputs, |i, out| {
            let x = &x[i * ROWS * inputs..x.len().min((i + 1) * ROWS * inputs)];
            let rows = E::rows(x, inputs);
            product(Rows::whole(&rows, inputs), columns, Target::New(out));
        })
    }
}

/// Gradients of rows, weights and bias, in the order of their elements.
fn backward<E: Element>(
    x: &[f32],
    (weight, outputs, inputs): (&[f32], usize, usize),
    grad: &[f32],
) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
    let turned = Packed::turned::<E>(Level::best(), &E::rows(weight, inputs), inputs);
    let dx = through::<E>(grad, &turned);
    let r = grad.len() / outputs.max(1);
    // Summed in order: the result depends neither on timing nor on the number of threads.
    let share = r.div_ceil(SHARES).max(1).next_multiple_of(ROWS);
    let sums: Vec<(Vec<f32>, Vec<f32>)> = grad
        .par_chunks(share * outputs)
        .zip(x.par_chunks(share * inputs))
        .map(|(grad, x)| {
            let (mut dw, mut db) = (vec![0.0; weight.len()], vec![0.0; outputs]);
            let mut scratch = Scratch::default();
            for (grad, x) in grad.chunks(ROWS * outputs).zip(x.chunks(ROWS * inputs)) {
                let (rows, x) = (E::rows(grad, outputs), E::rows(x, inputs));
                let x = whole(&x, inputs);
                outer((&rows, outputs), &x, &mut scratch, (&mut dw, inputs));
                for grad in grad.chunks_exact(outputs) {
                    for (sum, g) in db.iter_mut().zip(grad) {
                        *sum += g;
                    }
                }
            }
            (dw, db)
        })
        .collect();
    let (dw, db) = sums.into_iter().unzip();
    (
        dx,
        or_zeros(in_order(dw), weight.len()),
        or_zeros(in_order(db), outputs),
    )
}

/// Of no rows there is no sum.
fn or_zeros(sum: Vec<f32>, n: usize) -> Vec<f32> {
    if sum.is_empty() { vec![0.0; n] } else { sum }
}

impl CustomOp2 for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.forward((s1, l1), (s2, l2), None)
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        _res: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let [dx, dw, _] = self.backward(x, weight, grad)?;
        Ok((Some(dx), Some(dw)))
    }
}

impl CustomOp3 for Linear {
    fn name(&self) -> &'static str {
        "linear-with-bias"
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
        self.forward((s1, l1), (s2, l2), Some(elements(s3, l3)?))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        _bias: &Tensor,
        _res: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let [dx, dw, db] = self.backward(x, weight, grad)?;
        Ok((Some(dx), Some(dw), Some(db)))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;

    fn wave(shape: (usize, usize), step: f32) -> Tensor {
        let values: Vec<f32> = (0..shape.0 * shape.1)
            .map(|i| (i as f32 * step).sin())
            .collect();
        Tensor::from_vec(values, shape, &Device::Cpu).expect("shape fits")
    }

    #[test]
    fn values_and_gradients_equal_those_of_candles_product() -> Result<()> {
        for (factors, bound) in [(Precision::F32, 1e-6), (Precision::Bf16, 0.005)] {
            for (r, inputs, outputs) in [(1, 1, 1), (3, 7, 5), (37, 33, 50), (700, 20, 31)] {
                let x = Var::from_tensor(&wave((r, inputs), 0.37))?;
                let w = Var::from_tensor(&wave((outputs, inputs), 0.23))?;
                let b = Var::from_tensor(&wave((1, outputs), 0.71).squeeze(0)?)?;
                for with_bias in [true, false] {
                    let bias = with_bias.then_some(b.as_tensor());
                    let ours = map(&x, &w, bias, factors)?;
                    let mut theirs = x.matmul(&w.t()?)?;
                    if with_bias {
                        theirs = theirs.broadcast_add(&b)?;
                    }
                    let seen = |t: &Tensor| (t * wave((r, outputs), 0.11))?.sum_all();
                    let (a, c) = (seen(&ours)?.backward()?, seen(&theirs)?.backward()?);
                    let mut pairs = vec![(ours, theirs)];
                    for var in [Some(&x), Some(&w), with_bias.then_some(&b)] {
                        let Some(var) = var else { continue };
                        let of = |g: &candle_core::backprop::GradStore| {
                            g.get(var).expect("has a gradient").clone()
                        };
                        pairs.push((of(&a), of(&c)));
                    }
                    for (i, (ours, theirs)) in pairs.into_iter().enumerate() {
                        let largest = theirs.abs()?.max_all()?.to_scalar::<f32>()?.max(1.0);
                        let gap = (ours - theirs)?.abs()?.max_all()?.to_scalar::<f32>()?;
                        assert!(
                            gap < bound * largest * (r as f32).sqrt(),
                            "{i}: {gap} at {r} {inputs} {outputs}"
                        );
                    }
                }
            }
        }
        Ok(())
    }

    #[test]
    fn rows_that_do_not_fit_are_refused() {
        let (x, w) = (wave((2, 3), 0.1), wave((4, 5), 0.1));
        assert!(linear(&x, &w, None).is_err());
        let bias = wave((1, 3), 0.1).squeeze(0).expect("one row");
        assert!(linear(&x, &wave((4, 3), 0.1), Some(&bias)).is_err());
    }
}
