//! `GET /v1/collections/{collection}/map`: a collection's items as points of a plane.

use actix_web::{
    HttpRequest, HttpResponse,
    http::header,
    web::{Data, Path},
};
use embedding::Modality;
use engine::MapMethod;
use serde::Deserialize;
use serde_json::json;

use crate::{
    maps::{State, Which},
    query::in_range,
    reply::ApiError,
    state::AppState,
    wire,
};

/// Points of one map.
const MAX_POINTS: usize = 10_000;
/// Seconds after which a map that is computed may be asked for again.
const RETRY_AFTER_S: u64 = 1;

/// What is asked: all of it may be left out.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct MapQuery {
    target: Option<Of>,
    #[serde(default)]
    method: How,
    limit: Option<usize>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Of {
    Image,
    Text,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum How {
    Pca,
    #[default]
    Tsne,
}

/// The map, or 202 and how much of it is done.
pub(crate) async fn map(
    state: Data<AppState>,
    name: Path<String>,
    request: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    let MapQuery {
        target,
        method,
        limit,
    } = wire::query(&request)?;
    let collection = state.collection(&name)?;
    let modality = match target {
        Some(Of::Text) => Modality::Text,
        None if collection.stats().images == 0 => Modality::Text,
        Some(Of::Image) | None => Modality::Image,
    };
    let which = Which {
        modality,
        method: match method {
            How::Pca => MapMethod::Pca,
            How::Tsne => MapMethod::Tsne,
        },
        limit: in_range("limit", limit.unwrap_or(MAX_POINTS), MAX_POINTS)?.get(),
    };
    Ok(match state.maps.get(&state.pools, &collection, which)? {
        State::Progress(progress) => HttpResponse::Accepted()
            .insert_header((header::RETRY_AFTER, RETRY_AFTER_S.to_string()))
            .json(json!({ "progress": progress })),
        State::Done {
            map,
            version,
            current,
        } => HttpResponse::Ok().json(json!({
            "ids": map.ids,
            "xs": map.xs,
            "ys": map.ys,
            "of": map.of,
            "version": version,
            "current": current,
        })),
    })
}
