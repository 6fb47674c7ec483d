//! Threads for what is to be kept: they let everything else go first, so that pictures of an ingest
//! are decoded and encoded with what queries leave of the processor.

use std::{io, num::NonZeroUsize};

use rayon::{ThreadPool, ThreadPoolBuilder};
use tokio::sync::oneshot;

/// One thread per core for each kind of work. They are two pools, since a thread that waits for
/// its part of a pass would otherwise begin to decode.
pub(crate) struct Background {
    passes: ThreadPool,
    decodes: ThreadPool,
}

impl Background {
    /// Starts the threads.
    ///
    /// # Errors
    /// When the system refuses them.
    pub(crate) fn start() -> io::Result<Self> {
        Ok(Self {
            passes: pool("ingest-pass")?,
            decodes: pool("ingest-decode")?,
        })
    }

    /// Runs a pass, and what it does in parallel, and waits for it.
    pub(crate) fn pass<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.passes.install(work)
    }

    /// Runs the decoding of a picture when there is a thread for it; `None` when it panicked. Once
    /// nobody waits for it any more, it is not begun.
    pub(crate) async fn decode<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let (send, receive) = oneshot::channel();
        self.decodes.spawn_fifo(move || {
            if !send.is_closed() {
                // Whoever waited may be gone by now.
                let _ = send.send(work());
            }
        });
        receive.await.ok()
    }
}

fn pool(name: &'static str) -> io::Result<ThreadPool> {
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    ThreadPoolBuilder::new()
        .num_threads(cores)
        .thread_name(move |i| format!("{name}-{i}"))
        .start_handler(|_| engine::step_back())
        .panic_handler(|_| tracing::error!("a picture could not be decoded: a panic"))
        .build()
        .map_err(io::Error::other)
}
