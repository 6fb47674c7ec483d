//! The doors of text-embeddings-inference, Hugging Face's tasks and clip-retrieval.

use std::thread;

use serde_json::{Value, json};

use crate::{
    harness::{CONTEXT, Reply, Service, png_base64},
    queue::{wait_until, waiting},
};

/// Checks Hugging Face's shape of an error, and returns the message.
#[track_caller]
fn refused(reply: &Reply, status: u16, kind: &str) -> String {
    assert_eq!(reply.status, status, "{}", reply.text());
    let error = reply.json();
    assert_eq!(error["error_type"], kind);
    error["error"].as_str().expect("words").to_owned()
}

#[test]
fn embed_answers_with_rows_whatever_the_form_of_its_inputs() {
    let service = Service::start();
    let row = service
        .post("/v1/embeddings", &json!({ "input": "a" }))
        .json();
    let row = &row["data"][0]["embedding"];
    for body in [
        json!({ "inputs": "a" }),
        json!({ "inputs": ["a"], "normalize": true, "truncate": true }),
        json!({ "inputs": ["a"], "truncate": false }),
        json!({ "inputs": "a", "truncation_direction": "Right", "prompt_name": null }),
        json!({ "inputs": "a", "truncation_direction": null }),
    ] {
        let reply = service.post("/embed", &body);
        assert_eq!(reply.json(), json!([row]), "{body}");
        assert_eq!(reply.header("content-type"), "application/json");
    }
    let two = service
        .post("/embed", &json!({ "inputs": ["b", "a"] }))
        .json();
    assert_eq!((two.as_array().map(Vec::len), &two[1]), (Some(2), row));
}

#[test]
fn embed_cuts_no_text_that_must_not_be_cut() {
    let service = Service::start();
    let long = "a".repeat(CONTEXT + 1);
    for truncate in [json!(null), json!(true)] {
        let body = json!({ "inputs": long, "truncate": truncate });
        assert_eq!(service.post("/embed", &body).status, 200, "{truncate}");
    }
    let body = json!({ "inputs": ["a", long], "truncate": false });
    let message = refused(&service.post("/embed", &body), 413, "Validation");
    assert!(
        message.starts_with("inputs[1]: the text has more tokens"),
        "{message}"
    );
    assert_eq!(service.get("/info").json()["auto_truncate"], true);
}

#[test]
fn what_is_wrong_is_said_in_the_shape_of_hugging_face() {
    let service = Service::with(|config| {
        config.limits.queue_texts = 1;
        config.limits.items = 3;
        config.limits.stuck_ms = 100;
    });
    let cases = [
        (
            json!({ "inputs": "a", "normalize": false }),
            400,
            "normalize",
        ),
        (
            json!({ "inputs": "a", "truncation_direction": "Left" }),
            400,
            "truncation_direction: only `Right` is supported",
        ),
        (
            json!({ "inputs": "a", "prompt_name": "query" }),
            400,
            "prompt_name: the model has no prompts",
        ),
        (json!({ "inputs": [] }), 400, "inputs"),
        (json!({ "inputs": ["a", ""] }), 400, "inputs[1]"),
        (json!({ "inputs": [["a", "b"]] }), 400, "inputs[0]"),
        (json!({ "inputs": ["a", "b", "c", "d"] }), 413, "inputs"),
        (json!({ "input": "a" }), 400, "input"),
    ];
    for (body, status, field) in cases {
        let message = refused(&service.post("/embed", &body), status, "Validation");
        assert!(
            message.starts_with(field) && message.contains(": "),
            "{body}: {message}"
        );
    }
    refused(&service.get("/embed"), 405, "Validation");
    let health = service.get("/health");
    assert_eq!((health.status, health.body.len()), (200, 0));
    service.gate.shut();
    thread::scope(|scope| {
        let served = scope.spawn(|| service.post("/embed", &json!({ "inputs": "a" })).status);
        wait_until("the queue is full", || waiting(&service) == "1");
        let full = service.post("/embed", &json!({ "inputs": ["b"] }));
        refused(&full, 429, "Overloaded");
        assert_eq!(full.header("retry-after"), "1");
        wait_until("the tower is stuck", || {
            service.get("/health").status == 503
        });
        refused(&service.get("/health"), 503, "Unhealthy");
        service.gate.open();
        assert_eq!(served.join().expect("no panic"), 200);
    });
}

#[test]
fn info_tells_the_model_and_the_limits() {
    let service = Service::with(|config| config.limits.items = 7);
    let info = service.get("/info").json();
    assert_eq!(
        (&info["model_id"], &info["max_client_batch_size"]),
        (&json!("hash-32"), &json!(7))
    );
    assert!(info["model_type"]["embedding"].is_object());
}

#[test]
fn zero_shot_says_what_classify_says() {
    let service = Service::start();
    let path = "/zero-shot-image-classification";
    let labels = ["cat", "dog", "bird"];
    let both = |parameters: Value, templates: Value| {
        let theirs = json!({ "inputs": png_base64(1), "parameters": parameters });
        let theirs = service.post(path, &theirs);
        assert_eq!(theirs.status, 200, "{}", theirs.text());
        let ours = json!({ "image": png_base64(1), "labels": labels, "templates": templates });
        let ours = service.post("/v1/classify", &ours).json();
        let ours = ours["predictions"].as_array().expect("predictions").iter();
        let ours = ours.map(|p| json!({ "label": p["label"], "score": p["probability"] }));
        let theirs = theirs.json();
        assert_eq!(theirs, Value::Array(ours.collect()));
        let scores = theirs.as_array().expect("an array").iter();
        let scores: Vec<_> = scores.filter_map(|p| p["score"].as_f64()).collect();
        assert!(
            scores.len() == 3 && scores.is_sorted_by(|a, b| a >= b),
            "{scores:?}"
        );
        theirs
    };
    let said = json!({ "candidate_labels": labels, "hypothesis_template": "a {} here" });
    let said = both(said, json!(["a {} here"]));
    let default = json!({ "candidate_labels": labels });
    assert_ne!(both(default, json!(["This is a photo of {}."])), said);
    let cases = [
        (
            json!({ "candidate_labels": [] }),
            "parameters.candidate_labels",
        ),
        (
            json!({ "candidate_labels": ["a", " "] }),
            "parameters.candidate_labels[1]",
        ),
        (
            json!({ "candidate_labels": "a,b" }),
            "parameters.candidate_labels",
        ),
        (
            json!({ "candidate_labels": ["a"], "hypothesis_template": "a photo" }),
            "parameters.hypothesis_template",
        ),
    ];
    for (parameters, field) in cases {
        let body = json!({ "inputs": png_base64(1), "parameters": parameters });
        let message = refused(&service.post(path, &body), 400, "Validation");
        assert!(
            message.starts_with(&format!("{field}: ")),
            "{body}: {message}"
        );
    }
    let body = json!({ "inputs": "*", "parameters": { "candidate_labels": ["a"] } });
    let message = refused(&service.post(path, &body), 400, "Validation");
    assert!(message.starts_with("inputs: "), "{message}");
}

/// What the client of clip-retrieval sends when only a text is given.
fn knn(text: &str) -> Value {
    json!({
        "text": text, "image": null, "image_url": null, "embedding_input": null,
        "deduplicate": true, "use_safety_model": true, "use_violence_detector": true,
        "indice_name": "c", "use_mclip": false, "aesthetic_score": 9, "aesthetic_weight": 0.5,
        "modality": "image", "num_images": 2, "num_result_ids": 2,
    })
}

fn with(mut body: Value, changes: &Value) -> Value {
    for (name, value) in changes.as_object().expect("an object") {
        body[name] = value.clone();
    }
    body
}

#[test]
fn the_knn_service_finds_by_words_pictures_and_embeddings() {
    let service = Service::with_collection();
    let payload = json!({ "caption": "a red one", "url": "https://example.org/r.png", "id": "x" });
    service.add(&json!([
        { "id": "red", "image": png_base64(200), "payload": payload },
        { "id": "blue", "image": png_base64(3), "payload": { "name": "b.png" } },
        { "id": "cat", "text": "a cat" }, { "id": "dog", "text": "a dog" },
    ]));
    // Its client says no content type.
    let ask = |changes: Value| {
        let body = with(knn("a cat"), &changes).to_string();
        let reply = service.send("/knn-service", &[], body.as_bytes());
        assert_eq!(reply.status, 200, "{}", reply.text());
        reply.json()
    };
    let texts = ask(json!({ "modality": "text" }));
    assert_eq!(
        (&texts[0]["id"], &texts[0]["caption"]),
        (&json!("cat"), &json!("a cat"))
    );
    assert!(
        texts[0]["similarity"]
            .as_f64()
            .is_some_and(|s| (s - 1.0).abs() < 1e-5)
    );
    let by_image = ask(json!({ "text": null, "image": png_base64(200) }));
    assert_eq!(by_image.as_array().map(Vec::len), Some(2));
    let [first, second] = [&by_image[0], &by_image[1]];
    assert_eq!(
        (&first["id"], &first["caption"]),
        (&json!("red"), &json!("a red one"))
    );
    assert_eq!(first["url"], "https://example.org/r.png");
    assert_eq!(
        (&second["id"], &second["caption"]),
        (&json!("blue"), &json!("b.png"))
    );
    let kept = service
        .get("/v1/collections/c/items/red?embeddings=true")
        .json();
    let row = &kept["embeddings"]["shared"];
    let by_row = ask(json!({ "text": "", "embedding_input": row, "num_images": 1 }));
    assert_eq!(
        (&by_row[0]["id"], by_row.as_array().map(Vec::len)),
        (&json!("red"), Some(2))
    );
    let names: Vec<_> = by_row[1].as_object().expect("an object").keys().collect();
    assert_eq!(names, ["id", "similarity"], "beyond num_images");
    let only = ask(json!({ "indice_name": null, "num_result_ids": null }));
    assert_eq!(only.as_array().map(Vec::len), Some(2), "the one collection");
}

#[test]
fn the_knn_service_leaves_out_what_is_nearly_the_same_where_asked() {
    let service = Service::with_collection();
    service.add(&json!([{ "id": "a", "text": "a cat" }, { "id": "b", "text": "a cat" }]));
    for (deduplicate, hits) in [(true, 1), (false, 2)] {
        let body = json!({ "modality": "text", "deduplicate": deduplicate });
        let found = service
            .post("/knn-service", &with(knn("a cat"), &body))
            .json();
        assert_eq!(found.as_array().map(Vec::len), Some(hits));
    }
}

#[test]
fn what_the_knn_service_cannot_do_is_named() {
    let service = Service::with_collection();
    let cases = [
        (json!({ "text": null }), "text"),
        (
            json!({ "text": null, "image_url": "https://example.org/a.png" }),
            "image_url",
        ),
        (json!({ "use_mclip": true }), "use_mclip"),
        (json!({ "modality": "sound" }), "modality"),
        (json!({ "num_images": 0 }), "num_images"),
        (json!({ "num_result_ids": 1_001 }), "num_result_ids"),
        (
            json!({ "text": null, "embedding_input": [1.0, 2.0] }),
            "embedding_input",
        ),
        (json!({ "text": null, "image": "*" }), "image"),
        (json!({ "image": png_base64(1) }), "image"),
    ];
    for (changes, field) in cases {
        let reply = service.post("/knn-service", &with(knn("a"), &changes));
        assert_eq!(reply.refused(400, "invalid_field"), field, "{changes}");
    }
    let none = json!({ "indice_name": "laion5B" });
    let none = service.post("/knn-service", &with(knn("a"), &none));
    none.refused(404, "collection_not_found");
    service.put("/v1/collections/d");
    let two = service.post(
        "/knn-service",
        &with(knn("a"), &json!({ "indice_name": null })),
    );
    assert_eq!(two.refused(400, "invalid_field"), "indice_name");
}
