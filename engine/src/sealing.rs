//! Building new segments aside and putting them in place, in the background or on demand. The
//! background thread also has collections calibrate themselves.

use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::{Arc, Weak, atomic::Ordering::SeqCst},
    thread::JoinHandle,
};

use parking_lot::{Condvar, Mutex};

use crate::{
    EngineError,
    collection::Collection,
    confidence::fit_if_due,
    error::panic_text,
    segment::Segment,
    segment_file,
    shard::{Shard, ShardKey, View},
};

/// Shards that want to be sealed, and collections that want to calibrate themselves. Each is in it
/// at most once, so it is bounded by their number.
#[derive(Debug, Clone, Default)]
pub(crate) struct SealQueue {
    shared: Arc<(Mutex<Waiting>, Condvar)>,
}

#[derive(Debug, Default)]
struct Waiting {
    tasks: VecDeque<(Weak<Collection>, Task)>,
    closed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Task {
    Seal(ShardKey),
    Calibrate,
}

impl SealQueue {
    fn push(&self, collection: &Arc<Collection>, task: Task) {
        let (waiting, changed) = &*self.shared;
        let mut waiting = waiting.lock();
        let task = (Arc::downgrade(collection), task);
        // A seal on demand may have taken up what waits here, and the shard may ask again.
        let is_it = |(of, other): &(Weak<_>, _)| of.ptr_eq(&task.0) && *other == task.1;
        if !waiting.tasks.iter().any(is_it) {
            waiting.tasks.push_back(task);
            changed.notify_one();
        }
    }

    fn next(&self) -> Option<(Weak<Collection>, Task)> {
        let (waiting, changed) = &*self.shared;
        let mut waiting = waiting.lock();
        loop {
            if waiting.closed {
                return None;
            }
            if let Some(next) = waiting.tasks.pop_front() {
                return Some(next);
            }
            changed.wait(&mut waiting);
        }
    }
}

/// The background thread. One is enough: it leaves the other cores to searches.
#[derive(Debug)]
pub(crate) struct Sealer {
    queue: SealQueue,
    thread: Option<JoinHandle<()>>,
}

impl Sealer {
    /// Starts the thread.
    pub(crate) fn start(queue: SealQueue) -> std::io::Result<Self> {
        let work = queue.clone();
        let thread = std::thread::Builder::new()
            .name("engine-seal".into())
            .spawn(move || {
                while let Some((collection, task)) = work.next() {
                    let Some(collection) = collection.upgrade() else {
                        continue;
                    };
                    let key = match task {
                        Task::Seal(key) => key,
                        Task::Calibrate => {
                            fit_if_due(&collection);
                            continue;
                        }
                    };
                    match seal(&collection, key, When::Due) {
                        Ok(()) => {}
                        Err(error) if collection.stopping.load(SeqCst) => {
                            tracing::debug!("{error}");
                        }
                        // The tail stays searchable; the next write asks again.
                        Err(error) => tracing::error!("{error}"),
                    }
                }
            })?;
        Ok(Self {
            queue,
            thread: Some(thread),
        })
    }

    /// Lets the thread finish; builds under way must have been told to stop.
    pub(crate) fn stop(&mut self) {
        let (waiting, changed) = &*self.queue.shared;
        waiting.lock().closed = true;
        changed.notify_all();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the sealing thread panicked");
        }
    }
}

/// Has the background thread seal, and calibrate, what is due.
pub(crate) fn request(collection: &Arc<Collection>) {
    if collection.wants_fit() {
        collection.confidence.fitting.store(true, SeqCst);
        collection.core.queue.push(collection, Task::Calibrate);
    }
    let config = &collection.core.config;
    let due = |shard: &Shard| !shard.sealing && shard.wants_seal(config);
    if !collection
        .state
        .read()
        .shards()
        .any(|(_, shard)| due(shard))
    {
        return;
    }
    let mut state = collection.state.write();
    let keys: Vec<ShardKey> = state
        .shards()
        .filter(|(_, shard)| due(shard))
        .map(|(key, _)| key)
        .collect();
    for key in keys {
        if let Some(shard) = state.shard_mut(&key) {
            shard.sealing = true;
            collection.core.queue.push(collection, Task::Seal(key));
        }
    }
}

/// Seals every shard that has something to seal, as many at a time as there are cores. Not on
/// rayon's threads: those are for searches.
pub(crate) fn seal_all(collection: &Collection) -> Result<(), EngineError> {
    let keys: Vec<ShardKey> = collection
        .state
        .read()
        .shards()
        .map(|(key, _)| key)
        .collect();
    let threads = std::thread::available_parallelism()
        .map_or(1, Into::into)
        .min(keys.len());
    let next = Mutex::new(keys.into_iter());
    let work = || -> Result<(), EngineError> {
        loop {
            let Some(key) = next.lock().next() else {
                return Ok(());
            };
            seal(collection, key, When::Now)?;
        }
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        for thread in threads {
            thread.join().expect("a seal catches its panics")?;
        }
        Ok(())
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum When {
    /// If there is anything to seal.
    Now,
    /// If the tail is long enough.
    Due,
}

fn seal(collection: &Collection, key: ShardKey, when: When) -> Result<(), EngineError> {
    // Waits for another seal of the same shard.
    let Some(_turn) = collection.seals.take(&[key]) else {
        // It is being deleted. Should that fail, the shard may ask again.
        if let Some(shard) = collection.state.write().shard_mut(&key) {
            shard.sealing = false;
        }
        return Err(collection.gone());
    };
    let taken = {
        let mut state = collection.state.write();
        let Some(shard) = state.shard_mut(&key) else {
            return Ok(());
        };
        let skip = match when {
            When::Now => shard.is_sealed(),
            When::Due => !shard.wants_seal(&collection.core.config),
        };
        if skip {
            shard.sealing = false;
            return Ok(());
        }
        shard.begin_seal()
    };
    let built = catch_unwind(AssertUnwindSafe(|| build(collection, key, &taken)));
    let failed = |reason: String| EngineError::SealFailed {
        collection: collection.name.clone(),
        shard: key.to_string(),
        reason,
    };
    let (segment, result) = match built {
        Ok(Some(segment)) => (Some(segment), Ok(())),
        Ok(None) => (None, Err(failed("the engine is closing".into()))),
        Err(panic) => (None, Err(failed(panic_text(panic.as_ref())))),
    };
    if let Some(shard) = collection.state.write().shard_mut(&key) {
        shard.end_seal(&taken, segment);
    }
    result
}

/// Builds the segment and writes its file; `None` when told to stop.
fn build(collection: &Collection, key: ShardKey, taken: &View) -> Option<Segment> {
    let stop = || collection.stopping.load(SeqCst);
    let segment = Segment::build(taken.live_rows(), &collection.core.config, &stop).ok()?;
    if let Some(path) = index_path(collection.index_dir(), key) {
        let owner = owner(
            collection.description.number,
            &collection.description.spaces,
            key,
        );
        let dim = segment.rows.dim();
        let kept = segment_file::write(&path, &owner, &segment)
            .and_then(|()| segment_file::read(&path, &owner, dim));
        match kept {
            // Mapped, it takes no memory that the system cannot have back.
            Ok(Some(mapped)) => return Some(mapped.settled(&collection.core.budget)),
            Ok(None) => {}
            // The file only saves memory, and work at the next open.
            Err(error) => tracing::warn!("cannot keep the index {}: {error}", path.display()),
        }
    }
    Some(segment)
}

/// File of a shard's segment in the folder of its collection.
pub(crate) fn index_path(dir: Option<PathBuf>, key: ShardKey) -> Option<PathBuf> {
    dir.map(|dir| dir.join(format!("{key}.idx")))
}

/// What a segment's file must say that it belongs to.
pub(crate) fn owner(number: u32, spaces: &embedding::Spaces, key: ShardKey) -> String {
    format!("{number}/{key}/{}", spaces.fingerprint)
}

#[cfg(test)]
mod tests {
    use embedding::{Aspect, Encoder, HashEncoder, Modality};

    use super::*;
    use crate::{Engine, EngineConfig};

    #[test]
    fn a_shard_waits_once_however_often_it_asks() {
        let engine = Engine::in_memory(EngineConfig::default());
        let encoder = HashEncoder::new(Modality::Text, 4);
        let spaces = Encoder::<&str>::spaces(&encoder);
        let collections = ["a", "b"].map(|name| engine.create(name, spaces).expect("creates"));
        let key = |slot| ShardKey {
            modality: Modality::Text,
            slot,
            aspect: Aspect::Shared,
        };
        let queue = SealQueue::default();
        for _ in 0..3 {
            for collection in &collections {
                queue.push(collection, Task::Seal(key(0)));
                queue.push(collection, Task::Seal(key(1)));
            }
        }
        assert_eq!(queue.shared.0.lock().tasks.len(), 4);
        let (first, of) = queue.next().expect("open");
        assert!(first.ptr_eq(&Arc::downgrade(&collections[0])) && of == Task::Seal(key(0)));
        queue.push(&collections[0], Task::Seal(key(0)));
        assert_eq!(queue.shared.0.lock().tasks.len(), 4, "it may ask again");
    }
}
