//! The best few of many.

use std::{cmp::Ordering, collections::BinaryHeap};

use super::Neighbor;

/// The best `k` neighbors seen so far.
#[derive(Debug)]
pub(crate) struct TopK {
    k: usize,
    /// The worst on top.
    heap: BinaryHeap<Ranked>,
}

#[derive(Debug, Clone, Copy)]
struct Ranked(Neighbor);

impl PartialEq for Ranked {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Ranked {}

impl PartialOrd for Ranked {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Ranked {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.rank(&other.0)
    }
}

impl TopK {
    pub(crate) fn new(k: usize) -> Self {
        Self {
            k,
            heap: BinaryHeap::with_capacity(k + 1),
        }
    }

    /// Whether a neighbor with this score could still matter.
    pub(crate) fn wants(&self, score: f32) -> bool {
        self.heap.len() < self.k
            || self
                .heap
                .peek()
                .is_some_and(|worst| score >= worst.0.score.0)
    }

    pub(crate) fn push(&mut self, neighbor: Neighbor) {
        self.heap.push(Ranked(neighbor));
        if self.heap.len() > self.k {
            self.heap.pop();
        }
    }

    /// Best first.
    pub(crate) fn into_sorted(self) -> Vec<Neighbor> {
        self.heap
            .into_sorted_vec()
            .into_iter()
            .map(|ranked| ranked.0)
            .collect()
    }
}
