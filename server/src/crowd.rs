//! How many searches are under way, and whether another one may begin.
//!
//! What comes faster than it is answered waits, and everybody waits ever longer. So more than some
//! searches for each core are a burst that is served, if late, as long as they become few again soon;
//! after that, what is too much is refused at once, and those that began are answered in time. It is
//! the idea of controlled delay (Nichols and Jacobson, "Controlling Queue Delay", 2012), counted in
//! searches, since how long one takes depends on the model and the machine.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use crate::{reply::ApiError, tower::Client};

/// So long there may be too many, and so many times as many at most.
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
    all: usize,
    /// Of each client that has any.
    each: HashMap<Client, usize>,
    /// Since when there are too many, without having been few since.
    crowded_since: Option<Instant>,
}

/// One search that is under way, until this is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    crowd: Arc<Crowd>,
    client: Client,
}

impl Crowd {
    /// So many searches are not too many.
    pub(crate) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self {
            most,
            state: Mutex::default(),
        })
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
        if state.all >= self.most {
            let since = *state.crowded_since.get_or_insert(now);
            let reserved = self.most.div_ceil(RESERVED);
            let own = state.each.get(&client).copied().unwrap_or(0);
            let has_reserve = own < reserved && state.all < self.most + reserved;
            let is_burst =
                now.duration_since(since) <= BURST && state.all < BURST_TIMES * self.most;
            if !is_burst && !has_reserve {
                return Err(ApiError::Crowded);
            }
        }
        state.all += 1;
        *state.each.entry(client).or_default() += 1;
        Ok(Place {
            crowd: Arc::clone(self),
            client,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.crowd.state.lock();
        state.all -= 1;
        if let Some(own) = state.each.get_mut(&self.client) {
            *own -= 1;
            if *own == 0 {
                state.each.remove(&self.client);
            }
        }
        if state.all <= self.crowd.most / 2 {
            state.crowded_since = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: usize = 8;

    #[test]
    fn a_burst_begins_and_a_crowd_that_stays_is_refused_until_it_is_half_gone() {
        let crowd = Crowd::new(MOST);
        let (client, start) = (Client::at(1), Instant::now());
        let burst = BURST_TIMES * MOST;
        let mut places: Vec<_> = (0..burst)
            .map(|_| crowd.enter_at(client, start).expect("a burst"))
            .collect();
        assert!(crowd.enter_at(client, start).is_err(), "too large a burst");
        let later = start + BURST + Duration::from_millis(1);
        let refused = |at| crowd.enter_at(client, at).is_err();
        assert!(refused(later));
        // As soon as one ends another begins, and so it goes on.
        places.truncate(MOST);
        assert!(refused(later));
        places.truncate(MOST - 1);
        places.push(crowd.enter_at(client, later).expect("one has ended"));
        assert!(refused(later));
        places.truncate(MOST / 2);
        let again = later + BURST;
        let more = burst - places.len();
        places.extend((0..more).map(|_| crowd.enter_at(client, again).expect("a burst")));
        drop(places);
        assert!(crowd.state.lock().each.is_empty());
        assert_eq!(crowd.state.lock().all, 0);
    }

    #[test]
    fn a_crowd_of_one_client_leaves_room_for_another() {
        let crowd = Crowd::new(MOST);
        let (many, other, start) = (Client::at(1), Client::at(2), Instant::now());
        let mut places: Vec<_> = (0..MOST)
            .map(|_| crowd.enter_at(many, start).expect("not too many"))
            .collect();
        assert!(crowd.enter_at(many, start).is_ok(), "for a moment");
        let later = start + 2 * BURST;
        assert!(crowd.enter_at(many, later).is_err());
        for _ in 0..MOST / RESERVED {
            places.push(crowd.enter_at(other, later).expect("is reserved"));
        }
        assert!(crowd.enter_at(other, later).is_err());
        assert!(crowd.enter_at(Client::at(3), later).is_err());
    }
}
