//! What audited queries found, counted so that it follows changes and says how sure it is.

/// Audited queries after which those before count half.
const WINDOW: f64 = 400.0;
/// Fewest audited queries that say anything.
const LEAST_QUERIES: f64 = 20.0;
/// One-sided 95 percent.
const Z: f64 = 1.645;
/// The candidates rise by a factor between these, by how much recall is missed.
const LEAST_RISE: f64 = 1.25;
const MOST_RISE: f64 = 2.0;
/// They fall by this, slower than they rise.
const FALL: f64 = 1.1;
/// They fall where surely no more than this part of the misses that the target allows are left.
const IDLE_PART: f64 = 0.25;

/// What one audited query found of what it should have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) wanted: usize,
    pub(super) hits: usize,
}

/// Sums over audited queries; older ones count less and less.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Tally {
    pub(super) queries: f64,
    pub(super) wanted: f64,
    pub(super) hits: f64,
    wanted_wanted: f64,
    wanted_hits: f64,
    hits_hits: f64,
}

/// Within what the candidates are steered, and to what.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Aim {
    pub(super) target: f64,
    pub(super) least: usize,
    pub(super) most: usize,
}

impl Tally {
    pub(super) fn add(&mut self, Outcome { wanted, hits }: Outcome) {
        let (wanted, hits) = (wanted as f64, hits as f64);
        self.queries += 1.0;
        self.wanted += wanted;
        self.hits += hits;
        self.wanted_wanted += wanted * wanted;
        self.wanted_hits += wanted * hits;
        self.hits_hits += hits * hits;
        if self.queries > WINDOW {
            for sum in [
                &mut self.queries,
                &mut self.wanted,
                &mut self.hits,
                &mut self.wanted_wanted,
                &mut self.wanted_hits,
                &mut self.hits_hits,
            ] {
                *sum /= 2.0;
            }
        }
    }

    /// Part of what was wanted that was found.
    pub(super) fn recall(&self) -> Option<f64> {
        (self.wanted > 0.0).then(|| (self.hits / self.wanted).clamp(0.0, 1.0))
    }

    /// Between what the recall of all queries lies, each with 95 percent: the score interval
    /// (Wilson 1927) of as many independent hits as these are worth. Hits of one query are not
    /// independent; what they are worth is the design effect of a ratio over clusters (Kish 1965).
    pub(super) fn bounds(&self) -> Option<(f64, f64)> {
        let recall = self.recall().filter(|_| self.queries >= LEAST_QUERIES)?;
        let alone = recall * (1.0 - recall) / self.wanted;
        let squares =
            self.hits_hits - 2.0 * recall * self.wanted_hits + recall * recall * self.wanted_wanted;
        let clustered = squares.max(0.0) / (self.wanted * self.wanted);
        let per_query = (self.wanted / self.queries).max(1.0);
        // Where nothing or everything was found they vary as little as they can: then each query
        // counts once.
        let effect = if alone > 0.0 {
            (clustered / alone).clamp(1.0, per_query)
        } else {
            per_query
        };
        let n = self.wanted / effect;
        let middle = recall + Z * Z / (2.0 * n);
        let half = Z * (recall * (1.0 - recall) / n + Z * Z / (4.0 * n * n)).sqrt();
        let whole = 1.0 + Z * Z / n;
        Some(((middle - half) / whole, (middle + half) / whole))
    }
}

impl Aim {
    /// How many candidates to keep from now on, by tallies of queries that kept `ef`; `None` where
    /// they say nothing against it. One tally that is surely below the target is enough to rise,
    /// all that say anything must be far above it to fall.
    pub(super) fn steer<'a>(
        &self,
        ef: usize,
        tallies: impl Iterator<Item = &'a Tally>,
    ) -> Option<usize> {
        let surely: Vec<(f64, (f64, f64))> = tallies
            .filter_map(|tally| Some((tally.recall()?, tally.bounds()?)))
            .collect();
        let missed = surely
            .iter()
            .filter(|(_, (_, high))| *high < self.target)
            .map(|(recall, _)| (1.0 - recall) / (1.0 - self.target).max(1e-3))
            .fold(0.0, f64::max);
        let idle = |(_, (low, _)): &(f64, (f64, f64))| *low > 1.0 - IDLE_PART * (1.0 - self.target);
        let next = if missed > 0.0 {
            let factor = missed.sqrt().clamp(LEAST_RISE, MOST_RISE);
            // One that was set higher than the limit stays where it is.
            ((ef as f64 * factor).ceil() as usize).min(self.most.max(ef))
        } else if !surely.is_empty() && surely.iter().all(idle) {
            ((ef as f64 / FALL) as usize).max(self.least)
        } else {
            ef
        };
        (next != ef).then_some(next)
    }
}

#[cfg(test)]
mod tests {
    use embedding::mix;

    use super::*;

    const AIM: Aim = Aim {
        target: 0.95,
        least: 64,
        most: 1000,
    };

    /// `queries` for 10 each, of which about this part of 1000 is found.
    fn tally(queries: u64, per_mille: u64) -> Tally {
        let mut tally = Tally::default();
        for query in 0..queries {
            let found = |i: &u64| mix(query * 10 + i) % 1000 < per_mille;
            let hits = (0..10).filter(found).count();
            tally.add(Outcome { wanted: 10, hits });
        }
        tally
    }

    #[test]
    fn the_bounds_hold_the_recall_and_close_around_it() {
        let mut outside = 0;
        for start in 0..400 {
            let mut tally = Tally::default();
            for query in 0..60 {
                // Half of the queries find everything, half miss a fifth: hits come in clusters.
                let bits = mix(start * 1000 + query);
                let hits = if bits.is_multiple_of(2) { 10 } else { 8 };
                tally.add(Outcome { wanted: 10, hits });
            }
            let (low, high) = tally.bounds().expect("enough queries");
            assert!(high - low < 0.12, "{low} to {high}");
            outside += usize::from(!(low..high).contains(&0.9));
        }
        assert!(
            outside < 400 / 8,
            "{outside} of 400 missed it; 10 percent may"
        );
        let few = tally(19, 500);
        assert_eq!(few.bounds(), None, "19 queries say nothing");
        let (low, high) = tally(30, 1000).bounds().expect("enough queries");
        assert!(low < 0.95 && high > 0.999, "{low} to {high}");
    }

    #[test]
    fn older_queries_count_less_so_that_recall_follows_changes() {
        let mut tally = Tally::default();
        let all = Outcome {
            wanted: 10,
            hits: 10,
        };
        (0..5000).for_each(|_| tally.add(all));
        assert_eq!(tally.recall(), Some(1.0));
        (0..1000).for_each(|_| tally.add(Outcome { hits: 5, ..all }));
        let recall = tally.recall().expect("queries came");
        assert!(recall < 0.6, "{recall}");
        assert_eq!(Tally::default().recall(), None);
    }

    #[test]
    fn candidates_rise_when_recall_is_surely_low_and_fall_slowly_when_it_is_high() {
        let steer = |ef, tallies: &[Tally]| AIM.steer(ef, tallies.iter());
        assert_eq!(steer(64, &[]), None);
        assert_eq!(
            steer(64, &[tally(19, 100)]),
            None,
            "too few to say anything"
        );
        assert_eq!(
            steer(64, &[tally(40, 940)]),
            None,
            "too near the target to be sure"
        );
        assert_eq!(steer(64, &[tally(100, 500)]), Some(128), "far below it");
        // A little below it: 1.25 times as many, and a little more.
        let little = steer(64, &[tally(300, 910)]);
        assert!(
            little.is_some_and(|ef| (80..96).contains(&ef)),
            "{little:?}"
        );
        assert_eq!(steer(64, &[tally(300, 1000), tally(100, 500)]), Some(128));
        assert_eq!(
            steer(900, &[tally(100, 500)]),
            Some(1000),
            "up to the limit"
        );
        assert_eq!(steer(1000, &[tally(100, 500)]), None);
        assert_eq!(
            steer(3000, &[tally(100, 500)]),
            None,
            "set above the limit by hand"
        );
        assert_eq!(steer(128, &[tally(400, 1000)]), Some(116));
        assert_eq!(steer(128, &[tally(400, 1000), tally(400, 970)]), None);
        assert_eq!(
            steer(66, &[tally(400, 1000)]),
            Some(64),
            "never below the least"
        );
        assert_eq!(steer(64, &[tally(400, 1000)]), None);
    }

    #[test]
    fn a_target_of_all_can_be_aimed_at() {
        let all = Aim { target: 1.0, ..AIM };
        assert_eq!(all.steer(64, [tally(100, 900)].iter()), Some(128));
        assert_eq!(all.steer(64, [tally(400, 1000)].iter()), None);
    }
}
