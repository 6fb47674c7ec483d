//! What a folder must hold after a power cut, and whether it does.

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroUsize,
    path::Path,
};

use embedding::Modality;
use engine::{Collection, Engine, Query, SearchRequest, Target};

use crate::load::{
    self, COLLECTION, CREATOR, DATA, Line, Operation, WRITERS, config, id, item, spaces,
};

/// Version of every item of one writer that is there, by number.
type Items = BTreeMap<u32, u64>;

/// What the folder may hold: for each writer one of these.
#[derive(Debug, Clone)]
pub struct Expected {
    writers: BTreeMap<u32, BTreeSet<Items>>,
    /// Whether the collection must be there.
    created: bool,
}

impl Expected {
    /// An empty folder.
    pub fn nothing() -> Self {
        let empty = BTreeSet::from([Items::new()]);
        Self {
            writers: (0..WRITERS).map(|writer| (writer, empty.clone())).collect(),
            created: false,
        }
    }

    /// What it may be after a cut right after `time`: what was acknowledged is there, what was
    /// under way is there as a whole or not at all.
    pub fn at(&self, lines: &[(usize, Line)], time: usize) -> Self {
        let mut expected = self.clone();
        let mut open: BTreeMap<u32, &Operation> = BTreeMap::new();
        for (_, line) in lines.iter().filter(|(when, _)| *when <= time) {
            match line {
                Line::Begin(operation) => {
                    open.insert(operation.writer, operation);
                }
                Line::End(CREATOR) => expected.created = true,
                Line::End(writer) => {
                    let operation = open.remove(writer).expect("what ends has begun");
                    let before = &expected.writers[writer];
                    let after = before.iter().map(|items| apply(items, operation)).collect();
                    expected.writers.insert(*writer, after);
                }
            }
        }
        for (writer, operation) in open.iter().filter(|(writer, _)| **writer != CREATOR) {
            let before = expected.writers[writer].clone();
            let after = before.iter().map(|items| apply(items, operation));
            let either = after.chain(before.iter().cloned()).collect();
            expected.writers.insert(*writer, either);
        }
        expected
    }
}

fn apply(items: &Items, operation: &Operation) -> Items {
    let mut items = items.clone();
    for (number, version) in &operation.changes {
        match version {
            Some(version) => items.insert(*number, *version),
            None => items.remove(number),
        };
    }
    items
}

/// Opens the folder and demands what must be there; then writes to it, and demands that, too,
/// after another open.
pub fn check(root: &Path, expected: &Expected) {
    let dir = &root.join(DATA);
    let mut found = open_and_compare(dir, expected);
    let engine = Engine::open(dir, config()).expect("opens again");
    let collection = engine.create(COLLECTION, &spaces()).expect("creates");
    let mut changed = Expected::nothing();
    for writer in 0..WRITERS {
        let version = u64::MAX - u64::from(writer);
        collection
            .upsert(vec![item(writer, 0, version)])
            .expect("upserts");
        let items = found.entry(writer).or_default();
        items.insert(0, version);
        changed
            .writers
            .insert(writer, BTreeSet::from([items.clone()]));
    }
    changed.created = true;
    drop(collection);
    engine.close();
    open_and_compare(dir, &changed);
}

fn open_and_compare(dir: &Path, expected: &Expected) -> BTreeMap<u32, Items> {
    let engine = Engine::open(dir, config()).unwrap_or_else(|error| {
        let source = std::error::Error::source(&error).map(ToString::to_string);
        panic!("it does not open: {error}: {source:?}")
    });
    let Some(collection) = engine.collection(COLLECTION) else {
        assert!(!expected.created, "the collection is gone");
        return BTreeMap::new();
    };
    let mut found: BTreeMap<u32, Items> = BTreeMap::new();
    for meta in collection.metas().expect("lists") {
        let meta = meta.unwrap_or_else(|error| panic!("an item does not read: {error}"));
        let (writer, number) = meta.id.as_str().split_once('-').expect("an id of ours");
        let (writer, number) = (writer.parse().expect("who"), number.parse().expect("what"));
        let version = meta
            .payload
            .get("version")
            .and_then(serde_json::Value::as_u64);
        let version = version.expect("every item has its version in its payload");
        let older = found.entry(writer).or_default().insert(number, version);
        assert_eq!(older, None, "{} is listed twice", meta.id);
        let stored = collection.get(&meta.id).expect("reads");
        assert_eq!(stored, Some(item(writer, number, version)), "its content");
    }
    for (writer, either) in &expected.writers {
        let items = found.entry(*writer).or_default();
        assert!(
            either.contains(items),
            "{}",
            difference(*writer, items, either)
        );
    }
    let count: usize = found.values().map(BTreeMap::len).sum();
    assert_eq!(collection.stats().items, count, "items are counted");
    check_search(&collection, &found);
    found
}

fn difference(writer: u32, items: &Items, either: &BTreeSet<Items>) -> String {
    let apart = either.iter().map(|wanted| {
        let lost: Vec<_> = wanted
            .iter()
            .filter(|w| items.get(w.0) != Some(w.1))
            .collect();
        let more: Vec<_> = items
            .iter()
            .filter(|i| wanted.get(i.0) != Some(i.1))
            .collect();
        format!("expected {lost:?}, found {more:?}")
    });
    let apart: Vec<String> = apart.collect();
    format!(
        "writer {writer} has something else than it may have: {}",
        apart.join("; ")
    )
}

/// Every item finds itself, and no hit is stale.
fn check_search(collection: &Collection, found: &BTreeMap<u32, Items>) {
    for (writer, items) in found {
        for (number, version) in items.iter().step_by(1 + items.len() / 4) {
            let wanted = item(*writer, *number, *version);
            let query = Query {
                embedding: wanted.shared.clone(),
                space: load::spaces().shared(),
            };
            let target = match wanted.modality {
                Modality::Text => Target::Text,
                Modality::Image => Target::Image,
            };
            let k = NonZeroUsize::new(5).expect("not zero");
            let mut request = SearchRequest::new(query, target, k);
            for exact in [true, false] {
                request.exact = exact;
                let hits = collection.search(&request).expect("searches").hits;
                assert!(
                    !exact || hits[0].id == id(*writer, *number),
                    "{} is nearest to itself, got {}",
                    wanted.id,
                    hits[0].id
                );
                for hit in hits {
                    let stored = collection.get(&hit.id).expect("reads");
                    let stored = stored.expect("a hit is an item");
                    let score = stored.shared.cosine(&request.parts[0].query.embedding);
                    assert!((score - hit.score.0).abs() < 1e-5, "{} is stale", hit.id);
                }
            }
        }
    }
}
