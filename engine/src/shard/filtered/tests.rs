use std::sync::OnceLock;

use embedding::mix;

use super::*;
use crate::{
    EngineConfig, HnswParams,
    index::{between, clustered},
    record::Stamp,
    segment::Segment,
    shard::{Shard, Standing},
};

const ROWS: usize = 12_000;
const DIM: usize = 32;
const K: usize = 10;
const QUERIES: usize = 60;
const SEED: u64 = 5;

/// A sealed shard of clustered rows with a graph; the ordinal of row `i` is `ROWS - 1 - i`.
fn sealed() -> &'static Shard {
    static SHARD: OnceLock<Shard> = OnceLock::new();
    SHARD.get_or_init(build)
}

fn build() -> Shard {
    let rows = clustered(ROWS, DIM, 120, SEED, 1);
    let mut shard = Shard::loaded(Segment::empty(DIM), Standing::default());
    for i in 0..ROWS {
        let stamp = Stamp {
            embeddings: [0; 8],
            ordinal: (ROWS - 1 - i) as u32,
        };
        let row = Embedding::new(rows.row(i).to_vec()).expect("rows are unit");
        shard.insert(&format!("{i:05}"), stamp, &row);
    }
    let config = EngineConfig {
        hnsw: HnswParams {
            ef_construction: 100,
            ..HnswParams::default()
        },
        ..EngineConfig::default()
    };
    let taken = shard.begin_seal();
    let segment = Segment::build(taken.live_rows(), &config, &|| false).expect("nobody stops it");
    shard.end_seal(&taken, Some((segment, Standing::default())));
    shard
}

fn queries(view: &View) -> Vec<Embedding> {
    let row = |i: usize| view.row(i % ROWS);
    let far = |i: usize| mix(SEED ^ i as u64) as usize;
    (0..QUERIES)
        .map(|i| between(row(far(i)), row(far(i + QUERIES))))
        .collect()
}

/// Every item with this chance, whatever its place.
fn at_random(per_mille: u64) -> RoaringBitmap {
    let is_in = |ordinal: &u32| mix(SEED ^ u64::from(*ordinal) << 8) % 1000 < per_mille;
    (0..ROWS as u32).filter(is_in).collect()
}

fn wanted<'a>(query: &'a Embedding, matching: &'a RoaringBitmap, exact: bool) -> Wanted<'a> {
    Wanted {
        query,
        k: NonZeroUsize::new(K).expect("not zero"),
        params: SearchParams { ef_search: 64 },
        exact,
        matching,
        explain: true,
    }
}

fn part_found(answer: &[Found<String>], truth: &[Found<String>]) -> f64 {
    let found = answer.iter().filter(|a| truth.iter().any(|t| t.id == a.id));
    found.count() as f64 / truth.len() as f64
}

#[test]
fn a_filter_does_not_lower_recall_and_finds_k_wherever_k_exist() {
    let shard = sealed();
    let view = &shard.view;
    let queries = queries(view);
    for per_mille in [1, 10, 100, 500, 1000] {
        let matching = at_random(per_mille);
        let mut recall = 0.0;
        for query in &queries {
            let truth = view.search_matching(&wanted(query, &matching, true), String::new());
            let answer = view.search_matching(&wanted(query, &matching, false), String::new());
            let there = K.min(matching.len() as usize);
            assert_eq!((answer.found.len(), truth.found.len()), (there, there));
            recall += part_found(&answer.found, &truth.found) / QUERIES as f64;
            let plan = answer.plan;
            assert_eq!(plan.matching as u64, matching.len());
            let off = plan.estimated_matching as f64 / plan.matching as f64;
            assert!((0.8..1.25).contains(&off), "{plan:?}");
            if per_mille == 1 {
                assert_eq!(plan.plan, Plan::ScanMatching);
                assert_eq!(plan.distances as u64, matching.len());
            }
            if per_mille == 1000 {
                assert_eq!(plan.plan, Plan::Graph);
            }
        }
        // Where all rows match, the graph is as good as it is without a filter.
        let least = if per_mille == 1000 { 0.95 } else { 0.99 };
        assert!(
            recall >= least,
            "recall@{K} at {per_mille} per mille is {recall}"
        );
    }
}

/// The plan that the costs of a larger shard would choose: the graph, also where few rows match.
#[test]
fn the_graph_with_a_filter_inside_keeps_its_recall_when_few_rows_match() {
    let shard = sealed();
    let view = &shard.view;
    for per_mille in [10, 50, 100, 200, 500] {
        let matching = at_random(per_mille);
        let mut recall = 0.0;
        for query in &queries(view) {
            let wanted = wanted(query, &matching, true);
            let truth = view.search_matching(&wanted, String::new());
            // As in a shard so large that a scan of what matches takes longer.
            let chosen = Chosen {
                plan: Plan::Graph,
                scan: Plan::ScanMatching,
                ef: Estimate {
                    rows: ROWS,
                    matching: matching.len() as usize,
                    dim: DIM,
                    walked: DIM,
                    ef: Some(64),
                }
                .widened(64),
                most_nodes: ROWS,
            };
            let mut compared = 0;
            let plan = (chosen, matching.len() as usize);
            let (found, fell_back) = view.search_sealed(&wanted, plan, &mut compared);
            assert!(!fell_back);
            let found: Vec<Found<String>> = found
                .iter()
                .map(|n| Found {
                    score: n.score,
                    id: view.id(n.row.0 as usize).to_owned(),
                    row: n.row.0 as usize,
                })
                .collect();
            recall += part_found(&found, &truth.found) / QUERIES as f64;
        }
        assert!(
            recall >= 0.99,
            "recall@{K} at {per_mille} per mille is {recall}"
        );
    }
}

#[test]
fn matching_rows_that_lie_together_far_from_the_query_are_found_too() {
    let shard = sealed();
    let view = &shard.view;
    let queries = queries(view);
    for query in queries.iter().take(10) {
        // The half of all rows that is farthest from the query: a walk that keeps matching rows
        // must leave the neighborhood, and the estimate cannot know.
        let mut rows: Vec<usize> = (0..ROWS).collect();
        rows.sort_by(|a, b| {
            dot(query.as_slice(), view.row(*a)).total_cmp(&dot(query.as_slice(), view.row(*b)))
        });
        for part in [4, 200] {
            let far = rows
                .iter()
                .take(ROWS / part)
                .map(|row| view.stamp(*row).ordinal);
            let matching: RoaringBitmap = far.collect();
            let truth = view.search_matching(&wanted(query, &matching, true), String::new());
            let answer = view.search_matching(&wanted(query, &matching, false), String::new());
            assert_eq!(answer.found.len(), K);
            assert!(
                part_found(&answer.found, &truth.found) >= 0.9,
                "{:?}",
                answer.plan
            );
            assert!(answer.plan.distances < 2 * ROWS, "{:?}", answer.plan);
        }
    }
}

#[test]
fn rows_that_are_dead_and_rows_of_the_tail_are_told_apart_by_ordinal() {
    let row = |x: f32| Embedding::normalized(vec![1.0, x]).expect("has a direction");
    let stamp = |ordinal| Stamp {
        embeddings: [ordinal as u8; 8],
        ordinal,
    };
    let mut shard = Shard::loaded(Segment::empty(2), Standing::default());
    shard.insert("a", stamp(1), &row(0.1));
    shard.insert("b", stamp(2), &row(0.2));
    let taken = shard.begin_seal();
    let built = Segment::build(taken.live_rows(), &EngineConfig::default(), &|| false);
    let built = built.expect("nobody stops it");
    shard.end_seal(&taken, Some((built, Standing::default())));
    shard.remove("a");
    // Another item with the ordinal that became free.
    shard.insert("c", stamp(1), &row(0.3));
    let find = |matching: &[u32]| {
        let matching = matching.iter().copied().collect();
        let answer = shard
            .view
            .search_matching(&wanted(&row(0.0), &matching, false), String::new());
        let ids: Vec<String> = answer.found.into_iter().map(|f| f.id).collect();
        (ids, answer.plan.matching)
    };
    assert_eq!(find(&[1]), (vec!["c".to_owned()], 1));
    assert_eq!(find(&[1, 2, 3]), (vec!["b".to_owned(), "c".to_owned()], 2));
    assert_eq!(find(&[]), (vec![], 0));
}
