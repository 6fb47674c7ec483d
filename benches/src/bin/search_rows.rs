//! Our side of `benches/peers/search`: makes rows and queries, and searches them.
//!
//! Files hold f32, little endian, `[n, dim]`, without a header: `rows.f32`, `image_queries.f32`
//! and `text_queries.f32`.

#![allow(clippy::print_stdout, reason = "answers go to whoever started it")]

use std::{
    error::Error,
    io::{BufRead, BufWriter, Write},
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use benches::{ClipLike, recall};
use clap::{Parser, Subcommand};
use embedding::{Embedding, Modality};
use engine::{
    HnswParams,
    index::{Flat, Hnsw, Index, Live, Neighbor, Rows, SearchParams},
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
    /// Build the graph, then answer lines of standard input such as `image 64` or `text 128`
    /// (which queries, `ef_search`), each with one line of JSON
    Measure {
        /// A folder with rows and queries
        dir: PathBuf,
        /// Elements of each row
        #[arg(long, default_value_t = 512)]
        dim: usize,
        /// Rows to find for each query
        #[arg(long, default_value = "10")]
        k: NonZeroUsize,
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
        Command::Measure { dir, dim, k } => measure(&dir, dim, k),
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

fn measure(dir: &Path, dim: usize, k: NonZeroUsize) -> Result<(), Box<dyn Error>> {
    let mut rows = Rows::new(dim);
    for row in read(&dir.join(ROWS), dim)? {
        rows.push(row.as_slice());
    }
    let rows = Arc::new(rows);
    let params = HnswParams::default();
    let start = Instant::now();
    let graph = Hnsw::build(Arc::clone(&rows), &params, SEED, &|| false)
        .map_err(|_| "the build was stopped")?;
    let build_s = start.elapsed().as_secs_f64();
    say(&json!({ "rows": rows.len(), "dim": dim, "build_s": build_s, "params": params }))?;

    let flat = Flat::new(rows);
    let sides = Modality::ALL.map(|modality| -> Result<_, Box<dyn Error>> {
        let queries = read(&queries_file(dir, modality), dim)?;
        let exact = search_all(&flat, &queries, k, 0);
        Ok((modality.to_string(), queries, exact))
    });
    let sides = sides.into_iter().collect::<Result<Vec<_>, _>>()?;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let asked = line
            .split_once(' ')
            .and_then(|(name, ef)| Some((name, ef.parse().ok()?)));
        let side = asked.and_then(|(name, ef)| Some((sides.iter().find(|s| s.0 == name)?, ef)));
        let ((name, queries, exact), ef_search) =
            side.ok_or_else(|| format!("{line:?} is neither `image EF` nor `text EF`"))?;
        let start = Instant::now();
        let found = search_all(&graph, queries, k, ef_search);
        let qps = queries.len() as f64 / start.elapsed().as_secs_f64();
        let (exact, found) = (positions(exact), positions(&found));
        let recall = recall(&exact, &found);
        say(&json!({
            "queries": name, "ef": ef_search, "recall": recall, "qps": qps, "found": found,
        }))?;
    }
    Ok(())
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

fn read(path: &Path, dim: usize) -> Result<Vec<Embedding>, Box<dyn Error>> {
    let bytes = fs_err::read(path)?;
    let row_bytes = dim * size_of::<f32>();
    if dim == 0 || bytes.is_empty() || !bytes.len().is_multiple_of(row_bytes) {
        let (path, len) = (path.display(), bytes.len());
        return Err(format!("{path} has {len} bytes, which are no rows of dim {dim}").into());
    }
    let value = |four: &[u8; 4]| f32::from_le_bytes(*four);
    let row = |row: &[u8]| Embedding::new(row.as_chunks().0.iter().map(value).collect());
    Ok(bytes
        .chunks_exact(row_bytes)
        .map(row)
        .collect::<Result<_, _>>()?)
}
