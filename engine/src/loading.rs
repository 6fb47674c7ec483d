//! Opening a collection: its segments from files, and what they cannot know from the store.
//!
//! Where the store says of every shard which segment is the good one, and each is there, only the
//! items that have changed since are read ([`crate::marks`]); an open then takes as long as there
//! are changes, and as it takes to read codes and links. Otherwise every record is read, and the
//! stamps of the rows say which of them are still good. The two come to the same.
//!
//! The indexes of fields are compared with what they must add up to, and built again where they
//! differ.

mod files;

use std::{collections::BTreeSet, sync::Arc};

use embedding::Aspect;
use files::Files;
use roaring::RoaringBitmap;

use crate::{
    EngineError, ItemId,
    catalog::{self, Description, item_key, item_prefix},
    collection::{Collection, Core, Derived, id_of},
    confidence::{Confidence, keeping},
    filter::{digests::Digests, ordinals::Ordinals, postings::FieldIndex},
    marks::{self, Mark, Sealed},
    record::Record,
    repair::check_dims,
    sealing,
    shard::{Shard, ShardKey, Standing},
    state::{State, slot_of},
    store::Batch,
    versions::Versions,
};

/// Marks that are put in one batch.
const MARK_BATCH: usize = 1000;

/// Opens a collection. What no good file covers lies in tails, is scanned exactly, and is sealed in
/// the background if there is much of it.
pub(crate) fn load(
    name: String,
    description: Description,
    versions: Versions,
    core: &Arc<Core>,
) -> Result<Arc<Collection>, EngineError> {
    let mut loading = Loading {
        name,
        description,
        core,
        state: State::new(Vec::new()),
        used: RoaringBitmap::new(),
        expected: None,
        newly_damaged: Vec::new(),
    };
    loading.items()?;
    loading.finish(versions)
}

/// A collection that is being opened.
struct Loading<'a> {
    name: String,
    description: Description,
    core: &'a Arc<Core>,
    state: State,
    /// Ordinals of the items.
    used: RoaringBitmap,
    /// What the indexes of fields must add up to, where that is known.
    expected: Option<Digests>,
    /// Changed items whose records are damaged, and which the indexes of fields may still have.
    newly_damaged: Vec<ItemId>,
}

impl Loading<'_> {
    /// Finds all items.
    fn items(&mut self) -> Result<(), EngineError> {
        let (name, store) = (self.name.clone(), self.core.store.as_ref());
        let Some(dir) = self.core.index_dir.as_ref().map(|dir| dir.join(&name)) else {
            if self.description.is_marked() {
                // From now on changes are not marked.
                self.description = self.description.clone().marked(false);
                catalog::write(store, &name, &self.description)?;
            }
            self.state = State::new(Files::none(&self.description));
            return self.read_all();
        };
        let files = Files::open(&dir, &self.description, self.core)?;
        let are_good = files.are_good;
        self.state = State::new(files.parts);
        if are_good {
            if self.read_marked()? {
                let known = Digests::stored(store, self.description.number)?;
                self.expected = known.filter(|_| self.newly_damaged.is_empty());
                return Ok(());
            }
            tracing::error!("two items of collection {name} have one ordinal in its indexes");
            self.state.damaged.clear();
        }
        self.state.shards_mut().for_each(Shard::distrust);
        self.used.clear();
        self.read_all()?;
        self.start_marking()
    }

    /// Reads the items that have changed since the shards were sealed; all others are as the
    /// segments say. `false` when these cannot be right.
    fn read_marked(&mut self) -> Result<bool, EngineError> {
        let store = self.core.store.as_ref();
        let number = self.description.number;
        let marked: Vec<Mark> = marks::marked(store, number).collect::<Result<_, _>>()?;
        for Mark { id, .. } in &marked {
            self.state
                .remove(id, slot_of(id.as_str(), self.description.shards));
        }
        let shared = self
            .state
            .shards()
            .filter(|(key, _)| key.aspect == Aspect::Shared);
        let ordinals = shared.flat_map(|(_, shard)| shard.view.sealed_stamps());
        let mut ordinals: Vec<u32> = ordinals.map(|stamp| stamp.ordinal).collect();
        ordinals.sort_unstable();
        match RoaringBitmap::from_sorted_iter(ordinals.iter().copied()) {
            Ok(used) if used.len() == ordinals.len() as u64 => self.used = used,
            _ => return Ok(false),
        }
        drop(ordinals);
        for Mark { id, damaged } in marked {
            let key = item_key(number, &id);
            if let Some(value) = store.get(&key)? {
                self.restore(id.clone(), &key, &value, &mut |_, _| Ok(()));
                if !damaged && self.state.damaged.contains(&id) {
                    self.newly_damaged.push(id);
                }
            }
        }
        Ok(true)
    }

    /// Reads all items.
    fn read_all(&mut self) -> Result<(), EngineError> {
        let number = self.description.number;
        let fields = self.description.fields.clone();
        let mut expected = Digests::default();
        let core = Arc::clone(self.core);
        for entry in core.store.scan(&item_prefix(number)) {
            let (key, value) = entry?;
            let id = match id_of(&self.name, number, &key) {
                Ok(id) => id,
                Err(error) => {
                    // Nobody can ask for it. The other items are still good.
                    tracing::error!("{error}");
                    continue;
                }
            };
            self.restore(id, &key, &value, &mut |ordinal, record| {
                if !fields.is_empty() {
                    expected.add_item(&fields, ordinal, &record.payload()?);
                }
                Ok(())
            });
        }
        self.expected = Some(expected);
        Ok(())
    }

    /// Takes an item that is not there yet.
    fn restore(
        &mut self,
        id: ItemId,
        key: &[u8],
        value: &[u8],
        then: &mut dyn FnMut(u32, &Record<'_>) -> Result<(), String>,
    ) {
        let restored = Record::read(key, value).and_then(|record| {
            let ordinal = record.stamp.ordinal;
            if self.used.contains(ordinal) {
                return Err(format!("its ordinal {ordinal} is that of another item"));
            }
            self.place(&id, &record)?;
            self.used.insert(ordinal);
            then(ordinal, &record)
        });
        if let Err(reason) = restored {
            // The other items are still good. Asking for this one gives the error.
            let name = &self.name;
            tracing::error!("item {id} of collection {name} is damaged in the store: {reason}");
            self.state.damaged.insert(id);
        }
    }

    fn place(&mut self, id: &ItemId, record: &Record<'_>) -> Result<(), String> {
        check_dims(&self.description, record)?;
        let Record {
            modality, stamp, ..
        } = *record;
        let slot = slot_of(id.as_str(), self.description.shards);
        let key = |aspect| ShardKey {
            modality,
            slot,
            aspect,
        };
        if let Some(shard) = self.state.shard_mut(&key(Aspect::Shared)) {
            shard.restore(id.as_str(), stamp, || record.shared())?;
        }
        if record.specific_dim().is_some()
            && let Some(shard) = self.state.shard_mut(&key(Aspect::Specific(modality)))
        {
            shard.restore(id.as_str(), stamp, || record.specific())?;
        }
        Ok(())
    }

    /// After all records were read: marks what the segments do not know, so that the next open need
    /// not read them. A shard that is about to be sealed is left as it is: that will do.
    fn start_marking(&mut self) -> Result<(), EngineError> {
        let store = self.core.store.as_ref();
        let number = self.description.number;
        let mut changed = BTreeSet::new();
        let mut last = Batch::default();
        let was_marked = self.description.is_marked();
        let mut begins = Vec::new();
        for (key, shard) in self.state.shards() {
            let kept = shard.standing.kept;
            if !kept && shard.wants_seal(&self.core.config) {
                if !was_marked {
                    marks::set_sealed(&mut last, number, key, None);
                }
                continue;
            }
            let ids = shard.view.changed_ids().map(ItemId::new);
            changed.extend(ids.collect::<Result<Vec<_>, _>>()?);
            if !kept {
                begins.push((key, shard.standing.generation + 1));
            }
        }
        for (key, generation) in &begins {
            let sealed = Sealed {
                generation: *generation,
                head: None,
            };
            marks::set_sealed(&mut last, number, *key, Some(sealed));
        }
        let changed: Vec<ItemId> = changed.into_iter().collect();
        for ids in changed.chunks(MARK_BATCH) {
            let mut batch = Batch::default();
            for id in ids {
                marks::put(&mut batch, number, id);
            }
            store.commit(batch)?;
        }
        self.newly_damaged = self.state.damaged.iter().cloned().collect();
        let description = self.description.clone().marked(true);
        if !was_marked {
            catalog::describe(&mut last, &self.name, &description);
        }
        if !last.is_empty() {
            store.commit(last)?;
        }
        self.description = description;
        for (key, generation) in begins {
            if let Some(shard) = self.state.shard_mut(&key) {
                let kept = true;
                shard.standing = Standing { generation, kept };
            }
        }
        Ok(())
    }

    /// Opens the fields, builds again those that are not good, and puts everything together.
    fn finish(self, versions: Versions) -> Result<Arc<Collection>, EngineError> {
        let Self {
            name,
            description,
            core,
            state,
            used,
            expected,
            newly_damaged,
        } = self;
        let store = core.store.as_ref();
        let fields = Arc::new(description.fields.clone());
        let mut found = FieldIndex::open(store, name.clone(), description.number, fields.clone())?;
        for (field, number) in fields.0.iter().map(|(name, field)| (name, field.number)) {
            let fits = |expected: &Digests| expected.of(number) == found.digests.of(number);
            if !expected.as_ref().is_some_and(fits) && found.damaged.insert(number) {
                tracing::warn!(
                    "the index of field {field} of collection {name} does not fit its items"
                );
            }
        }
        found.index.expect(expected.unwrap_or_default());
        let says = Digests::stored(store, description.number)?;
        let is_said = says.as_ref() == Some(found.index.digests());
        let damaged = found.damaged.iter().copied();
        let damaged: Vec<u16> = damaged.filter(|number| fields.has(*number)).collect();
        if !found.damaged.is_empty() {
            // Until they are built, an open must not take them for good.
            found.index.doubt();
            for number in &found.damaged {
                store.commit(found.index.clear(*number))?;
            }
        }
        let (of, fingerprint) = ((&*name, description.number), description.spaces.fingerprint);
        let calibration = keeping::read(store, of, fingerprint)?;
        let derived = Derived {
            confidence: Confidence::with(calibration),
            state,
            index: found.index,
            ordinals: Ordinals::without(&used),
            versions,
        };
        let collection = Collection::new(name, description, core.clone(), derived);
        if !damaged.is_empty() {
            collection.build_fields(&damaged)?;
        }
        let is_said = found.damaged.is_empty() && (is_said || fields.is_empty());
        if !is_said || !newly_damaged.is_empty() {
            let mut batch = Batch::default();
            for id in newly_damaged {
                marks::put_damaged(&mut batch, collection.description.number, &id);
            }
            let mut index = collection.index.write();
            index.be_sure();
            index.write_digests(&mut batch);
            core.store.commit(batch)?;
        }
        sealing::request(&collection);
        core.checks.opened(&collection);
        Ok(collection)
    }
}
