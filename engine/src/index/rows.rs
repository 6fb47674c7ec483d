//! Embeddings side by side.

use std::sync::Arc;

use embedding::{Embedding, mix};

use super::blocks::Blocks;
use crate::column::Column;

/// Embeddings of one space, `[len, dim]` f32, row by row.
#[derive(Debug, Clone)]
pub struct Rows {
    dim: usize,
    data: Column<f32>,
    /// Of rows in a file, which are checked when they are read.
    blocks: Option<Arc<Blocks>>,
}

impl PartialEq for Rows {
    fn eq(&self, other: &Self) -> bool {
        (self.dim, &self.data) == (other.dim, &other.data)
    }
}

impl Rows {
    /// No rows yet.
    ///
    /// # Panics
    /// When `dim` is 0: there is no such embedding.
    pub fn new(dim: usize) -> Self {
        Self::with_capacity(dim, 0)
    }

    /// No rows yet, and room for `rows`.
    ///
    /// # Panics
    /// When `dim` is 0: there is no such embedding.
    pub fn with_capacity(dim: usize, rows: usize) -> Self {
        assert!(dim > 0, "an embedding has at least one dimension");
        Self {
            dim,
            data: Vec::with_capacity(dim * rows).into(),
            blocks: None,
        }
    }

    /// Takes `[len, dim]` numbers of a file, which `blocks` are about; `None` when they are no
    /// whole rows.
    pub(crate) fn from_file(dim: usize, data: Column<f32>, blocks: Blocks) -> Option<Self> {
        (dim > 0 && data.len().is_multiple_of(dim)).then(|| Self {
            dim,
            data,
            blocks: Some(Arc::new(blocks)),
        })
    }

    /// What is known of the blocks of rows in a file.
    pub(crate) fn blocks(&self) -> Option<&Arc<Blocks>> {
        self.blocks.as_ref()
    }

    /// Rows that were read, or looked at in the background, and are not as they were written.
    pub(crate) fn bad(&self) -> impl Iterator<Item = usize> + '_ {
        let bad = |blocks| Blocks::bad_rows(blocks, self.len());
        self.blocks.as_deref().into_iter().flat_map(bad)
    }

    /// Adds a row.
    ///
    /// # Panics
    /// When it has another dim.
    pub fn push(&mut self, row: &[f32]) {
        assert_eq!(row.len(), self.dim, "rows of one index have one dim");
        // In memory from here on. Blocks are about what is in the file.
        self.blocks = None;
        self.data.to_mut().extend_from_slice(row);
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.data.len() / self.dim
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.data.is_empty()
    }

    /// Number of elements of each row.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Whether row `i` is among the bad ones.
    pub(crate) fn is_bad(&self, i: usize) -> bool {
        self.blocks.as_ref().is_some_and(|blocks| blocks.is_bad(i))
    }

    /// Row `i`. One in a file is checked first; one that is damaged is then among the bad ones, and
    /// must not be used.
    #[inline(always)]
    pub fn row(&self, i: usize) -> &[f32] {
        if let Some(blocks) = &self.blocks {
            blocks.meet(i);
        }
        self.peek(i)
    }

    /// Row `i` as it is, to bring it nearer.
    #[inline(always)]
    pub(crate) fn peek(&self, i: usize) -> &[f32] {
        &self.data[i * self.dim..][..self.dim]
    }

    /// All numbers, `[len, dim]`.
    pub(crate) fn data(&self) -> &[f32] {
        &self.data
    }
}

/// Rows around `clusters` centers, every `repeat`-th of them one of 20 rows that come again and
/// again (1: none does). For tests; equal arguments give equal rows.
pub(crate) fn clustered(len: usize, dim: usize, clusters: u64, seed: u64, repeat: usize) -> Rows {
    let mut rows = Rows::with_capacity(dim, len);
    for i in 0..len as u64 {
        let again = repeat > 1 && i.is_multiple_of(repeat as u64);
        let i = if again { i % 20 } else { i };
        let center = mix(seed ^ 0xc0ff_ee00) ^ (mix(i ^ seed) % clusters);
        let row: Vec<f32> = (0..dim as u64)
            .map(|d| noise(center, d) + 0.6 * noise(mix(i ^ seed ^ 0xa5a5), d))
            .collect();
        let row = Embedding::normalized(row).expect("noise has a direction");
        rows.push(row.as_slice());
    }
    rows
}

/// Rows around `clusters` centers that spread along `directions` only, under a little noise. For
/// tests; equal arguments give equal rows, and worlds of one `seed` the same centers.
#[cfg(test)]
pub(crate) fn along_few(
    len: usize,
    dim: usize,
    (directions, clusters): (u64, u64),
    (seed, rows_seed): (u64, u64),
) -> Rows {
    let mut rows = Rows::with_capacity(dim, len);
    let axis = |j: u64, d: u64| noise(mix(seed ^ 0xa11ce) ^ j, d);
    for i in 0..len as u64 {
        let row = mix(mix(rows_seed) ^ i);
        let center = mix(seed ^ 0xc0ff_ee00) ^ (row % clusters);
        let meaning: Vec<f32> = (0..directions)
            .map(|j| noise(center, j) + 0.6 * noise(row, j))
            .collect();
        let row: Vec<f32> = (0..dim as u64)
            .map(|d| {
                let along = (0..).zip(&meaning).map(|(j, x)| x * axis(j, d));
                along.sum::<f32>() + 0.5 * noise(row ^ 0x5eed, d)
            })
            .collect();
        let row = Embedding::normalized(row).expect("noise has a direction");
        rows.push(row.as_slice());
    }
    rows
}

/// The direction in the middle of two rows.
#[cfg(test)]
pub(crate) fn between(a: &[f32], b: &[f32]) -> Embedding {
    let row = a.iter().zip(b).map(|(a, b)| 0.8 * a + 0.2 * b).collect();
    Embedding::normalized(row).expect("near rows have a middle")
}

/// Nearly normal noise that depends on its arguments only.
fn noise(stream: u64, position: u64) -> f32 {
    let bits = mix(stream.wrapping_mul(0x0123_4567_89ab_cdef) ^ mix(position));
    let sum: u64 = (0..4).map(|i| bits >> (16 * i) & 0xffff).sum();
    (sum as f32 - 131_070.0) / 37_837.0
}
