//! The graph of an HNSW index, laid out flat.
//!
//! Nodes are numbered so that those of each layer come before those that are only below it, and
//! so that near nodes have near numbers; the search starts at node 0.

use std::collections::VecDeque;

use crate::column::Column;

/// Says that a row of links ends before its place does.
pub(crate) const NONE: u32 = u32::MAX;

/// Lists of numbers, one after the other: list `i` is `targets[offsets[i]..offsets[i + 1]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lists {
    pub(crate) offsets: Column<u32>,
    pub(crate) targets: Column<u32>,
}

impl Lists {
    pub(crate) fn new<'a>(lists: impl IntoIterator<Item = &'a [u32]>) -> Self {
        let (mut offsets, mut targets) = (vec![0], Vec::new());
        for list in lists {
            targets.extend_from_slice(list);
            offsets.push(targets.len() as u32);
        }
        Self {
            offsets: offsets.into(),
            targets: targets.into(),
        }
    }

    /// Number of lists.
    pub(crate) fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    #[inline(always)]
    pub(crate) fn list(&self, i: u32) -> &[u32] {
        let i = i as usize;
        &self.targets[self.offsets[i] as usize..self.offsets[i + 1] as usize]
    }

    /// Whether these are lists, none of them empty, that hold each number below `end` once.
    pub(crate) fn is_partition(&self, end: usize) -> bool {
        let mut seen = vec![false; end];
        self.offsets.first() == Some(&0)
            && self.offsets.last().map(|last| *last as usize) == Some(self.targets.len())
            && self.offsets.is_sorted_by(|a, b| a < b)
            && self.targets.len() == end
            && self.targets.iter().all(|target| {
                let seen = seen.get_mut(*target as usize);
                seen.is_some_and(|seen| !std::mem::replace(seen, true))
            })
    }
}

/// Links of fixed width, so that a node's are found without looking up where they are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Layer {
    /// Places per node.
    pub(crate) width: usize,
    /// `[nodes, width]`; unused places at the end of a row are [`NONE`].
    pub(crate) links: Column<u32>,
}

impl Layer {
    pub(crate) fn new(nodes: usize, width: usize) -> Self {
        let links = vec![NONE; nodes * width].into();
        Self { width, links }
    }

    /// Number of nodes.
    pub(crate) fn len(&self) -> usize {
        self.links.len().checked_div(self.width).unwrap_or(0)
    }

    /// All places of a node.
    #[inline(always)]
    pub(crate) fn places(&self, node: u32) -> &[u32] {
        &self.links[node as usize * self.width..][..self.width]
    }

    #[inline(always)]
    pub(crate) fn places_mut(&mut self, node: u32) -> &mut [u32] {
        &mut self.links.to_mut()[node as usize * self.width..][..self.width]
    }

    /// The links of a node.
    pub(crate) fn list(&self, node: u32) -> &[u32] {
        let places = self.places(node);
        let used = places.iter().position(|target| *target == NONE);
        &places[..used.unwrap_or(self.width)]
    }

    fn is_sound(&self, nodes: usize) -> bool {
        let fits = |target: &u32| *target == NONE || (*target as usize) < nodes;
        self.links.len() == nodes * self.width && self.links.iter().all(fits)
    }
}

/// Links between nodes `0..len`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Graph {
    /// The lowest layer, with every node.
    pub(crate) base: Layer,
    /// The layers above it, lowest first; each has the first few nodes of the one below.
    pub(crate) upper: Vec<Layer>,
}

impl Graph {
    /// Whether every link leads somewhere, so that a search over `nodes` nodes cannot fail.
    pub(crate) fn is_sound(&self, nodes: usize) -> bool {
        let mut below = nodes;
        self.base.is_sound(nodes)
            && self.upper.iter().all(|layer| {
                let sound = layer.is_sound(layer.len()) && (1..=below).contains(&layer.len());
                below = layer.len();
                sound
            })
    }

    /// Gives every node that cannot be reached from node 0 a link from one that can: pruning may
    /// have cut it off. Every node must have a free place in the lowest layer.
    pub(crate) fn tie_in(&mut self) {
        let nodes = self.base.len();
        if nodes == 0 {
            return;
        }
        let mut reached = vec![false; nodes];
        let mut queue = VecDeque::from([0]);
        reached[0] = true;
        let mut next = 0;
        loop {
            while let Some(node) = queue.pop_front() {
                for target in self.base.list(node) {
                    if !std::mem::replace(&mut reached[*target as usize], true) {
                        queue.push_back(*target);
                    }
                }
            }
            while next < nodes && reached[next] {
                next += 1;
            }
            if next == nodes {
                return;
            }
            let host = self.nearest_with_room(next as u32, &reached);
            if let Some(place) = host.and_then(|host| {
                let places = self.base.places_mut(host);
                places.iter_mut().find(|place| **place == NONE)
            }) {
                *place = next as u32;
            }
            reached[next] = true;
            queue.push_back(next as u32);
        }
    }

    /// A reached node with a free place, near to a lost one in links.
    fn nearest_with_room(&self, lost: u32, reached: &[bool]) -> Option<u32> {
        let has_room = |node: u32| self.base.places(node).last() == Some(&NONE);
        let mut seen = vec![false; reached.len()];
        // Node 0 comes in where the links of the lost one lead nowhere.
        for start in [lost, 0] {
            let mut queue = VecDeque::from([start]);
            while let Some(node) = queue.pop_front() {
                if reached[node as usize] && has_room(node) {
                    return Some(node);
                }
                for target in self.base.list(node) {
                    if !std::mem::replace(&mut seen[*target as usize], true) {
                        queue.push_back(*target);
                    }
                }
            }
        }
        None
    }

    /// The order of all nodes in which those near to each other in links stand near to each
    /// other: breadth first from node 0.
    pub(crate) fn breadth_first(&self) -> Vec<u32> {
        let nodes = self.base.len();
        let mut order = Vec::with_capacity(nodes);
        let mut seen = vec![false; nodes];
        for start in 0..nodes as u32 {
            if std::mem::replace(&mut seen[start as usize], true) {
                continue;
            }
            let mut at = order.len();
            order.push(start);
            while at < order.len() {
                for target in self.base.list(order[at]) {
                    if !std::mem::replace(&mut seen[*target as usize], true) {
                        order.push(*target);
                    }
                }
                at += 1;
            }
        }
        order
    }

    /// Renumbers: node `order[i]` becomes `i`. The nodes of each upper layer must stay its first.
    pub(crate) fn renumbered(&self, order: &[u32]) -> Self {
        let mut number = vec![0; order.len()];
        for (i, node) in order.iter().enumerate() {
            number[*node as usize] = i as u32;
        }
        let layer = |layer: &Layer| {
            let mut links = Vec::with_capacity(layer.links.len());
            for node in &order[..layer.len()] {
                let to = |target: &u32| match *target {
                    NONE => NONE,
                    target => number[target as usize],
                };
                links.extend(layer.places(*node).iter().map(to));
            }
            Layer {
                width: layer.width,
                links: links.into(),
            }
        };
        Self {
            base: layer(&self.base),
            upper: self.upper.iter().map(layer).collect(),
        }
    }
}
