//! Choices that look random and depend on their seed only.

use embedding::mix;

/// A sequence of choices.
#[derive(Debug, Clone)]
pub struct Draws(u64);

impl Draws {
    /// The sequence of a seed. Several seeds are taken together: a run's, and the number of a part
    /// of it.
    pub fn new(seeds: &[u64]) -> Self {
        Self(seeds.iter().fold(0, |state, seed| mix(state ^ seed)))
    }

    /// A number below `n`; 0 where `n` is 0.
    pub fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        ((u128::from(mix(self.0)) * n as u128) >> 64) as usize
    }

    /// Puts a list into any order, each as likely as the others (Fisher and Yates).
    pub fn shuffle<T>(&mut self, list: &mut [T]) {
        for i in (1..list.len()).rev() {
            list.swap(i, self.below(i + 1));
        }
    }

    /// At most `n` numbers below `of`, each once, in ascending order.
    pub fn subset(&mut self, n: usize, of: usize) -> Vec<usize> {
        let mut all: Vec<usize> = (0..of).collect();
        self.shuffle(&mut all);
        all.truncate(n);
        all.sort_unstable();
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_order_is_as_likely_as_the_others_and_a_seed_repeats_itself() {
        let mut seen = std::collections::HashMap::new();
        for seed in 0..6000 {
            let mut list = [0, 1, 2];
            Draws::new(&[seed]).shuffle(&mut list);
            *seen.entry(list).or_insert(0) += 1;
        }
        assert_eq!(seen.len(), 6);
        assert!(seen.values().all(|n| (900..1100).contains(n)), "{seen:?}");
        assert_eq!(
            Draws::new(&[1, 2]).subset(3, 9),
            Draws::new(&[1, 2]).subset(3, 9)
        );
        assert_ne!(
            Draws::new(&[1, 2]).subset(3, 99),
            Draws::new(&[2, 1]).subset(3, 99)
        );
        assert_eq!(Draws::new(&[7]).subset(10, 3), [0, 1, 2]);
    }
}
