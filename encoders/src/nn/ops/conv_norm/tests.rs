//! Against a convolution and the formula in plain operations.

use candle_core::{Device, Var, backprop::GradStore};

use super::*;
use crate::nn::ops::{conv2d, with_narrow_factors};

fn wave(shape: &[usize], step: f32, offset: f32) -> Tensor {
    let count = shape.iter().product::<usize>();
    let values: Vec<f32> = (0..count)
        .map(|i| (i as f32 * step).sin() + offset)
        .collect();
    Tensor::from_vec(values, shape, &Device::Cpu).expect("shape fits")
}

fn largest(x: &Tensor) -> Result<f32> {
    x.abs()?.max_all()?.to_scalar::<f32>()
}

/// The weights of one convolution.
struct Vars {
    weight: Var,
    gamma: Var,
    beta: Var,
}

impl Vars {
    fn new(out: usize, kernel: usize, c: usize) -> Result<Self> {
        Ok(Self {
            weight: Var::from_tensor(&wave(&[out, kernel, kernel, c], 0.23, 0.05))?,
            gamma: Var::from_tensor(&wave(&[out], 0.9, 0.3))?,
            beta: Var::from_tensor(&wave(&[out], 0.7, 0.1))?,
        })
    }

    fn weights(&self) -> NormWeights<'_> {
        NormWeights {
            weight: &self.weight,
            gamma: &self.gamma,
            beta: &self.beta,
            eps: 1e-5,
        }
    }

    /// In plain operations, with the biased variance.
    fn plain(&self, x: &Tensor, shape: ConvShape) -> Result<(Tensor, Tensor)> {
        let z = conv2d(x, &self.weight, shape)?;
        let centered = z.broadcast_sub(&z.mean_keepdim((0, 1, 2))?)?;
        let variance = centered.sqr()?.mean_keepdim((0, 1, 2))?;
        let normal = centered.broadcast_div(&(&variance + 1e-5)?.sqrt()?)?;
        let y = normal
            .broadcast_mul(&self.gamma)?
            .broadcast_add(&self.beta)?;
        Ok((y, variance.flatten_all()?))
    }
}

fn compare(
    what: &str,
    vars: &[(&str, &Var)],
    (ours, a): (&Tensor, &GradStore),
    (theirs, b): (&Tensor, &GradStore),
    bound: f32,
) -> Result<()> {
    let gap = largest(&(ours - theirs)?)?;
    assert!(gap < bound * largest(theirs)?.max(1.0), "{what}: {gap}");
    for (name, var) in vars {
        let gradient = |of: &GradStore| {
            let missing = || panic!("{what}: {name} has no gradient");
            of.get(var).unwrap_or_else(missing).clone()
        };
        let (a, b) = (gradient(a), gradient(b));
        let (gap, scale) = (largest(&(a - &b)?)?, largest(&b)?.max(1.0));
        assert!(gap < bound * scale, "{what}, {name}: {gap} of {scale}");
    }
    Ok(())
}

#[test]
fn values_and_gradients_equal_the_formula_in_plain_operations() -> Result<()> {
    for (kernel, stride, h, w, c, out) in [
        (3, 1, 5, 4, 3, 2),
        (3, 2, 7, 5, 2, 4),
        (1, 2, 6, 8, 5, 3),
        // Wide enough to be unfolded along the rows only.
        (3, 1, 16, 17, 3, 5),
        (3, 1, 19, 16, 24, 18),
        (3, 2, 33, 32, 3, 4),
        (3, 2, 32, 35, 5, 33),
        (5, 1, 16, 16, 2, 3),
        (5, 3, 50, 47, 3, 2),
        (1, 1, 17, 16, 3, 2),
    ] {
        let shape = ConvShape { kernel, stride };
        let what = format!("kernel {kernel}, stride {stride}, {h} x {w}");
        let x = Var::from_tensor(&wave(&[3, h, w, c], 0.37, 0.5))?;
        let vars = Vars::new(out, kernel, c)?;
        let (plain, variance) = vars.plain(&x, shape)?;
        let other = Var::from_tensor(&wave(plain.dims(), 0.53, -0.2))?;
        let of_other = Map::from(other.as_tensor().clone());
        for (ending, theirs) in [
            (Ending::Plain, plain.clone()),
            (Ending::Relu, plain.relu()?),
            (
                Ending::AddRelu(&of_other),
                (&plain + other.as_tensor())?.relu()?,
            ),
        ] {
            let map = Map::from(x.as_tensor().clone());
            let (ours, statistics) = conv_norm(&map, vars.weights(), shape, ending)?;
            let apart = largest(&(statistics.variance / &variance)?.affine(1.0, -1.0)?)?;
            assert!(apart < 1e-4, "{what}: {apart}");
            let ours = ours.tensor()?;
            let seen = |y: &Tensor| {
                let weights = wave(y.dims(), 0.31, 0.0);
                (y * weights)?.sum_all()?.backward()
            };
            let (a, b) = (seen(&ours)?, seen(&theirs)?);
            let mut all = vec![
                ("x", &x),
                ("weight", &vars.weight),
                ("gamma", &vars.gamma),
                ("beta", &vars.beta),
            ];
            if matches!(ending, Ending::AddRelu(_)) {
                all.push(("other", &other));
            }
            compare(&what, &all, (&ours, &a), (&theirs, &b), 2e-3)?;
        }
    }
    Ok(())
}

/// A map that several operations use has the sum of their gradients, whichever comes first; without a gradient of
/// the input there are still those of the weights; twice the same way gives the same.
#[test]
fn gradients_of_all_who_use_a_map_are_added() -> Result<()> {
    let one = ConvShape {
        kernel: 3,
        stride: 1,
    };
    let [first, second, third] = [
        Vars::new(4, 3, 4)?,
        Vars::new(4, 3, 4)?,
        Vars::new(4, 1, 4)?,
    ];
    let point = ConvShape {
        kernel: 1,
        stride: 1,
    };
    let start = Var::from_tensor(&wave(&[2, 6, 7, 4], 0.37, 0.2))?;
    for tracked in [true, false] {
        let x = if tracked {
            start.as_tensor().clone()
        } else {
            start.detach()
        };
        let ours = {
            let (y, _) = conv_norm(&x.clone().into(), first.weights(), one, Ending::Relu)?;
            let (past, _) = conv_norm(&y, third.weights(), point, Ending::Plain)?;
            let (z, _) = conv_norm(&y, second.weights(), one, Ending::AddRelu(&past))?;
            let (z, _) = conv_norm(&z, second.weights(), one, Ending::AddRelu(&z))?;
            // Leaves by two doors.
            (z.tensor()? + (y.tensor()? * 0.5)?)?
        };
        let theirs = {
            let y = first.plain(&x, one)?.0.relu()?;
            let past = third.plain(&y, point)?.0;
            let z = (second.plain(&y, one)?.0 + past)?.relu()?;
            let z = (second.plain(&z, one)?.0 + &z)?.relu()?;
            (z + (y * 0.5)?)?
        };
        let seen = |y: &Tensor| (y * wave(y.dims(), 0.31, 0.0))?.sum_all();
        let (loss, expected) = (seen(&ours)?, seen(&theirs)?.backward()?);
        let mut all = Vec::new();
        for vars in [&first, &second, &third] {
            all.extend([
                ("weight", &vars.weight),
                ("gamma", &vars.gamma),
                ("beta", &vars.beta),
            ]);
        }
        if tracked {
            all.push(("x", &start));
        }
        for _ in 0..2 {
            let gradients = loss.backward()?;
            compare(
                "a block",
                &all,
                (&ours, &gradients),
                (&theirs, &expected),
                2e-3,
            )?;
        }
    }
    Ok(())
}

#[test]
fn a_large_mean_does_not_cancel() -> Result<()> {
    let shape = ConvShape {
        kernel: 1,
        stride: 1,
    };
    let x = wave(&[2, 40, 30, 1], 0.7, 3000.0);
    let vars = Vars::new(1, 1, 1)?;
    let weight = Tensor::ones((1, 1, 1, 1), candle_core::DType::F32, &Device::Cpu)?;
    let weights = NormWeights {
        weight: &weight,
        ..vars.weights()
    };
    let (_, statistics) = conv_norm(&x.clone().into(), weights, shape, Ending::Plain)?;
    let x = x.to_dtype(candle_core::DType::F64)?.flatten_all()?;
    let mean = x.mean_all()?.to_scalar::<f64>()?;
    let variance = (x - mean)?.sqr()?.mean_all()?.to_scalar::<f64>()?;
    let got = f64::from(statistics.variance.to_vec1::<f32>()?[0]);
    assert!((got - variance).abs() < 1e-3, "{got}, expected {variance}");
    assert_eq!(statistics.count, 2400);
    Ok(())
}

/// Narrow factors are rounded as those of a convolution alone are.
#[test]
fn narrow_factors_come_near_and_threads_change_nothing() -> Result<()> {
    for (h, c) in [(18, 3), (5, 7)] {
        let shape = ConvShape {
            kernel: 3,
            stride: 1,
        };
        let x = Var::from_tensor(&wave(&[21, h, h, c], 0.37, 0.1))?;
        let vars = Vars::new(6, 3, c)?;
        let values = |y: &Tensor| -> Result<Vec<Vec<f32>>> {
            let gradients = (y * wave(y.dims(), 0.31, 0.0))?.sum_all()?.backward()?;
            let mut all = vec![y.flatten_all()?.to_vec1()?];
            for var in [&x, &vars.weight, &vars.gamma] {
                let gradient = gradients.get(var).expect("has a gradient");
                all.push(gradient.flatten_all()?.to_vec1()?);
            }
            Ok(all)
        };
        let pass = |factors: Precision| {
            let map = Map::from(x.as_tensor().clone());
            let (y, _) = on_cpu(&map, vars.weights(), shape, Ending::Plain, factors)?;
            values(&y.tensor()?)
        };
        let (exact, near) = (pass(Precision::F32)?, pass(Precision::Bf16)?);
        let plain = with_narrow_factors(true, || values(&vars.plain(&x, shape)?.0))?;
        for ((exact, near), plain) in exact.iter().zip(&near).zip(&plain) {
            let norm = |x: &[f32]| x.iter().map(|x| x * x).sum::<f32>().sqrt();
            let gap: Vec<f32> = plain.iter().zip(near).map(|(a, b)| a - b).collect();
            assert!(
                norm(&gap) < 0.02 * norm(plain),
                "{} of {}",
                norm(&gap),
                norm(plain)
            );
            assert_ne!(exact, near);
        }
        for threads in [1, 2, 5] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
            let again = (pool.build().expect("a pool")).install(|| pass(Precision::F32))?;
            assert_eq!(again, exact, "{threads} threads");
        }
    }
    Ok(())
}

#[test]
fn what_does_not_fit_is_refused() -> Result<()> {
    let shape = ConvShape {
        kernel: 3,
        stride: 1,
    };
    let x = Map::from(wave(&[1, 4, 4, 3], 0.1, 0.0));
    let vars = Vars::new(2, 3, 3)?;
    let other = Map::from(wave(&[1, 4, 3, 2], 0.1, 0.0));
    assert!(conv_norm(&x, vars.weights(), shape, Ending::AddRelu(&other)).is_err());
    let gamma = wave(&[3], 0.1, 0.0);
    let weights = NormWeights {
        gamma: &gamma,
        ..vars.weights()
    };
    assert!(conv_norm(&x, weights, shape, Ending::Plain).is_err());
    Ok(())
}
