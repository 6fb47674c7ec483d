//! The convolution against candle's.

use candle_core::{Device, Var};

use super::*;

fn wave(shape: &[usize], step: f32) -> Tensor {
    let count = shape.iter().product::<usize>();
    let values: Vec<f32> = (0..count).map(|i| (i as f32 * step).sin()).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).expect("shape fits")
}

#[test]
fn values_and_gradients_equal_those_of_candles_convolution() -> Result<()> {
    // candle's own backward pass takes the padding of both sides from the height, so that strided
    // cases have sides of equal parity.
    for (factors, bound) in [(Precision::F32, 1e-4), (Precision::Bf16, 0.04)] {
        for (kernel, stride, h, w, c, out) in [
            (3, 1, 5, 4, 3, 2),
            (3, 2, 7, 5, 2, 4),
            (3, 2, 6, 8, 2, 4),
            (1, 1, 3, 3, 5, 2),
            (1, 2, 5, 7, 3, 3),
            (3, 2, 1, 1, 2, 2),
            (5, 1, 1, 1, 2, 3),
            // Wide enough to be unfolded along the rows only.
            (3, 1, 16, 17, 3, 5),
            (3, 2, 33, 31, 5, 33),
            (5, 1, 9, 9, 2, 3),
            (5, 3, 50, 47, 3, 2),
        ] {
            let x = Var::from_tensor(&wave(&[3, h, w, c], 0.37))?;
            let k = Var::from_tensor(&wave(&[out, kernel, kernel, c], 0.23))?;
            let ours = convolve(&x, &k, ConvShape { kernel, stride }, factors)?;
            let nchw = x.permute((0, 3, 1, 2))?;
            let theirs = nchw
                .conv2d(&k.permute((0, 3, 1, 2))?, kernel / 2, stride, 1, 1)?
                .permute((0, 2, 3, 1))?;
            let seen = |t: &Tensor| (t * wave(t.dims(), 0.11)).and_then(|t| t.sum_all());
            let (a, b) = (seen(&ours)?.backward()?, seen(&theirs)?.backward()?);
            for (name, ours, theirs) in [
                ("value", ours, theirs),
                (
                    "input",
                    a.get(&x).expect("has a gradient").clone(),
                    b.get(&x).expect("has").clone(),
                ),
                (
                    "weight",
                    a.get(&k).expect("has a gradient").clone(),
                    b.get(&k).expect("has").clone(),
                ),
            ] {
                let largest = |x: &Tensor| x.abs()?.max_all()?.to_scalar::<f32>();
                // Sums over many positions are larger, and what rounding does to them grows with the root of their number.
                let positions = h.div_ceil(stride) * w.div_ceil(stride);
                let scale = if positions < 64 {
                    1.0
                } else {
                    largest(&theirs)?.max((positions as f32 / 20.0).sqrt())
                };
                let gap = largest(&(ours - theirs)?)? / scale;
                assert!(
                    gap < bound,
                    "{name}, kernel {kernel}, stride {stride}, {factors}: {gap}"
                );
            }
        }
    }
    Ok(())
}

/// A share for each thread once made gradients differ in their last bits between machines.
#[test]
fn gradients_do_not_depend_on_the_number_of_threads() -> Result<()> {
    let x = Var::from_tensor(&wave(&[37, 5, 4, 3], 0.37))?;
    let k = Var::from_tensor(&wave(&[2, 3, 3, 3], 0.23))?;
    let shape = ConvShape {
        kernel: 3,
        stride: 1,
    };
    let gradient = || -> Result<Vec<u32>> {
        let out = conv2d(&x, &k, shape)?;
        let gradients = (&out * wave(out.dims(), 0.11))?.sum_all()?.backward()?;
        let gradient = gradients.get(&k).expect("has a gradient");
        let values = gradient.flatten_all()?.to_vec1::<f32>()?;
        Ok(values.into_iter().map(f32::to_bits).collect())
    };
    let within = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
        pool.build().expect("a pool").install(gradient)
    };
    let one = within(1)?;
    for threads in [2, 3, 8] {
        assert_eq!(within(threads)?, one, "{threads} threads");
    }
    Ok(())
}

#[test]
fn a_weight_that_does_not_fit_is_refused() {
    let x = wave(&[1, 4, 4, 3], 0.1);
    let k = wave(&[2, 3, 3, 4], 0.1);
    assert!(
        conv2d(
            &x,
            &k,
            ConvShape {
                kernel: 3,
                stride: 1
            }
        )
        .is_err()
    );
}
