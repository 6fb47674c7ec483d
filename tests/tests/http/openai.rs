//! `/v1/embeddings` and `/v1/models` as clients of `OpenAI` know them.

use std::thread;

use serde_json::{Value, json};

use crate::{
    harness::{DIM, POISON, REFUSED, Reply, Service, base64, png, png_base64},
    queue::{wait_until, waiting},
};

const PATH: &str = "/v1/embeddings";
const JSON: (&str, &str) = ("content-type", "application/json");

fn embed(service: &Service, body: &Value) -> Value {
    let reply = service.post(PATH, body);
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.json()
}

/// The embeddings alone, in the order of the answer.
fn rows(service: &Service, input: &Value) -> Vec<Vec<f32>> {
    let answer = embed(service, &json!({ "input": input }));
    let data = answer["data"].as_array().expect("data").iter().enumerate();
    data.map(|(i, one)| {
        assert_eq!(
            (&one["index"], &one["object"]),
            (&json!(i), &json!("embedding"))
        );
        numbers(&one["embedding"])
    })
    .collect()
}

fn numbers(row: &Value) -> Vec<f32> {
    let row = row.as_array().expect("a row").iter();
    row.map(|v| v.as_f64().expect("a number") as f32).collect()
}

/// Checks `OpenAI`'s shape of an error, and returns the field and the message.
#[track_caller]
fn refused(reply: &Reply, status: u16, kind: &str, code: &str) -> (Value, String) {
    assert_eq!(reply.status, status, "{}", reply.text());
    let json = reply.json();
    let error = json["error"].as_object().expect("an error");
    let mut names: Vec<&str> = error.keys().map(String::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["code", "message", "param", "type"]);
    assert_eq!(
        (&error["type"], &error["code"]),
        (&json!(kind), &json!(code))
    );
    assert_eq!(reply.header("content-type"), "application/json");
    let message = error["message"].as_str().expect("words");
    (error["param"].clone(), message.to_owned())
}

#[test]
fn a_string_and_a_batch_of_one_are_embedded_as_an_item_is() {
    let service = Service::with_collection();
    service.add(&json!([{ "id": "t", "text": "a cat" }, { "id": "p", "image": png_base64(3) }]));
    let kept = |id: &str| {
        let path = format!("/v1/collections/c/items/{id}?embeddings=true");
        numbers(&service.get(&path).json()["embeddings"]["shared"])
    };
    for text in [
        json!("a cat"),
        json!(["a cat"]),
        json!({ "text": "a cat" }),
        json!([{ "text": "a cat" }]),
    ] {
        assert_eq!(rows(&service, &text), [kept("t")], "{text}");
    }
    let uri = format!("data:image/png;base64,{}", png_base64(3));
    for image in [json!({ "image": uri }), json!([{ "image": png_base64(3) }])] {
        assert_eq!(rows(&service, &image), [kept("p")]);
    }
    let mixed = json!(["a cat", { "image": uri }, { "text": "a dog" }, "a cat"]);
    let mixed = rows(&service, &mixed);
    assert_eq!(mixed.len(), 4);
    assert_eq!(
        (&mixed[0], &mixed[1], &mixed[3]),
        (&kept("t"), &kept("p"), &kept("t"))
    );
    assert_eq!(mixed[2].len(), DIM);
}

#[test]
fn the_answer_says_the_model_and_what_it_took() {
    let service = Service::start();
    let body =
        json!({ "input": ["abc", "de"], "model": "hash-32", "user": "me", "dimensions": DIM });
    let answer = embed(&service, &body);
    assert_eq!(
        (&answer["object"], &answer["model"]),
        (&json!("list"), &json!("hash-32"))
    );
    // A byte is a token of the hash model, a pixel a patch.
    assert_eq!(
        answer["usage"],
        json!({ "prompt_tokens": 5, "total_tokens": 5 })
    );
    let picture = embed(&service, &json!({ "input": { "image": png_base64(1) } }));
    assert_eq!(picture["usage"]["prompt_tokens"], 16);
}

#[test]
fn base64_holds_the_same_numbers() {
    let service = Service::start();
    let float = embed(
        &service,
        &json!({ "input": "a", "encoding_format": "float" }),
    );
    let text = embed(
        &service,
        &json!({ "input": "a", "encoding_format": "base64" }),
    );
    let row = numbers(&float["data"][0]["embedding"]);
    let bytes: Vec<u8> = row.into_iter().flat_map(f32::to_le_bytes).collect();
    assert_eq!(text["data"][0]["embedding"], json!(base64(&bytes)));
}

#[test]
fn a_plain_string_is_a_text_unless_it_is_a_picture_in_itself_or_said_to_be_one() {
    let service = Service::start();
    let uri = format!("data:image/png;base64,{}", png_base64(3));
    let base64 = png_base64(3);
    for text in [
        "https://example.org/cat.png",
        "file:///etc/passwd",
        "data:text/plain,a",
        &base64,
    ] {
        let plain = rows(&service, &json!(text));
        assert_eq!(plain, rows(&service, &json!({ "text": text })), "{text}");
    }
    let image = rows(&service, &json!({ "image": uri }));
    assert_eq!(rows(&service, &json!(uri)), image);
    assert_eq!(rows(&service, &json!(["a", uri]))[1], image[0]);
    let reply = service.post(PATH, &json!({ "input": ["a", "data:image/png;base64,*"] }));
    let kind = "invalid_request_error";
    assert_eq!(refused(&reply, 400, kind, "invalid_field").0, "input[1]");
    // Clients of infinity say what their strings are.
    for (modality, same) in [
        ("image", json!({ "image": uri })),
        ("text", json!({ "text": uri })),
    ] {
        let said = embed(&service, &json!({ "input": [uri], "modality": modality }));
        let said = numbers(&said["data"][0]["embedding"]);
        assert_eq!(said, rows(&service, &same)[0], "{modality}");
    }
    for body in [
        json!({ "input": [{ "image": "https://example.org/cat.png" }] }),
        json!({ "input": ["https://example.org/cat.png"], "modality": "image" }),
    ] {
        let reply = service.post(PATH, &body);
        let (_, message) = refused(&reply, 400, "invalid_request_error", "invalid_field");
        assert!(message.contains("not fetched from URLs"), "{message}");
    }
}

#[test]
fn what_is_wrong_is_said_in_the_shape_of_openai() {
    let service = Service::with(|config| {
        config.limits.items = 3;
        config.limits.text_bytes = 50;
    });
    let long = "a".repeat(51);
    let cases = [
        (json!({ "input": "" }), 400, "invalid_field", json!("input")),
        (json!({ "input": [] }), 400, "invalid_field", json!("input")),
        (
            json!({ "input": ["a", " "] }),
            400,
            "invalid_field",
            json!("input[1]"),
        ),
        (
            json!({ "input": [[1, 2]] }),
            400,
            "invalid_field",
            json!("input[0]"),
        ),
        (json!({ "input": {} }), 400, "invalid_field", json!("input")),
        (
            json!({ "input": [{ "image": "*" }] }),
            400,
            "invalid_field",
            json!("input[0].image"),
        ),
        (
            json!({ "input": "a", "dimensions": 8 }),
            400,
            "invalid_field",
            json!("dimensions"),
        ),
        (
            json!({ "input": "a", "modality": "audio" }),
            400,
            "invalid_field",
            json!("modality"),
        ),
        (
            json!({ "input": "a", "n": 2 }),
            400,
            "invalid_field",
            json!("n"),
        ),
        (
            json!({ "input": ["a", "a", "a", "a"] }),
            413,
            "too_large",
            json!("input"),
        ),
        (
            json!({ "input": ["a", long] }),
            413,
            "too_large",
            json!("input[1]"),
        ),
        (
            json!({ "input": [{ "text": long }] }),
            413,
            "too_large",
            json!("input[0].text"),
        ),
        (
            json!({ "input": ["a", REFUSED] }),
            422,
            "unusable_input",
            json!("input[1]"),
        ),
        (
            json!({ "input": { "image": base64(b"no picture") } }),
            422,
            "undecodable_picture",
            json!("input.image"),
        ),
        (
            json!({ "input": "a", "model": "x" }),
            404,
            "model_not_found",
            Value::Null,
        ),
    ];
    for (body, status, code, field) in cases {
        let reply = service.post(PATH, &body);
        let (param, _) = refused(&reply, status, "invalid_request_error", code);
        assert_eq!(param, field, "{body}");
    }
}

#[test]
fn what_no_input_can_help_is_said_in_the_same_shape() {
    let service = Service::with(|config| config.limits.picture_pixels = 100);
    let broken = service.post(PATH, &json!({ "input": ["a", POISON] }));
    let (_, message) = refused(&broken, 500, "server_error", "internal");
    assert_eq!(message, "encoding failed");
    let kind = "invalid_request_error";
    refused(&service.get(PATH), 405, kind, "method_not_allowed");
    refused(
        &service.send(PATH, &[JSON], b"{"),
        400,
        kind,
        "invalid_json",
    );
    refused(
        &service.send(PATH, &[], b"{}"),
        415,
        kind,
        "unsupported_media_type",
    );
    let foreign = service.send(PATH, &[JSON, ("origin", "https://example.org")], b"{}");
    refused(&foreign, 403, kind, "cross_origin");
    let wide = json!({ "input": [{ "image": base64(&png(1, 11)) }] });
    refused(&service.post(PATH, &wide), 413, kind, "too_large");
}

#[test]
fn a_full_queue_is_429_for_one_input_and_for_a_batch_of_one() {
    let service = Service::with(|config| config.limits.queue_texts = 2);
    service.gate.shut();
    thread::scope(|scope| {
        let embed = |text| {
            let service = &service;
            scope.spawn(move || service.post(PATH, &json!({ "input": text })).status)
        };
        let served = [embed("one"), embed("two")];
        wait_until("the queue is full", || waiting(&service) == "2");
        for input in [
            json!("three"),
            json!(["three"]),
            json!([{ "text": "three" }]),
        ] {
            let reply = service.post(PATH, &json!({ "input": input }));
            refused(&reply, 429, "rate_limit_error", "queue_full");
            assert_eq!(reply.header("retry-after"), "1");
        }
        service.gate.open();
        for thread in served {
            assert_eq!(thread.join().expect("no panic"), 200);
        }
    });
    let many: Vec<_> = (0..9).map(|i| i.to_string()).collect();
    assert_eq!(
        rows(&service, &json!(many)).len(),
        9,
        "more than the queue has room for"
    );
}

#[test]
fn what_would_come_too_late_is_503() {
    let service = Service::with(|config| config.limits.query_deadline_ms = 100);
    service.gate.shut();
    let late = service.post(PATH, &json!({ "input": "a" }));
    refused(&late, 503, "server_error", "deadline_passed");
    assert_eq!(late.header("retry-after"), "1");
    service.gate.open();
}

#[test]
fn the_one_model_is_listed_and_found() {
    let service = Service::start();
    let list = service.get("/v1/models").json();
    assert_eq!(list["object"], "list");
    let all = list["data"].as_array().expect("models");
    assert_eq!(
        (all.len(), &all[0]["id"], &all[0]["object"]),
        (1, &json!("hash-32"), &json!("model"))
    );
    assert!(all[0]["created"].is_u64() && all[0]["owned_by"].is_string());
    assert_eq!(service.get("/v1/models/hash-32").json(), all[0]);
    assert_eq!(service.get("/v1/models/hash%2D32").json(), all[0]);
    let none = service.get("/v1/models/openai%2Fclip");
    let (_, message) = refused(&none, 404, "invalid_request_error", "model_not_found");
    assert!(
        message.contains("\"openai/clip\"") && message.contains("\"hash-32\""),
        "{message}"
    );
    refused(
        &service.put("/v1/models"),
        405,
        "invalid_request_error",
        "method_not_allowed",
    );
}
