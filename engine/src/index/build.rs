//! Links nodes to a graph (Malkov and Yashunin 2018, algorithms 1 and 4), on codes.
//!
//! Distances between nodes are squared lengths in units of the code; the rows are unit, so the
//! order is that of their cosines. The distance of each link is kept while building, since a full
//! list of links is sorted out again and again.

mod hnsw_rs;

use embedding::mix;

use super::{
    code_rows::CodeRows,
    graph::{Graph, Layer, NONE},
    kernel::{self, Kernel, Task},
    walk::{Candidate, Distance, Scratch, descend, walk},
};
use crate::{GraphBuilder, HnswParams};

/// Most layers above the lowest.
const MAX_LEVEL: usize = 15;

/// Links the nodes; `None` when `stop` says so before it is done. Equal arguments give equal
/// graphs. The order says which coded row each node is.
pub(super) fn build(
    codes: &CodeRows,
    params: &HnswParams,
    seed: u64,
    stop: &dyn Fn() -> bool,
) -> Option<(Graph, Vec<u32>)> {
    let (mut graph, order) = match params.builder {
        GraphBuilder::Own => link(codes, params, seed, stop)?,
        GraphBuilder::HnswRs => hnsw_rs::link(codes, params, seed, stop)?,
    };
    graph.tie_in();
    let (near, order) = by_layer_and_nearness(&graph, &order);
    Some((graph.renumbered(&near), order))
}

/// Links all coded rows. The order says which row each node is: nodes of the highest layers come
/// first.
fn link(
    codes: &CodeRows,
    params: &HnswParams,
    seed: u64,
    stop: &dyn Fn() -> bool,
) -> Option<(Graph, Vec<u32>)> {
    let levels = levels(codes.len(), params.m, seed);
    // Nodes of the highest layers first, and otherwise in a random order: rows come sorted by id,
    // and ids often follow the content; linking them in that order would build one neighborhood
    // after the other and leave few links between them.
    let mut order: Vec<u32> = (0..codes.len() as u32).collect();
    order.sort_unstable_by_key(|row| {
        let level = levels[*row as usize];
        (std::cmp::Reverse(level), mix(seed ^ u64::from(*row)), *row)
    });
    let codes = codes.arranged(order.iter().copied()).settled();
    let levels: Vec<usize> = order.iter().map(|row| levels[*row as usize]).collect();
    let task = Link {
        codes: &codes,
        levels: &levels,
        params,
        stop,
    };
    Some((kernel::run(task)?, order))
}

/// Level of each node: exponentially distributed, with `1 / ln(m)` as its scale.
fn levels(nodes: usize, m: usize, seed: u64) -> Vec<usize> {
    let scale = 1.0 / (m as f64).ln();
    let level = |node: u64| {
        let uniform = ((mix(mix(seed) ^ mix(node)) >> 11) + 1) as f64 / (1_u64 << 53) as f64;
        ((-uniform.ln() * scale) as usize).min(MAX_LEVEL)
    };
    (0..nodes as u64).map(level).collect()
}

/// The new order of nodes, as numbers of the old one and as rows: layer by layer, and near nodes
/// near to each other.
fn by_layer_and_nearness(graph: &Graph, rows: &[u32]) -> (Vec<u32>, Vec<u32>) {
    let layers_of = |node: u32| {
        let in_layer = |layer: &&Layer| (node as usize) < layer.len();
        graph.upper.iter().take_while(in_layer).count()
    };
    let mut near = graph.breadth_first();
    // Stable, so that within a layer the order stays.
    near.sort_by_key(|node| std::cmp::Reverse(layers_of(*node)));
    let order = near.iter().map(|node| rows[*node as usize]).collect();
    (near, order)
}

/// Links all nodes, which come in the order of their levels.
struct Link<'a> {
    codes: &'a CodeRows,
    levels: &'a [usize],
    params: &'a HnswParams,
    stop: &'a dyn Fn() -> bool,
}

impl Task for Link<'_> {
    type Output = Option<Graph>;

    #[inline(always)]
    fn run<K: Kernel>(self, kernel: K) -> Option<Graph> {
        let Self {
            codes,
            levels,
            params,
            stop,
        } = self;
        let mut linker = Linker::new(codes, levels, params.m);
        let mut scratch = Scratch::default();
        for node in 1..levels.len() as u32 {
            if stop() {
                return None;
            }
            linker.add(kernel, node, params.ef_construction, &mut scratch);
        }
        Some(linker.graph)
    }
}

/// Squared length of codes.
fn square(codes: &[i8]) -> i32 {
    codes.iter().map(|c| i32::from(*c) * i32::from(*c)).sum()
}

/// Squared lengths from a node.
#[derive(Clone, Copy)]
struct ToNode<'a, K> {
    kernel: K,
    codes: &'a CodeRows,
    squares: &'a [i32],
    row: &'a [i8],
    sum: i32,
    square: i32,
}

impl<K: Kernel> Distance for ToNode<'_, K> {
    #[inline(always)]
    fn to(self, node: u32) -> i32 {
        let product = self
            .kernel
            .dot_codes(self.codes.row(node), self.row, self.sum);
        self.square + self.squares[node as usize] - 2 * product
    }
}

struct Linker<'a> {
    codes: &'a CodeRows,
    levels: &'a [usize],
    /// Sum of the codes of each node.
    sums: Vec<i32>,
    /// Squared length of each node's codes.
    squares: Vec<i32>,
    graph: Graph,
    /// Distance of each link of the graph, in the same places; the lowest layer first.
    distances: Vec<Vec<i32>>,
    m: usize,
    chosen: Vec<Candidate>,
    crowd: Vec<Candidate>,
}

impl<'a> Linker<'a> {
    fn new(codes: &'a CodeRows, levels: &'a [usize], m: usize) -> Self {
        let rows = || (0..codes.len() as u32).map(|i| codes.row(i));
        let nodes_above = |level: usize| levels.partition_point(|l| *l > level);
        let upper = (0..levels.first().copied().unwrap_or(0))
            .map(|level| Layer::new(nodes_above(level), m))
            .collect();
        let graph = Graph {
            base: Layer::new(levels.len(), 2 * m),
            upper,
        };
        let places = |layer: &Layer| vec![0; layer.links.len()];
        Self {
            sums: rows().map(kernel::sum).collect(),
            squares: rows().map(square).collect(),
            distances: std::iter::once(&graph.base)
                .chain(&graph.upper)
                .map(places)
                .collect(),
            codes,
            levels,
            graph,
            m,
            chosen: Vec::new(),
            crowd: Vec::new(),
        }
    }

    /// Links a node with those before it.
    #[inline(always)]
    fn add<K: Kernel>(&mut self, kernel: K, node: u32, ef: usize, scratch: &mut Scratch) {
        let level = self.levels[node as usize];
        let codes = self.codes;
        let squares = std::mem::take(&mut self.squares);
        let distance = ToNode {
            kernel,
            codes,
            squares: &squares,
            row: codes.row(node),
            sum: self.sums[node as usize],
            square: squares[node as usize],
        };
        let mut best = Candidate::new(distance.to(0), 0);
        for layer in self.graph.upper[level..].iter().rev() {
            best = descend(layer, best, distance);
        }
        for layer in (0..=level.min(self.graph.upper.len())).rev() {
            let links = match layer {
                0 => &self.graph.base,
                _ => &self.graph.upper[layer - 1],
            };
            walk(kernel, (codes, links), best, ef, distance, scratch);
            best = Candidate::new(scratch.pool[0].distance, scratch.pool[0].node());
            self.choose(kernel, &squares, &scratch.pool, self.m);
            self.link(kernel, &squares, layer, node);
        }
        self.squares = squares;
    }

    /// Chooses up to `most` of the candidates, which come nearest first: those that are nearer to
    /// the node than to all chosen before (algorithm 4).
    #[inline(always)]
    fn choose<K: Kernel>(
        &mut self,
        kernel: K,
        squares: &[i32],
        candidates: &[Candidate],
        most: usize,
    ) {
        self.chosen.clear();
        for candidate in candidates {
            if self.chosen.len() >= most {
                return;
            }
            let node = candidate.node();
            let distance = ToNode {
                kernel,
                codes: self.codes,
                squares,
                row: self.codes.row(node),
                sum: self.sums[node as usize],
                square: squares[node as usize],
            };
            let mut apart = true;
            for other in &self.chosen {
                // Of equal nodes only one is linked: many of them would leave no place for others.
                if distance.to(other.node()) <= candidate.distance {
                    apart = false;
                    break;
                }
            }
            if apart {
                self.chosen.push(Candidate::new(candidate.distance, node));
            }
        }
    }

    /// Links `node` with the chosen ones in a layer, both ways. In the lowest one, a place of
    /// each node stays free for [`Graph::tie_in`].
    #[inline(always)]
    fn link<K: Kernel>(&mut self, kernel: K, squares: &[i32], layer: usize, node: u32) {
        let neighbors = std::mem::take(&mut self.chosen);
        let mut crowd = std::mem::take(&mut self.crowd);
        self.write(layer, node, &neighbors);
        for neighbor in &neighbors {
            let (to, distance) = (neighbor.node(), neighbor.distance);
            let links = self.layer(layer).places(to);
            let most = links.len() - usize::from(layer == 0);
            let free = links.iter().position(|link| *link == NONE);
            let used = free.unwrap_or(links.len());
            if used < most {
                let at = to as usize * links.len() + used;
                self.layer_mut(layer).links.to_mut()[at] = node;
                self.distances[layer][at] = distance;
                continue;
            }
            let start = to as usize * links.len();
            crowd.clear();
            let distances = &self.distances[layer][start..start + used];
            let old = links.iter().zip(distances);
            crowd.extend(old.map(|(link, distance)| Candidate::new(*distance, *link)));
            crowd.push(Candidate::new(distance, node));
            crowd.sort_unstable();
            self.choose(kernel, squares, &crowd, most);
            let kept = std::mem::take(&mut self.chosen);
            self.write(layer, to, &kept);
            self.chosen = kept;
        }
        self.crowd = crowd;
        self.chosen = neighbors;
    }

    /// Makes these the links of a node.
    #[inline(always)]
    fn write(&mut self, layer: usize, node: u32, links: &[Candidate]) {
        let width = self.layer(layer).width;
        let start = node as usize * width;
        let distances = &mut self.distances[layer][start..start + width];
        for (place, link) in distances.iter_mut().zip(links) {
            *place = link.distance;
        }
        let places = self.layer_mut(layer).places_mut(node);
        places.fill(NONE);
        for (place, link) in places.iter_mut().zip(links) {
            *place = link.node();
        }
    }

    #[inline(always)]
    fn layer(&self, layer: usize) -> &Layer {
        match layer {
            0 => &self.graph.base,
            _ => &self.graph.upper[layer - 1],
        }
    }

    #[inline(always)]
    fn layer_mut(&mut self, layer: usize) -> &mut Layer {
        match layer {
            0 => &mut self.graph.base,
            _ => &mut self.graph.upper[layer - 1],
        }
    }
}
