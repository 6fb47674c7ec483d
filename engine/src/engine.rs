//! All collections of one data directory.

use std::{
    collections::BTreeMap,
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
};

use embedding::Spaces;
use fs_err as fs;
use parking_lot::{Mutex, RwLock};

use crate::{
    Done, EngineConfig, EngineError, Fields,
    audit::{AuditQueue, Auditor},
    background::Requests,
    budget::Budget,
    catalog::{self, Description},
    checking::{CheckQueue, Checker},
    collection::{Collection, Core},
    filter::field::FieldSet,
    flushing::{FlushQueue, Flusher},
    loading,
    sealing::{SealQueue, Sealer},
    snapshot::restore::Restore,
    store::{Batch, DiskStore, MemoryStore, Store},
    turns::Turns,
    versions::Versions,
};

/// Folder of the index files.
const INDEX_DIR: &str = "index";

/// All collections of one data directory. One process at a time may have a directory open.
///
/// Dropping it stops index builds under way and waits for them; they start again at the next open.
/// Buffered writes are then durable; all others were when they returned. The directory is free for others
/// when the last [`Collection`] is gone too.
#[derive(Debug)]
pub struct Engine {
    pub(crate) core: Arc<Core>,
    pub(crate) collections: RwLock<BTreeMap<String, Arc<Collection>>>,
    /// Names that are being created or deleted.
    pub(crate) names: Turns<String>,
    /// Held while jobs are added or changed.
    pub(crate) job_turn: Mutex<()>,
    next_number: AtomicU32,
    sealer: Sealer,
    /// Where queries are audited at all.
    auditor: Option<Auditor>,
    checker: Checker,
    flusher: Flusher,
}

impl Engine {
    /// Opens a data directory, or starts an empty one.
    ///
    /// # Errors
    /// When another process has it open ([`EngineError::Locked`]), when the configuration is out of
    /// range, when the store cannot be opened or read, or when the description of a collection is
    /// damaged in it ([`EngineError::DamagedCollection`]). Damaged items and index files are no
    /// error.
    pub fn open(dir: &Path, config: EngineConfig) -> Result<Self, EngineError> {
        config.validate()?;
        let store = DiskStore::open(dir, config.store_cache_bytes)?;
        Self::with_store(Box::new(store), Some(dir.join(INDEX_DIR)), config)
    }

    /// An engine that keeps nothing, for tests.
    ///
    /// # Panics
    /// When the configuration is out of range.
    pub fn in_memory(config: EngineConfig) -> Self {
        let store = Box::new(MemoryStore::new());
        Self::with_store(store, None, config).expect("an empty store in memory opens")
    }

    /// Whether what is written is still kept: after a write that failed, nothing is until the store is
    /// opened again. It takes no longer than a write of nothing.
    ///
    /// # Errors
    /// When it is not, with why.
    pub fn check_store(&self) -> Result<(), EngineError> {
        Ok(self.core.store.apply(Batch::default())?)
    }

    /// An engine on any store.
    ///
    /// # Errors
    /// As for [`Engine::open`].
    pub fn with_store(
        store: Box<dyn Store>,
        index_dir: Option<PathBuf>,
        config: EngineConfig,
    ) -> Result<Self, EngineError> {
        config.validate()?;
        catalog::remove_deleted(store.as_ref())?;
        let next_number = AtomicU32::new(catalog::next_number(store.as_ref())?);
        let listed = catalog::list(store.as_ref())?;
        let (queue, checks) = (SealQueue::default(), CheckQueue::default());
        let core = Arc::new(Core {
            store,
            index_dir,
            budget: Budget::new(config.index_memory_bytes),
            config,
            queue: queue.clone(),
            audits: AuditQueue::default(),
            checks: checks.clone(),
            requests: Requests::default(),
            flushes: FlushQueue::default(),
        });
        if let Some(dir) = &core.index_dir {
            remove_orphans(dir, &listed);
        }
        let collections = listed
            .into_iter()
            .map(|(name, description)| {
                let versions = Versions::open(core.store.as_ref(), description.number)?;
                let loaded = loading::load(name.clone(), description, versions, &core)?;
                Ok((name, loaded))
            })
            .collect::<Result<_, EngineError>>()?;
        let sealer = Sealer::start(queue, core.config.seal_share, core.requests.clone())?;
        let audits = (core.config.audit_share > 0.0).then(|| core.audits.clone());
        Ok(Self {
            auditor: audits.map(Auditor::start).transpose()?,
            flusher: Flusher::start(&core)?,
            core,
            collections: RwLock::new(collections),
            names: Turns::new(),
            job_turn: Mutex::new(()),
            next_number,
            sealer,
            checker: Checker::start(checks)?,
        })
    }

    /// Creates a collection for the embeddings of one model; durable on return. Gives the one that
    /// is there when the same model made it.
    ///
    /// # Errors
    /// When the name is not allowed, when another model made the collection, when a dim of the
    /// spaces is 0 or above 65,536, or when the store fails.
    pub fn create(&self, name: &str, spaces: &Spaces) -> Result<Arc<Collection>, EngineError> {
        self.create_with_fields(name, spaces, &Fields::default())
    }

    /// Creates a collection with fields that filters may name; durable on return. Gives the one
    /// that is there when the same model made it, and adds the fields that it does not have yet.
    ///
    /// # Errors
    /// As for [`Engine::create`] and [`Collection::declare`].
    pub fn create_with_fields(
        &self,
        name: &str,
        spaces: &Spaces,
        fields: &Fields,
    ) -> Result<Arc<Collection>, EngineError> {
        catalog::check_name(name)?;
        let name = name.to_owned();
        let _turn = self
            .names
            .take(&[&name])
            .expect("names are open as long as the engine is");
        if let Some(there) = self.collection(&name) {
            if there.spaces().same_model(spaces) {
                there.declare(fields)?;
                return Ok(there);
            }
            return Err(EngineError::AnotherModel {
                collection: name,
                made_by: there.spaces().shared().to_string(),
                got: spaces.shared().to_string(),
            });
        }
        let number = self.next_number.fetch_add(1, SeqCst);
        let mut description =
            Description::new(number, self.core.config.new_shards(), spaces.clone());
        let (declared, _) = FieldSet::default().with(&name, fields)?;
        description.fields = declared.all_ready();
        let versions = catalog::create(self.core.store.as_ref(), &name, &description)?;
        let collection = loading::load(name.clone(), description, versions, &self.core)?;
        self.collections.write().insert(name, collection.clone());
        Ok(collection)
    }

    /// Makes a collection out of a snapshot; durable and searchable on return. All of the snapshot is
    /// checked before the collection is there; indexes are built in the background afterwards, and
    /// searches scan meanwhile. `told` hears of every chunk, and says whether to go on.
    ///
    /// # Errors
    /// When the name is not allowed or taken, when the snapshot is none, is damaged or cannot be
    /// read, or when the store fails. There is no collection then.
    pub fn restore(
        &self,
        from: &Path,
        name: &str,
        told: &dyn Fn(Done) -> ControlFlow<()>,
    ) -> Result<Arc<Collection>, EngineError> {
        catalog::check_name(name)?;
        let restore = Restore::open(from)?;
        let name = name.to_owned();
        let _turn = self
            .names
            .take(&[&name])
            .expect("names are open as long as the engine is");
        if self.collection(&name).is_some() {
            return Err(EngineError::CollectionExists { collection: name });
        }
        let store = self.core.store.as_ref();
        let number = self.next_number.fetch_add(1, SeqCst);
        let shards = self.core.config.new_shards();
        let description = restore.description(&name, number, shards)?;
        catalog::begin(store, &name, number)?;
        let restored = restore
            .fill(store, (&name, &description), told)
            .and_then(|below| catalog::complete(store, &name, &description, below))
            .and_then(|versions| loading::load(name.clone(), description, versions, &self.core));
        match restored {
            Ok(collection) => {
                self.collections.write().insert(name, collection.clone());
                Ok(collection)
            }
            Err(error) => {
                let removed = catalog::delete(store, &name, number)
                    .and_then(|()| catalog::remove_items(store, number));
                if let Err(error) = removed {
                    tracing::warn!("what was restored is removed at the next open: {error}");
                }
                Err(error)
            }
        }
    }

    /// The collection with this name.
    pub fn collection(&self, name: &str) -> Option<Arc<Collection>> {
        self.collections.read().get(name).cloned()
    }

    /// Every collection, by name.
    pub fn collections(&self) -> Vec<Arc<Collection>> {
        self.collections.read().values().cloned().collect()
    }

    /// Deletes a collection and everything in it; durable on return. Gives whether it was there.
    ///
    /// # Errors
    /// When the store fails.
    pub fn delete(&self, name: &str) -> Result<bool, EngineError> {
        let name = name.to_owned();
        let _turn = self
            .names
            .take(&[&name])
            .expect("names are open as long as the engine is");
        let Some(collection) = self.collection(&name) else {
            return Ok(false);
        };
        collection.delete_all()?;
        self.collections.write().remove(&name);
        // From here on the collection is gone; what is left over is removed at the next open.
        if let Some(dir) = collection.index_dir() {
            remove_dir(&dir);
        }
        catalog::remove_items(self.core.store.as_ref(), collection.description.number)?;
        Ok(true)
    }

    /// Makes buffered writes durable, stops the background work and waits for it, as dropping does.
    pub fn close(self) {}
}

impl Drop for Engine {
    fn drop(&mut self) {
        for collection in self.collections.get_mut().values() {
            collection.stopping.store(true, SeqCst);
        }
        self.checker.stop();
        self.sealer.stop();
        if let Some(auditor) = &mut self.auditor {
            auditor.stop(&self.core.audits);
        }
        self.flusher.stop();
    }
}

impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Core")
            .field("index_dir", &self.index_dir)
            .finish_non_exhaustive()
    }
}

/// Removes index folders of collections that are no longer there.
fn remove_orphans(dir: &Path, listed: &[(String, Description)]) {
    let Ok(entries) = fs::read_dir(dir) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        if !listed.iter().any(|(listed, _)| name == listed.as_str()) {
            remove_dir(&entry.path());
        }
    }
}

fn remove_dir(dir: &Path) {
    match fs::remove_dir_all(dir) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => tracing::warn!("cannot remove an index that is no longer needed: {error}"),
    }
}
