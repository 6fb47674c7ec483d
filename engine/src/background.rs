//! Threads that build indexes: below everything else in priority, and no more than their share of
//! the processor. They are rayon's, so that whatever a build does in parallel stays on them, and
//! searches, which have rayon's global ones, never wait behind it.
//!
//! Nothing that others may wait for, a lock or the store, belongs on such a thread: while the
//! machine is busy, it hardly runs.

use std::{
    cell::Cell,
    io,
    sync::atomic::{AtomicBool, Ordering::SeqCst},
    thread,
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

/// The threads.
#[derive(Debug)]
pub(crate) struct Builders {
    pool: rayon::ThreadPool,
    /// Part of the time in which each of them may work.
    duty: f64,
}

/// Keeps work to its part of the time.
#[derive(Debug)]
pub(crate) struct Pace<'a> {
    duty: f64,
    /// When it began, or rested last.
    since: Cell<Instant>,
    stopping: &'a AtomicBool,
}

impl Builders {
    /// One thread, for the share of all cores that work in the background may take.
    pub(crate) fn with_share(share: f64) -> io::Result<Self> {
        Self::new(1, share * cores() as f64)
    }

    /// As many as there are cores, and at most `most`, all of the time.
    pub(crate) fn at_most(most: usize) -> io::Result<Self> {
        Self::new(cores().min(most).max(1), 1.0)
    }

    fn new(threads: usize, duty: f64) -> io::Result<Self> {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|_| "engine-build".into())
            .start_handler(|_| step_back())
            .build();
        Ok(Self {
            pool: pool.map_err(io::Error::other)?,
            duty: duty.min(1.0),
        })
    }

    pub(crate) fn threads(&self) -> usize {
        self.pool.current_num_threads()
    }

    /// Runs `work` on one of the threads, and waits for it. A panic in it goes on here.
    pub(crate) fn run<T: Send>(
        &self,
        stopping: &AtomicBool,
        work: impl FnOnce(&Pace<'_>) -> T + Send,
    ) -> T {
        self.pool.install(|| {
            work(&Pace {
                duty: self.duty,
                since: Cell::new(Instant::now()),
                stopping,
            })
        })
    }
}

impl Pace<'_> {
    /// Rests if it is time to; whether the work is to end.
    pub(crate) fn stops(&self) -> bool {
        let worked = self.since.get().elapsed();
        if self.duty < 1.0 && worked >= WORK {
            let until = Instant::now() + worked.mul_f64(1.0 / self.duty - 1.0);
            while !self.stopping.load(SeqCst) {
                let left = until.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    break;
                }
                thread::sleep(left.min(NOTICE));
            }
            self.since.set(Instant::now());
        }
        self.stopping.load(SeqCst)
    }
}

fn cores() -> usize {
    thread::available_parallelism().map_or(1, Into::into)
}

/// Lets everything else on this machine go first. Only Linux has priorities of single threads that
/// need no rights.
fn step_back() {
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{getpriority_process, setpriority_process};
        // A program that has stepped back further stays there.
        let usual = getpriority_process(None);
        if let Err(error) = usual.and_then(|nice| setpriority_process(None, nice.max(NICE))) {
            tracing::debug!("indexes are built at the usual priority: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_takes_its_part_of_the_time_and_ends_when_it_must() {
        let builders = Builders::new(1, 0.25).expect("a thread starts");
        let stopping = AtomicBool::new(false);
        let (worked, took) = builders.run(&stopping, |pace| {
            let (began, mut worked) = (Instant::now(), Duration::ZERO);
            while began.elapsed() < Duration::from_millis(300) {
                let piece = Instant::now();
                while piece.elapsed() < Duration::from_millis(1) {}
                worked += piece.elapsed();
                assert!(!pace.stops());
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
            builders.run(&stopping, |pace| {
                thread::sleep(Duration::from_secs(2));
                pace.stops()
            })
        });
        let took = began.elapsed();
        assert!(stopped && took < Duration::from_secs(4), "{took:?}");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn builders_step_back_and_others_do_not() {
        let nice = || rustix::process::getpriority_process(None).expect("it is known");
        let usual = nice();
        let builders = Builders::at_most(3).expect("threads start");
        assert!((1..=3).contains(&builders.threads()));
        let stopping = AtomicBool::new(false);
        let theirs = builders.run(&stopping, |_| nice());
        assert_eq!(theirs, usual.max(NICE));
        assert_eq!(nice(), usual);
    }
}
