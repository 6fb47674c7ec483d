//! Long work: applied heads, imports and new encodings, looked at, given up, and gone on with.

use std::{path::Path, sync::Arc, thread, time::Duration};

use embedding::{Encoder as _, HashEncoder, Modality};
use engine::{Engine, EngineConfig, Item, ItemId};
use serde_json::{Value, json};
use server::ServerConfig;

use crate::harness::{DIM, Service, open_model, spaces};

/// Polls so often for an end.
const TRIES: usize = 600;

fn with_jobs(folder: &Path) -> Service {
    let service = Service::with(|config| config.jobs = Some(folder.to_owned()));
    assert_eq!(service.put("/v1/collections/c").status, 201);
    service
}

fn wait(service: &Service, id: &Value) -> Value {
    for _ in 0..TRIES {
        let job = service.get(&format!("/v1/jobs/{id}")).json();
        if !["queued", "running"].contains(&job["state"].as_str().unwrap_or("")) {
            return job;
        }
        thread::sleep(Duration::from_millis(50));
    }
    panic!("job {id} does not end: {}", service.get("/v1/jobs").text());
}

fn taught(service: &Service, items: usize) {
    let all: Vec<Value> = (0..items)
        .map(|i| json!({ "id": format!("i{i:03}"), "text": format!("text {i}"), "payload": { "n": i } }))
        .collect();
    service.add(&json!(all));
    let examples: Vec<Value> = (0..10)
        .map(|i| json!({ "id": format!("i{i:03}"), "label": if i < 5 { "low" } else { "high" } }))
        .collect();
    let body = json!({ "examples": examples, "regularization": 0.001 });
    assert_eq!(
        service.put_json("/v1/collections/c/heads/h", &body).status,
        201
    );
}

const APPLY: &str = "/v1/collections/c/heads/h/apply";

#[test]
fn a_head_is_applied_to_all_items_and_touches_one_field_only() {
    let service = Service::with_collection();
    taught(&service, 300);
    let reply = service.post(APPLY, &json!({ "field": "kind" }));
    assert_eq!(reply.status, 202, "{}", reply.text());
    let id = reply.json()["job"].clone();
    assert_eq!(reply.header("location"), format!("/v1/jobs/{id}"));
    let job = wait(&service, &id);
    assert_eq!(
        (
            &job["state"],
            &job["kind"],
            &job["done"],
            &job["total"],
            &job["failed"]
        ),
        (
            &json!("done"),
            &json!("apply_head"),
            &json!(300),
            &json!(300),
            &json!(0)
        )
    );
    assert_eq!(job["result"]["labeled"], 300, "{job}");
    assert!(job["started_at"].is_string() && job["ended_at"].is_string());
    let payload = |i: usize| {
        service
            .get(&format!("/v1/collections/c/items/i{i:03}"))
            .json()["payload"]
            .take()
    };
    assert_eq!(payload(2), json!({ "n": 2, "kind": "low" }));
    assert_eq!(payload(7), json!({ "n": 7, "kind": "high" }));
    // What is there already is not written again.
    let before = service.get("/v1/collections/c/items/i002").json()["version"].clone();
    let id = service.post(APPLY, &json!({ "field": "kind" })).json()["job"].clone();
    assert_eq!(wait(&service, &id)["result"]["unchanged"], 300);
    let after = service.get("/v1/collections/c/items/i002").json()["version"].clone();
    assert_eq!(before, after);
    let body = json!({ "field": "other", "min_probability": 1.0 });
    let id = service.post(APPLY, &body).json()["job"].clone();
    let result = wait(&service, &id)["result"].take();
    assert_eq!(
        (&result["labeled"], &result["below_min_probability"]),
        (&json!(0), &json!(300))
    );
    let jobs = service.get("/v1/jobs").json();
    let ids: Vec<&Value> = jobs["jobs"]
        .as_array()
        .expect("jobs")
        .iter()
        .map(|j| &j["id"])
        .collect();
    assert_eq!(ids, [&json!(3), &json!(2), &json!(1)]);
}

#[test]
fn a_filter_chooses_and_a_field_that_takes_no_label_fails_item_by_item() {
    let service = Service::with_collection();
    let fields = json!({ "fields": { "n": "integer" } });
    assert_eq!(service.put_json("/v1/collections/c", &fields).status, 200);
    taught(&service, 20);
    let filter = json!({ "must": [{ "field": "n", "gte": 15 }] });
    let body = json!({ "field": "kind", "filter": filter });
    let id = service.post(APPLY, &body).json()["job"].clone();
    let job = wait(&service, &id);
    assert_eq!(
        (&job["done"], &job["total"]),
        (&json!(5), &Value::Null),
        "{job}"
    );
    let id = service.post(APPLY, &json!({ "field": "n" })).json()["job"].clone();
    let job = wait(&service, &id);
    assert_eq!(
        (&job["state"], &job["failed"]),
        (&json!("done"), &json!(20)),
        "{job}"
    );
    let error = &job["result"]["errors"][0];
    assert_eq!(
        (&error["id"], &error["error"]["field"]),
        (&json!("i000"), &json!("payload.n"))
    );
}

#[test]
fn what_is_wrong_with_a_job_is_named() {
    let service = Service::with_collection();
    service
        .post(APPLY, &json!({ "field": "kind" }))
        .refused(404, "head_not_found");
    taught(&service, 10);
    for (body, field) in [
        (json!({}), "field"),
        (json!({ "field": "" }), "field"),
        (
            json!({ "field": "k", "min_probability": 2 }),
            "min_probability",
        ),
        (
            json!({ "field": "k", "filter": { "must": [{ "field": "n", "gt": 1 }] } }),
            "filter.must[0].field",
        ),
        (json!({ "field": "k", "all": true }), "all"),
    ] {
        let reply = service.post(APPLY, &body);
        assert_eq!(reply.refused(400, "invalid_field"), field, "{body}");
    }
    let reply = service.post(APPLY, &json!({ "field": "k", "version": 9 }));
    reply.refused(404, "head_not_found");
    service.get("/v1/jobs/7").refused(404, "job_not_found");
    service.delete("/v1/jobs/7").refused(404, "job_not_found");
    assert_eq!(
        service.get("/v1/jobs/x").refused(400, "invalid_field"),
        "id"
    );
    let lines = [("content-type", "application/x-ndjson")];
    let reply = service.send("/v1/collections/c/import", &lines, b"{}\n");
    reply.refused(404, "no_jobs_kept");
    let reply = service.post("/v1/collections/c/reencode", &json!({}));
    reply.refused(409, "same_model");
    assert_eq!(service.get("/v1/jobs").json()["jobs"], json!([]));
}

#[test]
fn a_body_is_imported_and_bad_lines_fail_alone() {
    let dir = tempfile::tempdir().expect("a folder");
    let service = with_jobs(dir.path());
    let mut body = String::new();
    for i in 0..200 {
        let line = match i {
            50 => "no json".to_owned(),
            51 => json!({ "id": "twice", "text": "a", "image": "b" }).to_string(),
            _ => json!({ "id": format!("i{i}"), "text": format!("text {i}") }).to_string(),
        };
        body.push_str(&line);
        body.push('\n');
        if i == 100 {
            body.push_str("\n  \n");
        }
    }
    let import = "/v1/collections/c/import";
    let lines = [("content-type", "application/x-ndjson")];
    let reply = service.send(import, &lines, body.trim_end().as_bytes());
    assert_eq!(
        (reply.status, &reply.json()["lines"]),
        (202, &json!(200)),
        "{}",
        reply.text()
    );
    let job = wait(&service, &reply.json()["job"]);
    assert_eq!(
        (&job["state"], &job["done"], &job["total"], &job["failed"]),
        (&json!("done"), &json!(200), &json!(200), &json!(2)),
        "{job}"
    );
    assert_eq!(job["result"]["inserted"], 198);
    let errors = &job["result"]["errors"];
    assert_eq!(
        (&errors[0]["line"], &errors[1]["line"]),
        (&json!(51), &json!(52))
    );
    assert_eq!(errors[0]["error"]["code"], "invalid_json");
    assert_eq!(service.count(), 198);
    let left = || fs_entries(dir.path());
    for _ in 0..100 {
        if left() == 0 {
            break;
        }
        thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(left(), 0, "the body is removed");
    let reply = service.send(import, &lines, b"\n \n");
    assert_eq!(reply.refused(400, "invalid_field"), "body");
    let reply = service.send(import, &[("content-type", "text/csv")], b"a");
    reply.refused(415, "unsupported_media_type");
    assert_eq!(left(), 0, "nothing is left of what was refused");
}

fn fs_entries(dir: &Path) -> usize {
    std::fs::read_dir(dir).expect("lists").count()
}

#[test]
fn all_bodies_together_are_bounded() {
    let dir = tempfile::tempdir().expect("a folder");
    let service = Service::with(|config| {
        config.jobs = Some(dir.path().to_owned());
        config.limits.import_bytes = 1000;
    });
    assert_eq!(service.put("/v1/collections/c").status, 201);
    let lines = [("content-type", "application/x-ndjson")];
    let reply = service.send("/v1/collections/c/import", &lines, &[b'a'; 1001]);
    reply.refused(413, "too_large");
    assert_eq!(fs_entries(dir.path()), 0);
}

#[test]
fn a_job_is_given_up_while_it_runs_and_while_it_waits() {
    let dir = tempfile::tempdir().expect("a folder");
    let service = with_jobs(dir.path());
    service.gate.shut();
    let lines: Vec<String> = (0..500)
        .map(|i| format!("{{\"text\": \"text {i}\"}}\n"))
        .collect();
    let body = lines.concat();
    let send = || {
        let lines = [("content-type", "application/x-ndjson")];
        service
            .send("/v1/collections/c/import", &lines, body.as_bytes())
            .json()["job"]
            .clone()
    };
    let (first, second) = (send(), send());
    for _ in 0..TRIES {
        if service.get(&format!("/v1/jobs/{first}")).json()["state"] == "running" {
            break;
        }
        thread::sleep(Duration::from_millis(10));
    }
    // One at a time for a collection.
    assert_eq!(
        service.get(&format!("/v1/jobs/{second}")).json()["state"],
        "queued"
    );
    let reply = service.delete(&format!("/v1/jobs/{second}"));
    assert_eq!(
        (reply.status, &reply.json()["state"]),
        (200, &json!("canceled"))
    );
    let reply = service.delete(&format!("/v1/jobs/{first}")).json();
    assert_eq!(
        (&reply["state"], &reply["canceling"]),
        (&json!("running"), &json!(true))
    );
    service.gate.open();
    let job = wait(&service, &first);
    assert_eq!(job["state"], "canceled");
    assert!(service.count() < 500, "it did not go on to its end");
    let again = service.delete(&format!("/v1/jobs/{first}"));
    assert_eq!(
        (again.status, &again.json()["state"]),
        (200, &json!("canceled"))
    );
}

#[test]
fn a_job_goes_on_after_a_restart_where_it_was() {
    let dir = tempfile::tempdir().expect("a folder");
    let engine = Arc::new(Engine::in_memory(EngineConfig::default()));
    engine.create("c", &spaces()).expect("makes");
    let lines: Vec<String> = (0..50)
        .map(|i| format!("{{\"id\": \"i{i}\", \"text\": \"{i}\"}}\n"))
        .collect();
    let text = lines.concat();
    std::fs::write(dir.path().join("1-0.ndjson"), &text).expect("writes");
    // As if a server had been killed after twenty lines of it.
    let spec = json!({ "file": "1-0.ndjson" });
    let job = engine
        .add_job(engine::JobKind::Import, "c", Some(50), spec)
        .expect("adds");
    let offset = text.match_indices('\n').nth(19).expect("twenty lines").0 + 1;
    engine
        .change_job(job.id, |job| {
            job.state = engine::JobState::Running;
            job.done = 20;
            job.checkpoint =
                json!({ "offset": offset, "line": 20, "inserted": 20, "updated": 0, "named": [] });
        })
        .expect("writes");
    let config = ServerConfig {
        bind: ([127, 0, 0, 1], 0).into(),
        jobs: Some(dir.path().to_owned()),
        ..ServerConfig::default()
    };
    let running = server::start(config, Arc::clone(&engine), open_model()).expect("starts");
    for _ in 0..TRIES {
        let job = engine.job(job.id).expect("reads").expect("is there");
        if job.state.has_ended() {
            assert_eq!((job.done, job.failed), (50, 0));
            assert_eq!(job.result.map(|r| r["inserted"].clone()), Some(json!(50)));
            let items = engine.collection("c").expect("is there").stats().items;
            assert_eq!(items, 30, "the lines before were not worked on again");
            return running.stop().expect("stops");
        }
        thread::sleep(Duration::from_millis(50));
    }
    panic!("the job does not end");
}

/// Items of a model that is not served: those with words can be encoded again, the others not.
fn of_another_model(service: &Service, without_words: bool) {
    let mut other = spaces();
    other.fingerprint.0[0] ^= 1;
    let old = service.engine.create("old", &other).expect("makes");
    let encoder = HashEncoder::new(Modality::Text, DIM);
    let items = (0..40).map(|i| {
        let words = format!("other {i}");
        let shared = encoder
            .encode(&[words.as_str()])
            .expect("encodes")
            .remove(0)
            .shared;
        let mut item = Item::new(
            ItemId::new(format!("i{i:02}")).expect("an id"),
            Modality::Text,
            shared,
        );
        item.text = (i > 0 || !without_words).then(|| format!("text {i}"));
        item.payload.insert("n".into(), json!(i));
        item
    });
    let mut items: Vec<Item> = items.collect();
    if spaces().specific(Modality::Text).is_some() {
        let encoded = encoder.encode(&["x"]).expect("encodes").remove(0);
        for item in &mut items {
            item.specific.clone_from(&encoded.specific);
        }
    }
    old.upsert(items).expect("keeps");
}

#[test]
fn a_collection_is_encoded_again_and_the_names_are_swapped() {
    let service = Service::start();
    of_another_model(&service, false);
    let search = json!({ "text": "text 7", "target": "text", "k": 1 });
    service
        .post("/v1/collections/old/search", &search)
        .refused(409, "another_model");
    let reply = service.post("/v1/collections/old/reencode", &json!({}));
    assert_eq!(
        (reply.status, &reply.json()["beside"]),
        (202, &json!("old-2")),
        "{}",
        reply.text()
    );
    let job = wait(&service, &reply.json()["job"]);
    assert_eq!(
        (&job["state"], &job["done"]),
        (&json!("done"), &json!(40)),
        "{job}"
    );
    let found = service.post("/v1/collections/old/search", &search).json();
    assert_eq!(
        (&found["hits"][0]["id"], &found["hits"][0]["payload"]),
        (&json!("i07"), &json!({ "n": 7 }))
    );
    let before = service.get("/v1/collections/old-2").json();
    assert_eq!(before["stats"]["items"], 40);
    service
        .post("/v1/collections/old-2/search", &search)
        .refused(409, "another_model");
    service
        .post("/v1/collections/old/reencode", &json!({}))
        .refused(409, "same_model");
    let item = json!({ "id": "new", "text": "new" });
    assert_eq!(
        service.post("/v1/collections/old/items", &item).status,
        200,
        "it takes writes"
    );
}

#[test]
fn items_whose_source_is_gone_prevent_the_swap_unless_allowed() {
    let service = Service::start();
    of_another_model(&service, true);
    let again = |body: &Value| {
        let reply = service.post("/v1/collections/old/reencode", body);
        wait(&service, &reply.json()["job"])
    };
    let job = again(&json!({}));
    assert_eq!(
        (&job["state"], &job["failed"]),
        (&json!("failed"), &json!(1)),
        "{job}"
    );
    assert_eq!(job["result"]["errors"][0]["id"], "i00");
    assert!(
        job["error"]
            .as_str()
            .is_some_and(|e| e.contains("allow_missing")),
        "{job}"
    );
    service
        .post("/v1/collections/old/search", &json!({ "text": "a" }))
        .refused(409, "another_model");
    let job = again(&json!({ "allow_missing": true }));
    assert_eq!(
        (&job["state"], &job["result"]["missing"]),
        (&json!("done"), &json!(1)),
        "{job}"
    );
    assert_eq!(job["result"]["beside"], "old-3");
    let now = service.get("/v1/collections/old").json();
    assert_eq!(now["stats"]["items"], 39);
}
