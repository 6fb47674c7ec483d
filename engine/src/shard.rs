//! One part of a collection in one space: a sealed segment, a tail that is scanned exactly, and
//! tombstones.

mod filtered;
#[cfg(test)]
mod tests;
mod view;

use std::{collections::HashMap, fmt, sync::Arc};

use embedding::{Aspect, Embedding, Modality};
pub(crate) use filtered::{Answer, Wanted};
use view::{Chunk, ChunkRows, Piece};
pub(crate) use view::{Found, View};

use crate::{
    bits::Bits, config::EngineConfig, index::Coded, item::hash_of, record::Stamp, segment::Segment,
};

/// Rows of one piece of the tail. What is not rows of a piece is copied when a row is added while a
/// search reads it.
const CHUNK_ROWS: usize = 256;
/// The tail may grow to this part of the sealed rows before it is sealed too, so that the work of
/// all seals together stays in proportion to the rows.
const TAIL_PART: usize = 4;
/// Tombstones may grow to this part of all rows.
const DEAD_PART: usize = 3;

/// Which shard of a collection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct ShardKey {
    pub(crate) modality: Modality,
    /// Part of the modality, by hash of the id.
    pub(crate) slot: usize,
    pub(crate) aspect: Aspect,
}

impl fmt::Display for ShardKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let aspect = if self.aspect == Aspect::Shared {
            "shared"
        } else {
            "specific"
        };
        write!(f, "{}-{}-{aspect}", self.modality, self.slot)
    }
}

/// How the sealed segment stands to what the store says of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Standing {
    /// The latest seal that the store knows of, or knew of.
    pub(crate) generation: u64,
    /// Whether the segment is the good one by the store. Otherwise marks are needed whatever it
    /// says.
    pub(crate) kept: bool,
}

/// A shard, as its writers see it.
#[derive(Debug)]
pub(crate) struct Shard {
    pub(crate) view: View,
    pub(crate) standing: Standing,
    /// Whether the segment's file is damaged and must be written again.
    pub(crate) worn: bool,
    /// Live rows of the tail by id.
    tail_rows: HashMap<Arc<str>, usize>,
    /// Pieces of the tail that a seal under way takes up; new rows go to pieces after them.
    frozen: usize,
    /// Whether a seal is under way.
    under_way: bool,
    /// Whether a seal waits or is under way.
    pub(crate) sealing: bool,
}

/// A piece of a tail that is full. Making its codes takes a while; nobody need hold a lock for that.
pub(crate) struct FullPiece(Arc<Chunk>);

impl Piece {
    /// Whether no row will come to it, and it has no codes yet.
    fn is_full(&self) -> bool {
        let Chunk { rows, ids, .. } = &*self.chunk;
        ids.len() == CHUNK_ROWS && matches!(rows, ChunkRows::Loose(_))
    }
}

impl FullPiece {
    pub(crate) fn codes(&self) -> Option<Coded> {
        self.0.coded()
    }
}

impl Shard {
    /// A shard with this segment, all of whose rows are alive.
    pub(crate) fn loaded(sealed: Segment, standing: Standing) -> Self {
        let dead = Arc::new(Bits::unset(sealed.len()));
        let view = View {
            sealed: Arc::new(sealed),
            dead,
            tail: Vec::new(),
        };
        Self {
            view,
            standing,
            worn: false,
            tail_rows: HashMap::new(),
            frozen: 0,
            under_way: false,
            sealing: false,
        }
    }

    /// Trusts the segment no more: [`Shard::restore`] says which rows are alive.
    pub(crate) fn distrust(&mut self) {
        self.view.dead = Arc::new(Bits::all_set(self.view.sealed.len()));
    }

    /// Takes an item that is not here and that the store holds: alive in the segment, if it is
    /// there unchanged.
    pub(crate) fn restore<E>(
        &mut self,
        id: &str,
        stamp: Stamp,
        row: impl FnOnce() -> Result<Embedding, E>,
    ) -> Result<(), E> {
        match self.view.sealed.ids.find(id) {
            Some(at) if self.view.sealed.stamps[at] == stamp => {
                Arc::make_mut(&mut self.view.dead).clear(at);
            }
            _ => {
                self.push(id, stamp, &row()?);
                if self.view.tail.last().is_some_and(Piece::is_full) {
                    for full in self.full_pieces() {
                        self.adopt_codes(&full, full.codes());
                    }
                }
            }
        }
        Ok(())
    }

    /// Number of live rows.
    pub(crate) fn live(&self) -> usize {
        self.view.rows() - self.view.dead.ones()
    }

    /// The stamp of the item, if it is here.
    pub(crate) fn stamp(&self, id: &str) -> Option<Stamp> {
        self.find(id).map(|row| self.view.stamp(row))
    }

    /// Whether the item is here.
    pub(crate) fn contains(&self, id: &str) -> bool {
        self.find(id).is_some()
    }

    fn find(&self, id: &str) -> Option<usize> {
        let sealed = || {
            self.view
                .sealed
                .ids
                .find(id)
                .filter(|row| !self.view.dead.get(*row))
        };
        self.tail_rows.get(id).copied().or_else(sealed)
    }

    /// Adds an item, in place of an older one with its id. An unchanged one keeps its row.
    pub(crate) fn insert(&mut self, id: &str, stamp: Stamp, row: &Embedding) {
        if let Some(old) = self.find(id) {
            if self.view.stamp(old) == stamp {
                return;
            }
            self.kill(id, old);
        }
        self.push(id, stamp, row);
    }

    /// Removes an item, if it is here.
    pub(crate) fn remove(&mut self, id: &str) {
        if let Some(row) = self.find(id) {
            self.kill(id, row);
        }
    }

    /// Whether a write of this item would change anything here; without a stamp, its removal.
    pub(crate) fn changes(&self, id: &str, stamp: Option<Stamp>) -> bool {
        self.stamp(id) != stamp
    }

    /// Whether the segment that the store knows, or is about to know, may say something else of
    /// this item than the shard. What a seal under way has taken up may have been deleted since, and
    /// then nothing here but its segment will know of it.
    pub(crate) fn needs_mark(&self, id: &str) -> bool {
        let is_dead = || {
            let row = self.view.sealed.ids.find(id);
            row.is_some_and(|row| self.view.dead.get(row))
        };
        !self.standing.kept || self.under_way || self.tail_rows.contains_key(id) || is_dead()
    }

    /// Kills the row of the item in the segment, if it is alive and damaged.
    pub(crate) fn drop_bad(&mut self, id: &str) {
        if let Some(row) = self.find(id)
            && row < self.view.sealed.len()
            && self.view.sealed.rows.is_bad(row)
        {
            self.kill(id, row);
        }
    }

    fn kill(&mut self, id: &str, row: usize) {
        Arc::make_mut(&mut self.view.dead).set(row);
        self.tail_rows.remove(id);
    }

    fn push(&mut self, id: &str, stamp: Stamp, row: &Embedding) {
        let view = &mut self.view;
        let number = view.rows();
        let full = view
            .tail
            .last()
            .is_none_or(|piece| piece.chunk.ids.len() >= CHUNK_ROWS);
        if full || view.tail.len() == self.frozen {
            let chunk = Arc::new(Chunk {
                rows: ChunkRows::Loose(Vec::new()),
                ids: Vec::new(),
                stamps: Vec::new(),
                hashes: Vec::new(),
            });
            view.tail.push(Piece {
                start: number,
                chunk,
            });
        }
        let id: Arc<str> = id.into();
        let piece = view
            .tail
            .last_mut()
            .expect("a piece was just added if there was none");
        let chunk = Arc::make_mut(&mut piece.chunk);
        let ChunkRows::Loose(rows) = &mut chunk.rows else {
            unreachable!("only full pieces are coded")
        };
        rows.push(row.as_slice().into());
        chunk.ids.push(id.clone());
        chunk.stamps.push(stamp);
        chunk.hashes.push(hash_of(&id));
        Arc::make_mut(&mut view.dead).grow(1);
        self.tail_rows.insert(id, number);
    }

    /// Pieces of the tail that will not grow any more and have no codes yet.
    pub(crate) fn full_pieces(&self) -> Vec<FullPiece> {
        let full = self.view.tail.iter().filter(|piece| piece.is_full());
        full.map(|piece| FullPiece(Arc::clone(&piece.chunk)))
            .collect()
    }

    /// Has a piece scanned over its codes, if it is here still, and as it was.
    pub(crate) fn adopt_codes(&mut self, of: &FullPiece, codes: Option<Coded>) {
        let mut tail = self.view.tail.iter_mut();
        if let Some(codes) = codes
            && let Some(piece) = tail.find(|piece| Arc::ptr_eq(&piece.chunk, &of.0))
        {
            piece.chunk = Arc::new(Chunk {
                rows: ChunkRows::Coded(codes),
                ids: of.0.ids.clone(),
                stamps: of.0.stamps.clone(),
                hashes: of.0.hashes.clone(),
            });
        }
    }

    /// Whether a seal is due.
    pub(crate) fn wants_seal(&self, config: &EngineConfig) -> bool {
        let (rows, sealed) = (self.view.rows(), self.view.sealed.len());
        let dead = self.view.dead.ones();
        self.worn
            || rows - sealed >= config.seal_rows.max(sealed / TAIL_PART)
            || dead >= config.seal_rows.max(rows / DEAD_PART)
    }

    /// Whether a seal would change anything.
    pub(crate) fn is_sealed(&self) -> bool {
        !self.worn && self.view.rows() == self.view.sealed.len() && self.view.dead.ones() == 0
    }

    /// The rows that a seal takes up. Ends with [`Shard::end_seal`].
    pub(crate) fn begin_seal(&mut self) -> View {
        self.sealing = true;
        self.under_way = true;
        self.frozen = self.view.tail.len();
        self.view.clone()
    }

    /// Puts the segment built from `taken` in place, and how it stands; `None` when there is none
    /// after all. Gives what was there before, which takes a while to drop.
    pub(crate) fn end_seal(
        &mut self,
        taken: &View,
        built: Option<(Segment, Standing)>,
    ) -> Option<View> {
        let frozen = std::mem::take(&mut self.frozen);
        (self.sealing, self.under_way) = (false, false);
        let (built, standing) = built?;
        self.standing = standing;
        self.worn = false;
        let covered = taken.rows();
        let mut dead = Bits::unset(built.len());
        for row in self.view.dead.newly_set(&taken.dead, covered) {
            let row = built
                .ids
                .find(taken.id(row))
                .expect("a row that was alive was taken up");
            dead.set(row);
        }
        let shift = |row: usize| row - covered + built.len();
        dead.grow(self.view.rows() - covered);
        for row in (covered..self.view.rows()).filter(|row| self.view.dead.get(*row)) {
            dead.set(shift(row));
        }
        let mut tail = self.view.tail.split_off(frozen);
        for piece in &mut tail {
            piece.start = shift(piece.start);
        }
        self.tail_rows.retain(|_, row| *row >= covered);
        self.tail_rows
            .values_mut()
            .for_each(|row| *row = shift(*row));
        self.tail_rows.shrink_to_fit();
        let view = View {
            sealed: Arc::new(built),
            dead: Arc::new(dead),
            tail,
        };
        Some(std::mem::replace(&mut self.view, view))
    }
}
