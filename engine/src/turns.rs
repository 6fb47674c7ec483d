//! Conflicting writers take turns; others do not wait.

use std::{borrow::Borrow, collections::HashSet, hash::Hash};

use parking_lot::{Condvar, Mutex};

/// The keys that are being written just now.
///
/// A writer holds its keys, not a lock, while it writes to disk, so that writers of other keys can
/// share a group commit with it, and readers never wait.
#[derive(Debug)]
pub(crate) struct Turns<K> {
    state: Mutex<State<K>>,
    changed: Condvar,
}

#[derive(Debug)]
struct State<K> {
    held: HashSet<K>,
    closed: bool,
}

/// The right to write some keys, given back on drop.
#[derive(Debug)]
pub(crate) struct Turn<'a, K: Eq + Hash> {
    turns: &'a Turns<K>,
    keys: Vec<K>,
}

impl<K: Eq + Hash + Clone> Turns<K> {
    pub(crate) fn new() -> Self {
        let state = State {
            held: HashSet::new(),
            closed: false,
        };
        Self {
            state: Mutex::new(state),
            changed: Condvar::new(),
        }
    }

    /// Waits until nobody holds any of the keys and takes all of them at once. `None` when closed.
    pub(crate) fn take<Q: Borrow<K>>(&self, keys: &[Q]) -> Option<Turn<'_, K>> {
        let mut state = self.state.lock();
        while !state.closed && keys.iter().any(|key| state.held.contains(key.borrow())) {
            self.changed.wait(&mut state);
        }
        if state.closed {
            return None;
        }
        let keys: Vec<K> = keys.iter().map(|key| key.borrow().clone()).collect();
        state.held.extend(keys.iter().cloned());
        Some(Turn { turns: self, keys })
    }

    /// Lets writers in again.
    pub(crate) fn open(&self) {
        self.state.lock().closed = false;
    }

    /// Lets nobody in any more, and waits until everybody is out.
    pub(crate) fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        self.changed.notify_all();
        while !state.held.is_empty() {
            self.changed.wait(&mut state);
        }
    }
}

impl<K: Eq + Hash> Drop for Turn<'_, K> {
    fn drop(&mut self) {
        let mut state = self.turns.state.lock();
        for key in &self.keys {
            state.held.remove(key);
        }
        self.turns.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

    use super::*;

    #[test]
    fn a_second_writer_of_a_key_waits_and_others_do_not() {
        let turns = Turns::new();
        let released = AtomicBool::new(false);
        let first = turns.take(&[1, 2]).expect("open");
        drop(turns.take(&[3]).expect("another key does not wait"));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let _turn = turns.take(&[2, 3]).expect("open");
                assert!(released.load(SeqCst), "the second writer came too early");
            });
            std::thread::sleep(std::time::Duration::from_millis(20));
            released.store(true, SeqCst);
            drop(first);
        });
        turns.close();
        assert!(turns.take(&[1]).is_none());
        turns.open();
        assert!(turns.take(&[1]).is_some());
    }
}
