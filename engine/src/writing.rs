//! The one way in which items change. A write plans what each item becomes, which checks everything
//! that can be wrong, stores that in one batch with all that goes with it, and only then changes
//! what is in memory.

mod plan;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use plan::{Next, Plan};

use crate::{
    Durability, EngineError, Item, ItemId, ItemWrite, Outcome, Upserted, WriteOptions, Written,
    catalog::item_key,
    collection::Collection,
    indexing::{Commit, Write},
    marks,
    record::{self, Stamp},
    sealing,
    shard::{FullPiece, ShardKey},
    store::Batch,
};

impl Collection {
    /// Adds items, or puts them in place of those with the same ids. All or nothing; durable and
    /// searchable on return. Of several items with one id the last counts.
    ///
    /// # Errors
    /// As for [`Collection::write`].
    pub fn upsert(self: &Arc<Self>, items: Vec<Item>) -> Result<Upserted, EngineError> {
        let writes = items.into_iter().map(ItemWrite::put).collect();
        let mut upserted = Upserted::default();
        for outcome in self.write(writes, WriteOptions::default())?.outcomes {
            match outcome {
                Outcome::Inserted(_) => upserted.inserted += 1,
                _ => upserted.updated += 1,
            }
        }
        Ok(upserted)
    }

    /// Removes items; durable on return. Gives the number of those that were there.
    ///
    /// # Errors
    /// When the store fails.
    pub fn delete(self: &Arc<Self>, ids: &[ItemId]) -> Result<usize, EngineError> {
        let writes = ids.iter().cloned().map(ItemWrite::delete).collect();
        let written = self.write(writes, WriteOptions::default())?;
        let deleted = written.outcomes.into_iter();
        Ok(deleted.filter(|o| *o == Outcome::Deleted).count())
    }

    /// Does all of these writes, one after the other, or none of them. They are searchable on
    /// return, and as durable as `options` say. Nobody sees anything between them.
    ///
    /// # Errors
    /// When an item does not have the version that its write expects, when an item whose payload
    /// changes is not there or its record is damaged, when an embedding does not fit the
    /// collection's spaces, when a value of a payload does not fit its declared field or the
    /// payload becomes too large, or when the store fails. Nothing is acknowledged then.
    pub fn write(
        self: &Arc<Self>,
        writes: Vec<ItemWrite>,
        options: WriteOptions,
    ) -> Result<Written, EngineError> {
        let _turn = self.turn_of(&writes)?;
        let _busy = self.core.requests.begin();
        let mut plan = Plan::new(self, options);
        let outcomes = writes.into_iter().map(|write| plan.add(write));
        let outcomes = outcomes.collect::<Result<_, _>>()?;
        let durability = self.carry_out(plan.next, options.durability)?;
        Ok(Written {
            outcomes,
            durability,
        })
    }

    /// Does those of these writes that can be done, one after the other, and together as far as
    /// searches and the disk are concerned. Each of the others has its error, and does nothing.
    ///
    /// # Errors
    /// When the store fails, or the collection was deleted. Nothing is acknowledged then.
    pub fn write_each(
        self: &Arc<Self>,
        writes: Vec<ItemWrite>,
        options: WriteOptions,
    ) -> Result<Written<Result<Outcome, EngineError>>, EngineError> {
        let _turn = self.turn_of(&writes)?;
        let _busy = self.core.requests.begin();
        let mut plan = Plan::new(self, options);
        let mut outcomes = Vec::with_capacity(writes.len());
        for write in writes {
            match plan.add(write) {
                Err(error @ (EngineError::Store(_) | EngineError::Deleted { .. })) => {
                    return Err(error);
                }
                outcome => outcomes.push(outcome),
            }
        }
        let durability = self.carry_out(plan.next, options.durability)?;
        Ok(Written {
            outcomes,
            durability,
        })
    }

    fn turn_of(&self, writes: &[ItemWrite]) -> Result<crate::turns::Turn<'_, ItemId>, EngineError> {
        let ids: BTreeSet<&ItemId> = writes.iter().map(ItemWrite::id).collect();
        self.take_turn(&ids.into_iter().cloned().collect::<Vec<_>>())
    }

    /// Stores what items become, and then has searches see it. Nobody else writes them now.
    fn carry_out(
        self: &Arc<Self>,
        next: BTreeMap<ItemId, Next>,
        durability: Durability,
    ) -> Result<Durability, EngineError> {
        let mut known = Vec::with_capacity(next.len());
        let mut leaves_entries = false;
        {
            let state = self.state.read();
            for (id, next) in next {
                let slot = self.slot(&id);
                // What was not there before and is not there afterwards is no write at all.
                if next.is_put() || state.contains(&id, slot) {
                    leaves_entries |= state.damaged.contains(&id);
                    known.push((state.ordinal(&id, slot), id, next));
                }
            }
        }
        if known.is_empty() {
            // What it found may be buffered.
            if durability == Durability::Flushed {
                self.core.flushes.settle(self.core.store.as_ref())?;
            }
            return Ok(durability);
        }
        let ready = known.into_iter();
        let ready = ready.map(|(there, id, next)| self.ready(id, there, next));
        let mut ready: Vec<Ready> = ready.collect::<Result<_, _>>()?;
        let batch = self.batch(&mut ready);
        let writes: Vec<Write<'_>> = ready.iter().filter_map(Ready::for_indexes).collect();
        let puts = ready.iter().filter_map(|ready| ready.put.as_ref());
        let newest = puts.map(|put| put.version).max().unwrap_or(0);
        let (unknown, durability) = self.commit(Commit {
            batch,
            writes: &writes,
            newest,
            leaves_entries,
            durability,
        })?;
        self.adopt(&ready, &unknown);
        self.code_tails();
        sealing::request(self);
        Ok(durability)
    }

    fn ready(&self, id: ItemId, there: Option<u32>, next: Next) -> Result<Ready, EngineError> {
        let put = match next {
            Next::Gone => None,
            Next::Put(item, version) => {
                let ordinal = match there {
                    Some(ordinal) => ordinal,
                    // One that is not used after all is free again at the next start.
                    None => self.ordinals.lock().take().ok_or_else(|| self.full())?,
                };
                let stamp = Stamp::of(&item, ordinal);
                Some(Put {
                    item,
                    stamp,
                    version,
                })
            }
        };
        Ok(Ready {
            slot: self.slot(&id),
            id,
            there,
            put,
            moves: true,
        })
    }

    /// The records of a write, and its marks. Finds out which of the items have other rows after
    /// it.
    fn batch(&self, ready: &mut [Ready]) -> Batch {
        let number = self.description.number;
        let mut batch = Batch::default();
        for Ready { id, put, .. } in &*ready {
            let key = item_key(number, id);
            match put {
                Some(put) => {
                    let value = record::encode(&key, &put.item, put.stamp, put.version);
                    batch.put(key, value);
                }
                None => batch.remove(key),
            }
        }
        let state = self.state.read();
        for ready in ready {
            let changes = |put: &Put| state.changes(&put.item, ready.slot, put.stamp);
            ready.moves = ready.put.as_ref().is_none_or(changes);
            if ready.moves && self.description.is_marked() {
                marks::put(&mut batch, number, &ready.id);
            }
        }
        batch
    }

    /// Has searches see what was stored.
    fn adopt(&self, ready: &[Ready], unknown: &BTreeSet<u32>) {
        let mut state = self.state.write();
        for Ready { id, slot, put, .. } in ready {
            match put {
                Some(put) => state.insert(&put.item, *slot, put.stamp),
                None => state.remove(id, *slot),
            }
        }
        let moved = ready.iter().filter(|ready| ready.moves);
        self.confidence.changed(moved.map(|ready| &ready.id));
        drop(state);
        let mut free = self.ordinals.lock();
        let gone = ready.iter().filter(|ready| ready.put.is_none());
        for ordinal in gone.filter_map(|ready| ready.there) {
            if !unknown.contains(&ordinal) {
                free.give_back(ordinal);
            }
        }
    }

    /// Makes codes for pieces of tails that have become full, while searches go on.
    pub(crate) fn code_tails(&self) {
        let full: Vec<(ShardKey, FullPiece)> = {
            let state = self.state.read();
            let shards = state.shards();
            let full = shards.flat_map(|(key, shard)| {
                let pieces = shard.full_pieces().into_iter();
                pieces.map(move |piece| (key, piece))
            });
            full.collect()
        };
        for (key, piece) in full {
            let codes = piece.codes();
            if let Some(shard) = self.state.write().shard_mut(&key) {
                shard.adopt_codes(&piece, codes);
            }
        }
    }
}

/// What is known of an item that is about to be written.
struct Ready {
    id: ItemId,
    slot: usize,
    /// Its ordinal, where a good record is there.
    there: Option<u32>,
    /// `None` when it goes.
    put: Option<Put>,
    /// Whether its rows change.
    moves: bool,
}

struct Put {
    item: Item,
    stamp: Stamp,
    version: u64,
}

impl Ready {
    fn for_indexes(&self) -> Option<Write<'_>> {
        let ordinal = self.put.as_ref().map(|put| put.stamp.ordinal);
        Some(Write {
            id: &self.id,
            ordinal: ordinal.or(self.there)?,
            there: self.there.is_some(),
            payload: self.put.as_ref().map(|put| &put.item.payload),
        })
    }
}
