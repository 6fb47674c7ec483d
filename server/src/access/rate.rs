//! How often one may ask.

use std::{
    hash::{Hash, Hasher},
    net::IpAddr,
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use governor::{
    DefaultKeyedRateLimiter, Quota, RateLimiter,
    clock::{Clock as _, DefaultClock},
};

use crate::{keys::Key, reply::ApiError};

/// Requests after which those are forgotten who have not asked for so long that it counts no more.
const SWEEP: usize = 4_096;

/// Who asks, as far as rates go.
#[derive(Debug, Clone)]
pub(super) enum Who {
    /// A key.
    Key(Arc<Key>),
    /// An address, or a network of the sixth version.
    Address(Option<IpAddr>),
}

impl Who {
    /// Keys are told apart by their names: those of removed ones may come again.
    fn id(&self) -> Result<&str, &Option<IpAddr>> {
        match self {
            Self::Key(key) => Ok(&key.name),
            Self::Address(address) => Err(address),
        }
    }
}

impl PartialEq for Who {
    fn eq(&self, other: &Self) -> bool {
        self.id() == other.id()
    }
}

impl Eq for Who {}

impl Hash for Who {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.id().hash(state);
    }
}

/// Counts the requests of each.
pub(super) struct Rates {
    limiter: Option<DefaultKeyedRateLimiter<Who>>,
    asked: AtomicUsize,
}

impl Rates {
    /// So many per second after so many at once; 0 for any number.
    pub(super) fn new(per_s: u32, burst: u32) -> Self {
        let quota = NonZeroU32::new(per_s).zip(NonZeroU32::new(burst));
        Self::of(quota.map(|(per_s, burst)| Quota::per_second(per_s).allow_burst(burst)))
    }

    /// One a minute after so many at once.
    pub(super) fn each_minute(burst: u32) -> Self {
        let quota = |burst| Quota::per_minute(NonZeroU32::MIN).allow_burst(burst);
        Self::of(NonZeroU32::new(burst).map(quota))
    }

    fn of(quota: Option<Quota>) -> Self {
        Self {
            limiter: quota.map(RateLimiter::keyed),
            asked: AtomicUsize::new(0),
        }
    }

    /// Counts one request.
    ///
    /// # Errors
    /// When it is one too many, with how long to wait.
    pub(super) fn take(&self, who: &Who) -> Result<(), ApiError> {
        let Some(limiter) = &self.limiter else {
            return Ok(());
        };
        if self.asked.fetch_add(1, Ordering::Relaxed) % SWEEP == SWEEP - 1 {
            limiter.retain_recent();
            limiter.shrink_to_fit();
        }
        limiter.check_key(who).map_err(|refused| {
            let wait = refused.wait_time_from(DefaultClock::default().now());
            ApiError::TooOften {
                wait_s: wait.as_secs_f64().ceil().max(1.0) as u64,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_a_rate_of_their_own_and_is_told_how_long_to_wait() {
        let rates = Rates::new(1, 3);
        let who = |last: u8| Who::Address(Some([10, 0, 0, last].into()));
        for _ in 0..3 {
            assert!(rates.take(&who(1)).is_ok());
        }
        let refused = rates.take(&who(1));
        assert!(matches!(refused, Err(ApiError::TooOften { wait_s: 1 })));
        assert!(rates.take(&who(2)).is_ok());
        let open = Rates::new(0, 1);
        assert!((0..99).all(|_| open.take(&who(1)).is_ok()));
    }
}
