//! The same functions out of candle's own operations, for devices other than the CPU: every one of
//! them runs wherever candle does and has a backward pass.

use candle_core::{Result, Tensor, bail};

use super::{BatchStatistics, ConvShape};

/// See [`super::conv2d`]: shifted pictures side by side, and one matrix product.
pub(super) fn conv2d(input: &Tensor, weight: &Tensor, shape: ConvShape) -> Result<Tensor> {
    let ConvShape { kernel, stride } = shape;
    let (n, h, w, c) = input.dims4()?;
    let (out, kh, kw, wc) = weight.dims4()?;
    if (kh, kw, wc) != (kernel, kernel, c) || kernel % 2 == 0 || stride == 0 {
        bail!(
            "weight {:?} does not fit kernel {kernel}, stride {stride}, {c} channels",
            weight.shape()
        );
    }
    let (out_h, out_w) = (h.div_ceil(stride), w.div_ceil(stride));
    let patches = if (kernel, stride) == (1, 1) {
        input.reshape((n * h * w, c))?
    } else {
        let pad = kernel / 2;
        // Every shift is then `out * stride` long, whatever the stride leaves over.
        let behind = |size: usize, out: usize| kernel - 1 + out * stride - pad - size;
        let padded = input
            .pad_with_zeros(1, pad, behind(h, out_h))?
            .pad_with_zeros(2, pad, behind(w, out_w))?;
        let mut shifted = Vec::with_capacity(kernel * kernel);
        for ky in 0..kernel {
            let rows = strided(&padded.narrow(1, ky, out_h * stride)?, 1, stride)?;
            for kx in 0..kernel {
                shifted.push(strided(&rows.narrow(2, kx, out_w * stride)?, 2, stride)?);
            }
        }
        Tensor::cat(&shifted, 3)?.reshape((n * out_h * out_w, kernel * kernel * c))?
    };
    patches
        .matmul(&weight.reshape((out, kernel * kernel * c))?.t()?)?
        .reshape((n, out_h, out_w, out))
}

/// Every `stride`-th slice along an axis whose length is a multiple of it.
fn strided(x: &Tensor, axis: usize, stride: usize) -> Result<Tensor> {
    if stride == 1 {
        return Ok(x.clone());
    }
    let mut shape = x.dims().to_vec();
    shape[axis] /= stride;
    shape.insert(axis + 1, stride);
    x.contiguous()?
        .reshape(shape)?
        .narrow(axis + 1, 0, 1)?
        .squeeze(axis + 1)
}

/// See [`super::batch_norm`].
pub(super) fn batch_norm(
    x: &Tensor,
    gamma: &Tensor,
    beta: &Tensor,
    eps: f64,
    relu: bool,
) -> Result<(Tensor, BatchStatistics)> {
    let c = gamma.elem_count();
    let rows = x.reshape(((), c))?;
    let mean = rows.mean_keepdim(0)?;
    let centered = rows.broadcast_sub(&mean)?;
    let variance = centered.sqr()?.mean_keepdim(0)?;
    let scale = (gamma.reshape((1, c))? / (&variance + eps)?.sqrt()?)?;
    let y = centered
        .broadcast_mul(&scale)?
        .broadcast_add(beta)?
        .reshape(x.shape())?;
    let statistics = BatchStatistics {
        mean: mean.detach().flatten_all()?,
        variance: variance.detach().flatten_all()?,
        count: rows.dim(0)?,
    };
    Ok((if relu { y.relu()? } else { y }, statistics))
}

/// See [`super::layer_norm`].
pub(super) fn layer_norm(x: &Tensor, gamma: &Tensor, beta: &Tensor, eps: f64) -> Result<Tensor> {
    let last = x.rank() - 1;
    let centered = x.broadcast_sub(&x.mean_keepdim(last)?)?;
    let variance = centered.sqr()?.mean_keepdim(last)?;
    centered
        .broadcast_div(&(variance + eps)?.sqrt()?)?
        .broadcast_mul(gamma)?
        .broadcast_add(beta)
}

/// See [`super::add_relu`].
pub(super) fn add_relu(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    (a + b)?.relu()
}

/// See [`super::quick_gelu`].
pub(super) fn quick_gelu(x: &Tensor, slope: f64) -> Result<Tensor> {
    x / ((x * -slope)?.exp()? + 1.0)?
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::super as kernels;
    use super::*;

    fn wave(shape: &[usize], step: f32) -> Tensor {
        let count = shape.iter().product::<usize>();
        let values: Vec<f32> = (0..count).map(|i| (i as f32 * step).sin() * 2.0).collect();
        Tensor::from_vec(values, shape, &Device::Cpu).expect("shape fits")
    }

    /// Values and gradients of two versions of a function of `vars` equal each other.
    fn compare(name: &str, vars: &[&Var], pair: [Tensor; 2]) -> Result<()> {
        let [ours, theirs] = pair;
        assert_eq!(ours.shape(), theirs.shape(), "{name}");
        let gap = |a: &Tensor, b: &Tensor| (a - b)?.abs()?.max_all()?.to_scalar::<f32>();
        assert!(gap(&ours, &theirs)? < 1e-4, "{name}");
        let seen = |t: &Tensor| (t * wave(t.dims(), 0.11)).and_then(|t| t.sum_all());
        let (a, b) = (seen(&ours)?.backward()?, seen(&theirs)?.backward()?);
        for var in vars {
            let (a, b) = (a.get(var).expect("one"), b.get(var).expect("one"));
            let scale = b.abs()?.max_all()?.to_scalar::<f32>()?.max(1.0);
            assert!(gap(a, b)? < 1e-3 * scale, "gradient of {name}");
        }
        Ok(())
    }

    #[test]
    fn values_and_gradients_equal_those_of_the_kernels() -> Result<()> {
        for (kernel, stride, h, w, c, out) in [
            (3, 1, 5, 4, 3, 2),
            (3, 2, 7, 5, 2, 4),
            (3, 2, 6, 8, 2, 4),
            (1, 1, 3, 3, 5, 2),
            (1, 2, 5, 8, 3, 3),
            (3, 2, 1, 1, 2, 2),
        ] {
            let x = Var::from_tensor(&wave(&[3, h, w, c], 0.37))?;
            let k = Var::from_tensor(&wave(&[out, kernel, kernel, c], 0.23))?;
            let shape = ConvShape { kernel, stride };
            let pair = [conv2d(&x, &k, shape)?, kernels::conv2d(&x, &k, shape)?];
            compare(&format!("{shape:?} of {h} x {w}"), &[&x, &k], pair)?;
        }
        let x = Var::from_tensor(&wave(&[4, 3, 5, 6], 0.7))?;
        let z = Var::from_tensor(&wave(&[4, 3, 5, 6], 0.3))?;
        let gamma = Var::from_tensor(&wave(&[6], 0.9))?;
        let beta = Var::from_tensor(&wave(&[6], 0.5))?;
        let norms = [&x, &gamma, &beta];
        for relu in [false, true] {
            let ours = batch_norm(&x, &gamma, &beta, 1e-5, relu)?;
            let theirs = kernels::batch_norm(&x, &gamma, &beta, 1e-5, relu)?;
            assert_eq!(ours.1.count, theirs.1.count);
            compare("batch_norm", &norms, [ours.0, theirs.0])?;
            for (a, b) in [
                (ours.1.mean, theirs.1.mean),
                (ours.1.variance, theirs.1.variance),
            ] {
                let gap = (a - b)?.abs()?.max_all()?.to_scalar::<f32>()?;
                assert!(gap < 1e-5, "statistics differ by {gap}");
            }
        }
        let pair = [
            layer_norm(&x, &gamma, &beta, 1e-5)?,
            kernels::layer_norm(&x, &gamma, &beta, 1e-5)?,
        ];
        compare("layer_norm", &norms, pair)?;
        compare(
            "add_relu",
            &[&x, &z],
            [add_relu(&x, &z)?, kernels::add_relu(&x, &z)?],
        )?;
        compare(
            "quick_gelu",
            &[&x],
            [quick_gelu(&x, 1.702)?, kernels::quick_gelu(&x)?],
        )
    }
}
