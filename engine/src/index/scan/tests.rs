use embedding::mix;

use super::*;
use crate::index::{Flat, rows::clustered};

#[test]
fn rows_with_equal_codes_are_one_node() {
    let rows = clustered(90, 8, 5, 2, 2);
    let coded = Coded::new(Arc::new(rows));
    assert!(coded.members.len() < 90, "some rows come again");
    assert!(coded.members.is_partition(90));
    for node in 0..coded.members.len() as u32 {
        assert!(coded.members.list(node).is_sorted());
    }
}

#[test]
fn the_scan_over_codes_finds_what_the_plain_scan_finds() {
    for (dim, clusters) in [(17, 4), (64, 50), (200, 1000)] {
        let rows = Arc::new(clustered(3000, dim, clusters, 9, 7));
        let (flat, coded) = (Flat::new(Arc::clone(&rows)), Coded::new(Arc::clone(&rows)));
        let queries = clustered(30, dim, clusters, 10, 1);
        let params = SearchParams { ef_search: 1 };
        let odd = |row: Row| row.0 % 2 == 1;
        for i in 0..queries.len() {
            let query = Embedding::new(queries.row(i).to_vec()).expect("rows are unit");
            for k in [1, 10, 400] {
                let k = NonZeroUsize::new(k).expect("not zero");
                for live in [Live::all(3000), Live::only(&odd, 1500)] {
                    assert_eq!(
                        coded.search(&query, k, &params, live),
                        flat.search(&query, k, &params, live),
                        "dim {dim}, k {k}"
                    );
                }
            }
        }
    }
}

#[test]
fn given_rows_are_searched_as_the_plain_scan_searches_among_them() {
    for (len, dim, clusters, repeat) in [
        (1, 3, 1, 1),
        (300, 1, 2, 1),
        (900, 17, 5, 2),
        (3000, 64, 50, 3),
        (1500, 201, 1000, 7),
    ] {
        let rows = Arc::new(clustered(len, dim, clusters, 9, repeat));
        let flat = Flat::new(Arc::clone(&rows));
        // Nodes in another order than the rows, as below a graph.
        let coded = Coded::new(Arc::clone(&rows));
        let nodes = coded.members().len() as u32;
        let mut order: Vec<u32> = (0..nodes).collect();
        order.sort_by_key(|node| mix(u64::from(*node)));
        let coded = coded.arranged(&order);
        let queries = clustered(12, dim, clusters, 10, 1);
        let params = SearchParams { ef_search: 1 };
        for i in 0..queries.len() {
            let query = Embedding::new(queries.row(i).to_vec()).expect("rows are unit");
            for one_in in [1, 3, 50, 5000] {
                let is = |row: Row| mix(u64::from(row.0) + 77).is_multiple_of(one_in);
                let given: Vec<u32> = (0..len as u32).filter(|row| is(Row(*row))).collect();
                for k in [1, 10, 400] {
                    let k = NonZeroUsize::new(k).expect("not zero");
                    let live = Live::only(&is, given.len());
                    assert_eq!(
                        coded.search_rows(&query, k, &given),
                        flat.search(&query, k, &params, live),
                        "{len} rows of dim {dim}, one in {one_in}, k {k}"
                    );
                }
            }
        }
    }
}

#[test]
fn several_queries_at_once_find_what_each_finds_alone() {
    for (len, dim, repeat) in [(0, 5, 1), (1, 5, 1), (700, 33, 2), (2500, 300, 1)] {
        let coded = Coded::new(Arc::new(clustered(len, dim, 20, 9, repeat)));
        let queries = clustered(19, dim, 20, 10, 1);
        let queries: Vec<Embedding> = (0..queries.len())
            .map(|i| Embedding::new(queries.row(i).to_vec()).expect("rows are unit"))
            .collect();
        let odd = |row: Row| row.0 % 2 == 1;
        for live in [Live::all(len), Live::only(&odd, len / 2)] {
            for k in [1, 10, 1000] {
                let k = NonZeroUsize::new(k).expect("not zero");
                // None, a few, and more than one pass.
                for n in [0, 1, 7, 19] {
                    let some: Vec<&Embedding> = queries.iter().take(n).collect();
                    let alone: Vec<_> = some.iter().map(|q| coded.scan(q, k, live)).collect();
                    assert_eq!(coded.search_batch(&some, k, live), alone, "{n} queries");
                }
            }
        }
    }
}
