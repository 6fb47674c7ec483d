//! Damage that an open does not notice, and a search or the background does.

use std::{fs, path::Path};

use super::{
    opening::{ITEMS, LOOKS, PAUSE, filled, found, kept, marked, open, photo},
    *,
};
use crate::{
    Stats, catalog, marks, record,
    store::{Batch, Store},
};

fn wait_until(collection: &Collection, is_so: impl Fn(&Stats) -> bool) {
    let came = (0..LOOKS).any(|_| {
        std::thread::sleep(PAUSE);
        is_so(&collection.stats())
    });
    assert!(came, "{:?}", collection.stats());
}

/// Damages the files of the shared segments where the numbers of these items lie.
fn damage_rows(dir: &Path, rows: &[Item]) {
    let mut damaged = 0;
    for entry in fs::read_dir(dir.join("photos")).expect("lists") {
        let path = entry.expect("lists").path();
        if !path.to_string_lossy().contains("-shared-") {
            continue;
        }
        let mut bytes = fs::read(&path).expect("reads");
        for row in rows {
            let row: Vec<u8> = row
                .shared
                .as_slice()
                .iter()
                .flat_map(|x| x.to_le_bytes())
                .collect();
            if let Some(at) = bytes.windows(row.len()).position(|window| *window == *row) {
                bytes[at + 5] ^= 64;
                damaged += 1;
            }
        }
        fs::write(&path, bytes).expect("writes");
    }
    assert_eq!(damaged, rows.len(), "each row is in one file");
}

#[test]
fn damaged_rows_are_never_used_and_the_file_is_built_again() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let store = kept();
    let engine = open(&store, Some(dir.path()));
    let photos = filled(&engine);
    let before = found(&photos);
    drop(photos);
    drop(engine);
    damage_rows(dir.path(), &[photo(7, "7"), photo(8, "8")]);
    let engine = open(&store, Some(dir.path()));
    let photos = engine.collection("photos").expect("is there");
    // Whoever comes first, this search or the background, the answer is the same.
    assert_eq!(found(&photos), before);
    wait_until(&photos, |stats| !stats.sealing && stats.tail_rows == 0);
    assert_eq!(found(&photos), before);
    drop(photos);
    drop(engine);
    let engine = open(&store, Some(dir.path()));
    let photos = engine.collection("photos").expect("is there");
    assert_eq!(found(&photos), before);
    let stats = photos.stats();
    assert_eq!(
        (stats.sealed_rows, stats.tail_rows, stats.deleted_rows),
        (ITEMS, 0, 0)
    );
}

#[test]
fn damaged_rows_do_not_get_into_the_next_file() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let store = kept();
    let engine = open(&store, Some(dir.path()));
    let photos = filled(&engine);
    drop(photos);
    drop(engine);
    damage_rows(dir.path(), &[photo(7, "7")]);
    let engine = open(&store, Some(dir.path()));
    let photos = engine.collection("photos").expect("is there");
    photos.upsert(vec![photo(99, "new")]).expect("upserts");
    photos.seal().expect("seals");
    let query = shared(&photo(7, "7").shared);
    let request = SearchRequest::new(query, Target::Image, count(1));
    let hits = photos.search(&request).expect("searches");
    assert!(hits[0].id == id("007") && (hits[0].score.0 - 1.0).abs() < 1e-6);
}

#[test]
fn a_damaged_record_under_a_segment_is_put_aside_by_a_search_or_by_the_background() {
    for searched in [true, false] {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let store = kept();
        let engine = open(&store, Some(dir.path()));
        let photos = filled(&engine);
        drop(photos);
        drop(engine);
        let key = catalog::item_key(0, &id("007"));
        let mut value = store.get(&key).expect("reads").expect("is there");
        value[40] ^= 1;
        let mut batch = Batch::default();
        batch.put(key, value);
        store.commit(batch).expect("commits");

        let engine = open(&store, Some(dir.path()));
        let photos = engine.collection("photos").expect("is there");
        let query = shared(&photo(7, "7").shared);
        let request = SearchRequest::new(query, Target::Image, count(10));
        if searched {
            let hits = ids(&photos, &request);
            assert!(
                hits.len() == 10 && !hits.contains(&"007".to_owned()),
                "{hits:?}"
            );
        }
        wait_until(&photos, |stats| stats.damaged_items == 1);
        assert_eq!(photos.stats().items, ITEMS - 1);
        assert!(matches!(
            photos.get(&id("007")),
            Err(EngineError::DamagedItem { .. })
        ));
        assert_eq!(marked(&store), ["007"]);
        drop(photos);
        drop(engine);
        let engine = open(&store, Some(dir.path()));
        let photos = engine.collection("photos").expect("is there");
        assert_eq!(
            (photos.stats().items, photos.stats().damaged_items),
            (ITEMS - 1, 1)
        );
        photos.upsert(vec![photo(7, "7")]).expect("upserts");
        assert_eq!(ids(&photos, &request)[0], "007");
        assert_eq!(
            (photos.stats().items, photos.stats().damaged_items),
            (ITEMS, 0)
        );
    }
}

#[test]
fn an_item_that_the_index_lost_is_noticed_in_the_background_and_is_back_after_the_next_open() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let store = kept();
    drop(filled(&open(&store, Some(dir.path()))));
    // A record that came in without a mark, as no engine writes it.
    let mut item = photo(61, "7");
    item.payload.clear();
    let key = catalog::item_key(0, &item.id);
    let stamp = record::Stamp::of(&item, 1000);
    let mut batch = Batch::default();
    batch.put(key.clone(), record::encode(&key, &item, stamp));
    store.commit(batch).expect("commits");

    let engine = open(&store, Some(dir.path()));
    let photos = engine.collection("photos").expect("is there");
    assert_eq!(photos.stats().items, ITEMS);
    let noticed = (0..LOOKS).any(|_| {
        std::thread::sleep(PAUSE);
        store.scan(&marks::seal_prefix(0)).next().is_none()
    });
    assert!(noticed, "segments are believed no more");
    drop(photos);
    drop(engine);
    let engine = open(&store, Some(dir.path()));
    let photos = engine.collection("photos").expect("is there");
    assert_eq!(photos.stats().items, ITEMS + 1);
    assert!(found(&photos).iter().any(|(id, _)| id == "061"));
}
