//! Versions, conditions, changes of payloads, and how durable a write is.

use serde_json::{Value, json};

use crate::harness::{Service, ids, png};

const ITEMS: &str = "/v1/collections/c/items";

fn version(service: &Service, name: &str) -> u64 {
    let item = service.get(&format!("{ITEMS}/{name}")).json();
    item["version"].as_u64().expect("a version")
}

#[test]
fn an_item_shows_its_version_wherever_it_comes_back() {
    let service = Service::with_collection();
    let reply = service
        .post(ITEMS, &json!({ "id": "a", "text": "a cat" }))
        .json();
    let first = reply["items"][0]["version"].as_u64().expect("a version");
    assert!(first > 0);
    assert_eq!(version(&service, "a"), first);
    let found = service.search(&json!({ "text": "a cat", "target": "text" }));
    assert_eq!(found["hits"][0]["version"], first);
    service.add(&json!({ "id": "a", "text": "a cat" }));
    assert!(version(&service, "a") > first);
}

#[test]
fn a_batch_whose_condition_does_not_hold_is_refused_whole_and_the_item_is_named() {
    let service = Service::with_collection();
    service.add(&json!({ "id": "a", "text": "a cat", "if_version": 0 }));
    let known = version(&service, "a");
    let batch = json!([
        { "id": "b", "text": "a dog" },
        { "id": "a", "text": "a cow", "if_version": known + 1 },
    ]);
    let reply = service.post(ITEMS, &batch);
    assert_eq!(
        reply.refused(409, "version_conflict"),
        "items[1].if_version"
    );
    assert_eq!(reply.json()["error"]["found"], known);
    assert!(
        reply.text().contains("item a of collection c"),
        "{}",
        reply.text()
    );
    assert_eq!((service.count(), version(&service, "a")), (1, known));
    let reply = service.post(
        ITEMS,
        &json!({ "id": "a", "text": "a cow", "if_version": 0 }),
    );
    assert_eq!(reply.refused(409, "version_conflict"), "if_version");
    let reply = service.post(
        ITEMS,
        &json!({ "id": "x", "text": "a cow", "if_version": 7 }),
    );
    assert_eq!(reply.refused(409, "version_conflict"), "if_version");
    assert_eq!(reply.json()["error"]["found"], Value::Null);
    let reply = service.post(ITEMS, &json!({ "id": "a", "text": "a", "if_version": -1 }));
    assert_eq!(reply.refused(400, "invalid_field"), "if_version");
    service.add(&json!({ "id": "a", "text": "a cow", "if_version": known }));
    assert!(version(&service, "a") > known);
}

#[test]
fn a_line_of_a_stream_whose_condition_does_not_hold_fails_alone() {
    let service = Service::with_collection();
    let lines = [
        json!({ "id": "a", "text": "a cat", "if_version": 0 }),
        json!({ "id": "a", "text": "a dog", "if_version": 0 }),
        json!({ "id": "b", "text": "a cow", "if_version": 5 }),
        json!({ "id": "c", "text": "a hen" }),
    ];
    let lines: Vec<String> = lines.iter().map(Value::to_string).collect();
    let kind = [("content-type", "application/x-ndjson")];
    let path = format!("{ITEMS}?durability=buffered");
    let reply = service.send(&path, &kind, lines.join("\n").as_bytes());
    let told: Vec<Value> = reply
        .text()
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    let brief: Vec<_> = told
        .iter()
        .map(|line| {
            let code = line["error"]["code"].as_str();
            line["status"].as_str().or(code)
        })
        .collect();
    let conflict = Some("version_conflict");
    assert_eq!(
        brief,
        [Some("inserted"), conflict, conflict, Some("inserted")]
    );
    assert_eq!(told[0]["durability"], "buffered");
    assert_eq!(told[1]["error"]["found"], told[0]["version"]);
    assert_eq!(service.count(), 2);
    let item = service.get(&format!("{ITEMS}/a")).json();
    assert_eq!(
        (&item["text"], &item["version"]),
        (&json!("a cat"), &told[0]["version"])
    );
}

#[test]
fn a_file_of_a_form_may_have_a_condition() {
    let service = Service::with_collection();
    let mut form = Vec::new();
    for (head, body) in [
        ("name=\"id\"", b"a".as_slice()),
        ("name=\"if_version\"", b"0"),
        ("name=\"file\"; filename=\"cat.png\"", &png(1, 4)),
    ] {
        form.extend_from_slice(b"--xyz\r\nContent-Disposition: form-data; ");
        form.extend_from_slice(&[head.as_bytes(), b"\r\n\r\n", body, b"\r\n"].concat());
    }
    form.extend_from_slice(b"--xyz--\r\n");
    let kind = [("content-type", "multipart/form-data; boundary=xyz")];
    assert_eq!(service.send(ITEMS, &kind, &form).status, 200);
    let again = service.send(ITEMS, &kind, &form);
    assert_eq!(
        again.refused(409, "version_conflict"),
        "items[0].if_version"
    );
}

#[test]
fn a_patch_changes_the_payload_and_nothing_else_and_filters_see_it_at_once() {
    let service = Service::start();
    let fields = json!({ "fields": { "n": "integer" } });
    let created = service.put_json("/v1/collections/c", &fields);
    assert_eq!(created.status, 201, "{}", created.text());
    let payload = json!({ "n": 1, "deep": { "a": 1, "b": 2 }, "old": true });
    service.add(&json!({ "id": "a", "text": "a cat", "payload": payload }));
    let path = format!("{ITEMS}/a");
    let rows = service.get(&format!("{path}?embeddings=true")).json()["embeddings"].take();
    let patch = json!({ "payload": { "n": 2, "deep": { "b": null }, "old": null } });
    let reply = service.patch(&path, &patch);
    assert_eq!(reply.status, 200, "{}", reply.text());
    let told = reply.json();
    let known = version(&service, "a");
    let expected =
        json!({ "id": "a", "status": "updated", "version": known, "durability": "flushed" });
    assert_eq!(told, expected);
    let now = service.get(&format!("{path}?embeddings=true")).json();
    assert_eq!(now["payload"], json!({ "n": 2, "deep": { "a": 1 } }));
    assert_eq!((&now["text"], &now["embeddings"]), (&json!("a cat"), &rows));
    let with = |n: i64| {
        let filter = json!({ "must": [{ "field": "n", "eq": n }] });
        service.search(&json!({ "text": "a cat", "target": "text", "filter": filter }))
    };
    assert_eq!((ids(&with(2)), ids(&with(1))), (vec!["a"], vec![]));

    let refused = |patch: &Value, status, code| service.patch(&path, patch).refused(status, code);
    let old = json!({ "payload": { "n": 3 }, "if_version": known - 1 });
    assert_eq!(refused(&old, 409, "version_conflict"), "if_version");
    let wrong = json!({ "payload": { "n": "three" } });
    assert_eq!(refused(&wrong, 400, "invalid_field"), "payload.n");
    let large = json!({ "payload": { "long": "x".repeat(70_000) } });
    assert_eq!(refused(&large, 413, "too_large"), "payload");
    assert_eq!(
        refused(&json!({ "payload": 1 }), 400, "invalid_field"),
        "payload"
    );
    assert_eq!(refused(&json!({}), 400, "invalid_field"), "payload");
    assert_eq!(
        refused(&json!({ "text": "a" }), 400, "invalid_field"),
        "text"
    );
    let nobody = service.patch(&format!("{ITEMS}/x"), &json!({ "payload": {} }));
    nobody.refused(404, "item_not_found");
    assert_eq!(version(&service, "a"), known);
    let new = json!({ "payload": { "n": 3 }, "if_version": known });
    let reply = service.patch(&format!("{path}?durability=buffered"), &new);
    assert_eq!(reply.json()["durability"], "buffered");
    assert_eq!(ids(&with(3)), ["a"]);
}

#[test]
fn a_delete_may_have_a_condition_and_says_how_durable_it_is() {
    let service = Service::with_collection();
    service.add(&json!([{ "id": "a", "text": "a cat" }, { "id": "b", "text": "a dog" }]));
    let (a, b) = (version(&service, "a"), version(&service, "b"));
    let reply = service.delete(&format!("{ITEMS}/a?if_version={b}"));
    assert_eq!(reply.refused(409, "version_conflict"), "if_version");
    assert_eq!(reply.json()["error"]["found"], a);
    let reply = service.delete(&format!("{ITEMS}/a?if_version={a}"));
    assert_eq!(
        (reply.status, reply.header("x-durability")),
        (204, "flushed")
    );
    let reply = service.delete(&format!("{ITEMS}/b?durability=buffered"));
    assert_eq!(
        (reply.status, reply.header("x-durability")),
        (204, "buffered")
    );
    service
        .get(&format!("{ITEMS}/b"))
        .refused(404, "item_not_found");
    let word = service.delete(&format!("{ITEMS}/b?durability=soon"));
    assert_eq!(word.refused(400, "invalid_field"), "query string");
}

#[test]
fn the_answer_says_how_durable_items_are_which_is_flushed_by_default() {
    let service = Service::with_collection();
    let item = json!({ "id": "a", "text": "a cat" });
    let told = |path: &str| service.post(path, &item).json()["durability"].take();
    assert_eq!(told(ITEMS), "flushed");
    assert_eq!(told(&format!("{ITEMS}?durability=buffered")), "buffered");
    assert_eq!(told(&format!("{ITEMS}?durability=flushed")), "flushed");
}
