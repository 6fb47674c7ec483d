//! A large collection on disk: how fast it is filled and sealed, how soon it answers after it is
//! opened, and how much memory it takes.

#![allow(
    clippy::print_stdout,
    reason = "the figures are what this program is for"
)]

use std::{error::Error, num::NonZeroUsize, path::PathBuf, time::Instant};

use benches::{ClipLike, Latencies, item, spaces};
use clap::Parser;
use embedding::{Embedding, Modality};
use engine::{Collection, Engine, EngineConfig, Item, Query, SearchRequest, Target};
use serde_json::json;

const BATCH: usize = 1000;
/// Rows that are generated together, for the sake of memory.
const CHUNK: usize = 10_000;
const COLLECTION: &str = "bench";
const SEED: u64 = 7;
const QUERIES: usize = 500;

/// Fills a data folder, or measures one that was filled before
#[derive(Parser)]
struct Arguments {
    /// The data folder; it stays
    dir: PathBuf,
    /// Items to fill an empty folder with
    #[arg(long, default_value_t = 1_000_000)]
    rows: usize,
    /// Elements of each embedding
    #[arg(long, default_value_t = 512)]
    dim: usize,
    /// MiB of memory that indexes may keep for themselves; no limit if left out
    #[arg(long)]
    index_memory: Option<u64>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let Arguments {
        dir,
        rows,
        dim,
        index_memory,
    } = Arguments::parse();
    let config = EngineConfig {
        index_memory_bytes: index_memory.map(|mib| mib << 20),
        ..EngineConfig::default()
    };
    let world = ClipLike::new(dim, SEED);
    if !dir.exists() {
        fs_err::create_dir_all(&dir)?;
        fill(&dir, (&world, dim), rows, &config)?;
    }
    let queries = world.rows(Modality::Image, QUERIES, 2);
    let start = Instant::now();
    let engine = Engine::open(&dir, config)?;
    let opened_s = start.elapsed().as_secs_f64();
    let collection = engine.collection(COLLECTION).ok_or("there is none")?;
    search(&collection, &queries[0])?;
    let answered_s = start.elapsed().as_secs_f64();
    println!(
        "{}",
        json!({
            "items": collection.stats().items,
            "open_s": opened_s,
            "open_to_first_answer_s": answered_s,
            "memory_after_open": memory()?,
        })
    );
    let (latencies, found) = Latencies::of(QUERIES, |i| search(&collection, &queries[i]));
    found.into_iter().collect::<Result<Vec<_>, _>>()?;
    println!(
        "{}",
        json!({
            "search_median_ms": latencies.quantile_ms(0.5),
            "search_p99_ms": latencies.quantile_ms(0.99),
            "memory_after_searches": memory()?,
        })
    );
    Ok(())
}

fn fill(
    dir: &std::path::Path,
    (world, dim): (&ClipLike, usize),
    rows: usize,
    config: &EngineConfig,
) -> Result<(), Box<dyn Error>> {
    // All is sealed at the end, in one go: what is measured is how long that takes.
    let at_the_end = EngineConfig {
        seal_rows: usize::MAX,
        ..config.clone()
    };
    let engine = Engine::open(dir, at_the_end)?;
    let collection = engine.create(COLLECTION, &spaces(dim))?;
    let (mut at, mut writing_s) = (0, 0.0);
    while at < rows {
        let (first, count) = (at, CHUNK.min(rows - at));
        let made = world.rows(Modality::Image, count, 1000 + (at / CHUNK) as u64);
        let mut items = made
            .into_iter()
            .enumerate()
            .map(|(i, row)| item(first + i, row));
        while at < rows {
            let batch: Vec<Item> = items.by_ref().take(BATCH).collect();
            if batch.is_empty() {
                break;
            }
            at += batch.len();
            let start = Instant::now();
            collection.upsert(batch)?;
            writing_s += start.elapsed().as_secs_f64();
        }
    }
    let start = Instant::now();
    collection.seal()?;
    println!(
        "{}",
        json!({
            "written": rows,
            "items_per_s": rows as f64 / writing_s,
            "seal_s": start.elapsed().as_secs_f64(),
        })
    );
    Ok(())
}

fn search(collection: &Collection, query: &Embedding) -> Result<usize, Box<dyn Error>> {
    let query = Query {
        embedding: query.clone(),
        space: collection.spaces().shared(),
    };
    let k = NonZeroUsize::new(10).ok_or("no k")?;
    let mut request = SearchRequest::new(query, Target::Both, k);
    request.confidence = false;
    Ok(collection.search(&request)?.hits.len())
}

/// Resident memory of this process in MiB: its own, and of mapped files. Linux only.
fn memory() -> Result<serde_json::Value, Box<dyn Error>> {
    let status = fs_err::read_to_string("/proc/self/status")?;
    let mib = |key: &str| -> Option<u64> {
        let line = status.lines().find(|line| line.starts_with(key))?;
        let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
        Some(kib >> 10)
    };
    Ok(json!({ "own_mib": mib("RssAnon:"), "mapped_mib": mib("RssFile:") }))
}
