//! Our side of `benches/peers/search`: makes rows and queries, and searches them.
//!
//! Files hold f32, little endian, `[n, dim]`, without a header: `rows.f32`, `image_queries.f32`
//! and `text_queries.f32`.

#![allow(clippy::print_stdout, reason = "answers go to whoever started it")]

use std::{
    error::Error,
    io::{BufRead, BufReader, BufWriter, Read, Write},
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use benches::{ClipLike, recall};
use clap::{Parser, Subcommand};
use embedding::{Embedding, Modality};
use engine::{
    GraphBuilder, HnswParams,
    index::{Flat, Hnsw, Index, Live, Neighbor, Rows, SearchParams, kernel_name},
};
use fs_err::File;
use serde_json::json;

const ROWS: &str = "rows.f32";
const SEED: u64 = 7;

/// Generates embeddings for a comparison and searches them
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Write rows and queries of both modalities into a folder
    Generate {
        /// An existing folder
        dir: PathBuf,
        /// Number of rows, all of pictures
        #[arg(long, default_value_t = 100_000)]
        rows: usize,
        /// Elements of each row
        #[arg(long, default_value_t = 512)]
        dim: usize,
        /// Number of queries of each modality
        #[arg(long, default_value_t = 1000)]
        queries: usize,
    },
    /// Build the graph, then answer lines of standard input such as `image 64` or `text 128 2`
    /// (which queries, `ef_search`, threads that share the queries), each with one line of JSON
    Measure {
        /// A folder with rows and queries
        dir: PathBuf,
        /// Elements of each row
        #[arg(long, default_value_t = 512)]
        dim: usize,
        /// Rows to find for each query
        #[arg(long, default_value = "10")]
        k: NonZeroUsize,
        /// What links the nodes: `own` or `hnsw_rs`
        #[arg(long, default_value = "own", value_parser = builder)]
        builder: GraphBuilder,
    },
}

fn main() -> Result<(), Box<dyn Error>> {
    match Arguments::parse().command {
        Command::Generate {
            dir,
            rows,
            dim,
            queries,
        } => generate(&dir, rows, dim, queries),
        Command::Measure {
            dir,
            dim,
            k,
            builder,
        } => measure(&dir, dim, k, builder),
    }
}

fn generate(dir: &Path, rows: usize, dim: usize, queries: usize) -> Result<(), Box<dyn Error>> {
    let least = benches::LEAST_DIM;
    if dim < least {
        return Err(format!("--dim is {dim}, expected at least {least}").into());
    }
    let world = ClipLike::new(dim, SEED);
    write(&dir.join(ROWS), &world.rows(Modality::Image, rows, 1))?;
    for modality in Modality::ALL {
        write(
            &queries_file(dir, modality),
            &world.rows(modality, queries, 2),
        )?;
    }
    Ok(())
}

fn builder(name: &str) -> Result<GraphBuilder, String> {
    match name {
        "own" => Ok(GraphBuilder::Own),
        "hnsw_rs" => Ok(GraphBuilder::HnswRs),
        _ => Err("expected own or hnsw_rs".to_owned()),
    }
}

fn measure(
    dir: &Path,
    dim: usize,
    k: NonZeroUsize,
    builder: GraphBuilder,
) -> Result<(), Box<dyn Error>> {
    let mut rows = Rows::new(dim);
    read(&dir.join(ROWS), dim, |row| rows.push(row.as_slice()))?;
    let rows = Arc::new(rows);
    // Before the build is told, so that nobody who waits for it is disturbed afterwards.
    let flat = Flat::new(Arc::clone(&rows));
    let sides = Modality::ALL.map(|modality| -> Result<_, Box<dyn Error>> {
        let mut queries = Vec::new();
        read(&queries_file(dir, modality), dim, |query| {
            queries.push(query);
        })?;
        let exact = search_all(&flat, &queries, k, 0);
        Ok((modality.to_string(), queries, exact))
    });
    let sides = sides.into_iter().collect::<Result<Vec<_>, _>>()?;

    let params = HnswParams {
        builder,
        ..HnswParams::default()
    };
    let start = Instant::now();
    let graph = Hnsw::build(Arc::clone(&rows), &params, SEED, &|| false)
        .map_err(|_| "the build was stopped")?
        .settled();
    let build_s = start.elapsed().as_secs_f64();
    say(&json!({
        "version": env!("CARGO_PKG_VERSION"),
        "rows": rows.len(),
        "dim": dim,
        "build_s": build_s,
        "params": params,
        "bytes_per_row": graph.bytes() as f64 / rows.len() as f64,
        "bytes_per_row_is": "links and the codes that walks compare, in memory; whole codes and f32 rows in mapped files",
        "mapped_bytes_per_row": graph.mapped_bytes() as f64 / rows.len() as f64,
        "kernel": kernel_name(),
    }))?;
    for line in std::io::stdin().lock().lines() {
        let asked = Asked::parse(&line?)?;
        let side = sides.iter().find(|side| side.0 == asked.queries);
        let (name, queries, exact) = side.ok_or_else(|| asked.unknown_queries())?;
        let start = Instant::now();
        let found = search_split(&graph, queries, k, &asked);
        let qps = queries.len() as f64 / start.elapsed().as_secs_f64();
        let (exact, found) = (positions(exact), positions(&found));
        let recall = recall(&exact, &found);
        say(&json!({
            "queries": name,
            "ef": asked.ef_search,
            "threads": asked.threads,
            "recall": recall,
            "qps": qps,
            "found": found,
        }))?;
    }
    Ok(())
}

/// One line of standard input.
struct Asked {
    queries: String,
    ef_search: usize,
    threads: NonZeroUsize,
}

impl Asked {
    fn parse(line: &str) -> Result<Self, String> {
        let words: Vec<&str> = line.split(' ').collect();
        let (queries, ef_search, threads) = match words[..] {
            [queries, ef_search] => (queries, ef_search, "1"),
            [queries, ef_search, threads] => (queries, ef_search, threads),
            _ => return Err(not_asked(line)),
        };
        Ok(Self {
            queries: queries.to_owned(),
            ef_search: ef_search.parse().map_err(|_| not_asked(line))?,
            threads: threads.parse().map_err(|_| not_asked(line))?,
        })
    }

    fn unknown_queries(&self) -> String {
        format!("{:?} are no queries: image or text", self.queries)
    }
}

fn not_asked(line: &str) -> String {
    format!("{line:?} is not `image EF`, `text EF`, or one of them with a number of threads")
}

/// All queries, in equal parts on as many threads as asked for.
fn search_split(
    index: &dyn Index,
    queries: &[Embedding],
    k: NonZeroUsize,
    asked: &Asked,
) -> Vec<Vec<Neighbor>> {
    let part = queries.len().div_ceil(asked.threads.get());
    if asked.threads.get() == 1 {
        return search_all(index, queries, k, asked.ef_search);
    }
    std::thread::scope(|scope| {
        let started: Vec<_> = queries
            .chunks(part.max(1))
            .map(|part| scope.spawn(|| search_all(index, part, k, asked.ef_search)))
            .collect();
        started
            .into_iter()
            .flat_map(|thread| thread.join().expect("a search does not panic"))
            .collect()
    })
}

/// One query after another, on this thread.
fn search_all(
    index: &dyn Index,
    queries: &[Embedding],
    k: NonZeroUsize,
    ef_search: usize,
) -> Vec<Vec<Neighbor>> {
    let params = SearchParams { ef_search };
    queries
        .iter()
        .map(|query| index.search(query, k, &params, Live::all(index.len())))
        .collect()
}

fn positions(found: &[Vec<Neighbor>]) -> Vec<Vec<u32>> {
    found
        .iter()
        .map(|found| found.iter().map(|neighbor| neighbor.row.0).collect())
        .collect()
}

fn say(line: &serde_json::Value) -> Result<(), Box<dyn Error>> {
    println!("{line}");
    std::io::stdout().flush()?;
    Ok(())
}

fn queries_file(dir: &Path, modality: Modality) -> PathBuf {
    dir.join(format!("{modality}_queries.f32"))
}

fn write(path: &Path, rows: &[Embedding]) -> Result<(), Box<dyn Error>> {
    let mut file = BufWriter::new(File::create(path)?);
    for value in rows.iter().flat_map(Embedding::as_slice) {
        file.write_all(&value.to_le_bytes())?;
    }
    file.flush()?;
    Ok(())
}

/// Gives every row of a file to `take`, one after another: a million rows are in memory once only.
fn read(path: &Path, dim: usize, mut take: impl FnMut(Embedding)) -> Result<(), Box<dyn Error>> {
    let file = File::open(path)?;
    let len = file.metadata()?.len();
    let row_bytes = dim * size_of::<f32>();
    if dim == 0 || len == 0 || !len.is_multiple_of(row_bytes as u64) {
        let path = path.display();
        return Err(format!("{path} has {len} bytes, which are no rows of dim {dim}").into());
    }
    let mut file = BufReader::new(file);
    let mut bytes = vec![0; row_bytes];
    for _ in 0..len / row_bytes as u64 {
        file.read_exact(&mut bytes)?;
        let values = bytes.as_chunks().0.iter();
        take(Embedding::new(
            values
                .map(|four: &[u8; 4]| f32::from_le_bytes(*four))
                .collect(),
        )?);
    }
    Ok(())
}
