//! What waits for a tower: in two lanes, in each the clients in turn.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use super::{Class, Client, Done, Failed, Room};
use crate::trace::Trace;

/// One input that waits.
pub(super) struct Job<I> {
    pub(super) input: I,
    pub(super) answer: oneshot::Sender<Result<Done, Failed>>,
    pub(super) room: Room,
    /// When it came.
    pub(super) since: Instant,
    /// What it belongs to.
    pub(super) trace: Trace,
}

/// What waits, of both classes.
pub(super) struct Queue<I> {
    state: Mutex<State<I>>,
    changed: Condvar,
}

struct State<I> {
    ask: Lane<I>,
    keep: Lane<I>,
    closed: bool,
}

struct Lane<I> {
    turns: Turns<Job<I>>,
    /// When the pass that runs now began or the lane stopped being empty, whichever is later.
    busy_since: Option<Instant>,
}

/// First in first out for each client, and each client in turn.
pub(super) struct Turns<T>(VecDeque<(Client, VecDeque<T>)>);

impl<I> Default for Queue<I> {
    fn default() -> Self {
        let lane = || Lane {
            turns: Turns(VecDeque::new()),
            busy_since: None,
        };
        let state = State {
            ask: lane(),
            keep: lane(),
            closed: false,
        };
        Self {
            state: Mutex::new(state),
            changed: Condvar::new(),
        }
    }
}

impl<I> Queue<I> {
    /// Puts an input at the end of what its client has there; whether the queue takes any.
    pub(super) fn push(&self, job: Job<I>) -> bool {
        {
            let mut state = self.state.lock();
            if state.closed {
                return false;
            }
            let lane = state.lane(job.room.class());
            lane.busy_since.get_or_insert_with(Instant::now);
            lane.turns.push(job.room.client(), job);
        }
        self.changed.notify_all();
        true
    }

    /// The input whose turn it is, as soon as there is one; `None` when the queue is closed and
    /// empty. Begins a pass.
    pub(super) fn next(&self, class: Class) -> Option<Job<I>> {
        let mut state = self.state.lock();
        loop {
            let closed = state.closed;
            let lane = state.lane(class);
            if let Some(job) = lane.pop() {
                lane.busy_since = Some(Instant::now());
                return Some(job);
            }
            lane.busy_since = None;
            if closed {
                return None;
            }
            self.changed.wait(&mut state);
        }
    }

    /// The input whose turn it is, if there is one now.
    pub(super) fn next_now(&self, class: Class) -> Option<Job<I>> {
        self.state.lock().lane(class).pop()
    }

    /// Whether a lane has had work for longer than `limit` without finishing any.
    pub(super) fn is_stuck(&self, limit: Duration) -> bool {
        let mut state = self.state.lock();
        Class::ALL.into_iter().any(|class| {
            let since = state.lane(class).busy_since;
            since.is_some_and(|since| since.elapsed() > limit)
        })
    }

    /// Takes no more.
    pub(super) fn close(&self) {
        self.state.lock().closed = true;
        self.changed.notify_all();
    }
}

impl<I> State<I> {
    fn lane(&mut self, class: Class) -> &mut Lane<I> {
        match class {
            Class::Ask => &mut self.ask,
            Class::Keep => &mut self.keep,
        }
    }
}

impl<I> Lane<I> {
    /// The next one whose client still waits.
    fn pop(&mut self) -> Option<Job<I>> {
        loop {
            let job = self.turns.pop()?;
            if !job.answer.is_closed() {
                return Some(job);
            }
        }
    }
}

impl<T> Turns<T> {
    fn push(&mut self, client: Client, one: T) {
        match self.0.iter_mut().find(|(theirs, _)| *theirs == client) {
            Some((_, waiting)) => waiting.push_back(one),
            None => self.0.push_back((client, VecDeque::from([one]))),
        }
    }

    fn pop(&mut self) -> Option<T> {
        let (client, mut waiting) = self.0.pop_front()?;
        let one = waiting.pop_front();
        if !waiting.is_empty() {
            self.0.push_back((client, waiting));
        }
        one
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_with_one_input_waits_for_one_of_each_other_client() {
        let mut turns = Turns(VecDeque::new());
        let (many, some, one) = (Client::at(1), Client::at(2), Client::at(3));
        for i in 0..100 {
            turns.push(many, (many, i));
        }
        assert_eq!(turns.pop(), Some((many, 0)));
        turns.push(some, (some, 0));
        turns.push(some, (some, 1));
        turns.push(one, (one, 0));
        let order: Vec<_> = std::iter::from_fn(|| turns.pop()).collect();
        let first = [(many, 1), (some, 0), (one, 0), (many, 2), (some, 1)];
        assert_eq!(order[..5], first);
        assert_eq!(order.len(), 102, "nothing is lost");
        assert!(order[5..].iter().map(|(_, i)| *i).eq(3..100));
    }
}
