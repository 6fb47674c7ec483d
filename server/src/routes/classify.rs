//! `POST /v1/classify`

use std::time::Instant;

use super::took_ms;
use crate::{
    answers::{ClassifiedOut, PredictionOut},
    body, classify as zero_shot,
    openapi::examples::PICTURE,
    reply::ApiError,
    state::{AppState, Caller},
    tower::Client,
    wire::{ClassifyIn, parse},
};
use actix_web::{
    HttpRequest, HttpResponse,
    web::{Data, Payload},
};

/// Says which label fits best.
///
/// Zero-shot: each label is made into sentences, and what is classified is compared with their
/// embeddings.
#[utoipa::path(
    post,
    path = "/v1/classify",
    operation_id = "classify",
    tag = "Search",
    request_body(content = ClassifyIn, examples(
        ("text" = (summary = "A text among labels",
            value = json!({"text": "a small cat", "labels": ["cat", "car", "pizza"]}))),
        ("picture" = (summary = "A picture, with a template",
            value = json!({"image": PICTURE, "labels": ["red", "blue"], "templates": ["a {} square"]}))),
    )),
    responses((status = 200, description = "How well each label fits.", body = ClassifiedOut)),
)]
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
    let one = |p: engine::Prediction| PredictionOut {
        label: p.label,
        probability: p.probability,
        score: p.score,
    };
    Ok(HttpResponse::Ok().json(ClassifiedOut {
        predictions: predictions.into_iter().map(one).collect(),
        space: "shared",
        took_ms: took_ms(started),
    }))
}
