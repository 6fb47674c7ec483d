//! One search over the shards of a collection.

use std::num::NonZeroUsize;

use embedding::{Aspect, Modality};
use rayon::prelude::*;

use crate::{
    EngineError, SearchRequest,
    collection::Collection,
    index::SearchParams,
    shard::{Found, View},
};

/// Numbers compared by one search from which the shards are searched in parallel; below, waking
/// other threads takes longer than it saves.
const PARALLEL_NUMBERS: usize = 1 << 21;

/// The `k` nearest items, best first, ties by id.
pub(crate) fn nearest(
    collection: &Collection,
    request: &SearchRequest,
) -> Result<Vec<Found<String>>, EngineError> {
    let views = views(collection, request)?;
    let SearchRequest {
        query,
        k,
        exact,
        exclude,
        ..
    } = request;
    let ef_search = request
        .ef_search
        .unwrap_or(collection.core.config.hnsw.ef_search);
    let params = SearchParams { ef_search };
    // One more, in case the excluded one is among them.
    let wanted = k.saturating_add(usize::from(exclude.is_some()));
    let search = |view: &View| view.search(&query.embedding, wanted, params, *exact);
    let numbers: usize = views
        .iter()
        .map(|view| view.rows() * query.embedding.dim())
        .sum();
    let mut found: Vec<Found<String>> = if views.len() > 1 && numbers >= PARALLEL_NUMBERS {
        views.par_iter().flat_map_iter(search).collect()
    } else {
        views.iter().flat_map(search).collect()
    };
    if let Some(exclude) = exclude {
        found.retain(|found| found.id != exclude.as_str());
    }
    found.sort_unstable_by(Found::rank);
    found.truncate(NonZeroUsize::get(*k));
    Ok(found)
}

/// The shards that a request is about, all as they were at one moment.
fn views(collection: &Collection, request: &SearchRequest) -> Result<Vec<View>, EngineError> {
    let SearchRequest { query, target, .. } = request;
    let spaces = collection.spaces();
    let specific = |modality: &Modality| spaces.specific(*modality);
    let meets_specific = |m: &Modality| specific(m).is_some_and(|s| s.meets(&query.space));
    let aspect = if spaces.shared().meets(&query.space) {
        Aspect::Shared
    } else if let Some(modality) = Modality::ALL.into_iter().find(meets_specific) {
        Aspect::Specific(modality)
    } else {
        return Err(EngineError::AnotherModel {
            collection: collection.name.clone(),
            made_by: spaces.shared().to_string(),
            got: query.space.to_string(),
        });
    };
    if query.embedding.dim() != query.space.dim {
        return Err(EngineError::WrongDim {
            collection: collection.name.clone(),
            aspect,
            expected: query.space.dim,
            got: query.embedding.dim(),
            what: "the query".into(),
        });
    }
    if let Aspect::Specific(modality) = aspect
        && !target.includes(modality)
    {
        return Err(EngineError::NoSuchTarget {
            aspect,
            target: *target,
        });
    }
    let state = collection.state.read();
    let wanted = state
        .shards()
        .filter(|(key, _)| key.aspect == aspect && target.includes(key.modality));
    Ok(wanted.map(|(_, shard)| shard.view.clone()).collect())
}
