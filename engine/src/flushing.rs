//! The thread that makes buffered writes durable, soon after they were acknowledged.

use std::{
    sync::{Arc, Weak},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};

use crate::{Durability, EngineError, collection::Core, error::with_causes, store::Store};

/// How long a buffered write waits at most before it is written out.
const FLUSH_AFTER: Duration = Duration::from_millis(200);
/// Bytes that may wait. A write that makes them more writes them out itself.
const MOST_WAITING_BYTES: u64 = 8 << 20;

/// What was applied and is not known to be durable.
#[derive(Debug, Clone, Default)]
pub(crate) struct FlushQueue {
    shared: Arc<(Mutex<Waiting>, Condvar)>,
}

#[derive(Debug, Default)]
struct Waiting {
    /// Bytes of buffered writes ever, and those of them that are durable.
    applied: u64,
    durable: u64,
    /// When the first of those that wait was applied, or before.
    since: Option<Instant>,
    /// Whether there is a thread.
    open: bool,
}

impl FlushQueue {
    /// What a write of `bytes` does that was applied to the store just now: it waits for the disk,
    /// or has somebody see to it soon. Gives which it did.
    pub(crate) fn finish(
        &self,
        store: &dyn Store,
        bytes: u64,
        wanted: Durability,
    ) -> Result<Durability, EngineError> {
        if wanted == Durability::Buffered && self.takes(bytes) {
            return Ok(Durability::Buffered);
        }
        self.sync(store)?;
        Ok(Durability::Flushed)
    }

    /// Has what was acknowledged seen by scans, which the store does not promise before a sync.
    pub(crate) fn settle(&self, store: &dyn Store) -> Result<(), EngineError> {
        let waiting = self.shared.0.lock().since.is_some();
        if waiting { self.sync(store) } else { Ok(()) }
    }

    fn takes(&self, bytes: u64) -> bool {
        let (waiting, changed) = &*self.shared;
        let mut waiting = waiting.lock();
        if !waiting.open || waiting.applied - waiting.durable + bytes > MOST_WAITING_BYTES {
            return false;
        }
        waiting.applied += bytes;
        if waiting.since.is_none() {
            waiting.since = Some(Instant::now());
            changed.notify_all();
        }
        true
    }

    fn sync(&self, store: &dyn Store) -> Result<(), EngineError> {
        let (waiting, _) = &*self.shared;
        // What was applied by now; more may come while the disk works.
        let (covered, now) = (waiting.lock().applied, Instant::now());
        store.sync()?;
        let mut waiting = waiting.lock();
        waiting.durable = waiting.durable.max(covered);
        waiting.since = match waiting.since {
            Some(_) if waiting.durable == waiting.applied => None,
            Some(since) => Some(since.max(now)),
            None => None,
        };
        Ok(())
    }

    /// Waits until something is due; `false` when the engine is being closed.
    fn wait(&self) -> bool {
        let (waiting, changed) = &*self.shared;
        let mut waiting = waiting.lock();
        while waiting.open {
            match waiting.since.map(|since| since + FLUSH_AFTER) {
                None => changed.wait(&mut waiting),
                Some(due) if due <= Instant::now() => return true,
                Some(due) => {
                    changed.wait_until(&mut waiting, due);
                }
            }
        }
        false
    }
}

/// The background thread.
#[derive(Debug)]
pub(crate) struct Flusher {
    queue: FlushQueue,
    thread: Option<JoinHandle<()>>,
}

impl Flusher {
    /// Starts the thread. From now on writes may be buffered.
    pub(crate) fn start(core: &Arc<Core>) -> std::io::Result<Self> {
        let queue = core.flushes.clone();
        queue.shared.0.lock().open = true;
        let (work, core) = (queue.clone(), Arc::downgrade(core));
        let thread = std::thread::Builder::new()
            .name("engine-flush".into())
            .spawn(move || flush_until_closed(&work, &core))?;
        Ok(Self {
            queue,
            thread: Some(thread),
        })
    }

    /// Ends the thread; what waits is durable then. Writes that come later wait for the disk
    /// themselves.
    pub(crate) fn stop(&mut self) {
        let (waiting, changed) = &*self.queue.shared;
        waiting.lock().open = false;
        changed.notify_all();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the flushing thread panicked");
        }
    }
}

fn flush_until_closed(queue: &FlushQueue, core: &Weak<Core>) {
    loop {
        let go_on = queue.wait();
        let Some(core) = core.upgrade() else { return };
        if let Err(error) = queue.settle(core.store.as_ref()) {
            // The store takes no more writes, and says so to whoever comes.
            let error = with_causes(&error);
            tracing::error!("buffered writes are lost at the next stop: {error}");
            queue.shared.0.lock().open = false;
            return;
        }
        if !go_on {
            return;
        }
    }
}
