//! Classifiers of a collection: made, listed, asked, rolled back, sent and taken in.

use std::time::Instant;

use actix_web::{
    HttpRequest, HttpResponse,
    http::header,
    web::{Data, Path, Payload},
};
use engine::{KeptHead, MAX_HEAD_BYTES};
use serde_json::{Value, json};

use super::took_ms;
use crate::{
    body,
    heads::{self, HeadIn, PredictIn, SuggestIn},
    openapi::{
        examples::PICTURE,
        learning::{HeadOut, HeadVersionsOut, HeadsOut, PredictedOut, SuggestedOut},
        params::{Mine, MyHead, OfVersion},
    },
    reply::ApiError,
    state::{AppState, Caller, block},
    tower::Client,
    wire::{self, RollBackIn, VersionQuery, parse},
};

/// What a head is sent as.
const SAFETENSORS: &str = "application/octet-stream";

type Names = Path<(String, String)>;

/// Lists the heads of a collection.
#[utoipa::path(
    get,
    path = "/v1/collections/{collection}/heads",
    operation_id = "list_heads",
    tag = "Heads",
    params(Mine),
    responses((status = 200, description = "Its heads.", body = HeadsOut)),
)]
pub(crate) async fn list(
    state: Data<AppState>,
    name: Path<String>,
) -> Result<HttpResponse, ApiError> {
    let collection = state.collection(&name)?;
    let heads = block("listing heads", move || {
        let heads = collection.heads();
        let heads = heads.map_err(|e| ApiError::engine("listing heads", e))?;
        Ok(heads.iter().map(heads::entry).collect::<Vec<Value>>())
    })
    .await?;
    Ok(HttpResponse::Ok().json(json!({ "heads": heads })))
}

/// Makes a head, or a new version of it.
///
/// Of labeled examples, of a field of the payloads, or of labels alone; docs/heads.md says more.
#[utoipa::path(
    put,
    path = "/v1/collections/{collection}/heads/{head}",
    operation_id = "put_head",
    tag = "Heads",
    params(MyHead),
    request_body(content = HeadIn, examples(
        ("examples" = (summary = "Learned from labeled texts, pulled towards what the labels say", value = json!({
            "examples": [
                {"label": "fruit", "text": "a red apple"}, {"label": "fruit", "text": "a banana"},
                {"label": "vehicle", "text": "a fire engine"}, {"label": "vehicle", "text": "a bicycle"},
            ],
            "start": "zero_shot",
        }))),
        ("labels" = (summary = "Made of words alone", value = json!({
            "labels": ["happy face", "sad face"], "templates": ["{}", "a picture of a {}"],
        }))),
    )),
    responses((status = 201, description = "The first version.", body = HeadOut), (status = 200, description = "A new version.", body = HeadOut)),
)]
pub(crate) async fn put(
    state: Data<AppState>,
    names: Names,
    request: HttpRequest,
    payload: Payload,
) -> Result<HttpResponse, ApiError> {
    let client = Client::of(&request);
    let sent = body::read_json(&request, payload, &state).await?;
    let (collection, name) = names.into_inner();
    // The room is held until the head is made.
    let read = move || Ok((parse::<HeadIn>(&sent.bytes)?, sent.room));
    let (wire, _room) = state.pools.read("reading examples", read).await?;
    let made = heads::make(&state, client, (&collection, name.clone()), wire).await?;
    let mut out = heads::kept(&name, made.version, &made.kept);
    out["took_ms"] = json!(took_ms(made.started));
    let mut reply = if made.version == 1 {
        HttpResponse::Created()
    } else {
        HttpResponse::Ok()
    };
    Ok(reply.json(out))
}

/// Describes a head.
#[utoipa::path(
    get,
    path = "/v1/collections/{collection}/heads/{head}",
    operation_id = "get_head",
    tag = "Heads",
    params(MyHead, OfVersion),
    responses((status = 200, description = "The head.", body = HeadOut)),
)]
pub(crate) async fn get(
    state: Data<AppState>,
    names: Names,
    request: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    let VersionQuery { version } = wire::query(&request)?;
    let (collection, name) = names.into_inner();
    let collection = state.collection(&collection)?;
    let out = block("reading a head", move || {
        let failed = |e| ApiError::engine("reading a head", e);
        let (version, kept) = collection.head(&name, version).map_err(failed)?;
        let entry = collection.head_entry(&name).map_err(failed)?;
        let mut out = heads::kept(&name, version, &kept);
        out["current"] = json!(entry.current);
        out["versions"] = heads::entry(&entry)["versions"].take();
        Ok(out)
    })
    .await?;
    Ok(HttpResponse::Ok().json(out))
}

/// Deletes a head with all versions.
#[utoipa::path(
    delete,
    path = "/v1/collections/{collection}/heads/{head}",
    operation_id = "delete_head",
    tag = "Heads",
    params(MyHead),
    responses((status = 204, description = "It is gone.")),
)]
pub(crate) async fn delete(state: Data<AppState>, names: Names) -> Result<HttpResponse, ApiError> {
    let (collection, name) = names.into_inner();
    let collection = state.collection(&collection)?;
    block("deleting a head", move || {
        let failed = |e| ApiError::engine("deleting a head", e);
        if collection.delete_head(&name).map_err(failed)? {
            return Ok(());
        }
        // Says that there is none.
        collection.head_entry(&name).map(drop).map_err(failed)
    })
    .await?;
    Ok(HttpResponse::NoContent().finish())
}

/// Lists the versions of a head.
#[utoipa::path(
    get,
    path = "/v1/collections/{collection}/heads/{head}/versions",
    operation_id = "list_head_versions",
    tag = "Heads",
    params(MyHead),
    responses((status = 200, description = "Its versions.", body = HeadVersionsOut)),
)]
pub(crate) async fn versions(
    state: Data<AppState>,
    names: Names,
) -> Result<HttpResponse, ApiError> {
    let (collection, name) = names.into_inner();
    let collection = state.collection(&collection)?;
    let out = block("reading a head", move || {
        let entry = collection.head_entry(&name);
        let entry = entry.map_err(|e| ApiError::engine("reading a head", e))?;
        let versions = entry.versions.iter().map(|one| {
            let mut out = heads::brief(&one.brief);
            out["version"] = json!(one.version);
            out
        });
        Ok(json!({
            "name": entry.name,
            "current": entry.current,
            "versions": versions.collect::<Vec<Value>>(),
        }))
    })
    .await?;
    Ok(HttpResponse::Ok().json(out))
}

/// Makes an earlier version of a head the current one.
#[utoipa::path(
    post,
    path = "/v1/collections/{collection}/heads/{head}/rollback",
    operation_id = "roll_back_head",
    tag = "Heads",
    params(MyHead),
    request_body(content = RollBackIn, examples(
        ("first" = (summary = "Back to the first version", value = json!({"version": 1}))),
    )),
    responses((status = 200, description = "The head.", body = HeadOut)),
)]
pub(crate) async fn roll_back(
    state: Data<AppState>,
    names: Names,
    request: HttpRequest,
    payload: Payload,
) -> Result<HttpResponse, ApiError> {
    let sent = body::read_json(&request, payload, &state).await?.bytes;
    let RollBackIn { version } = parse(&sent)?;
    let (collection, name) = names.into_inner();
    let collection = state.collection(&collection)?;
    let out = block("rolling back a head", move || {
        let entry = collection.roll_back_head(&name, version);
        let entry = entry.map_err(|e| ApiError::engine("rolling back a head", e))?;
        Ok(heads::entry(&entry))
    })
    .await?;
    Ok(HttpResponse::Ok().json(out))
}

/// Labels items, texts and pictures.
///
/// What cannot be read fails alone, with an `error` in its place.
#[utoipa::path(
    post,
    path = "/v1/collections/{collection}/heads/{head}/predict",
    operation_id = "predict",
    tag = "Heads",
    params(MyHead),
    request_body(content = PredictIn, examples(
        ("both" = (summary = "An item and a text", value = json!({
            "ids": ["a"], "inputs": [{"text": "a pear"}], "k": 2,
        }))),
        ("picture" = (summary = "A picture", value = json!({"inputs": [{"image": PICTURE}]}))),
    )),
    responses((status = 200, description = "Labels of each.", body = PredictedOut)),
)]
pub(crate) async fn predict(
    state: Data<AppState>,
    names: Names,
    request: HttpRequest,
    payload: Payload,
) -> Result<HttpResponse, ApiError> {
    let started = Instant::now();
    let client = Client::of(&request);
    let sent = body::read_json(&request, payload, &state).await?;
    let (collection, name) = names.into_inner();
    let collection = state.collection(&collection)?;
    let wire: PredictIn = parse(&sent.bytes)?;
    let caller = Caller {
        state: &state,
        client,
    };
    let (version, predictions) = heads::predict(caller, collection, name, wire).await?;
    Ok(HttpResponse::Ok().json(json!({
        "predictions": predictions,
        "version": version,
        "took_ms": took_ms(started),
    })))
}

/// Names the items whose labels would help most.
#[utoipa::path(
    post,
    path = "/v1/collections/{collection}/heads/{head}/suggest",
    operation_id = "suggest",
    tag = "Heads",
    params(MyHead),
    request_body(content = Option<SuggestIn>, examples(
        ("few" = (summary = "Five that differ", value = json!({"k": 5, "strategy": "diverse"}))),
    )),
    responses((status = 200, description = "Items to label.", body = SuggestedOut)),
)]
pub(crate) async fn suggest(
    state: Data<AppState>,
    names: Names,
    request: HttpRequest,
    payload: Payload,
) -> Result<HttpResponse, ApiError> {
    let started = Instant::now();
    let wire: SuggestIn = parse(&body::read_json(&request, payload, &state).await?.bytes)?;
    let (collection, name) = names.into_inner();
    let collection = state.collection(&collection)?;
    let mut out = heads::suggest(&state, collection, name, wire).await?;
    out["took_ms"] = json!(took_ms(started));
    Ok(HttpResponse::Ok().json(out))
}

/// Gives a head as a safetensors file.
#[utoipa::path(
    get,
    path = "/v1/collections/{collection}/heads/{head}/export",
    operation_id = "export_head",
    tag = "Heads",
    params(MyHead, OfVersion),
    responses((status = 200, description = "The file.", body = Vec<u8>, content_type = "application/octet-stream")),
)]
pub(crate) async fn export(
    state: Data<AppState>,
    names: Names,
    request: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    let VersionQuery { version } = wire::query(&request)?;
    let (collection, name) = names.into_inner();
    let collection = state.collection(&collection)?;
    let file = format!("attachment; filename=\"{name}.safetensors\"");
    let bytes = block("exporting a head", move || {
        let bytes = collection.export_head(&name, version);
        bytes.map_err(|e| ApiError::engine("exporting a head", e))
    })
    .await?;
    Ok(HttpResponse::Ok()
        .content_type(SAFETENSORS)
        .insert_header((header::CONTENT_DISPOSITION, file))
        .body(bytes))
}

/// Makes a new version of a head of such a file.
#[utoipa::path(
    put,
    path = "/v1/collections/{collection}/heads/{head}/import",
    operation_id = "import_head",
    tag = "Heads",
    params(MyHead),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 201, description = "The first version.", body = HeadOut), (status = 200, description = "A new version.", body = HeadOut)),
)]
pub(crate) async fn import(
    state: Data<AppState>,
    names: Names,
    request: HttpRequest,
    payload: Payload,
) -> Result<HttpResponse, ApiError> {
    body::refuse_encoded(&request)?;
    let sent = body::read(&request, payload, &state).await?;
    if sent.bytes.len() > MAX_HEAD_BYTES {
        let (got, most) = (sent.bytes.len(), MAX_HEAD_BYTES);
        return Err(ApiError::TooLarge {
            field: Some("body".into()),
            message: format!("the head has {got} bytes, at most {most} are allowed"),
        });
    }
    let (collection, name) = names.into_inner();
    let collection = state.collection(&collection)?;
    let most = state.limits.labels;
    let (version, out) = block("importing a head", move || {
        let failed = |e| ApiError::engine("importing a head", e).at("body");
        let kept = KeptHead::from_file(&sent.bytes).map_err(failed)?;
        let labels = kept.head.labels.len();
        if labels > most {
            let message = format!("the head has {labels} labels, at most {most} are allowed");
            return Err(ApiError::invalid("body", message));
        }
        let version = collection.put_head(&name, &kept);
        let version = version.map_err(|e| ApiError::engine("importing a head", e))?;
        Ok((version, heads::kept(&name, version, &kept)))
    })
    .await?;
    let mut reply = if version == 1 {
        HttpResponse::Created()
    } else {
        HttpResponse::Ok()
    };
    Ok(reply.json(out))
}
