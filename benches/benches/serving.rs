//! Whether a query waits for an ingest: the p99 of single text searches over HTTP, alone and while
//! clients send pictures as fast as they are taken, in turns, all of one server.
//!
//! `--test` runs it for a moment, to see that it works.

#![allow(clippy::print_stdout, reason = "the table is what this program is for")]

use std::{
    error::Error,
    io::Cursor,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use benches::{Latencies, photo_like};
use clap::Parser;
use encoders::Model;
use engine::{Engine, EngineConfig};
use image::{ImageFormat, RgbImage};
use serde_json::json;
use server::ServerConfig;

type Failure = Box<dyn Error + Send + Sync>;

const SEED: u64 = 7;
const PATH: &str = "/v1/collections/bench";
/// Requests with pictures that are made, and sent again and again: items are replaced then, and
/// encoded and written as new ones are.
const REQUESTS: usize = 8;
/// Pictures of one request.
const TOGETHER: usize = 16;
/// Most that the p99 beside an ingest may be, in those of the quiet phase before it.
const MOST_RATIO: f64 = 3.0;
const WORDS: [&str; 8] = [
    "red", "dog", "old", "bicycle", "rain", "beach", "cake", "flag",
];

/// Measures text searches beside an ingest of pictures
#[derive(Parser)]
struct Arguments {
    /// Folder of the model; the built-in one if there is none
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// Seconds of each phase
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// How often there are both phases
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Connections that send pictures
    #[arg(long, default_value_t = 4)]
    senders: usize,
    /// Width and height of the pictures
    #[arg(long, num_args = 2, default_values_t = [640, 480])]
    size: Vec<u32>,
    /// Write the figures there
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Succeed whatever the ratio is
    #[arg(long)]
    any: bool,
    /// Run for a moment only
    #[arg(long)]
    test: bool,
    /// What cargo gives to every bench
    #[arg(long, hide = true)]
    bench: bool,
}

/// A client of the server.
#[derive(Clone)]
struct Client {
    base: String,
    agent: ureq::Agent,
}

/// What of one phase counts.
struct Phase {
    searches: Latencies,
    pictures_per_s: f64,
}

fn main() -> Result<(), Failure> {
    let mut arguments = Arguments::parse();
    if arguments.test {
        (arguments.seconds, arguments.rounds, arguments.any) = (0.5, 1, true);
    }
    let dir = tempfile::tempdir()?;
    let model = match &arguments.model {
        Some(folder) => Model::load(folder)?,
        None => Model::builtin()?,
    };
    let name = model.info().name.clone();
    let engine = Engine::open(&dir.path().join("store"), EngineConfig::default())?;
    let config = ServerConfig {
        bind: ([127, 0, 0, 1], 0).into(),
        thumbnails: Some(dir.path().join("thumbnails")),
        ..ServerConfig::default()
    };
    let running = server::start(config, Arc::new(engine), model)?;
    let client = Client::new(&format!("http://{}", running.addr()));
    client
        .agent
        .put(format!("{}{PATH}", client.base))
        .send_empty()?;
    let bodies = bodies(&arguments)?;
    let sent = AtomicUsize::new(0);
    client.send(&bodies, &sent)?;
    client.search(0)?;

    println!(
        "model {name}, {} senders of pictures, ms",
        arguments.senders
    );
    println!(
        "{:>14} {:>9} {:>8} {:>8} {:>8} {:>11}",
        "", "searches", "p50", "p99", "max", "pictures/s"
    );
    let (mut rounds, mut ratios) = (Vec::new(), Vec::new());
    for _ in 0..arguments.rounds.max(1) {
        let quiet = phase(&client, &arguments, None)?;
        let busy = phase(&client, &arguments, Some((&bodies, &sent)))?;
        let ratio = busy.searches.quantile_ms(0.99) / quiet.searches.quantile_ms(0.99);
        println!("{:>14} {}", "quiet", quiet.row());
        println!("{:>14} {}   p99 x {ratio:.2}", "beside ingest", busy.row());
        rounds.push(json!({ "quiet": quiet.json(), "busy": busy.json(), "ratio": ratio }));
        ratios.push(ratio);
    }
    running.stop()?;
    ratios.sort_by(f64::total_cmp);
    let median = ratios[ratios.len() / 2];
    println!("median p99 x: {median:.2}, at most {MOST_RATIO} is the goal");
    if let Some(file) = &arguments.json {
        let figures = json!({ "model": name, "rounds": rounds, "ratio": median });
        fs_err::write(file, serde_json::to_vec_pretty(&figures)?)?;
    }
    if median > MOST_RATIO && !arguments.any {
        return Err(format!("the p99 beside an ingest is {median:.2} times the quiet one").into());
    }
    Ok(())
}

/// Searches one after another, while pictures are sent if there are any.
fn phase(
    client: &Client,
    arguments: &Arguments,
    ingest: Option<(&[String], &AtomicUsize)>,
) -> Result<Phase, Failure> {
    let length = Duration::from_secs_f64(arguments.seconds);
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let mut senders = Vec::new();
        if let Some((bodies, sent)) = ingest {
            for _ in 0..arguments.senders {
                let (client, over) = (client.clone(), &over);
                senders.push(scope.spawn(move || {
                    // As on another machine: what a client does is not what is measured.
                    engine::step_back();
                    while !over.load(SeqCst) {
                        client.send(bodies, sent)?;
                    }
                    Ok::<_, Failure>(())
                }));
            }
            // Until the queue is full.
            thread::sleep(length / 5);
        }
        let before = ingest.map_or(0, |(_, sent)| sent.load(SeqCst));
        let began = Instant::now();
        let (searches, found) =
            Latencies::during(|| began.elapsed() < length, |i| client.search(i));
        let sent = ingest.map_or(0, |(_, sent)| sent.load(SeqCst)) - before;
        let pictures_per_s = sent as f64 / began.elapsed().as_secs_f64();
        over.store(true, SeqCst);
        for sender in senders {
            sender.join().map_err(|_| "a sender panicked")??;
        }
        found.into_iter().collect::<Result<(), _>>()?;
        Ok(Phase {
            searches,
            pictures_per_s,
        })
    })
}

/// Bodies with JPEG files in base64.
fn bodies(arguments: &Arguments) -> Result<Vec<String>, Failure> {
    let [width, height] = arguments.size[..] else {
        return Err("the size is no width and height".into());
    };
    let item = |id: usize| {
        let levels = photo_like(width as usize, height as usize, SEED + id as u64);
        let picture = RgbImage::from_raw(width, height, levels).ok_or("the size is wrong")?;
        let mut file = Cursor::new(Vec::new());
        picture.write_to(&mut file, ImageFormat::Jpeg)?;
        let image = STANDARD.encode(file.into_inner());
        Ok(json!({ "id": id.to_string(), "image": image }))
    };
    let body = |first: usize| {
        let items = (first..first + TOGETHER).map(item);
        Ok(json!(items.collect::<Result<Vec<_>, Failure>>()?).to_string())
    };
    (0..REQUESTS).map(|i| body(i * TOGETHER)).collect()
}

impl Client {
    fn new(base: &str) -> Self {
        let config = ureq::Agent::config_builder().timeout_global(Some(Duration::from_mins(2)));
        Self {
            base: base.to_owned(),
            agent: config.build().into(),
        }
    }

    fn post(&self, path: &str, body: &str) -> Result<(), Failure> {
        let request = self.agent.post(format!("{}{PATH}{path}", self.base));
        let request = request.header("content-type", "application/json");
        request.send(body)?.body_mut().read_to_vec()?;
        Ok(())
    }

    /// One text search, each for something else.
    fn search(&self, i: usize) -> Result<(), Failure> {
        let word = |at: usize| WORDS[at % WORDS.len()];
        let text = format!("a {} {} {i}", word(i), word(i / WORDS.len() + 1));
        self.post("/search", &json!({ "text": text, "k": 10 }).to_string())
    }

    /// One request with pictures.
    fn send(&self, bodies: &[String], sent: &AtomicUsize) -> Result<(), Failure> {
        let at = sent.fetch_add(TOGETHER, SeqCst) / TOGETHER;
        self.post("/items", &bodies[at % bodies.len()])
    }
}

impl Phase {
    fn row(&self) -> String {
        let ms = |part| self.searches.quantile_ms(part);
        let (p50, p99, max) = (ms(0.5), ms(0.99), ms(1.0));
        let (n, pictures) = (self.searches.len(), self.pictures_per_s);
        format!("{n:>9} {p50:>8.2} {p99:>8.2} {max:>8.2} {pictures:>11.1}")
    }

    fn json(&self) -> serde_json::Value {
        json!({
            "searches": self.searches.len(),
            "p50_ms": self.searches.quantile_ms(0.5),
            "p99_ms": self.searches.quantile_ms(0.99),
            "max_ms": self.searches.quantile_ms(1.0),
            "pictures_per_s": self.pictures_per_s,
        })
    }
}
