//! Long work: begun, looked at, given up.

use actix_web::{
    HttpRequest, HttpResponse,
    web::{Data, Path, Payload},
};
use engine::{Job, JobKind};
use serde_json::{Value, json};

use crate::{
    access::Grant,
    body,
    jobs::{self, ApplyIn, ReencodeIn},
    openapi::{
        learning::{AcceptedOut, JobOut, JobsOut},
        params::{Mine, MyHead, MyJob},
    },
    reply::ApiError,
    state::{AppState, block},
    wire::parse,
};

/// Lists jobs, the last ones first.
#[utoipa::path(
    get,
    path = "/v1/jobs",
    operation_id = "list_jobs",
    tag = "Jobs",
    responses((status = 200, description = "All that are kept.", body = JobsOut)),
)]
pub(crate) async fn list(
    state: Data<AppState>,
    request: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    let grant = Grant::of(&request);
    let all = block("listing jobs", move || {
        let all = state.engine.jobs();
        all.map_err(|e| ApiError::engine("listing jobs", e))
    })
    .await?;
    let all: Vec<Value> = all
        .iter()
        .rev()
        .filter(|job| grant.sees(&job.collection))
        .map(jobs::describe)
        .collect();
    Ok(HttpResponse::Ok().json(json!({ "jobs": all })))
}

/// Says how far a job is.
#[utoipa::path(
    get,
    path = "/v1/jobs/{id}",
    operation_id = "get_job",
    tag = "Jobs",
    params(MyJob),
    responses((status = 200, description = "The job.", body = JobOut)),
)]
pub(crate) async fn get(
    state: Data<AppState>,
    id: Path<String>,
    request: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    let job = known(&state, number(&id)?, &request).await?;
    Ok(HttpResponse::Ok().json(jobs::describe(&job)))
}

/// A job of a collection that whoever asks may see.
async fn known(state: &Data<AppState>, id: u64, request: &HttpRequest) -> Result<Job, ApiError> {
    let state = Data::clone(state);
    let job = block("reading a job", move || {
        let job = state.engine.job(id);
        let job = job.map_err(|e| ApiError::engine("reading a job", e))?;
        job.ok_or(ApiError::NoJob { id })
    })
    .await?;
    Grant::of(request).check(&job.collection)?;
    Ok(job)
}

/// Cancels a job.
#[utoipa::path(
    delete,
    path = "/v1/jobs/{id}",
    operation_id = "cancel_job",
    tag = "Jobs",
    params(MyJob),
    responses((status = 200, description = "The job.", body = JobOut)),
)]
pub(crate) async fn delete(
    state: Data<AppState>,
    id: Path<String>,
    request: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    let job = known(&state, number(&id)?, &request).await?;
    let job = jobs::cancel(&state, job.id).await?;
    Ok(HttpResponse::Ok().json(jobs::describe(&job)))
}

/// Writes the labels of a head into the payloads of a collection, as a job.
#[utoipa::path(
    post,
    path = "/v1/collections/{collection}/heads/{head}/apply",
    operation_id = "apply_head",
    tag = "Jobs",
    params(MyHead),
    request_body(content = ApplyIn, examples(
        ("sure" = (summary = "Where it is fairly sure", value = json!({"field": "kind", "min_probability": 0.6}))),
    )),
    responses((status = 202, description = "The job.", body = AcceptedOut)),
)]
pub(crate) async fn apply(
    state: Data<AppState>,
    names: Path<(String, String)>,
    request: HttpRequest,
    payload: Payload,
) -> Result<HttpResponse, ApiError> {
    let sent = body::read_json(&request, payload, &state).await?.bytes;
    let wire: ApplyIn = parse(&sent)?;
    let (name, head) = names.into_inner();
    let collection = state.collection(&name)?;
    let check = move || wire.check(&collection, head);
    let (total, spec) = block("reading a head", check).await?;
    let job = jobs::add(&state, JobKind::ApplyHead, name, total, spec).await?;
    Ok(accepted(&job, &json!({})))
}

/// Adds the items of an NDJSON body, one a line, as a job.
#[utoipa::path(
    post,
    path = "/v1/collections/{collection}/import",
    operation_id = "import_items",
    tag = "Jobs",
    params(Mine),
    request_body(content((String = "application/x-ndjson", examples(
        ("lines" = (summary = "Two lines", value = json!(
            "{\"id\": \"e\", \"text\": \"a boat\"}\n{\"id\": \"f\", \"text\": \"a lamp\"}\n"
        ))),
    )))),
    responses((status = 202, description = "The job.", body = AcceptedOut)),
)]
pub(crate) async fn import(
    state: Data<AppState>,
    name: Path<String>,
    request: HttpRequest,
    payload: Payload,
) -> Result<HttpResponse, ApiError> {
    const NDJSON: &str = "application/x-ndjson";
    body::refuse_encoded(&request)?;
    if body::media_type(&request) != NDJSON {
        return Err(body::unsupported(&request, NDJSON));
    }
    state.collection_of_model(&name)?;
    let spooled = jobs::spool(&state, payload).await?;
    let spec = json!({ "file": spooled.file });
    let total = Some(spooled.lines);
    let job = jobs::add(&state, JobKind::Import, name.into_inner(), total, spec).await?;
    Ok(accepted(&job, &json!({ "lines": spooled.lines })))
}

/// Encodes a collection of another model again, as a job.
#[utoipa::path(
    post,
    path = "/v1/collections/{collection}/reencode",
    operation_id = "reencode",
    tag = "Jobs",
    params(Mine),
    request_body(content = Option<ReencodeIn>, examples(
        ("some" = (summary = "Even where some items have no content", value = json!({"allow_missing": true}))),
    )),
    responses((status = 202, description = "The job.", body = AcceptedOut)),
)]
pub(crate) async fn reencode(
    state: Data<AppState>,
    name: Path<String>,
    request: HttpRequest,
    payload: Payload,
) -> Result<HttpResponse, ApiError> {
    let sent = body::read_json(&request, payload, &state).await?.bytes;
    let wire: ReencodeIn = parse(&sent)?;
    let (total, beside, spec) = jobs::plan_reencode(&state, &name, &wire)?;
    Grant::of(&request).check(&beside)?;
    let name = name.into_inner();
    let job = jobs::add(&state, JobKind::Reencode, name, Some(total), spec).await?;
    Ok(accepted(&job, &json!({ "beside": beside })))
}

fn accepted(job: &Job, more: &Value) -> HttpResponse {
    let mut out = more.clone();
    out["job"] = json!(job.id);
    HttpResponse::Accepted()
        .insert_header(("location", format!("/v1/jobs/{}", job.id)))
        .json(out)
}

/// A job's number; anything else names none.
fn number(id: &str) -> Result<u64, ApiError> {
    let message = || format!("{id:?} is no number of a job");
    id.parse().map_err(|_| ApiError::invalid("id", message()))
}
