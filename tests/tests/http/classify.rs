//! Zero-shot classification.

use serde_json::json;

use crate::harness::{REFUSED, Service, png_base64};

#[test]
fn the_label_that_fits_comes_first_and_probabilities_sum_to_one() {
    let service = Service::start();
    // The hash model knows only equal texts: the bare label is the text itself.
    let query = json!({ "text": "dog", "labels": ["cat", "dog", "bird"], "templates": ["{}"] });
    for _ in 0..2 {
        let reply = service.post("/v1/classify", &query).json();
        let all = reply["predictions"].as_array().expect("predictions");
        assert_eq!((all.len(), &all[0]["label"]), (3, &json!("dog")));
        assert!(
            all[0]["score"]
                .as_f64()
                .is_some_and(|s| (s - 1.0).abs() < 1e-5)
        );
        let p: Vec<f64> = all
            .iter()
            .filter_map(|p| p["probability"].as_f64())
            .collect();
        assert!((p.iter().sum::<f64>() - 1.0).abs() < 1e-5, "{p:?}");
        assert!(p[0] >= p[1] && p[1] >= p[2], "{p:?}");
    }
    let one = json!({ "image": png_base64(1), "labels": ["cat"] });
    let reply = service.post("/v1/classify", &one).json();
    assert!(
        reply["predictions"][0]["probability"]
            .as_f64()
            .is_some_and(|p| (p - 1.0).abs() < 1e-6)
    );
}

#[test]
fn what_is_wrong_with_a_classification_is_named() {
    let service = Service::start();
    let many: Vec<String> = (0..1001).map(|i| i.to_string()).collect();
    let cases = [
        (json!({ "labels": ["a"] }), "text"),
        (json!({ "text": "a" }), "labels"),
        (json!({ "text": "a", "labels": [] }), "labels"),
        (json!({ "text": "a", "labels": many }), "labels"),
        (json!({ "text": "a", "labels": ["b", ""] }), "labels[1]"),
        (
            json!({ "text": "a", "labels": ["b", "c", "b"] }),
            "labels[2]",
        ),
        (
            json!({ "text": "a", "labels": ["b"], "templates": [] }),
            "templates",
        ),
        (
            json!({ "text": "a", "labels": ["b"], "templates": ["{}", "a photo"] }),
            "templates[1]",
        ),
        (
            json!({ "text": "a", "labels": ["b"], "templates": ["{} and {}"] }),
            "templates[0]",
        ),
        (
            json!({ "text": "a", "image": "b", "labels": ["b"] }),
            "image",
        ),
        (json!({ "text": "a", "labels": ["b"], "k": 0 }), "k"),
        (json!({ "text": "a", "labels": ["b"], "n": 1 }), "n"),
        (
            json!({ "text": "a", "labels": ["b"], "templates": "cli" }),
            "templates",
        ),
        (
            json!({ "text": "a", "labels": ["b"], "multi_label": true }),
            "multi_label",
        ),
        (json!({ "ids": ["a"], "labels": ["b"] }), "collection"),
        (
            json!({ "ids": [], "labels": ["b"], "collection": "c" }),
            "ids",
        ),
        (
            json!({ "ids": ["a"], "text": "a", "labels": ["b"], "collection": "c" }),
            "text",
        ),
    ];
    for (query, field) in cases {
        let reply = service.post("/v1/classify", &query);
        assert_eq!(reply.refused(400, "invalid_field"), field, "{query}");
    }
    // Each part is within its limit; what they are multiplied to is not.
    let labels: Vec<String> = (0..100)
        .map(|i| format!("{i}{}", "a".repeat(9_000)))
        .collect();
    let templates: Vec<String> = (0..100).map(|i| format!("{i} {{}}")).collect();
    let query = json!({ "text": "a", "labels": labels, "templates": templates });
    let reply = service.post("/v1/classify", &query);
    assert_eq!(reply.refused(413, "too_large"), "templates");
    assert!(reply.text().contains("at most 4194304"), "{}", reply.text());

    let query = json!({ "text": REFUSED, "labels": ["a"] });
    assert_eq!(
        service
            .post("/v1/classify", &query)
            .refused(422, "unusable_input"),
        "text"
    );
}

#[test]
fn the_items_of_a_collection_say_whether_any_label_fits() {
    let service = Service::with_collection();
    let few = json!({ "text": "dog", "labels": ["cat", "dog"], "collection": "c" });
    let reply = service.post("/v1/classify", &few).json();
    assert_eq!(
        reply["none_of_these"],
        json!(null),
        "nothing to compare with"
    );
    let items: Vec<_> = (0..20)
        .map(|i| json!({ "id": format!("i{i}"), "text": format!("text {i}") }))
        .collect();
    service.add(&json!(items));
    let asked = |text: &str, multi_label: bool| {
        let query = json!({
            "text": text, "labels": ["cat", "dog"], "templates": ["{}"], "collection": "c",
            "multi_label": multi_label, "k": 1,
        });
        let reply = service.post("/v1/classify", &query);
        assert_eq!(reply.status, 200, "{}", reply.text());
        let reply = reply.json();
        let labels = reply["predictions"].as_array().expect("labels").clone();
        assert_eq!(labels.len(), 1, "as many as were asked for");
        (labels[0].clone(), reply["none_of_these"].clone())
    };
    for multi_label in [false, true] {
        let (best, none) = asked("dog", multi_label);
        assert_eq!((&best["label"], &none), (&json!("dog"), &json!(false)));
        assert!(best["probability"].as_f64().is_some_and(|p| p > 0.5));
        let (best, none) = asked("text 3", multi_label);
        assert_eq!(none, true, "{best}");
        let p = best["probability"].as_f64().expect("a number");
        assert!(multi_label == (p < 0.5), "{best}");
    }
    let query = json!({ "text": "a", "labels": ["b"], "collection": "none" });
    service
        .post("/v1/classify", &query)
        .refused(404, "collection_not_found");
}

#[test]
fn items_are_classified_together_as_a_head_of_the_same_words_does_it() {
    let service = Service::with_collection();
    let mut items: Vec<_> = (0..20)
        .map(|i| json!({ "id": format!("i{i}"), "text": format!("text {i}") }))
        .collect();
    items.push(json!({ "id": "p", "image": png_base64(7) }));
    items.push(json!({ "id": "d", "text": "dog" }));
    service.add(&json!(items));
    let words = json!({ "labels": ["cat", "dog", "bird"], "templates": "clip" });
    let head = service.put_json("/v1/collections/c/heads/h", &words);
    assert_eq!(head.status, 201, "{}", head.text());
    let ids = json!(["d", "absent", "i3", "p", "d"]);
    let ask = json!({ "ids": ids, "k": 2 });
    let expected = service
        .post("/v1/collections/c/heads/h/predict", &ask)
        .json();
    let query = json!({
        "ids": ids, "k": 2, "collection": "c", "labels": words["labels"], "templates": "clip",
    });
    let reply = service.post("/v1/classify", &query);
    assert_eq!(reply.status, 200, "{}", reply.text());
    let reply = reply.json();
    assert_eq!(reply["items"], expected["predictions"]);
    assert_eq!(reply["space"], "shared");
    assert_eq!(reply["items"][1]["error"]["code"], "item_not_found");
    let labels = reply["items"][0]["labels"].as_array().map(Vec::len);
    assert_eq!(labels, Some(2));
    let query = json!({ "ids": ["d"], "collection": "c", "labels": (0..9).map(|i| i.to_string()).collect::<Vec<_>>() });
    let reply = service.post("/v1/classify", &query).json();
    let labels = reply["items"][0]["labels"].as_array().map(Vec::len);
    assert_eq!(labels, Some(5), "unless it is said how many");
    let query = json!({ "ids": vec!["a"; 1001], "labels": ["b"], "collection": "c" });
    let reply = service.post("/v1/classify", &query);
    assert_eq!(reply.refused(400, "invalid_field"), "ids");
}
