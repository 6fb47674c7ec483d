//! A named set of items of one model.
//!
//! Over 400 lines, for it is the one face of all that a collection does: each method checks, takes
//! its turn, and hands on.

use std::{
    collections::{BTreeSet, HashMap},
    path::PathBuf,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};

use embedding::{Aspect, Embedding, Modality, Spaces};
use parking_lot::{Mutex, RwLock};

use crate::{
    Answer, EngineError, Item, ItemId, ItemMeta, SearchRequest, Stats, Upserted,
    audit::{AuditQueue, Ledger},
    budget::Budget,
    catalog::{self, Description, item_key, item_prefix},
    checking::CheckQueue,
    confidence::Confidence,
    config::EngineConfig,
    filter::{ordinals::Ordinals, postings::FieldIndex},
    indexing::Write,
    marks,
    record::{self, Record, Stamp},
    sealing::{self, SealQueue},
    searching,
    shard::ShardKey,
    state::{Part, State, slot_of},
    store::{Batch, Store},
    turns::{Turn, Turns},
};

/// A named set of items of one model. Cheap to share; every method can be called from many threads.
pub struct Collection {
    pub(crate) name: String,
    pub(crate) description: Description,
    pub(crate) core: Arc<Core>,
    /// Held for moments only: never across a disk write, a search or an index build.
    pub(crate) state: RwLock<State>,
    /// Held while pages of it are read, or changed and applied; not while a write waits for the
    /// disk.
    pub(crate) index: RwLock<FieldIndex>,
    pub(crate) ordinals: Mutex<Ordinals>,
    /// Held while fields are added.
    pub(crate) declaring: Turns<()>,
    /// Ids that are being written.
    writes: Turns<ItemId>,
    /// Shards that are being sealed.
    pub(crate) seals: Turns<ShardKey>,
    /// What says how sure a hit is.
    pub(crate) confidence: Confidence,
    /// Set when builds under way must end.
    pub(crate) stopping: AtomicBool,
    /// Recall of its live queries.
    pub(crate) audit: Arc<Ledger>,
    deleted: AtomicBool,
    /// Itself, for work in the background.
    pub(crate) me: Weak<Collection>,
}

/// What all collections of an engine share.
pub(crate) struct Core {
    pub(crate) store: Box<dyn Store>,
    /// Where indexes are kept; `None` when they are not.
    pub(crate) index_dir: Option<PathBuf>,
    pub(crate) config: EngineConfig,
    pub(crate) queue: SealQueue,
    pub(crate) audits: AuditQueue,
    pub(crate) checks: CheckQueue,
    /// For the codes and links of sealed indexes.
    pub(crate) budget: Arc<Budget>,
}

#[cfg(test)]
impl Core {
    /// Without the threads that an engine has.
    pub(crate) fn for_tests(
        store: Box<dyn Store>,
        index_dir: &std::path::Path,
        config: EngineConfig,
    ) -> Arc<Self> {
        Arc::new(Self {
            store,
            index_dir: Some(index_dir.to_owned()),
            config,
            queue: SealQueue::default(),
            audits: AuditQueue::default(),
            checks: CheckQueue::default(),
            budget: Budget::new(None),
        })
    }
}

/// What is in memory of a collection, all of it derived from the store.
pub(crate) struct Derived {
    pub(crate) state: State,
    pub(crate) index: FieldIndex,
    pub(crate) ordinals: Ordinals,
    /// Not derived, but dispensable.
    pub(crate) confidence: Confidence,
}

impl Collection {
    pub(crate) fn new(
        name: String,
        description: Description,
        core: Arc<Core>,
        derived: Derived,
    ) -> Arc<Self> {
        let Derived {
            state,
            index,
            ordinals,
            confidence,
        } = derived;
        Arc::new_cyclic(|me| Self {
            name,
            description,
            audit: Arc::new(Ledger::new(&core.config)),
            core,
            state: RwLock::new(state),
            index: RwLock::new(index),
            ordinals: Mutex::new(ordinals),
            declaring: Turns::new(),
            writes: Turns::new(),
            seals: Turns::new(),
            confidence,
            stopping: AtomicBool::new(false),
            deleted: AtomicBool::new(false),
            me: me.clone(),
        })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The spaces of the model that made its embeddings.
    pub fn spaces(&self) -> &Spaces {
        &self.description.spaces
    }

    /// How full it is.
    pub fn stats(&self) -> Stats {
        let state = self.state.read();
        let mut stats = Stats {
            damaged_items: state.damaged.len(),
            shards: self.description.shards,
            sealing: state.shards().any(|(_, shard)| shard.sealing),
            ..Stats::default()
        };
        for Part {
            modality, shared, ..
        } in &state.parts
        {
            let sealed = shared.view.sealed.len();
            stats.sealed_rows += sealed;
            stats.tail_rows += shared.view.rows() - sealed;
            stats.deleted_rows += shared.view.dead.ones();
            match modality {
                Modality::Text => stats.texts += shared.live(),
                Modality::Image => stats.images += shared.live(),
            }
        }
        stats.items = stats.texts + stats.images;
        stats
    }

    /// Adds items, or puts them in place of those with the same ids. All or nothing; durable and
    /// searchable on return. Of several items with one id the last counts.
    ///
    /// # Errors
    /// When an embedding does not fit the collection's spaces, when a value of a payload does not
    /// fit its declared field, or when the store fails. Nothing is acknowledged then.
    pub fn upsert(self: &Arc<Self>, items: Vec<Item>) -> Result<Upserted, EngineError> {
        for item in &items {
            self.check(item)?;
        }
        let last: HashMap<ItemId, usize> = items
            .iter()
            .enumerate()
            .map(|(i, item)| (item.id.clone(), i))
            .collect();
        let is_last = |(i, item): (usize, Item)| (last.get(&item.id) == Some(&i)).then_some(item);
        let items: Vec<Item> = items.into_iter().enumerate().filter_map(is_last).collect();

        let ids: Vec<&ItemId> = items.iter().map(|item| &item.id).collect();
        let _turn = self.writes.take(&ids).ok_or_else(|| self.gone())?;
        let slots: Vec<usize> = items.iter().map(|item| self.slot(&item.id)).collect();
        let there: Vec<Option<u32>> = {
            let state = self.state.read();
            let known = items.iter().zip(&slots);
            known
                .map(|(item, slot)| state.ordinal(&item.id, *slot))
                .collect()
        };
        let (mut batch, mut writes) = (Batch::default(), Vec::with_capacity(items.len()));
        let mut stamps = Vec::with_capacity(items.len());
        for (item, there) in items.iter().zip(&there) {
            let ordinal = match there {
                Some(ordinal) => *ordinal,
                // One that is not used after all is free again at the next start.
                None => self.ordinals.lock().take().ok_or_else(|| self.full())?,
            };
            let stamp = Stamp::of(item, ordinal);
            let key = item_key(self.description.number, &item.id);
            let value = record::encode(&key, item, stamp);
            batch.put(key, value);
            writes.push(Write {
                id: &item.id,
                ordinal,
                there: there.is_some(),
                payload: Some(&item.payload),
            });
            stamps.push(stamp);
        }
        let replaces_damaged = {
            let state = self.state.read();
            for ((item, stamp), slot) in items.iter().zip(&stamps).zip(&slots) {
                if self.description.is_marked() && state.changes(item, *slot, *stamp) {
                    marks::put(&mut batch, self.description.number, &item.id);
                }
            }
            items.iter().any(|item| state.damaged.contains(&item.id))
        };
        self.commit(batch, &writes, replaces_damaged)?;

        let mut upserted = Upserted::default();
        let mut state = self.state.write();
        for ((item, stamp), slot) in items.iter().zip(&stamps).zip(&slots) {
            if state.contains(&item.id, *slot) {
                upserted.updated += 1;
            } else {
                upserted.inserted += 1;
            }
            state.insert(item, *slot, *stamp);
        }
        self.confidence.changed(items.iter().map(|item| &item.id));
        drop(state);
        sealing::request(self);
        Ok(upserted)
    }

    /// Removes items; durable on return. Gives the number of those that were there.
    ///
    /// # Errors
    /// When the store fails.
    pub fn delete(self: &Arc<Self>, ids: &[ItemId]) -> Result<usize, EngineError> {
        let ids: BTreeSet<&ItemId> = ids.iter().collect();
        let ids: Vec<&ItemId> = ids.into_iter().collect();
        let _turn = self.writes.take(&ids).ok_or_else(|| self.gone())?;
        let state = self.state.read();
        let there: Vec<&ItemId> = ids
            .into_iter()
            .filter(|id| state.contains(id, self.slot(id)))
            .collect();
        if there.is_empty() {
            return Ok(0);
        }
        let ordinals: Vec<Option<u32>> = there
            .iter()
            .map(|id| state.ordinal(id, self.slot(id)))
            .collect();
        let removes_damaged = there.iter().any(|id| state.damaged.contains(*id));
        drop(state);
        let mut batch = Batch::default();
        for id in &there {
            batch.remove(item_key(self.description.number, id));
            if self.description.is_marked() {
                marks::put(&mut batch, self.description.number, id);
            }
        }
        let writes = there.iter().zip(&ordinals).filter_map(|(id, ordinal)| {
            Some(Write {
                id,
                ordinal: (*ordinal)?,
                there: true,
                payload: None,
            })
        });
        let unknown = self.commit(batch, &writes.collect::<Vec<_>>(), removes_damaged)?;
        let mut state = self.state.write();
        for id in &there {
            state.remove(id, self.slot(id));
        }
        self.confidence.changed(there.iter().copied());
        drop(state);
        let mut free = self.ordinals.lock();
        for ordinal in ordinals.into_iter().flatten() {
            if !unknown.contains(&ordinal) {
                free.give_back(ordinal);
            }
        }
        drop(free);
        sealing::request(self);
        Ok(there.len())
    }

    /// The item with this id, embeddings and all.
    ///
    /// # Errors
    /// When its record is damaged, or the store fails.
    pub fn get(&self, id: &ItemId) -> Result<Option<Item>, EngineError> {
        self.read(id, |record| record.item(id.clone()))
    }

    /// Every item without its embeddings, in the order of ids. Others may write meanwhile.
    ///
    /// # Errors
    /// When the collection was deleted. The iterator itself gives an error for a damaged record,
    /// and goes on with the next; an error of the store is its last.
    pub fn metas(
        &self,
    ) -> Result<impl Iterator<Item = Result<ItemMeta, EngineError>> + Send + '_, EngineError> {
        self.each(|record, id| record.meta(id))
    }

    /// Every item, embeddings and all, in the order of ids. Others may write meanwhile, so that
    /// what comes is not of one moment.
    ///
    /// # Errors
    /// As for [`Collection::metas`].
    pub fn items(
        &self,
    ) -> Result<impl Iterator<Item = Result<Item, EngineError>> + Send + '_, EngineError> {
        self.each(|record, id| record.item(id))
    }

    fn each<T: 'static>(
        &self,
        read: impl Fn(&Record<'_>, ItemId) -> Result<T, String> + Send,
    ) -> Result<impl Iterator<Item = Result<T, EngineError>> + Send, EngineError> {
        if self.deleted.load(SeqCst) {
            return Err(self.gone());
        }
        let prefix = item_prefix(self.description.number);
        let entries = self.core.store.scan(&prefix);
        Ok(entries.map(move |entry| {
            let (key, value) = entry?;
            let id = self.id_of(&key)?;
            let item = Record::read(&key, &value).and_then(|record| read(&record, id.clone()));
            item.map_err(|reason| self.damaged(id.as_str(), reason))
        }))
    }

    /// The item with this id without its embeddings.
    pub(crate) fn meta(&self, id: &str) -> Result<Option<ItemMeta>, EngineError> {
        let id = ItemId::new(id)?;
        self.read(&id, |record| record.meta(id.clone()))
    }

    /// The nearest items, best first, ties by id.
    ///
    /// # Errors
    /// When a query comes from another model or has another dim, when its space holds no items of
    /// the target, when something in the request is out of its range or does not go with the rest
    /// ([`EngineError::BadSearch`]), when the filter does not fit the declared fields, when a found
    /// record is damaged, or when the store fails.
    pub fn search(&self, request: &SearchRequest) -> Result<Answer, EngineError> {
        searching::answer(self, request)
    }

    /// Seals every tail, and returns when that is done. Sealing also happens by itself in the
    /// background; this is for after a large import.
    ///
    /// # Errors
    /// When a build fails or the engine is being closed.
    pub fn seal(&self) -> Result<(), EngineError> {
        sealing::seal_all(self)
    }

    /// Whether [`Collection::upsert`] would take the item, as far as that depends on the item.
    ///
    /// # Errors
    /// As for [`Collection::upsert`], but for the store.
    pub fn check(&self, item: &Item) -> Result<(), EngineError> {
        self.check_item(item)?;
        self.check_payload(item)
    }

    fn check_item(&self, item: &Item) -> Result<(), EngineError> {
        let spaces = self.spaces();
        let check = |aspect, expected: usize, embedding: &Embedding| {
            let got = embedding.dim();
            if got == expected {
                return Ok(());
            }
            let (collection, what) = (self.name.clone(), format!("item {}", item.id));
            Err(EngineError::WrongDim {
                collection,
                aspect,
                expected,
                got,
                what,
            })
        };
        check(Aspect::Shared, spaces.shared_dim, &item.shared)?;
        match (spaces.specific(item.modality), &item.specific) {
            (Some(space), Some(specific)) => check(space.aspect, space.dim, specific),
            (None, Some(_)) => Err(EngineError::NoSuchAspect {
                collection: self.name.clone(),
                aspect: Aspect::Specific(item.modality),
                id: item.id.to_string(),
            }),
            (_, None) => Ok(()),
        }
    }

    /// Waits for other writers of these items, and keeps them waiting.
    pub(crate) fn take_turn(&self, ids: &[ItemId]) -> Result<Turn<'_, ItemId>, EngineError> {
        self.writes.take(ids).ok_or_else(|| self.gone())
    }

    /// Reads something off the record of an item.
    pub(crate) fn read<T>(
        &self,
        id: &ItemId,
        read: impl FnOnce(&Record<'_>) -> Result<T, String>,
    ) -> Result<Option<T>, EngineError> {
        if self.deleted.load(SeqCst) {
            return Err(self.gone());
        }
        let key = item_key(self.description.number, id);
        let Some(value) = self.core.store.get(&key)? else {
            return Ok(None);
        };
        let read = Record::read(&key, &value).and_then(|record| read(&record));
        read.map(Some)
            .map_err(|reason| self.damaged(id.as_str(), reason))
    }

    /// The id in a key of the store.
    pub(crate) fn id_of(&self, key: &[u8]) -> Result<ItemId, EngineError> {
        id_of(&self.name, self.description.number, key)
    }

    pub(crate) fn slot(&self, id: &ItemId) -> usize {
        slot_of(id.as_str(), self.description.shards)
    }

    pub(crate) fn damaged(&self, id: &str, reason: String) -> EngineError {
        EngineError::DamagedItem {
            collection: self.name.clone(),
            id: id.to_owned(),
            reason,
        }
    }

    fn full(&self) -> EngineError {
        EngineError::Full {
            collection: self.name.clone(),
        }
    }

    pub(crate) fn gone(&self) -> EngineError {
        EngineError::Deleted {
            collection: self.name.clone(),
        }
    }

    /// Takes the collection out of the store, after the last write and seal under way. When that
    /// fails it goes on as before.
    pub(crate) fn delete_all(&self) -> Result<(), EngineError> {
        self.writes.close();
        self.declaring.close();
        self.stopping.store(true, SeqCst);
        self.seals.close();
        let store = self.core.store.as_ref();
        let taken_out = catalog::delete(store, &self.name, self.description.number);
        if taken_out.is_ok() {
            self.deleted.store(true, SeqCst);
        } else {
            self.stopping.store(false, SeqCst);
            self.seals.open();
            self.writes.open();
        }
        taken_out
    }

    /// Where its indexes are.
    pub(crate) fn index_dir(&self) -> Option<PathBuf> {
        self.core.index_dir.as_ref().map(|dir| dir.join(&self.name))
    }
}

/// The id in a key of the store.
pub(crate) fn id_of(collection: &str, number: u32, key: &[u8]) -> Result<ItemId, EngineError> {
    let bytes = &key[item_prefix(number).len()..];
    let id = String::from_utf8(bytes.to_vec()).map_err(|error| error.to_string());
    id.and_then(|id| ItemId::new(id).map_err(|error| error.to_string()))
        .map_err(|reason| EngineError::DamagedItem {
            collection: collection.to_owned(),
            id: String::from_utf8_lossy(bytes).into_owned(),
            reason,
        })
}

impl std::fmt::Debug for Collection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Collection")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}
