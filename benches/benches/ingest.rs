//! Durable writes to disk, and how soon a data directory answers after it is opened.
//!
//! `--test` runs it on fewer items, to see that it works.

#![allow(clippy::print_stdout, reason = "the table is what this program is for")]

use std::{error::Error, mem, num::NonZeroUsize, time::Instant};

use benches::{ClipLike, Latencies, item, spaces};
use embedding::Modality;
use engine::{Engine, EngineConfig, Item, Query, SearchRequest, Target};

/// As CLIP ViT-B/32.
const DIM: usize = 512;
const BATCH: usize = 256;
const COLLECTION: &str = "bench";
const SEED: u64 = 7;

fn main() -> Result<(), Box<dyn Error>> {
    let smoke = std::env::args().any(|arg| arg == "--test");
    let (batches, singles) = if smoke { (2, 10) } else { (80, 200) };
    let world = ClipLike::new(DIM, SEED);
    let rows = world
        .rows(Modality::Image, batches * BATCH + singles, 1)
        .into_iter();
    let mut items: Vec<Item> = rows.enumerate().map(|(i, row)| item(i, row)).collect();
    let alone = items.split_off(batches * BATCH).into_iter();
    let mut alone: Vec<Vec<Item>> = alone.map(|item| vec![item]).collect();

    // Beside the build outputs: the folder for temporary files may be in memory.
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let engine = Engine::open(dir.path(), EngineConfig::default())?;
    let collection = engine.create(COLLECTION, &spaces(DIM))?;

    // Copied before the clock runs: who writes items has them already.
    let mut copies = items.chunks(BATCH).map(<[_]>::to_vec).collect::<Vec<_>>();
    let start = Instant::now();
    let (latencies, written) =
        Latencies::of(batches, |i| collection.upsert(mem::take(&mut copies[i])));
    written.into_iter().collect::<Result<Vec<_>, _>>()?;
    println!(
        "upsert of {} items of dim {DIM} in batches of {BATCH}, shards sealed meanwhile",
        items.len()
    );
    println!(
        "  {:>10.0} items/s",
        items.len() as f64 / start.elapsed().as_secs_f64()
    );
    print_latencies("a batch", &latencies);

    let start = Instant::now();
    collection.seal()?;
    println!(
        "seal of what was left\n  {:>10.2} s",
        start.elapsed().as_secs_f64()
    );

    let (latencies, written) =
        Latencies::of(singles, |i| collection.upsert(mem::take(&mut alone[i])));
    written.into_iter().collect::<Result<Vec<_>, _>>()?;
    println!("upsert of single items, one after another");
    print_latencies("an item", &latencies);

    drop(collection);
    engine.close();
    let start = Instant::now();
    let engine = Engine::open(dir.path(), EngineConfig::default())?;
    let opened = start.elapsed();
    let collection = engine
        .collection(COLLECTION)
        .ok_or("the collection is gone")?;
    let query = Query {
        embedding: items[0].shared.clone(),
        space: collection.spaces().shared(),
    };
    let request = SearchRequest::new(query, Target::Both, NonZeroUsize::MIN);
    let hits = collection.search(&request)?.hits;
    let answered = start.elapsed();
    assert_eq!(hits[0].id, items[0].id, "a row is nearest to itself");
    println!("open of {} items", collection.stats().items);
    println!("  {:>10.3} s", opened.as_secs_f64());
    println!(
        "  {:>10.3} s until the first answer",
        answered.as_secs_f64()
    );
    Ok(())
}

fn print_latencies(what: &str, latencies: &Latencies) {
    println!(
        "  {:>10.3} ms median for {what}",
        latencies.quantile_ms(0.5)
    );
    println!("  {:>10.3} ms p99", latencies.quantile_ms(0.99));
}
