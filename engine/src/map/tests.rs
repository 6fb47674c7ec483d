use std::{cell::Cell, sync::Arc};

use embedding::{Embedding, Encoder as _, HashEncoder, Modality, Spaces};

use super::*;
use crate::{Draws, Engine, EngineConfig, Item, ItemId};

/// Items in three heaps around three far directions; the first letter of an id says which.
fn heaps(each: usize) -> Arc<Collection> {
    const DIM: usize = 16;
    let encoder = HashEncoder::new(Modality::Image, DIM);
    let spaces: Spaces = embedding::Encoder::<&str>::spaces(&encoder).clone();
    let engine = Engine::in_memory(EngineConfig::default());
    let collection = engine.create("c", &spaces).expect("made");
    let mut draws = Draws::new(&[3]);
    let mut items = Vec::new();
    for i in 0..3 * each {
        let heap = i % 3;
        let row = (0..DIM).map(|d| {
            let near = f32::from(u8::from(d == heap));
            near + 0.1 * (draws.below(2001) as f32 / 1000.0 - 1.0)
        });
        let row = Embedding::normalized(row.collect()).expect("a row");
        let id = ItemId::new(format!("{}{i}", ["a", "b", "c"][heap])).expect("an id");
        items.push(Item::new(id, Modality::Image, row));
    }
    collection.upsert(items).expect("kept");
    let again = encoder.encode(&["x"]).expect("encodes");
    assert_eq!(again[0].shared.dim(), DIM);
    collection
}

/// The part of points whose nearest other point is of the same heap.
fn kept_together(map: &Map) -> f64 {
    let far = |i: usize, j: usize| (map.xs[i] - map.xs[j]).hypot(map.ys[i] - map.ys[j]);
    let n = map.ids.len();
    let same = (0..n).filter(|i| {
        let others = (0..n).filter(|j| j != i);
        let nearest = others.min_by(|a, b| far(*i, *a).total_cmp(&far(*i, *b)));
        nearest.is_some_and(|j| map.ids[*i][..1] == map.ids[j][..1])
    });
    same.count() as f64 / n as f64
}

#[test]
fn what_is_alike_lies_together_in_both_kinds_of_map() {
    let collection = heaps(60);
    for method in [MapMethod::Pca, MapMethod::Tsne] {
        let done = Cell::new(0.0);
        let map = collection
            .map(Modality::Image, method, 1000, &|part| {
                assert!(part >= done.get() && part <= 1.0);
                done.set(part);
            })
            .expect("a map");
        assert_eq!(
            (map.ids.len(), map.xs.len(), map.ys.len(), map.of),
            (180, 180, 180, 180)
        );
        let inside = map
            .xs
            .iter()
            .chain(&map.ys)
            .all(|x| (-1.0..=1.0).contains(x));
        assert!(inside, "{method:?}: {:?}", map.xs);
        let together = kept_together(&map);
        assert!(together > 0.97, "{method:?}: {together}");
        assert!(done.get() > 0.0);
    }
}

#[test]
fn a_map_is_bounded_and_the_same_for_the_same_items() {
    let collection = heaps(40);
    let map = |limit| collection.map(Modality::Image, MapMethod::Tsne, limit, &|_| ());
    let small = map(50).expect("a map");
    assert_eq!((small.ids.len(), small.of), (50, 120));
    assert_eq!(small.ids, map(50).expect("a map").ids);
    assert_eq!(
        small.ids[..20],
        map(20).expect("a map").ids[..],
        "a part of it"
    );
    // Too few for neighbors.
    assert_eq!(map(3).expect("a map").xs.len(), 3);
    assert_eq!(map(1).expect("a map").xs, [0.0]);
}

#[test]
fn a_version_follows_every_write_and_an_empty_map_is_refused() {
    let collection = heaps(1);
    let before = collection.next_version();
    let id = ItemId::new("a0").expect("an id");
    collection.delete(&[id]).expect("deleted");
    let none = collection.map(Modality::Text, MapMethod::Pca, 10, &|_| ());
    let none = none.expect_err("no text").to_string();
    assert!(none.contains("has no texts"), "{none}");
    let row = Embedding::normalized(vec![1.0; 16]).expect("a row");
    let item = Item::new(ItemId::new("new").expect("an id"), Modality::Image, row);
    collection.upsert(vec![item]).expect("kept");
    assert!(collection.next_version() > before);
}
