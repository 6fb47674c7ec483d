//! Heads in the store, as files, and beside the items of a collection.

use std::sync::Arc;

use serde_json::Value;

use super::*;
use crate::{
    Collection, Engine, EngineConfig, EngineError, Item, ItemWrite, PayloadChange, WriteOptions,
};

fn collection(engine: &Engine) -> Arc<Collection> {
    engine.create("c", &spaces()).expect("makes")
}

fn put(collection: &Arc<Collection>, name: &str, row: &[f32], payload: &Value) {
    let shared = Embedding::new(row.to_vec()).expect("of unit length");
    let mut item = Item::new(id(name), Modality::Image, shared);
    item.payload = payload.as_object().expect("an object").clone();
    collection.upsert(vec![item]).expect("keeps");
}

#[test]
fn a_file_reads_back_to_the_bit_and_nothing_else_is_read() {
    let head = two();
    let file = head.to_file();
    assert_eq!(KeptHead::from_file(&file).expect("as written"), head);
    assert_eq!(file.len() % 4, 0);
    let refused = |file: &[u8]| match KeptHead::from_file(file) {
        Err(EngineError::BadHead { reason }) => reason,
        other => panic!("{other:?}"),
    };
    for end in [0, 7, 8, 40, file.len() - 1] {
        refused(&file[..end]);
    }
    let mut endless = file.clone();
    endless[..8].fill(0xff);
    assert!(refused(&endless).contains("no safetensors"));
    let mut broken = file.clone();
    let end = broken.len();
    broken[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    assert!(refused(&broken).contains("not finite"));
    let replaced = |from: &str, to: &str| {
        let text = String::from_utf8_lossy(&file[..file.len() - 4 * (2 + 4 * DIM)]).into_owned();
        assert!(text.contains(from), "{text}");
        let length = file.len() - 4 * (2 + 4 * DIM);
        let mut header = file[8..length].to_vec();
        let at = header
            .windows(from.len())
            .position(|part| part == from.as_bytes());
        let at = at.expect("is there");
        header.splice(at..at + from.len(), to.bytes());
        let mut file = (header.len() as u64).to_le_bytes().to_vec();
        file.extend(header);
        file.extend(&two().to_file()[length..]);
        refused(&file)
    };
    assert!(replaced("\\\"format\\\":1", "\\\"format\\\":2").contains("format 2"));
    assert!(replaced("\"F32\"", "\"F16\"").contains("F16"));
    assert!(replaced("diptych_head", "diptych_hand").contains("diptych_head"));
    assert!(
        replaced("[\\\"up\\\",\\\"down\\\"]", "[\\\"up\\\",\\\"up\\\"]").contains("occurs twice")
    );
    assert!(replaced("[\\\"up\\\",\\\"down\\\"]", "[\\\"up\\\"]").contains("expected F32"));
}

#[test]
fn versions_are_kept_over_a_restart_and_rolled_back() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let open = || Engine::open(dir.path(), EngineConfig::default()).expect("opens");
    let engine = open();
    let c = collection(&engine);
    let mut heads: Vec<KeptHead> = (0..3).map(|_| two()).collect();
    for (i, head) in heads.iter_mut().enumerate() {
        head.head.bias[0] = i as f32;
        assert_eq!(c.put_head("h", head).expect("keeps"), i as u32 + 1);
    }
    c.put_head("h-2", &two()).expect("keeps");
    assert_eq!(*c.head("h", None).expect("is there").1, heads[2]);
    assert_eq!(c.roll_back_head("h", 1).expect("is kept").current, 1);
    drop((c, engine));

    let engine = open();
    let c = engine.collection("c").expect("is there");
    let names: Vec<String> = c
        .heads()
        .expect("lists")
        .into_iter()
        .map(|h| h.name)
        .collect();
    assert_eq!(names, ["h", "h-2"]);
    let (version, current) = c.head("h", None).expect("is there");
    assert_eq!((version, &*current), (1, &heads[0]));
    assert_eq!(*c.head("h", Some(2)).expect("is kept").1, heads[1]);
    let none = |result: Result<_, EngineError>| {
        let refused = result.map(drop).expect_err("is not there");
        assert!(matches!(refused, EngineError::NoHead { .. }), "{refused}");
    };
    none(c.head("h", Some(4)).map(drop));
    none(c.head("other", None).map(drop));
    none(c.roll_back_head("h", 9).map(drop));
    // A version is never given twice.
    assert_eq!(c.put_head("h", &heads[0]).expect("keeps"), 4);
    for _ in 0..MAX_VERSIONS {
        c.put_head("h", &heads[1]).expect("keeps");
    }
    let kept = c.head_entry("h").expect("is there").versions;
    let kept: Vec<u32> = kept.into_iter().map(|entry| entry.version).collect();
    assert_eq!(kept, (5..15).collect::<Vec<u32>>());
    none(c.head("h", Some(4)).map(drop));
    assert!(c.delete_head("h").expect("removes"));
    assert!(!c.delete_head("h").expect("was gone"));
    none(c.head("h", None).map(drop));
    assert_eq!(c.head("h-2", None).expect("stays").0, 1);
    drop(c);
    engine.delete("c").expect("removes");
    assert_eq!(collection(&engine).heads().expect("lists"), []);
}

#[test]
fn a_head_of_another_model_a_bad_name_and_one_too_many_are_refused() {
    let engine = Engine::in_memory(EngineConfig::default());
    let c = collection(&engine);
    let mut other = two();
    other.head.inputs.space.fingerprint.0[0] ^= 1;
    let refused = c.put_head("h", &other);
    assert!(matches!(refused, Err(EngineError::AnotherSpace { .. })));
    for name in ["", "H", "a/b", "a\0"] {
        let refused = c.put_head(name, &two());
        assert!(
            matches!(refused, Err(EngineError::BadHeadName { .. })),
            "{name:?}"
        );
    }
    let head = two();
    for i in 0..MAX_HEADS {
        c.put_head(&format!("h{i}"), &head).expect("keeps");
    }
    let refused = c.put_head("more", &head);
    assert!(matches!(
        refused,
        Err(EngineError::TooManyHeads {
            most: MAX_HEADS,
            ..
        })
    ));
    c.put_head("h0", &head)
        .expect("a version more is no head more");
}

#[test]
fn labels_are_read_from_a_field_and_as_many_of_each_as_fit() {
    let engine = Engine::in_memory(EngineConfig::default());
    let c = collection(&engine);
    let rows = clusters(1, 60, 0.4, 3);
    for (i, row) in rows.chunks(DIM).enumerate() {
        let payload = match i {
            0..30 => json!({ "kind": "cat" }),
            30..36 => json!({ "kind": "dog", "tags": ["b", "a", "b"] }),
            36 => json!({ "kind": 3 }),
            37 => json!({ "kind": null }),
            _ => json!({ "tags": [] }),
        };
        put(&c, &format!("{i:02}"), row, &payload);
    }
    let by = |field: &'static str, multi_label, most_examples| LabeledField {
        field,
        multi_label,
        most_labels: 2,
        most_examples,
        seed: 1,
    };
    let all = c.labeled(&by("kind", false, 100)).expect("reads");
    assert_eq!(all.labels, ["cat", "dog"]);
    assert_eq!((all.examples.len(), all.skipped), (36, 1));
    let some = c.labeled(&by("kind", false, 14)).expect("reads");
    let cats = some.examples.iter().filter(|(_, of)| of[0] == 0).count();
    assert_eq!((cats, some.examples.len()), (8, 14));
    let fewer = c.labeled(&by("kind", false, 8)).expect("reads").examples;
    assert!(fewer.iter().all(|example| some.examples.contains(example)));
    let tags = c.labeled(&by("tags", true, 100)).expect("reads");
    assert_eq!(tags.labels, ["a", "b"]);
    assert_eq!(
        tags.examples.iter().filter(|(_, of)| *of == [0, 1]).count(),
        6
    );
    assert_eq!(
        tags.examples.iter().filter(|(_, of)| of.is_empty()).count(),
        22
    );
    let few = LabeledField {
        most_labels: 1,
        ..by("kind", false, 100)
    };
    let refused = c.labeled(&few).expect_err("two labels");
    assert!(refused.to_string().contains("more than 1"), "{refused}");
}

#[test]
fn what_is_suggested_is_uncertain_unlabeled_and_passes_the_filter() {
    let engine = Engine::in_memory(EngineConfig::default());
    let c = collection(&engine);
    let mut head = two();
    head.about.example_ids = vec![id("between-0")];
    head.about.field = Some("kind".into());
    let centers = clusters(2, 1, 0.0, 1);
    let (up, down) = centers.split_at(DIM);
    let between = |part: f32| {
        let sum = up
            .iter()
            .zip(down)
            .map(|(a, b)| part * a + (1.0 - part) * b);
        unit(sum.collect())
    };
    put(&c, "sure", up, &json!({}));
    for (i, part) in [0.5, 0.5, 0.45, 0.6].into_iter().enumerate() {
        put(
            &c,
            &format!("between-{i}"),
            &between(part),
            &json!({ "n": i }),
        );
    }
    let request = |strategy, k| SuggestRequest {
        k,
        strategy,
        filter: None,
    };
    let ids = |suggested: &Suggested| -> Vec<String> {
        suggested
            .items
            .iter()
            .map(|item| item.id.to_string())
            .collect()
    };
    for strategy in [Strategy::Margin, Strategy::Entropy] {
        let suggested = c.suggest(&head, &request(strategy, 3)).expect("suggests");
        assert_eq!(suggested.looked_at, 4, "one was an example");
        let mut found = ids(&suggested);
        found.sort();
        assert_eq!(found, ["between-1", "between-2", "between-3"]);
        let first = &suggested.items[0];
        assert!(first.uncertainty >= suggested.items[2].uncertainty);
        assert_eq!(first.predictions.len(), 2);
    }
    let label = PayloadChange::Merge(json!({ "kind": "up" }).as_object().expect("one").clone());
    c.write(
        vec![ItemWrite::payload(id("between-1"), label)],
        WriteOptions::default(),
    )
    .expect("writes");
    let suggested = c
        .suggest(&head, &request(Strategy::Margin, 9))
        .expect("suggests");
    assert!(
        !ids(&suggested).contains(&"between-1".to_owned()),
        "it has a label"
    );
    // Two that are the same are worth one.
    put(&c, "same-1", &between(0.5), &json!({}));
    put(&c, "same-2", &between(0.5), &json!({}));
    let diverse = c
        .suggest(&head, &request(Strategy::Diverse, 2))
        .expect("suggests");
    let same = ids(&diverse)
        .iter()
        .filter(|id| id.starts_with("same"))
        .count();
    assert_eq!(same, 1, "{:?}", ids(&diverse));
}
