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
use utoipa::{IntoParams, ToSchema};

use crate::{
    maps::{State, Which},
    openapi::{
        learning::{MapOut, ProgressOut},
        params::Demo,
    },
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
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct MapQuery {
    /// Pictures or texts; pictures where there are any.
    #[param(inline)]
    target: Option<Of>,
    /// Principal components, or t-SNE.
    #[serde(default)]
    #[param(required = false, inline)]
    method: How,
    /// Points, at most 10,000.
    #[param(minimum = 1, maximum = 10000)]
    limit: Option<usize>,
}

#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[schema(as = MapTarget)]
#[serde(rename_all = "lowercase")]
enum Of {
    Image,
    Text,
}

#[derive(Debug, Clone, Copy, Default, Deserialize, ToSchema)]
#[schema(as = MapMethod)]
#[serde(rename_all = "lowercase")]
enum How {
    Pca,
    #[default]
    Tsne,
}

/// Lays the items of a collection out on a plane.
///
/// Computed in the background when it is first asked for: 202 tells how much of it is done.
#[utoipa::path(
    get,
    path = "/v1/collections/{collection}/map",
    operation_id = "map",
    tag = "Search",
    params(Demo, MapQuery),
    responses((status = 200, description = "The map.", body = MapOut), (status = 202, description = "It is being computed: ask again after `Retry-After`.", body = ProgressOut)),
)]
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
