//! Items: added, read, deleted.

use std::time::Instant;

use actix_web::{
    HttpRequest, HttpResponse,
    web::{Data, Path, Payload},
};
use bytes::Bytes;
use engine::ItemId;
use serde_json::json;

use super::{form, stream, took_ms};
use crate::{
    body,
    config::Limits,
    ingest::{NewItem, encode_all, keep},
    query,
    reply::ApiError,
    state::{AppState, block},
    wire::{ItemIn, ItemQuery, parse},
};

/// What `POST .../items` reads.
const KINDS: &str = "application/json, application/x-ndjson or multipart/form-data";

/// `POST /v1/collections/{collection}/items`: JSON and forms are kept all or nothing, each line
/// of NDJSON on its own.
pub(crate) async fn post(
    state: Data<AppState>,
    name: Path<String>,
    request: HttpRequest,
    payload: Payload,
) -> Result<HttpResponse, ApiError> {
    let started = Instant::now();
    body::refuse_encoded(&request)?;
    let kind = body::media_type(&request);
    if ![
        "application/json",
        "application/x-ndjson",
        "multipart/form-data",
    ]
    .contains(&&*kind)
    {
        return Err(body::unsupported(&request, KINDS));
    }
    let collection = state.collection_of_model(&name)?;
    // The room is held until the items are kept.
    let (items, single, _room) = match kind.as_str() {
        "application/x-ndjson" => return Ok(stream::stream(state, collection, payload)),
        "application/json" => {
            let sent = body::read(&request, payload, &state).await?;
            let limits = state.limits.clone();
            block("reading items", move || {
                let (items, single) = items_from_json(&sent.bytes, &limits)?;
                Ok((items, single, sent.room))
            })
            .await?
        }
        _ => {
            let (items, room) = form::read(&request, payload, &state).await?;
            (items, false, room)
        }
    };
    let field = |i: usize| {
        if single {
            String::new()
        } else {
            format!("items[{i}]")
        }
    };
    let encoded = encode_all(&state, items, field).await?;
    let stored = keep(&state, collection, encoded).await?;
    Ok(HttpResponse::Ok().json(json!({ "items": stored, "took_ms": took_ms(started) })))
}

/// One object or an array of them, and whether it was one object.
fn items_from_json(sent: &Bytes, limits: &Limits) -> Result<(Vec<NewItem>, bool), ApiError> {
    if sent.iter().find(|byte| !byte.is_ascii_whitespace()) != Some(&b'[') {
        let item = parse::<ItemIn>(sent)?;
        return Ok((vec![NewItem::from_wire(item, limits)?], true));
    }
    let items: Vec<ItemIn> = parse(sent).map_err(|error| error.under("items"))?;
    check_count(items.len(), limits)?;
    let check = |(i, item)| {
        NewItem::from_wire(item, limits).map_err(|error| error.under(&format!("items[{i}]")))
    };
    Ok((
        items
            .into_iter()
            .enumerate()
            .map(check)
            .collect::<Result<_, _>>()?,
        false,
    ))
}

/// Refuses no items and too many.
pub(super) fn check_count(items: usize, limits: &Limits) -> Result<(), ApiError> {
    let message = || format!("{items} items, expected 1 to {}", limits.items);
    if items == 0 {
        return Err(ApiError::invalid("items", message()));
    }
    if items > limits.items {
        return Err(ApiError::TooLarge {
            field: Some("items".into()),
            message: message(),
        });
    }
    Ok(())
}

/// `GET /v1/collections/{collection}/items/{id}`, with `?embeddings=true` for the rows.
pub(crate) async fn get(
    state: Data<AppState>,
    path: Path<(String, String)>,
    request: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    let asked = actix_web::web::Query::<ItemQuery>::from_query(request.query_string())
        .map_err(|error| ApiError::invalid("query string", error.to_string()))?;
    let (name, id) = path.into_inner();
    let collection = state.collection(&name)?;
    let item = query::get(&collection, item_id(id)?).await?;
    let mut out = json!({
        "id": item.id,
        "modality": item.modality,
        "payload": item.payload,
    });
    if let Some(text) = item.text {
        out["text"] = json!(text);
    }
    if asked.embeddings {
        out["embeddings"] = json!({ "shared": item.shared, "specific": item.specific });
    }
    Ok(HttpResponse::Ok().json(out))
}

/// `DELETE /v1/collections/{collection}/items/{id}`
pub(crate) async fn delete(
    state: Data<AppState>,
    path: Path<(String, String)>,
) -> Result<HttpResponse, ApiError> {
    let (name, id) = path.into_inner();
    let collection = state.collection(&name)?;
    let id = item_id(id)?;
    block("deleting an item", move || {
        let deleted = collection.delete(std::slice::from_ref(&id));
        if deleted.map_err(|e| ApiError::engine("deleting an item", e))? == 0 {
            return Err(ApiError::NoItem {
                collection: name,
                id: id.to_string(),
            });
        }
        if let Some(thumbnails) = &state.thumbnails {
            thumbnails.put(collection.name(), &id, None);
        }
        Ok(())
    })
    .await?;
    Ok(HttpResponse::NoContent().finish())
}

/// An id from a path.
pub(super) fn item_id(id: String) -> Result<ItemId, ApiError> {
    ItemId::new(id).map_err(|e| ApiError::engine("reading an id", e))
}
