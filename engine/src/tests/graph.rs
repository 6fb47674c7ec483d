//! Searches that walk the graph, with rows that were deleted and replaced after it was built.

use std::collections::BTreeMap;

use super::*;

const ITEMS: usize = 600;
const K: usize = 5;

/// One shard, few links and few candidates, so that no search gives up its walk and scans.
fn walking() -> EngineConfig {
    EngineConfig {
        seal_rows: 100_000,
        graph_rows: 100,
        shards: NonZeroUsize::new(1),
        hnsw: HnswParams {
            m: 4,
            ef_construction: 80,
            ef_search: 8,
            ..HnswParams::default()
        },
        ..small()
    }
}

fn photo(i: usize, content: &str) -> Item {
    item(&format!("{i:03}"), Modality::Image, content)
}

#[test]
fn a_walk_finds_no_deleted_or_replaced_row_and_nearly_all_others_with_their_cosines() {
    let engine = Engine::in_memory(walking());
    let photos = engine.create("photos", &spaces()).expect("creates");
    let mut model: BTreeMap<ItemId, Item> = (0..ITEMS)
        .map(|i| photo(i, &i.to_string()))
        .map(|item| (item.id.clone(), item))
        .collect();
    photos
        .upsert(model.values().cloned().collect())
        .expect("upserts");
    photos.seal().expect("seals");
    // Queries are the items as they were, so that what is gone would come first.
    let queries: Vec<Query> = model.values().map(|item| shared(&item.shared)).collect();

    let gone: Vec<ItemId> = model.keys().step_by(3).cloned().collect();
    photos.delete(&gone).expect("deletes");
    model.retain(|id, _| !gone.contains(id));
    let replaced: Vec<Item> = (1..ITEMS)
        .step_by(6)
        .map(|i| photo(i, &format!("other {i}")))
        .collect();
    photos.upsert(replaced.clone()).expect("upserts");
    model.extend(replaced.into_iter().map(|item| (item.id.clone(), item)));
    let stats = photos.stats();
    assert_eq!(
        (stats.sealed_rows, stats.tail_rows, stats.deleted_rows),
        (600, 100, 300)
    );

    let (mut same, mut found) = (0, 0);
    for query in queries {
        let mut request = SearchRequest::new(query, Target::Image, count(K));
        let walked = photos.search(&request).expect("searches").hits;
        assert_eq!(walked.len(), K);
        for hit in &walked {
            let live = model.get(&hit.id).expect("only live items are found");
            let cosine = live.shared.cosine(&request.parts[0].query.embedding);
            let Score(score) = hit.score;
            assert!(
                (score - cosine).abs() < 1e-5,
                "{}: {score}, stored {cosine}",
                hit.id
            );
        }
        request.exact = true;
        let exact = ids(&photos, &request);
        let walked: Vec<String> = walked.iter().map(|hit| hit.id.to_string()).collect();
        found += walked.iter().filter(|id| exact.contains(id)).count();
        same += usize::from(walked == exact);
    }
    let recall = found as f64 / (K * ITEMS) as f64;
    assert!(recall >= 0.9, "recall@{K} is {recall}");
    // A scan would have found all of them.
    assert!(same < ITEMS, "no search walked the graph");
}
