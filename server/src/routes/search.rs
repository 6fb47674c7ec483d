//! `POST /v1/collections/{collection}/search`

use std::time::Instant;

use actix_web::{
    HttpRequest, HttpResponse,
    web::{Data, Path, Payload},
};
use engine::Hit;
use serde_json::{Value, json};

use super::{picture, took_ms};
use crate::{
    body,
    query::{self, Found},
    reply::ApiError,
    state::{AppState, Caller, block},
    tower::Client,
    wire::{SearchIn, parse},
};

/// Finds what is nearest.
pub(crate) async fn search(
    state: Data<AppState>,
    name: Path<String>,
    request: HttpRequest,
    payload: Payload,
) -> Result<HttpResponse, ApiError> {
    let started = Instant::now();
    let sent = body::read_json(&request, payload, &state).await?;
    let collection = state.collection_of_model(&name)?;
    let asked: SearchIn = parse(&sent.bytes)?;
    drop(sent.bytes);
    // What was asked may be a picture as large as the body.
    let room = sent.room;
    let caller = Caller {
        state: &state,
        client: Client::of(&request),
    };
    let found = query::search(caller, collection, asked).await?;
    drop(room);
    let Found {
        answer,
        next,
        target,
        space,
    } = found;
    let calibration = answer.calibration;
    let hits = block("describing hits", move || {
        let hits = answer.hits.into_iter();
        Ok(hits
            .map(|hit| describe(&state, &name, hit))
            .collect::<Vec<_>>())
    })
    .await?;
    let mut out = json!({
        "hits": hits,
        "next": next,
        "target": target,
        "space": space,
        "took_ms": took_ms(started),
    });
    if let Some(calibration) = calibration {
        out["calibration"] = json!(calibration);
    }
    if let Some(how) = answer.explanation {
        out["explain"] = json!({ "shards": how.shards });
    }
    Ok(HttpResponse::Ok().json(out))
}

fn describe(state: &AppState, collection: &str, hit: Hit) -> Value {
    let image_url = picture::url_of(state, collection, &hit);
    let mut out = json!({
        "id": hit.id,
        "version": hit.version,
        "modality": hit.modality,
        "score": hit.score,
        "confidence": hit.confidence,
        "payload": hit.payload,
    });
    if let Some(group) = hit.group {
        out["group"] = group;
    }
    if !hit.duplicates.is_empty() {
        out["duplicates"] = json!(hit.duplicates);
    }
    if let Some(text) = hit.text {
        out["text"] = json!(text);
    }
    if let Some(url) = image_url {
        out["image_url"] = json!(url);
    }
    out
}
