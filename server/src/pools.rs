//! Threads that work: for queries at the usual priority, and for what is to be kept on threads that
//! let queries go first, so that items are read, their pictures decoded, and both encoded, with
//! what queries leave of the processor. Nothing belongs there that others may wait for, such as a
//! write to the store.
//!
//! A query wakes many threads, one after another, and none may wait for a core. A low priority alone does
//! not give them that: the scheduler lets whoever runs go on until its next tick. So while queries come
//! these threads are of its idle class, which is left at once, and one core is free of them. Without
//! queries they have a low priority only: beside another busy program the idle class gets next to nothing.

use std::{
    io,
    num::NonZeroUsize,
    panic::{self, AssertUnwindSafe},
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};
use rayon::{ThreadPool, ThreadPoolBuilder};
use tokio::sync::oneshot;

use crate::{reply::ApiError, trace::carried};

/// So long after a query another one is expected.
const EXPECTED: Duration = Duration::from_secs(1);

/// So long after a query another one may come, and is not to wait.
const LIKELY: Duration = Duration::from_secs(10);

/// How far those who let queries go first step back, of 19, while none come: beside a busy thread of the usual
/// priority this leaves them a quarter of a core.
#[cfg(target_os = "linux")]
const NICE: i32 = 5;

/// Passes have pools of their own, since a thread that waits for its part of one would otherwise begin
/// with something else.
pub(crate) struct Pools {
    queries: ThreadPool,
    ingest: ThreadPool,
    /// For passes of an ingest when queries may come.
    ingest_idle: ThreadPool,
    /// The same while they do.
    ingest_aside: ThreadPool,
    /// Work for the threads that wait for a turn, and for what is done in it on one of the next.
    readers: mpsc::Sender<Box<dyn FnOnce() + Send>>,
    reading: Arc<ThreadPool>,
    /// The same when queries may come.
    reading_idle: Arc<ThreadPool>,
    /// For maps of collections, which take long and may.
    maps: ThreadPool,
    cores: Arc<Cores>,
}

/// Who of an ingest may use a core while queries come: whoever is next, as soon as there is one.
struct Cores {
    state: Mutex<State>,
    changed: Condvar,
    /// Cores that an ingest may use while queries come, at least one: it never starves.
    aside: usize,
}

#[derive(Default)]
struct State {
    last_query: Option<Instant>,
    busy: usize,
    /// Number of the next one who comes, and of the next one who may begin.
    next: u64,
    turn: u64,
}

impl Pools {
    /// Starts the threads.
    ///
    /// # Errors
    /// When the system refuses them.
    pub(crate) fn start() -> io::Result<Self> {
        let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let aside = cores.saturating_sub(1).max(1);
        // Half of them for a pass, the others decode meanwhile.
        let pass_aside = aside.div_ceil(2);
        Ok(Self {
            queries: pool("query-pass", cores, || ())?,
            ingest: pool("ingest-pass", cores, step_back)?,
            ingest_idle: pool("ingest-idle", cores, yield_to_all)?,
            ingest_aside: pool("ingest-aside", pass_aside, yield_to_all)?,
            readers: waiters("ingest-wait", cores)?,
            reading: Arc::new(pool("ingest-read", cores, step_back)?),
            reading_idle: Arc::new(pool("idle-read", cores, yield_to_all)?),
            maps: pool("map", pass_aside, yield_to_all)?,
            cores: Arc::new(Cores {
                state: Mutex::default(),
                changed: Condvar::new(),
                aside,
            }),
        })
    }

    /// A query has come.
    pub(crate) fn query(&self) {
        self.cores.state.lock().last_query = Some(Instant::now());
    }

    /// Runs a pass of queries, and what it does in parallel, and waits for it.
    pub(crate) fn query_pass<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.queries.install(work)
    }

    /// The same for a pass of what is to be kept.
    pub(crate) fn ingest_pass<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let threads = self.ingest_aside.current_num_threads();
        self.cores.run(threads, |queries| {
            let pool = match queries {
                Queries::None => &self.ingest,
                Queries::Likely => &self.ingest_idle,
                Queries::Expected => &self.ingest_aside,
            };
            pool.install(work)
        })
    }

    /// Computes a map, when those before it are done, with what everything else leaves.
    pub(crate) fn map(&self, work: impl FnOnce() + Send + 'static) {
        self.maps.spawn_fifo(work);
    }

    /// Reads or decodes something when there is a thread for it. Once nobody waits for it any more,
    /// it is not begun.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        doing: &'static str,
        work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let (send, receive) = oneshot::channel();
        let (cores, work) = (Arc::clone(&self.cores), carried(work));
        let (low, idle) = (Arc::clone(&self.reading), Arc::clone(&self.reading_idle));
        let wait = move || {
            if !send.is_closed() {
                let done = cores.run(1, |queries| match queries {
                    Queries::None => low.install(work),
                    Queries::Likely | Queries::Expected => idle.install(work),
                });
                // Whoever waited may be gone by now.
                let _ = send.send(done);
            }
        };
        // Were the threads gone, the answer would be the error below.
        let _ = self.readers.send(Box::new(wait));
        let panicked = |source| Err(ApiError::internal(doing, source));
        receive.await.unwrap_or_else(panicked)
    }
}

/// Whether queries come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Queries {
    /// There was none for long.
    None,
    /// There was one some seconds ago.
    Likely,
    /// There was one a moment ago.
    Expected,
}

impl Cores {
    /// Runs `work`, which is told whether queries come; while they do it waits for its turn with so many cores.
    fn run<T>(&self, cores: usize, work: impl FnOnce(Queries) -> T) -> T {
        let mut state = self.state.lock();
        let number = state.next;
        state.next += 1;
        while number != state.turn
            || (state.queries() == Queries::Expected && !state.has(cores, self.aside))
        {
            // What is running ends soon, or no query comes for a while.
            self.changed.wait_for(&mut state, EXPECTED);
        }
        state.turn += 1;
        state.busy += cores;
        let _busy = Busy(self, cores);
        let queries = state.queries();
        drop(state);
        self.changed.notify_all();
        work(queries)
    }
}

impl State {
    fn queries(&self) -> Queries {
        match self.last_query.map(|last| last.elapsed()) {
            Some(since) if since < EXPECTED => Queries::Expected,
            Some(since) if since < LIKELY => Queries::Likely,
            _ => Queries::None,
        }
    }

    /// Whether there are so many cores of `most`.
    fn has(&self, cores: usize, most: usize) -> bool {
        self.busy == 0 || self.busy + cores <= most
    }
}

/// Cores in use, given back by the drop.
struct Busy<'a>(&'a Cores, usize);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.state.lock().busy -= self.1;
        self.0.changed.notify_all();
    }
}

/// Lets queries go before this thread. Only Linux has priorities of single threads that need no rights.
fn step_back() {
    #[cfg(target_os = "linux")]
    engine::step_back_by(NICE);
}

/// Lets everything else on this machine go before this thread, at once and from now on. Only Linux has
/// such a class that needs no rights; where it is refused, a low priority has to do.
fn yield_to_all() {
    engine::step_back();
    #[cfg(target_os = "linux")]
    {
        use thread_priority::{
            NormalThreadSchedulePolicy::Idle, ThreadPriority, ThreadSchedulePolicy,
            set_thread_priority_and_policy, thread_native_id,
        };
        let idle = ThreadSchedulePolicy::Normal(Idle);
        let set = set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Min, idle);
        if let Err(error) = set {
            tracing::debug!("items are read and encoded at a low priority: {error:?}");
        }
    }
}

/// Runs something long that seldom computes, such as the reading of a collection, on a thread of its own with a low
/// priority.
///
/// # Errors
/// When the system refuses it.
pub(crate) fn aside(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let thread = std::thread::Builder::new().name(name.into());
    thread.spawn(|| {
        engine::step_back();
        work();
    })?;
    Ok(())
}

fn pool(name: &'static str, threads: usize, begin: fn()) -> io::Result<ThreadPool> {
    ThreadPoolBuilder::new()
        .num_threads(threads)
        .thread_name(move |i| format!("{name}-{i}"))
        .start_handler(move |_| begin())
        .panic_handler(|_| tracing::error!("reading what is to be kept panicked"))
        .build()
        .map_err(io::Error::other)
}

/// Threads that do what is sent to them, in its order. They are of no pool: while one of a pool waits for
/// another, it begins with what is queued in its own, which may then wait for what it has not ended.
fn waiters(
    name: &'static str,
    threads: usize,
) -> io::Result<mpsc::Sender<Box<dyn FnOnce() + Send>>> {
    let (send, receive) = mpsc::channel::<Box<dyn FnOnce() + Send>>();
    let receive = Arc::new(Mutex::new(receive));
    for i in 0..threads {
        let receive = Arc::clone(&receive);
        std::thread::Builder::new()
            .name(format!("{name}-{i}"))
            .spawn(move || {
                loop {
                    let next = receive.lock().recv();
                    let Ok(work) = next else { return };
                    if panic::catch_unwind(AssertUnwindSafe(work)).is_err() {
                        tracing::error!("reading what is to be kept panicked");
                    }
                }
            })?;
    }
    Ok(send)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    use super::*;

    /// Most that ran at the same time, of works with so many cores.
    fn most_at_once(cores: &Cores, each: usize) -> usize {
        let (now, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..6 {
                scope.spawn(|| {
                    for _ in 0..20 {
                        cores.run(each, |_| {
                            most.fetch_max(now.fetch_add(each, SeqCst) + each, SeqCst);
                            std::thread::yield_now();
                            now.fetch_sub(each, SeqCst);
                        });
                    }
                });
            }
        });
        most.into_inner()
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn what_is_kept_is_of_the_idle_class_when_queries_may_come_and_queries_are_not() {
        use rustix::process::getpriority_process;
        use thread_priority::{
            NormalThreadSchedulePolicy::{Idle, Other},
            ThreadSchedulePolicy::Normal,
            thread_schedule_policy,
        };
        let pools = Pools::start().expect("starts");
        let nice = || getpriority_process(None).expect("is known");
        let policy = || thread_schedule_policy().expect("is known");
        let low = (Normal(Other), nice().max(NICE));
        assert_eq!(pools.ingest_pass(|| (policy(), nice())), low);
        let read = || pools.read("testing", move || Ok((policy(), nice())));
        assert_eq!(read().await.expect("reads"), low);
        pools.query();
        assert_eq!(pools.query_pass(policy), Normal(Other));
        assert_eq!(pools.ingest_pass(policy), Normal(Idle));
        assert_eq!(read().await.expect("reads").0, Normal(Idle));
        // Some seconds later all cores are used again, by the same class; later still it is the first one.
        let ago = |time| pools.cores.state.lock().last_query = Instant::now().checked_sub(time);
        ago(EXPECTED);
        assert_eq!(pools.ingest_pass(policy), Normal(Idle));
        assert_eq!(pools.cores.run(1, |queries| queries), Queries::Likely);
        ago(LIKELY);
        assert_eq!(pools.ingest_pass(|| (policy(), nice())), low);
        assert_eq!(read().await.expect("reads"), low);
    }

    #[tokio::test]
    async fn many_reads_end_while_queries_come_and_one_that_panics_is_an_error() {
        let pools = Arc::new(Pools::start().expect("starts"));
        // A query that is expected for the whole of this test.
        let soon = Instant::now() + Duration::from_hours(1);
        pools.cores.state.lock().last_query = Some(soon);
        let read = |i: usize| {
            let pools = Arc::clone(&pools);
            tokio::spawn(async move {
                let work = move || {
                    // Parts that other threads of the pool may take.
                    let (a, b) = rayon::join(|| i, || i);
                    assert!(i != 7, "on purpose");
                    Ok(a + b)
                };
                pools.read("testing", work).await
            })
        };
        let reads: Vec<_> = (0..64).map(read).collect();
        for (i, read) in reads.into_iter().enumerate() {
            let read = tokio::time::timeout(Duration::from_mins(1), read).await;
            let read = read.expect("ends").expect("was not cancelled");
            assert_eq!(read.ok(), (i != 7).then_some(2 * i));
        }
        assert_eq!(pools.cores.state.lock().busy, 0);
    }

    #[test]
    fn while_queries_come_an_ingest_leaves_a_core_and_still_goes_on() {
        let cores = Cores {
            state: Mutex::default(),
            changed: Condvar::new(),
            aside: 3,
        };
        assert_eq!(cores.run(1, |queries| queries), Queries::None);
        // A query that is expected for the whole of this test.
        let soon = Instant::now() + Duration::from_hours(1);
        cores.state.lock().last_query = Some(soon);
        assert_eq!(cores.run(1, |queries| queries), Queries::Expected);
        assert!(most_at_once(&cores, 1) <= 3);
        assert!(most_at_once(&cores, 2) <= 2);
        assert_eq!(most_at_once(&cores, 9), 9, "one goes on, whatever it needs");
        assert_eq!(cores.state.lock().busy, 0);
    }
}
