//! One part of a collection in one space: a sealed segment, a tail that is scanned exactly, and
//! tombstones.

use std::{collections::HashMap, fmt, num::NonZeroUsize, sync::Arc};

use embedding::{Aspect, Embedding, Modality};

use crate::{
    Score,
    bits::Bits,
    column::Column,
    config::EngineConfig,
    index::{Coded, Index, Live, Neighbor, Row, Rows, SearchParams, dot},
    record::Stamp,
    segment::{Ids, Segment},
};

/// Rows of one piece of the tail. A piece is copied when a row is added while a search reads it.
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

/// Everything that a search needs, as it was at one moment. Cheap to clone; never changes under
/// the one who holds a clone. Rows are numbered through: sealed ones first, then the tail.
#[derive(Debug, Clone)]
pub(crate) struct View {
    pub(crate) sealed: Arc<Segment>,
    pub(crate) dead: Arc<Bits>,
    tail: Vec<Piece>,
}

#[derive(Debug, Clone)]
struct Piece {
    /// Number of the first row.
    start: usize,
    chunk: Arc<Chunk>,
}

#[derive(Debug, Clone)]
struct Chunk {
    rows: Arc<Rows>,
    ids: Vec<Arc<str>>,
    stamps: Vec<Stamp>,
    /// Once it is full, so that a long tail is scanned over codes.
    coded: Option<Coded>,
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
    fn to_owned(&self) -> Found<String> {
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
    fn with_tail(
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
            if let Some(coded) = &chunk.coded {
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
                    let score = Score(dot(query.as_slice(), chunk.rows.row(i)));
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

    /// Whether both are of one moment, or of two with no change between them.
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

    fn piece(&self, row: usize) -> (&Chunk, usize) {
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

    fn stamp(&self, row: usize) -> Stamp {
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
        chunk.rows.row(i)
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

    /// The live rows, sorted by id: what a new segment is built from.
    pub(crate) fn live_rows(&self) -> (Ids, Column<Stamp>, Rows) {
        let mut order: Vec<usize> = (0..self.rows())
            .filter(|row| !self.dead.get(*row))
            .collect();
        order.sort_unstable_by_key(|row| self.id(*row));
        let mut ids = Ids::new();
        let mut rows = Rows::with_capacity(self.sealed.rows.dim(), order.len());
        for row in &order {
            ids.push(self.id(*row));
            rows.push(self.row(*row));
        }
        let stamps: Vec<Stamp> = order.iter().map(|row| self.stamp(*row)).collect();
        (ids, stamps.into(), rows)
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
            _ => self.push(id, stamp, &row()?),
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
            let rows = Rows::with_capacity(view.sealed.rows.dim(), CHUNK_ROWS);
            let chunk = Arc::new(Chunk {
                rows: Arc::new(rows),
                ids: Vec::new(),
                stamps: Vec::new(),
                coded: None,
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
        Arc::make_mut(&mut chunk.rows).push(row.as_slice());
        chunk.ids.push(id.clone());
        chunk.stamps.push(stamp);
        if chunk.ids.len() == CHUNK_ROWS {
            chunk.coded = Some(Coded::new(Arc::clone(&chunk.rows)));
        }
        Arc::make_mut(&mut view.dead).grow(1);
        self.tail_rows.insert(id, number);
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
    /// after all.
    pub(crate) fn end_seal(&mut self, taken: &View, built: Option<(Segment, Standing)>) {
        let frozen = std::mem::take(&mut self.frozen);
        (self.sealing, self.under_way) = (false, false);
        let Some((built, standing)) = built else {
            return;
        };
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
        self.view = View {
            sealed: Arc::new(built),
            dead: Arc::new(dead),
            tail,
        };
    }
}

mod filtered;

pub(crate) use filtered::{Answer, Wanted};

#[cfg(test)]
mod tests;
