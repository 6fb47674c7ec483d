//! Images and texts in one list.

use super::leg::Candidate;

/// A candidate: which leg, and which of its list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ranked {
    pub(super) leg: usize,
    pub(super) place: usize,
}

/// One order of the candidates of all legs that keeps the order of each. Cosines of a query with
/// texts and with images are not comparable, so the best of each leg take turns.
pub(super) fn merge(found: &[Vec<Candidate>]) -> Vec<Ranked> {
    let longest = found.iter().map(Vec::len).max().unwrap_or(0);
    let places = (0..longest).flat_map(|place| (0..found.len()).map(move |leg| (leg, place)));
    places
        .filter(|(leg, place)| *place < found[*leg].len())
        .map(|(leg, place)| Ranked { leg, place })
        .collect()
}
