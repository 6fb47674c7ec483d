//! Our side of `benches/peers/encoders`: loads a model folder and encodes its inputs when told to.
//!
//! A folder of inputs has `pixels.npy`, f32 `[n, 3 * side * side]`, prepared pictures, and
//! `captions.json`, lists of texts by name. Answers are one line of JSON each.

#![allow(clippy::print_stdout, reason = "answers go to whoever started it")]

use std::{
    collections::BTreeMap,
    error::Error,
    io::{BufRead, Write},
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use clap::Parser;
use embedding::{Encoded, Encoder};
use encoders::{Model, Pixels, PrecisionChoice};
use exchange::{NpyReader, NpyWriter};
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};

type Failure = Box<dyn Error>;

/// Loads a model, then answers lines of standard input: `run image 8 3` (what, batch, repeats) with
/// the seconds of each pass, `embed image FILE` by writing unit embeddings as `.npy`. What is
/// `image`, or the name of a list of captions. The number of threads is `RAYON_NUM_THREADS`
#[derive(Parser)]
struct Arguments {
    /// The model folder
    model: PathBuf,
    /// The folder of inputs
    inputs: PathBuf,
    /// How the towers compute
    #[arg(long, default_value_t)]
    precision: PrecisionChoice,
}

/// A model and what it encodes.
struct Side {
    text: Arc<dyn Encoder<String>>,
    image: Arc<dyn Encoder<Pixels>>,
    /// Read when they are needed first, so that they are no part of the memory at the start.
    pixels: Option<Vec<Pixels>>,
    pixels_file: PathBuf,
    image_size: usize,
    captions: BTreeMap<String, Vec<String>>,
}

fn main() -> Result<(), Failure> {
    let arguments = Arguments::parse();
    let model = match Model::load_with(&arguments.model, arguments.precision) {
        Ok(model) => model,
        Err(error) => return say(&json!({ "missing": error.to_string() })),
    };
    let captions = fs_err::read(arguments.inputs.join("captions.json"))?;
    let mut side = Side {
        text: model.text(),
        image: model.image(),
        pixels: None,
        pixels_file: arguments.inputs.join("pixels.npy"),
        image_size: model.info().image_size,
        captions: serde_json::from_slice(&captions)?,
    };
    let packed = model.info().text.packed_bytes + model.info().image.packed_bytes;
    drop(model);
    say(&json!({ "version": env!("CARGO_PKG_VERSION"), "packed_bytes": packed }))?;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<&str> = line.split(' ').collect();
        say(&match words[..] {
            ["run", what, batch, repeats] => side.run(what, batch.parse()?, repeats.parse()?)?,
            ["embed", what, file] => side.embed(what, Path::new(file))?,
            _ => return Err(format!("{line:?} is neither `run` nor `embed`").into()),
        })?;
    }
    Ok(())
}

fn pixels(file: &Path, side: usize) -> Result<Vec<Pixels>, Failure> {
    let rows = NpyReader::open(file)?;
    rows.map(|row| Ok(Pixels::new(row?, side, side)?)).collect()
}

impl Side {
    /// Seconds of the clock and of the processor for each of some passes over the next inputs.
    fn run(&mut self, what: &str, batch: usize, repeats: usize) -> Result<Value, Failure> {
        match what {
            "image" => {
                let tower = Arc::clone(&self.image);
                run(tower.as_ref(), self.pixels()?, batch, repeats)
            }
            _ => run(self.text.as_ref(), self.captions(what)?, batch, repeats),
        }
    }

    /// Writes the embeddings of all inputs, each encoded with the others.
    fn embed(&mut self, what: &str, file: &Path) -> Result<Value, Failure> {
        let encoded = match what {
            "image" => {
                let tower = Arc::clone(&self.image);
                tower.encode(self.pixels()?)?
            }
            _ => self.text.encode(self.captions(what)?)?,
        };
        write(file, &encoded)?;
        Ok(json!({ "rows": encoded.len() }))
    }

    fn pixels(&mut self) -> Result<&[Pixels], Failure> {
        let read = match self.pixels.take() {
            Some(read) => read,
            None => pixels(&self.pixels_file, self.image_size)?,
        };
        Ok(self.pixels.insert(read))
    }

    fn captions(&self, name: &str) -> Result<&[String], Failure> {
        let captions = self.captions.get(name);
        Ok(captions.ok_or_else(|| format!("there are no captions {name:?}"))?)
    }
}

fn run<I: Clone>(
    tower: &dyn Encoder<I>,
    inputs: &[I],
    batch: usize,
    repeats: usize,
) -> Result<Value, Failure> {
    let (mut wall_s, mut cpu_s) = (Vec::new(), Vec::new());
    for i in 0..repeats {
        let next = inputs.iter().cycle().skip(i * batch % inputs.len().max(1));
        let next: Vec<I> = next.take(batch).cloned().collect();
        let (began, before) = (Instant::now(), processor_s());
        tower.encode(&next)?;
        wall_s.push(began.elapsed().as_secs_f64());
        cpu_s.push(processor_s() - before);
    }
    Ok(json!({ "wall_s": wall_s, "cpu_s": cpu_s }))
}

fn write(file: &Path, encoded: &[Encoded]) -> Result<(), Failure> {
    let dim = encoded.first().map_or(0, |first| first.shared.dim());
    let mut rows = NpyWriter::create(file, dim, exchange::Precision::Single)?;
    for row in encoded {
        rows.push(row.shared.as_slice())?;
    }
    Ok(rows.finish()?)
}

/// Seconds of all threads of this process.
fn processor_s() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

fn say(answer: &Value) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{answer}")?;
    Ok(out.flush()?)
}
