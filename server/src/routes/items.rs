//! Items: added, read, changed, deleted.

use std::{sync::Arc, time::Instant};

use actix_web::{
    HttpRequest, HttpResponse,
    web::{Data, Path, Payload},
};
use bytes::Bytes;
use engine::{Collection, Durability, ItemId, ItemWrite, PayloadChange};
use serde_json::{Value, json};

use super::{
    form,
    stream::{self, Destination},
    took_ms,
};
use crate::{
    body,
    config::Limits,
    ingest::{self, NewItem, encode_all, keep},
    query,
    reply::ApiError,
    state::{AppState, Caller, block},
    tower::Client,
    wire::{
        self, DeleteQuery, ItemIn, ItemQuery, Object, PatchIn, Status, StoredOut, WriteQuery,
        parse, parse_value,
    },
};

/// Says how durable a write is whose answer has no body.
const DURABILITY: &str = "x-durability";

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
    let WriteQuery { durability } = wire::query(&request)?;
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
    let client = Client::of(&request);
    // The room is held until the items are kept.
    let (items, single, _room) = match kind.as_str() {
        "application/x-ndjson" => {
            let into = Destination {
                collection,
                durability,
                client,
            };
            return Ok(stream::stream(state, into, payload));
        }
        "application/json" => {
            let sent = body::read(&request, payload, &state).await?;
            let limits = state.limits.clone();
            let read = move || {
                let (items, single) = items_from_json(&sent.bytes, &limits)?;
                Ok((items, single, sent.room))
            };
            state.pools.read("reading items", read).await?
        }
        _ => {
            let (items, room) = form::read(&request, payload, &state).await?;
            (items, false, room)
        }
    };
    let field = move |i: usize| {
        if single {
            String::new()
        } else {
            format!("items[{i}]")
        }
    };
    let caller = Caller {
        state: &state,
        client,
    };
    let encoded = encode_all(caller, items, field).await?;
    let written = keep(&state, collection, encoded, durability, field).await?;
    Ok(HttpResponse::Ok().json(json!({
        "items": written.outcomes,
        "durability": written.durability,
        "took_ms": took_ms(started),
    })))
}

/// What became of an item that was written alone.
pub(super) fn with_durability(stored: &StoredOut, durability: Durability) -> Value {
    let mut out = json!(stored);
    out["durability"] = json!(durability);
    out
}

/// One object or an array of them, and whether it was one object.
fn items_from_json(sent: &Bytes, limits: &Limits) -> Result<(Vec<NewItem>, bool), ApiError> {
    if sent.iter().find(|byte| !byte.is_ascii_whitespace()) != Some(&b'[') {
        let item = parse::<ItemIn>(sent)?;
        return Ok((vec![NewItem::from_wire(item, limits)?], true));
    }
    let items: Vec<Object<ItemIn>> = parse_value(sent).map_err(|error| error.under("items"))?;
    check_count(items.len(), limits)?;
    let check = |(i, Object(item))| {
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
    let asked: ItemQuery = wire::query(&request)?;
    let (name, id) = path.into_inner();
    let collection = state.collection(&name)?;
    let (item, version) = query::get(&collection, item_id(id)?).await?;
    let mut out = json!({
        "id": item.id,
        "version": version,
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

/// `PATCH /v1/collections/{collection}/items/{id}`: changes the payload and nothing else.
pub(crate) async fn patch(
    state: Data<AppState>,
    path: Path<(String, String)>,
    request: HttpRequest,
    payload: Payload,
) -> Result<HttpResponse, ApiError> {
    let WriteQuery { durability } = wire::query(&request)?;
    let (name, id) = path.into_inner();
    let sent = body::read_json(&request, payload, &state).await?;
    let (collection, id) = (state.collection(&name)?, item_id(id)?);
    let (stored, durability) = block("changing an item", move || {
        let PatchIn {
            payload,
            if_version,
        } = parse(&sent.bytes)?;
        let change = ItemWrite::payload(id.clone(), PayloadChange::Merge(payload));
        let write = change.if_version(if_version);
        write_one(&state, &collection, write, durability)
    })
    .await?;
    Ok(HttpResponse::Ok().json(with_durability(&stored, durability)))
}

/// `DELETE /v1/collections/{collection}/items/{id}`, with `?if_version=` for its version.
pub(crate) async fn delete(
    state: Data<AppState>,
    path: Path<(String, String)>,
    request: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    let DeleteQuery {
        if_version,
        durability,
    } = wire::query(&request)?;
    let (name, id) = path.into_inner();
    let collection = state.collection(&name)?;
    let id = item_id(id)?;
    let durability = block("deleting an item", move || {
        let write = ItemWrite::delete(id.clone()).if_version(if_version);
        let (stored, durability) = write_one(&state, &collection, write, durability)?;
        if stored.status == Status::NotThere {
            return Err(ApiError::NoItem {
                collection: name,
                id: stored.id,
            });
        }
        if let Some(thumbnails) = &state.thumbnails {
            thumbnails.put(collection.name(), &id, None);
        }
        Ok(durability)
    })
    .await?;
    Ok(HttpResponse::NoContent()
        .insert_header((DURABILITY, durability.to_string()))
        .finish())
}

fn write_one(
    state: &AppState,
    collection: &Arc<Collection>,
    write: ItemWrite,
    durability: Durability,
) -> Result<(StoredOut, Durability), ApiError> {
    let id = write.id().to_string();
    let written = collection.write(vec![write], ingest::options(state, durability));
    let written = written.map_err(|e| ApiError::engine("writing an item", e))?;
    let outcome = written.outcomes.first().copied();
    let outcome = outcome.ok_or(ApiError::Internal {
        doing: "writing an item",
        source: None,
    })?;
    Ok((StoredOut::new(id, outcome), written.durability))
}

/// An id from a path.
pub(super) fn item_id(id: String) -> Result<ItemId, ApiError> {
    ItemId::new(id).map_err(|e| ApiError::engine("reading an id", e))
}
