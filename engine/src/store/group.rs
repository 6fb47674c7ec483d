//! Group commit: the batches of writers who wait for the disk at the same time become one.

use parking_lot::{Condvar, Mutex};

use super::{Batch, StoreError};

/// Collects batches and counts which are durable.
#[derive(Debug, Default)]
pub(super) struct GroupCommit {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// What nobody writes yet.
    waiting: Batch,
    /// Batches that came, and those of them that are durable.
    entered: u64,
    durable: u64,
    writing: bool,
    failed: Option<String>,
}

impl GroupCommit {
    /// Returns when the batch is durable. One caller at a time runs `write`, which makes a batch
    /// durable, for all who wait: what is not yet certain to be on disk is at any moment a single
    /// batch, and that is there as a whole or not at all.
    ///
    /// Refuses once a write has failed: the system may have dropped the pages that it could not
    /// write, so a later one that succeeds would prove nothing.
    pub(super) fn commit(
        &self,
        batch: Batch,
        write: impl Fn(Batch) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let mut state = self.state.lock();
        state.waiting.writes.extend(batch.writes);
        state.entered += 1;
        let mine = state.entered;
        loop {
            if state.durable >= mine {
                return Ok(());
            }
            if let Some(reason) = &state.failed {
                return Err(StoreError::Stopped {
                    reason: reason.clone(),
                });
            }
            if state.writing {
                self.changed.wait(&mut state);
                continue;
            }
            state.writing = true;
            let all = std::mem::take(&mut state.waiting);
            let covered = state.entered;
            drop(state);
            let result = write(all);
            state = self.state.lock();
            state.writing = false;
            match result {
                Ok(()) => state.durable = covered,
                Err(error) => {
                    state.failed = Some(error.to_string());
                    self.changed.notify_all();
                    return Err(error);
                }
            }
            self.changed.notify_all();
        }
    }

    /// Whether anything was written, and everything successfully.
    pub(super) fn wrote_well(&self) -> bool {
        let state = self.state.lock();
        state.durable > 0 && state.failed.is_none()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering::SeqCst},
        thread,
        time::Duration,
    };

    use super::*;

    #[test]
    fn writers_who_wait_at_the_same_time_share_one_batch() {
        let group = GroupCommit::default();
        let (batches, writes) = (AtomicUsize::new(0), AtomicUsize::new(0));
        thread::scope(|scope| {
            for writer in 0..16 {
                let (group, batches, writes) = (&group, &batches, &writes);
                scope.spawn(move || {
                    let mut batch = Batch::default();
                    batch.put(vec![writer], Vec::new());
                    group.commit(batch, |all| {
                        batches.fetch_add(1, SeqCst);
                        writes.fetch_add(all.len(), SeqCst);
                        thread::sleep(Duration::from_millis(20));
                        Ok(())
                    })
                });
            }
        });
        let batches = batches.load(SeqCst);
        assert!(
            (1..16).contains(&batches),
            "{batches} batches of 16 writers"
        );
        assert_eq!(writes.load(SeqCst), 16, "every write is written once");
        assert!(group.wrote_well());
    }

    #[test]
    fn after_a_failed_write_nothing_is_acknowledged_any_more() {
        let group = GroupCommit::default();
        let failure = |_| {
            Err(StoreError::Stopped {
                reason: "disk on fire".into(),
            })
        };
        assert!(group.commit(Batch::default(), failure).is_err());
        let again = group.commit(Batch::default(), |_| Ok(()));
        assert!(
            matches!(again, Err(StoreError::Stopped { .. })),
            "{again:?}"
        );
        assert!(!group.wrote_well());
    }
}
