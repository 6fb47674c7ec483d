//! A process that writes to the engine is killed at random moments, again and again on one
//! directory. Whatever it had acknowledged must be there.
//!
//! `DIPTYCH_CRASH_ROUNDS` sets how often, `DIPTYCH_CRASH_WRITERS` how many threads write: the long
//! form is 50 rounds with 32.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader},
    num::NonZeroUsize,
    path::Path,
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use embedding::Modality;
use engine::{Collection, Engine, ItemMeta, Query, SearchRequest, Target};
use tests::load::{COLLECTION, Line, Operation, Random, config, id, item, spaces};

const ROUNDS: u64 = 20;
const WRITERS: u64 = 4;
const SEED: u64 = 20_240_917;
/// Longest time that a writer works before it is killed, in ms.
const LONGEST_MS: u64 = 700;
/// Longest time that a writer may take to open the directory.
const OPEN_TIMEOUT: Duration = Duration::from_mins(1);
/// The least recall@10 of the default search against the exact one. At these settings it is about
/// .99 without any kill.
const RECALL: f64 = 0.95;

/// Version of every item that is there, by writer and number.
type Model = BTreeMap<(u32, u32), u64>;

#[test]
fn whatever_was_acknowledged_survives_every_kill() {
    let rounds = setting("DIPTYCH_CRASH_ROUNDS").unwrap_or(ROUNDS);
    let writers = setting("DIPTYCH_CRASH_WRITERS").unwrap_or(WRITERS);
    let dir = tempfile::tempdir().expect("a temporary folder");
    let mut random = Random(SEED);
    let mut model = Model::new();
    let mut acknowledged = 0;
    for round in 1..=rounds {
        let work = Duration::from_millis(random.below(LONGEST_MS));
        let lines = run_and_kill(dir.path(), round, writers, work);
        let mut open: BTreeMap<u32, Operation> = BTreeMap::new();
        for line in lines {
            match line {
                Line::Ready => {}
                Line::Begin(operation) => {
                    open.insert(operation.writer, operation);
                }
                Line::End(writer) => {
                    let operation = open.remove(&writer).expect("what ends has begun");
                    apply(&mut model, &operation);
                    acknowledged += 1;
                }
            }
        }
        let context = format!("seed {SEED}, round {round}, killed after {work:?}");
        let engine = Engine::open(dir.path(), config());
        let engine = engine.unwrap_or_else(|error| panic!("{context}: {error}: {error:?}"));
        if let Some(collection) = engine.collection(COLLECTION) {
            check(&collection, &mut model, &open, &context);
        } else {
            assert!(model.is_empty(), "{context}: the collection is gone");
        }
    }
    assert!(
        model.len() < 100
            || model
                .keys()
                .any(|(writer, _)| u64::from(*writer) == writers - 1),
        "the last of {writers} writers wrote nothing"
    );
    assert!(
        acknowledged > 100,
        "only {acknowledged} operations in all: nothing was tested"
    );
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| {
        let number = value.parse();
        number.unwrap_or_else(|_| panic!("{name} is {value}, expected a number"))
    })
}

/// Starts the writer, kills it (SIGKILL) when it has worked for so long, and gives its lines.
fn run_and_kill(dir: &Path, round: u64, writers: u64, work: Duration) -> Vec<Line> {
    let mut child = Command::new(env!("CARGO_BIN_EXE_crash_writer"))
        .arg(dir)
        .args([round.to_string(), writers.to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the writer starts");
    let out = child.stdout.take().expect("its output is piped");
    let (ready, is_ready) = mpsc::channel();
    let reader = thread::spawn(move || {
        let mut lines = Vec::new();
        // A line without its end was cut by the kill.
        let mut out = BufReader::new(out);
        let mut line = String::new();
        while out.read_line(&mut line).is_ok_and(|n| n > 0) && line.ends_with('\n') {
            let parsed: Line = line.trim_end().parse().expect("a line of the writer");
            if parsed == Line::Ready {
                ready.send(()).expect("the test waits for it");
            }
            lines.push(parsed);
            line.clear();
        }
        lines
    });
    let opened = is_ready.recv_timeout(OPEN_TIMEOUT);
    thread::sleep(work);
    let early = child.try_wait().expect("the writer can be asked");
    child.kill().expect("the writer can be killed");
    child.wait().expect("the writer ends");
    opened.unwrap_or_else(|_| panic!("round {round}: the writer could not open the directory"));
    assert!(
        early.is_none(),
        "round {round}: the writer ended by itself: {early:?}"
    );
    reader.join().expect("the reader ends")
}

fn apply(model: &mut Model, operation: &Operation) {
    for (number, version) in &operation.changes {
        let key = (operation.writer, *number);
        match version {
            Some(version) => model.insert(key, *version),
            None => model.remove(&key),
        };
    }
}

/// Compares the collection with the model; an operation that was under way may have happened.
fn check(
    collection: &Collection,
    model: &mut Model,
    open: &BTreeMap<u32, Operation>,
    context: &str,
) {
    let mut found = BTreeMap::new();
    for meta in collection.metas().expect("lists") {
        let meta = meta.unwrap_or_else(|error| panic!("{context}: {error}"));
        found.insert(meta.id.clone(), version(&meta));
    }
    for operation in open.values() {
        let mut after = model.clone();
        apply(&mut after, operation);
        let mine = |model: &Model| -> BTreeMap<_, _> {
            let mine = model
                .iter()
                .filter(|((writer, _), _)| *writer == operation.writer);
            mine.map(|((writer, number), version)| (id(*writer, *number), *version))
                .collect()
        };
        let prefix = format!("{}-", operation.writer);
        let stored: BTreeMap<_, _> = found
            .iter()
            .filter(|(id, _)| id.as_str().starts_with(&prefix))
            .map(|(id, version)| (id.clone(), *version))
            .collect();
        if stored == mine(&after) {
            *model = after;
        } else {
            assert_eq!(
                stored,
                mine(model),
                "{context}: {operation:?} was under way"
            );
        }
    }
    let expected: BTreeMap<_, _> = model
        .iter()
        .map(|((writer, number), version)| (id(*writer, *number), *version))
        .collect();
    assert_eq!(found, expected, "{context}");
    assert_eq!(collection.stats().items, model.len(), "{context}");
    for ((writer, number), version) in &*model {
        let stored = collection.get(&id(*writer, *number)).expect("reads");
        assert_eq!(stored, Some(item(*writer, *number, *version)), "{context}");
    }
    check_search(collection, model, context);
}

fn version(meta: &ItemMeta) -> u64 {
    let version = meta
        .payload
        .get("version")
        .and_then(serde_json::Value::as_u64);
    version.expect("every item has its version in its payload")
}

/// Every item finds itself, no hit is stale, and the default search is as good as it was.
fn check_search(collection: &Collection, model: &Model, context: &str) {
    let k = NonZeroUsize::new(10).expect("not zero");
    let (mut common, mut all) = (0, 0);
    for ((writer, number), version) in model.iter().step_by(1 + model.len() / 50) {
        let wanted = item(*writer, *number, *version);
        let query = Query {
            embedding: wanted.shared.clone(),
            space: spaces().shared(),
        };
        let target = match wanted.modality {
            Modality::Text => Target::Text,
            Modality::Image => Target::Image,
        };
        let mut request = SearchRequest::new(query, target, k);
        let hits = collection.search(&request).expect("searches").hits;
        request.exact = true;
        let exact = collection.search(&request).expect("searches").hits;
        assert_eq!(
            exact[0].id, wanted.id,
            "{context}: an item is nearest to itself"
        );
        for hit in hits.iter().chain(&exact) {
            let stored = collection
                .get(&hit.id)
                .expect("reads")
                .expect("a hit is an item");
            let score = stored.shared.cosine(&request.parts[0].query.embedding);
            assert!(
                (score - hit.score.0).abs() < 1e-5,
                "{context}: {} is stale",
                hit.id
            );
        }
        common += exact
            .iter()
            .filter(|e| hits.iter().any(|hit| hit.id == e.id))
            .count();
        all += exact.len();
    }
    let recall = if all == 0 {
        1.0
    } else {
        common as f64 / f64::from(all as u32)
    };
    assert!(recall >= RECALL, "{context}: recall@10 is {recall}");
}
