//! How long searches wait for writes and for the sealing of a large shard.
//!
//! One thread searches, one query after the other, through phases: while nothing else happens,
//! while a shard is sealed, while items are written at a steady rate, and while both happen; all of
//! that several times, each time in a new collection. Fails where the p99 of a phase is above a
//! multiple of that of the quiet one before it, by the median of all rounds, unless `--any` is given.

#![allow(clippy::print_stdout, reason = "the table is what this program is for")]

use std::{
    error::Error,
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use benches::{ClipLike, Latencies, item, spaces};
use clap::Parser;
use embedding::{Embedding, Modality};
use engine::{Collection, Engine, EngineConfig, EngineError, Query, SearchRequest, Target};

const SEED: u64 = 7;
const K: NonZeroUsize = NonZeroUsize::new(10).expect("not zero");
const QUERIES: usize = 500;
/// Items of one write, and the time from one write to the next.
const WRITE_ITEMS: usize = 16;
const WRITE_EVERY: Duration = Duration::from_millis(50);
/// Most that the p99 of a phase may be, in those of the quiet one.
const MOST_RATIO: f64 = 2.0;

/// What happens meanwhile.
const PHASES: [&str; 3] = ["rows are sealed", "items are written", "both happen"];

/// Measures searches while a shard is sealed and while items are written
#[derive(Parser)]
struct Arguments {
    /// Rows that are sealed before anything is measured; as many again are sealed meanwhile
    #[arg(long, default_value_t = 20_000)]
    rows: usize,
    /// Numbers of a row
    #[arg(long, default_value_t = 512)]
    dim: usize,
    /// Seconds of each phase that does not end by itself
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// How often all of it is done
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Do not ask how sure hits are
    #[arg(long)]
    bare: bool,
    /// Succeed whatever the ratios are
    #[arg(long)]
    any: bool,
}

/// A collection that is searched, and what is still to be written to it.
struct Bench {
    collection: Arc<Collection>,
    queries: Vec<Embedding>,
    rows: std::vec::IntoIter<Embedding>,
    written: usize,
    batches: AtomicU64,
    confidence: bool,
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let (rows, dim) = (arguments.rows, arguments.dim);
    println!("{rows} sealed rows of dim {dim}, a tail of as many, ms");
    println!(
        "{:>34} {:>9} {:>8} {:>8} {:>8} {:>6}",
        "", "searches", "p50", "p99", "max", "p99 x"
    );
    let mut ratios: [Vec<f64>; PHASES.len()] = Default::default();
    for _ in 0..arguments.rounds {
        let round = round(&arguments)?;
        ratios
            .iter_mut()
            .zip(round)
            .for_each(|(all, one)| all.push(one));
    }
    let mut worst: f64 = 0.0;
    for (phase, mut all) in PHASES.iter().zip(ratios) {
        all.sort_by(f64::total_cmp);
        let median = all.get(all.len() / 2).copied().ok_or("no round")?;
        println!("median of the p99 x while {phase}: {median:.2}");
        worst = worst.max(median);
    }
    if worst > MOST_RATIO && !arguments.any {
        return Err(format!("a p99 is {worst:.2} times the quiet one").into());
    }
    Ok(())
}

/// Gives the p99 of each of [`PHASES`] in those of the quiet phase before it.
fn round(arguments: &Arguments) -> Result<[f64; PHASES.len()], Box<dyn Error>> {
    let (rows, dim) = (arguments.rows, arguments.dim);
    let phase = Duration::from_secs_f64(arguments.seconds);
    // Two phases with a tail to seal, and two with writes.
    let writes = 4 * (phase.as_secs_f64() / WRITE_EVERY.as_secs_f64()) as usize * WRITE_ITEMS;
    let world = ClipLike::new(dim, SEED);
    let dir = tempfile::tempdir()?;
    let config = EngineConfig {
        shards: Some(NonZeroUsize::MIN),
        seal_rows: rows,
        audit_share: 0.0,
        ..EngineConfig::default()
    };
    let engine = Engine::open(dir.path(), config)?;
    let mut bench = Bench {
        collection: engine.create("bench", &spaces(dim))?,
        queries: world.rows(Modality::Image, QUERIES, 2),
        rows: world
            .rows(Modality::Image, 3 * rows + writes, 1)
            .into_iter(),
        written: 0,
        batches: AtomicU64::new(0),
        confidence: !arguments.bare,
    };
    bench.write(rows)?;
    bench.collection.seal()?;

    bench.write(rows - 1)?;
    let quiet = bench.measure(until(phase))?;
    let base = quiet.quantile_ms(0.99);
    line("nothing else", &quiet, base);
    bench.write(1)?;
    let collection = Arc::clone(&bench.collection);
    let sealing = bench.measure(|| collection.stats().sealing)?;
    let sealed = line(&format!("{} rows are sealed", 2 * rows), &sealing, base);
    // The tail is nearly as long as before, so that searches have as much to do, and stays too short
    // to be sealed by itself while items are written.
    let phase_writes = writes / 4;
    bench.write(rows.saturating_sub(phase_writes + 2 * WRITE_ITEMS))?;
    let quiet = bench.measure(until(phase))?;
    let base = quiet.quantile_ms(0.99);
    line("nothing else, twice the rows", &quiet, base);
    let written = bench.measure_writing(until(phase))?;
    let written = line("items are written", &written, base);
    let collection = Arc::clone(&bench.collection);
    let on_demand = std::thread::spawn(move || collection.seal());
    let both = bench.measure_writing(|| !on_demand.is_finished())?;
    on_demand.join().map_err(|_| "the seal panicked")??;
    if bench.rows.len() == 0 {
        return Err("the rows to write ran out before the seal was done".into());
    }
    let both = line(&format!("written, {} sealed", 3 * rows), &both, base);
    println!(
        "{} writes of {WRITE_ITEMS} items, one every {} ms",
        bench.batches.load(SeqCst),
        WRITE_EVERY.as_millis()
    );
    Ok([sealed, written, both])
}

/// Prints a phase; gives its p99 in those of the quiet one.
fn line(phase: &str, latencies: &Latencies, base: f64) -> f64 {
    let [p50, p99, max] = [0.5, 0.99, 1.0].map(|part| latencies.quantile_ms(part));
    let (count, ratio) = (latencies.len(), p99 / base);
    println!("{phase:>34} {count:>9} {p50:>8.3} {p99:>8.3} {max:>8.3} {ratio:>6.2}");
    ratio
}

fn until(time: Duration) -> impl FnMut() -> bool {
    let end = Instant::now() + time;
    move || Instant::now() < end
}

impl Bench {
    /// Writes the next items, many at a time.
    fn write(&mut self, items: usize) -> Result<(), EngineError> {
        let rows = self.rows.by_ref().take(items);
        let all: Vec<_> = (self.written..)
            .zip(rows)
            .map(|(i, row)| item(i, row))
            .collect();
        self.written += all.len();
        for batch in all.chunks(256) {
            self.collection.upsert(batch.to_vec())?;
        }
        Ok(())
    }

    /// Searches as long as it is said to.
    fn measure(&self, goes_on: impl FnMut() -> bool) -> Result<Latencies, EngineError> {
        let space = self.collection.spaces().shared();
        let requests = self.queries.iter().map(|embedding| {
            let (embedding, space) = (embedding.clone(), space.clone());
            let query = Query { embedding, space };
            SearchRequest {
                confidence: self.confidence,
                ..SearchRequest::new(query, Target::Image, K)
            }
        });
        let requests: Vec<SearchRequest> = requests.collect();
        let search = |i: usize| self.collection.search(&requests[i % QUERIES]);
        let (latencies, answers) = Latencies::during(goes_on, search);
        answers
            .into_iter()
            .find_map(Result::err)
            .map_or(Ok(latencies), Err)
    }

    /// The same while items are written at a steady rate.
    fn measure_writing(
        &mut self,
        goes_on: impl FnMut() -> bool,
    ) -> Result<Latencies, Box<dyn Error>> {
        let rows = std::mem::take(&mut self.rows);
        let (first, stop) = (self.written, AtomicBool::new(false));
        let (latencies, left) = std::thread::scope(|scope| {
            let writer = scope.spawn(|| -> Result<_, EngineError> {
                let mut items = (first..).zip(rows).map(|(i, row)| item(i, row));
                let mut next = Instant::now();
                while !stop.load(SeqCst) {
                    let batch: Vec<_> = items.by_ref().take(WRITE_ITEMS).collect();
                    if batch.is_empty() {
                        break;
                    }
                    self.collection.upsert(batch)?;
                    self.batches.fetch_add(1, SeqCst);
                    next += WRITE_EVERY;
                    std::thread::sleep(next.saturating_duration_since(Instant::now()));
                }
                Ok(items.map(|item| item.shared).collect::<Vec<_>>())
            });
            let latencies = self.measure(goes_on);
            stop.store(true, SeqCst);
            (latencies, writer.join())
        });
        let left = left.map_err(|_| "the writer panicked")??;
        self.written = first + self.batches.load(SeqCst) as usize * WRITE_ITEMS;
        self.rows = left.into_iter();
        Ok(latencies?)
    }
}
