//! Routes of other services; see `doors`.

use actix_web::{
    HttpRequest, HttpResponse,
    http::header::ContentType,
    web::{Data, Path, Payload},
};
use serde::de::DeserializeOwned;

use super::status;
use crate::{
    body::{self, BodyRoom},
    doors::{
        openai::{self, EmbeddingsIn, EmbeddingsOut, ModelOut, ModelsOut},
        tei::{self, EmbedIn, InfoOut},
        zero_shot::{self, LabelOut, ZeroShotIn},
    },
    openapi::examples::PICTURE,
    reply::ApiError,
    state::{AppState, Caller, block},
    tower::Client,
    wire::parse,
};

/// Embeds texts and pictures, as clients of `OpenAI` ask.
///
/// The shared embeddings, of unit length, in which texts and pictures meet. All inputs or none.
#[utoipa::path(
    post,
    path = "/v1/embeddings",
    operation_id = "openai_embeddings",
    tag = "Doors",
    request_body(content = EmbeddingsIn, examples(
        ("text" = (summary = "One text", value = json!({"input": "a red bicycle"}))),
        ("both" = (summary = "Texts and a picture, in base64",
            value = json!({
                "input": ["a red bicycle", {"text": "a boat"}, {"image": PICTURE}],
                "encoding_format": "base64",
            }))),
        ("uri" = (summary = "A picture as a data URI",
            value = json!({"input": format!("data:image/png;base64,{PICTURE}")}))),
        ("pictures" = (summary = "Strings that are pictures",
            value = json!({"input": [PICTURE], "modality": "image"}))),
    )),
    responses((status = 200, description = "One embedding for each input, in their order.", body = EmbeddingsOut)),
)]
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

/// Lists the one model, as clients of `OpenAI` ask.
#[utoipa::path(
    get,
    path = "/v1/models",
    operation_id = "openai_models",
    tag = "Doors",
    responses((status = 200, description = "The one model.", body = ModelsOut)),
)]
pub(crate) async fn models(state: Data<AppState>) -> HttpResponse {
    HttpResponse::Ok().json(ModelsOut::new([openai::model(&state)]))
}

/// Finds a model by its name, as clients of `OpenAI` ask.
///
/// The name may have slashes in it.
#[utoipa::path(
    get,
    path = "/v1/models/{model:.+}",
    operation_id = "openai_model",
    tag = "Doors",
    params(("model" = String, Path, description = "Name of the model.", example = "diptych-mini")),
    responses((status = 200, description = "The model.", body = ModelOut)),
)]
pub(crate) async fn model(
    state: Data<AppState>,
    name: Path<String>,
) -> Result<HttpResponse, ApiError> {
    openai::check_model(&state, Some(&name))?;
    Ok(HttpResponse::Ok().json(openai::model(&state)))
}

/// Embeds texts, as clients of text-embeddings-inference ask.
///
/// Always an array of rows of unit length, also for one text.
#[utoipa::path(
    post,
    path = "/embed",
    operation_id = "tei_embed",
    tag = "Doors",
    request_body(content = EmbedIn, examples(
        ("one" = (summary = "One text", value = json!({"inputs": "a red bicycle"}))),
        ("many" = (summary = "Texts, none of which may be cut",
            value = json!({"inputs": ["a red bicycle", "a boat"], "truncate": false}))),
    )),
    responses((status = 200, description = "One row for each text.", body = Vec<Vec<f32>>)),
)]
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

/// Says what runs here, as clients of text-embeddings-inference ask.
#[utoipa::path(
    get,
    path = "/info",
    operation_id = "tei_info",
    tag = "Doors",
    responses((status = 200, description = "The model and the limits.", body = InfoOut)),
)]
pub(crate) async fn info(state: Data<AppState>) -> HttpResponse {
    HttpResponse::Ok().json(tei::info(&state))
}

/// Says whether requests can be sent, as clients of text-embeddings-inference ask.
///
/// As `/readyz`, and without a body.
#[utoipa::path(
    get,
    path = "/health",
    operation_id = "tei_health",
    tag = "Doors",
    responses((status = 200, description = "They can.")),
)]
pub(crate) async fn health(state: Data<AppState>) -> Result<HttpResponse, ApiError> {
    status::ready(state).await?;
    Ok(HttpResponse::Ok().finish())
}

/// Classifies a picture, as the task of Hugging Face has it.
#[utoipa::path(
    post,
    path = "/zero-shot-image-classification",
    operation_id = "zero_shot_image_classification",
    tag = "Doors",
    request_body(content = ZeroShotIn, examples(
        ("picture" = (summary = "A picture among labels", value = json!({
            "inputs": PICTURE,
            "parameters": {"candidate_labels": ["red", "blue"], "hypothesis_template": "a {} square"},
        }))),
    )),
    responses((status = 200, description = "The labels, the best first.", body = Vec<LabelOut>)),
)]
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
