//! Items: added, read, changed, deleted.

use std::{sync::Arc, time::Instant};

use actix_web::{
    HttpRequest, HttpResponse,
    web::{Data, Path, Payload},
};
use bytes::Bytes;
use engine::{
    Collection, Durability, Filter, ItemId, ItemWrite, ListRequest, Listing, PayloadChange,
};

use super::{
    form,
    stream::{self, Destination},
    took_ms,
};
use crate::{
    answers::{ChangedOut, EmbeddingsOfItemOut, ItemOut, ListOut, Status, StoredOut, WrittenOut},
    body,
    config::Limits,
    ingest::{self, NewItem, encode_all, keep},
    openapi::{
        examples::PICTURE,
        params::{Demo, DemoItem, Mine, MyItem},
    },
    query,
    reply::ApiError,
    state::{AppState, Caller, block},
    tower::Client,
    wire::{
        self, DeleteQuery, FormIn, ItemIn, ItemQuery, ItemsIn, ListQuery, Object, PatchIn,
        WriteQuery, parse, parse_value,
    },
};

/// Says how durable a write is whose answer has no body.
const DURABILITY: &str = "x-durability";

/// What `POST .../items` reads.
const KINDS: &str = "application/json, application/x-ndjson or multipart/form-data";

/// Adds items, or replaces those of the same ids.
///
/// JSON (one item or an array) and forms are kept all or nothing. Each line of NDJSON is an item of
/// its own, answered by a line `{"line", "id", "status", "version", "durability"}` or
/// `{"line", "error"}` in the order of the lines, while more comes in; a line without a number is
/// about the stream itself, which ends there. A form has picture files, each after its `id`, `payload`
/// (JSON) and `if_version` if it has them: `curl -F id=b -F picture=@cat.jpg`.
#[utoipa::path(
    post,
    path = "/v1/collections/{collection}/items",
    operation_id = "add_items",
    tag = "Items",
    params(Mine, WriteQuery),
    request_body(content(
        (ItemsIn = "application/json", examples(
            ("text" = (summary = "A text", value = json!(
                {"id": "a", "text": "a red bicycle", "payload": {"by": "me"}}
            ))),
            ("many" = (summary = "A picture and a text", value = json!([
                {"id": "b", "image": PICTURE, "payload": {"name": "red square"}},
                {"text": "a boat"},
            ]))),
            ("new" = (summary = "Only if it is not there", value = json!(
                {"id": "only-once", "text": "a lighthouse", "if_version": 0}
            ))),
        )),
        (String = "application/x-ndjson", examples(
            ("lines" = (summary = "Two lines", value = json!(
                "{\"id\": \"c\", \"text\": \"a kite\"}\n{\"id\": \"d\", \"text\": \"a tent\"}\n"
            ))),
        )),
        (FormIn = "multipart/form-data"),
    )),
    responses((status = 200, description = "What became of each item.", content(
        (WrittenOut = "application/json"),
        (String = "application/x-ndjson"),
    ))),
)]
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
    Ok(HttpResponse::Ok().json(WrittenOut {
        items: written.outcomes,
        durability: written.durability,
        took_ms: took_ms(started),
    }))
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

/// Items of a page.
const MAX_LISTED: usize = 1000;

/// Lists items in the order of their ids, a page at a time.
///
/// With a filter, those that pass. A page looks at 20,000 items and holds 8 MiB of payloads and texts, at most.
#[utoipa::path(
    get,
    path = "/v1/collections/{collection}/items",
    operation_id = "list_items",
    tag = "Items",
    params(Demo, ListQuery),
    responses((status = 200, description = "A page.", body = ListOut)),
)]
pub(crate) async fn list(
    state: Data<AppState>,
    name: Path<String>,
    request: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    let ListQuery {
        filter,
        modality,
        limit,
        after,
    } = wire::query(&request)?;
    let collection = state.collection(&name)?;
    let limit = query::in_range("limit", limit, MAX_LISTED)?;
    let filter = filter.map(|json| {
        let value = serde_json::from_str(&json)
            .map_err(|error| ApiError::invalid("filter", format!("this is no JSON: {error}")))?;
        Filter::from_json(&value).map_err(|e| ApiError::engine("reading a filter", e))
    });
    let after = after.map(item_id);
    let asked = ListRequest {
        after: after.transpose().map_err(|error| error.at("after"))?,
        filter: filter.transpose()?,
        modality,
    };
    let turn = state.search_turn().await?;
    let listing = block("listing items", move || {
        let _turn = turn;
        let listing = collection.list(&asked, limit);
        listing.map_err(|e| ApiError::engine("listing items", e))
    });
    let Listing { items, next } = listing.await?;
    let items = items.into_iter().map(|item| ItemOut {
        id: item.id,
        version: item.version,
        modality: item.modality,
        payload: item.payload,
        text: item.text,
        embeddings: None,
    });
    Ok(HttpResponse::Ok().json(ListOut {
        items: items.collect(),
        next,
    }))
}

/// Shows an item.
#[utoipa::path(
    get,
    path = "/v1/collections/{collection}/items/{id}",
    operation_id = "get_item",
    tag = "Items",
    params(DemoItem, ItemQuery),
    responses((status = 200, description = "The item.", body = ItemOut)),
)]
pub(crate) async fn get(
    state: Data<AppState>,
    path: Path<(String, String)>,
    request: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    let asked: ItemQuery = wire::query(&request)?;
    let (name, id) = path.into_inner();
    let collection = state.collection(&name)?;
    let (item, version) = query::get(&collection, item_id(id)?).await?;
    let embeddings = asked.embeddings.then_some(EmbeddingsOfItemOut {
        shared: item.shared,
        specific: item.specific,
    });
    Ok(HttpResponse::Ok().json(ItemOut {
        id: item.id,
        version,
        modality: item.modality,
        payload: item.payload,
        text: item.text,
        embeddings,
    }))
}

/// Changes the payload of an item, and nothing else.
///
/// Nothing is encoded; filters find the new values at once.
#[utoipa::path(
    patch,
    path = "/v1/collections/{collection}/items/{id}",
    operation_id = "patch_item",
    tag = "Items",
    params(MyItem, WriteQuery),
    request_body(content = PatchIn, examples(
        ("merge" = (summary = "Sets one field and removes another",
            value = json!({"payload": {"sold": true, "by": null}}))),
    )),
    responses((status = 200, description = "What became of it.", body = ChangedOut)),
)]
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
    Ok(HttpResponse::Ok().json(ChangedOut::new(stored, durability)))
}

/// Removes an item.
#[utoipa::path(
    delete,
    path = "/v1/collections/{collection}/items/{id}",
    operation_id = "delete_item",
    tag = "Items",
    params(MyItem, DeleteQuery),
    responses((status = 204, description = "It is gone.", headers(
        ("x-durability" = inline(crate::openapi::twins::Durability), description = "How durable the removal is."),
    ))),
)]
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
