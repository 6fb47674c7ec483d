//! Intervals of 95 percent confidence.

use rayon::prelude::*;
use serde::Serialize;

use crate::Draws;

/// Times that [`bootstrap`] draws.
pub const RESAMPLES: usize = 1000;

/// The .975 quantile of the normal distribution.
const Z: f64 = 1.959_963_984_540_054;
/// The same of Student's distribution with 1 to 10 degrees of freedom.
const T: [f64; 10] = [
    12.706_205, 4.302_653, 3.182_446, 2.776_445, 2.570_582, 2.446_912, 2.364_624, 2.306_004,
    2.262_157, 2.228_139,
];

/// Where a figure lies, with 95 percent confidence.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Interval {
    /// At least here.
    pub low: f64,
    /// At most here.
    pub high: f64,
}

/// The interval of a proportion (Wilson 1927); of none at all, from 0 to 1.
pub fn wilson(hits: usize, of: usize) -> Interval {
    if of == 0 {
        return Interval {
            low: 0.0,
            high: 1.0,
        };
    }
    let (n, p) = (of as f64, hits as f64 / of as f64);
    let z2 = Z * Z / n;
    let middle = (p + z2 / 2.0) / (1.0 + z2);
    let half = Z / (1.0 + z2) * (p * (1.0 - p) / n + z2 / (4.0 * n)).sqrt();
    let exact = |at: f64, is: bool, end: f64| if is { end } else { at };
    Interval {
        low: exact(middle - half, hits == 0, 0.0),
        high: exact(middle + half, hits == of, 1.0),
    }
}

/// Mean, standard deviation (of a sample) and the interval of the mean by Student's distribution,
/// or where there are less than two numbers, by none.
pub fn student(numbers: &[f64]) -> (f64, f64, Option<Interval>) {
    let n = numbers.len();
    let mean = numbers.iter().sum::<f64>() / n.max(1) as f64;
    if n < 2 {
        return (mean, 0.0, None);
    }
    let squares: f64 = numbers.iter().map(|x| (x - mean).powi(2)).sum();
    let spread = (squares / (n - 1) as f64).sqrt();
    // Beyond the table, Cornish and Fisher's first two terms are exact to four digits.
    let d = (n - 1) as f64;
    let t = T.get(n - 2).copied().unwrap_or_else(|| {
        let (z3, z5) = (Z.powi(3), Z.powi(5));
        Z + (z3 + Z) / (4.0 * d) + (5.0 * z5 + 16.0 * z3 + 3.0 * Z) / (96.0 * d * d)
    });
    let half = t * spread / (n as f64).sqrt();
    let interval = Interval {
        low: mean - half,
        high: mean + half,
    };
    (mean, spread, Some(interval))
}

/// The intervals of some figures by percentiles (Efron 1979): things are drawn with replacement,
/// within each of the `strata` as many as it has, and the figures counted again, [`RESAMPLES`] times.
/// `figures` learns how often each of all things was drawn. The same seed gives the same intervals.
///
/// # Panics
/// When the strata do not hold every number below their count.
pub fn bootstrap<const N: usize>(
    strata: &[Vec<usize>],
    seed: u64,
    figures: impl Fn(&[u32]) -> [f64; N] + Sync,
) -> [Interval; N] {
    let things: usize = strata.iter().map(Vec::len).sum();
    let draw = |resample: usize| {
        let mut draws = Draws::new(&[seed, resample as u64]);
        let mut drawn = vec![0; things];
        for stratum in strata {
            for _ in stratum {
                drawn[stratum[draws.below(stratum.len())]] += 1;
            }
        }
        figures(&drawn)
    };
    let resamples: Vec<[f64; N]> = (0..RESAMPLES).into_par_iter().map(draw).collect();
    std::array::from_fn(|i| {
        let mut sorted: Vec<f64> = resamples.iter().map(|figures| figures[i]).collect();
        sorted.sort_unstable_by(f64::total_cmp);
        Interval {
            low: quantile(&sorted, 0.025),
            high: quantile(&sorted, 0.975),
        }
    })
}

/// Between the two nearest of some sorted numbers.
fn quantile(sorted: &[f64], at: f64) -> f64 {
    let place = at * (sorted.len() - 1) as f64;
    let (below, part) = (place.floor() as usize, place.fract());
    let above = (below + 1).min(sorted.len() - 1);
    sorted[below] + part * (sorted[above] - sorted[below])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_of_a_proportion_is_wilsons() {
        // Newcombe 1998, table I: 81 of 263, 15 of 148, 0 of 20.
        for (hits, of, low, high) in [
            (81, 263, 0.2553, 0.3662),
            (15, 148, 0.0624, 0.1605),
            (0, 20, 0.0, 0.1611),
            (29, 29, 0.8830, 1.0),
        ] {
            let interval = wilson(hits, of);
            assert!(
                (interval.low - low).abs() < 5e-5,
                "{hits} of {of}: {interval:?}"
            );
            assert!(
                (interval.high - high).abs() < 5e-5,
                "{hits} of {of}: {interval:?}"
            );
        }
    }

    #[test]
    fn a_drawn_mean_spreads_as_theory_says() {
        let strata = [(0..400).collect()];
        let mean = |drawn: &[u32]| {
            let sum: f64 = drawn
                .iter()
                .enumerate()
                .map(|(i, n)| f64::from(*n) * f64::from(i % 2 == 0))
                .sum();
            [sum / 400.0]
        };
        let [interval] = bootstrap(&strata, 1, mean);
        let half = Z * 0.5 / 400_f64.sqrt();
        assert!((interval.low - (0.5 - half)).abs() < 0.01, "{interval:?}");
        assert!((interval.high - (0.5 + half)).abs() < 0.01, "{interval:?}");
        assert_eq!([interval], bootstrap(&strata, 1, mean));
        assert_ne!([interval], bootstrap(&strata, 2, mean));
    }

    #[test]
    fn strata_keep_their_sizes() {
        let strata = [vec![0, 3], vec![1], vec![2, 4, 5]];
        let sizes = |drawn: &[u32]| {
            [0, 1, 2].map(|s: usize| strata[s].iter().map(|i| f64::from(drawn[*i])).sum())
        };
        let all = bootstrap(&strata, 3, sizes);
        for (interval, size) in all.iter().zip([2.0, 1.0, 3.0]) {
            assert!((interval.low - size).abs() < 1e-12 && (interval.high - size).abs() < 1e-12);
        }
    }

    #[test]
    fn few_numbers_spread_by_students_distribution() {
        let (mean, spread, interval) = student(&[1.0, 2.0, 3.0]);
        let interval = interval.expect("three numbers");
        assert!((mean - 2.0).abs() < 1e-12 && (spread - 1.0).abs() < 1e-12);
        assert!((interval.high - 2.0 - 4.302_653 / 3_f64.sqrt()).abs() < 1e-6);
        // With 29 degrees of freedom the quantile is 2.04523.
        let many: Vec<f64> = (0..30).map(f64::from).collect();
        let (mean, spread, interval) = student(&many);
        let half = interval.expect("many").high - mean;
        assert!((half - 2.04523 * spread / 30_f64.sqrt()).abs() < 1e-3 * half);
        assert_eq!(student(&[0.5]), (0.5, 0.0, None));
    }
}
