//! One search over the shards of a collection.

use std::num::NonZeroUsize;

use embedding::{Aspect, Modality};
use rayon::prelude::*;

use crate::{
    EngineError, Filter, SearchRequest, ShardPlan,
    collection::Collection,
    filter::checked::Checked,
    index::SearchParams,
    shard::{Answer, Found, ShardKey, View, Wanted},
};

/// Numbers compared by one search from which the shards are searched in parallel; below, waking
/// other threads takes longer than it saves.
const PARALLEL_NUMBERS: usize = 1 << 21;

/// The nearest items of a request.
pub(crate) struct Nearest {
    /// Best first, ties by id.
    pub(crate) found: Vec<Found<String>>,
    /// What their payloads must pass.
    pub(crate) filter: Option<Checked>,
}

/// The `k` nearest items.
pub(crate) fn nearest(
    collection: &Collection,
    request: &SearchRequest,
) -> Result<Nearest, EngineError> {
    if request.filter.is_some() {
        return Ok(filtered(collection, request, Explain::No)?.0);
    }
    let SearchRequest { query, exact, .. } = request;
    let params = params(collection, request);
    let search = |(_, view): &(ShardKey, View)| {
        view.search(&query.embedding, wanted(request), params, *exact)
    };
    let found = loop {
        let views = views(collection, request)?;
        let found: Vec<Found<String>> = if is_parallel(&views, request) {
            views.par_iter().flat_map_iter(search).collect()
        } else {
            views.iter().flat_map(search).collect()
        };
        if is_sound(collection, &views)? {
            break found;
        }
    };
    let (found, filter) = (best(found, request), None);
    Ok(Nearest { found, filter })
}

/// Whether what was found in these shards counts. Where a row that a search may have met turned out
/// to be damaged it does not, and the shards are put right.
fn is_sound(collection: &Collection, views: &[(ShardKey, View)]) -> Result<bool, EngineError> {
    let bad = views
        .iter()
        .filter(|(_, view)| view.bad_rows().next().is_some());
    let bad: Vec<ShardKey> = bad.map(|(key, _)| *key).collect();
    if !bad.is_empty() {
        collection.repair(&bad)?;
    }
    Ok(bad.is_empty())
}

/// The same, how many items match, and what was done in each shard.
pub(crate) fn explained(
    collection: &Collection,
    request: &SearchRequest,
) -> Result<(Nearest, u64, Vec<ShardPlan>), EngineError> {
    filtered(collection, request, Explain::Yes)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Explain {
    Yes,
    No,
}

/// A search among the items that pass the request's filter; without one all do.
fn filtered(
    collection: &Collection,
    request: &SearchRequest,
    explain: Explain,
) -> Result<(Nearest, u64, Vec<ShardPlan>), EngineError> {
    let everything = Filter::default();
    let filter = request.filter.as_ref().unwrap_or(&everything);
    let filter = collection.check_filter(filter)?;
    let (answers, matching) = loop {
        // Before the filter is evaluated: an ordinal that changes hands between the two then belongs
        // to a row that is not looked at.
        let views = views(collection, request)?;
        let matching = collection.matching(&filter)?;
        let asked = Wanted {
            query: &request.query.embedding,
            k: wanted(request),
            params: params(collection, request),
            exact: request.exact,
            matching: &matching,
            explain: explain == Explain::Yes,
        };
        let search = |(key, view): &(ShardKey, View)| view.search_matching(&asked, key.to_string());
        let answers: Vec<Answer> = if is_parallel(&views, request) {
            views.par_iter().map(search).collect()
        } else {
            views.iter().map(search).collect()
        };
        if is_sound(collection, &views)? {
            break (answers, matching.len());
        }
    };
    let (found, plans): (Vec<_>, Vec<_>) = answers.into_iter().map(|a| (a.found, a.plan)).unzip();
    let nearest = Nearest {
        found: best(found.into_iter().flatten().collect(), request),
        filter: Some(filter),
    };
    Ok((nearest, matching, plans))
}

fn params(collection: &Collection, request: &SearchRequest) -> SearchParams {
    let ef_search = request
        .ef_search
        .unwrap_or(collection.core.config.hnsw.ef_search);
    SearchParams { ef_search }
}

/// One more, in case the excluded one is among them.
fn wanted(request: &SearchRequest) -> NonZeroUsize {
    let one_more = usize::from(request.exclude.is_some());
    request.k.saturating_add(one_more)
}

fn is_parallel(views: &[(ShardKey, View)], request: &SearchRequest) -> bool {
    let dim = request.query.embedding.dim();
    let numbers: usize = views.iter().map(|(_, view)| view.rows() * dim).sum();
    views.len() > 1 && numbers >= PARALLEL_NUMBERS
}

fn best(mut found: Vec<Found<String>>, request: &SearchRequest) -> Vec<Found<String>> {
    if let Some(exclude) = &request.exclude {
        found.retain(|found| found.id != exclude.as_str());
    }
    found.sort_unstable_by(Found::rank);
    found.truncate(request.k.get());
    found
}

/// The shards that a request is about, all as they were at one moment.
fn views(
    collection: &Collection,
    request: &SearchRequest,
) -> Result<Vec<(ShardKey, View)>, EngineError> {
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
    Ok(wanted
        .map(|(key, shard)| (key, shard.view.clone()))
        .collect())
}
