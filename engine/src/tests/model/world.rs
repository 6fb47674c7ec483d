//! An engine and the plain map beside it.

use std::{
    collections::BTreeSet,
    fs,
    num::NonZeroUsize,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
};

use tempfile::TempDir;

use super::{
    super::{filters, id, small, spaces},
    Kept,
    agree::{self, Outcome, same},
    ops::{self, Damage, Model, Op, Write},
    oracle,
};
use crate::{
    Collection, Engine, EngineConfig, EngineError, FieldKind, Fields, HnswParams, Item, ItemId,
    Upserted, store::MemoryStore,
};

/// How often each thing that must happen happened, so that a run that tests nothing is noticed.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) torn: AtomicU64,
    pub(super) whole: AtomicU64,
    pub(super) damaged: AtomicU64,
    pub(super) filtered: AtomicU64,
    pub(super) inexact: AtomicU64,
}

pub(super) struct World<'a> {
    seen: &'a Seen,
    dir: TempDir,
    store: Kept,
    open: Option<Open>,
    model: Model,
}

struct Open {
    collection: Arc<Collection>,
    /// Closes when it is dropped.
    _engine: Engine,
}

/// Few links and candidates, so that graphs are walked and not given up for a scan, and do not find
/// everything.
fn config() -> EngineConfig {
    let small = small();
    EngineConfig {
        shards: NonZeroUsize::new(1),
        hnsw: HnswParams {
            m: 2,
            ef_search: 1,
            ..small.hnsw
        },
        ..small
    }
}

impl<'a> World<'a> {
    pub(super) fn new(seen: &'a Seen) -> Self {
        let mut world = Self {
            seen,
            dir: tempfile::tempdir().expect("a temporary folder"),
            store: Kept(Arc::new(MemoryStore::stopping_after(usize::MAX))),
            open: None,
            model: Model::default(),
        };
        let engine = world.engine(true).expect("opens");
        let collection = engine.create("c", &spaces()).expect("creates");
        world.open = Some(Open {
            collection,
            _engine: engine,
        });
        world
    }

    fn engine(&self, indexes: bool) -> Result<Engine, EngineError> {
        let dir = indexes.then(|| self.dir.path().to_owned());
        Engine::with_store(Box::new(self.store.clone()), dir, config())
    }

    fn reopen(&mut self, indexes: bool) -> Outcome {
        self.open = None;
        let engine = self.engine(indexes);
        let engine = engine.map_err(|error| format!("it does not open: {error}"))?;
        let collection = engine.collection("c").ok_or("the collection is gone")?;
        self.open = Some(Open {
            collection,
            _engine: engine,
        });
        Ok(())
    }

    fn collection(&self) -> &Arc<Collection> {
        &self
            .open
            .as_ref()
            .expect("it is open between steps")
            .collection
    }

    /// Does one thing to both, and compares them.
    pub(super) fn apply(&mut self, op: &Op) -> Outcome {
        match op {
            Op::Write(write) => {
                self.write(write)
                    .map_err(|e| format!("a write failed: {e}"))??;
                write.on(&mut self.model);
                agree::holds_all(self.collection(), &self.model)
            }
            Op::Seal => {
                let sealed = self.collection().seal();
                sealed.map_err(|error| format!("a seal failed: {error}"))?;
                same("rows of tails", &self.collection().stats().tail_rows, &0)?;
                agree::holds_all(self.collection(), &self.model)
            }
            Op::Reopen { indexes } => {
                self.reopen(*indexes)?;
                agree::holds_all(self.collection(), &self.model)?;
                agree::answers_all(self.collection(), &self.model)
            }
            Op::Crash(room, write) => self.crash(*room, write),
            Op::Damage(damage) => {
                self.open = None;
                self.damage(*damage);
                self.reopen(true)?;
                // Before anything else is asked: what is damaged must be noticed by the search.
                agree::answers_all(self.collection(), &self.model)?;
                agree::holds_all(self.collection(), &self.model)
            }
            Op::Search(search) => {
                if search.filter.is_some() {
                    self.seen.filtered.fetch_add(1, SeqCst);
                }
                let inexact = oracle::check(self.collection(), &self.model, search)?;
                self.seen.inexact.fetch_add(u64::from(inexact), SeqCst);
                Ok(())
            }
        }
    }

    /// A write and what it says it did.
    fn write(&self, write: &Write) -> Result<Outcome, EngineError> {
        let (collection, items) = (self.collection(), &self.model.items);
        Ok(match write {
            Write::Upsert(contents) => {
                let all: Vec<Item> = contents.iter().map(ops::Content::item).collect();
                let new = |id: &&ItemId| !items.contains_key(*id);
                let ids: BTreeSet<&ItemId> = all.iter().map(|item| &item.id).collect();
                let inserted = ids.into_iter().filter(new).count();
                let wanted = Upserted {
                    inserted,
                    // The second of two with one id replaces the first.
                    updated: all.len() - inserted,
                };
                same("upserted", &collection.upsert(all.clone())?, &wanted)
            }
            Write::Delete(names) => {
                let mut ids: Vec<ItemId> = names.iter().map(|n| id(&ops::name(*n))).collect();
                let deleted = collection.delete(&ids)?;
                ids.sort();
                ids.dedup();
                let there = ids.iter().filter(|id| items.contains_key(id)).count();
                same("deleted", &deleted, &there)
            }
            Write::Declare(field) => {
                collection.declare(&fields(&[*field]))?;
                Ok(())
            }
        })
    }

    /// A write that the store may stop in the middle of. What is there afterwards is what was there
    /// before it, or what it makes of that.
    fn crash(&mut self, room: usize, write: &Write) -> Outcome {
        let mut after = self.model.clone();
        write.on(&mut after);
        self.store.0.stop_after(room);
        let acknowledged = self
            .write(write)
            .map_or(Ok(false), |said| said.map(|()| true))?;
        self.open = None;
        self.store = Kept(Arc::new(self.store.0.reopened()));
        self.reopen(true)?;
        let there = agree::there(self.collection())?;
        if acknowledged || there == after {
            self.seen.whole.fetch_add(1, SeqCst);
            same("after an acknowledged write", &there, &after)?;
        } else {
            self.seen.torn.fetch_add(1, SeqCst);
            same("after a write that failed", &there, &self.model)?;
        }
        self.model = there;
        agree::holds_all(self.collection(), &self.model)?;
        agree::answers_all(self.collection(), &self.model)
    }

    fn index_files(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.dir.path().join("c"));
        let entries = entries.into_iter().flatten().flatten();
        let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
        files.sort();
        files
    }

    fn damage(&self, damage: Damage) {
        let files = self.index_files();
        let (Damage::Remove { file } | Damage::Flip { file, .. } | Damage::Cut { file, .. }) =
            damage;
        let Some(file) = file.checked_rem(files.len()).map(|file| &files[file]) else {
            return;
        };
        let mut bytes = fs::read(file).expect("an index file reads");
        let place = |at: usize| at.checked_rem(bytes.len()).unwrap_or(0);
        match damage {
            Damage::Remove { .. } => fs::remove_file(file).expect("removes"),
            Damage::Flip { byte, bit, .. } => {
                let byte = place(byte);
                bytes[byte] ^= 1 << bit;
                fs::write(file, bytes).expect("writes");
            }
            Damage::Cut { at, .. } => fs::write(file, &bytes[..place(at)]).expect("writes"),
        }
        self.seen.damaged.fetch_add(1, SeqCst);
    }
}

/// Fields by their numbers.
fn fields(numbers: &[usize]) -> Fields {
    let all = filters::fields();
    let named = |(name, _): &(&str, FieldKind)| numbers.iter().any(|n| filters::NAMES[*n] == *name);
    Fields::new(all.iter().filter(named)).expect("good fields")
}
