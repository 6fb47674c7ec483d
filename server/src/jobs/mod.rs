//! Long work in the background: kept in the engine's store, so that it goes on after a restart.
//!
//! One thread drives all jobs, one at a time for each collection and a few at once. What computes runs on
//! threads that let everything else go first, what writes on those that may block. A job looks between
//! its steps whether it is to end, and writes down after each how far it is: what was done since is done
//! again after a kill, which changes nothing.

mod apply;
mod describe;
mod import;
mod reencode;
mod run;
mod scan;
mod spool;

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread::JoinHandle,
};

use actix_web::web::Data;
use engine::{Job, JobKind, JobState};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::Notify;

pub(crate) use self::{
    apply::ApplyIn,
    describe::job as describe,
    reencode::{ReencodeIn, plan as plan_reencode},
    spool::spool,
};
use crate::{
    clock::now_ms,
    reply::ApiError,
    state::{AppState, block},
};

/// What requests know of the thread that drives jobs.
#[derive(Default)]
pub(crate) struct Jobs {
    /// Where bodies lie that are imported.
    folder: Option<PathBuf>,
    /// Wakes the thread.
    changed: Notify,
    stopping: AtomicBool,
    /// When it was made, in milliseconds since 1970: bodies that began before are of an earlier run.
    since_ms: u64,
    /// Jobs that run, and whether each is to be given up.
    running: Mutex<HashMap<u64, Arc<AtomicBool>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Jobs {
    /// None runs before [`Jobs::start`].
    pub(crate) fn new(folder: Option<PathBuf>) -> Self {
        Self {
            folder,
            since_ms: now_ms().unwrap_or(0),
            ..Self::default()
        }
    }

    /// Starts the thread, which goes on with what a restart interrupted.
    pub(crate) fn start(state: &Data<AppState>) -> std::io::Result<()> {
        let theirs = state.clone();
        let thread = std::thread::Builder::new()
            .name("jobs".into())
            .spawn(move || run::drive(&theirs))?;
        *state.jobs.thread.lock() = Some(thread);
        Ok(())
    }

    /// Has jobs stop where they are, to go on after the next start, and waits for them.
    pub(crate) fn close(&self) {
        self.stopping.store(true, SeqCst);
        self.changed.notify_one();
        if let Some(thread) = self.thread.lock().take() {
            // It catches panics of jobs; there is nothing to learn here.
            let _ = thread.join();
        }
    }
}

/// Adds a job that waits for its turn.
pub(crate) async fn add(
    state: &Data<AppState>,
    kind: JobKind,
    collection: String,
    total: Option<u64>,
    spec: Value,
) -> Result<Job, ApiError> {
    let theirs = state.clone();
    let job = block("adding a job", move || {
        let added = theirs.engine.add_job(kind, &collection, total, spec);
        added.map_err(|e| ApiError::engine("adding a job", e))
    })
    .await?;
    state.jobs.changed.notify_one();
    Ok(job)
}

/// Gives up a job: at once where it waits, after its next step where it runs. One that has ended stays as
/// it is.
pub(crate) async fn cancel(state: &Data<AppState>, id: u64) -> Result<Job, ApiError> {
    let theirs = state.clone();
    let job = block("canceling a job", move || {
        let running = theirs.jobs.running.lock();
        let changed = theirs.engine.change_job(id, |job| {
            if job.state.has_ended() {
                return;
            }
            job.canceling = true;
            if let Some(flag) = running.get(&id) {
                flag.store(true, SeqCst);
            } else {
                job.state = JobState::Canceled;
                job.ended_at_ms = now_ms();
            }
        });
        drop(running);
        let changed = changed.map_err(|e| ApiError::engine("canceling a job", e))?;
        changed.ok_or(ApiError::NoJob { id })
    })
    .await?;
    // What it left behind is removed.
    state.jobs.changed.notify_one();
    Ok(job)
}
