//! The walk over a graph (Malkov and Yashunin 2018, algorithm 2), and the memory that it works in.

use std::{cell::RefCell, cmp::Reverse, collections::BinaryHeap};

use super::{
    code_rows::CodeRows,
    graph::{Layer, Lists, NONE},
    kernel::Kernel,
};

/// Bytes of codes that are on their way to the cache while a row is compared: about as many lines
/// as a core can wait for at a time.
const AHEAD_BYTES: usize = 24 * 64;
/// Marks a candidate whose links have been followed. So an index has at most 2^31 nodes.
const FOLLOWED: u32 = 1 << 31;

/// A node and its distance in some unit, less is nearer. Ordered by distance, ties by node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Candidate {
    pub(super) distance: i32,
    node: u32,
}

impl Candidate {
    pub(super) fn new(distance: i32, node: u32) -> Self {
        Self { distance, node }
    }

    #[inline(always)]
    pub(super) fn node(self) -> u32 {
        self.node & !FOLLOWED
    }
}

/// Memory of one walk, used again by the next one on the same thread: about one byte per node of
/// the largest index that the thread has searched.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    /// Nodes whose stamp is that of this walk have been seen.
    stamps: Vec<u8>,
    stamp: u8,
    /// The nearest nodes found, in order.
    pub(super) pool: Vec<Candidate>,
    /// Nodes seen.
    pub(super) seen: usize,
    fresh: Vec<u32>,
    /// A row of each node in the pool, once [`Scratch::keep_near`] was called.
    pub(super) near: Vec<u32>,
}

impl Scratch {
    /// Runs `f` with the memory of this thread.
    pub(super) fn with<R>(f: impl FnOnce(&mut Self) -> R) -> R {
        thread_local! {
            static MINE: RefCell<Scratch> = RefCell::default();
        }
        MINE.with_borrow_mut(f)
    }

    /// Nothing is seen and nothing found.
    fn begin(&mut self, nodes: usize) {
        if self.stamps.len() < nodes {
            self.stamps.resize(nodes, self.stamp);
        }
        self.stamp = self.stamp.wrapping_add(1);
        if self.stamp == 0 {
            self.stamps.fill(0);
            self.stamp = 1;
        }
        self.pool.clear();
        self.seen = 0;
    }

    /// Marks a node; whether it was new.
    #[inline(always)]
    fn see(&mut self, node: u32) -> bool {
        std::mem::replace(&mut self.stamps[node as usize], self.stamp) != self.stamp
    }

    /// The links of a node that lead to nodes not seen yet go to `fresh`.
    #[inline(always)]
    fn follow(&mut self, layer: &Layer, node: u32) {
        self.fresh.clear();
        for target in layer.places(node) {
            if *target == NONE {
                break;
            }
            if self.see(*target) {
                self.fresh.push(*target);
            }
        }
        self.seen += self.fresh.len();
    }

    /// Orders the candidates by another distance, which reads these codes.
    #[inline(always)]
    pub(super) fn rank_again<K: Kernel>(
        &mut self,
        kernel: K,
        codes: &CodeRows,
        distance: impl Distance,
    ) {
        let ahead = (AHEAD_BYTES / codes.stride()).max(1);
        for candidate in self.pool.iter().take(ahead) {
            kernel.prefetch(codes.row(candidate.node()));
        }
        for i in 0..self.pool.len() {
            if let Some(next) = self.pool.get(i + ahead) {
                kernel.prefetch(codes.row(next.node()));
            }
            let node = self.pool[i].node();
            self.pool[i] = Candidate::new(distance.to(node), node);
        }
        self.pool.sort_unstable();
    }

    /// Leaves the `most` nearest live candidates in the pool, and finds a row of each: all at
    /// once, so that no one waits for the memory of another.
    #[inline(always)]
    pub(super) fn keep_near(&mut self, most: usize, members: &Lists, live: impl Fn(u32) -> bool) {
        let mut kept = 0;
        for i in 0..self.pool.len() {
            if kept == most {
                break;
            }
            if live(self.pool[i].node()) {
                self.pool[kept] = self.pool[i];
                kept += 1;
            }
        }
        self.pool.truncate(kept);
        self.near.clear();
        for candidate in &self.pool {
            self.near.push(members.list(candidate.node())[0]);
        }
    }

    /// Takes a candidate in if it is among the `most` nearest; where it stands then.
    #[inline(always)]
    fn take(&mut self, candidate: Candidate, most: usize) -> usize {
        if self.pool.len() >= most {
            match self.pool.last() {
                Some(last) if candidate.distance < last.distance => self.pool.pop(),
                _ => return usize::MAX,
            };
        }
        let at = self
            .pool
            .partition_point(|c| c.distance <= candidate.distance);
        self.pool.insert(at, candidate);
        at
    }
}

/// Distances from where a walk wants to go. A trait and no closure: only a method can be made part
/// of the loop that calls it, whatever the compiler thinks of its size.
pub(super) trait Distance: Copy {
    /// To a node; less is nearer.
    fn to(self, node: u32) -> i32;
}

/// Goes to the nearest node from link to link, until none is nearer.
#[inline(always)]
pub(super) fn descend(layer: &Layer, mut best: Candidate, distance: impl Distance) -> Candidate {
    loop {
        let mut nearest = best;
        for target in layer.places(best.node) {
            if *target == NONE {
                break;
            }
            let next = Candidate::new(distance.to(*target), *target);
            if next.distance < nearest.distance {
                nearest = next;
            }
        }
        if nearest.node == best.node {
            return best;
        }
        best = nearest;
    }
}

/// Leaves about the `ef` nearest nodes of a layer in the pool, nearest first.
#[inline(always)]
pub(super) fn walk<K: Kernel>(
    kernel: K,
    (codes, layer): (&CodeRows, &Layer),
    start: Candidate,
    ef: usize,
    distance: impl Distance,
    scratch: &mut Scratch,
) {
    let ahead = (AHEAD_BYTES / codes.stride()).max(1);
    scratch.begin(layer.len());
    scratch.see(start.node);
    scratch.take(start, ef);
    let mut at = 0;
    while at < scratch.pool.len() {
        let nearest = scratch.pool[at];
        if nearest.node & FOLLOWED != 0 {
            at += 1;
            continue;
        }
        scratch.pool[at].node |= FOLLOWED;
        scratch.follow(layer, nearest.node);
        let mut next = at + 1;
        for i in 0..scratch.fresh.len().min(ahead) {
            kernel.prefetch(codes.row(scratch.fresh[i]));
        }
        for i in 0..scratch.fresh.len() {
            if let Some(next) = scratch.fresh.get(i + ahead) {
                kernel.prefetch(codes.row(*next));
            }
            let node = scratch.fresh[i];
            let stands = scratch.take(Candidate::new(distance.to(node), node), ef);
            next = next.min(stands);
        }
        at = next;
        if let Some(candidate) = scratch.pool.get(at) {
            kernel.prefetch(layer.places(candidate.node()));
        }
    }
}

/// Like [`walk`], but only live nodes count among the `ef`; others are passed through. Gives up
/// after `budget` nodes; whether it came to an end.
#[inline(always)]
pub(super) fn walk_live<K: Kernel>(
    kernel: K,
    (codes, layer): (&CodeRows, &Layer),
    start: Candidate,
    (ef, budget): (usize, usize),
    distance: impl Distance,
    live: impl Fn(u32) -> bool,
    scratch: &mut Scratch,
) -> bool {
    scratch.begin(layer.len());
    scratch.see(start.node);
    let mut open = BinaryHeap::from([Reverse(start)]);
    if live(start.node) {
        scratch.take(start, ef);
    }
    while let Some(Reverse(nearest)) = open.pop() {
        let full = scratch.pool.len() >= ef;
        if full
            && scratch
                .pool
                .last()
                .is_some_and(|worst| nearest.distance > worst.distance)
        {
            return true;
        }
        scratch.follow(layer, nearest.node);
        if scratch.seen > budget {
            return false;
        }
        for i in 0..scratch.fresh.len() {
            kernel.prefetch(codes.row(scratch.fresh[i]));
        }
        for i in 0..scratch.fresh.len() {
            let node = scratch.fresh[i];
            let next = Candidate::new(distance.to(node), node);
            let worst = scratch.pool.last().filter(|_| scratch.pool.len() >= ef);
            if worst.is_some_and(|worst| next.distance >= worst.distance) {
                continue;
            }
            open.push(Reverse(next));
            if live(node) {
                scratch.take(next, ef);
            }
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pool_keeps_the_nearest_in_order() {
        let mut scratch = Scratch::default();
        scratch.begin(10);
        for (node, distance) in [(1, 50), (2, 10), (3, 30), (4, 10), (5, 70)] {
            scratch.take(Candidate::new(distance, node), 3);
        }
        let nodes: Vec<u32> = scratch.pool.iter().map(|c| c.node()).collect();
        assert_eq!(nodes, [2, 4, 3]);
    }

    #[test]
    fn stamps_of_earlier_walks_do_not_count_even_when_their_numbers_come_again() {
        let mut scratch = Scratch::default();
        for walk in 0..600 {
            // Larger and smaller indexes in turn, as on a thread that searches several.
            scratch.begin(if walk % 3 == 0 { 20 } else { 10 });
            assert!(scratch.see(7), "walk {walk}");
            assert!(!scratch.see(7), "walk {walk}");
        }
    }
}
