//! Versions, conditions, changes of payloads, and how durable a write is.
//!
//! Over 400 lines: the tests share what asks for a write and reads what became of it.

mod unsynced;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use embedding::Modality;
use proptest::prelude::*;
use serde_json::{Value, json};
use unsynced::Unsynced;

use super::{model::Kept, *};
use crate::{
    Durability, Fields, Filter, ItemWrite, Outcome, Payload, PayloadChange, WriteOptions, Written,
    marks, store::MemoryStore,
};

const BUFFERED: WriteOptions = WriteOptions {
    durability: Durability::Buffered,
    most_payload_bytes: usize::MAX,
};
const FLUSHED: WriteOptions = WriteOptions {
    durability: Durability::Flushed,
    ..BUFFERED
};

fn payload(value: Value) -> Payload {
    match value {
        Value::Object(payload) => payload,
        other => panic!("{other} is no object"),
    }
}

fn text(name: &str) -> Item {
    item(name, Modality::Text, name)
}

fn merge(name: &str, patch: Value) -> ItemWrite {
    ItemWrite::payload(id(name), PayloadChange::Merge(payload(patch)))
}

fn notes(engine: &Engine) -> Arc<Collection> {
    engine.create("notes", &spaces()).expect("creates")
}

/// Every item with its version.
fn all(collection: &Collection) -> Vec<(Item, u64)> {
    let metas = collection.metas().expect("lists");
    let each = metas.map(|meta| {
        let id = meta.expect("reads").id;
        let stored = collection.get_with_version(&id).expect("reads");
        stored.expect("is there")
    });
    each.collect()
}

fn version_of(collection: &Collection, name: &str) -> Option<u64> {
    let stored = collection.get_with_version(&id(name)).expect("reads");
    stored.map(|(_, version)| version)
}

fn one(collection: &Arc<Collection>, write: ItemWrite) -> Result<Outcome, EngineError> {
    let written = collection.write(vec![write], FLUSHED)?;
    assert_eq!(written.durability, Durability::Flushed);
    Ok(written.outcomes[0])
}

fn buffered(collection: &Arc<Collection>, write: ItemWrite) {
    let written = collection.write(vec![write], BUFFERED).expect("is written");
    assert_eq!(written.durability, Durability::Buffered);
}

fn version(outcome: Result<Outcome, EngineError>) -> u64 {
    match outcome.expect("is written") {
        Outcome::Inserted(version) | Outcome::Updated(version) => version,
        other => panic!("{other:?} has no version"),
    }
}

#[test]
fn every_write_of_an_item_has_a_higher_version_than_all_before_whatever_happens_between() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let mut seen = Vec::new();
    for round in 0..3 {
        let engine = Engine::open(dir.path(), small()).expect("opens");
        let notes = notes(&engine);
        if let Some(last) = seen.last() {
            assert_eq!(version_of(&notes, "a"), Some(*last), "it is kept");
        }
        let again = one(&notes, ItemWrite::put(text("a")));
        assert_eq!(matches!(again, Ok(Outcome::Inserted(_))), round == 0);
        seen.push(version(again));
        seen.push(version(one(&notes, merge("a", json!({ "n": round })))));
        notes.seal().expect("seals");
        let gone = one(&notes, ItemWrite::delete(id("a"))).expect("deletes");
        assert_eq!(gone, Outcome::Deleted);
        let gone = one(&notes, ItemWrite::delete(id("a"))).expect("finds nothing");
        assert_eq!(gone, Outcome::NotThere);
        seen.push(version(one(&notes, ItemWrite::put(text("a")))));
        let metas = notes.metas().expect("lists");
        let listed: Vec<u64> = metas.map(|meta| meta.expect("reads").version).collect();
        assert_eq!(listed, seen[seen.len() - 1..]);
        let query = shared(&text("a").shared);
        let answer = notes.search(&SearchRequest::new(query, Target::Both, count(1)));
        assert_eq!(answer.expect("searches").hits[0].version, listed[0]);
    }
    assert!(seen.is_sorted_by(|a, b| a < b) && seen[0] > 0, "{seen:?}");
}

#[test]
fn a_write_whose_condition_does_not_hold_changes_nothing_and_says_what_there_is() {
    let engine = Engine::in_memory(small());
    let notes = notes(&engine);
    let known = version(one(&notes, ItemWrite::put(text("a")).if_version(0)));
    let before = all(&notes);
    let other = Item {
        id: id("a"),
        ..text("other")
    };
    let cases = [
        (ItemWrite::put(other.clone()).if_version(0), 0, Some(known)),
        (
            ItemWrite::put(other).if_version(known + 1),
            known + 1,
            Some(known),
        ),
        (merge("a", json!({ "n": 1 })).if_version(9), 9, Some(known)),
        (ItemWrite::delete(id("a")).if_version(9), 9, Some(known)),
        (ItemWrite::put(text("x")).if_version(known), known, None),
        (merge("x", json!({ "n": 1 })).if_version(known), known, None),
        (ItemWrite::delete(id("x")).if_version(known), known, None),
    ];
    for (write, wanted, is) in cases {
        let name = write.id().to_string();
        let batch = vec![ItemWrite::put(text("b")), write, ItemWrite::delete(id("a"))];
        match notes.write(batch, FLUSHED) {
            Err(EngineError::VersionConflict {
                collection,
                id,
                expected,
                found,
            }) => assert_eq!(
                (&*collection, id, expected, found),
                ("notes", name, wanted, is)
            ),
            other => panic!("{other:?}"),
        }
        assert_eq!(all(&notes), before);
        assert_eq!((notes.stats().items, notes.stats().tail_rows), (1, 1));
    }
    let told = |write| one(&notes, write).expect_err("is refused").to_string();
    assert_eq!(
        told(merge("x", json!({})).if_version(4)),
        "item x of collection notes is not there, expected version 4"
    );
    assert_eq!(
        told(ItemWrite::put(text("a")).if_version(0)),
        format!("item a of collection notes has version {known}, expected that it is not there")
    );
    let next = version(one(&notes, merge("a", json!({ "n": 1 })).if_version(known)));
    assert!(next > known);
    let gone = one(&notes, ItemWrite::delete(id("a")).if_version(next));
    assert_eq!(gone.expect("deletes"), Outcome::Deleted);
}

#[test]
fn writers_that_count_by_comparing_versions_lose_no_increment() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let engine = Engine::open(dir.path(), small()).expect("opens");
    let notes = notes(&engine);
    one(&notes, ItemWrite::put(text("a"))).expect("is written");
    one(&notes, merge("a", json!({ "n": 0 }))).expect("is written");
    let add_one = |options| loop {
        let read = notes.get_with_version(&id("a")).expect("reads");
        let (item, version) = read.expect("is there");
        let n = item.payload["n"].as_u64().expect("a number");
        let write = merge("a", json!({ "n": n + 1 })).if_version(version);
        match notes.write(vec![write], options) {
            Ok(_) => return,
            Err(EngineError::VersionConflict { .. }) => {}
            Err(other) => panic!("{other}"),
        }
    };
    std::thread::scope(|scope| {
        for options in [FLUSHED, BUFFERED, FLUSHED, BUFFERED] {
            scope.spawn(move || (0..25).for_each(|_| add_one(options)));
        }
    });
    let item = notes.get(&id("a")).expect("reads").expect("is there");
    assert_eq!(item.payload["n"], 100);
    assert_eq!(notes.stats().tail_rows, 1);
}

#[test]
fn a_changed_payload_keeps_the_rows_and_everything_else_and_filters_see_it_at_once() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let store = Kept(Arc::new(MemoryStore::new()));
    let open = || {
        let dir = Some(dir.path().to_owned());
        Engine::with_store(Box::new(store.clone()), dir, small()).expect("opens")
    };
    let fields: Fields = serde_json::from_value(json!({ "n": "integer" })).expect("fields");
    let engine = open();
    let notes = engine
        .create_with_fields("notes", &spaces(), &fields)
        .expect("creates");
    let full = |i: u32| Item {
        payload: payload(json!({ "n": i, "deep": { "a": 1, "b": 2 }, "other": i })),
        source: Some(format!("/{i}")),
        content_hash: Some([7; 32]),
        text: Some(format!("words {i}")),
        ..text(&format!("{i}"))
    };
    let items: Vec<Item> = (0..20).map(full).collect();
    notes.upsert(items.clone()).expect("upserts");
    notes.seal().expect("seals");
    let stats = notes.stats();
    let patch = json!({ "n": 100, "deep": { "a": null, "c": 3 }, "other": null });
    one(&notes, merge("3", patch)).expect("is written");
    let new = payload(json!({ "n": 100 }));
    one(
        &notes,
        ItemWrite::payload(id("4"), PayloadChange::Replace(new.clone())),
    )
    .expect("is written");
    let check = |notes: &Arc<Collection>| {
        assert_eq!(notes.stats(), stats, "no row is new");
        let mut expected = items.clone();
        expected[3].payload = payload(json!({ "n": 100, "deep": { "b": 2, "c": 3 } }));
        expected[4].payload = new.clone();
        for item in &expected {
            let stored = notes.get(&item.id).expect("reads");
            assert_eq!(stored.as_ref(), Some(item));
        }
        for (n, found) in [
            (100, vec!["3", "4"]),
            (3, vec![]),
            (4, vec![]),
            (5, vec!["5"]),
        ] {
            let filter = json!({ "must": [{ "field": "n", "eq": n }] });
            let query = shared(&items[3].shared);
            let mut request = SearchRequest::new(query, Target::Text, count(20));
            request.filter = Some(Filter::from_json(&filter).expect("a filter"));
            let mut ids = ids(notes, &request);
            ids.sort_unstable();
            assert_eq!(ids, found, "n = {n}");
        }
    };
    check(&notes);
    assert_eq!(
        marks::marked(&store, 0).count(),
        0,
        "segments are still right"
    );
    drop(notes);
    drop(engine);
    let engine = open();
    check(&engine.collection("notes").expect("is there"));
}

#[test]
fn a_payload_that_cannot_change_so_is_refused_by_name_and_stays() {
    let engine = Engine::in_memory(small());
    let fields: Fields = serde_json::from_value(json!({ "n": "integer" })).expect("fields");
    let notes = engine
        .create_with_fields("notes", &spaces(), &fields)
        .expect("creates");
    one(&notes, ItemWrite::put(text("a"))).expect("is written");
    let before = all(&notes);
    let options = WriteOptions {
        most_payload_bytes: 40,
        ..FLUSHED
    };
    let told = |write| {
        notes
            .write(vec![write], options)
            .expect_err("is refused")
            .to_string()
    };
    assert_eq!(
        told(merge("x", json!({}))),
        "collection notes has no item x"
    );
    let wrong = told(merge("a", json!({ "n": "five" })));
    assert!(
        wrong.starts_with("field n of item a is \"five\""),
        "{wrong}"
    );
    // {"content":"a","long":"..."} has 25 bytes and these.
    assert_eq!(
        told(merge("a", json!({ "long": "x".repeat(16) }))),
        "the payload of item a would have 41 bytes, at most 40 are allowed"
    );
    assert_eq!(all(&notes), before);
    let fits = merge("a", json!({ "long": "x".repeat(15) }));
    notes.write(vec![fits], options).expect("is written");
}

#[test]
fn writes_of_one_call_act_one_after_the_other() {
    let engine = Engine::in_memory(small());
    let notes = notes(&engine);
    let batch = vec![
        ItemWrite::put(text("a")).if_version(0),
        merge("a", json!({ "n": 1 })),
        merge("a", json!({ "m": 2 })),
        ItemWrite::put(text("b")),
        ItemWrite::delete(id("b")),
        ItemWrite::put(text("c")),
        ItemWrite::delete(id("c")),
        ItemWrite::put(text("c")).if_version(0),
        ItemWrite::delete(id("d")),
    ];
    let outcomes = notes.write(batch, FLUSHED).expect("is written").outcomes;
    let is = |outcome: &Outcome| match outcome {
        Outcome::Inserted(_) => "inserted",
        Outcome::Updated(_) => "updated",
        Outcome::Deleted => "deleted",
        Outcome::NotThere => "not there",
    };
    assert_eq!(
        outcomes.iter().map(is).collect::<Vec<_>>(),
        [
            "inserted",
            "updated",
            "updated",
            "inserted",
            "deleted",
            "inserted",
            "deleted",
            "inserted",
            "not there"
        ]
    );
    let now = all(&notes);
    let names: Vec<&str> = now.iter().map(|(item, _)| item.id.as_str()).collect();
    assert_eq!(names, ["a", "c"]);
    let expected = json!({ "content": "a", "n": 1, "m": 2 });
    assert_eq!(Value::Object(now[0].0.payload.clone()), expected);
    assert_eq!(outcomes[2], Outcome::Updated(now[0].1));
    assert_eq!(outcomes[7], Outcome::Inserted(now[1].1));
    assert_eq!(notes.stats().items, 2);
}

#[test]
fn of_writes_that_stand_alone_the_bad_ones_fail_and_the_others_are_done() {
    let engine = Engine::in_memory(small());
    let notes = notes(&engine);
    let short = Embedding::normalized(vec![1.0; 7]).expect("has a direction");
    let wrong = Item::new(id("w"), Modality::Text, short);
    let batch = vec![
        ItemWrite::put(text("a")).if_version(0),
        ItemWrite::put(text("a")).if_version(0),
        ItemWrite::put(wrong),
        merge("x", json!({})),
        merge("a", json!({ "n": 1 })),
    ];
    let Written { outcomes, .. } = notes.write_each(batch, FLUSHED).expect("is written");
    let [
        Ok(Outcome::Inserted(first)),
        second,
        third,
        fourth,
        Ok(Outcome::Updated(last)),
    ] = &outcomes[..]
    else {
        panic!("{outcomes:?}");
    };
    assert!(
        matches!(second, Err(EngineError::VersionConflict { found, .. }) if *found == Some(*first))
    );
    assert!(matches!(third, Err(EngineError::WrongDim { .. })));
    assert!(matches!(fourth, Err(EngineError::NoItem { .. })));
    assert_eq!(
        (notes.stats().items, version_of(&notes, "a")),
        (1, Some(*last))
    );
    assert_eq!(all(&notes)[0].0.payload["n"], 1);
}

#[test]
fn a_buffered_write_is_seen_at_once_does_not_wait_for_the_disk_and_soon_is_on_it() {
    let store = Unsynced::default();
    let engine = Engine::with_store(Box::new(store.clone()), None, small()).expect("opens");
    let notes = notes(&engine);
    let held = store.hold_background();
    let syncs = store.syncs();
    for name in ["a", "b"] {
        let written = notes.write(vec![ItemWrite::put(text(name))], BUFFERED);
        assert_eq!(
            written.expect("is written").durability,
            Durability::Buffered
        );
    }
    assert_eq!(store.syncs(), syncs, "nobody waited");
    let request = SearchRequest::new(shared(&text("a").shared), Target::Both, count(2));
    assert_eq!(ids(&notes, &request)[0], "a");
    assert_eq!(notes.get(&id("a")).expect("reads"), Some(text("a")));
    assert_eq!(unsynced::items(&store.after_a_stop()), [""; 0]);
    assert_eq!(all(&notes).len(), 2, "it is listed, too");
    let written = notes.write(vec![ItemWrite::delete(id("b"))], BUFFERED);
    assert_eq!(
        written.expect("is written").durability,
        Durability::Buffered
    );
    assert_eq!(unsynced::items(&store.after_a_stop()), ["a", "b"]);
    drop(held);
    let came = (0..6000).any(|_| {
        std::thread::sleep(Duration::from_millis(10));
        unsynced::items(&store.after_a_stop()) == ["a"]
    });
    assert!(came, "nobody wrote it out");
}

#[test]
fn a_flushed_write_makes_the_buffered_ones_before_it_durable() {
    let store = Unsynced::default();
    let engine = Engine::with_store(Box::new(store.clone()), None, small()).expect("opens");
    let notes = notes(&engine);
    let held = store.hold_background();
    notes
        .write(vec![ItemWrite::put(text("a"))], BUFFERED)
        .expect("is written");
    one(&notes, ItemWrite::delete(id("x"))).expect("finds nothing, and says so for good");
    assert_eq!(unsynced::items(&store.after_a_stop()), ["a"]);
    notes
        .write(vec![ItemWrite::put(text("b"))], BUFFERED)
        .expect("is written");
    one(&notes, ItemWrite::put(text("c"))).expect("is written");
    assert_eq!(unsynced::items(&store.after_a_stop()), ["a", "b", "c"]);
    drop(held);
}

#[test]
fn buffered_writes_survive_a_close() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let engine = Engine::open(dir.path(), small()).expect("opens");
    let notes = notes(&engine);
    for name in ["a", "b", "c"] {
        buffered(&notes, ItemWrite::put(text(name)));
    }
    buffered(&notes, ItemWrite::delete(id("b")));
    drop(notes);
    engine.close();
    let engine = Engine::open(dir.path(), small()).expect("opens");
    let notes = engine.collection("notes").expect("is there");
    let names: Vec<String> = all(&notes)
        .iter()
        .map(|(item, _)| item.id.to_string())
        .collect();
    assert_eq!(names, ["a", "c"]);
}

#[test]
fn a_collection_that_outlives_its_engine_waits_for_the_disk() {
    let store = Unsynced::default();
    let engine = Engine::with_store(Box::new(store.clone()), None, small()).expect("opens");
    let notes = notes(&engine);
    buffered(&notes, ItemWrite::put(text("a")));
    engine.close();
    assert_eq!(unsynced::items(&store.after_a_stop()), ["a"]);
    let late = notes.write(vec![ItemWrite::put(text("b"))], BUFFERED);
    assert_eq!(late.expect("is written").durability, Durability::Flushed);
    assert_eq!(unsynced::items(&store.after_a_stop()), ["a", "b"]);
}

#[test]
fn a_version_that_somebody_was_told_comes_to_no_other_write_even_when_its_own_is_lost() {
    let mut store = Unsynced::default();
    let mut told = Vec::new();
    for _ in 0..3 {
        let engine = Engine::with_store(Box::new(store.clone()), None, small()).expect("opens");
        let notes = notes(&engine);
        let held = store.hold_background();
        for name in ["a", "b"] {
            let written = notes.write(vec![ItemWrite::put(text(name))], BUFFERED);
            told.push(version(Ok(written.expect("is written").outcomes[0])));
        }
        let found = store.after_a_stop();
        assert!(
            !unsynced::items(&found).contains(&"b".to_owned()),
            "it is lost"
        );
        drop(held);
        store = found;
    }
    assert!(told.is_sorted_by(|a, b| a < b), "{told:?}");
}

#[test]
fn what_waits_for_the_disk_is_bounded() {
    let store = Unsynced::default();
    let engine = Engine::with_store(Box::new(store.clone()), None, small()).expect("opens");
    let notes = notes(&engine);
    let held = store.hold_background();
    let mut flushed = 0;
    for i in 0..20 {
        let mut item = text(&i.to_string());
        item.text = Some("x".repeat(1 << 20));
        let written = notes
            .write(vec![ItemWrite::put(item)], BUFFERED)
            .expect("is written");
        flushed += usize::from(written.durability == Durability::Flushed);
    }
    assert!(
        (1..=3).contains(&flushed),
        "{flushed} of 20 MiB waited for the disk"
    );
    let most = store.most_waiting_bytes();
    assert!((8 << 20..10 << 20).contains(&most), "{most} bytes waited");
    drop(held);
}

#[test]
fn a_disk_that_fails_later_stops_the_store_and_nothing_else_is_acknowledged() {
    let store = Unsynced::default();
    let engine = Engine::with_store(Box::new(store.clone()), None, small()).expect("opens");
    let notes = notes(&engine);
    let held = store.hold_background();
    notes
        .write(vec![ItemWrite::put(text("a"))], BUFFERED)
        .expect("is written");
    store.fail();
    drop(held);
    let failed = notes.write(vec![ItemWrite::put(text("b"))], FLUSHED);
    assert!(matches!(failed, Err(EngineError::Store(_))), "{failed:?}");
    let failed = notes.write(vec![ItemWrite::put(text("c"))], BUFFERED);
    assert!(matches!(failed, Err(EngineError::Store(_))), "{failed:?}");
    assert_eq!(
        notes.get(&id("a")).expect("reading goes on"),
        Some(text("a"))
    );
    assert_eq!(unsynced::items(&store.after_a_stop()), [""; 0]);
}

/// Something that a write does to one of a few items, and whether it waits for the disk, which it
/// does seldom.
fn step() -> impl Strategy<Value = (u8, u8, bool)> {
    (any::<u8>(), any::<u8>(), prop::bool::weighted(0.15))
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 64,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_stop_loses_an_end_of_the_buffered_writes_and_no_version_comes_twice(
        runs in prop::collection::vec(prop::collection::vec(step(), 1..20), 1..6),
    ) {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let mut store = Unsynced::default();
        // What a stop may leave: the last of these, or any other. Seals sync, too.
        let mut states = vec![BTreeMap::<ItemId, (Item, u64)>::new()];
        let mut highest = 0;
        for run in runs {
            let indexes = Some(dir.path().to_owned());
            let engine = Engine::with_store(Box::new(store.clone()), indexes, small());
            let engine = engine.expect("opens");
            let notes = notes(&engine);
            let found: BTreeMap<ItemId, (Item, u64)> = all(&notes)
                .into_iter()
                .map(|(item, version)| (item.id.clone(), (item, version)))
                .collect();
            prop_assert!(states.contains(&found), "{:?} of {:?}", found, states);
            prop_assert_eq!(notes.stats().items, found.len());
            let held = store.hold_background();
            let mut model = found;
            states = vec![model.clone()];
            for (name, what, flushed) in run {
                let name = format!("id-{}", name % 4);
                let write = match what % 4 {
                    0 | 1 => ItemWrite::put(item(&name, Modality::Image, &what.to_string())),
                    2 => merge(&name, json!({ "n": what })),
                    _ => ItemWrite::delete(id(&name)),
                };
                let known = model.get(&id(&name)).map_or(0, |(_, version)| *version);
                let options = if flushed { FLUSHED } else { BUFFERED };
                let wrong = write.clone().if_version(known + 1);
                let refused = notes.write(vec![wrong], options);
                prop_assert!(
                    matches!(refused, Err(EngineError::VersionConflict { .. })),
                    "{:?}",
                    refused
                );
                let written = match notes.write(vec![write.if_version(known)], options) {
                    Err(EngineError::NoItem { .. }) => {
                        prop_assert_eq!(known, 0);
                        continue;
                    }
                    written => written.expect("is written"),
                };
                match written.outcomes[0] {
                    Outcome::Inserted(version) | Outcome::Updated(version) => {
                        prop_assert!(version > highest, "{} after {}", version, highest);
                        highest = version;
                        let stored = notes.get(&id(&name)).expect("reads").expect("is there");
                        model.insert(id(&name), (stored, version));
                    }
                    Outcome::Deleted => prop_assert!(model.remove(&id(&name)).is_some()),
                    Outcome::NotThere => prop_assert!(!model.contains_key(&id(&name))),
                }
                if written.durability == Durability::Flushed {
                    states.clear();
                }
                states.push(model.clone());
            }
            store = {
                let found = store.after_a_stop();
                drop(held);
                found
            };
        }
    }
}
