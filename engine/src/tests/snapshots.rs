//! Snapshots: of one moment while others write, the same after a restore, and never trusted.

mod files;
mod heads;
mod moment;

use std::{
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use super::*;
use crate::{
    About, Done, FieldKind, Fields, Filter, Head, HeadKind, Inputs, ItemMeta, KeptHead,
    SnapshotError, SnapshotOptions, SnapshotReport, list_snapshots, verify_snapshot,
};

fn quiet(_: Done) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn snapshot(collection: &Collection, to: &Path) -> Result<SnapshotReport, EngineError> {
    collection.snapshot(to, &SnapshotOptions::default(), &quiet)
}

fn metas(collection: &Collection) -> Vec<ItemMeta> {
    let metas = collection.metas().expect("is there");
    metas.collect::<Result<_, _>>().expect("reads")
}

/// Every item of a collection, embeddings and all.
fn items(collection: &Collection) -> Vec<Item> {
    let ids = metas(collection).into_iter().map(|meta| meta.id);
    ids.map(|id| collection.get(&id).expect("reads").expect("is there"))
        .collect()
}

/// A few items of all kinds, one of them large.
fn varied(engine: &Engine, name: &str) -> std::sync::Arc<Collection> {
    let fields = [("content", FieldKind::Keyword), ("n", FieldKind::Integer)];
    let fields = Fields::new(fields).expect("fields");
    let collection = engine.create_with_fields(name, &spaces(), &fields);
    let collection = collection.expect("creates");
    let mut all = Vec::new();
    for i in 0..200 {
        let modality = Modality::ALL[i % 2];
        let mut item = item(&format!("{i:03}"), modality, &format!("content {i}"));
        item.payload.insert("n".into(), (i % 7).into());
        item.source = (i % 3 == 0).then(|| format!("/pictures/{i}.png"));
        item.text = (i % 5 == 0).then(|| format!("\u{e9}t\u{e9} {i}"));
        item.content_hash = (i % 4 == 0).then_some([i as u8; 32]);
        if i % 11 == 0 {
            item.specific = None;
        }
        all.push(item);
    }
    all[42].text = Some("words ".repeat(1 << 19));
    collection.upsert(all).expect("upserts");
    let gone: Vec<ItemId> = (0..50).map(|i| id(&format!("{:03}", i * 4))).collect();
    collection.delete(&gone).expect("deletes");
    collection
}

/// A head of two labels that others are told from by its number.
fn head(number: u32) -> KeptHead {
    let space = spaces().shared();
    let weights = (0..2 * space.dim).map(|i| i as f32).collect();
    KeptHead {
        head: Head {
            inputs: Inputs::one(space),
            labels: vec!["up".into(), "down".into()],
            weights,
            bias: vec![0.0, number as f32],
            scoring: embedding::Scoring::Softmax { logit_scale: 1.0 },
        },
        likeness: None,
        about: About {
            kind: HeadKind::FewShot,
            multi_label: false,
            made_at_ms: Some(number.into()),
            examples: 2,
            accuracy: Some(0.5),
            field: None,
            example_ids: vec![id("a")],
            report: serde_json::json!({ "used": { "seed": number } }),
        },
    }
}

/// What searches find, with a filter and without.
fn found(collection: &Collection) -> Vec<Vec<String>> {
    let filter = serde_json::json!({"must": [{"field": "n", "gte": 3}]});
    let filter = Filter::from_json(&filter).expect("a filter");
    let queries = (0..20).flat_map(|i| {
        let query = item("q", Modality::Image, &format!("content {i}")).shared;
        let plain = SearchRequest::new(shared(&query), Target::Both, count(7));
        let filter = Some(filter.clone());
        [plain.clone(), SearchRequest { filter, ..plain }]
    });
    queries.map(|request| ids(collection, &request)).collect()
}

#[test]
fn a_restored_collection_is_the_same_from_a_folder_and_from_a_tar_and_after_a_reopen() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (folder, tar) = (dir.path().join("folder"), dir.path().join("one.tar"));
    let engine = Engine::open(&dir.path().join("a"), small()).expect("opens");
    let collection = varied(&engine, "first");
    collection.seal().expect("seals");
    let (expected, hits) = (items(&collection), found(&collection));
    assert_eq!(expected.len(), 150);
    let options = SnapshotOptions {
        made_at_ms: Some(1_700_000_000_123),
        ..SnapshotOptions::default()
    };
    let made = collection.snapshot(&folder, &options, &quiet);
    let made = made.expect("is made");
    snapshot(&collection, &tar).expect("is made");
    assert_eq!((made.info.items, made.info.skipped_items), (150, 0));
    assert_eq!(
        made.new_bytes, made.info.bytes,
        "there was no other to share with"
    );
    assert_eq!(
        verify_snapshot(&folder, &quiet).expect("is good"),
        made.info
    );
    let listed = list_snapshots(dir.path()).expect("lists");
    let listed: Vec<PathBuf> = listed.into_iter().map(|(path, _)| path).collect();
    assert_eq!(listed, [folder.clone(), tar.clone()]);

    let same = |restored: &Collection| {
        assert_eq!(items(restored), expected);
        assert_eq!(found(restored), hits);
        assert_eq!(restored.fields(), collection.fields());
        assert_eq!(restored.spaces(), collection.spaces());
    };
    same(&engine.restore(&folder, "beside", &quiet).expect("restores"));
    let other = dir.path().join("b");
    for from in [&folder, &tar] {
        let engine = Engine::open(&other, small()).expect("opens");
        let name = if *from == tar { "tar" } else { "folder" };
        let restored = engine.restore(from, name, &quiet).expect("restores");
        same(&restored);
        restored.seal().expect("seals");
        same(&restored);
        // It takes writes as any other.
        restored
            .upsert(vec![item("new", Modality::Text, "new")])
            .expect("upserts");
        restored.delete(&[id("new")]).expect("deletes");
        drop(restored);
        engine.close();
        let engine = Engine::open(&other, small()).expect("opens");
        let restored = engine.collection(name).expect("is there");
        same(&restored);
        let again = dir.path().join(format!("again-{name}"));
        let again = snapshot(&restored, &again).expect("is made");
        assert_eq!(
            again.new_bytes, 0,
            "the same items have the same bytes anywhere"
        );
    }
}

#[test]
fn an_empty_collection_and_one_of_another_model_come_back() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let engine = Engine::in_memory(small());
    let other = Spaces {
        fingerprint: Fingerprint([7; 16]),
        ..spaces()
    };
    let empty = engine.create("empty", &other).expect("creates");
    engine.create("full", &spaces()).expect("creates");
    for to in ["folder", "one.tar"].map(|name| dir.path().join(name)) {
        let made = snapshot(&empty, &to).expect("is made");
        assert_eq!((made.info.items, made.info.chunks), (0, 0));
        let name = format!("back{}", engine.collections().len());
        let back = engine.restore(&to, &name, &quiet).expect("restores");
        assert_eq!((back.spaces(), back.stats().items), (&other, 0));
    }
}

#[test]
fn what_is_there_is_never_replaced() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let engine = Engine::in_memory(small());
    let collection = varied(&engine, "a");
    let to = dir.path().join("s");
    snapshot(&collection, &to).expect("is made");
    for name in ["s", "s.partial", ".."] {
        let refused = snapshot(&collection, &dir.path().join(name)).expect_err("is refused");
        assert!(
            matches!(
                refused,
                EngineError::Snapshot(
                    SnapshotError::Exists { .. } | SnapshotError::BadPlace { .. }
                )
            ),
            "{refused}"
        );
    }
    let refused = engine.restore(&to, "a", &quiet).expect_err("is refused");
    assert!(
        matches!(refused, EngineError::CollectionExists { .. }),
        "{refused}"
    );
    let refused = engine.restore(&to, "A", &quiet).expect_err("is refused");
    assert!(matches!(refused, EngineError::BadName { .. }), "{refused}");
    assert_eq!(collection.stats().items, 150);
    let nothing = engine.restore(&dir.path().join("t"), "b", &quiet);
    assert!(
        matches!(
            &nothing,
            Err(EngineError::Snapshot(SnapshotError::None { .. }))
        ),
        "{nothing:?}"
    );
}

#[test]
fn a_calibration_comes_along() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let engine = Engine::open(&dir.path().join("data"), small()).expect("opens");
    let collection = engine.create("a", &spaces()).expect("creates");
    let mut pairs = Vec::new();
    for i in 0..120 {
        let content = format!("content {i}");
        let (text, image) = (format!("t{i}"), format!("i{i}"));
        let both = vec![
            item(&text, Modality::Text, &content),
            item(&image, Modality::Image, &content),
        ];
        collection.upsert(both).expect("upserts");
        pairs.push((id(&text), id(&image)));
    }
    collection.calibrate(Some(&pairs)).expect("calibrates");
    let expected = collection.calibration();
    assert!(
        expected
            .directions
            .iter()
            .any(|direction| direction.pairs > 0)
    );
    snapshot(&collection, &dir.path().join("s")).expect("is made");
    let back = engine.restore(&dir.path().join("s"), "b", &quiet);
    assert_eq!(back.expect("restores").calibration(), expected);
}

#[test]
fn a_damaged_record_fails_a_snapshot_and_is_named_or_left_out_on_demand() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let store = crate::store::MemoryStore::new();
    let engine = Engine::with_store(Box::new(store), None, small()).expect("opens");
    let collection = varied(&engine, "a");
    let key = crate::catalog::item_key(0, &id("101"));
    let store = collection.core.store.as_ref();
    let mut value = store.get(&key).expect("reads").expect("is there");
    value[40] ^= 1;
    let mut batch = crate::store::Batch::default();
    batch.put(key, value);
    store.commit(batch).expect("commits");
    let refused = snapshot(&collection, &dir.path().join("s")).expect_err("is refused");
    assert!(refused.to_string().contains("item 101"), "{refused}");
    let left = std::fs::read_dir(dir.path()).expect("lists").count();
    assert_eq!(left, 0, "nothing is left of it");
    let options = SnapshotOptions {
        skip_damaged: true,
        ..SnapshotOptions::default()
    };
    let made = collection.snapshot(&dir.path().join("s"), &options, &quiet);
    let info = made.expect("is made").info;
    assert_eq!((info.items, info.skipped_items), (149, 1));
    assert_eq!(info.skipped, ["101"]);
    let restored = engine.restore(&dir.path().join("s"), "b", &quiet);
    assert_eq!(restored.expect("restores").stats().items, 149);
}
