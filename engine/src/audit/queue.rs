//! Samples that wait, and the one thread that repeats them at a small part of a core.

use std::{
    collections::VecDeque,
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};

use super::sample::{Sample, repeat};

/// Samples that wait at most. They hold on to segments that may have been replaced since, so these
/// are few; what finds no room is dropped and counted.
const ROOM: usize = 16;
/// Samples that are repeated together, as far as they saw the same rows.
const TOGETHER: usize = 8;
/// Part of one core that audits take at most.
const CORE_SHARE: f64 = 0.05;

/// Samples that wait for the thread.
#[derive(Clone, Default)]
pub(crate) struct AuditQueue {
    shared: Arc<(Mutex<Waiting>, Condvar)>,
}

#[derive(Default)]
struct Waiting {
    samples: VecDeque<Sample>,
    /// Whether some are being repeated.
    busy: bool,
    closed: bool,
}

impl AuditQueue {
    /// Takes a sample in; whether there was room.
    pub(super) fn push(&self, sample: Sample) -> bool {
        let (waiting, changed) = &*self.shared;
        let mut waiting = waiting.lock();
        let room = waiting.samples.len() < ROOM && !waiting.closed;
        if room {
            waiting.samples.push_back(sample);
            changed.notify_all();
        }
        room
    }

    fn next(&self) -> Option<Vec<Sample>> {
        let (waiting, changed) = &*self.shared;
        let mut waiting = waiting.lock();
        waiting.busy = false;
        changed.notify_all();
        while !waiting.closed && waiting.samples.is_empty() {
            changed.wait(&mut waiting);
        }
        if waiting.closed {
            return None;
        }
        waiting.busy = true;
        let some = waiting.samples.len().min(TOGETHER);
        Some(waiting.samples.drain(..some).collect())
    }

    /// Waits, or until the queue is closed.
    fn rest(&self, time: Duration) {
        let (waiting, changed) = &*self.shared;
        let until = Instant::now() + time;
        let mut waiting = waiting.lock();
        while !waiting.closed && !changed.wait_until(&mut waiting, until).timed_out() {}
    }

    fn close(&self) {
        let (waiting, changed) = &*self.shared;
        let mut waiting = waiting.lock();
        waiting.closed = true;
        waiting.samples.clear();
        changed.notify_all();
    }

    /// Returns when no sample waits or is being repeated.
    #[cfg(test)]
    pub(crate) fn settle(&self) {
        let (waiting, changed) = &*self.shared;
        let mut waiting = waiting.lock();
        while waiting.busy || !waiting.samples.is_empty() {
            changed.wait(&mut waiting);
        }
    }
}

/// The background thread.
#[derive(Debug)]
pub(crate) struct Auditor {
    thread: Option<JoinHandle<()>>,
}

impl Auditor {
    /// Starts the thread. [`AuditQueue::close`] ends it.
    pub(crate) fn start(queue: AuditQueue) -> std::io::Result<Self> {
        let thread = std::thread::Builder::new()
            .name("engine-audit".into())
            .spawn(move || {
                while let Some(samples) = queue.next() {
                    let start = Instant::now();
                    for (sample, verdict) in samples.iter().zip(repeat(&samples)) {
                        sample.ledger.enter(&verdict, sample.steers);
                    }
                    // What they hold on to goes before the rest.
                    drop(samples);
                    queue.rest(start.elapsed().mul_f64(1.0 / CORE_SHARE - 1.0));
                }
            })?;
        Ok(Self {
            thread: Some(thread),
        })
    }

    /// Drops what waits, and waits for what is under way.
    pub(crate) fn stop(&mut self, queue: &AuditQueue) {
        queue.close();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the auditing thread panicked");
        }
    }
}
