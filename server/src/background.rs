//! Threads for what is to be kept: they let everything else go first, so that items are read, their
//! pictures decoded, and both encoded, with what queries leave of the processor. Nothing belongs here
//! that others may wait for, such as a write to the store.

use std::{io, num::NonZeroUsize};

use rayon::{ThreadPool, ThreadPoolBuilder};
use tokio::sync::oneshot;

use crate::reply::ApiError;

/// One thread per core for each kind of work. They are two pools, since a thread that waits for
/// its part of a pass would otherwise begin to decode.
pub(crate) struct Background {
    passes: ThreadPool,
    readers: ThreadPool,
}

impl Background {
    /// Starts the threads.
    ///
    /// # Errors
    /// When the system refuses them.
    pub(crate) fn start() -> io::Result<Self> {
        Ok(Self {
            passes: pool("ingest-pass")?,
            readers: pool("ingest-read")?,
        })
    }

    /// Runs a pass, and what it does in parallel, and waits for it.
    pub(crate) fn pass<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.passes.install(work)
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

fn pool(name: &'static str) -> io::Result<ThreadPool> {
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    ThreadPoolBuilder::new()
        .num_threads(cores)
        .thread_name(move |i| format!("{name}-{i}"))
        .start_handler(|_| engine::step_back())
        .panic_handler(|_| tracing::error!("reading what is to be kept panicked"))
        .build()
        .map_err(io::Error::other)
}
