//! Collections: made, described, deleted.

use std::sync::Arc;

use actix_web::{
    HttpRequest, HttpResponse,
    web::{Data, Path, Payload},
};
use engine::{Collection, ItemId};
use serde_json::{Value, json};

use crate::{
    access::Grant,
    body,
    reply::ApiError,
    state::{AppState, block},
    wire::{CalibrateIn, CollectionIn, parse},
};

/// `GET /v1/collections`
pub(crate) async fn list(state: Data<AppState>, request: HttpRequest) -> HttpResponse {
    let collections = state.seen_by(&Grant::of(&request));
    let collections: Vec<_> = collections.iter().map(describe).collect();
    HttpResponse::Ok().json(json!({ "collections": collections }))
}

/// `PUT /v1/collections/{collection}`: makes it for the model of this server, or finds it made, and
/// declares the fields that it does not have yet.
pub(crate) async fn put(
    state: Data<AppState>,
    name: Path<String>,
    request: HttpRequest,
    payload: Payload,
) -> Result<HttpResponse, ApiError> {
    let sent = body::read(&request, payload, &state).await?.bytes;
    let CollectionIn { fields } = if sent.is_empty() {
        CollectionIn::default()
    } else {
        if body::media_type(&request) != "application/json" {
            return Err(body::unsupported(&request, "application/json"));
        }
        parse(&sent)?
    };
    let name = name.into_inner();
    let (known, collection) = block("making a collection", move || {
        let known = state.engine.collection(&name).is_some();
        let collection = state
            .engine
            .create_with_fields(&name, &state.model.spaces, &fields);
        Ok((
            known,
            collection.map_err(|e| ApiError::engine("making a collection", e))?,
        ))
    })
    .await?;
    let mut reply = if known {
        HttpResponse::Ok()
    } else {
        HttpResponse::Created()
    };
    Ok(reply.json(describe(&collection)))
}

/// `GET /v1/collections/{collection}`
pub(crate) async fn get(
    state: Data<AppState>,
    name: Path<String>,
) -> Result<HttpResponse, ApiError> {
    Ok(HttpResponse::Ok().json(describe(&state.collection(&name)?)))
}

/// `DELETE /v1/collections/{collection}`
pub(crate) async fn delete(
    state: Data<AppState>,
    name: Path<String>,
) -> Result<HttpResponse, ApiError> {
    let name = name.into_inner();
    block("deleting a collection", move || {
        // Only the name of a collection that exists may become part of a path.
        state.collection(&name)?;
        let deleted = state.engine.delete(&name);
        if !deleted.map_err(|e| ApiError::engine("deleting a collection", e))? {
            return Err(ApiError::NoCollection { name });
        }
        if let Some(thumbnails) = &state.thumbnails {
            thumbnails.remove_collection(&name);
        }
        Ok(())
    })
    .await?;
    Ok(HttpResponse::NoContent().finish())
}

/// `POST /v1/collections/{collection}/calibrate`: fits what the confidence of hits rests on.
pub(crate) async fn calibrate(
    state: Data<AppState>,
    name: Path<String>,
    request: HttpRequest,
    payload: Payload,
) -> Result<HttpResponse, ApiError> {
    let sent = body::read(&request, payload, &state).await?.bytes;
    let collection = state.collection(&name)?;
    let CalibrateIn { pairs } = if sent.is_empty() {
        CalibrateIn::default()
    } else {
        if body::media_type(&request) != "application/json" {
            return Err(body::unsupported(&request, "application/json"));
        }
        parse(&sent)?
    };
    let report = block("calibrating", move || {
        let failed = |e| ApiError::engine("calibrating", e);
        let pair = |(query, item): (String, String)| Ok((ItemId::new(query)?, ItemId::new(item)?));
        let pairs = pairs.map(|pairs| pairs.into_iter().map(pair).collect::<Result<Vec<_>, _>>());
        let pairs = pairs.transpose().map_err(failed)?;
        collection.calibrate(pairs.as_deref()).map_err(failed)
    })
    .await?;
    Ok(HttpResponse::Ok().json(json!({ "calibration": report.directions })))
}

/// What is said of a collection.
pub(super) fn describe(collection: &Arc<Collection>) -> Value {
    json!({
        "name": collection.name(),
        "spaces": collection.spaces(),
        "fields": collection.fields(),
        "calibration": collection.calibration().directions,
        "recall": collection.recall(),
        "stats": collection.stats(),
    })
}
