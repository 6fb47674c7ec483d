use std::collections::BTreeSet;

use embedding::{Encoder, HashEncoder, Spaces};
use serde_json::json;

use super::*;
use crate::{
    Engine, FieldKind, Fields, Filter, HnswParams, Item, ItemId, Query, SearchRequest, Target,
    index::{between, clustered},
};

const ROWS: usize = 3000;
const DIM: usize = 24;

fn spaces() -> Spaces {
    Encoder::<&str>::spaces(&HashEncoder::new(Modality::Text, DIM)).clone()
}

/// One shard with a graph that finds too little: few links, few candidates.
fn poor(audit_share: f64) -> EngineConfig {
    EngineConfig {
        seal_rows: 100_000,
        graph_rows: 1000,
        shards: NonZeroUsize::new(1),
        hnsw: HnswParams {
            m: 6,
            ef_construction: 24,
            ef_search: 10,
            ..HnswParams::default()
        },
        audit_share,
        ..EngineConfig::default()
    }
}

fn collection(engine: &Engine) -> Arc<Collection> {
    let fields = Fields::new([("n", FieldKind::Integer)]).expect("a good field");
    let collection = engine
        .create_with_fields("notes", &spaces(), &fields)
        .expect("creates");
    let rows = clustered(ROWS, DIM, 300, 4, 1);
    let items = (0..ROWS).map(|i| {
        let row = Embedding::new(rows.row(i).to_vec()).expect("rows are unit");
        let id = ItemId::new(format!("{i:04}")).expect("a good id");
        let mut item = Item::new(id, Modality::Text, row);
        item.payload.insert("n".into(), json!(i));
        item
    });
    collection.upsert(items.collect()).expect("upserts");
    collection.seal().expect("seals");
    collection
}

fn request(i: usize, k: usize) -> SearchRequest {
    let rows = clustered(2, DIM, 300, 1000 + i as u64, 1);
    let query = Query {
        embedding: between(rows.row(0), rows.row(1)),
        space: spaces().shared(),
    };
    let k = NonZeroUsize::new(k).expect("not zero");
    SearchRequest::new(query, Target::Text, k)
}

fn search(collection: &Collection, request: &SearchRequest) -> BTreeSet<String> {
    let hits = collection.search(request).expect("searches").hits;
    collection.core.audits.settle();
    hits.into_iter().map(|hit| hit.id.to_string()).collect()
}

#[test]
fn the_recall_that_is_told_is_that_of_the_searches() {
    let engine = Engine::in_memory(EngineConfig {
        // Nothing is below this target, so that nothing is steered.
        target_recall: 0.01,
        ..poor(1.0)
    });
    let collection = collection(&engine);
    let (mut hits, mut wanted) = (0, 0);
    for i in 0..80 {
        let request = request(i, 1 + i % 12);
        let found = search(&collection, &request);
        let truth = search(
            &collection,
            &SearchRequest {
                exact: true,
                ..request
            },
        );
        hits += truth.iter().filter(|id| found.contains(*id)).count();
        wanted += truth.len();
    }
    let told = collection.recall();
    assert_eq!((told.audited_queries, told.dropped_queries), (80, 0));
    let [lane] = &told.lanes[..] else {
        panic!("there are shared embeddings of texts only: {told:?}")
    };
    assert_eq!(
        (lane.modality, &*lane.aspect, lane.ef_search),
        (Modality::Text, "shared", 10)
    );
    let [all] = &lane.by_selectivity[..] else {
        panic!("there was no filter: {lane:?}")
    };
    let recall = hits as f64 / wanted as f64;
    assert!(recall < 0.97, "the graph is poor: {recall}");
    assert_eq!((all.selectivity, all.queries), (Selectivity::All, 80.0));
    assert!(
        (all.recall - recall).abs() < 1e-9,
        "{} is {recall}",
        all.recall
    );
}

#[test]
fn candidates_rise_until_recall_is_above_its_target() {
    let engine = Engine::in_memory(EngineConfig {
        target_recall: 0.97,
        ..poor(1.0)
    });
    let collection = collection(&engine);
    let recall = |from: usize| {
        let mut hits = 0;
        for i in from..from + 60 {
            let found = search(&collection, &request(i, 10));
            let exact = SearchRequest {
                exact: true,
                ..request(i, 10)
            };
            hits += search(&collection, &exact).intersection(&found).count();
        }
        hits as f64 / 600.0
    };
    let before = recall(0);
    // As many at a time as are repeated together.
    for i in 0..480 {
        let hits = collection.search(&request(100 + i, 10)).expect("searches");
        assert_eq!(hits.hits.len(), 10);
        if i % 8 == 7 {
            collection.core.audits.settle();
        }
    }
    let after = recall(1000);
    assert!(before < 0.95, "{before}");
    assert!(after >= 0.96, "{after}, was {before}");
    let ef = collection.recall().lanes[0].ef_search;
    assert!((11..=200).contains(&ef), "{ef}");
}

#[test]
fn a_request_with_candidates_of_its_own_is_left_alone_and_steers_nothing() {
    let engine = Engine::in_memory(EngineConfig {
        target_recall: 1.0,
        ..poor(1.0)
    });
    let collection = collection(&engine);
    for i in 0..100 {
        let mut request = request(i, 10);
        request.ef_search = Some(10);
        search(&collection, &request);
    }
    let told = collection.recall();
    assert_eq!((told.audited_queries, told.lanes[0].ef_search), (100, 10));
    assert!(told.lanes[0].by_selectivity[0].recall < 0.97, "{told:?}");
}

#[test]
fn recall_is_told_for_each_selectivity_and_by_the_filter_of_the_search() {
    let engine = Engine::in_memory(poor(1.0));
    let collection = collection(&engine);
    for (i, below) in [2, 20, 200, 1000, 2900].into_iter().enumerate() {
        let mut filtered = request(i, 5);
        let filter = json!({ "must": [{ "field": "n", "lt": below }] });
        filtered.filter = Some(Filter::from_json(&filter).expect("a good filter"));
        search(&collection, &filtered);
    }
    let told = collection.recall();
    let of: Vec<Selectivity> = told.lanes[0]
        .by_selectivity
        .iter()
        .map(|s| s.selectivity)
        .collect();
    assert_eq!(of, Selectivity::ALL[1..]);
    let few = told.lanes[0].by_selectivity.last().expect("there are five");
    assert!(
        few.recall > 0.999_999,
        "rows that are scanned are all found"
    );
    let told = serde_json::to_value(&told).expect("it is JSON");
    assert_eq!(
        told["lanes"][0]["by_selectivity"][4]["selectivity"],
        "0-0.001"
    );
    assert_eq!(told["lanes"][0]["modality"], "text");
}

#[test]
fn a_query_is_judged_by_the_items_that_it_saw() {
    let engine = Engine::in_memory(poor(0.0));
    let collection = collection(&engine);
    let request = request(1, 10);
    let views: Vec<(ShardKey, View)> = {
        let state = collection.state.read();
        let shards = state
            .shards()
            .filter(|(key, _)| key.aspect == Aspect::Shared);
        shards
            .map(|(key, shard)| (key, shard.view.clone()))
            .collect()
    };
    let query = &request.parts[0].query.embedding;
    let mut found: Vec<_> = views
        .iter()
        .flat_map(|(_, view)| view.search_batch(&[query], request.k).remove(0))
        .collect();
    found.sort_by(Found::rank);
    found.truncate(10);
    // All that it found goes away before it is repeated.
    let ids = found
        .iter()
        .map(|f| ItemId::new(f.id.clone()).expect("a good id"));
    collection
        .delete(&ids.collect::<Vec<_>>())
        .expect("deletes");
    let sample = |found: &[Found<String>]| Sample {
        ledger: Arc::clone(&collection.audit),
        views: views.clone(),
        query: query.clone(),
        k: request.k,
        matching: None,
        found: found.to_vec(),
        steers: true,
    };
    let verdicts = sample::repeat(&[sample(&found), sample(&found[..7]), sample(&[])]);
    let hits: Vec<_> = verdicts
        .iter()
        .map(|v| (v.lanes[0].hits, v.lanes[0].wanted))
        .collect();
    assert_eq!(hits, [(10, 10), (7, 10), (0, 10)]);
}

#[test]
fn equal_scores_are_as_good_as_each_other() {
    let engine = Engine::in_memory(poor(0.0));
    let collection = engine.create("same", &spaces()).expect("creates");
    let row = request(0, 1).parts.remove(0).query.embedding;
    let items = (0..20).map(|i| {
        let id = ItemId::new(format!("{i:02}")).expect("a good id");
        Item::new(id, Modality::Text, row.clone())
    });
    collection.upsert(items.collect()).expect("upserts");
    let state = collection.state.read();
    let views: Vec<(ShardKey, View)> = state
        .shards()
        .map(|(key, shard)| (key, shard.view.clone()))
        .collect();
    let k = NonZeroUsize::new(5).expect("not zero");
    let all = views[0]
        .1
        .search_batch(&[&row], NonZeroUsize::new(20).expect("not zero"));
    let sample = Sample {
        ledger: Arc::clone(&collection.audit),
        views,
        query: row,
        k,
        matching: None,
        // The last five of twenty that are the same.
        found: all[0][15..].to_vec(),
        steers: true,
    };
    let verdict = sample::repeat(&[sample]).remove(0);
    assert_eq!((verdict.lanes[0].hits, verdict.lanes[0].wanted), (5, 5));
}

#[test]
fn a_share_of_the_queries_is_repeated_the_first_among_them_and_none_when_it_is_0() {
    let ledger = |audit_share| Ledger::new(&poor(audit_share));
    for share in [0.01, 0.3, 1.0] {
        let ledger = ledger(share);
        assert!(ledger.is_next(), "the first");
        let turns = (1..20_000).filter(|_| ledger.is_next()).count();
        let part = turns as f64 / 20_000.0;
        assert!((part / share - 1.0).abs() < 0.15, "{part} of {share}");
        // Of those at even and at odd places alike.
        let even = (0..20_000)
            .filter(|_| ledger.is_next() & ledger.is_next())
            .count();
        let both = even as f64 / 20_000.0;
        assert!((both - share * share).abs() < 0.02, "{both}");
    }
    let none = ledger(0.0);
    assert!(!(0..1000).any(|_| none.is_next()));
}

#[test]
fn what_finds_no_room_is_dropped_and_counted_and_an_engine_closes_at_once() {
    let engine = Engine::in_memory(poor(1.0));
    let collection = collection(&engine);
    for i in 0..200 {
        collection.search(&request(i, 10)).expect("searches");
    }
    drop(engine);
    let told = collection.recall();
    assert!(told.dropped_queries > 0, "{told:?}");
    assert!(
        told.audited_queries + told.dropped_queries <= 200,
        "{told:?}"
    );
    // Queries go on without anybody who repeats them.
    collection.search(&request(0, 10)).expect("searches");
    assert_eq!(
        collection.recall().dropped_queries,
        told.dropped_queries + 1
    );
}
