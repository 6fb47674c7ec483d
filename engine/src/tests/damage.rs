//! Index files that are missing, cut, damaged or old; records that do not read back; deletes that
//! were interrupted.

use std::{fs, path::Path, sync::Arc, time::Duration};

use embedding::Modality;

use super::{model::Kept, *};
use crate::{
    catalog, record,
    store::{Batch, MemoryStore, Store},
};

const ITEMS: usize = 60;

/// Times that the background is looked at, and the pause between; a minute in all.
const LOOKS: usize = 6000;
const PAUSE: Duration = Duration::from_millis(10);

fn request(exact: bool) -> SearchRequest {
    let query = shared(&item("q", Modality::Image, "7").shared);
    SearchRequest {
        exact,
        ..SearchRequest::new(query, Target::Image, count(10))
    }
}

fn filled(dir: &Path) -> Vec<String> {
    let engine = Engine::open(dir, small()).expect("opens");
    let photos = engine.create("photos", &spaces()).expect("creates");
    let items = (0..ITEMS).map(|i| item(&format!("{i:03}"), Modality::Image, &i.to_string()));
    photos.upsert(items.collect()).expect("upserts");
    photos.seal().expect("seals");
    ids(&photos, &request(true))
}

fn index_files(dir: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(dir.join("index/photos")).expect("lists");
    let mut files: Vec<_> = entries.map(|entry| entry.expect("lists").path()).collect();
    files.sort();
    files
}

/// Opens, demands the right answer at once, and that the indexes are built again by themselves.
fn opens_and_heals(dir: &Path, expected: &[String], after: &str) {
    let engine = Engine::open(dir, small()).expect("opens");
    let photos = engine.collection("photos").expect("is there");
    assert_eq!(ids(&photos, &request(false)), expected, "{after}");
    let healed = (0..LOOKS).any(|_| {
        std::thread::sleep(PAUSE);
        let stats = photos.stats();
        !stats.sealing && stats.sealed_rows == ITEMS && stats.tail_rows == 0
    });
    assert!(healed, "{after}: {:?}", photos.stats());
    assert_eq!(
        ids(&photos, &request(false)),
        expected,
        "{after}, built again"
    );
    drop(photos);
    engine.close();
    let engine = Engine::open(dir, small()).expect("opens");
    let photos = engine.collection("photos").expect("is there");
    let stats = photos.stats();
    assert_eq!(
        (stats.sealed_rows, stats.tail_rows),
        (ITEMS, 0),
        "{after}: the file is good again"
    );
}

#[test]
fn missing_cut_damaged_and_swapped_index_files_are_built_again_while_searches_are_right() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let expected = filled(dir.path());
    let files = index_files(dir.path());
    assert!(files.len() >= 4, "two slots, two spaces: {files:?}");
    opens_and_heals(dir.path(), &expected, "good files");
    fs::remove_dir_all(dir.path().join("index")).expect("removes");
    opens_and_heals(dir.path(), &expected, "no files");
    for file in &index_files(dir.path()) {
        let bytes = fs::read(file).expect("reads");
        fs::write(file, &bytes[..bytes.len() / 2]).expect("writes");
    }
    opens_and_heals(dir.path(), &expected, "cut files");
    for file in &index_files(dir.path()) {
        let mut bytes = fs::read(file).expect("reads");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 16;
        fs::write(file, &bytes).expect("writes");
    }
    opens_and_heals(dir.path(), &expected, "damaged files");
    let files = index_files(dir.path());
    let (first, last) = (&files[0], &files[files.len() - 1]);
    let bytes = fs::read(first).expect("reads");
    fs::copy(last, first).expect("copies");
    fs::write(last, bytes).expect("writes");
    opens_and_heals(dir.path(), &expected, "swapped files");
    for file in &index_files(dir.path()) {
        fs::write(file, b"").expect("writes");
    }
    opens_and_heals(dir.path(), &expected, "empty files");
}

#[test]
fn files_of_seals_that_a_stop_cut_off_are_removed_at_open() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    filled(dir.path());
    let files = index_files(dir.path());
    for file in &files {
        fs::write(file.with_extension("tmp"), b"DIPTY").expect("writes");
    }
    Engine::open(dir.path(), small()).expect("opens").close();
    assert_eq!(index_files(dir.path()), files);
}

#[test]
fn an_old_index_file_brings_back_neither_deleted_nor_replaced_items() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    filled(dir.path());
    let old: Vec<_> = index_files(dir.path())
        .into_iter()
        .map(|f| (f.clone(), fs::read(f).expect("reads")))
        .collect();
    let engine = Engine::open(dir.path(), small()).expect("opens");
    let photos = engine.collection("photos").expect("is there");
    photos.delete(&[id("007")]).expect("deletes");
    photos
        .upsert(vec![item("008", Modality::Image, "other")])
        .expect("upserts");
    photos
        .upsert(vec![item("new", Modality::Image, "7")])
        .expect("upserts");
    photos.seal().expect("seals");
    let expected = ids(&photos, &request(true));
    assert_eq!(expected[0], "new");
    drop(photos);
    engine.close();
    // Under their old names, and under those of the new ones.
    for renamed in [false, true] {
        let new = index_files(dir.path());
        for (file, bytes) in &old {
            let shard = |file: &Path| {
                let name = file.file_stem().expect("has a name").to_string_lossy();
                name.rsplit_once('-').expect("has a number").0.to_owned()
            };
            let file = match new.iter().find(|new| shard(new) == shard(file)) {
                Some(new) if renamed => new,
                _ => file,
            };
            fs::write(file, bytes).expect("writes");
        }
        let engine = Engine::open(dir.path(), small()).expect("opens");
        let photos = engine.collection("photos").expect("is there");
        assert_eq!(ids(&photos, &request(false)), expected);
        let stats = photos.stats();
        assert_eq!((stats.items, stats.deleted_rows), (ITEMS, 0));
        photos.seal().expect("seals");
        assert_eq!(ids(&photos, &request(false)), expected);
    }
}

#[test]
fn a_record_that_does_not_read_back_is_an_error_for_its_item_and_for_no_other() {
    let store = Kept(Arc::new(MemoryStore::new()));
    let open = || Engine::with_store(Box::new(store.clone()), None, small()).expect("opens");
    let engine = open();
    let notes = engine.create("notes", &spaces()).expect("creates");
    let write = |name: &str| item(name, Modality::Text, name);
    notes
        .upsert(vec![write("a"), write("b"), write("c")])
        .expect("upserts");
    let key = catalog::item_key(0, &id("b"));
    let mut value = store.get(&key).expect("reads").expect("is there");
    value[40] ^= 1;
    let mut batch = Batch::default();
    batch.put(key, value);
    store.commit(batch).expect("commits");

    let request = SearchRequest::new(shared(&write("b").shared), Target::Both, count(3));
    assert_eq!(ids(&notes, &request).len(), 2, "it is left out");
    assert_eq!((notes.stats().items, notes.stats().damaged_items), (2, 1));
    drop(notes);
    drop(engine);
    let engine = open();
    let notes = engine.collection("notes").expect("is there");
    assert_eq!(ids(&notes, &request).len(), 2);
    assert!(matches!(
        notes.get(&id("b")),
        Err(EngineError::DamagedItem { .. })
    ));
    assert_eq!(
        notes.metas().expect("lists").filter(Result::is_err).count(),
        1
    );
    let items: Vec<_> = notes.items().expect("lists").collect();
    assert!(matches!(
        items[..],
        [Ok(_), Err(EngineError::DamagedItem { .. }), Ok(_)]
    ));
    assert_eq!((notes.stats().items, notes.stats().damaged_items), (2, 1));
    assert_eq!(notes.upsert(vec![write("b")]).expect("upserts").updated, 1);
    assert_eq!(ids(&notes, &request)[0], "b");
    assert_eq!(notes.stats().damaged_items, 0);
}

#[test]
fn spaces_of_no_elements_are_refused_before_anything_is_stored_and_when_found_in_the_store() {
    let store = Kept(Arc::new(MemoryStore::new()));
    let open = || Engine::with_store(Box::new(store.clone()), None, small());
    let flat = [
        Spaces {
            shared_dim: 0,
            ..spaces()
        },
        Spaces {
            specific_text_dim: Some(0),
            ..spaces()
        },
        Spaces {
            specific_image_dim: Some(0),
            ..spaces()
        },
    ];
    let engine = open().expect("opens");
    for spaces in &flat {
        let refused = engine.create("notes", spaces);
        assert!(matches!(refused, Err(EngineError::BadDim { .. })));
    }
    assert!(engine.collection("notes").is_none());
    drop(engine);
    let engine = open().expect("nothing was stored");
    engine.create("notes", &spaces()).expect("creates");
    drop(engine);

    let (key, value) = store
        .scan(catalog::COLLECTIONS)
        .next()
        .expect("is there")
        .expect("reads");
    let body = String::from_utf8_lossy(&value[..value.len() - 16])
        .replace("\"shared_dim\":24", "\"shared_dim\":0");
    let mut batch = Batch::default();
    batch.put(key.clone(), record::with_checksum(&key, body.into_bytes()));
    store.commit(batch).expect("commits");
    let error = open().expect_err("would have no rows").to_string();
    let expected = "the description of collection notes is damaged in the store: \
                    model hash-24 has shared dim 0, expected 1 to 65536";
    assert_eq!(error, expected);
}

#[test]
fn a_key_that_is_no_id_of_an_item_keeps_no_other_item_away() {
    let store = Kept(Arc::new(MemoryStore::new()));
    let open = || Engine::with_store(Box::new(store.clone()), None, small()).expect("opens");
    let notes = open().create("notes", &spaces()).expect("creates");
    let good = item("b", Modality::Text, "b");
    notes.upsert(vec![good.clone()]).expect("upserts");
    drop(notes);
    let value = store.get(&catalog::item_key(0, &good.id)).expect("reads");
    let mut batch = Batch::default();
    for no_id in [b"".as_slice(), b"a\n", b"\xff"] {
        let key = [&catalog::item_prefix(0), no_id].concat();
        batch.put(key, value.clone().expect("is there"));
    }
    store.commit(batch).expect("commits");

    let notes = open().collection("notes").expect("is there");
    let request = SearchRequest::new(shared(&good.shared), Target::Both, count(9));
    assert_eq!(ids(&notes, &request), ["b"]);
    let stats = notes.stats();
    assert_eq!((stats.items, stats.damaged_items), (1, 0));
    let metas: Vec<_> = notes.metas().expect("lists").collect();
    let damaged =
        |meta: &&Result<_, EngineError>| matches!(meta, Err(EngineError::DamagedItem { .. }));
    assert_eq!((metas.len(), metas.iter().filter(damaged).count()), (4, 3));
}

#[test]
fn an_interrupted_delete_of_a_collection_is_completed_at_the_next_open() {
    let store = Kept(Arc::new(MemoryStore::new()));
    let open = || Engine::with_store(Box::new(store.clone()), None, small()).expect("opens");
    let engine = open();
    for name in ["a", "b"] {
        let collection = engine.create(name, &spaces()).expect("creates");
        collection
            .upsert(vec![item("x", Modality::Text, name)])
            .expect("upserts");
    }
    drop(engine);
    catalog::delete(&store, "a", 0).expect("deletes");
    let engine = open();
    assert!(engine.collection("a").is_none());
    assert_eq!(
        store.scan(&catalog::item_prefix(0)).count(),
        0,
        "its items are gone"
    );
    let a = engine.create("a", &spaces()).expect("creates");
    assert_eq!(a.get(&id("x")).expect("reads"), None);
    let b = engine.collection("b").expect("is there");
    assert!(b.get(&id("x")).expect("reads").is_some());
}

#[test]
fn a_collection_that_could_not_be_deleted_goes_on_and_says_what_the_store_says() {
    // Writes after a failed delete were told that the collection was deleted, while it was there.
    let run = |stop: usize| {
        let store = Kept(Arc::new(MemoryStore::stopping_after(stop)));
        let engine = Engine::with_store(Box::new(store.clone()), None, small()).expect("opens");
        let notes = engine.create("notes", &spaces()).expect("creates");
        let write = || notes.upsert(vec![item("x", Modality::Text, "x")]);
        write().expect("upserts");
        if stop < usize::MAX {
            let refused = engine.delete("notes");
            assert!(matches!(refused, Err(EngineError::Store(_))), "{refused:?}");
            assert!(engine.collection("notes").is_some());
            let refused = write();
            assert!(matches!(refused, Err(EngineError::Store(_))), "{refused:?}");
            assert!(notes.get(&id("x")).expect("reads").is_some());
            notes.seal().expect("seals");
            assert_eq!(notes.stats().tail_rows, 0);
        }
        store.0.written_bytes()
    };
    // Just enough room for everything before the delete.
    run(run(usize::MAX));
}
