//! Heads: made of examples and of words, asked, kept in versions, sent and taken in.

use serde_json::{Value, json};

use crate::harness::{Service, png_base64};

/// A collection `c` with twelve items: six are of one kind, six of another. The hash model knows only
/// equal contents, so that a head learns its examples by heart.
fn service() -> Service {
    let service = Service::with_collection();
    let items: Vec<Value> = (0..12)
        .map(|i| {
            let kind = if i < 6 { "cat" } else { "dog" };
            json!({ "id": format!("i{i:02}"), "text": format!("text {i}"), "payload": { "kind": kind } })
        })
        .collect();
    service.add(&json!(items));
    service
}

fn examples(range: std::ops::Range<usize>) -> Vec<Value> {
    let one = |i| {
        let label = if i < 6 { "cat" } else { "dog" };
        json!({ "label": label, "id": format!("i{i:02}") })
    };
    range.map(one).collect()
}

const HEAD: &str = "/v1/collections/c/heads/h";

fn made(service: &Service, body: &Value) -> Value {
    let reply = service.put_json(HEAD, body);
    assert!([200, 201].contains(&reply.status), "{}", reply.text());
    reply.json()
}

fn first_labels(reply: &Value) -> Vec<&str> {
    let all = reply["predictions"].as_array().expect("predictions");
    let first = all.iter().map(|one| one["labels"][0]["label"].as_str());
    first.map(|label| label.expect("a label")).collect()
}

#[test]
fn a_head_is_made_of_examples_and_asked() {
    let service = service();
    let body = json!({ "examples": examples(0..12), "regularization": 0.001, "seed": 3 });
    let reply = service.put_json(HEAD, &body);
    assert_eq!(reply.status, 201, "{}", reply.text());
    let head = reply.json();
    assert_eq!(
        (&head["version"], &head["labels"]),
        (&json!(1), &json!(["cat", "dog"]))
    );
    let used = &head["used"];
    assert_eq!(used["aspect"], "shared");
    assert_eq!(used["regularization"], 0.001);
    assert_eq!(
        (&used["regularization_by"], &used["folds"]),
        (&json!("given"), &json!(12))
    );
    assert_eq!(
        used["examples_per_label"][1],
        json!({ "label": "dog", "examples": 6 })
    );
    let held_out = &head["held_out"];
    assert_eq!(held_out["method"], "leave-one-out");
    assert_eq!(held_out["confusion"].as_array().map(Vec::len), Some(2));
    assert!(
        held_out["accuracy"]
            .as_f64()
            .is_some_and(|a| (0.0..=1.0).contains(&a))
    );
    assert!(head["took_ms"].as_f64().is_some_and(|ms| ms > 0.0));
    let now = head["made_at"].as_str().expect("a time");
    assert!(now.starts_with("20") && now.ends_with('Z'), "{now}");

    let ask = json!({ "ids": ["i00", "i11"], "inputs": [{ "text": "text 7" }, { "id": "i01" }] });
    let reply = service.post(&format!("{HEAD}/predict"), &ask).json();
    assert_eq!(first_labels(&reply), ["cat", "dog", "dog", "cat"]);
    assert_eq!(reply["version"], 1);
    let first = &reply["predictions"][0];
    assert_eq!(
        (&first["id"], first["labels"].as_array().map(Vec::len)),
        (&json!("i00"), Some(2))
    );
    let sum: f64 = (0..2)
        .filter_map(|i| first["labels"][i]["probability"].as_f64())
        .sum();
    assert!((sum - 1.0).abs() < 1e-6);
    assert_eq!(first["none_of_these"], false);
    let far = json!({ "inputs": [{ "text": "nothing like them" }], "k": 1 });
    let reply = service.post(&format!("{HEAD}/predict"), &far).json();
    let far = &reply["predictions"][0];
    assert_eq!(far["labels"].as_array().map(Vec::len), Some(1));
}

#[test]
fn what_cannot_be_predicted_fails_alone() {
    let service = service();
    made(&service, &json!({ "examples": examples(0..12) }));
    let ask = json!({
        "ids": ["absent", "i03"],
        "inputs": [
            { "image": "bm8gcGljdHVyZQ==" },
            { "text": "text 9" },
            { "text": " " },
            { "text": "a", "id": "b" },
            { "image": png_base64(3) },
        ],
    });
    let reply = service.post(&format!("{HEAD}/predict"), &ask);
    assert_eq!(reply.status, 200, "{}", reply.text());
    let all = reply.json()["predictions"].take();
    let code = |i: usize| {
        all[i]["error"]["code"]
            .as_str()
            .unwrap_or("none")
            .to_owned()
    };
    let codes: Vec<String> = (0..7).map(code).collect();
    assert_eq!(
        codes,
        [
            "item_not_found",
            "none",
            "undecodable_picture",
            "none",
            "invalid_field",
            "invalid_field",
            "none"
        ]
    );
    assert_eq!(all[0]["id"], "absent");
    assert_eq!(all[3]["labels"][0]["label"], "dog");
}

#[test]
fn versions_are_listed_rolled_back_exported_imported_and_deleted() {
    let service = service();
    let one = made(&service, &json!({ "examples": examples(0..12) }));
    let second = json!({ "examples": examples(3..9), "balance": true, "aspect": "shared" });
    assert_eq!(service.put_json(HEAD, &second).status, 200);
    let list = service.get("/v1/collections/c/heads").json();
    let head = &list["heads"][0];
    assert_eq!(
        (
            &head["name"],
            &head["version"],
            &head["versions"],
            &head["kind"]
        ),
        (&json!("h"), &json!(2), &json!([1, 2]), &json!("few_shot"))
    );
    assert_eq!(
        (&head["examples"], &head["multi_label"]),
        (&json!(6), &json!(false))
    );
    let versions = service.get(&format!("{HEAD}/versions")).json();
    assert_eq!(versions["versions"][0]["examples"], 12);
    let back = service.post(&format!("{HEAD}/rollback"), &json!({ "version": 1 }));
    assert_eq!((back.status, &back.json()["version"]), (200, &json!(1)));
    let now = service.get(HEAD).json();
    assert_eq!(
        (&now["version"], &now["held_out"]),
        (&json!(1), &one["held_out"])
    );
    assert_eq!(
        service.get(&format!("{HEAD}?version=2")).json()["examples"],
        6
    );
    let reply = service.post(&format!("{HEAD}/rollback"), &json!({ "version": 9 }));
    reply.refused(404, "head_not_found");

    let file = service.get(&format!("{HEAD}/export?version=2"));
    assert_eq!(file.status, 200);
    assert!(file.header("content-disposition").contains("h.safetensors"));
    let import = "/v1/collections/c/heads/copy/import";
    let reply = service.put_bytes(import, &file.body);
    assert_eq!(
        (reply.status, &reply.json()["examples"]),
        (201, &json!(6)),
        "{}",
        reply.text()
    );
    let ask = json!({ "ids": ["i04"], "version": 2 });
    let ours = service.post(&format!("{HEAD}/predict"), &ask).json()["predictions"].take();
    let ask = json!({ "ids": ["i04"] });
    let theirs = service
        .post("/v1/collections/c/heads/copy/predict", &ask)
        .json();
    assert_eq!(ours, theirs["predictions"]);
    assert_eq!(
        service
            .put_bytes(import, b"junk")
            .refused(400, "invalid_field"),
        "body"
    );
    let other = String::from_utf8_lossy(&file.body)
        .find("fingerprint")
        .expect("is there");
    let mut other_model = file.body.clone();
    // The first digit of a fingerprint.
    let digit = &mut other_model[other + "fingerprint\\\":\\\"".len()];
    *digit = if *digit == b'0' { b'1' } else { b'0' };
    service
        .put_bytes(import, &other_model)
        .refused(409, "another_space");

    assert_eq!(service.delete(HEAD).status, 204);
    service.delete(HEAD).refused(404, "head_not_found");
    service.get(HEAD).refused(404, "head_not_found");
    service
        .post(&format!("{HEAD}/predict"), &ask)
        .refused(404, "head_not_found");
    service
        .get("/v1/collections/none/heads")
        .refused(404, "collection_not_found");
}

#[test]
fn labels_come_from_a_field_and_what_has_none_is_suggested() {
    let service = service();
    let more: Vec<Value> = (0..5)
        .map(|i| json!({ "id": format!("new{i}"), "text": format!("new {i}"), "payload": { "n": i } }))
        .collect();
    service.add(&json!(more));
    let head = made(&service, &json!({ "labels_from": { "field": "kind" } }));
    assert_eq!(
        (&head["examples"], &head["labels"]),
        (&json!(12), &json!(["cat", "dog"]))
    );
    for strategy in ["margin", "entropy", "diverse"] {
        let ask = json!({ "k": 3, "strategy": strategy });
        let reply = service.post(&format!("{HEAD}/suggest"), &ask);
        assert_eq!(reply.status, 200, "{}", reply.text());
        let reply = reply.json();
        let items = reply["items"].as_array().expect("items");
        assert_eq!((items.len(), &reply["looked_at"]), (3, &json!(5)));
        for item in items {
            assert!(
                item["id"].as_str().is_some_and(|id| id.starts_with("new")),
                "{item}"
            );
            assert_eq!(item["labels"].as_array().map(Vec::len), Some(2));
        }
    }
    let ask = json!({ "filter": { "must": [{ "field": "n", "gt": 1 }] } });
    let reply = service.post(&format!("{HEAD}/suggest"), &ask);
    assert_eq!(
        reply.refused(400, "invalid_field"),
        "filter.must[0].field",
        "{}",
        reply.text()
    );
    let refused = service.put_json(HEAD, &json!({ "labels_from": { "field": "n" } }));
    assert_eq!(refused.refused(400, "invalid_field"), "labels_from.field");
}

#[test]
fn words_alone_make_a_head_and_none_of_them_may_fit() {
    let service = service();
    let body = json!({ "labels": ["text 1", "text 8"], "templates": ["{}"] });
    let head = made(&service, &body);
    assert_eq!(
        (&head["kind"], &head["held_out"]),
        (&json!("zero_shot"), &Value::Null)
    );
    assert_eq!(head["used"]["templates"], json!(["{}"]));
    let ask = json!({ "ids": ["i01", "i08", "i05"] });
    let reply = service.post(&format!("{HEAD}/predict"), &ask).json();
    assert_eq!(first_labels(&reply)[..2], ["text 1", "text 8"]);
    // Twelve items are too few to tell.
    assert_eq!(reply["predictions"][0]["none_of_these"], Value::Null);
    let many: Vec<Value> = (0..60)
        .map(|i| json!({ "text": format!("more {i}") }))
        .collect();
    service.add(&json!(many));
    let reply = service.post(&format!("{HEAD}/predict"), &ask).json();
    let none = |i: usize| reply["predictions"][i]["none_of_these"].clone();
    assert_eq!((none(0), none(1)), (json!(false), json!(false)));
    let clip = made(
        &service,
        &json!({ "labels": ["a", "b"], "templates": "clip" }),
    );
    assert_eq!(clip["used"]["templates"], "clip");
    let many = json!({ "labels": ["text 1", "text 8"], "templates": ["{}"], "multi_label": true });
    made(&service, &many);
    let reply = service
        .post(&format!("{HEAD}/predict"), &json!({ "ids": ["i01"] }))
        .json();
    let labels = &reply["predictions"][0]["labels"];
    assert!(
        labels[0]["probability"].as_f64().is_some_and(|p| p > 0.9),
        "{labels}"
    );
    assert!(
        labels[1]["probability"].as_f64().is_some_and(|p| p < 0.5),
        "{labels}"
    );
}

#[test]
fn several_labels_each_and_a_start_from_words_go() {
    let service = service();
    let several: Vec<Value> = (0..12)
        .map(|i| {
            let labels: Vec<&str> = [(i % 2 == 0, "even"), (i % 3 == 0, "third")]
                .into_iter()
                .filter_map(|(is, label)| is.then_some(label))
                .collect();
            json!({ "label": labels, "id": format!("i{i:02}") })
        })
        .collect();
    let body = json!({ "examples": several, "multi_label": true, "regularization": 0.001 });
    made(&service, &body);
    let ask = json!({ "ids": ["i00", "i01", "i02"] });
    let reply = service.post(&format!("{HEAD}/predict"), &ask).json();
    let fitting = |i: usize| {
        let labels = reply["predictions"][i]["labels"]
            .as_array()
            .expect("labels");
        labels
            .iter()
            .filter(|l| l["probability"].as_f64().is_some_and(|p| p > 0.5))
            .count()
    };
    assert_eq!([fitting(0), fitting(1), fitting(2)], [2, 0, 1]);
    assert_eq!(reply["predictions"][1]["none_of_these"], true);

    for body in [
        json!({ "examples": examples(0..12), "start": "zero_shot", "blend": 0.2, "templates": ["{}"] }),
        json!({ "examples": examples(0..12), "start": "zero_shot", "aspect": "both" }),
        json!({ "examples": examples(0..12), "aspect": "specific", "regularization": "auto" }),
        json!({ "examples": [
            { "label": "a", "text": "one" }, { "label": "b", "image": png_base64(9) },
            { "label": "a", "text": "one" },
        ] }),
    ] {
        let head = made(&service, &body);
        assert!(head["used"]["converged"].as_bool().is_some(), "{head}");
    }
    // The last one has one example of each label: nothing can be held out.
    let last = service.get(HEAD).json();
    assert_eq!(
        (&last["examples"], &last["held_out"]),
        (&json!(2), &Value::Null)
    );
}

#[test]
#[allow(clippy::too_many_lines, reason = "one list of all that can be wrong")]
fn what_is_wrong_with_a_head_is_named() {
    let service = service();
    let two = |a: Value, b: Value| json!({ "examples": [a, b] });
    let cat = json!({ "label": "cat", "id": "i00" });
    let many: Vec<Value> = (0..1001)
        .map(|i| json!({ "label": format!("l{i}"), "text": "a".repeat(1 + i) }))
        .collect();
    let cases = [
        (json!({}), "examples"),
        (json!({ "examples": [] }), "examples"),
        (json!({ "examples": examples(0..6) }), "examples"),
        (json!({ "examples": many }), "labels"),
        (
            json!({ "examples": examples(0..12), "labels_from": { "field": "kind" } }),
            "labels_from",
        ),
        (
            json!({ "examples": examples(0..12), "labels": ["cat"] }),
            "examples[6].label",
        ),
        (
            json!({ "examples": examples(0..12), "labels": ["cat", "dog", "cow"] }),
            "examples",
        ),
        (
            two(cat.clone(), json!({ "label": "dog", "id": "absent" })),
            "examples[1].id",
        ),
        (
            two(cat.clone(), json!({ "label": "dog", "id": "i00" })),
            "examples[1].label",
        ),
        (
            two(cat.clone(), json!({ "label": "", "id": "i01" })),
            "examples[1].label",
        ),
        (
            two(cat.clone(), json!({ "label": ["a"], "id": "i01" })),
            "examples[1].label",
        ),
        (
            two(cat.clone(), json!({ "label": "dog" })),
            "examples[1].id",
        ),
        (
            two(
                cat.clone(),
                json!({ "label": "dog", "id": "i01", "text": "a" }),
            ),
            "examples[1].id",
        ),
        (
            two(cat.clone(), json!({ "label": "dog", "url": "i01" })),
            "examples[1].url",
        ),
        (
            two(cat.clone(), json!({ "id": "i01" })),
            "examples[1].label",
        ),
        (
            json!({ "examples": examples(0..12), "regularization": 0 }),
            "regularization",
        ),
        (
            json!({ "examples": examples(0..12), "regularization": "some" }),
            "regularization",
        ),
        (json!({ "examples": examples(0..12), "blend": 2 }), "blend"),
        (
            json!({ "examples": examples(0..12), "aspect": "specific", "start": "zero_shot" }),
            "start",
        ),
        (
            json!({ "examples": examples(0..12), "templates": ["{}"] }),
            "templates",
        ),
        (
            json!({ "examples": examples(0..12), "start": "random" }),
            "start",
        ),
        (
            json!({ "labels_from": { "field": "none" } }),
            "labels_from.field",
        ),
        (
            json!({ "labels_from": { "field": "kind" }, "labels": ["cat"] }),
            "labels",
        ),
        (json!({ "labels": [] }), "labels"),
        (json!({ "labels": ["a", "a"] }), "labels[1]"),
        (
            json!({ "labels": ["a", "b"], "templates": ["a photo"] }),
            "templates[0]",
        ),
        (
            json!({ "labels": ["a", "b"], "templates": "imagenet" }),
            "templates",
        ),
        (json!({ "labels": ["a", "b"], "blend": 0.5 }), "blend"),
        (
            json!({ "labels": ["a", "b"], "multi_label": true }),
            "multi_label",
        ),
        (json!({ "examples": examples(0..12), "shots": 3 }), "shots"),
    ];
    for (body, field) in cases {
        let reply = service.put_json(HEAD, &body);
        let said = body.to_string();
        let said = &said[..said.len().min(200)];
        assert_eq!(
            reply.refused(400, "invalid_field"),
            field,
            "{said}: {}",
            reply.text()
        );
    }
    let bad_name = "/v1/collections/c/heads/A";
    let reply = service.put_json(bad_name, &json!({ "examples": examples(0..12) }));
    assert_eq!(reply.refused(400, "invalid_field"), "head");
    assert_eq!(
        service.get("/v1/collections/c/heads").json()["heads"],
        json!([])
    );
    let picture = json!({ "examples": [cat, { "label": "dog", "image": "bm8gcGljdHVyZQ==" }] });
    let reply = service.put_json(HEAD, &picture);
    assert_eq!(
        reply.refused(422, "undecodable_picture"),
        "examples[1].image"
    );

    made(&service, &json!({ "examples": examples(0..12) }));
    for (path, body, field) in [
        ("predict", json!({}), "inputs"),
        ("predict", json!({ "ids": ["a"], "k": 0 }), "k"),
        ("predict", json!({ "ids": vec!["a"; 1001] }), "inputs"),
        (
            "predict",
            json!({ "ids": ["a"], "threshold": 1 }),
            "threshold",
        ),
        ("suggest", json!({ "k": 0 }), "k"),
        ("suggest", json!({ "strategy": "random" }), "strategy"),
        ("rollback", json!({}), "version"),
    ] {
        let reply = service.post(&format!("{HEAD}/{path}"), &body);
        assert_eq!(reply.refused(400, "invalid_field"), field, "{path} {body}");
    }
    let reply = service.post(
        &format!("{HEAD}/predict"),
        &json!({ "ids": ["i00"], "version": 7 }),
    );
    reply.refused(404, "head_not_found");
    service
        .post(HEAD, &json!({}))
        .refused(405, "method_not_allowed");
}
