//! Threads that build indexes: below everything else in priority, no more than their share of the
//! processor, and standing aside while requests want all cores. Each is a pool of rayon's, so that
//! whatever a build does in parallel stays on it, and searches, which have rayon's global threads,
//! never wait behind it.
//!
//! Nothing that others may wait for, a lock or the store, belongs on such a thread: while the
//! machine is busy, it hardly runs.

use std::{
    cell::{Cell, RefCell},
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// How far these threads step back, of 19: beside a busy thread of usual priority, this gives them
/// a tenth of a core, so that tails do not grow without end.
#[cfg(target_os = "linux")]
const NICE: i32 = 10;
/// Work between two rests is about this long at least.
const WORK: Duration = Duration::from_millis(5);
/// How soon somebody who rests notices that the engine is closed.
const NOTICE: Duration = Duration::from_millis(50);
/// Work between two looks at what requests want is about this long at least: nobody can sleep for
/// much less.
const PIECE: Duration = Duration::from_micros(100);
/// How soon somebody who stands aside notices that a core is free.
const ASIDE: Duration = Duration::from_micros(200);
/// Nobody stands aside for more than so many times as long as he worked before, nor longer than
/// this: a tail that nobody seals would make searches slower and slower. (The time before may have
/// been spent waiting for a core, and requests that wait for the disk count, too.)
const PATIENCE: u32 = 4;
const MOST_ASIDE: Duration = Duration::from_millis(5);

/// How many searches and writes are under way. A priority alone does not keep builds out of their
/// way: a writer who wakes up may be put on the core of a search, and both are slow then, beside a
/// build that could have waited.
#[derive(Debug, Clone, Default)]
pub(crate) struct Requests(Arc<AtomicUsize>);

/// One of them, until it is dropped.
#[derive(Debug)]
pub(crate) struct Request<'a>(&'a AtomicUsize);

impl Requests {
    pub(crate) fn begin(&self) -> Request<'_> {
        self.0.fetch_add(1, SeqCst);
        Request(&self.0)
    }

    fn want_all(&self, cores: usize) -> bool {
        self.0.load(SeqCst) >= cores
    }
}

impl Drop for Request<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

/// One thread, and what it may do.
#[derive(Debug)]
pub(crate) struct Builder {
    /// There until this is dropped, and with one thread: one of several, waiting for the others,
    /// would begin another build in the middle of its own.
    pool: Option<rayon::ThreadPool>,
    thread: Option<JoinHandle<()>>,
    /// Part of the time in which it may work.
    duty: f64,
    requests: Requests,
    cores: usize,
}

/// Keeps work to its part of the time.
#[derive(Debug)]
struct Pace {
    duty: f64,
    requests: Requests,
    cores: usize,
    stopping: Arc<AtomicBool>,
    /// When it began, or rested last.
    since: Cell<Instant>,
    /// When it began, or stood aside or looked around last.
    looked: Cell<Instant>,
}

thread_local! {
    /// That of the work of this thread, so that every loop of a build can ask for it and need not
    /// know whether it is one in the background.
    static PACE: RefCell<Option<Pace>> = const { RefCell::new(None) };
}

/// Rests or stands aside if this is work in the background and it is time to; whether the work is
/// to end. The long loops of a build ask, each millisecond or so.
pub(crate) fn stops() -> bool {
    PACE.with_borrow(|pace| pace.as_ref().is_some_and(Pace::stops))
}

impl Builder {
    /// One thread, for the share of all cores that work in the background may take.
    pub(crate) fn with_share(share: f64, requests: Requests) -> io::Result<Self> {
        Self::new(share * cores() as f64, requests)
    }

    fn new(duty: f64, requests: Requests) -> io::Result<Self> {
        let mut thread = None;
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(1)
            .spawn_handler(|worker| {
                let named = thread::Builder::new().name("engine-build".into());
                thread = Some(named.spawn(|| {
                    step_back();
                    worker.run();
                })?);
                Ok(())
            })
            .build();
        Ok(Self {
            pool: Some(pool.map_err(io::Error::other)?),
            thread,
            duty: duty.min(1.0),
            requests,
            cores: cores(),
        })
    }

    /// Runs `work` on the thread, and waits for it. [`stops`] says in it whether it is to end. A
    /// panic in it goes on here.
    pub(crate) fn run<T: Send>(
        &self,
        stopping: &Arc<AtomicBool>,
        work: impl FnOnce() -> T + Send,
    ) -> T {
        let pool = self.pool.as_ref();
        pool.expect("it is there until the drop").install(|| {
            let now = Instant::now();
            // It stays until the next work of the thread, which does nothing in between.
            PACE.set(Some(Pace {
                duty: self.duty,
                requests: self.requests.clone(),
                cores: self.cores,
                stopping: Arc::clone(stopping),
                since: Cell::new(now),
                looked: Cell::new(now),
            }));
            work()
        })
    }
}

impl Drop for Builder {
    /// Returns when the thread is gone.
    fn drop(&mut self) {
        drop(self.pool.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that builds indexes panicked");
        }
    }
}

impl Pace {
    /// Rests or stands aside if it is time to; whether the work is to end.
    fn stops(&self) -> bool {
        let is_free = || !self.requests.want_all(self.cores);
        let looked = self.looked.get().elapsed();
        if looked < PIECE {
            return self.stopping.load(SeqCst);
        }
        if !is_free() {
            self.wait((looked * PATIENCE).min(MOST_ASIDE), ASIDE, is_free);
        }
        let now = Instant::now();
        self.looked.set(now);
        let worked = now - self.since.get();
        if self.duty < 1.0 && worked >= WORK {
            self.wait(worked.mul_f64(1.0 / self.duty - 1.0), NOTICE, || false);
            self.since.set(Instant::now());
            self.looked.set(self.since.get());
        }
        self.stopping.load(SeqCst)
    }

    /// Waits so long, or until somebody says to go on, which is asked that often.
    fn wait(&self, time: Duration, often: Duration, is_over: impl Fn() -> bool) {
        let until = Instant::now() + time;
        while !self.stopping.load(SeqCst) && !is_over() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            thread::sleep(left.min(often));
        }
    }
}

pub(crate) fn cores() -> usize {
    thread::available_parallelism().map_or(1, Into::into)
}

/// Lets everything else on this machine go before this thread, from now on. Only Linux has
/// priorities of single threads that need no rights; elsewhere nothing changes.
pub fn step_back() {
    #[cfg(target_os = "linux")]
    step_back_by(NICE);
}

/// The same, so far of 19.
#[cfg(target_os = "linux")]
pub fn step_back_by(steps: i32) {
    use rustix::process::{getpriority_process, setpriority_process};
    // A program that has stepped back further stays there.
    let usual = getpriority_process(None);
    if let Err(error) = usual.and_then(|nice| setpriority_process(None, nice.max(steps))) {
        tracing::debug!("a thread works at the usual priority: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_takes_its_part_of_the_time_and_ends_when_it_must() {
        let builder = Builder::new(0.25, Requests::default()).expect("a thread starts");
        let stopping = Arc::new(AtomicBool::new(false));
        let (worked, took) = builder.run(&stopping, || {
            let (began, mut worked) = (Instant::now(), Duration::ZERO);
            while began.elapsed() < Duration::from_millis(300) {
                let piece = Instant::now();
                while piece.elapsed() < Duration::from_millis(1) {}
                worked += piece.elapsed();
                assert!(!stops());
            }
            (worked, began.elapsed())
        });
        // Pieces that were interrupted count as work, so that there is never more than this.
        let part = worked.as_secs_f64() / took.as_secs_f64();
        assert!(part < 0.35, "it worked {part} of the time");
        assert!(worked > Duration::ZERO);

        let began = Instant::now();
        let stopped = thread::scope(|scope| {
            scope.spawn(|| {
                thread::sleep(Duration::from_millis(30));
                stopping.store(true, SeqCst);
            });
            builder.run(&stopping, || {
                thread::sleep(Duration::from_secs(2));
                stops()
            })
        });
        let took = began.elapsed();
        assert!(stopped && took < Duration::from_secs(4), "{took:?}");
    }

    #[test]
    fn work_stands_aside_while_requests_want_all_cores_and_goes_on_a_little() {
        let requests = Requests::default();
        let builder = Builder::with_share(1.0, requests.clone()).expect("a thread starts");
        let stopping = Arc::new(AtomicBool::new(false));
        // Pieces of a millisecond that are done in this time.
        let pieces = |time: Duration| {
            builder.run(&stopping, || {
                let (began, mut pieces) = (Instant::now(), 0);
                while began.elapsed() < time {
                    let piece = Instant::now();
                    while piece.elapsed() < Duration::from_millis(1) {}
                    pieces += 1;
                    stops();
                }
                pieces
            })
        };
        let all: Vec<Request<'_>> = (0..cores()).map(|_| requests.begin()).collect();
        let (time, aside) = (Duration::from_millis(300), Instant::now());
        let beside = pieces(time);
        let most = aside.elapsed().as_millis() / 3;
        assert!((1..=most).contains(&beside), "{beside} pieces");
        // One of them ends: there is a core again.
        let some = all.into_iter().skip(1).collect::<Vec<_>>();
        assert!(!requests.want_all(cores()));
        drop(some);
        assert_eq!(requests.0.load(SeqCst), 0);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn builders_step_back_and_others_do_not() {
        let nice = || rustix::process::getpriority_process(None).expect("it is known");
        let usual = nice();
        let builder = Builder::with_share(1.0, Requests::default()).expect("a thread starts");
        let stopping = Arc::new(AtomicBool::new(false));
        let theirs = builder.run(&stopping, nice);
        assert_eq!(theirs, usual.max(NICE));
        assert_eq!(nice(), usual);
    }
}
