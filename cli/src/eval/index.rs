//! `diptych eval index`: what the index of a collection finds of what there is, and how fast, on the
//! collection's own items.

use std::{num::NonZeroUsize, time::Instant};

use anyhow::{Context, Result, bail};
use embedding::{Aspect, Modality};
use engine::{
    Collection, EngineConfig, EngineError, Hit, Item, ItemId, Query, SearchRequest, Target,
    metrics::bootstrap,
};
use serde::Serialize;

use super::{
    classes::subset,
    report::{self, Figure, Report},
};
use crate::{
    args::{EvalIndexArgs, Places},
    home::{self, Home},
    output,
    walk::Failure,
};

/// Hits of each search.
const K: NonZeroUsize = NonZeroUsize::new(10).expect("is not 0");
/// Queries of each kind, unless a limit says otherwise.
const QUERIES: NonZeroUsize = NonZeroUsize::new(500).expect("is not 0");
/// Searches before the clock counts.
const WARM_UP: usize = 5;

#[derive(Debug, Serialize)]
struct IndexDetails {
    items: usize,
    /// Candidates that each search kept.
    ef_search: usize,
    lanes: Vec<Lane>,
}

/// One kind of queries, among one kind of items.
#[derive(Debug, Serialize)]
struct Lane {
    /// As the figures are named.
    name: String,
    queries: usize,
    /// Items that are searched.
    items: usize,
    /// Rows that are reached by a graph; the others are compared exactly.
    graph_rows: usize,
    #[serde(rename = "recall@10")]
    recall: Figure,
    approximate: Latency,
    exact: Latency,
}

/// Milliseconds of one search after the other.
#[derive(Debug, Clone, Copy, Serialize)]
struct Latency {
    median_ms: f64,
    p95_ms: f64,
}

/// What is looked for, and among what.
struct Kind {
    name: &'static str,
    from: Modality,
    target: Modality,
    aspect: Aspect,
}

/// Measures and prints.
///
/// # Errors
/// When the collection cannot be read or has too few items.
pub fn run(places: &Places, args: &EvalIndexArgs) -> Result<()> {
    let options = &args.options;
    report::check(options)?;
    // Audits of these very searches would change how many candidates the next ones keep.
    let config = EngineConfig {
        audit_share: 0.0,
        ..EngineConfig::default()
    };
    let own_ef = config.hnsw.ef_search;
    let engine = Home::new(places)?.open_existing_with(config)?;
    let collection = home::find(&engine, &args.collection)?;
    output::note("sealing what is not in the index yet");
    collection.seal().context("the index cannot be completed")?;
    let mut failed = Vec::new();
    let [images, texts] = sampled(&collection, args, &mut failed)?;
    let stats = collection.stats();
    let mut lanes = Vec::new();
    for kind in kinds(&collection) {
        let (queries, items) = match (kind.from, kind.target) {
            (Modality::Image, _) => (&images, stats.images),
            (Modality::Text, Modality::Text) => (&texts, stats.texts),
            (Modality::Text, Modality::Image) => (&texts, stats.images),
        };
        // Without the query itself there must be something to find.
        let least = if kind.from == kind.target { 2 } else { 1 };
        if queries.is_empty() || items < least {
            continue;
        }
        lanes.extend(measure(&collection, &kind, queries, items, args)?);
    }
    if lanes.is_empty() {
        let name = collection.name();
        bail!(
            "collection {name} has {} items, expected at least 2 of a kind",
            stats.items
        );
    }
    let details = IndexDetails {
        items: stats.items,
        ef_search: args.ef_search.map_or(own_ef, usize::from),
        lanes,
    };
    let facts = [
        ("items", output::count(stats.items)),
        ("candidates", output::count(details.ef_search)),
    ];
    let name = collection.name().to_owned();
    let mut report = Report::new("index", name, collection.spaces(), options, details);
    for lane in &report.details.lanes {
        report
            .metrics
            .add(format!("{}_recall@10", lane.name), lane.recall);
    }
    report.failed = failed;
    let rows: Vec<[String; 7]> = report.details.lanes.iter().map(row).collect();
    let header = [
        "queries",
        "of them",
        "items",
        "by graph",
        "median ms",
        "95 percent within ms",
        "exact, median ms",
    ];
    report.finish(options, &facts, |page| page.table("Speed", header, &rows))?;
    if options.json {
        return Ok(());
    }
    Ok(output::table(header, &rows)?)
}

fn kinds(collection: &Collection) -> Vec<Kind> {
    use Modality::{Image, Text};
    let kind = |name, from, target, aspect| Kind {
        name,
        from,
        target,
        aspect,
    };
    let mut kinds = vec![
        kind("image", Image, Image, Aspect::Shared),
        kind("text", Text, Text, Aspect::Shared),
        kind("text_to_image", Text, Image, Aspect::Shared),
    ];
    for (name, modality) in [("specific_image", Image), ("specific_text", Text)] {
        if let Some(space) = collection.spaces().specific(modality) {
            kinds.push(kind(name, modality, modality, space.aspect));
        }
    }
    kinds
}

/// Some images and some texts, as the seed says. What is damaged is a failure.
fn sampled(
    collection: &Collection,
    args: &EvalIndexArgs,
    failed: &mut Vec<Failure>,
) -> Result<[Vec<Item>; 2]> {
    let mut ids: [Vec<ItemId>; 2] = [Vec::new(), Vec::new()];
    let mut fail = |error: EngineError| match &error {
        EngineError::DamagedItem { id, .. } => {
            failed.push(Failure {
                path: id.clone(),
                reason: output::chain(&error),
            });
            Ok(())
        }
        _ => Err(error),
    };
    for meta in collection.metas()? {
        match meta {
            Ok(meta) => ids[usize::from(meta.modality == Modality::Text)].push(meta.id),
            Err(error) => fail(error)?,
        }
    }
    let limit = args.options.limit.unwrap_or(QUERIES);
    let mut sampled = [Vec::new(), Vec::new()];
    for (ids, sampled) in ids.iter().zip(&mut sampled) {
        for i in subset(Some(limit), ids.len(), args.options.seed) {
            match collection.get(&ids[i]) {
                Ok(item) => sampled.extend(item),
                Err(error) => fail(error)?,
            }
        }
    }
    Ok(sampled)
}

/// Searches with each query as usual and exactly, in turns; nothing where no query has such an
/// embedding.
fn measure(
    collection: &Collection,
    kind: &Kind,
    queries: &[Item],
    items: usize,
    args: &EvalIndexArgs,
) -> Result<Option<Lane>> {
    let requests = queries
        .iter()
        .filter_map(|item| request(collection, kind, item, args));
    let requests: Vec<SearchRequest> = requests.collect();
    if requests.is_empty() {
        return Ok(None);
    }
    let bar = output::progress("searching", requests.len());
    let timed = |request: &SearchRequest, exact: bool| -> Result<(Vec<Hit>, f64)> {
        let request = SearchRequest {
            exact,
            ..request.clone()
        };
        let start = Instant::now();
        let hits = collection.search(&request)?.hits;
        Ok((hits, start.elapsed().as_secs_f64() * 1e3))
    };
    for request in requests.iter().take(WARM_UP) {
        timed(request, false)?;
        timed(request, true)?;
    }
    let (mut tallies, mut usual, mut exact) = (Vec::new(), Vec::new(), Vec::new());
    for request in &requests {
        let (found, took) = timed(request, false)?;
        let (truth, took_exactly) = timed(request, true)?;
        usual.push(took);
        exact.push(took_exactly);
        tallies.push((hits(&found, &truth), truth.len()));
        bar.inc(1);
    }
    bar.finish_and_clear();
    let recall = |drawn: &[u32]| {
        let drawn = tallies.iter().zip(drawn);
        let sum = drawn.fold((0.0, 0.0), |(hits, of), (tally, times)| {
            let times = f64::from(*times);
            (hits + times * tally.0 as f64, of + times * tally.1 as f64)
        });
        [sum.0 / sum.1.max(1.0)]
    };
    let [value] = recall(&vec![1; tallies.len()]);
    let all = [(0..tallies.len()).collect()];
    let [drawn] = bootstrap(&all, args.options.seed, recall);
    Ok(Some(Lane {
        name: kind.name.to_owned(),
        queries: requests.len(),
        items,
        graph_rows: collection.graph_rows(kind.target, kind.aspect),
        recall: Figure::drawn(value, drawn, tallies.len()),
        approximate: latency(usual),
        exact: latency(exact),
    }))
}

fn request(
    collection: &Collection,
    kind: &Kind,
    item: &Item,
    args: &EvalIndexArgs,
) -> Option<SearchRequest> {
    let (space, embedding) = match kind.aspect {
        Aspect::Shared => (collection.spaces().shared(), Some(&item.shared)),
        Aspect::Specific(modality) => (
            collection.spaces().specific(modality)?,
            item.specific.as_ref(),
        ),
    };
    let embedding = embedding?.clone();
    let target = match kind.target {
        Modality::Image => Target::Image,
        Modality::Text => Target::Text,
    };
    // Where it cannot be found anyway, leaving it out would have the search look for one hit more.
    let itself = (kind.from == kind.target).then(|| item.id.clone());
    Some(SearchRequest {
        exclude: itself.into_iter().collect(),
        ef_search: args.ef_search.map(usize::from),
        confidence: false,
        ..SearchRequest::new(Query { embedding, space }, target, K)
    })
}

/// How many of the true nearest items were found. Where no better than a true one was left out,
/// another with its very score counts for it.
fn hits(found: &[Hit], truth: &[Hit]) -> usize {
    let last = found.last().filter(|_| found.len() >= truth.len());
    let is_found = |hit: &&Hit| {
        let is_level = last.is_some_and(|last| last.score.0 >= hit.score.0);
        is_level || found.iter().any(|found| found.id == hit.id)
    };
    truth.iter().filter(is_found).count()
}

fn latency(mut ms: Vec<f64>) -> Latency {
    ms.sort_unstable_by(f64::total_cmp);
    let at = |part: f64| {
        let place = (part * ms.len() as f64) as usize;
        ms.get(place.min(ms.len().saturating_sub(1)))
            .copied()
            .unwrap_or(0.0)
    };
    Latency {
        median_ms: at(0.5),
        p95_ms: at(0.95),
    }
}

fn row(lane: &Lane) -> [String; 7] {
    let ms = |ms: f64| format!("{ms:.3}");
    [
        lane.name.clone(),
        lane.queries.to_string(),
        output::count(lane.items),
        output::count(lane.graph_rows),
        ms(lane.approximate.median_ms),
        ms(lane.approximate.p95_ms),
        ms(lane.exact.median_ms),
    ]
}
