//! Threads that work: for queries at the usual priority, and for what is to be kept on threads that
//! let everything else go first, so that items are read, their pictures decoded, and both encoded, with
//! what queries leave of the processor. Nothing belongs there that others may wait for, such as a
//! write to the store.

use std::{io, num::NonZeroUsize};

use rayon::{ThreadPool, ThreadPoolBuilder};
use tokio::sync::oneshot;

use crate::reply::ApiError;

/// One thread per core for each kind of work. Passes have pools of their own, since a thread that
/// waits for its part of one would otherwise begin with something else.
pub(crate) struct Pools {
    queries: ThreadPool,
    ingest: ThreadPool,
    readers: ThreadPool,
}

impl Pools {
    /// Starts the threads.
    ///
    /// # Errors
    /// When the system refuses them.
    pub(crate) fn start() -> io::Result<Self> {
        Ok(Self {
            queries: pool("query-pass", || ())?,
            ingest: pool("ingest-pass", engine::step_back)?,
            readers: pool("ingest-read", engine::step_back)?,
        })
    }

    /// Runs a pass of queries, and what it does in parallel, and waits for it.
    pub(crate) fn query_pass<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.queries.install(work)
    }

    /// The same for a pass of what is to be kept.
    pub(crate) fn ingest_pass<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.ingest.install(work)
    }

    /// Reads or decodes something when there is a thread for it. Once nobody waits for it any more,
    /// it is not begun.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        doing: &'static str,
        work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let (send, receive) = oneshot::channel();
        self.readers.spawn_fifo(move || {
            if !send.is_closed() {
                // Whoever waited may be gone by now.
                let _ = send.send(work());
            }
        });
        let panicked = |source| Err(ApiError::internal(doing, source));
        receive.await.unwrap_or_else(panicked)
    }
}

fn pool(name: &'static str, begin: fn()) -> io::Result<ThreadPool> {
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    ThreadPoolBuilder::new()
        .num_threads(cores)
        .thread_name(move |i| format!("{name}-{i}"))
        .start_handler(move |_| begin())
        .panic_handler(|_| tracing::error!("reading what is to be kept panicked"))
        .build()
        .map_err(io::Error::other)
}
