//! Recall and latency of a sealed collection, side by side, one thread.
//!
//! `--test` runs it on fewer rows, to see that it works.

#![allow(clippy::print_stdout, reason = "the table is what this program is for")]

use std::{error::Error, num::NonZeroUsize, time::Instant};

use benches::{ClipLike, Latencies, item, recall, spaces};
use embedding::{Embedding, Modality};
use engine::{Collection, Engine, EngineConfig, EngineError, Query, SearchRequest, Target};

/// As CLIP ViT-B/32.
const DIM: usize = 512;
const K: NonZeroUsize = NonZeroUsize::new(10).unwrap();
const EF_SEARCH: [usize; 6] = [10, 16, 32, 128, 256, 512];
const SEED: u64 = 7;

/// One way to search.
struct Setting {
    name: String,
    ef_search: Option<usize>,
    exact: bool,
}

fn main() -> Result<(), Box<dyn Error>> {
    let smoke = std::env::args().any(|arg| arg == "--test");
    let (rows, queries) = if smoke { (4500, 50) } else { (20_000, 1000) };
    let world = ClipLike::new(DIM, SEED);

    // One shard and one modality, so that a search stays on its thread; sealed once, at the end.
    let config = EngineConfig {
        shards: Some(NonZeroUsize::MIN),
        seal_rows: rows + 1,
        ..EngineConfig::default()
    };
    let default_ef = config.hnsw.ef_search;
    let engine = Engine::in_memory(config);
    let collection = engine.create("bench", &spaces(DIM))?;
    let items = world.rows(Modality::Image, rows, 1).into_iter().enumerate();
    collection.upsert(items.map(|(i, row)| item(i, row)).collect())?;
    let start = Instant::now();
    collection.seal()?;
    println!(
        "{rows} rows of dim {DIM}, sealed in {:.1} s",
        start.elapsed().as_secs_f64()
    );

    for (modality, meaning) in [
        (Modality::Image, "queries from the rows' own distribution"),
        (Modality::Text, "queries from the other cone"),
    ] {
        println!("\n{queries} {modality} queries: {meaning}");
        table(&collection, &world.rows(modality, queries, 2), default_ef)?;
    }
    Ok(())
}

fn table(
    collection: &Collection,
    queries: &[Embedding],
    default_ef: usize,
) -> Result<(), EngineError> {
    let exact = Setting {
        name: "exact".into(),
        ef_search: None,
        exact: true,
    };
    let default = format!("default ({default_ef})");
    let mut settings = vec![Setting {
        name: default,
        ef_search: None,
        exact: false,
    }];
    settings.extend(EF_SEARCH.map(|ef| Setting {
        name: ef.to_string(),
        ef_search: Some(ef),
        exact: false,
    }));

    println!(
        "{:>14} {:>9} {:>10} {:>10} {:>9}",
        "ef_search", "recall@10", "median ms", "p99 ms", "QPS"
    );
    let truth = line(collection, queries, &exact, None)?;
    for setting in &settings {
        line(collection, queries, setting, Some(&truth))?;
    }
    Ok(())
}

/// Measures one setting, prints its line and returns the ids that it found.
fn line(
    collection: &Collection,
    queries: &[Embedding],
    setting: &Setting,
    truth: Option<&[Vec<String>]>,
) -> Result<Vec<Vec<String>>, EngineError> {
    let requests: Vec<SearchRequest> = queries
        .iter()
        .map(|embedding| {
            let space = collection.spaces().shared();
            let query = Query {
                embedding: embedding.clone(),
                space,
            };
            let mut request = SearchRequest::new(query, Target::Image, K);
            request.ef_search = setting.ef_search;
            request.exact = setting.exact;
            request
        })
        .collect();
    for request in requests.iter().take(20) {
        collection.search(request)?;
    }
    let (latencies, hits) = Latencies::of(requests.len(), |i| collection.search(&requests[i]));
    let mut found = Vec::with_capacity(hits.len());
    for hits in hits {
        found.push(
            hits?
                .hits
                .into_iter()
                .map(|hit| hit.id.as_str().to_owned())
                .collect(),
        );
    }
    println!(
        "{:>14} {:>9.4} {:>10.3} {:>10.3} {:>9.0}",
        setting.name,
        recall(truth.unwrap_or(&found), &found),
        latencies.quantile_ms(0.5),
        latencies.quantile_ms(0.99),
        latencies.per_second(),
    );
    Ok(found)
}
