//! What a search of a shard reads.

use std::{num::NonZeroUsize, sync::Arc};

use embedding::Embedding;

use crate::{
    Score, background,
    bits::Bits,
    column::Column,
    index::{Coded, Index, Live, Neighbor, Row, Rows, SearchParams, dot},
    record::Stamp,
    segment::{Ids, Segment},
};

/// Everything that a search needs, as it was at one moment. Cheap to clone; never changes under
/// the one who holds a clone. Rows are numbered through: sealed ones first, then the tail.
#[derive(Debug, Clone)]
pub(crate) struct View {
    pub(crate) sealed: Arc<Segment>,
    pub(crate) dead: Arc<Bits>,
    pub(super) tail: Vec<Piece>,
}

#[derive(Debug, Clone)]
pub(super) struct Piece {
    /// Number of the first row.
    pub(super) start: usize,
    pub(super) chunk: Arc<Chunk>,
}

#[derive(Debug, Clone)]
pub(super) struct Chunk {
    pub(super) rows: ChunkRows,
    pub(super) ids: Vec<Arc<str>>,
    pub(super) stamps: Vec<Stamp>,
    /// Of the ids.
    pub(super) hashes: Vec<u64>,
}

/// Rows of a piece of the tail.
#[derive(Debug, Clone)]
pub(super) enum ChunkRows {
    /// While it grows: each by itself, since a piece that a search reads is copied for every write,
    /// and searches that begin wait meanwhile.
    Loose(Vec<Arc<[f32]>>),
    /// Once it is full, so that a long tail is scanned over codes.
    Coded(Coded),
}

impl Chunk {
    pub(super) fn row(&self, i: usize) -> &[f32] {
        match &self.rows {
            ChunkRows::Loose(rows) => &rows[i],
            ChunkRows::Coded(coded) => coded.rows().row(i),
        }
    }

    /// The rows with their codes, where it has none yet.
    pub(super) fn coded(&self) -> Option<Coded> {
        let ChunkRows::Loose(loose) = &self.rows else {
            return None;
        };
        let mut rows = Rows::with_capacity(loose.first()?.len(), loose.len());
        for row in loose {
            rows.push(row);
        }
        Some(Coded::new(Arc::new(rows)))
    }
}

/// A found item. The order is best first: by score, ties by id.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Found<S> {
    pub(crate) score: Score,
    pub(crate) id: S,
    /// Where in the view.
    pub(crate) row: usize,
}

impl Found<&str> {
    pub(super) fn to_owned(&self) -> Found<String> {
        Found {
            score: self.score,
            id: self.id.to_owned(),
            row: self.row,
        }
    }
}

impl<S: AsRef<str>> Found<S> {
    pub(crate) fn rank(&self, other: &Self) -> std::cmp::Ordering {
        let by_score = other.score.0.total_cmp(&self.score.0);
        by_score.then_with(|| self.id.as_ref().cmp(other.id.as_ref()))
    }
}

impl View {
    /// The `k` nearest live items, best first.
    pub(crate) fn search(
        &self,
        query: &Embedding,
        k: NonZeroUsize,
        params: SearchParams,
        exact: bool,
    ) -> Vec<Found<String>> {
        let alive = |row: Row| !self.dead.get(row.0 as usize);
        let sealed = self.sealed.len();
        let live = match self.dead.ones_below(sealed) {
            0 => Live::all(sealed),
            dead => Live::only(&alive, sealed - dead),
        };
        let sealed = self.sealed.index(exact).search(query, k, &params, live);
        self.with_tail(query, k, &sealed)
    }

    /// For each query exactly the `k` nearest live items, best first; the codes are read once.
    pub(crate) fn search_batch(
        &self,
        queries: &[&Embedding],
        k: NonZeroUsize,
    ) -> Vec<Vec<Found<String>>> {
        let alive = |row: Row| !self.dead.get(row.0 as usize);
        let live = Live::only(&alive, self.sealed.len());
        let sealed = self.sealed.coded().search_batch(queries, k, live);
        let each = queries.iter().zip(sealed);
        each.map(|(query, sealed)| self.with_tail(query, k, &sealed))
            .collect()
    }

    /// The nearest among those of the sealed rows and the tail, best first.
    pub(super) fn with_tail(
        &self,
        query: &Embedding,
        k: NonZeroUsize,
        sealed: &[Neighbor],
    ) -> Vec<Found<String>> {
        let sealed = sealed.iter().map(|n| Found {
            score: n.score,
            id: self.sealed.ids.get(n.row.0 as usize),
            row: n.row.0 as usize,
        });
        let mut found: Vec<Found<&str>> = sealed.collect();
        for Piece { start, chunk } in &self.tail {
            let alive = |row: Row| !self.dead.get(start + row.0 as usize);
            if let ChunkRows::Coded(coded) = &chunk.rows {
                let live = Live::only(&alive, coded.len());
                let nearest = coded.scan(query, k, live);
                found.extend(nearest.iter().map(|Neighbor { row, score }| Found {
                    score: *score,
                    id: &*chunk.ids[row.0 as usize],
                    row: start + row.0 as usize,
                }));
                continue;
            }
            for (i, id) in chunk.ids.iter().enumerate() {
                if alive(Row(i as u32)) {
                    let score = Score(dot(query.as_slice(), chunk.row(i)));
                    found.push(Found {
                        score,
                        id,
                        row: start + i,
                    });
                }
            }
        }
        if found.len() > k.get() {
            found.select_nth_unstable_by(k.get() - 1, Found::rank);
            found.truncate(k.get());
        }
        found.sort_unstable_by(Found::rank);
        found.iter().map(Found::to_owned).collect()
    }

    /// Number of rows, dead ones too.
    pub(crate) fn rows(&self) -> usize {
        self.dead.len()
    }

    /// Whether both are of one moment, or of two with no change between them. A piece that got codes
    /// counts as a change.
    pub(crate) fn is(&self, other: &Self) -> bool {
        let mut pieces = self.tail.iter().zip(&other.tail);
        Arc::ptr_eq(&self.sealed, &other.sealed)
            && Arc::ptr_eq(&self.dead, &other.dead)
            && self.tail.len() == other.tail.len()
            && pieces.all(|(a, b)| Arc::ptr_eq(&a.chunk, &b.chunk))
    }

    /// Living rows of the segment that turned out to be damaged. What was found among others of the
    /// same view may be wrong then.
    pub(crate) fn bad_rows(&self) -> impl Iterator<Item = usize> + '_ {
        self.sealed.rows.bad().filter(|row| !self.dead.get(*row))
    }

    /// Stamps of the living rows of the segment.
    pub(crate) fn sealed_stamps(&self) -> impl Iterator<Item = Stamp> + '_ {
        let stamps = self.sealed.stamps.iter().enumerate();
        stamps.filter_map(|(row, stamp)| (!self.dead.get(row)).then_some(*stamp))
    }

    /// The items that a segment of the living rows knows otherwise than the one that is here.
    pub(crate) fn changed_ids(&self) -> impl Iterator<Item = &str> {
        let dead = self.dead.set_below(self.sealed.len());
        let tail = self.tail.iter().flat_map(|piece| &piece.chunk.ids);
        let dead = dead.map(|row| self.sealed.ids.get(row));
        dead.chain(tail.map(|id| &**id))
    }

    pub(super) fn piece(&self, row: usize) -> (&Chunk, usize) {
        let i = self.tail.partition_point(|piece| piece.start <= row) - 1;
        (&self.tail[i].chunk, row - self.tail[i].start)
    }

    /// Id of a row.
    pub(crate) fn id(&self, row: usize) -> &str {
        if row < self.sealed.len() {
            return self.sealed.ids.get(row);
        }
        let (chunk, i) = self.piece(row);
        &chunk.ids[i]
    }

    pub(super) fn stamp(&self, row: usize) -> Stamp {
        if row < self.sealed.len() {
            return self.sealed.stamps[row];
        }
        let (chunk, i) = self.piece(row);
        chunk.stamps[i]
    }

    /// The embedding of a row.
    pub(crate) fn row(&self, row: usize) -> &[f32] {
        if row < self.sealed.len() {
            return self.sealed.rows.row(row);
        }
        let (chunk, i) = self.piece(row);
        chunk.row(i)
    }

    /// Whether the row is alive.
    pub(crate) fn is_alive(&self, row: usize) -> bool {
        !self.dead.get(row)
    }

    /// The live row of a sealed item.
    pub(crate) fn find_sealed(&self, id: &str) -> Option<usize> {
        let row = self.sealed.ids.find(id)?;
        self.is_alive(row).then_some(row)
    }

    /// The live rows of the tail with their ids.
    pub(crate) fn tail_rows(&self) -> impl Iterator<Item = (&str, usize)> {
        self.tail.iter().flat_map(move |Piece { start, chunk }| {
            let ids = chunk.ids.iter().enumerate();
            ids.filter(move |(i, _)| self.is_alive(start + i))
                .map(move |(i, id)| (&**id, start + i))
        })
    }

    /// The live rows of the tail with the hashes of their ids.
    pub(crate) fn tail_hashes(&self) -> impl Iterator<Item = (u64, usize)> {
        self.tail.iter().flat_map(move |Piece { start, chunk }| {
            let hashes = chunk.hashes.iter().zip(*start..);
            hashes
                .filter(move |(_, row)| self.is_alive(*row))
                .map(|(hash, row)| (*hash, row))
        })
    }

    /// The live rows, sorted by id: what a new segment is built from.
    pub(crate) fn live_rows(&self) -> (Ids, Column<Stamp>, Rows) {
        let mut order: Vec<usize> = (0..self.rows())
            .filter(|row| !self.dead.get(*row))
            .collect();
        order.sort_unstable_by_key(|row| self.id(*row));
        let mut ids = Ids::new();
        let mut rows = Rows::with_capacity(self.sealed.rows.dim(), order.len());
        for row in &order {
            background::stops();
            ids.push(self.id(*row));
            rows.push(self.row(*row));
        }
        let stamps: Vec<Stamp> = order.iter().map(|row| self.stamp(*row)).collect();
        (ids, stamps.into(), rows)
    }
}
