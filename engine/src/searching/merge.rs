//! Images and texts in one list.

use super::leg::{Candidate, Leg};
use crate::{
    collection::Collection,
    confidence::{fair::Level, sample::Spread},
};

/// A candidate: which leg, and which of its list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ranked {
    pub(super) leg: usize,
    pub(super) place: usize,
}

/// One order of the candidates of all legs that keeps the order of each. The cosines of a query
/// with texts and with images do not compare, so that each is seen from the level of its own leg.
pub(super) fn merge(
    collection: &Collection,
    legs: &[Leg],
    found: &[Vec<Candidate>],
) -> Vec<Ranked> {
    if let [only] = found {
        return (0..only.len())
            .map(|place| Ranked { leg: 0, place })
            .collect();
    }
    let mut keyed: Vec<(f32, Ranked)> = Vec::new();
    for (leg, (of, found)) in legs.iter().zip(found).enumerate() {
        let sample = collection
            .confidence
            .sample(collection, (of.modality, of.aspect));
        let spread = Spread::of(&sample.cosines(of.base.query.as_slice()));
        let level = Level::new(found.iter().map(|candidate| candidate.score), spread);
        let keys = found.iter().map(|candidate| level.key(candidate.score));
        let places = keys
            .enumerate()
            .map(|(place, key)| (key, Ranked { leg, place }));
        keyed.extend(places);
    }
    keyed.sort_unstable_by(|(a, x), (b, y)| {
        let by_key = b.total_cmp(a);
        by_key.then(x.leg.cmp(&y.leg)).then(x.place.cmp(&y.place))
    });
    keyed.into_iter().map(|(_, ranked)| ranked).collect()
}
