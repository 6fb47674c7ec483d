//! Group commit: the batches of writers who wait for the disk at the same time become one.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use parking_lot::{Condvar, Mutex};

use super::{Batch, StoreError};
use crate::error::{is_storage_full, panic_text, with_causes};

/// Keys and their new values, or `None` where a key goes.
pub(super) type Writes = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// What is about to happen to a key.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Pending {
    /// It gets a value.
    Value(Vec<u8>),
    /// It goes.
    Removal,
    /// Nothing: the store knows.
    Nothing,
}

/// Collects batches and counts which are durable.
#[derive(Debug, Default)]
pub(super) struct GroupCommit {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// What nobody writes yet.
    waiting: Writes,
    /// What is being written.
    written: Arc<Writes>,
    /// Batches that came, and those of them that are durable.
    entered: u64,
    durable: u64,
    writing: bool,
    failed: Option<Failed>,
}

/// The first failure, after which nothing is written.
#[derive(Debug)]
struct Failed {
    reason: String,
    /// Whether there was no room.
    full: bool,
}

impl State {
    fn check(&self) -> Result<(), StoreError> {
        let Some(Failed { reason, full }) = &self.failed else {
            return Ok(());
        };
        let reason = reason.clone();
        Err(if *full {
            StoreError::Full { reason }
        } else {
            StoreError::Stopped { reason }
        })
    }
}

impl GroupCommit {
    /// Takes a batch in. It is durable when a later [`GroupCommit::wait`] has returned.
    ///
    /// Refuses once a write has failed: the system may have dropped the pages that it could not
    /// write, so a later one that succeeds would prove nothing.
    pub(super) fn enter(&self, batch: Batch) -> Result<(), StoreError> {
        let mut state = self.state.lock();
        state.check()?;
        if !batch.is_empty() {
            state.waiting.extend(batch.writes);
            state.entered += 1;
        }
        Ok(())
    }

    /// What was taken in for a key and is not durable yet.
    pub(super) fn pending(&self, key: &[u8]) -> Pending {
        let state = self.state.lock();
        match state.waiting.get(key).or_else(|| state.written.get(key)) {
            Some(Some(value)) => Pending::Value(value.clone()),
            Some(None) => Pending::Removal,
            None => Pending::Nothing,
        }
    }

    /// Returns when everything that was taken in before is durable. One caller at a time runs
    /// `write`, which makes writes durable, for all who wait: what is not yet certain to be on disk
    /// is at any moment a single batch, and that is there as a whole or not at all.
    pub(super) fn wait(
        &self,
        write: impl Fn(&Writes) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let mut state = self.state.lock();
        let mine = state.entered;
        loop {
            if state.durable >= mine {
                return Ok(());
            }
            state.check()?;
            if state.writing {
                self.changed.wait(&mut state);
                continue;
            }
            state.writing = true;
            let all = Arc::new(std::mem::take(&mut state.waiting));
            state.written = Arc::clone(&all);
            let covered = state.entered;
            drop(state);
            let result = caught(|| write(&all));
            state = self.state.lock();
            state.writing = false;
            match result {
                Ok(()) => {
                    state.durable = covered;
                    state.written = Arc::default();
                }
                Err(error) => {
                    let reason = match &error {
                        StoreError::Stopped { reason } => reason.clone(),
                        error => with_causes(error),
                    };
                    let full = is_storage_full(&error);
                    state.failed = Some(Failed { reason, full });
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

/// Runs a step of a write; a panic in it is a failure as any other, and nobody is left waiting.
fn caught<T>(step: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    catch_unwind(AssertUnwindSafe(step)).unwrap_or_else(|panic| {
        Err(StoreError::Stopped {
            reason: panic_text(panic.as_ref()),
        })
    })
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering::SeqCst},
        thread,
        time::Duration,
    };

    use super::*;

    fn one(key: u8) -> Batch {
        let mut batch = Batch::default();
        batch.put(vec![key], vec![key]);
        batch
    }

    #[test]
    fn writers_who_wait_at_the_same_time_share_one_batch() {
        let group = GroupCommit::default();
        let (batches, writes) = (AtomicUsize::new(0), AtomicUsize::new(0));
        thread::scope(|scope| {
            for writer in 0..16 {
                let (group, batches, writes) = (&group, &batches, &writes);
                scope.spawn(move || {
                    group.enter(one(writer)).expect("nothing failed");
                    group.wait(|all| {
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
    fn what_was_taken_in_is_seen_until_it_is_written() {
        let group = GroupCommit::default();
        group.enter(one(1)).expect("nothing failed");
        let mut later = Batch::default();
        later.remove(vec![2]);
        group.enter(later).expect("nothing failed");
        let seen = || {
            (
                group.pending(&[1]),
                group.pending(&[2]),
                group.pending(&[3]),
            )
        };
        let all = || {
            let value = Pending::Value(vec![1]);
            (value, Pending::Removal, Pending::Nothing)
        };
        assert_eq!(seen(), all());
        let write = |_: &Writes| {
            assert_eq!(seen(), all());
            Ok(())
        };
        group.wait(write).expect("writes");
        let nothing = (Pending::Nothing, Pending::Nothing, Pending::Nothing);
        assert_eq!(seen(), nothing);
    }

    #[test]
    fn after_a_failed_write_nothing_is_acknowledged_any_more() {
        let group = GroupCommit::default();
        let failure = |_: &Writes| {
            Err(StoreError::Stopped {
                reason: "disk on fire".into(),
            })
        };
        group.enter(one(1)).expect("nothing failed");
        assert!(group.wait(failure).is_err());
        let again = group.enter(one(2));
        assert!(
            matches!(again, Err(StoreError::Stopped { .. })),
            "{again:?}"
        );
        assert!(group.wait(|_| Ok(())).is_err());
        assert!(!group.wrote_well());
    }

    #[test]
    fn those_who_come_after_a_failed_write_are_told_what_the_system_said() {
        // Whoever writes next may be the first who can tell a user.
        let group = GroupCommit::default();
        let full = |_: &Writes| {
            Err(StoreError::Io {
                dir: "data".into(),
                source: std::io::ErrorKind::StorageFull.into(),
            })
        };
        group.enter(one(1)).expect("nothing failed");
        assert!(group.wait(full).is_err());
        let later = group
            .enter(one(2))
            .expect_err("nothing is written any more");
        assert!(matches!(later, StoreError::Full { .. }), "{later:?}");
        let said = later.to_string();
        assert!(said.contains("no storage space"), "{said}");
    }

    #[test]
    fn a_write_that_panics_fails_its_writer_and_those_who_come_after_it() {
        // The mark of the write under way once stayed behind, and every later writer waited for it.
        let group = GroupCommit::default();
        group.enter(one(1)).expect("nothing failed");
        let first = group.wait(|_| panic!("disk on fire"));
        let later = group.enter(one(2));
        for refused in [first, later] {
            let reason = refused.expect_err("nothing was written").to_string();
            assert!(reason.contains("(disk on fire)"), "{reason}");
        }
    }
}
