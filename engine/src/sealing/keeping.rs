//! Keeping a new segment: its file, then the store's word that it is the good one, then the end of
//! the marks and of the file before it. A stop between any two of these steps leaves marks or files
//! that are not needed, and nothing else; see [`crate::marks`].

use std::sync::atomic::Ordering::SeqCst;

use super::owner;
use crate::{
    EngineError, ItemId,
    collection::Collection,
    marks::{self, Sealed},
    segment::Segment,
    segment_file::{self, Opened, Wanted},
    shard::{ShardKey, Standing, View},
    store::Batch,
};

/// Marks that are looked at, and removed, together. Writers of the items wait meanwhile.
const TOGETHER: usize = 256;

/// Writes the segment to a file, where indexes are kept. Gives the segment to go on with, mapped if
/// it is in a file, and what the store is to know of the file.
pub(super) fn write(
    collection: &Collection,
    key: ShardKey,
    segment: Segment,
    before: Standing,
) -> (Segment, Option<Sealed>) {
    let Some(dir) = collection.index_dir() else {
        return (segment, None);
    };
    let description = &collection.description;
    let owner = owner(description.number, &description.spaces, key);
    let wanted = Wanted {
        owner: &owner,
        generation: before.generation + 1,
        dim: segment.rows.dim(),
    };
    let path = segment_file::path(&dir, key, wanted.generation);
    let written = segment_file::write(&path, &wanted, &segment)
        .and_then(|()| segment_file::read(&path, &wanted));
    let Opened {
        segment: mapped,
        head,
    } = match written {
        Ok(opened) => opened,
        // The file only saves memory, and work at the next open.
        Err(error) => {
            tracing::warn!("cannot keep the index {}: {error}", path.display());
            return (segment, None);
        }
    };
    // Mapped, it takes no memory that the system cannot have back.
    let mapped = mapped.settled(&collection.core.budget);
    let sealed = Sealed {
        generation: wanted.generation,
        head: Some(head),
    };
    (mapped, Some(sealed))
}

/// Has the store take a file for the good one. Gives how its segment stands.
pub(super) fn make_good(
    collection: &Collection,
    key: ShardKey,
    sealed: Option<Sealed>,
    before: Standing,
) -> Standing {
    let not_kept = Standing {
        kept: false,
        ..before
    };
    let Some(sealed) = sealed else {
        return not_kept;
    };
    let generation = sealed.generation;
    let mut batch = Batch::default();
    marks::set_sealed(&mut batch, collection.description.number, key, Some(sealed));
    if let Err(error) = collection.core.store.commit(batch) {
        // Which of the two files is the good one now is not certain, so both stay.
        tracing::warn!(
            "cannot keep the index {key} of {}: {error}",
            collection.name
        );
        return not_kept;
    }
    Standing {
        generation,
        kept: true,
    }
}

/// Removes marks and the file that are not needed after a seal that was kept. What stays does no
/// harm.
pub(super) fn forget_old(collection: &Collection, key: ShardKey, taken: &View, before: Standing) {
    let ids = taken.changed_ids().filter_map(|id| ItemId::new(id).ok());
    if let Err(error) = collection.unmark(ids) {
        tracing::debug!("marks stay until the next open: {error}");
    }
    if let Some(dir) = collection.index_dir() {
        segment_file::remove(&segment_file::path(&dir, key, before.generation));
    }
}

impl Collection {
    /// Removes the marks of those of these items that need none any more.
    pub(crate) fn unmark(&self, ids: impl Iterator<Item = ItemId>) -> Result<(), EngineError> {
        let mut ids = ids.peekable();
        while ids.peek().is_some() && !self.stopping.load(SeqCst) {
            let mut some: Vec<ItemId> = ids.by_ref().take(TOGETHER).collect();
            // An item may come several times, and nobody waits for himself.
            some.sort_unstable();
            some.dedup();
            // Nobody writes them now, so that what is in memory of them is what the store has.
            let _turn = self.take_turn(&some)?;
            let mut batch = Batch::default();
            {
                let state = self.state.read();
                some.retain(|id| !state.needs_mark(id, self.slot(id)));
            }
            for id in &some {
                marks::remove(&mut batch, self.description.number, id);
            }
            if !batch.is_empty() {
                self.core.store.commit(batch)?;
            }
        }
        Ok(())
    }
}
