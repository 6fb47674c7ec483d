//! Random operations on the engine and on a plain map; both must give the same answers.

use std::{collections::BTreeMap, mem, sync::Arc};

use embedding::Modality;
use proptest::prelude::*;

use super::*;
use crate::{
    ItemMeta, Upserted,
    store::{Batch, Entry, MemoryStore, Store, StoreError},
};

/// A store in memory that the test keeps a hand on.
#[derive(Clone)]
pub(super) struct Kept(pub(super) Arc<MemoryStore>);

impl Store for Kept {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.0.get(key)
    }

    fn scan<'a>(&'a self, prefix: &[u8]) -> Box<dyn Iterator<Item = Entry> + Send + 'a> {
        self.0.scan(prefix)
    }

    fn apply(&self, batch: Batch) -> Result<(), StoreError> {
        self.0.apply(batch)
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.0.sync()
    }
}

#[derive(Debug, Clone)]
enum Op {
    Upsert(Vec<(u8, bool, u8)>),
    Delete(Vec<u8>),
    Seal,
    Reopen,
}

fn op() -> impl Strategy<Value = Op> {
    // Few ids and fewer contents, so that there are updates, moves between modalities, and ties.
    let write = (0..16_u8, any::<bool>(), 0..6_u8);
    prop_oneof![
        4 => prop::collection::vec(write, 0..6).prop_map(Op::Upsert),
        2 => prop::collection::vec(0..16_u8, 0..4).prop_map(Op::Delete),
        1 => Just(Op::Seal),
        1 => Just(Op::Reopen),
    ]
}

fn written((name, is_image, content): (u8, bool, u8)) -> Item {
    let modality = if is_image {
        Modality::Image
    } else {
        Modality::Text
    };
    item(&format!("id-{name}"), modality, &content.to_string())
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

type Model = BTreeMap<ItemId, Item>;

fn check(collection: &Collection, model: &Model) {
    let mut metas: Vec<ItemMeta> = collection
        .metas()
        .expect("lists")
        .collect::<Result<_, _>>()
        .expect("reads");
    let mut versions: Vec<u64> = metas
        .iter_mut()
        .map(|m| mem::take(&mut m.version))
        .collect();
    versions.sort_unstable();
    assert!(versions.is_sorted_by(|a, b| a < b), "no two have the same");
    assert_eq!(metas, model.values().map(meta).collect::<Vec<_>>());
    let items: Vec<Item> = collection
        .items()
        .expect("lists")
        .collect::<Result<_, _>>()
        .expect("reads");
    assert!(items.iter().eq(model.values()));
    let stats = collection.stats();
    assert_eq!(stats.items, model.len());
    assert_eq!(
        stats.sealed_rows + stats.tail_rows - stats.deleted_rows,
        model.len()
    );
    for item in model.values() {
        assert_eq!(
            collection.get(&item.id).expect("reads").as_ref(),
            Some(item)
        );
    }
    for (content, target) in [
        ("0", Target::Both),
        ("3", Target::Image),
        ("nothing", Target::Text),
    ] {
        let query = shared(&item("query", Modality::Text, content).shared);
        let mut request = SearchRequest::new(query.clone(), target, count(20));
        let all = collection.search(&request).expect("searches").hits;
        for modality in Modality::ALL.into_iter().filter(|m| target.includes(*m)) {
            let mut expected: Vec<(f32, &ItemId)> = model
                .values()
                .filter(|item| item.modality == modality)
                .map(|item| (item.shared.cosine(&query.embedding), &item.id))
                .collect();
            expected.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
            let of_modality = || all.iter().filter(|hit| hit.modality == modality);
            let found: Vec<&ItemId> = of_modality().map(|hit| &hit.id).collect();
            let ids: Vec<&ItemId> = expected.iter().map(|(_, id)| *id).collect();
            assert_eq!(found, ids);
            for (hit, (score, _)) in of_modality().zip(&expected) {
                assert!((hit.score.0 - score).abs() < 1e-5);
            }
        }
        request.exact = true;
        for k in 1..=all.len() {
            request.k = count(k);
            assert_eq!(
                collection.search(&request).expect("searches").hits,
                all[..k],
                "k = {k}"
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 64,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn any_operations_leave_what_a_plain_map_holds(ops in prop::collection::vec(op(), 1..25)) {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let store = Kept(Arc::new(MemoryStore::new()));
        let open = || {
            let store = Box::new(store.clone());
            Engine::with_store(store, Some(dir.path().to_owned()), small()).expect("opens")
        };
        let mut engine = open();
        let mut collection = engine.create("c", &spaces()).expect("creates");
        let mut model = Model::new();
        for op in ops {
            match op {
                Op::Upsert(writes) => {
                    let items: Vec<Item> = writes.into_iter().map(written).collect();
                    let mut expected = Upserted::default();
                    let before = model.len();
                    model.extend(items.iter().map(|item| (item.id.clone(), item.clone())));
                    expected.inserted = model.len() - before;
                    expected.updated = items.len() - expected.inserted;
                    prop_assert_eq!(collection.upsert(items.clone()).expect("upserts"), expected);
                    let stats = collection.stats();
                    collection.upsert(items).expect("upserts the same again");
                    prop_assert_eq!(collection.stats().items, stats.items);
                }
                Op::Delete(names) => {
                    let ids: Vec<ItemId> = names.iter().map(|n| id(&format!("id-{n}"))).collect();
                    let there = ids.iter().filter_map(|id| model.remove(id)).count();
                    prop_assert_eq!(collection.delete(&ids).expect("deletes"), there);
                }
                Op::Seal => {
                    collection.seal().expect("seals");
                    prop_assert_eq!(collection.stats().tail_rows, 0);
                }
                Op::Reopen => {
                    drop(collection);
                    drop(engine);
                    engine = open();
                    collection = engine.collection("c").expect("is there");
                }
            }
            check(&collection, &model);
        }
    }
}

#[test]
fn a_store_that_stops_in_the_middle_of_any_write_reopens_with_what_was_acknowledged() {
    let run = |stop: usize| {
        let store = Kept(Arc::new(MemoryStore::stopping_after(stop)));
        let mut model = Model::new();
        let mut created = false;
        let mut script = || -> Result<(), EngineError> {
            let engine = Engine::with_store(Box::new(store.clone()), None, small())?;
            let c = engine.create("c", &spaces())?;
            created = true;
            for i in 0..12_u8 {
                let items = vec![written((i, i % 2 == 0, i)), written((i / 2, true, i))];
                c.upsert(items.clone())?;
                model.extend(items.into_iter().map(|item| (item.id.clone(), item)));
                let gone = id(&format!("id-{}", i / 3));
                if i % 3 == 2 {
                    c.delete(std::slice::from_ref(&gone))?;
                    model.remove(&gone);
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
            check(&collection, &model);
        }
        (finished, store.0.written_bytes())
    };
    let (finished, total) = run(usize::MAX);
    assert!(finished);
    for stop in (0..total).step_by(97) {
        assert!(!run(stop).0, "stopped after {stop} of {total} bytes");
    }
}
