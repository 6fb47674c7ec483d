//! `eval index` on a collection that is large enough for a graph, from outside.

use std::num::NonZeroUsize;

use embedding::{Embedding, Fingerprint, Modality, Spaces, mix};
use engine::{Engine, EngineConfig, Item, ItemId, Query, SearchRequest, Target};
use serde_json::Value;

use crate::world::{World, text};

mod world;

/// More than a shard has before it gets a graph.
const IMAGES: usize = 5000;
/// Fewer, and no more than queries are taken of one kind.
const TEXTS: usize = 300;
const DIM: u64 = 48;
const SPECIFIC_DIM: u64 = 24;
const K: usize = 10;

fn spaces() -> Spaces {
    Spaces {
        model: "generated".to_owned(),
        fingerprint: Fingerprint([7; 16]),
        shared_dim: DIM as usize,
        specific_text_dim: None,
        specific_image_dim: Some(SPECIFIC_DIM as usize),
        scoring: None,
    }
}

/// A row around one of 100 centers; equal seeds give equal rows.
fn row(seed: u64, dim: u64) -> Embedding {
    let noise = |seed: u64, d| (mix(mix(seed) ^ d) >> 40) as f32 / (1 << 23) as f32 - 1.0;
    let element = |d| noise(mix(seed) % 100, d) + noise(!seed, d);
    Embedding::normalized((0..dim).map(element).collect()).expect("noise has a direction")
}

/// Images, then texts.
fn items() -> Vec<Item> {
    let item = |i: usize| {
        let (modality, kind) = match i {
            ..IMAGES => (Modality::Image, "image"),
            _ => (Modality::Text, "text"),
        };
        let id = ItemId::new(format!("{kind}-{i}")).expect("an id");
        let mut item = Item::new(id, modality, row(i as u64, DIM));
        item.specific =
            (modality == Modality::Image).then(|| row(1 << 40 | i as u64, SPECIFIC_DIM));
        item
    };
    (0..IMAGES + TEXTS).map(item).collect()
}

fn config() -> EngineConfig {
    EngineConfig {
        // All rows of a kind in one.
        shards: NonZeroUsize::new(1),
        // Nothing is in the index before the command asks for it.
        seal_rows: 1 << 20,
        ..EngineConfig::default()
    }
}

/// The part of the true nearest images of all texts that searches find: the truth by plain
/// arithmetic over all rows.
fn recall_of_texts(world: &World, items: &[Item], ef_search: usize) -> f64 {
    let engine = Engine::open(&world.path("data/store"), config()).expect("opens");
    let photos = engine.collection("photos").expect("it was made");
    let cosine = |a: &Embedding, b: &Embedding| {
        let products = a.as_slice().iter().zip(b.as_slice());
        products
            .map(|(a, b)| f64::from(*a) * f64::from(*b))
            .sum::<f64>()
    };
    let (images, texts) = items.split_at(IMAGES);
    let mut found = 0;
    for text in texts {
        let mut truth: Vec<&Item> = images.iter().collect();
        let score = |image: &Item| cosine(&image.shared, &text.shared);
        truth.sort_by(|a, b| score(b).total_cmp(&score(a)));
        let query = Query {
            embedding: text.shared.clone(),
            space: photos.spaces().shared(),
        };
        let k = NonZeroUsize::new(K).expect("is not 0");
        let request = SearchRequest {
            ef_search: Some(ef_search),
            confidence: false,
            ..SearchRequest::new(query, Target::Image, k)
        };
        let hits = photos.search(&request).expect("searches").hits;
        let is_found = |item: &&&Item| hits.iter().any(|hit| hit.id == item.id);
        found += truth[..K].iter().filter(is_found).count();
    }
    found as f64 / (K * TEXTS) as f64
}

fn lane<'a>(report: &'a Value, name: &str) -> &'a Value {
    let lanes = report["lanes"].as_array().expect("a list");
    let lane = lanes.iter().find(|lane| lane["name"] == name);
    lane.expect("it was measured")
}

fn recall(report: &Value, name: &str) -> f64 {
    let figure = &report["metrics"][format!("{name}_recall@10")];
    assert_eq!(figure, &lane(report, name)["recall@10"], "{name}");
    let end = |name: &str| figure[name].as_f64().expect("a number");
    assert!(
        end("low") <= end("value") && end("value") <= end("high"),
        "{figure}"
    );
    end("value")
}

#[test]
fn the_recall_of_a_graph_is_that_of_searches_against_plain_arithmetic() {
    let world = World::new();
    let items = items();
    {
        let engine = Engine::open(&world.path("data/store"), config()).expect("opens");
        let photos = engine.create("photos", &spaces()).expect("creates");
        photos.upsert(items.clone()).expect("upserts");
    }
    let page = world.path("page.html");
    let measured = |more: &[&str]| world.json(&[&["eval", "index", "photos"], more].concat());
    let narrow = measured(&["--ef-search", "10", "--html", text(&page)]);
    let own = measured(&[]);
    let wide = measured(&["--ef-search", "400"]);

    for (name, queries, among, by_graph) in [
        ("image", 500, IMAGES, IMAGES),
        ("text", TEXTS, TEXTS, 0),
        ("text_to_image", TEXTS, IMAGES, IMAGES),
        ("specific_image", 500, IMAGES, IMAGES),
    ] {
        for report in [&narrow, &own, &wide] {
            let lane = lane(report, name);
            for (key, expected) in [
                ("queries", queries),
                ("items", among),
                ("graph_rows", by_graph),
            ] {
                assert_eq!(lane[key], expected, "{name} {key}");
            }
        }
        let (less, more) = (recall(&narrow, name), recall(&wide, name));
        assert!((less..=more).contains(&recall(&own, name)), "{name}");
        if by_graph == 0 {
            assert_eq!((less, more), (1.0, 1.0), "{name} is compared exactly");
        } else {
            assert!(
                0.3 < less && less < more && more > 0.98,
                "{name}: {less}, {more}"
            );
        }
    }
    for (report, ef) in [(&narrow, 10), (&own, 64), (&wide, 400)] {
        assert_eq!(report["ef_search"], ef);
        let told = recall(report, "text_to_image");
        let expected = recall_of_texts(&world, &items, ef);
        assert!(
            (told - expected).abs() < 1e-9,
            "ef {ef}: {told}, not {expected}"
        );
    }

    let html = fs_err::read_to_string(&page).expect("written");
    assert!(
        html.contains("by graph") && html.contains("5,000"),
        "{html}"
    );
    // What people read: in a pipe lines with tabs, the figures first.
    let ran = world.run(&["eval", "index", "photos", "--limit", "50"]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let lines: Vec<Vec<&str>> = ran
        .stdout
        .lines()
        .map(|line| line.split('\t').collect())
        .collect();
    assert_eq!(lines[..2], [["items: 5,300"], ["candidates: 64"]]);
    let rows = |of: &str| -> Vec<&[&str]> {
        let rows = lines.iter().filter(|line| line[0] == of);
        rows.map(|line| &line[1..]).collect()
    };
    assert_eq!(rows("image")[0][..3], ["50", "5,000", "5,000"]);
    assert_eq!(rows("text")[0][..3], ["50", "300", "0"]);
    let told: f64 = rows("image_recall@10")[0][0].parse().expect("a number");
    assert!((0.8..=1.0).contains(&told), "{told}");
}
