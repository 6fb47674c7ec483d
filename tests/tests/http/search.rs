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
fn both_modalities_are_in_one_list_that_begins_alike_however_long_it_is() {
    let service = filled();
    let all = service.search(&json!({ "text": "a cat", "target": "both" }));
    let kinds = |found: &Value| -> Vec<String> {
        let hits = found["hits"].as_array().expect("hits");
        hits.iter()
            .map(|h| h["modality"].as_str().expect("a word").to_owned())
            .collect()
    };
    let mut of_all = kinds(&all);
    of_all.sort();
    assert_eq!(of_all, ["image", "image", "text", "text"]);
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
        (json!({ "parts": [] }), "parts"),
        (json!({ "parts": [{ "text": "a" }], "text": "a" }), "text"),
        (json!({ "parts": [{ "text": "a" }, {}] }), "parts[1].text"),
        (json!({ "parts": [{ "text": "a", "weight": 0 }] }), "weight"),
        (
            json!({ "parts": [{ "text": "a", "weight": -1 }] }),
            "weight",
        ),
        (
            json!({ "parts": [{ "text": "a", "wait": 1 }] }),
            "parts[0].wait",
        ),
        (json!({ "text": "a", "offset": 10_001 }), "offset"),
        (json!({ "text": "a", "cursor": "x" }), "cursor"),
        (json!({ "text": "a", "min_score": 2 }), "min_score"),
        (
            json!({ "text": "a", "min_confidence": 1.5 }),
            "min_confidence",
        ),
        (
            json!({ "parts": [{ "text": "a" }, { "text": "b" }], "min_confidence": 0.5 }),
            "min_confidence",
        ),
        (json!({ "text": "a", "collapse": -2 }), "collapse"),
        (json!({ "text": "a", "diversity": 1.5 }), "diversity"),
        (
            json!({ "text": "a", "diversity": 0.5, "offset": 1 }),
            "diversity",
        ),
        (json!({ "text": "a", "group_by": {} }), "group_by.field"),
        (
            json!({ "text": "a", "group_by": { "field": "n", "hits": 0 } }),
            "group_by.hits",
        ),
        (
            json!({ "text": "a", "specific_share": 0.5 }),
            "specific_share",
        ),
        (
            json!({ "text": "a", "space": "mixed", "specific_share": 1 }),
            "mix",
        ),
        (
            json!({ "text": "a", "space": "mixed", "target": "both" }),
            "target",
        ),
        (
            json!({ "embedding": vec![1.0; 32], "space": "mixed" }),
            "space",
        ),
        (json!({ "text": "a", "exclude": [""] }), "id"),
    ];
    for (query, field) in cases {
        let reply = service.post("/v1/collections/c/search", &query);
        assert_eq!(reply.refused(400, "invalid_field"), field, "{query}");
    }
    let none = service.post("/v1/collections/none/search", &json!({ "text": "a" }));
    none.refused(404, "collection_not_found");
}

/// A collection of 30 texts in three groups.
fn many() -> Service {
    let service = Service::with_collection();
    let text = |i: usize| json!({ "id": format!("{i:02}"), "text": format!("text {i}"), "payload": { "n": i % 3 } });
    service.add(&(0..30).map(text).collect::<Vec<_>>().into());
    service
}

#[test]
fn several_parts_with_weights_are_one_search_and_items_asked_by_id_stay_away() {
    let service = many();
    let parts = json!([{ "text": "text 4" }, { "id": "07" }, { "text": "text 9", "weight": -0.5 }]);
    let found = service.search(&json!({ "parts": parts, "target": "text", "k": 30 }));
    assert_eq!(ids(&found).len(), 29);
    assert!(!ids(&found).contains(&"07"));
    assert_eq!(ids(&found)[0], "04");
    let place = ids(&found).iter().position(|id| *id == "09");
    assert!(place > Some(14), "what is to be avoided is at {place:?}");
    let one = service.search(&json!({ "parts": [{ "text": "text 4" }], "target": "text" }));
    let alone = service.search(&json!({ "text": "text 4", "target": "text" }));
    assert_eq!(one["hits"], alone["hits"]);
}

#[test]
fn pages_follow_each_other_by_cursor_and_a_cursor_goes_with_its_search_only() {
    let service = many();
    let query = |more: Value| {
        let mut query = json!({ "text": "text 4", "target": "text", "k": 7 });
        let more = more.as_object().expect("an object").clone();
        query.as_object_mut().expect("an object").extend(more);
        query
    };
    let all = service.search(&query(json!({ "k": 30 })));
    let (mut found, mut page) = (Vec::new(), service.search(&query(json!({}))));
    let first = page["next"].clone();
    loop {
        found.extend(ids(&page).into_iter().map(str::to_owned));
        if page["next"].is_null() {
            break;
        }
        // Of any size, and written to meanwhile.
        let k = 3 + found.len() % 4;
        service.add(&json!({ "id": format!("new {k}"), "text": "text 4" }));
        page = service.search(&query(json!({ "cursor": page["next"], "k": k })));
    }
    assert_eq!(found, ids(&all));
    let other = service.post(
        "/v1/collections/c/search",
        &json!({ "text": "text 5", "target": "text", "k": 7, "cursor": first }),
    );
    assert_eq!(other.refused(400, "invalid_field"), "cursor");
    let offset = service.search(&query(json!({ "offset": 25, "k": 30 })));
    assert!((5..=9).contains(&ids(&offset).len()), "{offset}");
}

#[test]
fn hits_are_grouped_collapsed_and_kept_apart() {
    let service = many();
    let grouped = service.search(&json!({
        "text": "text 4", "target": "text", "group_by": { "field": "n", "hits": 2 }
    }));
    let groups: Vec<&Value> = grouped["hits"]
        .as_array()
        .expect("hits")
        .iter()
        .map(|hit| &hit["group"])
        .collect();
    assert_eq!(groups.len(), 6);
    assert!(
        groups.chunks(2).all(|pair| pair[0] == pair[1]),
        "{groups:?}"
    );
    assert_eq!(groups[0], &json!(1), "the best hit is text 4");

    service.add(&json!({ "id": "copy", "text": "text 4" }));
    let collapsed =
        service.search(&json!({ "text": "text 4", "target": "text", "collapse": 0.999 }));
    let first = &collapsed["hits"][0];
    assert_eq!(
        (&first["id"], &first["duplicates"]),
        (&json!("04"), &json!(["copy"]))
    );

    let diverse =
        service.search(&json!({ "text": "text 4", "target": "text", "k": 3, "diversity": 1 }));
    assert_eq!(ids(&diverse)[0], "04");
    assert!(!ids(&diverse).contains(&"copy"), "it is the same");
    assert!(diverse["next"].is_null());
    let good = service.search(&json!({ "text": "text 4", "target": "text", "min_score": 0.999 }));
    assert_eq!(ids(&good), ["04", "copy"]);
}

#[test]
fn both_spaces_are_compared_at_once() {
    let service = filled();
    let found =
        service.search(&json!({ "image": png_base64(2), "space": "mixed", "specific_share": 0.3 }));
    assert_eq!((ids(&found)[0], &found["space"]), ("blue", &json!("mixed")));
    let score = found["hits"][0]["score"].as_f64().expect("a number");
    assert!((score - 1.0).abs() < 1e-5, "{score}");
}

#[test]
fn hits_say_how_sure_they_are_and_those_that_are_not_can_be_left_out() {
    let service = many();
    let search = |more: Value| {
        let mut query = json!({ "text": "text 4", "target": "text", "k": 30 });
        let more = more.as_object().expect("an object").clone();
        query.as_object_mut().expect("an object").extend(more);
        service.search(&query)
    };
    let all = search(json!({}));
    assert_eq!(all["calibration"], "default");
    let sure = |hit: &Value| hit["confidence"].as_f64().expect("a probability");
    let all = all["hits"].as_array().expect("hits").clone();
    assert!((sure(&all[0]) - 1.0).abs() < 1e-6, "it is the text itself");
    let expected = all.iter().filter(|hit| sure(hit) >= 0.9).count();
    let found = search(json!({ "min_confidence": 0.9 }));
    assert_eq!(ids(&found).len(), expected);
    assert!(expected < 30, "{all:?}");
    let silent = search(json!({ "confidence": false }));
    assert!(silent["hits"][0]["confidence"].is_null() && silent.get("calibration").is_none());
}

#[test]
fn a_collection_is_calibrated_on_pairs_or_says_what_is_missing() {
    let service = filled();
    let calibrate = |body: &Value| service.post("/v1/collections/c/calibrate", body);
    for body in [
        json!({}),
        json!({ "pairs": [["cat", "red"]] }),
        json!({ "pairs": [["cat", "dog"]] }),
    ] {
        assert_eq!(
            calibrate(&body).refused(400, "invalid_field"),
            "pairs",
            "{body}"
        );
    }
    let unknown = calibrate(&json!({ "pears": [] }));
    assert_eq!(unknown.refused(400, "invalid_field"), "pears");
}
