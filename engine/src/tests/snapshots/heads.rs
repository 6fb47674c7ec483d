//! Heads in snapshots: all versions come back, of one moment, and none that is damaged.

use std::{
    fs,
    sync::atomic::{AtomicBool, Ordering::SeqCst},
};

use super::*;
use crate::store::{Batch, MemoryStore};

/// The files of all versions of all heads.
fn exported(collection: &Collection) -> Vec<Vec<u8>> {
    let heads = collection.heads().expect("lists");
    let versions = heads
        .iter()
        .flat_map(|head| head.versions.iter().map(|one| (&head.name, one.version)));
    versions
        .map(|(name, version)| {
            let file = collection.export_head(name, Some(version));
            file.expect("reads")
        })
        .collect()
}

fn listed(folder: &Path) -> usize {
    fs::read_dir(folder).map_or(0, Iterator::count)
}

#[test]
fn heads_come_back_in_all_versions_from_a_folder_and_from_a_tar() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let engine = Engine::open(&dir.path().join("a"), small()).expect("opens");
    let collection = varied(&engine, "a");
    for number in 1..=12 {
        collection.put_head("kind", &head(number)).expect("keeps");
    }
    collection.roll_back_head("kind", 5).expect("is kept");
    // The same file twice, and a name that begins as the other does.
    collection.put_head("kind-2", &head(5)).expect("keeps");
    collection.put_head("kin", &head(70)).expect("keeps");
    let (heads, files) = (collection.heads().expect("lists"), exported(&collection));
    assert_eq!((heads.len(), files.len()), (3, 12));
    let (folder, tar) = (dir.path().join("s"), dir.path().join("t.tar"));
    let made = snapshot(&collection, &folder).expect("is made");
    let packed = snapshot(&collection, &tar).expect("is made");
    assert_eq!((made.info.heads, packed.info.heads), (3, 3));
    assert_eq!(listed(&folder.join("heads")), 11, "equal files are one");
    assert_eq!(made.new_bytes, made.info.bytes);
    let other = Engine::open(&dir.path().join("b"), small()).expect("opens");
    for (from, name, engine) in [(&folder, "beside", &engine), (&tar, "a", &other)] {
        assert_eq!(verify_snapshot(from, &quiet).expect("is good"), made.info);
        let back = engine.restore(from, name, &quiet).expect("restores");
        assert_eq!(back.heads().expect("lists"), heads, "{name}");
        assert_eq!(exported(&back), files, "{name}");
        let (version, kept) = back.head("kind", None).expect("is there");
        assert_eq!((version, &*kept), (5, &head(5)), "the current one");
        let next = back.put_head("kind", &head(13)).expect("keeps");
        assert_eq!(next, 13, "no version comes twice");
    }
    other.close();
    let other = Engine::open(&dir.path().join("b"), small()).expect("opens");
    let back = other.collection("a").expect("is there");
    assert_eq!(back.head("kind", None).expect("is there").0, 13);

    // What has not changed is the same file on disk.
    collection.put_head("kin", &head(71)).expect("keeps");
    let again = snapshot(&collection, &dir.path().join("u")).expect("is made");
    let one = collection.export_head("kin", None).expect("reads").len() as u64;
    assert_eq!(again.new_bytes, one);
}

#[test]
fn a_snapshot_without_heads_is_as_before_there_were_heads() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let engine = Engine::in_memory(small());
    let collection = varied(&engine, "a");
    collection.put_head("kind", &head(1)).expect("keeps");
    assert!(collection.delete_head("kind").expect("deletes"));
    snapshot(&collection, &dir.path().join("s")).expect("is made");
    let manifest = fs::read_to_string(dir.path().join("s/manifest.json")).expect("reads");
    assert!(manifest.contains("\"format\":1,"), "{manifest}");
    assert!(!manifest.contains("heads"), "{manifest}");
    assert_eq!(listed(&dir.path().join("s")), 2);
    let back = engine.restore(&dir.path().join("s"), "b", &quiet);
    assert!(back.expect("restores").heads().expect("lists").is_empty());
}

#[test]
fn a_damaged_head_fails_a_snapshot_and_is_named_or_left_out_on_demand() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let engine = Engine::with_store(Box::new(MemoryStore::new()), None, small()).expect("opens");
    let collection = varied(&engine, "a");
    for number in 1..=3 {
        collection.put_head("kind", &head(number)).expect("keeps");
    }
    for name in ["list", "only", "whole"] {
        collection.put_head(name, &head(9)).expect("keeps");
    }
    // The current version of the first, what says which versions the second has, and the only version
    // of the third.
    let flip = |ending: &[u8]| {
        let store = collection.core.store.as_ref();
        let entries = store.scan(b"h").map(|entry| entry.expect("reads"));
        let (key, mut value) = entries
            .into_iter()
            .find(|(key, _)| key.ends_with(ending))
            .expect("is there");
        value[20] ^= 1;
        let mut batch = Batch::default();
        batch.put(key, value);
        store.commit(batch).expect("commits");
    };
    let skip = SnapshotOptions {
        skip_damaged: true,
        ..SnapshotOptions::default()
    };
    // The last one is the first by name.
    for (ending, named) in [
        (&b"only\0\0\0\0\x01"[..], "head only"),
        (b"list\0", "head list"),
        (b"kind\0\0\0\0\x03", "head kind"),
    ] {
        flip(ending);
        let refused = snapshot(&collection, &dir.path().join("s")).expect_err("is refused");
        assert!(
            matches!(refused, EngineError::DamagedHead { .. }),
            "{refused}"
        );
        assert!(refused.to_string().contains(named), "{refused}");
    }
    let left = fs::read_dir(dir.path()).expect("lists").count();
    assert_eq!(left, 0, "nothing is left of it");
    let made = collection.snapshot(&dir.path().join("s"), &skip, &quiet);
    let info = made.expect("is made").info;
    assert_eq!(
        info.skipped_heads,
        ["kind, version 3", "list", "only, version 1"]
    );
    assert_eq!((info.items, info.heads), (150, 2));
    let back = engine.restore(&dir.path().join("s"), "b", &quiet);
    let back = back.expect("restores");
    let heads = back.heads().expect("lists");
    let names: Vec<&str> = heads.iter().map(|head| head.name.as_str()).collect();
    assert_eq!(names, ["kind", "whole"]);
    let (version, kept) = back.head("kind", None).expect("is there");
    assert_eq!((version, &*kept), (2, &head(2)), "the latest that reads");
}

#[test]
fn heads_and_items_are_of_one_moment_while_both_are_written() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let engine = Engine::open(&dir.path().join("data"), small()).expect("opens");
    let collection = varied(&engine, "a");
    let stop = AtomicBool::new(false);
    let path = |i: usize| dir.path().join(format!("s{i}"));
    std::thread::scope(|scope| {
        // In each step an item, and then a head.
        let writer = scope.spawn(|| {
            let mut n = 0;
            while !stop.load(SeqCst) {
                n += 1;
                let mut step = item("step", Modality::Text, "step");
                step.payload.insert("step".into(), n.into());
                collection.upsert(vec![step]).expect("upserts");
                collection.put_head("kind", &head(n)).expect("keeps");
            }
            n
        });
        for i in 0..20 {
            snapshot(&collection, &path(i)).expect("is made");
        }
        stop.store(true, SeqCst);
        assert!(
            writer.join().expect("no panic") > 20,
            "it waited all the time"
        );
    });
    let mut moments = std::collections::BTreeSet::new();
    for i in 0..20 {
        let back = engine.restore(&path(i), "b", &quiet).expect("restores");
        let step = back.get(&id("step")).expect("reads");
        let step = step.map_or(0, |step| step.payload["step"].as_u64().expect("a number"));
        let head = match back.head("kind", None) {
            Err(EngineError::NoHead { .. }) => 0,
            head => head.expect("is whole").1.about.made_at_ms.expect("is said"),
        };
        assert!(head == step || head + 1 == step, "head {head}, item {step}");
        let versions = back.heads().expect("lists").pop();
        let versions = versions.map_or(0, |head| head.versions.len() as u64);
        assert_eq!(versions, head.min(10));
        moments.insert(step);
        drop(back);
        engine.delete("b").expect("deletes");
    }
    assert!(moments.len() > 10, "{moments:?}");
}
