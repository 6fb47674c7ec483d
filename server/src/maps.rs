//! Maps of collections: computed on threads that let everything else go first, kept while the items stay
//! the same.

use std::{
    num::NonZeroUsize,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
};

use embedding::Modality;
use engine::{Collection, Map, MapMethod};
use lru::LruCache;
use parking_lot::Mutex;

use crate::{pools::Pools, reply::ApiError};

/// Maps that are kept. One of 10,000 points takes about half a megabyte.
const KEPT: NonZeroUsize = NonZeroUsize::new(8).expect("8 is not 0");
/// Maps that may be computed or wait for it at once.
const WAITING: usize = 4;
/// Progress is kept in parts of this.
const WHOLE: f32 = 1000.0;

/// Which map of a collection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Which {
    pub(crate) modality: Modality,
    pub(crate) method: MapMethod,
    pub(crate) limit: usize,
}

/// What there is of a map.
pub(crate) enum State {
    /// Part of the work that is done, 0 to 1.
    Progress(f32),
    Done {
        map: Arc<Map>,
        /// The version that the collection's next write was to get.
        version: u64,
        /// Whether nothing was written since.
        current: bool,
    },
}

/// The maps of a server.
pub(crate) struct Maps(Mutex<LruCache<(String, Which), Kept>>);

struct Kept {
    of: Weak<Collection>,
    /// The newest that is ready.
    ready: Option<Arc<Work>>,
    /// The one that is computed.
    next: Option<Arc<Work>>,
}

#[derive(Default)]
struct Work {
    version: u64,
    items: usize,
    progress: AtomicU32,
    done: OnceLock<Result<Arc<Map>, String>>,
}

impl Work {
    fn is_of(&self, now: (u64, usize)) -> bool {
        (self.version, self.items) == now
    }
}

impl Default for Maps {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(KEPT)))
    }
}

impl Maps {
    /// The map as far as it is there; what is missing is begun. While a collection changes, the map
    /// of an earlier moment is given and the next one computed.
    ///
    /// # Errors
    /// When too many are being computed, and when this one could not be.
    pub(crate) fn get(
        &self,
        pools: &Pools,
        collection: &Arc<Collection>,
        which: Which,
    ) -> Result<State, ApiError> {
        let now = (collection.next_version(), collection.stats().items);
        let name = (collection.name().to_owned(), which);
        let mut all = self.0.lock();
        let running = all.iter().filter(|(_, kept)| kept.is_running()).count();
        let kept = all.get_or_insert_mut(name, || Kept::of(collection));
        // Another of the same name may have taken its place.
        if !std::ptr::eq(kept.of.as_ptr(), Arc::as_ptr(collection)) {
            *kept = Kept::of(collection);
        }
        if let Some(over) = kept.next.take_if(|next| next.done.get().is_some()) {
            kept.ready = Some(over);
        }
        let current = kept.ready.as_ref().is_some_and(|ready| ready.is_of(now));
        if !current && kept.next.is_none() && running < WAITING {
            let work = Arc::new(Work {
                version: now.0,
                items: now.1,
                ..Work::default()
            });
            kept.next = Some(Arc::clone(&work));
            let collection = Arc::clone(collection);
            pools.map(move || compute(&work, &collection, which));
        }
        match (&kept.ready, &kept.next) {
            (Some(ready), next) => match ready.done.get() {
                Some(Ok(map)) => Ok(State::Done {
                    map: Arc::clone(map),
                    version: ready.version,
                    current,
                }),
                // It may go well with the items that there are now.
                _ if next.is_some() && !current => Ok(State::Progress(0.0)),
                Some(Err(reason)) => Err(ApiError::invalid("target", reason.clone())),
                None => Ok(State::Progress(0.0)),
            },
            (None, Some(next)) => Ok(State::Progress(next.progress.load(Relaxed) as f32 / WHOLE)),
            (None, None) => Err(ApiError::QueueFull),
        }
    }
}

impl Kept {
    fn of(collection: &Arc<Collection>) -> Self {
        Self {
            of: Arc::downgrade(collection),
            ready: None,
            next: None,
        }
    }

    fn is_running(&self) -> bool {
        let running = |work: &Arc<Work>| work.done.get().is_none();
        self.next.as_ref().is_some_and(running)
    }
}

fn compute(work: &Work, collection: &Collection, which: Which) {
    let told = |part: f32| work.progress.store((part * WHOLE) as u32, Relaxed);
    let Which {
        modality,
        method,
        limit,
    } = which;
    let made = catch_unwind(AssertUnwindSafe(|| {
        collection.map(modality, method, limit, &told)
    }));
    let done = if let Ok(map) = made {
        map.map(Arc::new).map_err(|error| error.to_string())
    } else {
        tracing::error!(
            collection = collection.name(),
            "a map could not be computed"
        );
        Err("the map could not be computed: the log says more".to_owned())
    };
    // It is set once, here.
    let _ = work.done.set(done);
}
