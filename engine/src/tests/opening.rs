//! What an open reads, and that it comes to the same as reading everything, whatever stopped the
//! engine before.
//!
//! Over 400 lines: the tests share the store that counts reads, and what damages files.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use embedding::Modality;

use super::{model::Kept, *};
use crate::{
    Stats, catalog, marks,
    store::{Batch, Entry, MemoryStore, Store, StoreError},
};

const ITEMS: usize = 60;
/// Times that the background is looked at, and the pause between; a minute in all.
const LOOKS: usize = 6000;
const PAUSE: Duration = Duration::from_millis(10);

/// Counts the records that are read.
struct Counting {
    store: Kept,
    gets: Arc<AtomicUsize>,
    scans: Arc<AtomicUsize>,
}

impl Store for Counting {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.gets
            .fetch_add(usize::from(key.starts_with(b"i")), SeqCst);
        self.store.get(key)
    }

    fn scan_after<'a>(
        &'a self,
        prefix: &[u8],
        after: Option<&[u8]>,
    ) -> Box<dyn Iterator<Item = Entry> + Send + 'a> {
        self.scans
            .fetch_add(usize::from(prefix.starts_with(b"i")), SeqCst);
        self.store.scan_after(prefix, after)
    }

    fn apply(&self, batch: Batch) -> Result<(), StoreError> {
        self.store.apply(batch)
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.store.sync()
    }
}

fn photo(i: usize, content: &str) -> Item {
    item(&format!("{i:03}"), Modality::Image, content)
}

fn open(store: &Kept, dir: Option<&Path>) -> Engine {
    let dir = dir.map(Path::to_owned);
    Engine::with_store(Box::new(store.clone()), dir, small()).expect("opens")
}

fn kept() -> Kept {
    Kept(Arc::new(MemoryStore::new()))
}

fn filled(engine: &Engine) -> Arc<Collection> {
    let photos = engine.create("photos", &spaces()).expect("creates");
    let items = (0..ITEMS).map(|i| photo(i, &i.to_string()));
    photos.upsert(items.collect()).expect("upserts");
    photos.seal().expect("seals");
    photos
}

/// Everything that there is, by what a search finds.
fn found(collection: &Collection) -> Vec<(String, u32)> {
    let mut found = Vec::new();
    for exact in [true, false] {
        let query = shared(&item("q", Modality::Image, "7").shared);
        let mut request = SearchRequest::new(query, Target::Both, count(200));
        request.exact = exact;
        let hits = collection.search(&request).expect("searches").hits;
        found.extend(
            hits.iter()
                .map(|hit| (hit.id.to_string(), hit.score.0.to_bits())),
        );
    }
    found
}

fn marked(store: &Kept) -> Vec<String> {
    let marks = marks::marked(store, 0).map(|mark| mark.expect("reads").id.to_string());
    marks.collect()
}

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
fn an_open_reads_the_records_of_changed_items_only() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let store = kept();
    let engine = open(&store, Some(dir.path()));
    let photos = filled(&engine);
    assert_eq!(marked(&store), [""; 0], "everything is sealed");
    photos.delete(&[id("003"), id("004")]).expect("deletes");
    let changed = vec![
        photo(5, "other"),
        photo(6, "6"),
        item("007", Modality::Text, "7"),
        photo(99, "new"),
    ];
    photos.upsert(changed).expect("upserts");
    let before = found(&photos);
    assert_eq!(
        marked(&store),
        ["003", "004", "005", "007", "099"],
        "006 is as it was"
    );
    drop(photos);
    drop(engine);

    let (gets, scans) = <(Arc<AtomicUsize>, Arc<AtomicUsize>)>::default();
    let counting = Counting {
        store: store.clone(),
        gets: gets.clone(),
        scans: scans.clone(),
    };
    let listed = catalog::list(&counting).expect("lists");
    let [(name, description)] = &listed[..] else {
        panic!("one collection");
    };
    let core = crate::collection::Core::for_tests(Box::new(counting), dir.path(), small());
    let (name, description) = (name.clone(), description.clone());
    let versions = crate::versions::Versions::open(core.store.as_ref(), description.number);
    let versions = versions.expect("opens");
    let photos = crate::loading::load(name, description, versions, &core).expect("loads");
    assert_eq!((gets.load(SeqCst), scans.load(SeqCst)), (5, 0));
    assert_eq!(found(&photos), before);
    let stats = photos.stats();
    assert_eq!((stats.items, stats.texts), (ITEMS - 2 + 1, 1));
}

#[test]
fn a_new_item_gets_no_ordinal_that_another_has_after_an_open() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let store = kept();
    let engine = open(&store, Some(dir.path()));
    let photos = filled(&engine);
    photos.delete(&[id("010")]).expect("deletes");
    drop(photos);
    drop(engine);
    let engine = open(&store, Some(dir.path()));
    let photos = engine.collection("photos").expect("is there");
    let new = (100..103).map(|i| photo(i, "new"));
    photos.upsert(new.collect()).expect("upserts");
    let mut ordinals: Vec<u32> = store
        .scan(&catalog::item_prefix(0))
        .map(|entry| {
            let (key, value) = entry.expect("reads");
            let record = crate::record::Record::read(&key, &value).expect("is good");
            record.stamp.ordinal
        })
        .collect();
    ordinals.sort_unstable();
    assert_eq!(ordinals, (0..ITEMS as u32 + 2).collect::<Vec<_>>());
}

#[test]
fn a_store_that_stops_anywhere_around_a_seal_reopens_with_what_was_acknowledged() {
    // The file of a seal is there before the store takes it for the good one, and the marks and the
    // file before it go after that: a stop at every few bytes comes between all of them.
    let run = |stop: usize| {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let store = Kept(Arc::new(MemoryStore::stopping_after(stop)));
        let mut model: BTreeMap<ItemId, Item> = BTreeMap::new();
        let mut seals = 0;
        let mut script = || -> Result<(), EngineError> {
            let config = EngineConfig {
                seal_rows: 1000,
                ..small()
            };
            let index = Some(dir.path().to_owned());
            let engine = Engine::with_store(Box::new(store.clone()), index, config)?;
            let c = engine.create("c", &spaces())?;
            for i in 0..9 {
                let write = |n: usize, content: usize| photo(n % 14, &format!("{content}"));
                let items: Vec<Item> = (0..5).map(|n| write(i * 3 + n, i)).collect();
                c.upsert(items.clone())?;
                model.extend(items.into_iter().map(|item| (item.id.clone(), item)));
                let moved = item(&format!("{:03}", i % 14), Modality::Text, "moved");
                c.upsert(vec![moved.clone()])?;
                model.insert(moved.id.clone(), moved);
                let gone = photo(i * 5 % 14, "").id;
                c.delete(std::slice::from_ref(&gone))?;
                model.remove(&gone);
                if i % 2 == 1 {
                    c.seal()?;
                    seals += 1;
                }
            }
            Ok(())
        };
        let finished = script().is_ok();
        for again in 0..2 {
            let reopened = Kept(Arc::new(store.0.reopened()));
            let engine = open(&reopened, Some(dir.path()));
            let Some(collection) = engine.collection("c") else {
                assert!(model.is_empty(), "stopped after {stop} bytes");
                continue;
            };
            let context = format!("stopped after {stop} bytes, open {again}");
            let stats = collection.stats();
            assert_eq!(
                (stats.items, stats.damaged_items),
                (model.len(), 0),
                "{context}"
            );
            for wanted in model.values() {
                let query = shared(&wanted.shared);
                let target = match wanted.modality {
                    Modality::Image => Target::Image,
                    Modality::Text => Target::Text,
                };
                let mut request = SearchRequest::new(query, target, count(1));
                request.exact = true;
                let hits = collection.search(&request).expect("searches").hits;
                let best = model.get(&hits[0].id).expect("only what is there is found");
                assert!(
                    (best.shared.cosine(&wanted.shared) - 1.0).abs() < 1e-5,
                    "{context}"
                );
                let specific = wanted.specific.clone().expect("has one");
                let space = spaces().specific(wanted.modality).expect("has one");
                let query = Query {
                    embedding: specific,
                    space,
                };
                let request = SearchRequest::new(query, Target::Both, count(20));
                let all = collection.search(&request).expect("searches").hits;
                let same = model
                    .values()
                    .filter(|item| item.modality == wanted.modality);
                assert_eq!(all.len(), same.count(), "{context}");
            }
        }
        // The last writes are acknowledged ones, so that no stop goes unnoticed.
        assert_ne!(
            finished,
            store.0.has_stopped(),
            "stopped after {stop} bytes"
        );
        finished
    };
    let step = if std::env::var_os("DIPTYCH_EVERY_STOP").is_some() {
        1
    } else {
        211
    };
    // Until one comes to its end. Runs differ in length: of two seals at the same time, one or both
    // remove the mark of an item.
    let stops = (0..).step_by(step).take_while(|stop| !run(*stop)).count();
    assert!(stops > 20, "only {stops} stops");
}

#[test]
fn changes_by_an_engine_that_keeps_no_indexes_are_seen_by_one_that_does() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let store = kept();
    drop(filled(&open(&store, Some(dir.path()))));
    let engine = open(&store, None);
    let photos = engine.collection("photos").expect("is there");
    photos.delete(&[id("001")]).expect("deletes");
    photos.upsert(vec![photo(2, "other")]).expect("upserts");
    let before = found(&photos);
    assert_eq!(marked(&store), [""; 0]);
    drop(photos);
    drop(engine);
    for again in 0..2 {
        let engine = open(&store, Some(dir.path()));
        let photos = engine.collection("photos").expect("is there");
        assert_eq!(found(&photos), before, "open {again}");
        photos.seal().expect("seals");
        assert_eq!(found(&photos), before, "open {again}");
    }
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
    let hits = photos.search(&request).expect("searches").hits;
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
fn marks_that_a_stop_left_behind_are_removed() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let store = kept();
    drop(filled(&open(&store, Some(dir.path()))));
    let mut batch = Batch::default();
    for name in ["000", "010", "no item"] {
        marks::put(&mut batch, 0, &id(name));
    }
    store.commit(batch).expect("commits");
    let engine = open(&store, Some(dir.path()));
    let photos = engine.collection("photos").expect("is there");
    assert_eq!(photos.stats().items, ITEMS);
    let gone = (0..LOOKS).any(|_| {
        std::thread::sleep(PAUSE);
        marked(&store).is_empty()
    });
    assert!(gone, "{:?}", marked(&store));
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
    let stamp = crate::record::Stamp::of(&item, 1000);
    let mut batch = Batch::default();
    batch.put(key.clone(), crate::record::encode(&key, &item, stamp, 1));
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
