//! How many searches are under way, and whether another one may begin.
//!
//! What comes faster than it is answered waits, and everybody waits ever longer. So more than some
//! searches for each core are a burst that is served, if late, as long as it is short; after that, what
//! is too much is refused at once, and those that began are answered in time. It is the idea of
//! controlled delay (Nichols and Jacobson, "Controlling Queue Delay", 2012), counted in searches, since how
//! long one takes depends on the model and the machine.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use crate::{reply::ApiError, tower::Client};

/// So long there may be too many, and so many times as many at most. So long there must have been fewer
/// before there may be too many again.
const BURST: Duration = Duration::from_millis(100);
const BURST_TIMES: usize = 4;

/// One part of so many is there in addition, for clients that have fewer than that under way.
const RESERVED: usize = 4;

/// All searches that are under way.
#[derive(Debug)]
pub(crate) struct Crowd {
    most: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Without those of the reserve.
    all: usize,
    reserve: usize,
    /// Of each client that has any.
    each: HashMap<Client, usize>,
    /// Since when there are too many.
    crowded_since: Option<Instant>,
    /// Since when there are fewer.
    fewer_since: Option<Instant>,
}

/// One search that is under way, until this is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    crowd: Arc<Crowd>,
    client: Client,
    of_reserve: bool,
}

impl Crowd {
    /// So many searches are not too many.
    pub(crate) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self {
            most,
            state: Mutex::default(),
        })
    }

    /// Searches that are under way.
    pub(crate) fn now(&self) -> usize {
        let state = self.state.lock();
        state.all + state.reserve
    }

    /// Lets a search begin.
    ///
    /// # Errors
    /// When too many have been under way for a while.
    pub(crate) fn enter(self: &Arc<Self>, client: Client) -> Result<Place, ApiError> {
        self.enter_at(client, Instant::now())
    }

    fn enter_at(self: &Arc<Self>, client: Client, now: Instant) -> Result<Place, ApiError> {
        let mut state = self.state.lock();
        if state.fewer_since.is_some_and(|since| lasts(since, now)) {
            state.crowded_since = None;
        }
        let of_reserve = state.all >= self.most && !self.is_burst(&mut state, now);
        let own = state.each.get(&client).copied().unwrap_or(0);
        let reserved = self.most.div_ceil(RESERVED);
        if of_reserve && (own >= reserved || state.reserve >= reserved) {
            return Err(ApiError::Crowded);
        }
        if of_reserve {
            state.reserve += 1;
        } else {
            state.all += 1;
        }
        if state.all >= self.most {
            state.fewer_since = None;
        }
        *state.each.entry(client).or_default() += 1;
        Ok(Place {
            crowd: Arc::clone(self),
            client,
            of_reserve,
        })
    }

    /// Whether one that is too many belongs to a burst.
    fn is_burst(&self, state: &mut State, now: Instant) -> bool {
        let since = *state.crowded_since.get_or_insert(now);
        !lasts(since, now) && state.all < BURST_TIMES * self.most
    }

    fn leave_at(&self, place: &Place, now: Instant) {
        let mut state = self.state.lock();
        if place.of_reserve {
            state.reserve -= 1;
        } else {
            state.all -= 1;
        }
        if state.all < self.most {
            state.fewer_since.get_or_insert(now);
        }
        if let Some(own) = state.each.get_mut(&place.client) {
            *own -= 1;
            if *own == 0 {
                state.each.remove(&place.client);
            }
        }
    }
}

fn lasts(since: Instant, now: Instant) -> bool {
    now.saturating_duration_since(since) > BURST
}

impl Drop for Place {
    fn drop(&mut self) {
        self.crowd.leave_at(self, Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: usize = 8;
    const TICK: Duration = Duration::from_millis(1);

    /// Ends all but the first `n` at a time that the test chooses.
    fn keep(places: &mut Vec<Place>, n: usize, at: Instant) {
        for place in places.drain(n..) {
            place.crowd.leave_at(&place, at);
            // Its drop would count it a second time.
            std::mem::forget(place);
        }
    }

    #[test]
    fn a_burst_begins_and_a_crowd_that_stays_is_refused_until_it_is_gone_for_a_while() {
        let crowd = Crowd::new(MOST);
        let client = Client::at(1);
        let burst = BURST_TIMES * MOST;
        let refused = |at| crowd.enter_at(client, at).is_err();
        let begin = |at| crowd.enter_at(client, at).expect("begins");
        let mut now = Instant::now();
        let mut places: Vec<_> = (0..burst).map(|_| begin(now)).collect();
        assert!(refused(now), "too large a burst");
        now += BURST + TICK;
        keep(&mut places, MOST, now);
        assert!(refused(now));
        // As soon as one ends another begins, and so it goes on, also when that takes a little.
        for _ in 0..100 {
            keep(&mut places, MOST - 1, now);
            now += BURST / 2;
            places.push(begin(now));
            assert!(refused(now));
        }
        // Fewer for a while: the next ones are another burst.
        keep(&mut places, MOST - 1, now);
        now += BURST + TICK;
        let more = burst - places.len();
        places.extend((0..more).map(|_| begin(now)));
        assert_eq!(crowd.now(), burst);
        assert!(refused(now));
        keep(&mut places, 0, now);
        assert!(crowd.state.lock().each.is_empty());
        assert_eq!(crowd.now(), 0);
    }

    #[test]
    fn a_crowd_of_one_client_leaves_room_for_another_however_large_it_was() {
        for size in [MOST + 1, BURST_TIMES * MOST] {
            let crowd = Crowd::new(MOST);
            let (many, other, start) = (Client::at(1), Client::at(2), Instant::now());
            let mut places: Vec<_> = (0..size)
                .map(|_| crowd.enter_at(many, start).expect("a burst"))
                .collect();
            let later = start + 2 * BURST;
            assert!(crowd.enter_at(many, later).is_err());
            for _ in 0..MOST / RESERVED {
                places.push(crowd.enter_at(other, later).expect("is reserved"));
            }
            assert!(crowd.enter_at(other, later).is_err());
            assert!(crowd.enter_at(Client::at(3), later).is_err());
            drop(places);
            assert_eq!(crowd.now(), 0);
        }
    }
}
