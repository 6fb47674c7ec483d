//! The engine through its public face, against a plain model of it.

mod corpus;
mod damage;
mod filters;
mod graph;
mod listing;
mod model;
mod opening;
mod recall;
mod searches;
mod snapshots;
mod writing;

use std::num::NonZeroUsize;

use embedding::{Embedding, Encoder, Fingerprint, HashEncoder, Modality, Spaces};

use crate::{
    Collection, Engine, EngineConfig, EngineError, HnswParams, Item, ItemId, Query, Score,
    SearchRequest, Target,
};

const DIM: usize = 24;

fn spaces() -> Spaces {
    Encoder::<&str>::spaces(&HashEncoder::new(Modality::Text, DIM)).clone()
}

/// Settings under which a handful of items already makes a graph. No search walks it, because that
/// many candidates are most of the nodes: the scan answers, and answers are exact. Searches that
/// walk are in [`graph`] and in the test of recall.
fn small() -> EngineConfig {
    EngineConfig {
        seal_rows: 8,
        graph_rows: 4,
        shards: NonZeroUsize::new(2),
        hnsw: HnswParams {
            m: 4,
            ef_construction: 16,
            ef_search: 64,
            ..HnswParams::default()
        },
        index_memory_bytes: None,
        store_cache_bytes: 8 << 20,
        audit_share: 0.0,
        ..EngineConfig::default()
    }
}

fn id(id: &str) -> ItemId {
    ItemId::new(id).expect("an id")
}

/// An item whose embeddings follow from `content`.
fn item(name: &str, modality: Modality, content: &str) -> Item {
    let encoder = HashEncoder::new(modality, DIM);
    let encoded = encoder.encode(&[content]).expect("encodes").remove(0);
    let mut item = Item::new(id(name), modality, encoded.shared);
    item.specific = encoded.specific;
    item.payload.insert("content".into(), content.into());
    item
}

fn shared(embedding: &Embedding) -> Query {
    Query {
        embedding: embedding.clone(),
        space: spaces().shared(),
    }
}

fn count(n: usize) -> NonZeroUsize {
    NonZeroUsize::new(n).expect("not zero")
}

fn ids(collection: &Collection, request: &SearchRequest) -> Vec<String> {
    let answer = collection.search(request).expect("searches");
    answer
        .hits
        .into_iter()
        .map(|hit| hit.id.to_string())
        .collect()
}

#[test]
fn a_collection_remembers_its_model_and_refuses_another() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let engine = Engine::open(dir.path(), small()).expect("opens");
    engine.create("a", &spaces()).expect("creates");
    engine.close();
    let engine = Engine::open(dir.path(), small()).expect("opens");
    let renamed = Spaces {
        model: "renamed".into(),
        ..spaces()
    };
    let again = engine
        .create("a", &renamed)
        .expect("the name of the model does not count");
    let other = Spaces {
        fingerprint: Fingerprint([9; 16]),
        ..spaces()
    };
    let refused = engine.create("a", &other);
    assert!(matches!(refused, Err(EngineError::AnotherModel { .. })));
    let embedding = item("x", Modality::Text, "x").shared;
    let query = Query {
        embedding,
        space: other.shared(),
    };
    let refused = again.search(&SearchRequest::new(query, Target::Both, count(1)));
    assert!(matches!(refused, Err(EngineError::AnotherModel { .. })));
    assert!(matches!(
        engine.create("A", &spaces()),
        Err(EngineError::BadName { .. })
    ));
}

#[test]
fn a_second_engine_on_a_directory_is_refused_until_the_first_is_gone() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let first = Engine::open(dir.path(), small()).expect("opens");
    let second = Engine::open(dir.path(), small());
    assert!(matches!(second, Err(EngineError::Locked { .. })));
    first.close();
    Engine::open(dir.path(), small()).expect("opens again");
}

#[test]
fn a_deleted_collection_is_gone_with_its_files_and_its_name_is_free() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let engine = Engine::open(dir.path(), small()).expect("opens");
    let old = engine.create("a", &spaces()).expect("creates");
    old.upsert(vec![item("x", Modality::Text, "x")])
        .expect("upserts");
    old.seal().expect("seals");
    assert!(dir.path().join("index/a").exists());
    assert!(engine.delete("a").expect("deletes"));
    assert!(!engine.delete("a").expect("nothing to delete"));
    assert!(!dir.path().join("index/a").exists());
    let refused = old.upsert(vec![item("x", Modality::Text, "x")]);
    assert!(matches!(refused, Err(EngineError::Deleted { .. })));
    assert!(matches!(
        old.get(&id("x")),
        Err(EngineError::Deleted { .. })
    ));
    let new = engine
        .create(
            "a",
            &Spaces {
                shared_dim: 3,
                ..spaces()
            },
        )
        .expect("creates");
    assert_eq!(
        (new.stats().items, new.get(&id("x")).expect("reads")),
        (0, None)
    );
    drop((old, new));
    engine.close();
    let engine = Engine::open(dir.path(), small()).expect("opens");
    assert_eq!(
        engine
            .collections()
            .iter()
            .map(|c| c.name())
            .collect::<Vec<_>>(),
        ["a"]
    );
    assert_eq!(engine.collections()[0].spaces().shared_dim, 3);
}

#[test]
fn embeddings_that_do_not_fit_are_refused_with_the_values_and_nothing_is_stored() {
    let engine = Engine::in_memory(small());
    let spaces = Spaces {
        specific_text_dim: None,
        ..spaces()
    };
    let notes = engine.create("notes", &spaces).expect("creates");
    let plain = |name: &str| Item {
        specific: None,
        ..item(name, Modality::Text, name)
    };
    let short = Embedding::normalized(vec![1.0; 7]).expect("has a direction");
    let bad = Item {
        shared: short.clone(),
        ..plain("bad")
    };
    let error = notes
        .upsert(vec![plain("good"), bad])
        .expect_err("is refused");
    let expected = "collection notes has shared dim 24, got 7 for item bad";
    assert_eq!(error.to_string(), expected);
    let error = notes
        .upsert(vec![item("bad", Modality::Text, "x")])
        .expect_err("is refused");
    assert!(matches!(error, EngineError::NoSuchAspect { .. }));
    assert_eq!(notes.stats().items, 0);
    let query = Query {
        embedding: short,
        space: spaces.shared(),
    };
    let error = notes.search(&SearchRequest::new(query, Target::Both, count(1)));
    assert!(matches!(error, Err(EngineError::WrongDim { .. })));
}

#[test]
fn a_specific_query_searches_its_own_modality_only() {
    let engine = Engine::in_memory(small());
    let both = engine.create("both", &spaces()).expect("creates");
    let (text, image) = (
        item("t", Modality::Text, "x"),
        item("i", Modality::Image, "x"),
    );
    both.upsert(vec![text.clone(), image.clone()])
        .expect("upserts");
    let embedding = image.specific.clone().expect("has one");
    let space = spaces().specific(Modality::Image).expect("has one");
    let request = |target| {
        let query = Query {
            embedding: embedding.clone(),
            space: space.clone(),
        };
        SearchRequest::new(query, target, count(9))
    };
    assert_eq!(ids(&both, &request(Target::Both)), ["i"]);
    assert_eq!(ids(&both, &request(Target::Image)), ["i"]);
    let refused = both.search(&request(Target::Text));
    assert!(matches!(
        refused,
        Err(EngineError::NoSuchTarget {
            target: Target::Text,
            ..
        })
    ));

    // The same id as another modality: the old rows are gone from both spaces.
    both.upsert(vec![Item {
        id: id("i"),
        ..text.clone()
    }])
    .expect("upserts");
    assert_eq!(ids(&both, &request(Target::Both)), [""; 0]);
    let mut request = SearchRequest::new(shared(&text.shared), Target::Both, count(9));
    assert_eq!(ids(&both, &request), ["i", "t"]);
    request.exclude = vec![id("i")];
    request.k = count(1);
    assert_eq!(ids(&both, &request), ["t"]);
    let stats = both.stats();
    assert_eq!((stats.items, stats.texts, stats.images), (2, 2, 0));
}

#[test]
fn recall_stays_when_half_of_the_items_are_deleted_and_after_a_restart() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let config = EngineConfig {
        shards: NonZeroUsize::new(1),
        graph_rows: 100,
        seal_rows: 100_000,
        hnsw: HnswParams {
            m: 12,
            ef_construction: 80,
            ef_search: 48,
            ..HnswParams::default()
        },
        ..small()
    };
    let items: Vec<Item> = (0..3000)
        .map(|i| Item {
            specific: None,
            ..item(&format!("{i:05}"), Modality::Image, &i.to_string())
        })
        .collect();
    let engine = Engine::open(dir.path(), config.clone()).expect("opens");
    let mut photos = engine.create("photos", &spaces()).expect("creates");
    for batch in items.chunks(500) {
        photos.upsert(batch.to_vec()).expect("upserts");
    }
    photos.seal().expect("seals");
    let recall = |photos: &Collection| {
        let mut found = 0;
        for item in items.iter().step_by(60) {
            let mut request = SearchRequest::new(shared(&item.shared), Target::Image, count(10));
            let answer = ids(photos, &request);
            request.exact = true;
            found += ids(photos, &request)
                .iter()
                .filter(|id| answer.contains(id))
                .count();
        }
        found as f64 / 500.0
    };
    let whole = recall(&photos);
    assert!(whole >= 0.9, "recall@10 is {whole}");
    let half: Vec<ItemId> = items
        .iter()
        .step_by(2)
        .map(|item| item.id.clone())
        .collect();
    assert_eq!(photos.delete(&half).expect("deletes"), 1500);
    let halved = recall(&photos);
    assert!(halved >= whole - 0.02, "recall@10 was {whole}, is {halved}");
    drop(photos);
    engine.close();
    let engine = Engine::open(dir.path(), config).expect("opens");
    photos = engine.collection("photos").expect("is there");
    assert_eq!(
        photos.stats().sealed_rows,
        3000,
        "the index came from its file"
    );
    let again = recall(&photos);
    assert!(
        (again - halved).abs() < 1e-9,
        "recall@10 was {halved}, is {again}"
    );
}

#[test]
fn writers_searchers_and_seals_at_the_same_time_leave_what_the_store_holds() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let engine = Engine::open(dir.path(), small()).expect("opens");
    let notes = engine.create("notes", &spaces()).expect("creates");
    std::thread::scope(|scope| {
        for writer in 0..3 {
            let notes = &notes;
            scope.spawn(move || {
                for i in 0..40 {
                    let name = |n: usize| format!("{}", (i * 7 + n) % 20);
                    let write = |n| item(&name(n), Modality::Text, &format!("{writer}/{i}/{n}"));
                    notes.upsert((0..3).map(write).collect()).expect("upserts");
                    notes.delete(&[id(&name(writer))]).expect("deletes");
                    let query = shared(&item("q", Modality::Text, "0/0/0").shared);
                    let request = SearchRequest::new(query, Target::Text, count(5));
                    notes.search(&request).expect("searches");
                }
            });
        }
        scope.spawn(|| (0..10).for_each(|_| notes.seal().expect("seals")));
    });
    let request = {
        let query = shared(&item("q", Modality::Text, "0/0/0").shared);
        SearchRequest::new(query, Target::Text, count(100))
    };
    let before = notes.search(&request).expect("searches");
    assert_eq!(before.hits.len(), notes.stats().items);
    for hit in &before.hits {
        let stored = notes.get(&hit.id).expect("reads").expect("is there");
        let score = stored.shared.cosine(&request.parts[0].query.embedding);
        assert!(
            (score - hit.score.0).abs() < 1e-5,
            "memory and store hold one version"
        );
    }
    drop(notes);
    engine.close();
    let engine = Engine::open(dir.path(), small()).expect("opens");
    let notes = engine.collection("notes").expect("is there");
    assert_eq!(notes.search(&request).expect("searches"), before);
}
