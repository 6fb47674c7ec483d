//! What is found damaged while a collection is open: rows of a segment are read from the store
//! again, and items whose records do not read back are put aside.

use std::sync::Arc;

use crate::{
    EngineError, ItemId,
    catalog::{Description, item_key},
    checking::agrees,
    collection::Collection,
    marks,
    record::Record,
    sealing,
    shard::{ShardKey, View},
    store::Batch,
};

/// Items that are read again at a time. Writers of them wait meanwhile.
const TOGETHER: usize = 256;

impl Collection {
    /// Reads from the store what the segments of these shards have in damaged blocks, and has their
    /// files written again. Until then those rows are in the tails, so that searches are right.
    pub(crate) fn repair(&self, shards: &[ShardKey]) -> Result<(), EngineError> {
        for key in shards {
            let view = self.state.read().shard(key).map(|s| s.view.clone());
            let Some(view) = view.filter(|view| view.bad_rows().next().is_some()) else {
                continue;
            };
            self.repair_shard(key, &view)?;
            if let Some(shard) = self.state.write().shard_mut(key)
                && Arc::ptr_eq(&shard.view.sealed, &view.sealed)
            {
                shard.worn = true;
            }
        }
        self.code_tails();
        if let Some(collection) = self.me.upgrade() {
            sealing::request(&collection);
        }
        Ok(())
    }

    fn repair_shard(&self, key: &ShardKey, view: &View) -> Result<(), EngineError> {
        // One bad block is seldom alone, and all of them are best put right at once.
        if let Some(blocks) = view.sealed.rows.blocks() {
            let (mut from, mut buffer) = (0, Vec::new());
            while let Some(next) = blocks.check_next(from, &mut buffer) {
                from = next;
            }
        }
        let bad: Vec<usize> = view.bad_rows().collect();
        tracing::warn!(
            "the index {key} of collection {} is damaged on disk: {} of its {} rows are read from \
             the store, and it will be built again",
            self.name,
            bad.len(),
            view.sealed.len()
        );
        for rows in bad.chunks(TOGETHER) {
            let ids = rows
                .iter()
                .map(|row| ItemId::new(view.sealed.ids.get(*row)));
            let ids: Vec<ItemId> = ids.collect::<Result<_, _>>()?;
            let _turn = self.take_turn(&ids)?;
            for id in &ids {
                self.read_again(id)?;
            }
        }
        Ok(())
    }

    /// Puts an item whose record does not read back aside, if it still does not: searches find it
    /// no more, asking for it gives the error, and it counts as damaged, also after the next open.
    pub(crate) fn put_aside(&self, id: &ItemId) -> Result<(), EngineError> {
        let _turn = self.take_turn(std::slice::from_ref(id))?;
        self.read_again(id)
    }

    /// Looks at an item whose record and what is in memory of it did not agree. A record that is
    /// damaged is put aside. Anything else would be an error of ours: then nothing that is known of
    /// segments is believed any more, and the next open reads all records.
    pub(crate) fn look_again(&self, id: &ItemId) -> Result<(), EngineError> {
        let _turn = self.take_turn(std::slice::from_ref(id))?;
        let key = item_key(self.description.number, id);
        let Some(value) = self.core.store.get(&key)? else {
            return Ok(());
        };
        let record = Record::read(&key, &value);
        if agrees(self, id, &record) {
            return Ok(());
        }
        if record.and_then(|record| record.meta(id.clone())).is_err() {
            return self.read_again(id);
        }
        tracing::error!(
            "item {id} of collection {} is not what its index says; the next start reads all items",
            self.name
        );
        let mut batch = Batch::default();
        {
            let mut state = self.state.write();
            let keys: Vec<ShardKey> = state.shards().map(|(key, _)| key).collect();
            for key in keys {
                marks::set_sealed(&mut batch, self.description.number, key, None);
            }
            state.shards_mut().for_each(|s| s.standing.kept = false);
        }
        Ok(self.core.store.commit(batch)?)
    }

    /// Makes what is in memory of an item what its record says. Needs the turn of the item.
    fn read_again(&self, id: &ItemId) -> Result<(), EngineError> {
        let key = item_key(self.description.number, id);
        let value = self.core.store.get(&key)?;
        let slot = self.slot(id);
        let Some(value) = value else {
            self.state.write().remove(id, slot);
            return Ok(());
        };
        let record = Record::read(&key, &value);
        let item = record.and_then(|record| {
            check_dims(&self.description, &record)?;
            Ok((record.item(id.clone())?, record.stamp))
        });
        let reason = match item {
            Ok((item, stamp)) => {
                let mut state = self.state.write();
                state.drop_bad(id, slot);
                state.insert(&item, slot, stamp);
                return Ok(());
            }
            Err(reason) => reason,
        };
        tracing::error!(
            "item {id} of collection {} is damaged in the store: {reason}",
            self.name
        );
        {
            let mut state = self.state.write();
            state.remove(id, slot);
            state.damaged.insert(id.clone());
        }
        // The next open then looks at it, and builds the fields without what it had in them.
        let mut batch = Batch::default();
        if self.description.is_marked() {
            marks::put_damaged(&mut batch, self.description.number, id);
        }
        let mut index = self.index.write();
        index.doubt();
        index.write_digests(&mut batch);
        self.core.store.apply(batch)?;
        drop(index);
        Ok(self.core.store.sync()?)
    }
}

/// Checks that the embeddings of a record are such as the collection has.
pub(crate) fn check_dims(description: &Description, record: &Record<'_>) -> Result<(), String> {
    let check = |dim: usize, expected: usize| {
        let wrong = || format!("its embedding has dim {dim}, expected {expected}");
        if dim == expected {
            Ok(())
        } else {
            Err(wrong())
        }
    };
    let spaces = &description.spaces;
    check(record.shared_dim(), spaces.shared_dim)?;
    match (spaces.specific(record.modality), record.specific_dim()) {
        (Some(space), Some(dim)) => check(dim, space.dim),
        (None, Some(dim)) => check(dim, 0),
        (_, None) => Ok(()),
    }
}
