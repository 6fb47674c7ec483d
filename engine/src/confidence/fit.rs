//! Logistic regression with a few features.

use std::array::from_fn;

/// Weight of the penalty on coefficients of standardized features: enough to keep them finite when
/// the cases can be told apart without error.
const RIDGE: f64 = 1.0;
/// Newton's method is done long before.
const STEPS: usize = 50;
/// Sum of the changes of all coefficients below which it is done.
const SMALL: f64 = 1e-9;

/// Coefficients of `N - 1` features and, as the last, of 1, that make the labels most probable.
/// Each case is its features, a last number that is always 1, and whether it is true. `None` when
/// all are true or none, or a feature is not finite.
pub(super) fn logistic<const N: usize>(cases: &[([f64; N], bool)]) -> Option<[f64; N]> {
    let ones = cases.iter().filter(|(_, label)| *label).count();
    let finite = cases.iter().all(|(x, _)| x.iter().all(|x| x.is_finite()));
    if ones == 0 || ones == cases.len() || !finite {
        return None;
    }
    let count = cases.len() as f64;
    let mean: [f64; N] = from_fn(|i| cases.iter().map(|(x, _)| x[i]).sum::<f64>() / count);
    let scale: [f64; N] = from_fn(|i| {
        let square = cases
            .iter()
            .map(|(x, _)| (x[i] - mean[i]).powi(2))
            .sum::<f64>()
            / count;
        // A feature that never differs says nothing; the last one is always 1.
        if square > 1e-18 {
            square.sqrt()
        } else {
            f64::INFINITY
        }
    });
    let standard = |x: &[f64; N]| -> [f64; N] {
        from_fn(|i| {
            if i == N - 1 {
                1.0
            } else {
                (x[i] - mean[i]) / scale[i]
            }
        })
    };
    let mut w = [0.0; N];
    for _ in 0..STEPS {
        let penalty = |i: usize| if i == N - 1 { 0.0 } else { RIDGE };
        let mut slope: [f64; N] = from_fn(|i| -penalty(i) * w[i]);
        let mut curve: [[f64; N]; N] =
            from_fn(|i| from_fn(|j| if i == j { penalty(i) + 1e-9 } else { 0.0 }));
        for (x, label) in cases {
            let x = standard(x);
            let logit: f64 = x.iter().zip(&w).map(|(x, w)| x * w).sum();
            let p = 1.0 / (1.0 + (-logit).exp());
            let off = f64::from(u8::from(*label)) - p;
            for i in 0..N {
                slope[i] += off * x[i];
                for j in 0..N {
                    curve[i][j] += p * (1.0 - p) * x[i] * x[j];
                }
            }
        }
        let step = solve(curve, slope)?;
        for (w, step) in w.iter_mut().zip(step) {
            *w += step;
        }
        if step.iter().map(|x| x.abs()).sum::<f64>() < SMALL {
            break;
        }
    }
    let shift: f64 = (0..N - 1).map(|i| w[i] * mean[i] / scale[i]).sum();
    let plain = from_fn(|i| {
        if i == N - 1 {
            w[i] - shift
        } else {
            w[i] / scale[i]
        }
    });
    plain.iter().all(|x: &f64| x.is_finite()).then_some(plain)
}

/// Solves `a x = b` for a positive definite `a`, by Gaussian elimination.
fn solve<const N: usize>(mut a: [[f64; N]; N], mut b: [f64; N]) -> Option<[f64; N]> {
    for i in 0..N {
        let pivot = a[i][i];
        if pivot.is_nan() || pivot <= 0.0 {
            return None;
        }
        for j in i + 1..N {
            let times = a[j][i] / pivot;
            let above = a[i];
            for (x, above) in a[j].iter_mut().zip(above).skip(i) {
                *x -= times * above;
            }
            b[j] -= times * b[i];
        }
    }
    for i in (0..N).rev() {
        let known: f64 = (i + 1..N).map(|j| a[i][j] * b[j]).sum();
        b[i] = (b[i] - known) / a[i][i];
    }
    Some(b)
}

#[cfg(test)]
mod tests {
    use embedding::mix;

    use super::*;

    #[test]
    fn the_coefficients_that_made_the_labels_are_found_again() {
        let uniform = |seed: u64| mix(seed) as f64 / u64::MAX as f64;
        let cases: Vec<([f64; 3], bool)> = (0..20_000_u64)
            .map(|i| {
                let (x, y) = (4.0 * uniform(3 * i) - 2.0, 10.0 + 3.0 * uniform(3 * i + 1));
                let p = 1.0 / (1.0 + (-(1.5 * x - 0.8 * y + 9.0)).exp());
                ([x, y, 1.0], uniform(3 * i + 2) < p)
            })
            .collect();
        let [x, y, one] = logistic(&cases).expect("both labels are there");
        assert!((x - 1.5).abs() < 0.1 && (y + 0.8).abs() < 0.1, "{x} {y}");
        assert!((one - 9.0).abs() < 1.0, "{one}");
    }

    #[test]
    fn cases_without_an_error_and_without_a_difference_stay_finite() {
        let apart: Vec<([f64; 3], bool)> = (0..100)
            .map(|i| ([f64::from(i), 7.0, 1.0], i >= 50))
            .collect();
        let [x, same, _] = logistic(&apart).expect("both labels are there");
        assert!(x > 0.0 && same.abs() < 1e-12, "{x} {same}");
        assert_eq!(
            logistic(&apart[..50]),
            None,
            "there is nothing to tell apart"
        );
        let broken = [([f64::NAN, 1.0], true), ([0.0, 1.0], false)];
        assert_eq!(logistic(&broken), None);
    }
}
