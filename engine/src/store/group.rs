//! Group commit: writers that wait for the disk at the same time share one sync.

use std::panic::{AssertUnwindSafe, catch_unwind};

use parking_lot::{Condvar, Mutex};

use super::StoreError;
use crate::error::panic_text;

/// Counts what was applied and what is durable.
#[derive(Debug, Default)]
pub(super) struct GroupCommit {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    applied: u64,
    durable: u64,
    syncing: bool,
    failed: Option<String>,
}

impl GroupCommit {
    /// Refuses once a sync has failed: the system may have dropped the pages that it could not
    /// write, so a later sync that succeeds would prove nothing.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        match &self.state.lock().failed {
            Some(reason) => Err(StoreError::Stopped {
                reason: reason.clone(),
            }),
            None => Ok(()),
        }
    }

    /// Takes note that a write failed half-way.
    pub(super) fn fail(&self, error: StoreError) -> StoreError {
        self.state
            .lock()
            .failed
            .get_or_insert_with(|| reason(&error));
        error
    }

    /// Returns when everything that the caller applied before is durable. One caller at a time runs
    /// `sync`, for all who wait.
    pub(super) fn wait_durable(
        &self,
        sync: impl Fn() -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let mut state = self.state.lock();
        state.applied += 1;
        let mine = state.applied;
        loop {
            if let Some(reason) = &state.failed {
                return Err(StoreError::Stopped {
                    reason: reason.clone(),
                });
            }
            if state.durable >= mine {
                return Ok(());
            }
            if state.syncing {
                self.changed.wait(&mut state);
                continue;
            }
            state.syncing = true;
            let covered = state.applied;
            drop(state);
            let result = caught(&sync);
            state = self.state.lock();
            state.syncing = false;
            match result {
                Ok(()) => state.durable = covered,
                Err(error) => {
                    state.failed = Some(reason(&error));
                    self.changed.notify_all();
                    return Err(error);
                }
            }
            self.changed.notify_all();
        }
    }
}

/// Runs a step of a write; a panic in it is a failure as any other, and nobody is left waiting.
pub(super) fn caught<T>(step: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    catch_unwind(AssertUnwindSafe(step)).unwrap_or_else(|panic| {
        Err(StoreError::Stopped {
            reason: panic_text(panic.as_ref()),
        })
    })
}

fn reason(error: &StoreError) -> String {
    match error {
        StoreError::Stopped { reason } => reason.clone(),
        error => error.to_string(),
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
    fn writers_who_wait_at_the_same_time_share_a_sync() {
        let group = GroupCommit::default();
        let syncs = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| {
                    group.wait_durable(|| {
                        syncs.fetch_add(1, SeqCst);
                        thread::sleep(Duration::from_millis(20));
                        Ok(())
                    })
                });
            }
        });
        let syncs = syncs.load(SeqCst);
        assert!((1..16).contains(&syncs), "{syncs} syncs for 16 writers");
    }

    #[test]
    fn after_a_failed_sync_nothing_is_acknowledged_any_more() {
        let group = GroupCommit::default();
        let failure = || {
            Err(StoreError::Stopped {
                reason: "disk on fire".into(),
            })
        };
        assert!(group.wait_durable(failure).is_err());
        assert!(group.wait_durable(|| Ok(())).is_err());
        assert!(matches!(group.check(), Err(StoreError::Stopped { .. })));
    }

    #[test]
    fn a_sync_that_panics_fails_its_writer_and_those_who_come_after_it() {
        // The mark of the sync under way once stayed behind, and every later writer waited for it.
        let group = GroupCommit::default();
        let first = group.wait_durable(|| panic!("disk on fire"));
        let later = group.wait_durable(|| Ok(()));
        for refused in [first, later] {
            let reason = refused.expect_err("nothing was synced").to_string();
            assert!(reason.contains("(disk on fire)"), "{reason}");
        }
    }
}
