//! Whether the server lives, can work, what it counts, and which model it runs.

use std::sync::atomic::Ordering;

use actix_web::{HttpResponse, web::Data};
use serde_json::json;

use crate::{body::BodyRoom, reply::ApiError, state::AppState};

/// `GET /healthz`: the process answers.
pub(crate) async fn alive() -> HttpResponse {
    HttpResponse::Ok().json(json!({ "status": "ok" }))
}

/// `GET /readyz`: requests can be sent here; 503 while stopping or while a tower is stuck.
pub(crate) async fn ready(state: Data<AppState>) -> Result<HttpResponse, ApiError> {
    let stopping = state
        .stopping
        .load(Ordering::Acquire)
        .then_some("the server is stopping");
    match stopping.or_else(|| state.stuck_tower()) {
        Some(reason) => Err(ApiError::Unavailable { reason }),
        None => Ok(HttpResponse::Ok().json(json!({ "status": "ready" }))),
    }
}

/// `GET /metrics`
pub(crate) async fn metrics(state: Data<AppState>) -> Result<HttpResponse, ApiError> {
    state.metrics.set_waiting("text", state.texts.waiting());
    state.metrics.set_waiting("image", state.images.waiting());
    state.metrics.set_body_bytes(BodyRoom::held_by_all(&state));
    let text = state.metrics.text(&state.engine.collections())?;
    Ok(HttpResponse::Ok()
        .content_type("text/plain; version=0.0.4; charset=utf-8")
        .body(text))
}

/// `GET /v1/model`
pub(crate) async fn model(state: Data<AppState>) -> HttpResponse {
    HttpResponse::Ok().json(&state.model.info)
}
