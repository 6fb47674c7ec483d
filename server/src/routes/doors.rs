//! Routes of other services; see `doors`.

use actix_web::{
    HttpRequest, HttpResponse,
    http::header::ContentType,
    web::{Data, Path, Payload},
};
use serde::de::DeserializeOwned;
use serde_json::json;

use super::status;
use crate::{
    body::{self, BodyRoom},
    doors::{
        openai::{self, EmbeddingsIn},
        tei::{self, EmbedIn},
        zero_shot::{self, ZeroShotIn},
    },
    reply::ApiError,
    state::{AppState, Caller, block},
    tower::Client,
    wire::parse,
};

/// `POST /v1/embeddings`
pub(crate) async fn embeddings(
    state: Data<AppState>,
    request: HttpRequest,
    payload: Payload,
) -> Result<HttpResponse, ApiError> {
    let check = |asked: EmbeddingsIn, state: &AppState| asked.check(state);
    let (asked, room) = read(&state, &request, payload, check).await?;
    let embedded = asked.encode(caller(&state, &request)).await?;
    drop(room);
    let write = move || embedded.write(&state.model.spaces.model);
    Ok(as_json(block("writing embeddings", write).await?))
}

/// `GET /v1/models`
pub(crate) async fn models(state: Data<AppState>) -> HttpResponse {
    let all = [openai::model(&state)];
    HttpResponse::Ok().json(json!({ "object": "list", "data": all }))
}

/// `GET /v1/models/{model}`
pub(crate) async fn model(
    state: Data<AppState>,
    name: Path<String>,
) -> Result<HttpResponse, ApiError> {
    openai::check_model(&state, Some(&name))?;
    Ok(HttpResponse::Ok().json(openai::model(&state)))
}

/// `POST /embed`
pub(crate) async fn embed(
    state: Data<AppState>,
    request: HttpRequest,
    payload: Payload,
) -> Result<HttpResponse, ApiError> {
    let check = |asked: EmbedIn, state: &AppState| asked.check(state);
    let (inputs, room) = read(&state, &request, payload, check).await?;
    let ready = inputs.encode(caller(&state, &request)).await?;
    drop(room);
    let write = move || tei::write(&ready);
    Ok(as_json(block("writing embeddings", write).await?))
}

/// `GET /info`
pub(crate) async fn info(state: Data<AppState>) -> HttpResponse {
    HttpResponse::Ok().json(tei::info(&state))
}

/// `GET /health`: as `/readyz`, and without a body.
pub(crate) async fn health(state: Data<AppState>) -> Result<HttpResponse, ApiError> {
    status::ready(state).await?;
    Ok(HttpResponse::Ok().finish())
}

/// `POST /zero-shot-image-classification`
pub(crate) async fn zero_shot(
    state: Data<AppState>,
    request: HttpRequest,
    payload: Payload,
) -> Result<HttpResponse, ApiError> {
    let (asked, _room) = read(&state, &request, payload, |asked: ZeroShotIn, _| Ok(asked)).await?;
    let predictions = asked.run(caller(&state, &request)).await?;
    Ok(HttpResponse::Ok().json(zero_shot::describe(predictions)))
}

fn caller<'a>(state: &'a AppState, request: &HttpRequest) -> Caller<'a> {
    Caller {
        state,
        client: Client::of(request),
    }
}

/// Reads and checks a body of JSON on a thread that may take its time. The room is to be held as long
/// as what was made of the body.
async fn read<T: DeserializeOwned + 'static, C: Send + 'static>(
    state: &Data<AppState>,
    request: &HttpRequest,
    payload: Payload,
    check: impl FnOnce(T, &AppState) -> Result<C, ApiError> + Send + 'static,
) -> Result<(C, BodyRoom), ApiError> {
    let sent = body::read_json(request, payload, state).await?;
    let state = state.clone();
    let checked = block("reading a request", move || {
        let checked = check(parse(&sent.bytes)?, &state)?;
        Ok((checked, sent.room))
    });
    checked.await
}

fn as_json(bytes: Vec<u8>) -> HttpResponse {
    HttpResponse::Ok()
        .insert_header(ContentType::json())
        .body(bytes)
}
