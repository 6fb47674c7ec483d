//! Snapshots over HTTP: made while others write, sent, restored, removed.

use std::fs;

use serde_json::{Value, json};
use server::ServerConfig;

use crate::harness::Service;

const OF_C: &str = "/v1/collections/c/snapshots";

/// A server that keeps snapshots, with three items in `c`.
fn start(dir: &tempfile::TempDir) -> Service {
    let root = dir.path().join("snapshots");
    let service = Service::with(|config: &mut ServerConfig| config.snapshots = Some(root));
    assert_eq!(service.put("/v1/collections/c").status, 201);
    service.add(&json!([
        { "id": "a", "text": "a red bicycle", "payload": { "n": 1 } },
        { "id": "b", "text": "a blue boat" },
        { "id": "d", "text": "a green door" },
    ]));
    service
}

fn names(list: &Value) -> Vec<&str> {
    let list = list["snapshots"].as_array().expect("a list");
    list.iter()
        .map(|one| one["name"].as_str().expect("a name"))
        .collect()
}

#[test]
fn a_snapshot_is_made_listed_restored_after_its_collection_and_removed() {
    let dir = tempfile::tempdir().expect("a folder");
    let service = start(&dir);
    assert_eq!(service.get(OF_C).json(), json!({ "snapshots": [] }));
    let made = service.post(OF_C, &json!({ "name": "monday" }));
    assert_eq!(made.status, 201, "{}", made.text());
    let made = made.json();
    assert_eq!(
        (&made["name"], &made["items"]),
        (&json!("monday"), &json!(3))
    );
    assert_eq!(service.delete("/v1/collections/c/items/a").status, 204);
    let again = service.post(OF_C, &json!({ "name": "monday" }));
    again.refused(409, "snapshot_exists");
    let tuesday = service.post(OF_C, &json!({ "name": "2026-11-27" }));
    assert_eq!(tuesday.json()["items"], 2);
    assert_eq!(names(&service.get(OF_C).json()), ["2026-11-27", "monday"]);

    assert_eq!(service.delete("/v1/collections/c").status, 204);
    assert_eq!(
        names(&service.get(OF_C).json()),
        ["2026-11-27", "monday"],
        "they stay"
    );
    let restore = format!("{OF_C}/monday/restore");
    let restored = service.post(&restore, &json!({ "into": "c" }));
    assert_eq!(restored.status, 201, "{}", restored.text());
    assert_eq!(restored.json()["stats"]["items"], 3);
    let item = service.get("/v1/collections/c/items/a").json();
    assert_eq!(item["payload"], json!({ "n": 1 }));
    let hits = service.search(&json!({ "text": "a red bicycle", "target": "text", "k": 1 }));
    assert_eq!(hits["hits"][0]["id"], "a");
    let taken = service.post(&restore, &json!({ "into": "c" }));
    taken.refused(409, "collection_exists");
    let bad = service.post(&restore, &json!({ "into": "../c" }));
    assert_eq!(bad.refused(400, "invalid_field"), "into");

    assert_eq!(service.delete(&format!("{OF_C}/monday")).status, 204);
    let gone = service.delete(&format!("{OF_C}/monday"));
    gone.refused(404, "snapshot_not_found");
    service
        .post(&restore, &json!({ "into": "e" }))
        .refused(404, "snapshot_not_found");
    let left = service.post(
        &format!("{OF_C}/2026-11-27/restore"),
        &json!({ "into": "e" }),
    );
    assert_eq!(left.json()["stats"]["items"], 2, "what they shared stays");
}

#[test]
fn a_snapshot_is_sent_as_a_tar_and_a_damaged_one_breaks_off() {
    let dir = tempfile::tempdir().expect("a folder");
    let service = start(&dir);
    assert_eq!(service.post(OF_C, &json!({ "name": "s" })).status, 201);
    let sent = service.get(&format!("{OF_C}/s"));
    assert_eq!(sent.status, 200);
    assert_eq!(sent.header("content-type"), "application/x-tar");
    assert!(sent.header("content-disposition").contains("c-s.tar"));
    let tar = dir.path().join("sent.tar");
    fs::write(&tar, &sent.body).expect("written");
    let told = |_| std::ops::ControlFlow::Continue(());
    let info = engine::verify_snapshot(&tar, &told).expect("is good");
    assert_eq!(info.items, 3);

    let chunks = dir.path().join("snapshots/c/s/chunks");
    let chunk = fs::read_dir(chunks)
        .expect("lists")
        .next()
        .expect("one")
        .expect("reads");
    let mut bytes = fs::read(chunk.path()).expect("read");
    bytes[20] ^= 1;
    fs::write(chunk.path(), bytes).expect("written");
    assert!(service.breaks_off(&format!("{OF_C}/s")));
    let restored = service.post(&format!("{OF_C}/s/restore"), &json!({ "into": "e" }));
    restored.refused(422, "damaged_snapshot");
    let said = restored.text();
    assert!(
        !said.contains(&*dir.path().to_string_lossy()),
        "no path: {said}"
    );
    service
        .get("/v1/collections/e")
        .refused(404, "collection_not_found");
}

#[test]
fn heads_come_back_with_their_collection_and_a_damaged_one_is_named() {
    let dir = tempfile::tempdir().expect("a folder");
    let service = start(&dir);
    let head = "/v1/collections/c/heads/kind";
    let made = service.put_json(head, &json!({ "labels": ["bicycle", "boat"] }));
    assert_eq!(made.status, 201, "{}", made.text());
    let examples = json!([{ "label": "bicycle", "id": "a" }, { "label": "boat", "id": "b" }]);
    let made = service.put_json(head, &json!({ "examples": examples }));
    assert_eq!(made.status, 200, "{}", made.text());
    let back = service.post(&format!("{head}/rollback"), &json!({ "version": 1 }));
    assert_eq!(back.status, 200);
    let made = service.post(OF_C, &json!({ "name": "s" })).json();
    assert_eq!(
        (&made["heads"], &made["skipped_heads"]),
        (&json!(1), &json!([]))
    );
    let ask = json!({ "ids": ["a", "b"], "version": 2 });
    let expected = service.post(&format!("{head}/predict"), &ask).json();
    let list = service.get("/v1/collections/c/heads").json();

    let restored = service.post(&format!("{OF_C}/s/restore"), &json!({ "into": "e" }));
    assert_eq!(restored.status, 201, "{}", restored.text());
    assert_eq!(service.get("/v1/collections/e/heads").json(), list);
    let again = service.post("/v1/collections/e/heads/kind/predict", &ask);
    assert_eq!(again.json()["predictions"], expected["predictions"]);
    let tar = dir.path().join("sent.tar");
    fs::write(&tar, &service.get(&format!("{OF_C}/s")).body).expect("written");
    let told = |_| std::ops::ControlFlow::Continue(());
    let info = engine::verify_snapshot(&tar, &told).expect("is good");
    assert_eq!(info.heads, 1);

    let files = dir.path().join("snapshots/c/s/heads");
    let file = fs::read_dir(files).expect("lists").next();
    let file = file.expect("one").expect("reads").path();
    let mut bytes = fs::read(&file).expect("read");
    bytes[20] ^= 1;
    fs::write(&file, bytes).expect("written");
    assert!(service.breaks_off(&format!("{OF_C}/s")));
    let refused = service.post(&format!("{OF_C}/s/restore"), &json!({ "into": "f" }));
    refused.refused(422, "damaged_snapshot");
    let said = refused.text();
    assert!(said.contains("head \\\"kind\\\", version"), "{said}");
    service
        .get("/v1/collections/f")
        .refused(404, "collection_not_found");
}

#[test]
fn a_request_cannot_name_a_path_or_what_is_not_there() {
    let dir = tempfile::tempdir().expect("a folder");
    let service = start(&dir);
    for name in ["", "..", "a/b", "/etc", "A", "a.tar"] {
        let refused = service.post(OF_C, &json!({ "name": name }));
        assert_eq!(refused.refused(400, "invalid_field"), "name", "{name:?}");
    }
    for name in ["..", "%2e%2e", "a%2fb", "nothing"] {
        let refused = service.get(&format!("{OF_C}/{name}"));
        assert_eq!(refused.status, 404, "{name}: {}", refused.text());
    }
    service
        .get("/v1/collections/none/snapshots")
        .refused(404, "collection_not_found");
    service
        .get("/v1/collections/..%2fc/snapshots")
        .refused(404, "collection_not_found");
    let none = service.post("/v1/collections/none/snapshots", &json!({ "name": "s" }));
    none.refused(404, "collection_not_found");
    let bare = Service::with_collection();
    bare.get(OF_C).refused(404, "no_snapshots_kept");
}
