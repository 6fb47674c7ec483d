//! Random operations on the engine and on a plain map; both must give the same answers.
//!
//! `DIPTYCH_MODEL_SEEDS` (how many runs), `DIPTYCH_MODEL_STEPS` (of each) and `DIPTYCH_MODEL_SEED`
//! (of the first) make it longer. A failure is made small and printed with its seed.

mod agree;
mod ops;
mod oracle;
mod shrink;
mod world;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, atomic::Ordering::SeqCst},
};

use embedding::{Modality, mix};
use ops::{Model, Op};
use proptest::{
    prelude::*,
    strategy::ValueTree,
    test_runner::{RngAlgorithm, TestRng, TestRunner},
};
use world::{Seen, World};

use super::*;
use crate::{
    ItemMeta,
    error::panic_text,
    store::{Batch, Entry, MemoryStore, Store, StoreError},
};

const SEEDS: u64 = 4;
const STEPS: u64 = 150;

/// A store in memory that the test keeps a hand on.
#[derive(Clone)]
pub(super) struct Kept(pub(super) Arc<MemoryStore>);

impl Store for Kept {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.0.get(key)
    }

    fn scan_after<'a>(
        &'a self,
        prefix: &[u8],
        after: Option<&[u8]>,
    ) -> Box<dyn Iterator<Item = Entry> + Send + 'a> {
        self.0.scan_after(prefix, after)
    }

    fn apply(&self, batch: Batch) -> Result<(), StoreError> {
        self.0.apply(batch)
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.0.sync()
    }
}

/// What is listed of an item, but for its version.
pub(super) fn meta(item: &Item) -> ItemMeta {
    let Item {
        id,
        modality,
        payload,
        source,
        content_hash,
        text,
        ..
    } = item.clone();
    ItemMeta {
        id,
        version: 0,
        modality,
        payload,
        source,
        content_hash,
        text,
    }
}

fn setting(name: &str, default: u64) -> u64 {
    let Ok(text) = std::env::var(name) else {
        return default;
    };
    let number = text.parse();
    number.unwrap_or_else(|_| panic!("{name} is {text}, expected a whole number"))
}

/// Runs the steps; at which one they went wrong, and how.
fn run(steps: &[Op], seen: &Seen) -> Option<(usize, String)> {
    let mut at = 0;
    let ran = catch_unwind(AssertUnwindSafe(|| {
        let mut world = World::new(seen);
        for (i, step) in steps.iter().enumerate() {
            at = i;
            world.apply(step)?;
        }
        Ok(())
    }));
    let ran = ran.unwrap_or_else(|panic| Err(format!("panic: {}", panic_text(panic.as_ref()))));
    ran.err().map(|wrong| (at, wrong))
}

#[test]
fn any_operations_leave_what_a_plain_map_holds() {
    let first = setting("DIPTYCH_MODEL_SEED", 1);
    let steps = setting("DIPTYCH_MODEL_STEPS", STEPS);
    let seen = Seen::default();
    for seed in first..first + setting("DIPTYCH_MODEL_SEEDS", SEEDS) {
        let bytes: Vec<u8> = (0..4)
            .flat_map(|i| mix(seed ^ mix(i)).to_le_bytes())
            .collect();
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
        let mut runner = TestRunner::new_with_rng(ProptestConfig::default(), rng);
        let tree = |_| {
            ops::op()
                .new_tree(&mut runner)
                .expect("nothing is filtered out")
        };
        let trees: Vec<_> = (0..steps).map(tree).collect();
        let all: Vec<Op> = trees.iter().map(ValueTree::current).collect();
        let Some((at, wrong)) = run(&all, &seen) else {
            continue;
        };
        let small = shrink::shrink(trees, |steps| run(steps, &seen).map(|(at, _)| at));
        let small: Vec<Op> = small.iter().map(ValueTree::current).collect();
        let again = run(&small, &seen).map(|(_, wrong)| wrong);
        panic!(
            "seed {seed}, step {at} of {steps}: {wrong}\nmade small, {} steps: {small:#?}\n{}",
            small.len(),
            again.unwrap_or_else(|| "which do not always fail".into())
        );
    }
    let seen = [
        ("writes torn", seen.torn),
        ("writes whole", seen.whole),
        ("files damaged", seen.damaged),
        ("filters", seen.filtered),
        ("inexact answers", seen.inexact),
        ("conflicts of versions", seen.conflicts),
        ("snapshots restored", seen.restored),
    ];
    for (what, count) in seen {
        let count = count.load(SeqCst);
        assert!(count > 0, "no {what}: nothing was tested");
    }
}

#[test]
fn a_store_that_stops_in_the_middle_of_any_write_reopens_with_what_was_acknowledged() {
    let written = |name: u8, is_image| {
        let modality = if is_image {
            Modality::Image
        } else {
            Modality::Text
        };
        item(&format!("id-{name}"), modality, &name.to_string())
    };
    let run = |stop: usize| {
        let store = Kept(Arc::new(MemoryStore::stopping_after(stop)));
        let mut model = Model::default();
        let mut created = false;
        let mut script = || -> Result<(), EngineError> {
            let engine = Engine::with_store(Box::new(store.clone()), None, small())?;
            let c = engine.create("c", &spaces())?;
            created = true;
            for i in 0..12_u8 {
                let items = vec![written(i, i % 2 == 0), written(i / 2, true)];
                c.upsert(items.clone())?;
                let named = items.into_iter().map(|item| (item.id.clone(), item));
                model.items.extend(named);
                let gone = id(&format!("id-{}", i / 3));
                if i % 3 == 2 {
                    c.delete(std::slice::from_ref(&gone))?;
                    model.items.remove(&gone);
                }
            }
            Ok(())
        };
        let finished = script().is_ok();
        let reopened = Engine::with_store(Box::new(store.0.reopened()), None, small());
        let engine = reopened.expect("opens after any stop");
        assert_eq!(
            engine.collection("c").is_some(),
            created,
            "stopped after {stop} bytes"
        );
        if let Some(collection) = engine.collection("c") {
            let agrees = agree::holds_all(&collection, &model)
                .and_then(|()| agree::answers_all(&collection, &model));
            assert_eq!(agrees, Ok(()), "stopped after {stop} bytes");
        }
        (finished, store.0.written_bytes())
    };
    let (finished, total) = run(usize::MAX);
    assert!(finished);
    for stop in (0..total).step_by(97) {
        assert!(!run(stop).0, "stopped after {stop} of {total} bytes");
    }
}
