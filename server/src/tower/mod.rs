//! One tower of a model, the queue in front of it, and the two threads that run it: one answers
//! those who ask, the other what is to be kept, on threads that let everything else go first
//! ([`Pools`]). So a query never waits for a pass of an ingest, and an ingest always gets its part of
//! the processor.
//!
//! Room in the queue is taken before an input is decoded and given back with its answer, so that
//! the bound covers everything that is on its way. An input whose client is gone is dropped, one
//! that is too late is refused.

mod client;
mod pass;
mod queue;
mod room;
#[cfg(test)]
mod tests;

use std::{
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use embedding::{Encoded, Encoder, Modality};
use parking_lot::Mutex;
use tokio::sync::oneshot;

pub(crate) use self::{
    client::{Client, network},
    room::{Room, most_of_one},
};
use self::{
    pass::{Pace, cost_of, encode_each},
    queue::{Job, Queue},
    room::Rooms,
};
use crate::{metrics::TowerMetrics, pools::Pools, reply::ApiError, trace::Trace};

/// Tokens of queries that one thread encodes alone. Beside an ingest, each part that is handed to
/// another thread may wait for a core, and a text has many parts that take microseconds.
const ALONE_TOKENS: usize = 128;

/// What an encoding is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Class {
    /// It asks for something, somebody waits for it, and it is forgotten.
    Ask,
    /// It is kept; a picture is shown later and needs a thumbnail.
    Keep,
}

/// One encoded input.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Done {
    pub(crate) encoded: Encoded,
    /// The tokens of a text, the patches of a picture.
    pub(crate) cost: usize,
}

/// Why one input has no embedding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Failed {
    /// The input is not usable; the reason speaks to the client.
    BadInput(String),
    /// It would have come too late.
    Late,
    /// The tower failed; the reason was logged.
    Tower,
}

/// What one tower may do.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TowerLimits {
    /// Inputs that hold room.
    pub(crate) capacity: usize,
    /// Tokens or patches of one pass.
    pub(crate) pass_cost: usize,
    /// How long inputs of each of [`Class::ALL`] wait at most.
    pub(crate) deadlines: [Duration; 2],
}

/// One tower, its queue and its threads.
pub(crate) struct Tower<I> {
    queue: Arc<Queue<I>>,
    rooms: Rooms,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// What a thread of a tower works with.
struct Lane<I> {
    class: Class,
    queue: Arc<Queue<I>>,
    encoder: Arc<dyn Encoder<I>>,
    pools: Arc<Pools>,
    metrics: TowerMetrics,
    limits: TowerLimits,
}

impl Class {
    pub(crate) const ALL: [Self; 2] = [Self::Ask, Self::Keep];

    /// As metrics and threads are named.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ask => "ask",
            Self::Keep => "keep",
        }
    }
}

impl TowerLimits {
    /// How long an input of this class waits at most.
    pub(crate) fn deadline(&self, class: Class) -> Duration {
        let [ask, keep] = self.deadlines;
        match class {
            Class::Ask => ask,
            Class::Keep => keep,
        }
    }
}

impl<I: Send + Sync + 'static> Tower<I> {
    /// Starts the threads.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub(crate) fn start(
        encoder: &Arc<dyn Encoder<I>>,
        limits: TowerLimits,
        pools: &Arc<Pools>,
        metrics: &TowerMetrics,
    ) -> std::io::Result<Self> {
        let this = Self {
            queue: Arc::new(Queue::default()),
            rooms: Rooms::new(limits),
            threads: Mutex::default(),
        };
        for class in Class::ALL {
            let lane = Lane {
                class,
                queue: Arc::clone(&this.queue),
                encoder: Arc::clone(encoder),
                pools: Arc::clone(pools),
                metrics: metrics.clone(),
                limits,
            };
            let name = format!("{}-{}", encoder.modality(), class.name());
            let thread = std::thread::Builder::new().name(name);
            this.threads
                .lock()
                .push(thread.spawn(move || lane.serve())?);
        }
        Ok(this)
    }

    /// Room for `n` inputs now.
    ///
    /// # Errors
    /// When the queue is full, or the client has as much of it as one may.
    pub(crate) fn try_room(
        &self,
        client: Client,
        class: Class,
        n: usize,
    ) -> Result<Room, ApiError> {
        self.rooms.take(client, class, n)
    }

    /// Room for `n` inputs, at most those that one client may have, as soon as there is some.
    pub(crate) async fn wait_room(
        &self,
        client: Client,
        class: Class,
        n: usize,
    ) -> Result<Room, ApiError> {
        self.rooms.wait(client, class, n).await
    }

    /// Encodes one input. Dropping the future takes it out of the queue.
    pub(crate) async fn encode(&self, input: I, room: Room) -> Result<Done, Failed> {
        let (answer, answered) = oneshot::channel();
        let job = Job {
            input,
            answer,
            room,
            since: Instant::now(),
            trace: Trace::current(),
        };
        if !self.queue.push(job) {
            return Err(Failed::Tower);
        }
        answered.await.unwrap_or(Err(Failed::Tower))
    }

    /// Inputs that hold room.
    pub(crate) fn waiting(&self) -> usize {
        self.rooms.held()
    }

    /// Whether the tower has had work for longer than `limit` without finishing any.
    pub(crate) fn is_stuck(&self, limit: Duration) -> bool {
        self.queue.is_stuck(limit)
    }
}

impl<I: Send + Sync + 'static> Lane<I> {
    /// Takes what is there, runs it, answers; until the queue is closed and empty.
    fn serve(&self) {
        // What is parallel in a pass runs on this thread then, where no pool is asked.
        let alone = rayon::ThreadPoolBuilder::new().num_threads(1);
        let alone = alone.use_current_thread().build();
        if let Err(error) = &alone {
            tracing::warn!(%error, "single texts are shared among all threads");
        }
        let mut pace = Pace::new(self.limits.pass_cost);
        while let Some(first) = self.queue.next(self.class) {
            let (jobs, cost) = self.gather(first, &pace);
            if jobs.is_empty() {
                continue;
            }
            let started = Instant::now();
            let (inputs, waiting): (Vec<_>, Vec<_>) = jobs
                .into_iter()
                .map(|(job, cost)| (job.input, (job.answer, job.room, job.trace, cost)))
                .unzip();
            let run = || encode_each(self.encoder.as_ref(), &inputs);
            if self.class == Class::Ask {
                self.pools.query();
            }
            let answers = match self.class {
                Class::Ask if self.is_small(cost) => run(),
                Class::Ask => self.pools.query_pass(run),
                Class::Keep => self.pools.ingest_pass(run),
            };
            let took = started.elapsed();
            self.metrics.pass(inputs.len(), cost, took);
            let numbers = [("inputs", inputs.len()), ("cost", cost)];
            for ((answer, room, trace, cost), result) in waiting.into_iter().zip(answers) {
                drop(room);
                let done = result.map(|encoded| Done { encoded, cost });
                // The client may be gone; its answer is then nobody's.
                let _ = answer.send(done);
                trace.stage(self.stages().1, started, took, &numbers);
            }
            pace.learn(cost, took);
        }
    }

    /// What waiting and a pass are called in a trace.
    fn stages(&self) -> (&'static str, &'static str) {
        match self.encoder.modality() {
            Modality::Text => ("text queue", "text tower"),
            Modality::Image => ("image queue", "image tower"),
        }
    }

    /// Whether a pass is so small that sharing it costs more than it gains.
    fn is_small(&self, cost: usize) -> bool {
        self.encoder.modality() == Modality::Text && cost <= ALONE_TOKENS
    }

    /// One pass: inputs in their turn until they fill its budget, with what each costs, and what all
    /// do. Those that would come too late are refused.
    fn gather(&self, first: Job<I>, pace: &Pace) -> (Vec<(Job<I>, usize)>, usize) {
        let (mut jobs, mut cost) = (Vec::new(), 0);
        let mut next = Some(first);
        while let Some(job) = next {
            let waited = job.since.elapsed();
            self.metrics.waited(self.class, waited);
            job.trace.stage(self.stages().0, job.since, waited, &[]);
            let own = cost_of(self.encoder.as_ref(), &job.input);
            let with_it = cost + own;
            // A single slow pass must not have all others refused, and never be corrected.
            let needs = pace.time(with_it).min(self.limits.deadline(self.class) / 2);
            if Instant::now() + needs > job.room.deadline() {
                // The client may be gone; its answer is then nobody's.
                let _ = job.answer.send(Err(Failed::Late));
            } else {
                cost = with_it;
                jobs.push((job, own));
            }
            next = if cost < pace.budget() {
                self.queue.next_now(self.class)
            } else {
                None
            };
        }
        (jobs, cost)
    }
}

impl<I> Tower<I> {
    /// Answers what is queued, takes no more and waits for the threads to end.
    pub(crate) fn close(&self) {
        self.queue.close();
        for thread in self.threads.lock().drain(..) {
            // The threads catch panics of the tower, so there is nothing to learn here.
            let _ = thread.join();
        }
    }
}
