//! The same graph linked by the crate `hnsw_rs`, to compare with. The only module that names it.
//!
//! `hnsw_rs` ends the process on some settings, asserts on distances that rounding can break, and
//! prunes in a way that can cut nodes off. So it is only asked to link nodes: it sees rows whose
//! codes differ, checked settings and our own distance; the result is taken out of it.

use std::cmp::Reverse;

use embedding::mix;
use hnsw_rs::prelude::{Distance, Hnsw as Builder};

use super::{CodeRows, Graph, HnswParams, Layer, MAX_LEVEL};
use crate::index::kernel::{self, Kernel, Task};

/// Squared length between coded rows, which are known by number so that no row is copied.
struct Between<'a> {
    codes: &'a CodeRows,
    sums: Vec<i32>,
    squares: Vec<i32>,
}

impl Distance<u32> for Between<'_> {
    fn eval(&self, a: &[u32], b: &[u32]) -> f32 {
        struct Product<'a>(&'a [i8], &'a [i8], i32);

        impl Task for Product<'_> {
            type Output = i32;

            #[inline(always)]
            fn run<K: Kernel>(self, kernel: K) -> i32 {
                kernel.dot_codes(self.0, self.1, self.2)
            }
        }

        let (a, b) = (a[0], b[0]);
        let rows = (self.codes.row(a), self.codes.row(b));
        let product = kernel::run(Product(rows.0, rows.1, self.sums[b as usize]));
        (self.squares[a as usize] + self.squares[b as usize] - 2 * product) as f32
    }
}

/// Links all coded rows. The order says which row each node is: nodes of the highest layers come
/// first.
pub(super) fn link(
    codes: &CodeRows,
    params: &HnswParams,
    seed: u64,
    stop: &dyn Fn() -> bool,
) -> Option<(Graph, Vec<u32>)> {
    let count = codes.len();
    let rows = || (0..count as u32).map(|row| codes.row(row));
    let between = Between {
        codes,
        sums: rows().map(kernel::sum).collect(),
        squares: rows().map(super::square).collect(),
    };
    let layers = MAX_LEVEL + 1;
    let builder = Builder::new(params.m, count, layers, params.ef_construction, between);
    let mut order: Vec<u32> = (0..count as u32).collect();
    order.sort_unstable_by_key(|row| mix(seed ^ u64::from(*row)));
    for row in &order {
        if stop() {
            return None;
        }
        builder.insert((&[*row], *row as usize));
    }
    let lists = lists(&builder, count);
    order.sort_by_key(|row| Reverse(lists[*row as usize].len()));
    Some((laid_out(&lists, &order, params.m), order))
}

/// The links of each row, one list for each layer that it is in, the lowest first.
fn lists(builder: &Builder<'_, u32, Between<'_>>, count: usize) -> Vec<Vec<Vec<u32>>> {
    let points = builder.get_point_indexation();
    let mut lists = vec![vec![Vec::new()]; count];
    for level in 0..=usize::from(points.get_max_level_observed()) {
        for point in points.get_layer_iterator(level) {
            let row = point.get_origin_id();
            let of_layer = |links: &Vec<hnsw_rs::prelude::Neighbour>| {
                let others = links.iter().map(|link| link.d_id).filter(|to| *to != row);
                others.map(|to| to as u32).collect()
            };
            let layers = point.get_neighborhood_id();
            lists[row] = layers[..=level].iter().map(of_layer).collect();
        }
    }
    lists
}

fn laid_out(lists: &[Vec<Vec<u32>>], order: &[u32], m: usize) -> Graph {
    let mut number = vec![0; order.len()];
    for (node, row) in order.iter().enumerate() {
        number[*row as usize] = node as u32;
    }
    let layers = order.first().map_or(1, |row| lists[*row as usize].len());
    let layer = |level: usize| {
        let width = if level == 0 { 2 * m } else { m };
        // A place stays free in the lowest layer, as where we link ourselves.
        let most = width - usize::from(level == 0);
        let nodes = order.partition_point(|row| lists[*row as usize].len() > level);
        let mut layer = Layer::new(nodes, width);
        for (node, row) in order[..nodes].iter().enumerate() {
            let links = lists[*row as usize][level]
                .iter()
                .map(|to| number[*to as usize]);
            let links = links.filter(|to| (*to as usize) < nodes).take(most);
            for (place, link) in layer.places_mut(node as u32).iter_mut().zip(links) {
                *place = link;
            }
        }
        layer
    };
    Graph {
        base: layer(0),
        upper: (1..layers).map(layer).collect(),
    }
}
