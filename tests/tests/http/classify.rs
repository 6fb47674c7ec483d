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
        (json!({ "text": "a", "labels": ["b"], "k": 1 }), "k"),
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
