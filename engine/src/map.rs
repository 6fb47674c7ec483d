//! A map of a collection: its items as points of a plane, near to what they are like.
//!
//! Two ways: the two directions in which the rows differ most (`pca.rs`), and t-SNE (van der Maaten
//! 2014, the Barnes-Hut form, by the crate bhtsne), which keeps neighbors together and starts from the
//! first. Both follow from the rows alone.

use embedding::{Aspect, Modality};

use crate::{EngineError, collection::Collection, item::hash_of, shard::View};

mod pca;

/// Rounds of t-SNE.
const EPOCHS: usize = 500;
/// Of its neighbors, about how many count; fewer where there are few items.
const PERPLEXITY: f32 = 30.0;
/// Its accuracy: cells that look smaller than this count as one point.
const THETA: f32 = 0.5;
/// Numbers that are left of a row before neighbors are looked for.
const REDUCED: usize = 32;
/// Deviation of the plane that t-SNE starts from.
const START: f32 = 1e-4;
/// Rows below which there are no neighbors to keep together.
const LEAST_ROWS: usize = 16;
/// The part of the work that is over when t-SNE begins.
const BEFORE: f32 = 0.1;

/// How the plane is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MapMethod {
    /// Principal components: distances across the whole mean something.
    Pca,
    /// t-SNE: neighborhoods mean something.
    Tsne,
}

/// Items as points.
#[derive(Debug, Clone, PartialEq)]
pub struct Map {
    /// Their ids.
    pub ids: Vec<String>,
    /// Their places from left to right, -1 to 1.
    pub xs: Vec<f32>,
    /// Their places from top to bottom, -1 to 1.
    pub ys: Vec<f32>,
    /// Items of the modality that there were, shown or not.
    pub of: usize,
}

impl Collection {
    /// The version that the next write gets: while it stays the same, so do all items.
    pub fn next_version(&self) -> u64 {
        self.versions.next()
    }

    /// Lays out at most `limit` items of a modality by their shared embeddings, always the same ones of
    /// the same items. `told` hears how much is done, 0 to 1. It takes seconds to minutes.
    ///
    /// # Errors
    /// When there is no item of the modality.
    pub fn map(
        &self,
        modality: Modality,
        method: MapMethod,
        limit: usize,
        told: &dyn Fn(f32),
    ) -> Result<Map, EngineError> {
        let views: Vec<View> = {
            let state = self.state.read();
            let of = (modality, Aspect::Shared);
            let shards = state
                .shards()
                .filter(|(key, _)| (key.modality, key.aspect) == of);
            shards.map(|(_, shard)| shard.view.clone()).collect()
        };
        let (ids, rows, of) = chosen(&views, self.spaces().shared_dim, limit);
        drop(views);
        if ids.is_empty() {
            return Err(EngineError::BadSearch {
                field: "target",
                reason: format!("collection {} has no {modality}s", self.name()),
            });
        }
        let dim = self.spaces().shared_dim;
        let kept = if method == MapMethod::Pca { 2 } else { REDUCED };
        let reduced = pca::reduce(&rows, dim, kept);
        drop(rows);
        told(BEFORE);
        let kept = kept.min(dim);
        let mut plane: Vec<f32> = reduced
            .chunks_exact(kept)
            .flat_map(|row| [row[0], row.get(1).copied().unwrap_or(0.0)])
            .collect();
        if method == MapMethod::Tsne && ids.len() >= LEAST_ROWS {
            plane = neighbors(&reduced, kept, &plane, told);
        }
        let (xs, ys) = into_square(&plane);
        Ok(Map { ids, xs, ys, of })
    }
}

/// Ids and rows `[n, dim]` of those with the lowest hashes, and how many there were.
fn chosen(views: &[View], dim: usize, limit: usize) -> (Vec<String>, Vec<f32>, usize) {
    let mut all: Vec<(u64, usize, usize)> = Vec::new();
    for (shard, view) in views.iter().enumerate() {
        let alive = (0..view.rows()).filter(|row| view.is_alive(*row));
        let whole = alive.filter(|row| view.row(*row).iter().all(|x| x.is_finite()));
        all.extend(whole.map(|row| (hash_of(view.id(row)), shard, row)));
    }
    let of = all.len();
    // Ties are decided by the id: rows lie in whatever order they came.
    let order = |(hash, shard, row): &(u64, usize, usize)| (*hash, views[*shard].id(*row));
    all.sort_unstable_by(|a, b| order(a).cmp(&order(b)));
    all.truncate(limit);
    let mut ids = Vec::with_capacity(all.len());
    let mut rows = Vec::with_capacity(all.len() * dim);
    for (_, shard, row) in all {
        ids.push(views[shard].id(row).to_owned());
        rows.extend_from_slice(views[shard].row(row));
    }
    (ids, rows, of)
}

/// t-SNE of rows `[n, dim]`, begun at `plane` `[n, 2]`.
fn neighbors(rows: &[f32], dim: usize, plane: &[f32], told: &dyn Fn(f32)) -> Vec<f32> {
    let points: Vec<&[f32]> = rows.chunks_exact(dim).collect();
    let spread = (plane.iter().map(|x| x * x).sum::<f32>() / plane.len() as f32).sqrt();
    let scale = START / spread.max(f32::MIN_POSITIVE);
    let start: Vec<f32> = plane.iter().map(|x| x * scale).collect();
    let far = |a: &&[f32], b: &&[f32]| {
        let squares = a.iter().zip(*b).map(|(a, b)| (a - b) * (a - b));
        squares.sum::<f32>().sqrt()
    };
    let mut plan: bhtsne::tSNE<'_, f32, &[f32]> = bhtsne::tSNE::new(&points);
    // It wants three times as many neighbors as its perplexity.
    plan.perplexity(PERPLEXITY.min((points.len() - 1) as f32 / 4.0))
        .epochs(EPOCHS)
        .initial_embedding(start)
        .epoch_callback(|epoch, _| {
            told(BEFORE + (1.0 - BEFORE) * (epoch + 1) as f32 / EPOCHS as f32);
        })
        .barnes_hut(THETA, far);
    plan.embedding()
}

/// Points `[n, 2]`, moved and scaled into the square from -1 to 1, all alike.
fn into_square(plane: &[f32]) -> (Vec<f32>, Vec<f32>) {
    let axis = |i: usize| plane.iter().skip(i).step_by(2).copied();
    let bounds = |i: usize| {
        axis(i).fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), x| {
            (low.min(x), high.max(x))
        })
    };
    let [(left, right), (top, bottom)] = [bounds(0), bounds(1)];
    let half = ((right - left).max(bottom - top) / 2.0).max(f32::MIN_POSITIVE);
    let moved = |i: usize, low: f32, high: f32| {
        let middle = f32::midpoint(low, high);
        axis(i).map(|x| (x - middle) / half).collect()
    };
    (moved(0, left, right), moved(1, top, bottom))
}

#[cfg(test)]
mod tests;
