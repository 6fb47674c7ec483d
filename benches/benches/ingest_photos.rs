//! Pictures from files into a store, beside what the tower alone and the preparation alone can do.
//!
//! Each round does the three in turns on all cores: prepared pixels through the image tower, in
//! batches; files read, decoded, resized and normalized; and everything, with durable upserts, as
//! `diptych index` does it.
//!
//! ```sh
//! cargo bench -p benches --bench ingest_photos -- --model FOLDER --photos FOLDER --json FILE
//! ```
//!
//! Without a model it takes the built-in one, without photos it makes some. `--test` does little,
//! to see that it works.

#![allow(clippy::print_stdout, reason = "the table is what this program is for")]

use std::{
    error::Error,
    fs,
    hint::black_box,
    io::Cursor,
    num::NonZeroU32,
    path::{Path, PathBuf},
    time::Instant,
};

use benches::photo_like;
use clap::Parser;
use embedding::Modality;
use encoders::{
    DecodeLimits, Filter, Model, Normalization, Pixels, PreprocessConfig, decode, encode_all,
};
use engine::{Engine, EngineConfig, Item, ItemId};
use image::{ExtendedColorType, ImageEncoder, codecs::jpeg::JpegEncoder};
use serde_json::json;

const COLLECTION: &str = "photos";
/// Items of one upsert, and pictures of one batch.
const BATCH: usize = 32;
/// Sides of a photo that is made here, and how many there are.
const SIDES: (usize, usize) = (500, 375);
const MADE: usize = 48;
/// Side of the pixels that CLIP ViT-B/32 sees.
const SIDE: NonZeroU32 = NonZeroU32::new(224).unwrap();

type Failure = Box<dyn Error + Send + Sync>;

/// Measures pictures per second from files into a store
#[derive(Parser)]
struct Arguments {
    /// A model folder
    #[arg(long)]
    model: Option<PathBuf>,
    /// A folder of pictures
    #[arg(long)]
    photos: Option<PathBuf>,
    /// At least this many pictures per round; a small folder is gone through again and again
    #[arg(long, default_value_t = 256)]
    pictures: usize,
    /// How often all of it is done
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// For each line of the input prepare all photos as CLIP wants them, on this thread, and say
    /// how long it took; for a line with the name of a file tell its pixels. For a comparison that
    /// takes turns
    #[arg(long, hide = true)]
    turns: bool,
    /// Write the figures there, too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Do little
    #[arg(long)]
    test: bool,
    /// What `cargo bench` says to every bench
    #[arg(long, hide = true)]
    bench: bool,
}

/// Pictures per second.
#[derive(Default)]
struct Speeds {
    tower: Vec<f64>,
    prepare: Vec<f64>,
    whole: Vec<f64>,
}

fn main() -> Result<(), Failure> {
    let arguments = Arguments::parse();
    let model = match &arguments.model {
        Some(folder) => Model::load(folder)?,
        None => Model::builtin()?,
    };
    let made = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let folder = match &arguments.photos {
        Some(folder) => folder.clone(),
        None => make(made.path())?,
    };
    let mut files: Vec<PathBuf> = fs::read_dir(folder)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?;
    files.sort();
    if arguments.turns {
        return take_turns(&files);
    }
    let (pictures, rounds) = if arguments.test {
        (BATCH, 1)
    } else {
        (arguments.pictures, arguments.rounds)
    };
    let times = pictures.div_ceil(files.len().max(1));
    let inputs: Vec<(usize, PathBuf)> =
        (0..times).flat_map(|_| files.clone()).enumerate().collect();

    let mut speeds = Speeds::default();
    // The first round warms up.
    for round in 0..=rounds {
        let mut timed = |into: fn(&mut Speeds) -> &mut Vec<f64>,
                         work: &dyn Fn() -> Result<(), Failure>| {
            let start = Instant::now();
            work()?;
            let speed = inputs.len() as f64 / start.elapsed().as_secs_f64();
            if round > 0 {
                into(&mut speeds).push(speed);
            }
            Ok::<_, Failure>(())
        };
        let pixels: Vec<Pixels> = files
            .iter()
            .take(BATCH)
            .map(|file| prepare(&model, file))
            .collect::<Result<_, _>>()?;
        timed(|s| &mut s.tower, &|| tower(&model, &pixels, inputs.len()))?;
        timed(|s| &mut s.prepare, &|| prepare_all(&model, &inputs))?;
        timed(|s| &mut s.whole, &|| ingest(&model, &inputs))?;
    }
    tell(&arguments, &model, inputs.len(), &mut speeds)
}

fn take_turns(files: &[PathBuf]) -> Result<(), Failure> {
    let clip = PreprocessConfig::shortest_edge(SIDE, Filter::Bicubic, Normalization::CLIP);
    let prepare = |file: &Path| -> Result<Pixels, Failure> {
        let picture = decode(&fs::read(file)?, &DecodeLimits::default())?;
        Ok(clip.prepare(&picture))
    };
    for line in std::io::stdin().lines() {
        let line = line?;
        if line.is_empty() {
            let start = Instant::now();
            for file in files {
                black_box(prepare(file)?);
            }
            println!("{}", json!({ "seconds": start.elapsed().as_secs_f64() }));
        } else {
            let pixels = prepare(Path::new(&line))?;
            println!("{}", json!({ "pixels": pixels.as_slice() }));
        }
    }
    Ok(())
}

/// Makes photos.
fn make(folder: &Path) -> Result<PathBuf, Failure> {
    for seed in 0..MADE {
        let levels = photo_like(SIDES.0, SIDES.1, seed as u64);
        let mut bytes = Cursor::new(Vec::new());
        JpegEncoder::new_with_quality(&mut bytes, 90).write_image(
            &levels,
            SIDES.0 as u32,
            SIDES.1 as u32,
            ExtendedColorType::Rgb8,
        )?;
        fs::write(folder.join(format!("{seed:03}.jpg")), bytes.into_inner())?;
    }
    Ok(folder.to_owned())
}

fn prepare(model: &Model, file: &Path) -> Result<Pixels, Failure> {
    let picture = decode(&fs::read(file)?, &DecodeLimits::default())?;
    Ok(model.prepare(&picture))
}

/// The tower with all its threads, on batches of what is there already.
fn tower(model: &Model, pixels: &[Pixels], pictures: usize) -> Result<(), Failure> {
    let mut left = pictures;
    while left > 0 {
        let batch = &pixels[..left.min(pixels.len())];
        model.image().encode(batch)?;
        left -= batch.len();
    }
    Ok(())
}

/// Everything before the tower.
fn prepare_all(model: &Model, inputs: &[(usize, PathBuf)]) -> Result<(), Failure> {
    let prepare = |(_, file): &(usize, PathBuf)| Ok((prepare(model, file)?, None));
    encode_all(inputs, model.image().as_ref(), prepare, |_| Ok(()))
}

/// Everything, into a new store.
fn ingest(model: &Model, inputs: &[(usize, PathBuf)]) -> Result<(), Failure> {
    // Beside the build outputs: the folder for temporary files may be in memory.
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let engine = Engine::open(dir.path(), EngineConfig::default())?;
    let collection = engine.create(COLLECTION, model.spaces())?;
    let prepare =
        |(_, file): &(usize, PathBuf)| Ok::<_, Failure>(((), Some(prepare(model, file)?)));
    let mut waiting = Vec::with_capacity(BATCH);
    encode_all(inputs, model.image().as_ref(), prepare, |done| {
        for one in done {
            let encoded = one.encoded.ok_or("a picture without embeddings")?;
            let (number, _) = &inputs[one.index];
            waiting.push(Item {
                specific: encoded.specific,
                ..Item::new(
                    ItemId::new(number.to_string())?,
                    Modality::Image,
                    encoded.shared,
                )
            });
        }
        if waiting.len() >= BATCH {
            collection.upsert(std::mem::take(&mut waiting))?;
        }
        Ok(())
    })?;
    collection.upsert(waiting)?;
    Ok(())
}

fn tell(
    arguments: &Arguments,
    model: &Model,
    pictures: usize,
    speeds: &mut Speeds,
) -> Result<(), Failure> {
    let mut ratios: Vec<f64> = speeds
        .whole
        .iter()
        .zip(&speeds.tower)
        .map(|(whole, tower)| whole / tower)
        .collect();
    let [tower, prepare, whole, ratio] = [
        &mut speeds.tower,
        &mut speeds.prepare,
        &mut speeds.whole,
        &mut ratios,
    ]
    .map(|values| median(values));
    let threads = std::thread::available_parallelism()?;
    // What is possible when every core does one thing after the other.
    let bound = 1.0 / (1.0 + tower / prepare);
    println!(
        "{} pictures, model {}, {threads} threads",
        pictures,
        model.info().name
    );
    println!("  {tower:>10.1} pictures/s the tower alone");
    println!("  {prepare:>10.1} pictures/s read, decoded and prepared");
    println!("  {whole:>10.1} pictures/s from files into the store");
    println!("  {ratio:>10.3} of the tower alone; {bound:.3} if no core ever waits");
    if let Some(file) = &arguments.json {
        let figures = json!({
            "model": model.info().name,
            "pictures": pictures,
            "threads": threads,
            "tower_per_s": tower,
            "prepare_per_s": prepare,
            "ingest_per_s": whole,
            "ingest_to_tower": ratio,
            "ingest_to_tower_if_no_core_waits": bound,
        });
        fs::write(file, format!("{figures:#}\n"))?;
    }
    Ok(())
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}
