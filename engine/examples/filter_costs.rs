//! Measures what the plans of filtered searches cost: the constants of `engine/src/filter/plan.rs`,
//! and what evaluating filters on a field with as many distinct values as items takes.
//!
//! `cargo run --release -p engine --example filter_costs -- [ROWS] [LINKED] [ITEMS]`: rows that
//! are compared (default 20,000), rows that are linked in a graph (default 5,000), and items with a
//! distinct number each (default 100,000).
//! Each figure is the least of several rounds, so that other work on the machine counts little.

#![allow(clippy::print_stdout)]

use std::{num::NonZeroUsize, sync::Arc, time::Instant};

use embedding::{Embedding, Encoder, HashEncoder, Modality, mix};
use engine::{
    Engine, EngineConfig, FieldKind, Fields, Filter, Item, ItemId, Query, SearchRequest, Target,
    index::{Flat, Index, Live, Row, Rows, SearchParams},
};
use roaring::RoaringBitmap;
use serde_json::json;

const ROUNDS: usize = 15;
const SEED: u64 = 1;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut sizes = std::env::args().skip(1);
    let mut size = |default: usize| sizes.next().map_or(Ok(default), |size| size.parse());
    let (rows, linked, items) = (size(20_000)?, size(5000)?, size(100_000)?);
    for dim in [64, 512] {
        scans(rows, dim);
    }
    graph(linked)?;
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
    let rows = Arc::new(rows);
    let (query, flat) = (unit(0, dim), Flat::new(rows.clone()));
    let (k, params) = (
        NonZeroUsize::new(10).expect("not zero"),
        SearchParams { ef_search: 1 },
    );
    let per_row = |ns: f64| ns / len as f64;
    let all = per_row(least_ns(|| flat.search(&query, k, &params, Live::all(len))));
    let ordinals: Vec<u32> = (0..len as u32).rev().collect();
    let few: RoaringBitmap = (0..len as u32)
        .filter(|i| mix(u64::from(*i)).is_multiple_of(1000))
        .collect();
    let is_live = |row: Row| few.contains(ordinals[row.0 as usize]);
    let test = per_row(least_ns(|| {
        flat.search(&query, k, &params, Live::only(&is_live, len))
    }));
    // The same comparison in order and in no order.
    let dot = |i: usize| {
        let (row, query) = (rows.row(i).as_chunks::<16>().0, query.as_slice());
        let mut sums = [0.0_f32; 16];
        for (a, b) in row.iter().zip(query.as_chunks::<16>().0) {
            (0..16).for_each(|lane| sums[lane] += a[lane] * b[lane]);
        }
        sums.iter().sum::<f32>()
    };
    let in_order = per_row(least_ns(|| (0..len).map(dot).sum::<f32>()));
    let scattered: Vec<usize> = (0..len).map(|i| mix(i as u64) as usize % len).collect();
    let scattered = per_row(least_ns(|| scattered.iter().map(|i| dot(*i)).sum::<f32>()));
    let jump = scattered - in_order;
    println!("dim {dim}: compare {all:.1} ns, test {test:.1} ns, jump {jump:.1} ns");
}

fn engine_with(dim: usize) -> (Engine, Arc<engine::Collection>, embedding::Spaces) {
    let spaces = Encoder::<&str>::spaces(&HashEncoder::new(Modality::Text, dim)).clone();
    let config = EngineConfig {
        shards: NonZeroUsize::new(1),
        seal_rows: usize::MAX,
        ..EngineConfig::default()
    };
    let engine = Engine::in_memory(config);
    let collection = engine.create("c", &spaces).expect("creates");
    (engine, collection, spaces)
}

fn graph(len: usize) -> Result<(), Box<dyn std::error::Error>> {
    let dim = 64;
    let (_engine, collection, spaces) = engine_with(dim);
    for start in (0..len).step_by(1000) {
        let items = (start..len.min(start + 1000)).map(|i| {
            let id = ItemId::new(i.to_string())?;
            Ok(Item::new(id, Modality::Text, unit(SEED + i as u64, dim)))
        });
        collection.upsert(items.collect::<Result<_, engine::EngineError>>()?)?;
    }
    collection.seal()?;
    let (mut distances, mut ns, mut candidates) = (0, 0.0, 0);
    for i in 0..50 {
        let query = Query {
            embedding: unit(u64::MAX - i, dim),
            space: spaces.shared(),
        };
        let mut request = SearchRequest::new(query, Target::Text, NonZeroUsize::MIN);
        // So few that the graph is chosen however few rows there are.
        request.ef_search = Some(32);
        request.explain = true;
        let mut how = collection.search(&request)?.explanation;
        let plan = how.as_mut().map(|how| how.shards.remove(0));
        let plan = plan.ok_or("the search is explained")?;
        distances += plan.distances;
        candidates += plan.ef_search;
        ns += least_ns(|| collection.search(&request).map(|answer| answer.hits.len()));
    }
    println!(
        "graph of {len} rows of {dim}: {:.1} ns per distance, {:.1} distances per candidate",
        ns / distances as f64,
        distances as f64 / candidates as f64
    );
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
        collection.upsert(items.collect::<Result<_, engine::EngineError>>()?)?;
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
