use std::{num::NonZeroUsize, sync::Arc};

use embedding::Embedding;

use super::*;
use crate::{
    HnswParams,
    index::{
        Coded, Codes, Flat, Hnsw, Index, Live, Rows, SearchParams,
        kernel::Portable,
        rows::{along_few, clustered},
    },
};

fn short_of(rows: &Rows) -> (Codes, Option<ShortCodes>) {
    let codes = Codes::new(rows);
    let short = ShortCodes::new(rows.dim(), &codes.rows);
    (codes, short)
}

#[test]
fn the_nearest_by_short_codes_are_nearly_those_of_the_whole_rows() {
    let rows = along_few(3000, 256, (40, 100), (1, 1));
    let queries = along_few(50, 256, (40, 100), (1, 2));
    let (codes, short) = short_of(&rows);
    let short = short.expect("40 directions have nearly all of the variance");
    assert_eq!(short.rows.stride(), 64);
    let flat = Flat::new(Arc::new(rows.clone()));
    let mut found = 0;
    for i in 0..queries.len() {
        let query = Embedding::new(queries.row(i).to_vec()).expect("rows are unit");
        let (coded, sum) = short.query(Portable, &codes.query(query.as_slice()));
        let mut order: Vec<u32> = (0..3000).collect();
        order.sort_by_key(|row| -Portable.dot_codes(short.rows.row(*row), &coded, sum));
        let k = NonZeroUsize::new(10).expect("not zero");
        let nearest = flat.search(&query, k, &SearchParams { ef_search: 1 }, Live::all(3000));
        let first = |row: u32| order[..30].contains(&row);
        found += nearest.iter().filter(|n| first(n.row.0)).count();
    }
    assert!(
        found >= 475,
        "{found} of 500 nearest are among the first 30"
    );
}

#[test]
fn directions_are_at_right_angles_and_keep_what_they_must() {
    let (codes, short) = short_of(&along_few(2000, 200, (20, 50), (3, 1)));
    let short = short.expect("20 directions have nearly all of the variance");
    let direction = |i: u32| -> Vec<f32> {
        let codes = &short.directions.row(i)[..200];
        codes
            .iter()
            .map(|c| f32::from(*c) * short.units[i as usize])
            .collect()
    };
    for i in 0..64 {
        for j in 0..=i {
            let product = kernel::dot(&direction(i), &direction(j));
            let expected = f32::from(u8::from(i == j));
            assert!((product - expected).abs() < 0.02, "{i} and {j}: {product}");
        }
    }
    let products = Products::of_sample(200, &codes.rows);
    let trace: f32 = (0..200).map(|i| products.sums[i * 200 + i]).sum();
    let kept: f32 = (0..64)
        .map(|i| kernel::dot(&products.times(&direction(i)), &direction(i)))
        .sum();
    assert!(kept > 0.8 * trace, "{kept} of {trace}");
}

#[test]
fn rows_that_spread_evenly_or_are_few_or_short_have_none() {
    // Half of the directions of noise keep little more than half of its variance.
    let evenly = clustered(3000, 128, 3000, 1, 1);
    assert_eq!(short_of(&evenly).1, None);
    let few = along_few(60, 256, (10, 5), (1, 1));
    assert_eq!(short_of(&few).1, None);
    let narrow = along_few(2000, 127, (10, 5), (1, 1));
    assert_eq!(short_of(&narrow).1, None);
    let mut same = Rows::new(256);
    let row = few.row(0).to_vec();
    (0..500).for_each(|_| same.push(&row));
    assert_eq!(short_of(&same).1, None, "no variance at all");
}

#[test]
fn rows_of_any_dim_take_little_time_and_memory() {
    // A dim of 65,536 is allowed, whose products would take 17 GB.
    for dim in [MOST_DIM + 1, 65_536] {
        let codes = vec![1; 300 * stride(dim)];
        let whole = CodeRows::new(dim, codes.into()).expect("whole rows");
        assert_eq!(ShortCodes::new(dim, &whole), None);
    }
    let products = 255_i64 * 127 * SAMPLE as i64;
    assert!(products <= i64::from(i32::MAX) && 2 * MOST_DIM <= SAMPLE);
}

#[test]
fn parts_that_do_not_fit_together_are_refused() {
    let (_, short) = short_of(&along_few(1000, 256, (20, 50), (3, 1)));
    let short = short.expect("20 directions have nearly all of the variance");
    let (directions, units, rows) = short.parts();
    let from = |dim, directions: &[i8], units: &[f32], rows: &[i8]| {
        ShortCodes::from_parts(dim, directions.to_vec().into(), units, rows.to_vec().into())
    };
    assert_eq!(from(256, directions, units, rows).as_ref(), Some(&short));
    assert_eq!(from(256, &directions[256..], units, rows), None);
    assert_eq!(from(256, directions, &units[1..], rows), None);
    assert_eq!(from(256, directions, units, &rows[1..]), None);
    assert_eq!(from(320, directions, units, rows), None);
    assert_eq!(from(0, directions, units, rows), None);
}

#[test]
fn a_walk_over_short_codes_finds_the_nearest_with_exact_scores_and_only_live_ones() {
    let rows = Arc::new(along_few(6000, 256, (40, 150), (5, 1)));
    let queries = along_few(60, 256, (40, 150), (5, 2));
    let params = HnswParams::default();
    let graph = Hnsw::build(Arc::clone(&rows), &params, 1, &|| false).expect("nobody stops it");
    assert!(graph.short().is_some());
    assert!(
        graph.bytes() < 6000 * (64 + 4 * 40),
        "whole codes are not counted"
    );
    let exact = Coded::new(Arc::clone(&rows));
    let search = SearchParams {
        ef_search: params.ef_search,
    };
    let k = NonZeroUsize::new(10).expect("not zero");
    let third = |row: crate::index::Row| row.0.is_multiple_of(3);
    for (live, alive) in [(Live::all(6000), 6000), (Live::only(&third, 2000), 2000)] {
        let mut found = 0;
        for graph in [&graph, &graph.clone().settled()] {
            for i in 0..queries.len() {
                let query = Embedding::new(queries.row(i).to_vec()).expect("rows are unit");
                let answer = graph.search(&query, k, &search, live);
                assert_eq!(answer.len(), 10);
                let best = exact.search(&query, k, &search, live);
                for n in &answer {
                    let cosine = kernel::dot(query.as_slice(), rows.row(n.row.0 as usize));
                    assert!((n.score.0 - cosine).abs() < 1e-6);
                    assert!(live.is(n.row));
                    found += usize::from(best.contains(n));
                }
            }
        }
        assert!(found >= 1188, "{found} of 1200 with {alive} live rows");
    }
}
