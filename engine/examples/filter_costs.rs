//! Measures what the plans of filtered searches cost: the constants of `engine/src/filter/plan.rs`,
//! and what evaluating filters on a field with as many distinct values as items takes.
//!
//! `cargo run --release -p engine --example filter_costs -- [ROWS] [LINKED] [ITEMS]`: rows that
//! are compared (default 100,000), rows that are linked in a graph (default 30,000), and items with a
//! distinct number each (default 100,000).
//! Each figure is the least of several rounds, so that other work on the machine counts little.

#![allow(clippy::print_stdout)]

use std::{num::NonZeroUsize, sync::Arc, time::Instant};

use embedding::{Embedding, Encoder, HashEncoder, Modality, Spaces, mix};
use engine::{
    Collection, Engine, EngineConfig, EngineError, FieldKind, Fields, Filter, Item, ItemId, Plan,
    Query, SearchRequest, Target,
    index::{Coded, Index, Live, Rows, SearchParams},
};
use serde_json::json;

const ROUNDS: usize = 60;
const SEED: u64 = 1;
/// How many of a thousand items pass. Below 60 a walk asks of each node whether it matches.
const PER_MILLE: [u64; 6] = [1000, 500, 200, 100, 60, 10];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut sizes = std::env::args().skip(1);
    let mut size = |default: usize| sizes.next().map_or(Ok(default), |size| size.parse());
    let (rows, linked, items) = (size(100_000)?, size(30_000)?, size(100_000)?);
    for dim in [64, 512] {
        scans(rows, dim);
    }
    for dim in [64, 512] {
        graph(linked, dim)?;
    }
    let dir = std::env::temp_dir().join(format!("filter-costs-{}", std::process::id()));
    let on_disk = Engine::open(&dir, EngineConfig::default())?;
    distinct_values(&on_disk, "on disk", items)?;
    drop(on_disk);
    std::fs::remove_dir_all(&dir)?;
    Ok(())
}

/// The least time of a call, in nanoseconds.
fn least_ns<T>(mut call: impl FnMut() -> T) -> f64 {
    let mut least = f64::INFINITY;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        std::hint::black_box(call());
        least = least.min(start.elapsed().as_secs_f64() * 1e9);
    }
    least
}

fn unit(seed: u64, dim: usize) -> Embedding {
    let number = |i: usize| mix(seed ^ mix(i as u64)) as f32 / u64::MAX as f32 - 0.5;
    Embedding::normalized((0..dim).map(number).collect()).expect("has a direction")
}

fn scans(len: usize, dim: usize) {
    let mut rows = Rows::with_capacity(dim, len);
    (0..len).for_each(|i| rows.push(unit(SEED + i as u64, dim).as_slice()));
    let (query, coded) = (unit(0, dim), Coded::new(Arc::new(rows)));
    let (k, params) = (
        NonZeroUsize::new(10).expect("not zero"),
        SearchParams { ef_search: 1 },
    );
    let per_row = |ns: f64| ns / len as f64;
    let all = || coded.search(&query, k, &params, Live::all(len));
    let in_order = per_row(least_ns(all));
    // Others each time, so that they are not in the nearest caches from the time before.
    let mut scattered: Vec<u32> = (0..len as u32).collect();
    scattered.sort_by_key(|row| mix(u64::from(*row)));
    let mut parts = scattered.chunks_exact(len.min(1000)).cycle();
    let mut part = || coded.search_rows(&query, k, parts.next().expect("a cycle has no end"));
    part();
    let scattered = least_ns(part) / len.min(1000) as f64;
    let eight: Vec<Embedding> = (0..8).map(|i| unit(u64::MAX - i, dim)).collect();
    let eight: Vec<&Embedding> = eight.iter().collect();
    let together = || coded.search_batch(&eight, k, Live::all(len));
    let together = per_row(least_ns(together)) / 8.0;
    println!(
        "dim {dim}: compare {in_order:.1} ns, of eight queries at once {together:.1} ns, \
         jump {:.1} ns",
        scattered - in_order
    );
}

type Made = (Engine, Arc<Collection>, Spaces);

fn engine_with(dim: usize) -> Result<Made, EngineError> {
    let spaces = Encoder::<&str>::spaces(&HashEncoder::new(Modality::Text, dim)).clone();
    let config = EngineConfig {
        shards: NonZeroUsize::new(1),
        seal_rows: usize::MAX,
        audit_share: 0.0,
        ..EngineConfig::default()
    };
    let engine = Engine::in_memory(config);
    let fields = Fields::new(PER_MILLE.map(|n| (field(n), FieldKind::Bool)))?;
    let collection = engine.create_with_fields("c", &spaces, &fields)?;
    Ok((engine, collection, spaces))
}

/// A field of its own for each part of the items: evaluating its filter takes hardly any time.
fn field(per_mille: u64) -> String {
    format!("n{per_mille}")
}

/// What a walk costs for each node that it compares and each candidate that it keeps, and finding
/// the rows of ordinals.
fn graph(len: usize, dim: usize) -> Result<(), Box<dyn std::error::Error>> {
    let (_engine, collection, spaces) = engine_with(dim)?;
    for start in (0..len).step_by(1000) {
        let items = (start..len.min(start + 1000)).map(|i| {
            let id = ItemId::new(i.to_string())?;
            let mut item = Item::new(id, Modality::Text, unit(SEED + i as u64, dim));
            let number = mix(i as u64) % 1000;
            for per_mille in PER_MILLE {
                let is_in = number < per_mille;
                item.payload.insert(field(per_mille), json!(is_in));
            }
            Ok(item)
        });
        collection.upsert(items.collect::<Result<_, EngineError>>()?)?;
    }
    collection.seal()?;
    println!("graph of {len} rows of dim {dim}:");
    for per_mille in PER_MILLE {
        let (mut distances, mut walk_ns, mut candidates) = (0, 0.0, 0);
        let (mut scan_ns, mut all_ns, mut matching) = (0.0, 0.0, 0);
        for i in 0..20 {
            let query = Query {
                embedding: unit(u64::MAX - i, dim),
                space: spaces.shared(),
            };
            let mut request = SearchRequest::new(query, Target::Text, NonZeroUsize::MIN);
            let filter = json!({ "must": [{ "field": field(per_mille), "eq": true }] });
            request.filter = Some(Filter::from_json(&filter)?);
            // So few that they are but a small part of all rows.
            request.ef_search = Some(32);
            let plan = collection
                .search_by(&request, Some(Plan::Graph))?
                .shards
                .remove(0);
            distances += plan.distances;
            candidates += plan.ef_search;
            matching += plan.estimated_matching;
            let by = |plan| least_ns(|| collection.search_by(&request, Some(plan)));
            walk_ns += by(Plan::Graph);
            scan_ns += by(Plan::ScanMatching);
            all_ns += by(Plan::ScanAll);
        }
        let part = matching as f64 / (20 * len) as f64;
        println!(
            "  {per_mille} per mille: {:.1} ns per distance, {:.1} distances per candidate; \
             scan {:.1} ns per matching row, of all {:.1} ns per row",
            walk_ns / f64::from(distances as u32),
            distances as f64 / (candidates as f64 / part),
            scan_ns / matching as f64,
            all_ns / (20 * len) as f64
        );
    }
    Ok(())
}

/// Filters on a field where every item has another value.
fn distinct_values(
    engine: &Engine,
    what: &str,
    len: usize,
) -> Result<(), Box<dyn std::error::Error>> {
    let dim = 2;
    let spaces = Encoder::<&str>::spaces(&HashEncoder::new(Modality::Text, dim)).clone();
    let fields = Fields::new([("n", FieldKind::Integer), ("even", FieldKind::Bool)])?;
    let collection = engine.create_with_fields("values", &spaces, &fields)?;
    let started = Instant::now();
    for start in (0..len).step_by(1000) {
        let items = (start..len.min(start + 1000)).map(|i| {
            let mut item = Item::new(
                ItemId::new(i.to_string())?,
                Modality::Text,
                unit(SEED + i as u64, dim),
            );
            let value = mix(i as u64) >> 1;
            item.payload.insert("n".into(), json!(value));
            item.payload
                .insert("even".into(), json!(value.is_multiple_of(2)));
            Ok(item)
        });
        collection.upsert(items.collect::<Result<_, EngineError>>()?)?;
    }
    println!(
        "{what}, {len} items with {len} values: written in {:?}",
        started.elapsed()
    );
    let top = u64::MAX >> 1;
    for (name, filter) in [
        (
            "one value",
            json!({ "must": [{ "field": "n", "eq": mix(7) >> 1 }] }),
        ),
        (
            "0.1 percent",
            json!({ "must": [{ "field": "n", "lt": top / 1000 }] }),
        ),
        ("half", json!({ "must": [{ "field": "n", "lt": top / 2 }] })),
        ("all", json!({ "must": [{ "field": "n", "gte": 0 }] })),
        ("even", json!({ "must": [{ "field": "even", "eq": true }] })),
    ] {
        let query = Query {
            embedding: unit(0, dim),
            space: spaces.shared(),
        };
        // There are no images: what is left is the filter itself.
        let mut request = SearchRequest::new(query, Target::Image, NonZeroUsize::MIN);
        request.filter = Some(Filter::from_json(&filter)?);
        request.explain = true;
        let how = collection.search(&request)?.explanation;
        let matching = how.ok_or("the search is explained")?.matching_items;
        let ns = least_ns(|| collection.search(&request).map(|answer| answer.hits.len()));
        println!("  {name}: {matching} items in {:.2} ms", ns / 1e6);
    }
    Ok(())
}
