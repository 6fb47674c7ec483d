//! `POST /v1/classify`

use std::time::Instant;

use actix_web::{
    HttpRequest, HttpResponse,
    web::{Data, Payload},
};
use serde_json::{Value, json};

use super::took_ms;
use crate::{
    body, classify as zero_shot,
    reply::ApiError,
    state::{AppState, Caller},
    tower::Client,
    wire::parse,
};

/// Says which label fits best, and how well each does.
pub(crate) async fn classify(
    state: Data<AppState>,
    request: HttpRequest,
    payload: Payload,
) -> Result<HttpResponse, ApiError> {
    let started = Instant::now();
    let client = Client::of(&request);
    let sent = body::read_json(&request, payload, &state).await?;
    let caller = Caller {
        state: &state,
        client,
    };
    let predictions = zero_shot::classify(caller, parse(&sent.bytes)?).await?;
    let predictions: Vec<Value> = predictions
        .into_iter()
        .map(|p| json!({ "label": p.label, "probability": p.probability, "score": p.score }))
        .collect();
    Ok(HttpResponse::Ok().json(json!({
        "predictions": predictions,
        "space": "shared",
        "took_ms": took_ms(started),
    })))
}
