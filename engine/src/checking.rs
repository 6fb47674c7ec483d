//! One thread that looks, slowly, at what an open did not: the rows of segments, the records of
//! items, and marks that are not needed. What is damaged is put right or put aside before somebody
//! asks for it.

use std::{
    collections::VecDeque,
    sync::{Arc, Weak, atomic::Ordering::SeqCst},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};

use crate::{
    EngineError, ItemId, catalog::item_prefix, collection::Collection, marks, record::Record,
    shard::ShardKey,
};

/// The thread pauses when it has worked for so long, and for so many times as long.
const WORK: Duration = Duration::from_millis(5);
const PAUSE_PART: u32 = 4;
/// Marks that are looked at together.
const MARKS: usize = 256;

/// Collections that were opened and not yet looked through. Each is in it once.
#[derive(Debug, Clone, Default)]
pub(crate) struct CheckQueue {
    shared: Arc<(Mutex<Waiting>, Condvar)>,
}

#[derive(Debug, Default)]
struct Waiting {
    collections: VecDeque<Weak<Collection>>,
    closed: bool,
}

impl CheckQueue {
    /// Has a collection looked through.
    pub(crate) fn opened(&self, collection: &Arc<Collection>) {
        let (waiting, changed) = &*self.shared;
        let mut waiting = waiting.lock();
        waiting.collections.push_back(Arc::downgrade(collection));
        changed.notify_one();
    }

    fn next(&self) -> Option<Weak<Collection>> {
        let (waiting, changed) = &*self.shared;
        let mut waiting = waiting.lock();
        loop {
            if waiting.closed {
                return None;
            }
            if let Some(next) = waiting.collections.pop_front() {
                return Some(next);
            }
            changed.wait(&mut waiting);
        }
    }

    /// Waits; whether to go on.
    fn pause(&self, time: Duration) -> bool {
        let (waiting, changed) = &*self.shared;
        let mut waiting = waiting.lock();
        let until = Instant::now() + time;
        while !waiting.closed {
            if changed.wait_until(&mut waiting, until).timed_out() {
                return true;
            }
        }
        false
    }
}

/// The background thread.
#[derive(Debug)]
pub(crate) struct Checker {
    queue: CheckQueue,
    thread: Option<JoinHandle<()>>,
}

impl Checker {
    /// Starts the thread.
    pub(crate) fn start(queue: CheckQueue) -> std::io::Result<Self> {
        let work = queue.clone();
        let thread = std::thread::Builder::new()
            .name("engine-check".into())
            .spawn(move || {
                while let Some(collection) = work.next() {
                    let Some(collection) = collection.upgrade() else {
                        continue;
                    };
                    let pace = Pace::new(&work, &collection);
                    if let Err(error) = look_through(&collection, pace) {
                        tracing::warn!(
                            "collection {} was not looked through for damage: {error}",
                            collection.name
                        );
                    }
                }
            })?;
        Ok(Self {
            queue,
            thread: Some(thread),
        })
    }

    /// Ends the thread.
    pub(crate) fn stop(&mut self) {
        let (waiting, changed) = &*self.queue.shared;
        waiting.lock().closed = true;
        changed.notify_all();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the checking thread panicked");
        }
    }
}

/// Leaves most of the time to others.
struct Pace<'a> {
    queue: &'a CheckQueue,
    collection: &'a Collection,
    since: Instant,
}

impl<'a> Pace<'a> {
    fn new(queue: &'a CheckQueue, collection: &'a Collection) -> Self {
        Self {
            queue,
            collection,
            since: Instant::now(),
        }
    }

    /// Pauses if it is time to; whether to go on.
    fn keep(&mut self) -> bool {
        let worked = self.since.elapsed();
        let go_on = worked < WORK || self.queue.pause(worked * PAUSE_PART);
        if worked >= WORK {
            self.since = Instant::now();
        }
        go_on && !self.collection.stopping.load(SeqCst)
    }
}

fn look_through(collection: &Collection, mut pace: Pace<'_>) -> Result<(), EngineError> {
    let keys: Vec<ShardKey> = collection
        .state
        .read()
        .shards()
        .map(|(key, _)| key)
        .collect();
    for key in keys {
        if !check_rows(collection, key, &mut pace)? {
            return Ok(());
        }
    }
    let store = collection.core.store.as_ref();
    let number = collection.description.number;
    let mut marked = marks::marked(store, number);
    loop {
        let some: Vec<_> = marked.by_ref().take(MARKS).collect::<Result<_, _>>()?;
        if some.is_empty() {
            break;
        }
        collection.unmark(some.into_iter().map(|mark| mark.id))?;
        if !pace.keep() {
            return Ok(());
        }
    }
    for entry in store.scan(&item_prefix(number)) {
        let (key, value) = entry?;
        // What has no good id was told of, or will be, by whoever lists the items.
        if let Ok(id) = collection.id_of(&key)
            && !agrees(collection, &id, &Record::read(&key, &value))
        {
            collection.look_again(&id)?;
        }
        if !pace.keep() {
            return Ok(());
        }
    }
    Ok(())
}

/// Whether what is in memory of an item is what its record says.
pub(crate) fn agrees(
    collection: &Collection,
    id: &ItemId,
    record: &Result<Record<'_>, String>,
) -> bool {
    let good = record.as_ref().ok().filter(|r| r.meta(id.clone()).is_ok());
    let state = collection.state.read();
    let is_it = good.is_some_and(|r| state.stamp(id, collection.slot(id)) == Some(r.stamp));
    is_it || state.damaged.contains(id)
}

/// Checks the rows of a shard's segment; whether to go on.
fn check_rows(
    collection: &Collection,
    key: ShardKey,
    pace: &mut Pace<'_>,
) -> Result<bool, EngineError> {
    let view = collection
        .state
        .read()
        .shard(&key)
        .map(|shard| shard.view.clone());
    let Some(view) = view else {
        return Ok(true);
    };
    let sealed = Arc::clone(&view.sealed);
    drop(view);
    if let Some(blocks) = sealed.rows.blocks() {
        let (mut from, mut buffer) = (0, Vec::new());
        while let Some(next) = blocks.check_next(from, &mut buffer) {
            from = next;
            if !pace.keep() {
                return Ok(false);
            }
        }
    }
    if sealed.rows.bad().next().is_some() {
        collection.repair(&[key])?;
    }
    Ok(true)
}
