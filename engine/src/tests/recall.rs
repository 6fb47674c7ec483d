//! Recall of a collection with a past beside that of one that was built at once, on rows with near
//! neighbors, asked with queries of their own kind and from another cone.

use super::*;
use crate::index::{Rows, clustered};

const ITEMS: usize = 5000;
const DIM: usize = 64;
const QUERIES: usize = 300;
const K: usize = 10;
/// By how much recall may be lower than that of a collection that was built at once.
const MOST_LOWER: f64 = 0.005;
/// How much of a row is the direction that its modality shares.
const CONE: f32 = 0.7;

/// Queries of the rows' own kind, and from another cone.
struct Queries([Vec<Embedding>; 2]);

fn config() -> EngineConfig {
    EngineConfig {
        shards: NonZeroUsize::new(1),
        seal_rows: 100_000,
        graph_rows: 1000,
        hnsw: HnswParams::default(),
        ..small()
    }
}

fn spaces() -> Spaces {
    Spaces {
        shared_dim: DIM,
        specific_text_dim: None,
        specific_image_dim: None,
        ..super::spaces()
    }
}

/// Rows moved into a cone around one of the axes.
fn in_cone(rows: &Rows, axis: usize) -> Vec<Embedding> {
    let moved = |i: usize| {
        let mut row = rows.row(i).to_vec();
        row[axis] += CONE;
        Embedding::normalized(row).expect("it has a direction")
    };
    (0..rows.len()).map(moved).collect()
}

impl Queries {
    fn new() -> Self {
        // Of the same clusters, and no row among them: the rows are the first of the same stream.
        let rows = clustered(ITEMS + QUERIES, DIM, 200, 11, 1);
        let last = |axis| in_cone(&rows, axis).split_off(ITEMS);
        Self([last(0), last(1)])
    }

    /// Recall of both kinds.
    fn recalls(&self, photos: &Collection) -> [f64; 2] {
        [0, 1].map(|kind| {
            let mut found = 0;
            for embedding in &self.0[kind] {
                let space = photos.spaces().shared();
                let embedding = embedding.clone();
                let query = Query { embedding, space };
                let mut request = SearchRequest::new(query, Target::Image, count(K));
                request.confidence = false;
                let walked = ids(photos, &request);
                request.exact = true;
                let exact = ids(photos, &request);
                assert_eq!(walked.len(), K);
                found += exact.iter().filter(|id| walked.contains(id)).count();
            }
            found as f64 / (K * QUERIES) as f64
        })
    }
}

fn photos() -> Vec<Item> {
    let rows = in_cone(&clustered(ITEMS + QUERIES, DIM, 200, 11, 1), 0);
    let photo = |(i, row)| Item::new(id(&format!("{i:05}")), Modality::Image, row);
    rows.into_iter()
        .take(ITEMS)
        .enumerate()
        .map(photo)
        .collect()
}

fn built_at_once(items: &[Item], queries: &Queries) -> [f64; 2] {
    let engine = Engine::in_memory(config());
    let photos = engine.create("photos", &spaces()).expect("creates");
    photos.upsert(items.to_vec()).expect("upserts");
    photos.seal().expect("seals");
    queries.recalls(&photos)
}

#[test]
fn recall_after_a_restart_deletes_and_inserting_again_is_that_of_a_collection_built_at_once() {
    let (items, queries) = (photos(), Queries::new());
    let (gone, kept): (Vec<_>, Vec<_>) = items
        .iter()
        .cloned()
        .enumerate()
        .partition(|(i, _)| i % 2 == 0);
    let [gone, kept] = [gone, kept].map(|half| half.into_iter().map(|(_, item)| item));
    let (gone, kept): (Vec<Item>, Vec<Item>) = (gone.collect(), kept.collect());
    let (all, half) = (
        built_at_once(&items, &queries),
        built_at_once(&kept, &queries),
    );

    let check = |photos: &Collection, expected: [f64; 2], when: &str| {
        let recalls = queries.recalls(photos);
        for (recall, expected) in recalls.into_iter().zip(expected) {
            assert!(
                recall >= expected - MOST_LOWER,
                "{when}: recall {recalls:?} and {recall}, built at once {expected}"
            );
        }
    };
    let dir = tempfile::tempdir().expect("a temporary folder");
    let open = || Engine::open(dir.path(), config()).expect("opens");
    let engine = open();
    let photos = engine.create("photos", &spaces()).expect("creates");
    for batch in items.chunks(500) {
        photos.upsert(batch.to_vec()).expect("upserts");
    }
    photos.seal().expect("seals");
    drop((photos, engine));

    let engine = open();
    let photos = engine.collection("photos").expect("is there");
    assert_eq!(
        photos.stats().sealed_rows,
        ITEMS,
        "the index came from its file"
    );
    check(&photos, all, "after a restart");
    let ids: Vec<ItemId> = gone.iter().map(|item| item.id.clone()).collect();
    photos.delete(&ids).expect("deletes");
    assert_eq!(photos.stats().deleted_rows, gone.len());
    check(&photos, half, "half deleted");
    photos.seal().expect("seals");
    assert_eq!(photos.stats().sealed_rows, kept.len());
    check(&photos, half, "half deleted and sealed");
    photos.upsert(gone).expect("upserts");
    check(&photos, all, "inserted again");
    photos.seal().expect("seals");
    check(&photos, all, "inserted again and sealed");
    drop((photos, engine));
    let engine = open();
    let photos = engine.collection("photos").expect("is there");
    assert_eq!(photos.stats().sealed_rows, ITEMS);
    check(&photos, all, "and after another restart");
}
