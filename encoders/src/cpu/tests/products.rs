//! Single products and what follows their sums, for every instruction set of this machine.

use super::*;

#[test]
fn products_of_whole_numbers_are_exact_up_to_the_largest() {
    // 127 is the step of a byte then, and no sum needs more than the 24 bits of a float.
    let whole = |n: usize, inputs: usize, mut wild: Wild| -> Vec<f32> {
        let mut rows: Vec<f32> = (0..n * inputs)
            .map(|_| (127.0 * wild.next()).round())
            .collect();
        for (i, row) in rows.chunks_exact_mut(inputs).enumerate() {
            match i % 4 {
                0 => row.fill(127.0),
                1 => row.fill(-127.0),
                _ => row[inputs - 1] = 127.0,
            }
        }
        rows
    };
    for (n, inputs, outputs) in [
        (1, 1, 1),
        (3, 2, 5),
        (14, 7, 17),
        (29, 64, 33),
        (31, 317, 70),
    ] {
        let rows = whole(n, inputs, Wild(7));
        let weights = whole(outputs, inputs, Wild(8));
        // Of two signs in pairs, whose sums are no larger than 127 then.
        let mut in_pairs = weights.clone();
        for row in in_pairs.chunks_exact_mut(inputs) {
            for (i, x) in row.iter_mut().enumerate() {
                *x = if i % 2 == 0 { x.abs() } else { -x.abs() };
            }
        }
        for level in Level::all() {
            for precision in Precision::ALL {
                let weights = if precision == Precision::Int8 && level.byte_pairs {
                    &in_pairs
                } else {
                    &weights
                };
                let exact: Vec<f32> = rows
                    .chunks_exact(inputs)
                    .flat_map(|row| {
                        weights
                            .chunks_exact(inputs)
                            .map(|w| row.iter().zip(w).map(|(a, b)| a * b).sum())
                    })
                    .collect();
                let packed = Packed::new(level, precision, (weights, inputs), None);
                let got = packed.apply(level, Team { threads: 1 }, &rows, None);
                if precision == Precision::Int16 {
                    // Its steps are finer than one, and no whole numbers. Where one sum overflows, it
                    // is far off.
                    let step = 127.0 / kernels::largest_half(inputs);
                    let bound = 127.0 * step * (inputs as f32).sqrt();
                    let near = |(got, exact): (&f32, &f32)| (got - exact).abs() <= bound;
                    assert!(
                        got.iter().zip(&exact).all(near),
                        "{level:?} [{n}, {inputs}]: {got:?}, {exact:?}"
                    );
                } else {
                    assert_eq!(got, exact, "{level:?} {precision:?} [{n}, {inputs}]");
                }
            }
        }
    }
}

#[test]
fn no_sum_of_whole_numbers_is_cut_off() {
    // All of one sign, the largest that there are.
    let outputs = 20;
    for (inputs, sign) in [1, 2, 7, 64, 317, 5120]
        .into_iter()
        .flat_map(|inputs| [(inputs, 1.0), (inputs, -1.0)])
    {
        let (rows, weights) = (vec![3.0; 15 * inputs], vec![sign; outputs * inputs]);
        let exact = 3.0 * sign * inputs as f32;
        for level in Level::all() {
            // Where bytes must be small in pairs, each of these weights is 63.5 steps.
            for (precision, off) in [(Precision::Int16, 1e-4), (Precision::Int8, 0.01)] {
                let packed = Packed::new(level, precision, (&weights, inputs), None);
                for got in packed.apply(level, Team { threads: 1 }, &rows, None) {
                    assert!(
                        (got / exact - 1.0).abs() < off,
                        "{level:?} {precision}, {inputs}: {got}, {exact}"
                    );
                }
            }
        }
    }
}

#[test]
fn rows_of_next_to_nothing_count_nothing() {
    let (inputs, bias) = (100, vec![0.25; 20]);
    for (row, weight) in [(0.0, 1.0), (1e-36, 1.0), (1.0, 0.0), (1.0, 1e-36)] {
        let (rows, weights) = (vec![row; 3 * inputs], vec![weight; bias.len() * inputs]);
        for level in Level::all() {
            for precision in Precision::ALL {
                let packed = Packed::new(level, precision, (&weights, inputs), Some(&bias));
                let got = packed.apply(level, Team { threads: 1 }, &rows, None);
                assert_eq!(got, vec![0.25; got.len()], "{level:?} {precision}");
            }
        }
    }
}

#[test]
fn exponentials_and_activations_are_exact_to_the_last_bits() {
    /// `erf` by its series, in f64.
    fn erf(x: f64) -> f64 {
        let (mut sum, mut term) = (0.0, x);
        for k in 1..200 {
            sum += term / f64::from(2 * k - 1);
            term *= -x * x / f64::from(k);
        }
        sum * 2.0 / std::f64::consts::PI.sqrt()
    }
    for level in Level::all() {
        // A row of one product with the weight 1 is the activation alone.
        let near = (-700..=700).map(|i| i as f32 / 100.0);
        let far = [-1e4_f32, -100.0, -52.0, -10.5, 10.5, 52.0, 100.0, 1e4];
        let points: Vec<f32> = near.chain(far).collect();
        for activation in [
            Activation::QuickGelu,
            Activation::Gelu,
            Activation::GeluTanh,
        ] {
            let packed = Packed::new(level, Precision::F32, (&[1.0], 1), None);
            let got = packed.apply(level, Team { threads: 1 }, &points, Some(activation));
            for (x, y) in points.iter().zip(&got) {
                let x = f64::from(*x);
                let exact = match activation {
                    Activation::QuickGelu => x / (1.0 + (-1.702 * x).exp()),
                    Activation::Gelu if x < -5.5 => 0.0,
                    Activation::Gelu if x > 5.5 => x,
                    Activation::Gelu => 0.5 * x * (1.0 + erf(x / 2.0_f64.sqrt())),
                    Activation::GeluTanh => {
                        let u = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x * x * x);
                        0.5 * x * (1.0 + u.tanh())
                    }
                };
                let off = (f64::from(*y) - exact).abs();
                assert!(
                    off <= 4e-7 * x.abs().max(1.0),
                    "{level:?} {activation:?} {x}: {y} {exact}"
                );
            }
        }
        let mut row = vec![-80.0, 0.0, 3.0, 2.5];
        let inverse = level.softmax(&mut row);
        let sum: f64 = [-83.0_f64, -3.0, 0.0, -0.5].iter().map(|x| x.exp()).sum();
        assert!((f64::from(inverse) * sum - 1.0).abs() < 1e-6, "{level:?}");
        let exact = (-3.0_f64).exp();
        assert!(
            (f64::from(row[1]) - exact).abs() < 1e-8,
            "{level:?}: {}",
            row[1]
        );
    }
}
