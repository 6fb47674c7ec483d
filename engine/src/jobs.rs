//! Long work that must survive a restart: what is to be done, how far it is, and what came of it.
//!
//! The engine keeps jobs and does none of them: what a job's `spec` and `checkpoint` mean is up to
//! whoever runs it. A job lies under `j` and its number, as JSON with a checksum.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    Engine, EngineError,
    record::{checked, with_checksum},
    store::Batch,
};

/// Keys of jobs start so.
const JOBS: &[u8] = b"j";
/// Jobs that are kept, the last ones; older ones that have ended go.
pub const MAX_JOBS: usize = 200;
/// Jobs that may wait or run.
pub const MAX_OPEN_JOBS: usize = 50;

/// What kind of work it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobKind {
    /// Writing what a head says into payloads.
    ApplyHead,
    /// Adding items from a file of lines.
    Import,
    /// Encoding all items of a collection with another model.
    Reencode,
}

/// Where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// It waits for its turn.
    Queued,
    /// It runs, or goes on after a restart.
    Running,
    /// It came to its end.
    Done,
    /// It could not.
    Failed,
    /// It was given up.
    Canceled,
}

impl JobState {
    /// Whether nothing more will happen.
    pub fn has_ended(self) -> bool {
        matches!(self, Self::Done | Self::Failed | Self::Canceled)
    }
}

/// A job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Job {
    /// Its number; no two jobs that are kept have the same.
    pub id: u64,
    /// What kind of work it is.
    pub kind: JobKind,
    /// The collection that it works on.
    pub collection: String,
    /// Where it stands.
    pub state: JobState,
    /// Whether it is to be given up.
    pub canceling: bool,
    /// Things that are done, well or not.
    pub done: u64,
    /// All things, where known.
    pub total: Option<u64>,
    /// Things that could not be done.
    pub failed: u64,
    /// When it began, in milliseconds since 1970.
    pub started_at_ms: Option<u64>,
    /// When it ended.
    pub ended_at_ms: Option<u64>,
    /// Why it could not come to its end.
    pub error: Option<String>,
    /// What came of it.
    pub result: Option<Value>,
    /// What is to be done.
    pub spec: Value,
    /// Where to go on.
    pub checkpoint: Value,
}

impl Engine {
    /// Adds a job that waits for its turn; durable on return. Old ones beyond [`MAX_JOBS`] that have ended
    /// are forgotten.
    ///
    /// # Errors
    /// [`EngineError::TooManyJobs`] when [`MAX_OPEN_JOBS`] have not ended; when the store fails.
    pub fn add_job(
        &self,
        kind: JobKind,
        collection: &str,
        total: Option<u64>,
        spec: Value,
    ) -> Result<Job, EngineError> {
        let _turn = self.job_turn.lock();
        let jobs = self.jobs()?;
        let open = jobs.iter().filter(|job| !job.state.has_ended()).count();
        if open >= MAX_OPEN_JOBS {
            return Err(EngineError::TooManyJobs {
                most: MAX_OPEN_JOBS,
            });
        }
        let job = Job {
            id: jobs.last().map_or(1, |last| last.id + 1),
            kind,
            collection: collection.to_owned(),
            state: JobState::Queued,
            canceling: false,
            done: 0,
            total,
            failed: 0,
            started_at_ms: None,
            ended_at_ms: None,
            error: None,
            result: None,
            spec,
            checkpoint: Value::Null,
        };
        let mut batch = Batch::default();
        // The last one stays, so that its number is not given again.
        let ended = jobs.iter().filter(|job| job.state.has_ended());
        let excess = (jobs.len() + 1).saturating_sub(MAX_JOBS);
        for old in ended.take(excess) {
            batch.remove(key(old.id));
        }
        put(&mut batch, &job);
        self.core.store.commit(batch)?;
        Ok(job)
    }

    /// All jobs that are kept, the oldest first.
    ///
    /// # Errors
    /// When the store fails. One that does not read back is left out, and told in the log.
    pub fn jobs(&self) -> Result<Vec<Job>, EngineError> {
        let mut jobs = Vec::new();
        for entry in self.core.store.scan(JOBS) {
            let (key, value) = entry?;
            match read(&key, &value) {
                Ok(job) => jobs.push(job),
                Err(reason) => tracing::error!("a job is damaged in the store: {reason}"),
            }
        }
        Ok(jobs)
    }

    /// One job.
    ///
    /// # Errors
    /// When the store fails.
    pub fn job(&self, id: u64) -> Result<Option<Job>, EngineError> {
        let key = key(id);
        let Some(value) = self.core.store.get(&key)? else {
            return Ok(None);
        };
        match read(&key, &value) {
            Ok(job) => Ok(Some(job)),
            Err(reason) => {
                tracing::error!("a job is damaged in the store: {reason}");
                Ok(None)
            }
        }
    }

    /// Changes a job, if it is there, and gives it back; durable on return, with everything that was
    /// written before.
    ///
    /// # Errors
    /// When the store fails.
    pub fn change_job(
        &self,
        id: u64,
        change: impl FnOnce(&mut Job),
    ) -> Result<Option<Job>, EngineError> {
        let _turn = self.job_turn.lock();
        let Some(mut job) = self.job(id)? else {
            return Ok(None);
        };
        change(&mut job);
        job.id = id;
        let mut batch = Batch::default();
        put(&mut batch, &job);
        self.core.store.commit(batch)?;
        Ok(Some(job))
    }
}

fn key(id: u64) -> Vec<u8> {
    [JOBS, &id.to_be_bytes()].concat()
}

fn put(batch: &mut Batch, job: &Job) {
    let key = key(job.id);
    let body = serde_json::to_vec(job).expect("a job is plain JSON");
    batch.put(key.clone(), with_checksum(&key, body));
}

fn read(key: &[u8], value: &[u8]) -> Result<Job, String> {
    let body = checked(key, value)?;
    serde_json::from_slice(body).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::EngineConfig;

    #[test]
    fn jobs_are_kept_over_a_restart_and_their_numbers_are_not_given_again() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let open = || Engine::open(dir.path(), EngineConfig::default()).expect("opens");
        let engine = open();
        let add = |engine: &Engine| {
            let job = engine.add_job(JobKind::Import, "c", Some(3), json!({ "file": "f" }));
            job.map(|job| job.id)
        };
        for id in 1..=3 {
            assert_eq!(add(&engine).expect("adds"), id);
        }
        let changed = engine.change_job(2, |job| job.checkpoint = json!({ "offset": 9 }));
        let changed = changed.expect("writes").expect("is there");
        drop(engine);
        let engine = open();
        assert_eq!(engine.job(2).expect("reads"), Some(changed));
        assert_eq!(engine.job(9).expect("reads"), None);
        assert_eq!(engine.change_job(9, |_| ()).expect("reads"), None);
        assert_eq!(add(&engine).expect("adds"), 4);
    }

    #[test]
    fn open_jobs_are_bounded_and_the_oldest_ended_ones_are_forgotten() {
        let engine = Engine::in_memory(EngineConfig::default());
        let add = || engine.add_job(JobKind::Import, "c", None, Value::Null);
        for _ in 0..MAX_OPEN_JOBS {
            add().expect("adds");
        }
        assert!(matches!(add(), Err(EngineError::TooManyJobs { .. })));
        for round in 0..MAX_JOBS as u64 {
            let id = 2 + round;
            engine
                .change_job(id, |job| job.state = JobState::Done)
                .expect("writes");
            add().expect("one has ended");
        }
        let jobs = engine.jobs().expect("reads");
        assert_eq!(jobs.len(), MAX_JOBS);
        assert_eq!(jobs[0].id, 1, "one that has not ended stays");
        assert_eq!(
            jobs.last().map(|job| job.id),
            Some((MAX_OPEN_JOBS + MAX_JOBS) as u64)
        );
    }
}
