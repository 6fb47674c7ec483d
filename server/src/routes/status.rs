//! Whether the server lives, can work, what it counts, and which model it runs.

use std::sync::atomic::Ordering;

use actix_web::{HttpRequest, HttpResponse, web::Data};

use crate::{
    access::Grant,
    answers::HealthOut,
    body::BodyRoom,
    openapi::twins::ModelInfo,
    reply::{ApiError, STORE_STOPPED},
    state::AppState,
};

/// Says that the process answers.
#[utoipa::path(
    get,
    path = "/healthz",
    operation_id = "alive",
    tag = "Server",
    responses((status = 200, description = "It does.", body = HealthOut)),
)]
pub(crate) async fn alive() -> HttpResponse {
    HttpResponse::Ok().json(HealthOut { status: "ok" })
}

/// Says whether requests can be sent.
///
/// 503 while the server stops, while a tower is stuck, or when the store has stopped.
#[utoipa::path(
    get,
    path = "/readyz",
    operation_id = "ready",
    tag = "Server",
    responses((status = 200, description = "They can.", body = HealthOut)),
)]
pub(crate) async fn ready(state: Data<AppState>) -> Result<HttpResponse, ApiError> {
    match not_ready(&state) {
        Some(reason) => Err(ApiError::Unavailable { reason }),
        None => Ok(HttpResponse::Ok().json(HealthOut { status: "ready" })),
    }
}

/// Why no requests can be sent here.
fn not_ready(state: &AppState) -> Option<&'static str> {
    let stopping = state.stopping.load(Ordering::Acquire);
    let stopping = stopping.then_some("the server is stopping");
    stopping
        .or_else(|| state.stuck_tower())
        .or_else(|| state.engine.check_store().is_err().then_some(STORE_STOPPED))
}

/// Tells the figures that Prometheus collects.
#[utoipa::path(
    get,
    path = "/metrics",
    operation_id = "metrics",
    tag = "Server",
    responses((status = 200, description = "The text format of Prometheus.", body = String,
        content_type = "text/plain; version=0.0.4; charset=utf-8")),
)]
pub(crate) async fn metrics(
    state: Data<AppState>,
    request: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    state.metrics.set_waiting("text", state.texts.waiting());
    state.metrics.set_waiting("image", state.images.waiting());
    state.metrics.set_searches(state.searches.now());
    state.metrics.set_body_bytes(BodyRoom::held_by_all(&state));
    state.metrics.set_ready(not_ready(&state).is_none());
    let text = state.metrics.text(&state.seen_by(&Grant::of(&request)))?;
    Ok(HttpResponse::Ok()
        .content_type("text/plain; version=0.0.4; charset=utf-8")
        .body(text))
}

/// Shows the model that the server runs.
#[utoipa::path(
    get,
    path = "/v1/model",
    operation_id = "model",
    tag = "Server",
    responses((status = 200, description = "The model.", body = ModelInfo)),
)]
pub(crate) async fn model(state: Data<AppState>) -> HttpResponse {
    HttpResponse::Ok().json(&state.model.info)
}
