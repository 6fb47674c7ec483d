//! The files of snapshots: shared, damaged, left over.

use std::{collections::BTreeSet, fs, sync::Arc};

use super::{super::model::Kept, *};
use crate::{
    pack_snapshot, remove_snapshot,
    store::{MemoryStore, Store},
};

/// A small snapshot of two chunks and a head of two versions, as a folder.
fn two_chunks(dir: &Path) -> PathBuf {
    let engine = Engine::in_memory(small());
    let collection = engine.create("a", &spaces()).expect("creates");
    let mut large = item("a", Modality::Text, "a");
    large.text = Some("z".repeat(1100 << 10));
    let items = vec![
        large,
        item("b", Modality::Image, "b"),
        item("c", Modality::Text, "c"),
    ];
    collection.upsert(items).expect("upserts");
    for number in [1, 2] {
        collection.put_head("kind", &head(number)).expect("keeps");
    }
    let made = snapshot(&collection, &dir.join("s")).expect("is made");
    assert_eq!((made.info.chunks, made.info.heads), (2, 1));
    dir.join("s")
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let list = |folder: &Path| {
        let entries = fs::read_dir(folder).expect("lists");
        entries
            .map(|entry| entry.expect("lists").path())
            .collect::<Vec<_>>()
    };
    let mut files = list(&folder.join("chunks"));
    files.push(folder.join("manifest.json"));
    let mut folders = 2;
    if folder.join("heads").is_dir() {
        files.extend(list(&folder.join("heads")));
        folders += 1;
    }
    assert_eq!(list(folder).len(), folders, "nothing else");
    files
}

/// Demands that a snapshot is refused as damaged, by whoever reads it, and leaves nothing.
fn is_refused(engine: &Engine, path: &Path, what: &str) {
    let refused = verify_snapshot(path, &quiet).expect_err(what);
    let is_it = |error: &SnapshotError| {
        matches!(
            error,
            SnapshotError::Damaged { .. } | SnapshotError::None { .. }
        )
    };
    assert!(is_it(&refused), "{what}: {refused}");
    let refused = engine.restore(path, "b", &quiet).expect_err(what);
    assert!(
        matches!(&refused, EngineError::Snapshot(error) if is_it(error)),
        "{what}: {refused}"
    );
    assert!(engine.collection("b").is_none(), "{what}");
}

#[test]
fn a_flipped_bit_or_a_cut_anywhere_is_found_and_leaves_no_collection() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let folder = two_chunks(dir.path());
    let tar = dir.path().join("t.tar");
    let mut packed = fs::File::create(&tar).expect("creates");
    pack_snapshot(&folder, &mut packed).expect("packs");
    verify_snapshot(&tar, &quiet).expect("is good");
    let store = MemoryStore::new();
    let engine = Engine::with_store(Box::new(store), None, small()).expect("opens");
    let mut all: Vec<_> = files(&folder)
        .into_iter()
        .map(|file| (file, &folder))
        .collect();
    all.push((tar.clone(), &tar));
    for (file, snapshot) in all {
        let bytes = fs::read(&file).expect("reads");
        // Every byte at the ends, where all the parts are; some of the long text between.
        let edge = if file == tar { 3200 } else { 1000 };
        let most = |i: &usize| *i < edge || *i + edge > bytes.len() || i.is_multiple_of(50_021);
        for i in (0..bytes.len()).filter(most) {
            let mut flipped = bytes.clone();
            flipped[i] ^= 1 << (i % 8);
            fs::write(&file, &flipped).expect("writes");
            let name = file.display();
            if i % 16 == 0 {
                is_refused(&engine, snapshot, &format!("byte {i} of {name}"));
                fs::write(&file, &bytes[..i]).expect("writes");
                is_refused(&engine, snapshot, &format!("{name} cut after {i}"));
            } else {
                let found = verify_snapshot(snapshot, &quiet);
                assert!(found.is_err(), "byte {i} of {name}");
            }
        }
        fs::remove_file(&file).expect("removes");
        is_refused(&engine, snapshot, "a missing file");
        fs::write(&file, [&bytes[..], b"x"].concat()).expect("writes");
        is_refused(&engine, snapshot, "a longer file");
        fs::write(&file, bytes).expect("writes");
        verify_snapshot(snapshot, &quiet).expect("is good again");
    }
    let left = engine.create("c", &spaces()).expect("creates");
    let left = left
        .core
        .store
        .scan(b"")
        .map(|entry| entry.expect("reads").0);
    assert_eq!(
        left.count(),
        2,
        "one collection and what its versions are below, and nothing of the failed ones"
    );
}

#[test]
fn chunks_of_swapped_names_or_of_another_model_are_refused() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let folder = two_chunks(dir.path());
    let engine = Engine::in_memory(small());
    let all = files(&folder);
    let bytes = fs::read(&all[0]).expect("reads");
    fs::copy(&all[1], &all[0]).expect("copies");
    fs::write(&all[1], bytes).expect("writes");
    is_refused(&engine, &folder, "swapped chunks");
}

#[test]
fn a_manifest_of_a_later_version_says_so() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let folder = two_chunks(dir.path());
    let file = folder.join("manifest.json");
    let text = fs::read_to_string(&file).expect("reads");
    serde_json::from_str::<serde_json::Value>(&text).expect("the whole is JSON");
    let (_, rest) = text.split_once('\n').expect("lines");
    let rest = rest.replacen("\"format\":2", "\"format\":3,\"color\":\"red\"", 1);
    let hash = blake3::hash(rest.as_bytes()).to_hex();
    fs::write(&file, format!("{{\"checksum\":\"{hash}\",\n{rest}")).expect("writes");
    let later = verify_snapshot(&folder, &quiet).expect_err("is not known");
    assert!(
        matches!(
            later,
            SnapshotError::Format {
                format: 3,
                expected: 2,
                ..
            }
        ),
        "{later}"
    );
}

#[cfg(unix)]
#[test]
fn a_second_snapshot_shares_what_has_not_changed_but_nothing_damaged() {
    use std::os::unix::fs::MetadataExt;

    let dir = tempfile::tempdir().expect("a temporary folder");
    let engine = Engine::in_memory(small());
    let collection = engine.create("a", &spaces()).expect("creates");
    let filled = |name: &str, content: &str| {
        let mut item = item(name, Modality::Text, content);
        item.text = Some("x".repeat(6000));
        item
    };
    let all = (0..2500).map(|i| filled(&format!("{i:04}"), &i.to_string()));
    collection.upsert(all.collect()).expect("upserts");
    let path = |name: &str| dir.path().join("all").join(name);
    let first = snapshot(&collection, &path("1")).expect("is made");
    assert!(first.info.chunks > 10, "{first:?}");
    collection
        .upsert(vec![filled("1000", "new")])
        .expect("upserts");
    collection.delete(&[id("0017")]).expect("deletes");
    let second = snapshot(&collection, &path("2")).expect("is made");
    assert!(second.new_bytes < first.new_bytes / 3, "{second:?}");
    let inodes = |folder: &str| -> BTreeSet<u64> {
        let files = files(&path(folder)).into_iter();
        files
            .map(|file| fs::metadata(file).expect("is there").ino())
            .collect()
    };
    let shared = inodes("1").intersection(&inodes("2")).count();
    assert!(
        shared > first.info.chunks * 2 / 3,
        "{shared} of {}",
        first.info.chunks
    );
    // The first may go; a base may be anywhere on the disk.
    remove_snapshot(&path("1")).expect("removes");
    remove_snapshot(&path("1")).expect_err("is gone");
    remove_snapshot(dir.path()).expect_err("is none");
    verify_snapshot(&path("2"), &quiet).expect("is good");
    let options = SnapshotOptions {
        base: Some(path("2")),
        ..SnapshotOptions::default()
    };
    let other = dir.path().join("other");
    let third = collection
        .snapshot(&other, &options, &quiet)
        .expect("is made");
    assert_eq!(third.new_bytes, 0);
    fs::remove_dir_all(other).expect("removes");
    // A chunk that rots is written again.
    let chunk = &files(&path("2"))[0];
    let mut bytes = fs::read(chunk).expect("reads");
    bytes[100] ^= 4;
    fs::write(chunk, &bytes).expect("writes");
    let fourth = snapshot(&collection, &path("4")).expect("is made");
    assert_eq!(fourth.new_bytes, bytes.len() as u64);
    verify_snapshot(&path("4"), &quiet).expect("is good");
    verify_snapshot(&path("2"), &quiet).expect_err("is damaged");
    let bad = SnapshotOptions {
        base: Some(dir.path().join("all")),
        ..SnapshotOptions::default()
    };
    let refused = collection.snapshot(&path("5"), &bad, &quiet);
    assert!(refused.is_err(), "that is no snapshot");
    let refused = collection.snapshot(&path("5.tar"), &options, &quiet);
    assert!(refused.is_err(), "a tar has no base");
}

#[test]
fn what_a_stop_left_of_a_snapshot_is_no_snapshot_and_goes_with_the_next() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let engine = Engine::in_memory(small());
    let collection = varied(&engine, "a");
    // As a kill leaves it: all files are there, and only the rename is missing.
    snapshot(&collection, &dir.path().join("s")).expect("is made");
    let left = dir.path().join("s.partial");
    fs::rename(dir.path().join("s"), &left).expect("renames");
    fs::write(left.join("diptych-snapshot.lock"), b"").expect("writes");
    fs::write(dir.path().join("t.tar.partial"), b"the start").expect("writes");
    let mine = dir.path().join("download.partial");
    fs::create_dir(&mine).expect("creates");
    fs::write(mine.join("precious"), b"1").expect("writes");
    assert!(list_snapshots(dir.path()).expect("lists").is_empty());
    let made = snapshot(&collection, &dir.path().join("u")).expect("is made");
    assert_eq!(
        made.new_bytes, made.info.bytes,
        "nothing is shared with what is not whole"
    );
    assert!(!left.exists() && mine.join("precious").is_file());
    snapshot(&collection, &dir.path().join("s")).expect("is made");
    snapshot(&collection, &dir.path().join("t.tar")).expect("is made");
    assert_eq!(list_snapshots(dir.path()).expect("lists").len(), 3);
    assert!(!dir.path().join("t.tar.partial").exists());
}

#[test]
fn other_programs_can_unpack_a_tar_and_the_folder_is_a_snapshot() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let folder = two_chunks(dir.path());
    let tar = dir.path().join("t.tar");
    pack_snapshot(&folder, &mut fs::File::create(&tar).expect("creates")).expect("packs");
    let unpacked = dir.path().join("unpacked");
    let mut archive = tar::Archive::new(fs::File::open(&tar).expect("opens"));
    archive.unpack(&unpacked).expect("unpacks");
    let info = verify_snapshot(&unpacked, &quiet).expect("is good");
    assert_eq!(info, verify_snapshot(&tar, &quiet).expect("is good"));
    let again = dir.path().join("again.tar");
    pack_snapshot(&tar, &mut fs::File::create(&again).expect("creates")).expect("packs");
    assert_eq!(
        fs::read(again).expect("reads"),
        fs::read(tar).expect("reads")
    );
    fs::write(files(&folder).remove(0), b"").expect("writes");
    pack_snapshot(&folder, &mut Vec::new()).expect_err("is damaged");
}

#[test]
fn a_restore_that_is_stopped_at_any_moment_leaves_all_or_nothing() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let engine = Engine::in_memory(small());
    let collection = engine.create("a", &spaces()).expect("creates");
    // More than go into one batch.
    let all = (0..1300).map(|i| item(&format!("{i:04}"), Modality::Text, &i.to_string()));
    collection.upsert(all.collect()).expect("upserts");
    for number in [1, 2] {
        collection.put_head("kind", &head(number)).expect("keeps");
    }
    let to = dir.path().join("s");
    snapshot(&collection, &to).expect("is made");
    let expected = items(&collection);
    let heads = collection.heads().expect("lists");
    let whole = MemoryStore::stopping_after(usize::MAX);
    let restored = |store: MemoryStore| {
        let store = Arc::new(store);
        let engine = Engine::with_store(Box::new(Kept(store.clone())), None, small());
        let done = engine.expect("opens").restore(&to, "b", &quiet).is_ok();
        (store, done)
    };
    let (store, done) = restored(whole);
    assert!(done);
    let total = store.written_bytes();
    let (mut none, mut some) = (0, 0);
    for i in 0..60 {
        let (store, done) = restored(MemoryStore::stopping_after(total * i / 59));
        let again = Arc::new(store.reopened());
        let engine = Engine::with_store(Box::new(Kept(again.clone())), None, small());
        let engine = engine.expect("opens");
        if let Some(there) = engine.collection("b") {
            assert_eq!(items(&there), expected, "stopped at {i}");
            assert_eq!(there.heads().expect("lists"), heads, "stopped at {i}");
            some += 1;
        } else {
            assert!(!done, "stopped at {i}");
            assert_eq!(again.scan(b"").count(), 0, "stopped at {i}");
            none += 1;
        }
    }
    assert!(none > 5 && some > 0, "{none} {some}");
}
