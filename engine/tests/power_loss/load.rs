//! What the recorded process writes, and how it says so.
//!
//! It prints one line before each operation and one after it. What was told to have ended must be
//! there after a power cut; what had begun may be there as a whole, or not at all.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    num::NonZeroUsize,
    path::Path,
    sync::Arc,
    thread,
};

use embedding::{Encoder, HashEncoder, Modality, Spaces, mix};
use engine::{Collection, Engine, EngineConfig, Item, ItemId};

/// The data directory in the recorded folder. It is not there at first, nor is the folder above it.
pub const DATA: &str = "made/data";
/// Name of the collection.
pub const COLLECTION: &str = "load";
/// Threads that write at the same time, each on ids of its own.
pub const WRITERS: u32 = 4;
/// Ids of each writer: few, so that most writes replace something and the store reuses its space.
const IDS: u64 = 40;
/// Dim of every embedding.
const DIM: usize = 16;
/// Versions of one run; far more than it writes.
const VERSIONS_PER_RUN: u64 = 1_000_000;
/// Stands for the creation of the collection, which the first run does.
pub const CREATOR: u32 = WRITERS;

/// How much is written.
#[derive(Debug, Clone, Copy)]
pub struct Amount {
    /// Times that the directory is opened, written to and closed.
    pub runs: u64,
    /// Operations of each writer in each run.
    pub operations: u64,
}

/// Settings under which indexes are built all the time.
pub fn config() -> EngineConfig {
    EngineConfig {
        seal_rows: 32,
        graph_rows: 32,
        shards: NonZeroUsize::new(1),
        store_cache_bytes: 16 << 20,
        ..EngineConfig::default()
    }
}

/// The spaces of the collection.
pub fn spaces() -> Spaces {
    Encoder::<&str>::spaces(&HashEncoder::new(Modality::Text, DIM)).clone()
}

/// Id of a writer's item.
pub fn id(writer: u32, number: u32) -> ItemId {
    ItemId::new(format!("{writer}-{number:04}")).expect("plain characters")
}

/// The item that has this id and version; everything in it follows from them.
pub fn item(writer: u32, number: u32, version: u64) -> Item {
    let id = id(writer, number);
    let modality = if number.is_multiple_of(3) && version.is_multiple_of(2) {
        Modality::Text
    } else {
        Modality::Image
    };
    let content = format!("{id} {version}");
    let encoder = HashEncoder::new(modality, DIM);
    let encoded = encoder.encode(&[&content]).expect("bytes encode").remove(0);
    let mut item = Item::new(id, modality, encoded.shared);
    item.specific = encoded.specific;
    item.payload.insert("version".into(), version.into());
    item.text = Some(words(mix(version ^ (u64::from(number) << 32))));
    item
}

/// Text whose length is mostly that of a record, sometimes that of several pages of the store,
/// and now and then more than the store keeps in its log.
fn words(seed: u64) -> String {
    let most = match seed % 64 {
        0 => 300_000,
        1..8 => 30_000,
        _ => 4_000,
    };
    let length = mix(seed) % most;
    let letters = (0..length / 8).flat_map(|i| mix(seed ^ i).to_le_bytes());
    letters.map(|byte| char::from(b'a' + byte % 26)).collect()
}

/// What a writer does in one call: for each number a new version, or `None` to delete it. Either
/// all of them have a version or none has.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Operation {
    /// Who.
    pub writer: u32,
    /// What.
    pub changes: BTreeMap<u32, Option<u64>>,
}

/// A line of the recorded process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// An operation is about to be called.
    Begin(Operation),
    /// The last operation of this writer has returned.
    End(u32),
}

impl Line {
    fn write(&self) -> String {
        match self {
            Self::End(writer) => format!("end {writer}\n"),
            Self::Begin(Operation { writer, changes }) => {
                let changes = changes.iter().map(|(number, version)| match version {
                    Some(version) => format!(" {number}={version}"),
                    None => format!(" {number}=-"),
                });
                format!("begin {writer}{}\n", changes.collect::<String>())
            }
        }
    }

    /// Reads a line back; `None` when it is none of ours.
    pub fn read(line: &str) -> Option<Self> {
        let mut words = line.trim_end().split(' ');
        let word = words.next()?;
        let writer = words.next()?.parse().ok()?;
        let change = |word: &str| {
            let (number, version) = word.split_once('=')?;
            let version = match version {
                "-" => None,
                version => Some(version.parse().ok()?),
            };
            Some((number.parse().ok()?, version))
        };
        match word {
            "end" => Some(Self::End(writer)),
            "begin" => {
                let changes = words.map(change).collect::<Option<_>>()?;
                Some(Self::Begin(Operation { writer, changes }))
            }
            _ => None,
        }
    }
}

/// The recorded process: opens, writes with all writers, and closes, as often as told.
pub fn write(root: &Path, seed: u64, amount: Amount) {
    for run in 1..=amount.runs {
        let engine = Engine::open(&root.join(DATA), config()).expect("the directory opens");
        tell(&Line::Begin(Operation {
            writer: CREATOR,
            ..Operation::default()
        }));
        let collection = engine.create(COLLECTION, &spaces()).expect("creates");
        tell(&Line::End(CREATOR));
        thread::scope(|scope| {
            for writer in 0..WRITERS {
                let collection = &collection;
                let first = (mix(seed) % 1000 * 1000 + run) * VERSIONS_PER_RUN;
                scope.spawn(move || write_some(collection, writer, first, amount.operations));
            }
        });
        if run % 2 == 0 {
            collection.seal().expect("seals");
        }
        drop(collection);
        engine.close();
    }
}

fn write_some(collection: &Arc<Collection>, writer: u32, first: u64, operations: u64) {
    let mut state = mix(first + u64::from(writer));
    let mut below = |end: u64| {
        state = mix(state);
        state % end
    };
    for version in first..first + operations {
        let delete = below(4) == 0;
        // Mostly a few items; now and then a batch that is larger than a part of the store's log.
        let most = if below(16) == 0 { 100 } else { 6 };
        let numbers: Vec<u32> = (0..=below(most)).map(|_| below(IDS) as u32).collect();
        let changes = numbers.into_iter();
        let changes = changes.map(|n| (n, (!delete).then_some(version))).collect();
        let operation = Operation { writer, changes };
        tell(&Line::Begin(operation.clone()));
        let numbers = operation.changes.keys();
        if delete {
            let ids: Vec<_> = numbers.map(|n| id(writer, *n)).collect();
            collection.delete(&ids).expect("deletes");
        } else {
            let items = numbers.map(|n| item(writer, *n, version));
            collection.upsert(items.collect()).expect("upserts");
        }
        tell(&Line::End(writer));
    }
}

/// One write per line, so that the recording has each of them at one moment.
fn tell(line: &Line) {
    let mut out = io::stdout().lock();
    let written = out
        .write_all(line.write().as_bytes())
        .and_then(|()| out.flush());
    written.expect("standard output takes a line");
}
