//! Filters through the public face, against a plain reading of payloads.
//!
//! Over 400 lines: half of them are that plain reading and what makes random filters and operations,
//! which all the tests below share.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use embedding::Modality;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::{model::Kept, *};
use crate::{
    FieldKind, Fields, Filter, Payload, catalog,
    store::{Batch, MemoryStore, Store},
};

pub(super) fn fields() -> Fields {
    Fields::new([
        ("color", FieldKind::Keyword),
        ("size", FieldKind::Integer),
        ("weight", FieldKind::Float),
        ("sold", FieldKind::Bool),
        ("made", FieldKind::Datetime),
    ])
    .expect("good fields")
}

fn with_payload(name: &str, payload: Value) -> Item {
    let modality = if name.len().is_multiple_of(2) {
        Modality::Image
    } else {
        Modality::Text
    };
    let mut item = item(name, modality, name);
    item.payload = object(payload);
    item
}

fn object(value: Value) -> Payload {
    match value {
        Value::Object(object) => object,
        other => panic!("{other} is no object"),
    }
}

fn read(filter: &Value) -> Filter {
    Filter::from_json(filter).expect("a filter")
}

fn request(filter: &Value) -> SearchRequest {
    let mut request = SearchRequest::new(
        shared(&item("q", Modality::Text, "q").shared),
        Target::Both,
        count(1000),
    );
    request.filter = Some(read(filter));
    request
}

/// Ids that a search with the filter finds, in order of ids; the explanation must agree.
fn passing(collection: &Collection, filter: &Value) -> Vec<String> {
    let mut request = request(filter);
    request.explain = true;
    let found = collection.search(&request).expect("searches");
    let how = found.explanation.expect("is asked for");
    let mut ids: Vec<String> = found.hits.iter().map(|hit| hit.id.to_string()).collect();
    ids.sort();
    assert_eq!(how.matching_items as usize, ids.len(), "{filter}");
    let matching: usize = how.shards.iter().map(|shard| shard.matching).sum();
    assert_eq!(matching, ids.len(), "{filter}: {:?}", how.shards);
    ids
}

/// What a filter says of a payload, read off the JSON in the plainest way.
pub(super) fn says(filter: &Value, payload: &Payload) -> bool {
    let list = |key: &str| filter.get(key).and_then(Value::as_array).cloned();
    let holds = |clause: &Value| match clause.get("field") {
        Some(field) => condition(clause, payload.get(field.as_str().expect("a name"))),
        None => says(clause, payload),
    };
    let should = list("should").unwrap_or_default();
    list("must").unwrap_or_default().iter().all(holds)
        && (should.is_empty() || should.iter().any(holds))
        && !list("must_not").unwrap_or_default().iter().any(holds)
}

fn condition(clause: &Value, value: Option<&Value>) -> bool {
    let values: Vec<&Value> = match value {
        None | Some(Value::Null) => vec![],
        Some(Value::Array(values)) => values.iter().filter(|v| !v.is_null()).collect(),
        Some(value) => vec![value],
    };
    let order = |a: &Value, b: &Value| {
        // All times of these tests are written alike, so their text has their order.
        let numbers = a.as_f64().zip(b.as_f64());
        numbers.map_or_else(
            || a.to_string().cmp(&b.to_string()),
            |(a, b)| a.partial_cmp(&b).expect("numbers compare"),
        )
    };
    if let Some(exists) = clause.get("exists") {
        return Value::Bool(!values.is_empty()) == *exists;
    }
    values.into_iter().any(|value| {
        clause
            .as_object()
            .expect("an object")
            .iter()
            .all(|(key, against)| match key.as_str() {
                "field" => true,
                "eq" => order(value, against).is_eq(),
                "in" => against
                    .as_array()
                    .expect("a list")
                    .iter()
                    .any(|a| order(value, a).is_eq()),
                "contains" => {
                    let lower = |v: &Value| v.as_str().expect("a keyword").to_lowercase();
                    lower(value).contains(&lower(against))
                }
                "gt" => order(value, against).is_gt(),
                "gte" => order(value, against).is_ge(),
                "lt" => order(value, against).is_lt(),
                "lte" => order(value, against).is_le(),
                other => panic!("{other} is no test"),
            })
    })
}

/// Pairs of fields and values, few enough that they meet.
fn value_of(field: usize) -> BoxedStrategy<Value> {
    match field {
        0 => prop::sample::select(vec!["red", "Red", "dark red", "blue", "", "r\u{e9}d"])
            .prop_map(Value::from)
            .boxed(),
        1 => prop::sample::select(vec![i64::MIN, -3, -1, 0, 1, 2, 7, 1000, i64::MAX])
            .prop_map(Value::from)
            .boxed(),
        2 => prop::sample::select(vec![-1e300, -1.5, -0.0, 0.0, 0.25, 1.0, 3.5])
            .prop_map(Value::from)
            .boxed(),
        3 => any::<bool>().prop_map(Value::from).boxed(),
        _ => (1960..2030_u32, 1..13_u32)
            .prop_map(|(y, m)| json!(format!("{y}-{m:02}-01T00:00:00Z")))
            .boxed(),
    }
}

pub(super) const NAMES: [&str; 5] = ["color", "size", "weight", "sold", "made"];

pub(super) fn payload() -> impl Strategy<Value = Payload> {
    let any_of = |field: usize| {
        prop_oneof![
            2 => Just(None),
            1 => Just(Some(Value::Null)),
            6 => value_of(field).prop_map(Some),
            2 => prop::collection::vec(value_of(field), 0..4).prop_map(|v| Some(json!(v))),
        ]
    };
    let all: [_; 5] = std::array::from_fn(any_of);
    all.prop_map(|values| {
        let named = NAMES.iter().zip(values);
        named
            .filter_map(|(name, value)| Some(((*name).to_owned(), value?)))
            .collect::<Map<_, _>>()
    })
}

fn some_condition() -> impl Strategy<Value = Value> {
    (0..NAMES.len()).prop_flat_map(|field| {
        let name = NAMES[field];
        let value = || value_of(field);
        let ranges = [("gt", "lt"), ("gte", "lt"), ("gt", "lte"), ("gte", "lte")];
        let mut kinds = vec![
            any::<bool>()
                .prop_map(move |e| json!({ "field": name, "exists": e }))
                .boxed(),
            value()
                .prop_map(move |v| json!({ "field": name, "eq": v }))
                .boxed(),
            prop::collection::vec(value(), 0..4)
                .prop_map(move |v| json!({ "field": name, "in": v }))
                .boxed(),
        ];
        if field == 0 {
            let parts = prop::sample::select(vec!["", "re", "RED", "\u{c9}", " "]);
            kinds.push(
                parts
                    .prop_map(move |p| json!({ "field": name, "contains": p }))
                    .boxed(),
            );
        } else if field != 3 {
            let bounds = (
                value(),
                value(),
                prop::sample::select(ranges.to_vec()),
                0..3_u8,
            );
            kinds.push(
                bounds
                    .prop_map(move |(low, high, (from, to), which)| match which {
                        0 => json!({ "field": name, from: low }),
                        1 => json!({ "field": name, to: high }),
                        _ => json!({ "field": name, from: low, to: high }),
                    })
                    .boxed(),
            );
        }
        prop::strategy::Union::new(kinds)
    })
}

pub(super) fn some_filter() -> impl Strategy<Value = Value> {
    let list = |clause: BoxedStrategy<Value>| prop::collection::vec(clause, 0..3);
    let of = move |clause: BoxedStrategy<Value>| {
        (list(clause.clone()), list(clause.clone()), list(clause)).prop_map(
            |(must, should, must_not)| {
                json!({ "must": must, "should": should, "must_not": must_not })
            },
        )
    };
    of(some_condition().boxed()).prop_recursive(3, 12, 3, move |inner| {
        of(prop_oneof![some_condition(), inner].boxed())
    })
}

/// Filters that say the same in other words.
fn rewritten(filter: &Value) -> Vec<Value> {
    let list = |key: &str| filter[key].as_array().cloned().unwrap_or_default();
    let (must, should, must_not) = (list("must"), list("should"), list("must_not"));
    let not = |clause: &Value| json!({ "must_not": [clause] });
    // De Morgan, on every list.
    let none_fails: Vec<Value> = must.iter().map(not).collect();
    let all_fail: Vec<Value> = should.iter().map(not).collect();
    let mut denied = none_fails;
    denied.extend(must_not.iter().cloned());
    if !should.is_empty() {
        denied.push(json!({ "must": all_fail }));
    }
    let twice = not(&not(filter));
    let split = json!({
        "must": must.iter().map(split).collect::<Vec<_>>(),
        "should": should.iter().map(split).collect::<Vec<_>>(),
        "must_not": must_not.iter().map(split).collect::<Vec<_>>(),
    });
    vec![json!({ "must_not": denied }), twice, split]
}

/// A condition in parts: `in` as alternatives, a lower bound as what is on it or above it.
fn split(clause: &Value) -> Value {
    let field = &clause["field"];
    if let Some(values) = clause.get("in").and_then(Value::as_array) {
        let each = values.iter().map(|v| json!({ "field": field, "eq": v }));
        let each: Vec<_> = each.collect();
        if each.is_empty() {
            return json!({ "must_not": [{ "must": [] }] });
        }
        return json!({ "should": each });
    }
    if let (Some(low), None) = (clause.get("gte"), clause.get("lt").or(clause.get("lte"))) {
        return json!({ "should": [
            { "field": field, "eq": low },
            { "field": field, "gt": low },
        ] });
    }
    if let Some(exists) = clause.get("exists") {
        return json!({ "must_not": [{ "field": field, "exists": exists != &json!(true) }] });
    }
    clause.clone()
}

#[derive(Debug, Clone)]
enum Op {
    Upsert(Vec<(u8, Payload)>),
    Delete(Vec<u8>),
    Seal,
    Reopen,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        5 => prop::collection::vec((0..24_u8, payload()), 1..8).prop_map(Op::Upsert),
        2 => prop::collection::vec(0..24_u8, 0..5).prop_map(Op::Delete),
        1 => Just(Op::Seal),
        1 => Just(Op::Reopen),
    ]
}

/// The field indexes are exactly those that would be built from the records.
fn check_indexes(store: &dyn Store) {
    for (name, description) in catalog::list(store).expect("reads") {
        let fields = Arc::new(description.fields);
        let index = &crate::filter::postings::FieldIndex::open;
        let found = index(store, name, description.number, fields.clone()).expect("reads");
        let mut expected = crate::filter::digests::Digests::default();
        let mut ordinals = BTreeSet::new();
        for entry in store.scan(&catalog::item_prefix(description.number)) {
            let (key, value) = entry.expect("reads");
            let record = crate::record::Record::read(&key, &value).expect("is good");
            assert!(
                ordinals.insert(record.stamp.ordinal),
                "an ordinal is one item's"
            );
            expected.add_item(
                &fields,
                record.stamp.ordinal,
                &record.payload().expect("reads"),
            );
        }
        let said = crate::filter::digests::Digests::stored(store, description.number);
        let said = said.expect("reads").unwrap_or_default();
        for field in fields.0.values() {
            let number = field.number;
            assert_eq!(said.of(number), expected.of(number), "field {number}");
            assert_eq!(
                found.digests.of(number),
                expected.of(number),
                "field {number}"
            );
        }
        assert!(found.damaged.is_empty());
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 48,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn filters_find_what_their_words_say_in_whatever_words_after_any_operations(
        ops in prop::collection::vec(op(), 1..16),
        filters in prop::collection::vec(some_filter(), 6),
    ) {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let store = Kept(Arc::new(MemoryStore::new()));
        let open = || {
            let store = Box::new(store.clone());
            Engine::with_store(store, Some(dir.path().to_owned()), small()).expect("opens")
        };
        let mut engine = open();
        let mut c = engine.create_with_fields("c", &spaces(), &fields()).expect("creates");
        let mut model: BTreeMap<String, Payload> = BTreeMap::new();
        for op in ops {
            match op {
                Op::Upsert(writes) => {
                    let named = writes.into_iter().map(|(n, payload)| (format!("id-{n}"), payload));
                    let named: Vec<_> = named.collect();
                    let items = named.iter().map(|(name, payload)| {
                        with_payload(name, Value::Object(payload.clone()))
                    });
                    c.upsert(items.collect()).expect("upserts");
                    model.extend(named);
                }
                Op::Delete(names) => {
                    let names = names.iter().map(|n| format!("id-{n}"));
                    let ids: Vec<ItemId> = names.map(|name| id(&name)).collect();
                    c.delete(&ids).expect("deletes");
                    for id in &ids {
                        model.remove(id.as_str());
                    }
                }
                Op::Seal => c.seal().expect("seals"),
                Op::Reopen => {
                    drop(c);
                    drop(engine);
                    engine = open();
                    c = engine.collection("c").expect("is there");
                }
            }
            check_indexes(&store);
            for filter in &filters {
                let expected = model.iter().filter(|(_, payload)| says(filter, payload));
                let expected: Vec<String> = expected.map(|(name, _)| name.clone()).collect();
                prop_assert_eq!(&passing(&c, filter), &expected, "{}", filter);
                for other in rewritten(filter) {
                    prop_assert_eq!(&passing(&c, &other), &expected, "{} for {}", other, filter);
                }
                let mut request = request(filter);
                request.exact = true;
                request.k = count(3);
                let first = ids(&c, &request);
                prop_assert_eq!(first.len(), expected.len().min(3));
                request.exact = false;
                prop_assert_eq!(ids(&c, &request), first);
            }
        }
    }
}

#[test]
fn indexes_and_items_agree_after_a_stop_in_the_middle_of_any_write() {
    let run = |stop: usize| {
        let store = Kept(Arc::new(MemoryStore::stopping_after(stop)));
        let script = || -> Result<(), EngineError> {
            let engine = Engine::with_store(Box::new(store.clone()), None, small())?;
            let first = Fields::new([("size", FieldKind::Integer)])?;
            let c = engine.create_with_fields("c", &spaces(), &first)?;
            for i in 0..8_u8 {
                let payload = |n: u8| {
                    let color = ["red", "blue"][usize::from(n) % 2];
                    json!({ "color": color, "size": n })
                };
                let name = |n: u8| format!("id-{n}");
                c.upsert(vec![
                    with_payload(&name(i), payload(i)),
                    with_payload(&name(i / 2), payload(i + 1)),
                ])?;
                if i % 3 == 2 {
                    c.delete(&[id(&name(i / 3))])?;
                }
                if i == 4 {
                    c.declare(&fields())?;
                }
            }
            Ok(())
        };
        let finished = script().is_ok();
        let reopened = Kept(Arc::new(store.0.reopened()));
        let engine = Engine::with_store(Box::new(reopened.clone()), None, small());
        let engine = engine.expect("opens after any stop");
        check_indexes(&reopened);
        for c in engine.collections() {
            let all = passing(&c, &json!({ "must": [{ "field": "size", "gte": 0 }] }));
            assert_eq!(all.len(), c.stats().items, "stopped after {stop} bytes");
        }
        (finished, store.0.written_bytes())
    };
    let (finished, total) = run(usize::MAX);
    assert!(finished);
    for stop in (0..total).step_by(61) {
        assert!(!run(stop).0, "stopped after {stop} of {total} bytes");
    }
}

#[test]
fn a_lost_a_changed_and_a_foreign_page_are_found_at_the_next_open_and_built_again() {
    let store = Kept(Arc::new(MemoryStore::new()));
    let open = || Engine::with_store(Box::new(store.clone()), None, small()).expect("opens");
    let engine = open();
    let c = engine
        .create_with_fields("c", &spaces(), &fields())
        .expect("creates");
    // Long keywords, so that there are several pages.
    let payload =
        |i: usize| json!({ "color": format!("{i:03}{}", "x".repeat(200)), "size": i % 7 });
    let items = (0..100).map(|i| with_payload(&format!("{i:03}"), payload(i)));
    c.upsert(items.collect()).expect("upserts");
    drop((c, engine));
    let filters = [
        json!({ "must": [{ "field": "color", "contains": "05" }] }),
        json!({ "must": [{ "field": "size", "gte": 3, "lt": 5 }] }),
        json!({ "must_not": [{ "field": "size", "eq": 0 }] }),
        json!({ "must": [{ "field": "color", "exists": true }] }),
    ];
    let answers = |c: &Collection| filters.iter().map(|f| passing(c, f)).collect::<Vec<_>>();
    let engine = open();
    let expected = answers(&engine.collection("c").expect("is there"));
    drop(engine);
    assert_eq!(
        expected.iter().map(Vec::len).collect::<Vec<_>>(),
        [11, 28, 85, 100]
    );
    let pages = || -> Vec<(Vec<u8>, Vec<u8>)> {
        let pages = store.scan(&catalog::page_prefix(0));
        pages.collect::<Result<_, _>>().expect("reads")
    };
    let good = pages();
    assert!(good.len() > 6, "{} pages", good.len());
    let hurt = |change: &dyn Fn(&mut Batch)| {
        let mut batch = Batch::default();
        change(&mut batch);
        store.commit(batch).expect("commits");
        let engine = open();
        check_indexes(&store);
        assert_eq!(
            answers(&engine.collection("c").expect("is there")),
            expected
        );
    };
    for (key, page) in &good {
        hurt(&|batch| batch.remove(key.clone()));
        for byte in (0..page.len()).step_by(97) {
            let mut flipped = page.clone();
            flipped[byte] ^= 4;
            hurt(&|batch| batch.put(key.clone(), flipped.clone()));
        }
    }
    let mut foreign = catalog::page_prefix(0);
    foreign.extend([0, 99, 0, 0]);
    hurt(&|batch| batch.put(foreign.clone(), good[0].1.clone()));
    assert!(
        pages().iter().all(|(key, _)| *key != foreign),
        "nobody will ask for it"
    );
    hurt(&|batch| good.iter().for_each(|(key, _)| batch.remove(key.clone())));
}

#[test]
fn a_value_that_does_not_fit_is_refused_with_item_field_value_and_kind_and_nothing_is_stored() {
    let engine = Engine::in_memory(small());
    let c = engine
        .create_with_fields("c", &spaces(), &fields())
        .expect("creates");
    let items = vec![
        with_payload(
            "good",
            json!({ "size": [1, null], "color": null, "other": {} }),
        ),
        with_payload("bad", json!({ "size": [3, "large"] })),
    ];
    let error = c.upsert(items).expect_err("is refused").to_string();
    assert_eq!(
        error,
        "field size of item bad is \"large\", but collection c expects a whole number between \
         -2^63 and 2^63 - 1"
    );
    assert_eq!(c.stats().items, 0);
}

#[test]
fn a_filter_on_a_field_that_is_not_declared_or_of_another_kind_is_refused_by_path() {
    let engine = Engine::in_memory(small());
    let c = engine.create("c", &spaces()).expect("creates");
    let error = |filter: Value| {
        let error = c.search(&request(&filter)).expect_err("is refused");
        assert!(matches!(error, EngineError::BadFilter { .. }), "{error}");
        error.to_string()
    };
    let shape = || json!({ "must": [{ "should": [{ "field": "shape", "eq": "round" }] }] });
    assert_eq!(
        error(shape()),
        "must[0].should[0].field: shape is not a declared field; this collection declares none"
    );
    c.declare(&fields()).expect("declares");
    let listed = "declared are color (keyword), made (datetime), size (integer), sold (bool), \
                  weight (float)";
    assert!(error(shape()).ends_with(listed), "{}", error(shape()));
    let condition = |condition: Value| error(json!({ "must_not": [condition] }));
    for (wrong, start) in [
        (
            json!({ "field": "size", "eq": "big" }),
            "must_not[0].eq: got \"big\", but size is of kind integer",
        ),
        (
            json!({ "field": "size", "gte": 1.5 }),
            "must_not[0].gte: got 1.5",
        ),
        (
            json!({ "field": "size", "in": [1, "b"] }),
            "must_not[0].in[1]: got \"b\"",
        ),
        (
            json!({ "field": "size", "contains": "1" }),
            "must_not[0].contains: size is of kind integer",
        ),
        (
            json!({ "field": "color", "gt": "a" }),
            "must_not[0]: color is of kind keyword, which has no",
        ),
        (
            json!({ "field": "sold", "lt": true }),
            "must_not[0]: sold is of kind bool",
        ),
        (
            json!({ "field": "made", "lt": "2024" }),
            "must_not[0].lt: got \"2024\"",
        ),
    ] {
        let message = condition(wrong);
        assert!(message.starts_with(start), "{message}");
    }
}

#[test]
fn a_field_that_is_added_later_knows_the_items_that_were_there_and_is_kept() {
    let store = Kept(Arc::new(MemoryStore::new()));
    let open = || Engine::with_store(Box::new(store.clone()), None, small()).expect("opens");
    let engine = open();
    let c = engine.create("c", &spaces()).expect("creates");
    let items = (0..1200).map(|i| with_payload(&i.to_string(), json!({ "size": i, "color": i })));
    c.upsert(items.collect()).expect("upserts");
    let error = c
        .declare(&fields())
        .expect_err("colors are numbers")
        .to_string();
    assert_eq!(
        error,
        "field color of item 0 is 0, but collection c expects a string"
    );
    assert!(c.fields().is_empty());
    assert_eq!(store.scan(&catalog::page_prefix(0)).count(), 0);
    let size = Fields::new([("size", FieldKind::Integer)]).expect("good");
    let filter = json!({ "must": [{ "field": "size", "gte": 1000 }] });
    std::thread::scope(|scope| {
        // Written while the field is being built.
        scope.spawn(|| {
            for i in 1000..1100 {
                let changed = with_payload(&i.to_string(), json!({ "size": -i }));
                c.upsert(vec![changed]).expect("upserts");
                c.delete(&[id(&(i - 1000).to_string())]).expect("deletes");
            }
        });
        c.declare(&size).expect("declares");
        scope.spawn(|| c.declare(&size).expect("nothing to do"));
    });
    check_indexes(&store);
    assert_eq!(passing(&c, &filter).len(), 100);
    let other = Fields::new([("size", FieldKind::Float)]).expect("good");
    assert!(matches!(
        engine.create_with_fields("c", &spaces(), &other),
        Err(EngineError::AnotherKind { .. })
    ));
    drop((c, engine));
    let engine = open();
    let c = engine.collection("c").expect("is there");
    assert_eq!(c.fields(), size);
    assert_eq!(passing(&c, &filter).len(), 100);
    engine.delete("c").expect("deletes");
    assert_eq!(store.scan(b"f").count(), 0, "its indexes are gone");
}

#[test]
fn concurrent_writers_of_the_same_values_leave_indexes_that_fit() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let open = || Engine::open(dir.path(), small()).expect("opens");
    let engine = open();
    let c = engine
        .create_with_fields("c", &spaces(), &fields())
        .expect("creates");
    std::thread::scope(|scope| {
        for writer in 0..4_usize {
            let c = &c;
            scope.spawn(move || {
                for i in 0..30 {
                    let name = format!("{}", (i * 7 + writer) % 20);
                    let payload = json!({ "color": ["red", "blue"], "size": i % 3, "weight": i });
                    c.upsert(vec![with_payload(&name, payload)])
                        .expect("upserts");
                    c.delete(&[id(&format!("{}", (i + writer) % 20))])
                        .expect("deletes");
                    let red = json!({ "must": [{ "field": "color", "eq": "red" }] });
                    c.search(&request(&red)).expect("searches");
                }
            });
        }
        scope.spawn(|| (0..5).for_each(|_| c.seal().expect("seals")));
    });
    let answers = |c: &Collection| {
        (0..3)
            .map(|i| passing(c, &json!({ "must": [{ "field": "size", "eq": i }] })))
            .collect::<Vec<_>>()
    };
    let before = answers(&c);
    assert_eq!(before.iter().map(Vec::len).sum::<usize>(), c.stats().items);
    drop(c);
    drop(engine);
    let engine = open();
    assert_eq!(answers(&engine.collection("c").expect("is there")), before);
}
