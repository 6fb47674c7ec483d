//! How much memory sealed indexes may take.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::SeqCst},
};

/// Counts the memory that is given out.
#[derive(Debug)]
pub(crate) struct Budget {
    limit_bytes: u64,
    used_bytes: AtomicU64,
}

/// Memory that was given out, until this is dropped.
#[derive(Debug)]
pub(crate) struct Lease {
    budget: Arc<Budget>,
    bytes: u64,
}

impl Budget {
    /// Nothing is given out yet. `None` is no limit.
    pub(crate) fn new(limit_bytes: Option<u64>) -> Arc<Self> {
        Arc::new(Self {
            limit_bytes: limit_bytes.unwrap_or(u64::MAX),
            used_bytes: AtomicU64::new(0),
        })
    }

    /// Gives out memory; `None` when that would be more than there is.
    pub(crate) fn take(self: &Arc<Self>, bytes: usize) -> Option<Lease> {
        let bytes = bytes as u64;
        let more = |used: u64| {
            let used = used.checked_add(bytes)?;
            (used <= self.limit_bytes).then_some(used)
        };
        let taken = self.used_bytes.fetch_update(SeqCst, SeqCst, more);
        taken.is_ok().then(|| Lease {
            budget: Arc::clone(self),
            bytes,
        })
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.budget.used_bytes.fetch_sub(self.bytes, SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_than_the_limit_is_given_out_and_what_comes_back_is_free() {
        let budget = Budget::new(Some(100));
        let first = budget.take(60);
        assert!(first.is_some() && budget.take(41).is_none());
        let second = budget.take(40);
        assert!(second.is_some() && budget.take(1).is_none());
        drop(first);
        assert!(budget.take(60).is_some());
        assert!(Budget::new(None).take(usize::MAX).is_some());
    }
}
