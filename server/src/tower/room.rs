//! Room in the queue of a tower: bounded for all, for what is to be kept, and for each client, so
//! that there is always some left for a query, and for whoever comes second.

use std::{collections::HashMap, sync::Arc, time::Instant};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{Class, Client, TowerLimits};
use crate::reply::ApiError;

/// One part of so many of the queue is there for queries alone, and one of what a class may have
/// for other clients.
const RESERVED: usize = 4;
/// Clients that are remembered before it is looked which of them hold nothing.
const CLIENTS: usize = 64;

/// All room of one tower. Whoever waits for some is served in the order of waiting.
pub(super) struct Rooms {
    limits: TowerLimits,
    all: Arc<Semaphore>,
    keep: Arc<Semaphore>,
    clients: Mutex<HashMap<(Client, Class), Arc<Semaphore>>>,
}

/// Room for some inputs of one client, until they are answered.
pub(crate) struct Room {
    /// Of the client, of the class if it is bounded, of all: in this order they are taken, so
    /// that nobody waits for another who waits for him.
    held: Vec<OwnedSemaphorePermit>,
    client: Client,
    class: Class,
    deadline: Instant,
}

/// Inputs of one class for which there is room, of a queue for so many.
fn most_of_class(capacity: usize, class: Class) -> usize {
    match class {
        Class::Ask => capacity,
        Class::Keep => capacity - capacity / RESERVED,
    }
}

/// Inputs of one class and client for which there is room, of a queue for so many.
pub(crate) fn most_of_one(capacity: usize, class: Class) -> usize {
    let most = most_of_class(capacity, class);
    most - most / RESERVED
}

impl Rooms {
    pub(super) fn new(limits: TowerLimits) -> Self {
        let keep = most_of_class(limits.capacity, Class::Keep);
        Self {
            limits,
            all: Arc::new(Semaphore::new(limits.capacity)),
            keep: Arc::new(Semaphore::new(keep)),
            clients: Mutex::default(),
        }
    }

    /// Inputs that hold room.
    pub(super) fn held(&self) -> usize {
        let free = self.all.available_permits();
        self.limits.capacity.saturating_sub(free)
    }

    /// Room for `n` inputs now.
    pub(super) fn take(&self, client: Client, class: Class, n: usize) -> Result<Room, ApiError> {
        let many = u32::try_from(n).map_err(|_| ApiError::QueueFull)?;
        let take = |bound: Arc<Semaphore>| bound.try_acquire_many_owned(many);
        let held = self.bounds(client, class).map(take);
        let held = held.collect::<Result<_, _>>();
        Ok(self.room(held.map_err(|_| ApiError::QueueFull)?, client, class))
    }

    /// Room for `n` inputs, at most those that one client may have, as soon as there is some.
    pub(super) async fn wait(
        &self,
        client: Client,
        class: Class,
        n: usize,
    ) -> Result<Room, ApiError> {
        let n = n.min(most_of_one(self.limits.capacity, class));
        let many = u32::try_from(n).map_err(|_| ApiError::QueueFull)?;
        let mut held = Vec::new();
        for bound in self.bounds(client, class) {
            let permit = bound.acquire_many_owned(many).await;
            held.push(permit.map_err(|_| ApiError::QueueFull)?);
        }
        Ok(self.room(held, client, class))
    }

    /// What bounds this client and class.
    fn bounds(&self, client: Client, class: Class) -> impl Iterator<Item = Arc<Semaphore>> + use<> {
        let own = {
            let mut clients = self.clients.lock();
            if clients.len() >= CLIENTS {
                clients.retain(|_, bound| Arc::strong_count(bound) > 1);
            }
            let most = most_of_one(self.limits.capacity, class);
            let new = || Arc::new(Semaphore::new(most));
            Arc::clone(clients.entry((client, class)).or_insert_with(new))
        };
        let keep = (class == Class::Keep).then(|| Arc::clone(&self.keep));
        [Some(own), keep, Some(Arc::clone(&self.all))]
            .into_iter()
            .flatten()
    }

    fn room(&self, held: Vec<OwnedSemaphorePermit>, client: Client, class: Class) -> Room {
        Room {
            held,
            client,
            class,
            deadline: Instant::now() + self.limits.deadline(class),
        }
    }
}

impl Room {
    /// Takes room for one input out of this.
    pub(crate) fn one(&mut self) -> Option<Self> {
        let held = self.held.iter_mut().map(|permit| permit.split(1));
        Some(Self {
            held: held.collect::<Option<_>>()?,
            ..*self
        })
    }

    /// When its inputs are too late.
    pub(crate) fn deadline(&self) -> Instant {
        self.deadline
    }

    pub(super) fn client(&self) -> Client {
        self.client
    }

    pub(crate) fn class(&self) -> Class {
        self.class
    }
}
