//! A named set of items of one model. How its items change is in [`crate::writing`].

use std::{
    path::PathBuf,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};

use embedding::{Modality, Spaces};
use parking_lot::{Mutex, RwLock};

use crate::{
    Answer, EngineError, Item, ItemId, ItemMeta, SearchRequest, Stats,
    audit::{AuditQueue, Ledger},
    background::Requests,
    budget::Budget,
    catalog::{self, Description, item_key, item_prefix},
    checking::CheckQueue,
    confidence::Confidence,
    config::EngineConfig,
    filter::{ordinals::Ordinals, postings::FieldIndex},
    flushing::FlushQueue,
    heads::Recent,
    record::Record,
    sealing::{self, SealQueue},
    searching,
    shard::ShardKey,
    snapshot::frozen::Gate,
    state::{Part, State, slot_of},
    store::Store,
    turns::{Turn, Turns},
    versions::Versions,
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
    pub(crate) versions: Versions,
    /// Held while fields are added, or heads change.
    pub(crate) declaring: Turns<()>,
    /// Ids that are being written.
    pub(crate) writes: Turns<ItemId>,
    /// Where writers keep what a snapshot needs.
    pub(crate) gate: Gate,
    /// Shards that are being sealed.
    pub(crate) seals: Turns<ShardKey>,
    /// What says how sure a hit is.
    pub(crate) confidence: Confidence,
    /// Heads that were used lately.
    pub(crate) recent_heads: Recent,
    /// Set when builds under way must end.
    pub(crate) stopping: Arc<AtomicBool>,
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
    pub(crate) flushes: FlushQueue,
    /// Searches and writes under way.
    pub(crate) requests: Requests,
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
            flushes: FlushQueue::default(),
            requests: Requests::default(),
            budget: Budget::new(None),
        })
    }
}

/// What is in memory of a collection, all of it derived from the store.
pub(crate) struct Derived {
    pub(crate) state: State,
    pub(crate) index: FieldIndex,
    pub(crate) ordinals: Ordinals,
    pub(crate) versions: Versions,
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
            versions,
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
            versions,
            declaring: Turns::new(),
            writes: Turns::new(),
            gate: Gate::default(),
            seals: Turns::new(),
            confidence,
            recent_heads: Recent::default(),
            stopping: Arc::default(),
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

    /// The item with this id, embeddings and all.
    ///
    /// # Errors
    /// When its record is damaged, or the store fails.
    pub fn get(&self, id: &ItemId) -> Result<Option<Item>, EngineError> {
        self.read(id, |record| record.item(id.clone()))
    }

    /// The item with this id, embeddings and all, and the version that it has so.
    ///
    /// # Errors
    /// As for [`Collection::get`].
    pub fn get_with_version(&self, id: &ItemId) -> Result<Option<(Item, u64)>, EngineError> {
        self.read(id, |record| Ok((record.item(id.clone())?, record.version)))
    }

    /// Every item without its embeddings, in the order of ids. Others may write meanwhile.
    ///
    /// # Errors
    /// When the collection was deleted, or what is buffered cannot be written. The iterator itself gives an error for a damaged record,
    /// and goes on with the next; an error of the store is its last.
    pub fn metas(
        &self,
    ) -> Result<impl Iterator<Item = Result<ItemMeta, EngineError>> + Send + '_, EngineError> {
        self.each(None, |record: &Record<'_>, id| record.meta(id))
    }

    /// Every item, embeddings and all, in the order of ids. Others may write meanwhile, so that
    /// what comes is not of one moment.
    ///
    /// # Errors
    /// As for [`Collection::metas`].
    pub fn items(
        &self,
    ) -> Result<impl Iterator<Item = Result<Item, EngineError>> + Send + '_, EngineError> {
        self.each(None, |record: &Record<'_>, id| record.item(id))
    }

    /// Of every item behind `after`, in the order of ids.
    pub(crate) fn each<T: 'static>(
        &self,
        after: Option<ItemId>,
        read: impl Fn(&Record<'_>, ItemId) -> Result<T, String> + Send,
    ) -> Result<impl Iterator<Item = Result<T, EngineError>> + Send, EngineError> {
        if self.deleted.load(SeqCst) {
            return Err(self.gone());
        }
        let prefix = item_prefix(self.description.number);
        self.core.flushes.settle(self.core.store.as_ref())?;
        let after = after.map(|id| item_key(self.description.number, &id));
        let entries = self.core.store.scan_after(&prefix, after.as_deref());
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
        let _busy = self.core.requests.begin();
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

    pub(crate) fn full(&self) -> EngineError {
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
