//! `POST /v1/collections/{collection}/search`

use std::time::Instant;

use actix_web::{
    HttpRequest, HttpResponse,
    web::{Data, Path, Payload},
};
use engine::Hit;

use super::{picture, took_ms};
use crate::{
    answers::{ExplainOut, FoundOut, HitOut},
    body,
    openapi::{examples::PICTURE, params::Demo},
    query::{self, Found},
    reply::ApiError,
    state::{AppState, Caller, block},
    tower::Client,
    wire::{SearchIn, parse},
};

/// Finds what is nearest.
///
/// Asks with words, a picture, a stored item, an embedding, or several of them. There is always a
/// nearest item: whether it is what was looked for is said by `confidence`. docs/searches.md says more.
#[utoipa::path(
    post,
    path = "/v1/collections/{collection}/search",
    operation_id = "search",
    tag = "Search",
    params(Demo),
    request_body(content = SearchIn, examples(
        ("words" = (summary = "Words to pictures", value = json!({"text": "rainbow", "k": 3}))),
        ("picture" = (summary = "A picture to pictures", value = json!({"image": PICTURE, "k": 3}))),
        ("item" = (summary = "What is like a stored picture",
            value = json!({"id": "1f34e", "target": "image", "k": 3}))),
        ("parts" = (summary = "Like this one, but red; no faces", value = json!({
            "parts": [{"id": "1f34e"}, {"text": "red"}, {"text": "face", "weight": -0.5}], "k": 3,
        }))),
        ("sure" = (summary = "Only what is sure, near duplicates folded",
            value = json!({"text": "rainbow", "min_confidence": 0.5, "collapse": 0.98}))),
        ("groups" = (summary = "Groups, in the second page",
            value = json!({"text": "flag", "group_by": {"field": "name", "hits": 2}, "offset": 5, "k": 5}))),
        ("both" = (summary = "Pictures and texts in one list, with what was done",
            value = json!({"text": "bicycle", "target": "both", "exact": true, "explain": true}))),
    )),
    responses((status = 200, description = "What was found; possibly nothing.", body = FoundOut)),
)]
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
    let hits = block("describing hits", move || {
        let hits = answer.hits.into_iter();
        Ok(hits
            .map(|hit| describe(&state, &name, hit))
            .collect::<Vec<_>>())
    })
    .await?;
    let explain = answer.explanation;
    Ok(HttpResponse::Ok().json(FoundOut {
        hits,
        next,
        target,
        space,
        took_ms: took_ms(started),
        calibration: answer.calibration,
        explain: explain.map(|how| ExplainOut { shards: how.shards }),
    }))
}

fn describe(state: &AppState, collection: &str, hit: Hit) -> HitOut {
    HitOut {
        image_url: picture::url_of(state, collection, &hit),
        id: hit.id,
        version: hit.version,
        modality: hit.modality,
        score: hit.score,
        confidence: hit.confidence,
        payload: hit.payload,
        group: hit.group,
        duplicates: hit.duplicates,
        text: hit.text,
    }
}
