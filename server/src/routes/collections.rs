//! Collections: made, described, deleted.

use std::sync::Arc;

use actix_web::{
    HttpRequest, HttpResponse,
    web::{Data, Path, Payload},
};
use engine::{Collection, ItemId};

use crate::{
    access::Grant,
    answers::{CalibrationOut, CollectionOut, CollectionsOut},
    body,
    openapi::params::{Demo, Mine},
    reply::ApiError,
    state::{AppState, block},
    wire::{CalibrateIn, CollectionIn, parse},
};

/// Lists all collections.
#[utoipa::path(
    get,
    path = "/v1/collections",
    operation_id = "list_collections",
    tag = "Collections",
    responses((status = 200, description = "All collections.", body = CollectionsOut)),
)]
pub(crate) async fn list(state: Data<AppState>, request: HttpRequest) -> HttpResponse {
    let collections = state.seen_by(&Grant::of(&request));
    let collections = collections.iter().map(describe).collect();
    HttpResponse::Ok().json(CollectionsOut { collections })
}

/// Makes a collection, or declares fields of one.
///
/// Makes it for the model of this server, or finds it made, and declares the fields that it does not
/// have yet; the items that are there are indexed then. The body may be left out.
#[utoipa::path(
    put,
    path = "/v1/collections/{collection}",
    operation_id = "put_collection",
    tag = "Collections",
    params(Mine),
    request_body(content = Option<CollectionIn>, examples(
        ("plain" = (summary = "Without fields", value = json!({}))),
        ("fields" = (summary = "With fields for filters",
            value = json!({"fields": {"by": "keyword", "size": "integer", "added": "datetime"}}))),
    )),
    responses(
        (status = 200, description = "It was there.", body = CollectionOut),
        (status = 201, description = "It was made.", body = CollectionOut),
    ),
)]
pub(crate) async fn put(
    state: Data<AppState>,
    name: Path<String>,
    request: HttpRequest,
    payload: Payload,
) -> Result<HttpResponse, ApiError> {
    let sent = body::read_json(&request, payload, &state).await?.bytes;
    let CollectionIn { fields } = parse(&sent)?;
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

/// Shows a collection.
#[utoipa::path(
    get,
    path = "/v1/collections/{collection}",
    operation_id = "get_collection",
    tag = "Collections",
    params(Demo),
    responses((status = 200, description = "The collection.", body = CollectionOut)),
)]
pub(crate) async fn get(
    state: Data<AppState>,
    name: Path<String>,
) -> Result<HttpResponse, ApiError> {
    Ok(HttpResponse::Ok().json(describe(&state.collection(&name)?)))
}

/// Removes a collection with all that is in it.
///
/// Its snapshots stay.
#[utoipa::path(
    delete,
    path = "/v1/collections/{collection}",
    operation_id = "delete_collection",
    tag = "Collections",
    params(Mine),
    responses((status = 204, description = "It is gone.")),
)]
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

/// Fits what the confidence of hits rests on.
///
/// On pairs of a text and an image that belong together, or, where none are given, on those that the
/// collection's own items suggest; what tells worse than before is not used. The body may be left out.
#[utoipa::path(
    post,
    path = "/v1/collections/{collection}/calibrate",
    operation_id = "calibrate",
    tag = "Collections",
    params(Demo),
    request_body(content = Option<CalibrateIn>, examples(
        ("itself" = (summary = "On pairs that the items suggest", value = json!({}))),
    )),
    responses((status = 200, description = "What is in force, and how good it is.", body = CalibrationOut)),
)]
pub(crate) async fn calibrate(
    state: Data<AppState>,
    name: Path<String>,
    request: HttpRequest,
    payload: Payload,
) -> Result<HttpResponse, ApiError> {
    let sent = body::read_json(&request, payload, &state).await?.bytes;
    let collection = state.collection(&name)?;
    let CalibrateIn { pairs } = parse(&sent)?;
    let report = block("calibrating", move || {
        let failed = |e| ApiError::engine("calibrating", e);
        let pair = |(query, item): (String, String)| Ok((ItemId::new(query)?, ItemId::new(item)?));
        let pairs = pairs.map(|pairs| pairs.into_iter().map(pair).collect::<Result<Vec<_>, _>>());
        let pairs = pairs.transpose().map_err(failed)?;
        collection.calibrate(pairs.as_deref()).map_err(failed)
    })
    .await?;
    Ok(HttpResponse::Ok().json(CalibrationOut {
        calibration: report.directions,
    }))
}

/// What is said of a collection.
pub(super) fn describe(collection: &Arc<Collection>) -> CollectionOut {
    CollectionOut {
        name: collection.name().to_owned(),
        spaces: collection.spaces().clone(),
        fields: collection.fields(),
        calibration: collection.calibration().directions,
        recall: collection.recall(),
        stats: collection.stats(),
    }
}
