//! Latency and recall.

use std::time::{Duration, Instant};

/// How long each of many calls took, one after another.
#[derive(Debug, Clone)]
pub struct Latencies {
    sorted: Vec<Duration>,
}

impl Latencies {
    /// Calls `work` with 0 to `n - 1` and times each call.
    ///
    /// # Panics
    /// When `n` is 0: there is nothing to tell then.
    pub fn of<T>(n: usize, mut work: impl FnMut(usize) -> T) -> (Self, Vec<T>) {
        assert!(n > 0, "at least one call is needed");
        let mut results = Vec::with_capacity(n);
        let mut sorted = Vec::with_capacity(n);
        for i in 0..n {
            let start = Instant::now();
            let result = work(i);
            sorted.push(start.elapsed());
            results.push(result);
        }
        sorted.sort_unstable();
        (Self { sorted }, results)
    }

    /// Calls `work` with 0, 1 and so on as long as `goes_on` says so, at least once, and times each
    /// call.
    pub fn during<T>(
        mut goes_on: impl FnMut() -> bool,
        mut work: impl FnMut(usize) -> T,
    ) -> (Self, Vec<T>) {
        let (mut results, mut sorted) = (Vec::new(), Vec::new());
        while results.is_empty() || goes_on() {
            let start = Instant::now();
            let result = work(results.len());
            sorted.push(start.elapsed());
            results.push(result);
        }
        sorted.sort_unstable();
        (Self { sorted }, results)
    }

    /// Number of calls.
    #[allow(clippy::len_without_is_empty, reason = "there is always one")]
    pub fn len(&self) -> usize {
        self.sorted.len()
    }

    /// The time that the given part of the calls did not exceed, in ms (nearest rank).
    pub fn quantile_ms(&self, part: f64) -> f64 {
        let rank = (part * self.sorted.len() as f64).ceil() as usize;
        let at = rank.clamp(1, self.sorted.len()) - 1;
        self.sorted[at].as_secs_f64() * 1e3
    }

    /// Calls per second.
    pub fn per_second(&self) -> f64 {
        self.sorted.len() as f64 / self.sorted.iter().sum::<Duration>().as_secs_f64()
    }
}

/// Part of the exact answers that were found, over all queries; 0 when there are none.
///
/// Equal scores are rare among generated rows, so that ties need no care.
pub fn recall<T: PartialEq>(exact: &[Vec<T>], found: &[Vec<T>]) -> f64 {
    let pairs = exact.iter().zip(found);
    let hits: usize = pairs
        .map(|(exact, found)| exact.iter().filter(|e| found.contains(e)).count())
        .sum();
    hits as f64 / exact.iter().map(Vec::len).sum::<usize>().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_found_twice_counts_once() {
        let exact = [vec![1, 2], vec![3, 4]];
        assert!((recall(&exact, &[vec![2, 2], vec![4, 3]]) - 0.75).abs() < 1e-9);
        assert!(recall::<u32>(&[], &[]).abs() < 1e-9);
    }

    #[test]
    fn a_quantile_is_one_of_the_times() {
        let sorted = (1..=100).map(Duration::from_millis).collect();
        let latencies = Latencies { sorted };
        assert!((latencies.quantile_ms(0.5) - 50.0).abs() < 1e-9);
        assert!((latencies.quantile_ms(0.99) - 99.0).abs() < 1e-9);
        assert!((latencies.quantile_ms(1.0) - 100.0).abs() < 1e-9);
        assert!((latencies.per_second() - 100.0 / 5.05).abs() < 1e-6);
    }
}
