//! The exact scan: every row is compared. The oracle that other indexes are measured against.

use std::{num::NonZeroUsize, sync::Arc};

use embedding::Embedding;

use super::{Index, Live, Neighbor, Row, Rows, SearchParams, TopK, kernel::dot};
use crate::Score;

/// Compares with every live row.
#[derive(Debug, Clone)]
pub struct Flat {
    rows: Arc<Rows>,
}

impl Flat {
    /// An index over these rows; nothing is built.
    pub fn new(rows: Arc<Rows>) -> Self {
        Self { rows }
    }
}

impl Index for Flat {
    fn len(&self) -> usize {
        self.rows.len()
    }

    fn search(
        &self,
        query: &Embedding,
        k: NonZeroUsize,
        _: &SearchParams,
        live: Live<'_>,
    ) -> Vec<Neighbor> {
        let mut top = TopK::new(k.get().min(self.rows.len()));
        for i in 0..self.rows.len() {
            let row = Row(i as u32);
            if live.is(row) {
                let score = dot(query.as_slice(), self.rows.row(i));
                if top.wants(score) {
                    top.push(Neighbor {
                        row,
                        score: Score(score),
                    });
                }
            }
        }
        top.into_sorted()
    }
}
