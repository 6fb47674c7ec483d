//! The bounded queue in front of one tower, and the one thread that runs it.
//!
//! Room in the queue is taken before an input is decoded and given back with its answer, so that
//! the bound covers everything that is on its way. An input whose client is gone is dropped.

use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use embedding::{EncodeError, Encoded, Encoder};
use parking_lot::{Condvar, Mutex};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::{metrics::TowerMetrics, reply::ApiError};

/// A pass through the tower holds as many inputs as it finishes in about this time, so that one
/// that comes in between does not wait for long.
const PASS_TARGET_S: f64 = 1.0;

/// Why one input has no embedding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Failed {
    /// The input is not usable; the reason speaks to the client.
    BadInput(String),
    /// The tower failed; the reason was logged.
    Tower,
}

/// One tower, its queue and its thread.
pub(crate) struct Tower<I> {
    queue: Arc<Queue<I>>,
    room: Arc<Semaphore>,
    capacity: usize,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// Room for some inputs, until they are answered.
pub(crate) struct Room(OwnedSemaphorePermit);

struct Queue<I> {
    state: Mutex<State<I>>,
    changed: Condvar,
}

struct State<I> {
    jobs: VecDeque<Job<I>>,
    /// When the pass that runs now began or the queue stopped being empty, whichever is later.
    busy_since: Option<Instant>,
    closed: bool,
}

struct Job<I> {
    input: I,
    answer: oneshot::Sender<Result<Encoded, Failed>>,
    room: OwnedSemaphorePermit,
}

impl<I: Send + 'static> Tower<I> {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub(crate) fn start(
        encoder: Arc<dyn Encoder<I>>,
        capacity: usize,
        max_batch: usize,
        metrics: TowerMetrics,
    ) -> std::io::Result<Self> {
        let state = State {
            jobs: VecDeque::new(),
            busy_since: None,
            closed: false,
        };
        let queue = Arc::new(Queue {
            state: Mutex::new(state),
            changed: Condvar::new(),
        });
        let name = format!("tower-{}", encoder.modality());
        let theirs = Arc::clone(&queue);
        let thread = std::thread::Builder::new()
            .name(name)
            .spawn(move || serve(&theirs, encoder.as_ref(), max_batch, &metrics))?;
        let room = Arc::new(Semaphore::new(capacity));
        Ok(Self {
            queue,
            room,
            capacity,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Room for `n` inputs now.
    ///
    /// # Errors
    /// When the queue is full.
    pub(crate) fn try_room(&self, n: usize) -> Result<Room, ApiError> {
        let n = u32::try_from(n).map_err(|_| ApiError::QueueFull)?;
        let room = Arc::clone(&self.room).try_acquire_many_owned(n);
        room.map(Room).map_err(|_| ApiError::QueueFull)
    }

    /// Room for `n` inputs, at most the capacity of the queue, as soon as there is some.
    pub(crate) async fn wait_room(&self, n: usize) -> Result<Room, ApiError> {
        let n = u32::try_from(n.min(self.capacity)).map_err(|_| ApiError::QueueFull)?;
        let room = Arc::clone(&self.room).acquire_many_owned(n).await;
        room.map(Room).map_err(|_| ApiError::QueueFull)
    }

    /// Encodes one input. Dropping the future takes it out of the queue.
    pub(crate) async fn encode(&self, input: I, room: Room) -> Result<Encoded, Failed> {
        let (answer, answered) = oneshot::channel();
        {
            let mut state = self.queue.state.lock();
            if state.closed {
                return Err(Failed::Tower);
            }
            state.busy_since.get_or_insert_with(Instant::now);
            state.jobs.push_back(Job {
                input,
                answer,
                room: room.0,
            });
        }
        self.queue.changed.notify_one();
        answered.await.unwrap_or(Err(Failed::Tower))
    }

    /// Inputs that hold room.
    pub(crate) fn waiting(&self) -> usize {
        self.capacity.saturating_sub(self.room.available_permits())
    }

    /// Whether the tower has had work for longer than `limit` without finishing any.
    pub(crate) fn is_stuck(&self, limit: Duration) -> bool {
        self.queue
            .state
            .lock()
            .busy_since
            .is_some_and(|since| since.elapsed() > limit)
    }

    /// Answers what is queued, takes no more and waits for the thread to end.
    pub(crate) fn close(&self) {
        self.queue.state.lock().closed = true;
        self.queue.changed.notify_all();
        if let Some(thread) = self.thread.lock().take() {
            // The thread catches panics of the tower, so there is nothing to learn here.
            let _ = thread.join();
        }
    }
}

impl Room {
    /// Takes room for one input out of this.
    pub(crate) fn one(&mut self) -> Option<Self> {
        self.0.split(1).map(Self)
    }
}

/// Takes what is there, runs it, answers; until the queue is closed and empty.
fn serve<I>(queue: &Queue<I>, encoder: &dyn Encoder<I>, max_batch: usize, metrics: &TowerMetrics) {
    // Small until the first pass has told how long an input takes.
    let mut fits = max_batch.min(4);
    while let Some(jobs) = take(queue, fits) {
        let started = Instant::now();
        let (inputs, waiting): (Vec<_>, Vec<_>) = jobs
            .into_iter()
            .map(|job| (job.input, (job.answer, job.room)))
            .unzip();
        let answers = encode_each(encoder, &inputs);
        let took = started.elapsed();
        metrics.pass(inputs.len(), took);
        for ((answer, room), result) in waiting.into_iter().zip(answers) {
            drop(room);
            // The client may be gone; its answer is then nobody's.
            let _ = answer.send(result);
        }
        let each_s = (took.as_secs_f64() / inputs.len().max(1) as f64).max(1e-6);
        fits = ((PASS_TARGET_S / each_s) as usize).clamp(1, max_batch);
    }
}

fn take<I>(queue: &Queue<I>, fits: usize) -> Option<Vec<Job<I>>> {
    let mut state = queue.state.lock();
    loop {
        let mut jobs = Vec::new();
        while jobs.len() < fits
            && let Some(job) = state.jobs.pop_front()
        {
            if !job.answer.is_closed() {
                jobs.push(job);
            }
        }
        if !jobs.is_empty() {
            state.busy_since = Some(Instant::now());
            return Some(jobs);
        }
        state.busy_since = None;
        if state.closed {
            return None;
        }
        queue.changed.wait(&mut state);
    }
}

/// Encodes so that one bad input fails alone: an error that names its input costs only that one,
/// any other error is narrowed down by halves.
fn encode_each<I>(encoder: &dyn Encoder<I>, inputs: &[I]) -> Vec<Result<Encoded, Failed>> {
    if inputs.is_empty() {
        return Vec::new();
    }
    let run = catch_unwind(AssertUnwindSafe(|| encoder.encode(inputs)));
    match run {
        Ok(Ok(outputs)) if outputs.len() == inputs.len() => outputs.into_iter().map(Ok).collect(),
        Ok(Err(EncodeError::BadInput { position, reason })) if position < inputs.len() => {
            let mut all = encode_each(encoder, &inputs[..position]);
            all.push(Err(Failed::BadInput(reason)));
            all.extend(encode_each(encoder, &inputs[position + 1..]));
            all
        }
        other => {
            if let [_] = inputs {
                match other {
                    Ok(Err(error)) => tracing::error!(error = ?error, "a tower failed"),
                    Ok(Ok(_)) => tracing::error!("a tower broke its contract"),
                    Err(_) => tracing::error!("a tower panicked"),
                }
                return vec![Err(Failed::Tower)];
            }
            let (left, right) = inputs.split_at(inputs.len() / 2);
            let mut all = encode_each(encoder, left);
            all.extend(encode_each(encoder, right));
            all
        }
    }
}

#[cfg(test)]
mod tests {
    use embedding::{HashEncoder, Modality, Spaces};

    use super::*;

    /// Refuses "bad", panics on "panic".
    struct Picky(HashEncoder);

    impl Encoder<String> for Picky {
        fn spaces(&self) -> &Spaces {
            Encoder::<String>::spaces(&self.0)
        }

        fn modality(&self) -> Modality {
            Modality::Text
        }

        fn encode(&self, batch: &[String]) -> Result<Vec<Encoded>, EncodeError> {
            assert!(
                !batch.iter().any(|input| input == "panic"),
                "a broken network"
            );
            match batch.iter().position(|input| input == "bad") {
                Some(position) => Err(EncodeError::BadInput {
                    position,
                    reason: "bad".into(),
                }),
                None => self.0.encode(batch),
            }
        }
    }

    #[test]
    fn one_bad_input_fails_alone_and_the_others_keep_their_order() {
        let picky = Picky(HashEncoder::new(Modality::Text, 8));
        let inputs = ["a", "bad", "b", "panic", "c", "d", "bad"].map(str::to_owned);
        let all = encode_each(&picky, &inputs);
        assert_eq!(all.len(), inputs.len());
        for (input, result) in inputs.iter().zip(&all) {
            match input.as_str() {
                "bad" => assert_eq!(result, &Err(Failed::BadInput("bad".into()))),
                "panic" => assert_eq!(result, &Err(Failed::Tower)),
                _ => {
                    let alone = picky.0.encode(&[input]).expect("encodes").remove(0);
                    assert_eq!(result, &Ok(alone), "{input}");
                }
            }
        }
    }

    #[test]
    fn room_is_bounded_and_given_back() {
        let encoder = Arc::new(HashEncoder::new(Modality::Text, 8));
        let tower: Tower<String> =
            Tower::start(encoder, 2, 2, TowerMetrics::unregistered()).expect("starts");
        let mut room = tower.try_room(2).expect("there is room");
        assert!(matches!(tower.try_room(1), Err(ApiError::QueueFull)));
        assert_eq!(tower.waiting(), 2);
        drop(room.one());
        assert!(tower.try_room(1).is_ok());
        drop(room);
        assert_eq!(tower.waiting(), 0);
        tower.close();
    }
}
