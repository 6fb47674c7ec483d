//! An engine and the plain map beside it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    num::NonZeroUsize,
    ops::ControlFlow,
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
    ops::{self, Damage, Model, Op, Said, Step, Write},
    oracle,
};
use crate::{
    Collection, Done, Engine, EngineConfig, EngineError, FieldKind, Fields, HnswParams, Item,
    ItemId, Outcome as Became, SnapshotOptions, Upserted, WriteOptions, store::MemoryStore,
    verify_snapshot,
};

/// How often each thing that must happen happened, so that a run that tests nothing is noticed.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) torn: AtomicU64,
    pub(super) whole: AtomicU64,
    pub(super) damaged: AtomicU64,
    pub(super) filtered: AtomicU64,
    pub(super) inexact: AtomicU64,
    pub(super) conflicts: AtomicU64,
    pub(super) restored: AtomicU64,
}

pub(super) struct World<'a> {
    seen: &'a Seen,
    dir: TempDir,
    store: Kept,
    open: Option<Open>,
    model: Model,
    /// The versions of the items, and the highest that any had.
    versions: BTreeMap<ItemId, u64>,
    newest: u64,
    /// How many snapshots there are, and the last of them.
    snapshots: usize,
    snapshot: Option<Snapshot>,
}

struct Open {
    collection: Arc<Collection>,
    /// Closes when it is dropped.
    engine: Engine,
}

/// Where a snapshot is, and what was there when it was made.
struct Snapshot {
    path: PathBuf,
    model: Model,
    versions: BTreeMap<ItemId, u64>,
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
            versions: BTreeMap::new(),
            newest: 0,
            snapshots: 0,
            snapshot: None,
        };
        let engine = world.engine(true).expect("opens");
        let collection = engine.create("c", &spaces()).expect("creates");
        world.open = Some(Open { collection, engine });
        world
    }

    fn engine(&self, indexes: bool) -> Result<Engine, EngineError> {
        let dir = indexes.then(|| self.dir.path().join("index"));
        Engine::with_store(Box::new(self.store.clone()), dir, config())
    }

    fn reopen(&mut self, indexes: bool) -> Outcome {
        self.open = None;
        let engine = self.engine(indexes);
        let engine = engine.map_err(|error| format!("it does not open: {error}"))?;
        let collection = engine.collection("c").ok_or("the collection is gone")?;
        self.open = Some(Open { collection, engine });
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
                let new = write.on(&mut self.model);
                self.holds_all(&new)
            }
            Op::Seal => {
                let sealed = self.collection().seal();
                sealed.map_err(|error| format!("a seal failed: {error}"))?;
                same("rows of tails", &self.collection().stats().tail_rows, &0)?;
                self.holds_all(&BTreeSet::new())
            }
            Op::Reopen { indexes } => {
                self.reopen(*indexes)?;
                self.holds_all(&BTreeSet::new())?;
                agree::answers_all(self.collection(), &self.model)
            }
            Op::Snapshot { tar } => self.take_snapshot(*tar),
            Op::Restore => self.restore(),
            Op::Crash(room, write) => self.crash(*room, write),
            Op::Damage(damage) => {
                self.open = None;
                self.damage(*damage);
                self.reopen(true)?;
                // Before anything else is asked: what is damaged must be noticed by the search.
                agree::answers_all(self.collection(), &self.model)?;
                self.holds_all(&BTreeSet::new())
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

    /// Whether everything is there, with the versions that it had but for those that are new.
    fn holds_all(&mut self, new: &BTreeSet<ItemId>) -> Outcome {
        agree::holds_all(self.collection(), &self.model)?;
        let versions = agree::versions(self.collection())?;
        for (id, version) in &versions {
            match self.versions.get(id) {
                _ if new.contains(id) && *version > self.newest => {}
                Some(before) if !new.contains(id) && before == version => {}
                before => {
                    return Err(format!(
                        "{id} has version {version} after {before:?}, the newest was {}, new are \
                         {new:?}",
                        self.newest
                    ));
                }
            }
        }
        self.newest = versions
            .values()
            .fold(self.newest, |newest, v| newest.max(*v));
        self.versions = versions;
        Ok(())
    }

    fn take_snapshot(&mut self, tar: bool) -> Outcome {
        self.snapshots += 1;
        let ending = if tar { ".tar" } else { "" };
        let name = format!("{}{ending}", self.snapshots);
        let path = self.dir.path().join("snapshots").join(name);
        let made = self
            .collection()
            .snapshot(&path, &SnapshotOptions::default(), &go_on);
        let made = made.map_err(|error| format!("a snapshot failed: {error}"))?;
        same("items", &made.info.items, &(self.model.items.len() as u64))?;
        self.snapshot = Some(Snapshot {
            path,
            model: self.model.clone(),
            versions: self.versions.clone(),
        });
        self.holds_all(&BTreeSet::new())
    }

    fn restore(&mut self) -> Outcome {
        let Some(snapshot) = &self.snapshot else {
            return Ok(());
        };
        let engine = &self.open.as_ref().expect("it is open").engine;
        let restored = || -> Result<Arc<Collection>, EngineError> {
            verify_snapshot(&snapshot.path, &go_on)?;
            engine.restore(&snapshot.path, "restored", &go_on)
        };
        let restored = restored().map_err(|error| format!("a restore failed: {error}"))?;
        agree::holds_all(&restored, &snapshot.model)?;
        let versions = agree::versions(&restored)?;
        same("restored versions", &versions, &snapshot.versions)?;
        agree::answers_all(&restored, &snapshot.model)?;
        let sealed = restored.seal();
        sealed.map_err(|error| format!("a seal of what was restored failed: {error}"))?;
        agree::answers_all(&restored, &snapshot.model)?;
        drop(restored);
        let deleted = engine.delete("restored");
        deleted.map_err(|error| format!("a delete failed: {error}"))?;
        self.seen.restored.fetch_add(1, SeqCst);
        self.holds_all(&BTreeSet::new())
    }

    /// Steps and what they say they did.
    fn write_steps(&self, steps: &[Step], each: bool) -> Result<Outcome, EngineError> {
        let (expected, _) = ops::steps(steps, each, &mut self.model.items.clone());
        let writes = steps.iter().map(|step| step.write(&self.versions));
        let (writes, options) = (writes.collect(), WriteOptions::default());
        let said = |outcome: Result<Became, EngineError>| -> Result<Said, EngineError> {
            Ok(match outcome {
                Ok(Became::Inserted(_)) => Said::Inserted,
                Ok(Became::Updated(_)) => Said::Updated,
                Ok(Became::Deleted) => Said::Deleted,
                Ok(Became::NotThere) => Said::NotThere,
                Err(EngineError::VersionConflict { .. }) => Said::Conflict,
                Err(EngineError::NoItem { .. }) => Said::NoItem,
                Err(other) => return Err(other),
            })
        };
        let conflicts = expected.iter().filter(|said| **said == Said::Conflict);
        let conflicts = conflicts.count() as u64;
        self.seen.conflicts.fetch_add(conflicts, SeqCst);
        if each {
            let written = self.collection().write_each(writes, options)?;
            let all: Result<Vec<Said>, _> = written.outcomes.into_iter().map(said).collect();
            return Ok(same("each said", &all?, &expected));
        }
        Ok(match self.collection().write(writes, options) {
            Ok(written) => {
                let all: Result<Vec<Said>, _> =
                    written.outcomes.into_iter().map(|o| said(Ok(o))).collect();
                same("said", &all?, &expected)
            }
            Err(error) => same(
                "said at last",
                &Some(said(Err(error))?),
                &expected.last().copied(),
            ),
        })
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
            Write::Steps { steps, each } => self.write_steps(steps, *each)?,
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
        let mut new = write.on(&mut after);
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
            // Where it puts what was there already, only versions tell.
            if !acknowledged && after == self.model {
                let versions = agree::versions(self.collection())?;
                if new
                    .iter()
                    .all(|id| versions.get(id) == self.versions.get(id))
                {
                    new.clear();
                }
            }
        } else {
            self.seen.torn.fetch_add(1, SeqCst);
            same("after a write that failed", &there, &self.model)?;
            new.clear();
        }
        self.model = there;
        self.holds_all(&new)?;
        agree::answers_all(self.collection(), &self.model)
    }

    fn index_files(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.dir.path().join("index/c"));
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

fn go_on(_: Done) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// Fields by their numbers.
fn fields(numbers: &[usize]) -> Fields {
    let all = filters::fields();
    let named = |(name, _): &(&str, FieldKind)| numbers.iter().any(|n| filters::NAMES[*n] == *name);
    Fields::new(all.iter().filter(named)).expect("good fields")
}
