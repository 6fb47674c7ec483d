//! Searches of every kind.

use serde_json::{Value, json};

use crate::harness::{Service, base64, ids, png_base64};

fn filled() -> Service {
    let service = Service::with_collection();
    service.add(&json!([
        { "id": "cat", "text": "a cat", "payload": { "n": 1 } },
        { "id": "dog", "text": "a dog" },
        { "id": "red", "image": png_base64(1), "payload": { "name": "red" } },
        { "id": "blue", "image": png_base64(2) },
    ]));
    service
}

#[test]
fn a_text_finds_pictures_unless_it_asks_for_texts() {
    let service = filled();
    let found = service.search(&json!({ "text": "a cat" }));
    assert_eq!(
        (&found["space"], &found["target"]),
        (&json!("shared"), &json!("image"))
    );
    assert!(found["took_ms"].as_f64().is_some_and(|ms| ms > 0.0));
    assert!(found["hits"].as_array().is_some_and(|hits| hits.len() == 2));
    let found = service.search(&json!({ "text": "a cat", "target": "text", "k": 1 }));
    let hit = &found["hits"][0];
    assert!(
        hit["score"]
            .as_f64()
            .is_some_and(|s| (s - 1.0).abs() < 1e-5)
    );
    assert_eq!(
        (&hit["text"], &hit["payload"]),
        (&json!("a cat"), &json!({ "n": 1 }))
    );
    assert_eq!(hit["modality"], "text");
}

#[test]
fn a_collection_of_texts_alone_is_searched_without_naming_a_target() {
    let service = Service::with_collection();
    service.add(&json!({ "id": "cat", "text": "a cat" }));
    let found = service.search(&json!({ "text": "a cat" }));
    assert_eq!(
        (&found["target"], ids(&found)),
        (&json!("text"), vec!["cat"])
    );
}

#[test]
fn a_picture_finds_itself_from_base64_and_from_a_data_uri() {
    let service = filled();
    for image in [
        png_base64(1),
        format!("data:image/png;base64,{}", png_base64(1)),
    ] {
        for exact in [true, false] {
            let found = service.search(&json!({ "image": image, "exact": exact, "ef_search": 50 }));
            assert_eq!(ids(&found)[0], "red");
        }
    }
}

#[test]
fn more_like_an_item_never_returns_the_item() {
    let service = filled();
    assert_eq!(ids(&service.search(&json!({ "id": "red" }))), ["blue"]);
    assert_eq!(
        ids(&service.search(&json!({ "id": "cat", "target": "text" }))),
        ["dog"]
    );
    let none = service.post("/v1/collections/c/search", &json!({ "id": "none" }));
    none.refused(404, "item_not_found");
}

#[test]
fn an_embedding_of_any_length_is_taken_as_numbers_and_as_base64() {
    let service = filled();
    let item = service
        .get("/v1/collections/c/items/red?embeddings=true")
        .json();
    let row = |aspect: &str| -> Vec<f32> {
        let row = item["embeddings"][aspect].as_array().expect("a row");
        row.iter()
            .map(|v| 3.0 * v.as_f64().expect("a number") as f32)
            .collect()
    };
    let bytes: Vec<u8> = row("shared").iter().flat_map(|v| v.to_le_bytes()).collect();
    for embedding in [json!(row("shared")), json!(base64(&bytes))] {
        let found = service.search(&json!({ "embedding": embedding }));
        assert_eq!(ids(&found)[0], "red");
        assert!(
            found["hits"][0]["score"]
                .as_f64()
                .is_some_and(|s| (s - 1.0).abs() < 1e-5)
        );
    }
    let found = service.search(&json!({ "embedding": row("specific"), "space": "specific" }));
    assert_eq!(
        (ids(&found)[0], &found["space"]),
        ("red", &json!("specific"))
    );
}

#[test]
fn both_modalities_take_turns_because_their_scores_do_not_compare() {
    let service = filled();
    let all = service.search(&json!({ "text": "a cat", "target": "both" }));
    let kinds = |found: &Value| -> Vec<String> {
        let hits = found["hits"].as_array().expect("hits");
        hits.iter()
            .map(|h| h["modality"].as_str().expect("a word").to_owned())
            .collect()
    };
    assert_eq!(kinds(&all), ["image", "text", "image", "text"]);
    for k in 1..4 {
        let some = service.search(&json!({ "text": "a cat", "target": "both", "k": k }));
        assert_eq!(
            ids(&some),
            ids(&all)[..k],
            "fewer hits are a prefix of more"
        );
    }
}

#[test]
fn the_specific_space_finds_only_the_modality_of_the_query() {
    let service = filled();
    let text = service.search(&json!({ "text": "a cat", "space": "specific" }));
    assert_eq!(
        (&text["space"], &text["target"]),
        (&json!("specific"), &json!("text"))
    );
    assert_eq!(ids(&text)[0], "cat");
    let image = service.search(&json!({ "image": png_base64(2), "space": "specific" }));
    assert_eq!(ids(&image)[0], "blue");
    for target in ["image", "both"] {
        let query = json!({ "text": "a cat", "space": "specific", "target": target });
        let refused = service.post("/v1/collections/c/search", &query);
        assert_eq!(refused.refused(400, "invalid_field"), "target");
    }
}

#[test]
fn what_is_wrong_with_a_search_is_named() {
    let service = filled();
    let cases = [
        (json!({}), "text"),
        (json!({ "k": 3 }), "text"),
        (json!({ "text": "a", "image": png_base64(1) }), "image"),
        (json!({ "id": "a", "embedding": [1.0] }), "embedding"),
        (json!({ "text": "" }), "text"),
        (json!({ "text": 3 }), "text"),
        (json!({ "text": "a", "k": 0 }), "k"),
        (json!({ "text": "a", "k": 1001 }), "k"),
        (json!({ "text": "a", "k": "ten" }), "k"),
        (json!({ "text": "a", "ef_search": 0 }), "ef_search"),
        (json!({ "text": "a", "target": "video" }), "target"),
        (json!({ "text": "a", "space": "other" }), "space"),
        (json!({ "text": "a", "limit": 3 }), "limit"),
        (json!({ "image": "http://example.org/cat.png" }), "image"),
        (json!({ "image": "" }), "image"),
        (json!({ "embedding": [1.0, 2.0] }), "embedding"),
        (json!({ "embedding": vec![0.0; 32] }), "embedding"),
        (json!({ "embedding": "AAA=" }), "embedding"),
        (json!({ "embedding": true }), "embedding"),
        (json!({ "id": "" }), "id"),
    ];
    for (query, field) in cases {
        let reply = service.post("/v1/collections/c/search", &query);
        assert_eq!(reply.refused(400, "invalid_field"), field, "{query}");
    }
    let none = service.post("/v1/collections/none/search", &json!({ "text": "a" }));
    none.refused(404, "collection_not_found");
}
