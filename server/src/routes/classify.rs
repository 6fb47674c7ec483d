//! `POST /v1/classify`

use std::time::Instant;

use super::took_ms;
use crate::{
    access::Grant,
    answers::{ClassifiedItemsOut, ClassifiedOneOut, ClassifiedOut, PredictionOut},
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
/// embeddings. With a `collection`, its items say whether any label fits at all, and can be classified
/// themselves, many at once. docs/heads.md says more.
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
        ("items" = (summary = "Stored items, each label told for itself",
            value = json!({"collection": "demo", "ids": ["1f34e", "1f6b2"], "labels": ["fruit", "vehicle"],
                           "multi_label": true}))),
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
    let mut wire: ClassifyIn = parse(&sent.bytes)?;
    if let Some(collection) = &wire.collection {
        Grant::of(&request).check(collection)?;
    }
    let caller = Caller {
        state: &state,
        client,
    };
    let space = "shared";
    let out = if let Some(ids) = wire.ids.take() {
        ClassifiedOut::Items(ClassifiedItemsOut {
            items: zero_shot::classify_items(caller, ids, wire).await?,
            space,
            took_ms: took_ms(started),
        })
    } else {
        let said = zero_shot::classify(caller, wire).await?;
        let one = |p: engine::Prediction| PredictionOut {
            label: p.label,
            probability: p.probability,
            score: p.score,
        };
        ClassifiedOut::One(ClassifiedOneOut {
            predictions: said.predictions.into_iter().map(one).collect(),
            none_of_these: said.none_of_these,
            space,
            took_ms: took_ms(started),
        })
    };
    Ok(HttpResponse::Ok().json(out))
}
