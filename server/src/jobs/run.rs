//! The thread that drives jobs, and what each of them is given.

use std::{
    collections::HashSet,
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use actix_web::web::Data;
use engine::{EngineError, Job, JobKind, JobState};
use futures_util::{FutureExt as _, StreamExt as _, stream::FuturesUnordered};
use serde_json::{Value, json};

use super::{apply, import, reencode, spool};
use crate::{
    clock::now_ms,
    reply::ApiError,
    state::{AppState, block},
};

/// Jobs that run at once, of different collections.
const MOST_RUNNING: usize = 4;
/// Failed things that are named.
const MOST_NAMED: usize = 100;
/// How soon the store is asked again after it failed.
const AGAIN: Duration = Duration::from_secs(5);

/// How a job came to its end.
pub(super) enum Ended {
    Done(Value),
    Failed(String, Value),
    Canceled,
    /// The server stops; it goes on after the next start.
    Stopped,
}

/// A job that runs.
pub(super) struct Running {
    pub(super) state: Data<AppState>,
    pub(super) job: Job,
    canceled: Arc<AtomicBool>,
    /// Failed things, and why: the first ones.
    pub(super) named: Vec<Value>,
}

/// Runs jobs until the server stops.
pub(super) fn drive(state: &Data<AppState>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    match runtime {
        Ok(runtime) => runtime.block_on(all(state)),
        Err(error) => tracing::error!(%error, "no job will run"),
    }
}

async fn all(state: &Data<AppState>) {
    let mut active = FuturesUnordered::new();
    let mut busy: HashSet<String> = HashSet::new();
    let stopping = || state.jobs.stopping.load(SeqCst);
    while !stopping() {
        match waiting(state).await {
            Err(error) => {
                tracing::error!(%error, "jobs cannot be read");
                tokio::time::sleep(AGAIN).await;
            }
            Ok(jobs) => {
                for job in jobs {
                    let is_running = state.jobs.running.lock().contains_key(&job.id);
                    if is_running || active.len() >= MOST_RUNNING || stopping() {
                        continue;
                    }
                    if busy.insert(job.collection.clone()) {
                        active.push(one(state.clone(), job));
                    }
                }
            }
        }
        tokio::select! {
            () = state.jobs.changed.notified() => {}
            Some(collection) = active.next(), if !active.is_empty() => {
                busy.remove(&collection);
            }
        }
    }
    while active.next().await.is_some() {}
}

/// Jobs that have not ended. What ended ones left behind is removed.
async fn waiting(state: &Data<AppState>) -> Result<Vec<Job>, ApiError> {
    let state = state.clone();
    block("reading jobs", move || {
        let jobs = state
            .engine
            .jobs()
            .map_err(|e| ApiError::engine("reading jobs", e))?;
        let open: Vec<Job> = jobs
            .into_iter()
            .filter(|job| !job.state.has_ended())
            .collect();
        spool::sweep(&state.jobs, &open);
        Ok(open)
    })
    .await
}

/// Runs one job, and gives its collection back.
async fn one(state: Data<AppState>, job: Job) -> String {
    let collection = job.collection.clone();
    let id = job.id;
    let canceled = Arc::new(AtomicBool::new(job.canceling));
    state.jobs.running.lock().insert(id, Arc::clone(&canceled));
    let begun = change(&state, id, |job| {
        // It may have been given up since it was read.
        if job.state.has_ended() {
            return;
        }
        job.state = JobState::Running;
        job.started_at_ms = job.started_at_ms.or_else(now_ms);
    });
    let ended = match begun.await {
        Ok(Some(job)) if !job.state.has_ended() => {
            let mut running = Running {
                named: serde_json::from_value(job.checkpoint["named"].clone()).unwrap_or_default(),
                state: state.clone(),
                job,
                canceled,
            };
            let work = AssertUnwindSafe(work(&mut running)).catch_unwind().await;
            match work {
                Ok(Ok(ended)) => ended,
                Ok(Err(error)) => failed(&error),
                Err(_) => Ended::Failed("it panicked, see the log".into(), Value::Null),
            }
        }
        // The store fails, or it is gone.
        _ => Ended::Stopped,
    };
    match change(&state, id, move |job| end(job, ended)).await {
        Ok(Some(job)) if job.state.has_ended() => spool::remove(&state.jobs, &job),
        Ok(_) => {}
        Err(error) => {
            tracing::error!(%error, id, "the end of a job is not written down: it runs again");
        }
    }
    state.jobs.running.lock().remove(&id);
    collection
}

fn failed(error: &ApiError) -> Ended {
    // What is wrong inside is logged there, and not told.
    let said = error.to_json();
    let message = said["message"].as_str().unwrap_or("it failed");
    Ended::Failed(message.to_owned(), Value::Null)
}

fn end(job: &mut Job, ended: Ended) {
    (job.state, job.error, job.result) = match ended {
        Ended::Stopped => return,
        Ended::Done(result) => (JobState::Done, None, Some(result)),
        Ended::Failed(error, result) => {
            let result = Some(result).filter(|result| !result.is_null());
            (JobState::Failed, Some(error), result)
        }
        Ended::Canceled => (JobState::Canceled, None, None),
    };
    job.ended_at_ms = now_ms();
}

async fn work(running: &mut Running) -> Result<Ended, ApiError> {
    tracing::info!(id = running.job.id, kind = ?running.job.kind, "a job runs");
    match running.job.kind {
        JobKind::ApplyHead => apply::run(running).await,
        JobKind::Import => import::run(running).await,
        JobKind::Reencode => reencode::run(running).await,
    }
}

async fn change(
    state: &Data<AppState>,
    id: u64,
    change: impl FnOnce(&mut Job) + Send + 'static,
) -> Result<Option<Job>, ApiError> {
    let state = state.clone();
    block("writing down a job", move || {
        let changed = state.engine.change_job(id, change);
        changed.map_err(|e| ApiError::engine("writing down a job", e))
    })
    .await
}

impl Running {
    /// Whether it is to end before its end.
    pub(super) fn is_to_end(&self) -> Option<Ended> {
        if self.canceled.load(SeqCst) {
            return Some(Ended::Canceled);
        }
        let stopping = self.state.jobs.stopping.load(SeqCst) || self.state.stopping.load(SeqCst);
        stopping.then_some(Ended::Stopped)
    }

    /// Counts something that could not be done, and names it if it is one of the first.
    pub(super) fn fail(&mut self, what: &str, which: &Value, error: &ApiError) {
        self.fail_with(what, which, &error.to_json());
    }

    /// The same of an error that was told already.
    pub(super) fn fail_with(&mut self, what: &str, which: &Value, error: &Value) {
        self.job.failed += 1;
        if self.named.len() < MOST_NAMED {
            self.named.push(json!({ what: which, "error": error }));
        }
    }

    /// Writes down how far it is, after everything that it has written.
    pub(super) async fn checkpoint(&mut self, mut at: Value) -> Result<(), ApiError> {
        at["named"] = json!(self.named);
        let (done, failed, total) = (self.job.done, self.job.failed, self.job.total);
        let changed = change(&self.state, self.job.id, move |job| {
            (job.done, job.failed, job.total) = (done, failed, total);
            job.checkpoint = at;
        });
        match changed.await? {
            Some(_) => Ok(()),
            None => Err(ApiError::NoJob { id: self.job.id }),
        }
    }

    /// The collection that it works on.
    pub(super) fn collection(&self) -> Result<Arc<engine::Collection>, ApiError> {
        let name = &self.job.collection;
        self.state.engine.collection(name).ok_or_else(|| {
            let gone = EngineError::Deleted {
                collection: name.clone(),
            };
            ApiError::engine("running a job", gone)
        })
    }
}
