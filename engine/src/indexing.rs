//! Keeping the indexes of fields in step with the items, and asking them.

use std::{collections::BTreeSet, sync::Arc};

use roaring::RoaringBitmap;

use crate::{
    Durability, EngineError, Fields, Filter, Item, ItemId, Payload,
    catalog::{self, item_key, item_prefix},
    collection::Collection,
    filter::{
        checked::{self, Checked},
        field::FieldSet,
        postings::{Changes, Staged},
        value::WrongValue,
    },
    record::Record,
    store::Batch,
    versions::Raise,
};

/// Items whose entries are added in one batch while a field is being built. Writers wait for one
/// such batch at most.
const BUILD_ITEMS: usize = 512;

/// A change of one item, for the indexes.
pub(crate) struct Write<'a> {
    pub(crate) id: &'a ItemId,
    /// Its ordinal, before or after.
    pub(crate) ordinal: u32,
    /// Whether a good record with this ordinal is in the store.
    pub(crate) there: bool,
    /// What its payload will be; `None` when it goes.
    pub(crate) payload: Option<&'a Payload>,
}

/// What is stored together.
pub(crate) struct Commit<'a> {
    pub(crate) batch: Batch,
    /// The same, for the indexes.
    pub(crate) writes: &'a [Write<'a>],
    /// The highest version in it.
    pub(crate) newest: u64,
    /// Whether entries of items may be left that are not told.
    pub(crate) leaves_entries: bool,
    pub(crate) durability: Durability,
}

impl Collection {
    /// The fields that filters may name.
    pub fn fields(&self) -> Fields {
        self.index.read().fields().ready()
    }

    /// Adds fields, and indexes the items that are there; durable on return. Those that are
    /// declared stay. Others may write and search meanwhile; filters know a field when it is
    /// complete.
    ///
    /// # Errors
    /// When a field is declared with another kind, when there would be too many, when an item has
    /// a value that does not fit, or when the store fails. Nothing is declared then.
    pub fn declare(&self, fields: &Fields) -> Result<(), EngineError> {
        let _turn = self.declaring.take(&[()]).ok_or_else(|| self.gone())?;
        let new = {
            let mut index = self.index.write();
            let (all, new) = index.fields().with(&self.name, fields)?;
            index.set_fields(all);
            new
        };
        if new.is_empty() {
            return Ok(());
        }
        let built = self.build_fields(&new).and_then(|()| {
            let mut description = self.description.clone();
            description.fields = self.index.read().fields().all_ready();
            catalog::write(self.core.store.as_ref(), &self.name, &description)
        });
        let mut index = self.index.write();
        let mut all = index.fields().as_ref().clone();
        match built {
            Ok(()) => index.set_fields(Arc::new(all.all_ready())),
            Err(error) => {
                all.0.retain(|_, field| !new.contains(&field.number));
                index.set_fields(Arc::new(all));
                for field in new {
                    let batch = index.clear(field);
                    self.core.store.commit(batch)?;
                }
                return Err(error);
            }
        }
        Ok(())
    }

    /// Adds the entries of all items to the indexes of these fields, which writers keep already.
    pub(crate) fn build_fields(&self, numbers: &[u16]) -> Result<(), EngineError> {
        let store = self.core.store.as_ref();
        // What was applied before the fields were known must be among what the scan gives.
        store.sync()?;
        let mut items = store.scan(&item_prefix(self.description.number));
        loop {
            let keys = items.by_ref().take(BUILD_ITEMS);
            let keys: Vec<Vec<u8>> = keys
                .map(|entry| entry.map(|(key, _)| key))
                .collect::<Result<_, _>>()?;
            if keys.is_empty() {
                return Ok(());
            }
            // Under the lock, so that each record is what the writers' changes lead to.
            let mut index = self.index.write();
            let mut fields = FieldSet::clone(index.fields());
            fields.0.retain(|_, field| numbers.contains(&field.number));
            let mut changes = Changes::default();
            for key in keys {
                let Some(value) = store.get(&key)? else {
                    continue;
                };
                // A damaged record is no item as far as searches are concerned.
                let Ok(record) = Record::read(&key, &value) else {
                    continue;
                };
                let id = self.id_of(&key)?;
                let payload = record.payload();
                let payload = payload.map_err(|reason| self.damaged(id.as_str(), reason))?;
                changes
                    .add(&fields, record.stamp.ordinal, None, Some(&payload))
                    .map_err(|wrong| self.wrong_value(&id, wrong))?;
            }
            let staged = index.stage(store, &changes)?;
            let (batch, pages) = staged.into_parts();
            store.apply(batch)?;
            index.adopt(pages);
            drop(index);
            store.sync()?;
        }
    }

    /// Stores a batch together with what it changes in the indexes. Gives the ordinals whose old
    /// record did not read back, so that entries of theirs may be left; and how durable it is.
    pub(crate) fn commit(
        &self,
        commit: Commit<'_>,
    ) -> Result<(BTreeSet<u32>, Durability), EngineError> {
        let Commit {
            mut batch,
            writes,
            newest,
            leaves_entries,
            durability,
        } = commit;
        let store = self.core.store.as_ref();
        let mut unknown = BTreeSet::new();
        let inside = self.gate.enter(store, &batch);
        let (bytes, raised) = loop {
            let fields = {
                let index = self.index.read();
                if index.fields().is_empty() {
                    // Applied under the lock: a field that comes now is built from what is stored.
                    break self.apply(batch, newest)?;
                }
                index.fields().clone()
            };
            let changes = self.changes(&fields, writes, &mut unknown)?;
            let mut index = self.index.write();
            // Fields come seldom, and then this is done once more.
            if Arc::ptr_eq(index.fields(), &fields) {
                if leaves_entries || !unknown.is_empty() {
                    index.doubt();
                }
                let staged: Staged = index.stage(store, &changes)?;
                let (more, pages) = staged.into_parts();
                batch.writes.extend(more.writes);
                let applied = self.apply(batch, newest)?;
                index.adopt(pages);
                break applied;
            }
        };
        drop(inside);
        let wanted = if self.versions.is_safe(newest) {
            durability
        } else {
            Durability::Flushed
        };
        let durability = self.core.flushes.finish(store, bytes, wanted)?;
        if durability == Durability::Flushed
            && let Some(ceiling) = raised
        {
            self.versions.durable(ceiling);
        }
        Ok((unknown, durability))
    }

    /// Applies a batch, with a new ceiling of versions if it needs one. Gives its bytes and that
    /// ceiling.
    fn apply(&self, mut batch: Batch, newest: u64) -> Result<(u64, Option<u64>), EngineError> {
        let number = self.description.number;
        let raise = self.versions.raise(&mut batch, number, newest);
        let bytes = batch.bytes();
        self.core.store.apply(batch)?;
        Ok((bytes, raise.map(Raise::applied)))
    }

    fn changes(
        &self,
        fields: &FieldSet,
        writes: &[Write<'_>],
        unknown: &mut BTreeSet<u32>,
    ) -> Result<Changes, EngineError> {
        let mut changes = Changes::default();
        for write in writes {
            // Nobody else writes this item now.
            let old = if write.there {
                self.old_payload(write.id)?
            } else {
                None
            };
            if write.there && old.is_none() {
                unknown.insert(write.ordinal);
            }
            changes
                .add(fields, write.ordinal, old.as_ref(), write.payload)
                .map_err(|wrong| self.wrong_value(write.id, wrong))?;
        }
        Ok(changes)
    }

    /// The payload in the store; `None` when it does not read back.
    fn old_payload(&self, id: &ItemId) -> Result<Option<Payload>, EngineError> {
        let key = item_key(self.description.number, id);
        let value = self.core.store.get(&key)?;
        let record = value.as_ref().map(|value| Record::read(&key, value));
        Ok(record.and_then(|record| record.and_then(|record| record.payload()).ok()))
    }

    /// Refuses an item whose payload does not fit the declared fields.
    pub(crate) fn check_payload(&self, item: &Item) -> Result<(), EngineError> {
        let fields = self.index.read().fields().clone();
        Changes::default()
            .add(&fields, 0, None, Some(&item.payload))
            .map_err(|wrong| self.wrong_value(&item.id, wrong))
    }

    fn wrong_value(&self, id: &ItemId, (field, wrong): (&str, WrongValue)) -> EngineError {
        EngineError::WrongValue {
            collection: self.name.clone(),
            id: id.to_string(),
            field: field.to_owned(),
            value: wrong.value,
            expected: wrong.expected,
        }
    }

    /// Checks a filter against the declared fields.
    pub(crate) fn check_filter(&self, filter: &Filter) -> Result<Checked, EngineError> {
        checked::check(filter, self.index.read().fields())
    }

    /// The ordinals of the items that pass.
    pub(crate) fn matching(&self, filter: &Checked) -> Result<RoaringBitmap, EngineError> {
        let all = self.ordinals.lock().taken();
        let index = self.index.read();
        index.passing(self.core.store.as_ref(), filter, &all)
    }
}
