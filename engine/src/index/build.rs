//! Builds the graph. The only module that names `hnsw_rs`.
//!
//! `hnsw_rs` ends the process on some settings, asserts on distances that rounding can break, loses
//! points among many duplicates, and prunes in a way that can cut nodes off. So it is only asked to
//! link nodes: it sees distinct rows, checked settings and our own distance; the result is taken
//! out of it, and nodes that were cut off are tied in again.

use std::{cmp::Ordering, collections::VecDeque};

use embedding::mix;
use hnsw_rs::prelude::{Distance, Hnsw as Builder};

use super::{
    Rows,
    graph::{Graph, Layer, Links},
    rows::dot,
};
use crate::HnswParams;

/// Most layers; that of `hnsw_rs`.
const MAX_LAYERS: usize = 16;

/// Cosine distance between nodes, which are known by number so that no row is copied.
struct NodeDistance<'a> {
    rows: &'a Rows,
    members: &'a Links,
}

impl Distance<u32> for NodeDistance<'_> {
    fn eval(&self, a: &[u32], b: &[u32]) -> f32 {
        let row = |node: &[u32]| self.rows.row(self.members.list(node[0])[0] as usize);
        // Rounding can bring the dot product of unit rows above 1; `hnsw_rs` asserts it does not.
        (1.0 - dot(row(a), row(b))).max(0.0)
    }
}

/// Builds the graph of `rows`; `None` when `stop` says so before it is done. Equal arguments give
/// equal graphs.
pub(super) fn build(
    rows: &Rows,
    params: &HnswParams,
    seed: u64,
    stop: &dyn Fn() -> bool,
) -> Option<Graph> {
    let members = distinct(rows);
    let nodes = members.len();
    if nodes == 0 {
        return Some(Graph::default());
    }
    let distance = NodeDistance {
        rows,
        members: &members,
    };
    let builder = Builder::new(
        params.m,
        nodes,
        MAX_LAYERS,
        params.ef_construction,
        distance,
    );
    // Rows come sorted by id, and ids often follow the content: linking them in that order would
    // build one neighborhood after the other and leave few links between them.
    for node in shuffled(nodes as u32, seed) {
        if stop() {
            return None;
        }
        builder.insert((&[node], node as usize));
    }
    let (entry, mut base, upper) = extract(&builder, nodes);
    drop(builder);
    tie_in(entry, &mut base);
    let base = Links::from_lists(base.iter().map(Vec::as_slice));
    Some(Graph {
        entry,
        members,
        base,
        upper,
    })
}

/// Groups of identical rows, ordered by their first row.
fn distinct(rows: &Rows) -> Links {
    let mut order: Vec<u32> = (0..rows.len() as u32).collect();
    let compare = |a: &u32, b: &u32| {
        let (a, b) = (rows.row(*a as usize), rows.row(*b as usize));
        a.partial_cmp(b).unwrap_or(Ordering::Equal)
    };
    order.sort_by(compare);
    let mut groups: Vec<&[u32]> = order
        .chunk_by(|a, b| compare(a, b) == Ordering::Equal)
        .collect();
    // The sort is stable, so each group is ascending.
    groups.sort_by_key(|group| group[0]);
    Links::from_lists(groups)
}

/// `0..len` in a random order (Fisher and Yates).
fn shuffled(len: u32, seed: u64) -> Vec<u32> {
    let mut order: Vec<u32> = (0..len).collect();
    let mut state = seed;
    for i in (1..order.len()).rev() {
        state = mix(state);
        order.swap(i, (state % (i as u64 + 1)) as usize);
    }
    order
}

/// The entry node, the links of every node in the lowest layer, and the layers above.
fn extract(
    builder: &Builder<'_, u32, NodeDistance<'_>>,
    nodes: usize,
) -> (u32, Vec<Vec<u32>>, Vec<Layer>) {
    let points = builder.get_point_indexation();
    let top = usize::from(points.get_max_level_observed());
    let mut base = vec![Vec::new(); nodes];
    let mut upper: Vec<Vec<(u32, Vec<u32>)>> = vec![Vec::new(); top];
    let mut level_of = vec![0; nodes];
    let mut entry = 0;
    for level in 0..=top {
        for point in points.get_layer_iterator(level) {
            let node = point.get_origin_id() as u32;
            level_of[node as usize] = level;
            if level == top {
                entry = node;
            }
            for (layer, neighbors) in point
                .get_neighborhood_id()
                .iter()
                .enumerate()
                .take(level + 1)
            {
                let links = neighbors
                    .iter()
                    .map(|n| n.d_id as u32)
                    .filter(|n| *n != node);
                let links: Vec<u32> = links.collect();
                match layer {
                    0 => base[node as usize] = links,
                    _ => upper[layer - 1].push((node, links)),
                }
            }
        }
    }
    let layers = upper.into_iter().enumerate().map(|(i, mut lists)| {
        lists.sort_unstable_by_key(|(node, _)| *node);
        let mut layer = Layer::default();
        for (node, mut links) in lists {
            links.retain(|target| level_of[*target as usize] > i);
            layer.nodes.push(node);
            layer.links.push(&links);
        }
        layer
    });
    (entry, base, layers.collect())
}

/// Gives every node that cannot be reached from the entry a link from one that can.
fn tie_in(entry: u32, base: &mut [Vec<u32>]) {
    let mut reached = vec![false; base.len()];
    let mut queue = VecDeque::from([entry]);
    reached[entry as usize] = true;
    let mut next = 0;
    loop {
        while let Some(node) = queue.pop_front() {
            for target in &base[node as usize] {
                if !std::mem::replace(&mut reached[*target as usize], true) {
                    queue.push_back(*target);
                }
            }
        }
        while next < base.len() && reached[next] {
            next += 1;
        }
        if next == base.len() {
            return;
        }
        // Links are sorted by distance, so this is the nearest reached one.
        let near = base[next]
            .iter()
            .copied()
            .find(|target| reached[*target as usize]);
        base[near.unwrap_or(entry) as usize].push(next as u32);
        reached[next] = true;
        queue.push_back(next as u32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::rows::clustered;

    #[test]
    fn every_node_is_reached_and_equal_seeds_build_equal_graphs() {
        let rows = clustered(2000, 16, 50, 3, 1);
        let params = HnswParams {
            m: 4,
            ef_construction: 16,
            ef_search: 16,
        };
        let graph = build(&rows, &params, 5, &|| false).expect("nobody stops it");
        assert!(graph.is_sound(rows.len()));
        let mut base: Vec<Vec<u32>> = (0..2000)
            .map(|node| graph.base.list(node).to_vec())
            .collect();
        let before = base.clone();
        tie_in(graph.entry, &mut base);
        assert_eq!(base, before, "all nodes are tied in already");
        assert_eq!(build(&rows, &params, 5, &|| false), Some(graph));
    }

    #[test]
    fn identical_rows_are_one_node() {
        let rows = clustered(90, 8, 5, 1, 2);
        let members = distinct(&rows);
        assert!(members.len() < 90, "some rows come again");
        assert_eq!(members.targets.len(), 90, "every row belongs to a node");
        for node in 0..members.len() as u32 {
            let group = members.list(node);
            assert!(group.is_sorted());
            assert!(
                group
                    .iter()
                    .all(|r| rows.row(*r as usize) == rows.row(group[0] as usize))
            );
        }
    }

    #[test]
    fn a_build_can_be_stopped() {
        let rows = clustered(50, 8, 5, 1, 1);
        assert_eq!(build(&rows, &HnswParams::default(), 1, &|| true), None);
    }
}
