//! What a search must find, computed in the plainest way.

use std::cmp::Ordering;

use embedding::{Embedding, Modality};
use serde_json::Value;

use super::{
    super::{count, filters, item, spaces},
    agree::{Outcome, same},
    ops::{Model, Search, Sought},
};
use crate::{
    Collection, EngineError, Filter, Hit, Item, ItemId, Page, Query, SearchRequest, Target,
};

/// By how much a score may be off, and so which scores are too near to say which is better.
const ROUNDING: f32 = 1e-5;

/// Searches that find everything.
pub(super) fn all(model: &Model) -> Vec<Search> {
    let sought = [
        Sought::Shared(Target::Both),
        Sought::Specific(Modality::Text),
        Sought::Specific(Modality::Image),
    ];
    let search = |of| {
        [true, false].map(|exact| Search {
            content: 3,
            of,
            k: model.items.len() + 1,
            exact,
            filter: None,
            pages: false,
        })
    };
    sought.into_iter().flat_map(search).collect()
}

/// Compares an answer with what it must be. Gives whether it may have left out something better,
/// and did.
pub(super) fn check(
    collection: &Collection,
    model: &Model,
    search: &Search,
) -> Result<bool, String> {
    let request = request(search);
    let answer = match collection.search(&request) {
        Ok(answer) => answer,
        Err(EngineError::BadFilter { .. }) if !is_declared(search.filter.as_ref(), model) => {
            return Ok(false);
        }
        Err(error) => return Err(format!("a search failed: {error}")),
    };
    if !is_declared(search.filter.as_ref(), model) {
        return Err("a filter on a field that is not declared was taken".into());
    }
    let of_modality = |modality| expected(model, search, &request, modality);
    let expected = Modality::ALL.map(of_modality);
    let wanted = expected.iter().map(Vec::len).sum::<usize>().min(search.k);
    same("hits", &answer.hits.len(), &wanted)?;
    let mut missed = false;
    for (modality, expected) in Modality::ALL.into_iter().zip(&expected) {
        let hits = answer.hits.iter().filter(|hit| hit.modality == modality);
        let hits: Vec<&Hit> = hits.collect();
        missed |= compare(&hits, expected, search.exact)?;
    }
    for hit in &answer.hits {
        let stored = model.items.get(&hit.id);
        same("payload", &Some(&hit.payload), &stored.map(|i| &i.payload))?;
    }
    if search.pages && search.exact {
        pages(collection, &request, model.items.len())?;
    }
    Ok(missed)
}

fn request(search: &Search) -> SearchRequest {
    let content = search.content.to_string();
    let (embedding, space, target) = match search.of {
        Sought::Shared(target) => {
            let query = item("query", Modality::Text, &content);
            (query.shared, spaces().shared(), target)
        }
        Sought::Specific(modality) => {
            let query = item("query", modality, &content);
            let specific = query.specific.expect("every tower here makes one");
            let space = spaces().specific(modality).expect("and has its space");
            (specific, space, Target::Both)
        }
    };
    let query = Query { embedding, space };
    let mut request = SearchRequest::new(query, target, count(search.k));
    request.exact = search.exact;
    let filter = search.filter.as_ref();
    request.filter = filter.map(|filter| Filter::from_json(filter).expect("a filter"));
    request
}

/// Whether all fields that a filter names are declared.
fn is_declared(filter: Option<&Value>, model: &Model) -> bool {
    match filter {
        Some(Value::Array(clauses)) => clauses.iter().all(|c| is_declared(Some(c), model)),
        Some(Value::Object(parts)) => match parts.get("field") {
            Some(name) => {
                let mut declared = model.fields.iter().map(|n| filters::NAMES[*n]);
                declared.any(|declared| name == declared)
            }
            None => parts.values().all(|list| is_declared(Some(list), model)),
        },
        None | Some(_) => true,
    }
}

/// The items of a modality that the search is about, best first, ties by id.
fn expected(
    model: &Model,
    search: &Search,
    request: &SearchRequest,
    modality: Modality,
) -> Vec<(f32, ItemId)> {
    let is_sought = match search.of {
        Sought::Shared(target) => target.includes(modality),
        Sought::Specific(only) => only == modality,
    };
    let row = |item: &Item| -> Option<Embedding> {
        match search.of {
            Sought::Shared(_) => Some(item.shared.clone()),
            Sought::Specific(_) => item.specific.clone(),
        }
    };
    let passes = |item: &&Item| {
        let filter = search.filter.as_ref();
        filter.is_none_or(|filter| filters::says(filter, &item.payload))
    };
    let items = model
        .items
        .values()
        .filter(|item| item.modality == modality);
    let scored = items
        .filter(|_| is_sought)
        .filter(passes)
        .filter_map(|item| {
            let query = &request.parts[0].query.embedding;
            Some((row(item)?.cosine(query), item.id.clone()))
        });
    let mut scored: Vec<(f32, ItemId)> = scored.collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    scored
}

/// Compares the hits of one modality. Those of an exact search are the best; any are right about
/// themselves, and in order.
fn compare(hits: &[&Hit], expected: &[(f32, ItemId)], exact: bool) -> Result<bool, String> {
    let mut missed = false;
    let mut before: Option<(f32, &ItemId)> = None;
    for (i, hit) in hits.iter().enumerate() {
        let own = expected.iter().find(|(_, id)| *id == hit.id);
        let Some((score, id)) = own else {
            return Err(format!("{} must not be found", hit.id));
        };
        if (hit.score.0 - score).abs() > ROUNDING {
            return Err(format!("{id} has score {score}, got {}", hit.score.0));
        }
        if let Some((last, last_id)) = before {
            // Equal rows have equal scores, and others may be too near to tell.
            let in_order = match last.total_cmp(score) {
                Ordering::Equal => last_id < id,
                _ => *score - last <= ROUNDING,
            };
            if !in_order {
                return Err(format!("{id} ({score}) comes after {last_id} ({last})"));
            }
        }
        before = Some((*score, id));
        missed |= expected[i].0 - score > ROUNDING;
    }
    if missed && exact {
        let found: Vec<&ItemId> = hits.iter().map(|hit| &hit.id).collect();
        let best = &expected[..hits.len()];
        return Err(format!("exactly {best:?} are the best, got {found:?}"));
    }
    Ok(missed)
}

/// All pages together are what one search for everything finds.
fn pages(collection: &Collection, request: &SearchRequest, items: usize) -> Outcome {
    let mut whole = request.clone();
    whole.k = count(items + 1);
    let search = |request: &SearchRequest| {
        let answer = collection.search(request);
        answer.map_err(|error| format!("a page failed: {error}"))
    };
    let ids = |hits: &[Hit]| hits.iter().map(|hit| hit.id.clone()).collect::<Vec<_>>();
    let expected = ids(&search(&whole)?.hits);
    let (mut request, mut found) = (request.clone(), Vec::new());
    loop {
        let answer = search(&request)?;
        found.extend(ids(&answer.hits));
        let Some(next) = answer.next else {
            return same("pages together", &found, &expected);
        };
        if answer.hits.is_empty() || found.len() > items {
            return Err(format!("pages do not end: {} items so far", found.len()));
        }
        request.page = Page::After(next);
    }
}
