//! What is said of a job.

use engine::Job;
use serde_json::{Value, json};

use crate::heads::made_at;

/// A job, without what only its runner understands.
pub(crate) fn job(job: &Job) -> Value {
    let mut out = json!({
        "id": job.id,
        "kind": job.kind,
        "collection": job.collection,
        "state": job.state,
        "done": job.done,
        "total": job.total,
        "failed": job.failed,
        "started_at": made_at(job.started_at_ms),
        "ended_at": made_at(job.ended_at_ms),
    });
    if let Some(error) = &job.error {
        out["error"] = json!(error);
    }
    if let Some(result) = &job.result {
        out["result"] = result.clone();
    }
    if job.canceling && !job.state.has_ended() {
        out["canceling"] = json!(true);
    }
    out
}
