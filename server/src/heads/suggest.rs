//! Which items to label next.

use std::sync::Arc;

use engine::{Collection, Filter, SuggestRequest};
use serde_json::{Value, json};

use super::{describe::predictions, wire::SuggestIn};
use crate::{
    query::in_range,
    reply::ApiError,
    state::{AppState, block},
};

/// Items of a request that does not say how many.
const DEFAULT_K: usize = 20;
/// Labels that are said of each.
const LABELS: usize = 5;

/// The items whose label would help most.
pub(crate) async fn suggest(
    state: &AppState,
    collection: Arc<Collection>,
    name: String,
    wire: SuggestIn,
) -> Result<Value, ApiError> {
    let k = in_range("k", wire.k.unwrap_or(DEFAULT_K), state.limits.k)?.get();
    let filter = wire.filter.as_ref().map(Filter::from_json).transpose();
    let filter = filter.map_err(|e| ApiError::engine("reading a filter", e))?;
    block("suggesting", move || {
        let failed = |e| ApiError::engine("suggesting", e);
        let (version, kept) = collection.head(&name, wire.version).map_err(failed)?;
        let request = SuggestRequest {
            k,
            strategy: wire.strategy,
            filter: filter.as_ref(),
        };
        let suggested = collection.suggest(&kept, &request).map_err(failed)?;
        let each = suggested.items.iter().map(|one| {
            json!({
                "id": one.id,
                "uncertainty": one.uncertainty,
                "labels": predictions(&one.predictions, LABELS),
            })
        });
        Ok(json!({
            "items": each.collect::<Vec<Value>>(),
            "version": version,
            "looked_at": suggested.looked_at,
            "cut_short": suggested.is_cut_short,
        }))
    })
    .await
}
