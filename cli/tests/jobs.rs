//! Jobs of the real server, which is killed in the middle of them.

use std::{
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::world::{Serving, World};

mod world;

/// Lines of the import: enough to take seconds.
const LINES: usize = 3_000;
/// So long may a job take on a slow machine.
const MOST: Duration = Duration::from_mins(5);

/// Looks at a job until something is so.
fn until(serving: &Serving, job: &Value, is: impl Fn(&Value) -> bool) -> Value {
    let since = Instant::now();
    loop {
        let now = serving.get(&format!("/v1/jobs/{job}"));
        if is(&now) {
            return now;
        }
        assert!(since.elapsed() < MOST, "{now}");
        thread::sleep(Duration::from_millis(5));
    }
}

fn has_ended(job: &Value) -> bool {
    ["done", "failed", "canceled"]
        .iter()
        .any(|state| job["state"] == *state)
}

#[test]
fn jobs_go_on_after_the_server_was_killed_in_the_middle_of_them() {
    let world = World::new();
    let serve = || Serving::start(&world.path("data"), &["serve", "--port", "0"]);
    let mut serving = serve();
    assert_eq!(serving.ask("PUT", "/v1/collections/c", &json!({})).0, 201);
    let lines: Vec<String> = (0..LINES)
        .map(|i| format!("{{\"id\":\"i{i}\",\"text\":\"a drawing of {i} things\"}}\n"))
        .collect();
    let lines = lines.concat();
    let (status, reply) = serving.send(
        "POST",
        "/v1/collections/c/import",
        ("application/x-ndjson", &lines),
    );
    assert_eq!(status, 202, "{reply}");
    let import = reply["job"].clone();
    for killed in 0..2 {
        let from = u64::try_from(500 * killed).expect("small");
        let now = until(&serving, &import, |job| {
            has_ended(job) || job["done"].as_u64().is_some_and(|done| done > from)
        });
        assert_eq!(now["state"], "running", "killed before its end: {now}");
        // SIGKILL.
        drop(serving);
        serving = serve();
        let after = serving.get(&format!("/v1/jobs/{import}"));
        assert!(
            after["done"].as_u64() >= now["done"].as_u64(),
            "{now}, then {after}"
        );
    }
    let ended = until(&serving, &import, has_ended);
    assert_eq!(
        (&ended["state"], &ended["done"], &ended["failed"]),
        (&json!("done"), &json!(LINES), &json!(0)),
        "{ended}"
    );
    let items = serving.get("/v1/collections/c")["stats"]["items"].clone();
    assert_eq!(items, json!(LINES));

    let examples: Vec<Value> = (0..20)
        .map(|i| json!({ "id": format!("i{i}"), "label": if i < 10 { "few" } else { "some" } }))
        .collect();
    let head = json!({ "examples": examples, "regularization": 0.1 });
    let (status, reply) = serving.ask("PUT", "/v1/collections/c/heads/h", &head);
    assert_eq!(status, 201, "{reply}");
    let field = json!({ "field": "many" });
    let (status, reply) = serving.ask("POST", "/v1/collections/c/heads/h/apply", &field);
    assert_eq!(status, 202, "{reply}");
    let apply = reply["job"].clone();
    until(&serving, &apply, |job| job["state"] != "queued");
    drop(serving);
    serving = serve();
    let ended = until(&serving, &apply, has_ended);
    assert_eq!(
        (&ended["state"], &ended["done"]),
        (&json!("done"), &json!(LINES)),
        "{ended}"
    );
    for i in (0..LINES).step_by(97) {
        let item = serving.get(&format!("/v1/collections/c/items/i{i}"));
        assert!(
            ["few", "some"]
                .iter()
                .any(|l| item["payload"]["many"] == *l),
            "{item}"
        );
    }

    drop(serving);
    let model = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../tests/reference/data/quick_gelu_legacy_eos"
    );
    let another = || {
        let arguments = ["serve", "--port", "0", "--model", model];
        Serving::start(&world.path("data"), &arguments)
    };
    serving = another();
    let (status, reply) = serving.ask("POST", "/v1/collections/c/reencode", &json!({}));
    assert_eq!(status, 202, "{reply}");
    let reencode = reply["job"].clone();
    let now = until(&serving, &reencode, |job| {
        has_ended(job) || job["done"].as_u64().is_some_and(|done| done > 0)
    });
    assert_eq!(now["state"], "running", "killed before its end: {now}");
    drop(serving);
    serving = another();
    let ended = until(&serving, &reencode, has_ended);
    assert_eq!(
        (&ended["state"], &ended["done"], &ended["failed"]),
        (&json!("done"), &json!(LINES), &json!(0)),
        "{ended}"
    );
    for name in ["c", "c-2"] {
        let items = serving.get(&format!("/v1/collections/{name}"))["stats"]["items"].clone();
        assert_eq!(items, json!(LINES), "{name}");
    }
    let query = json!({ "text": "a drawing of 7 things", "target": "text", "k": 1 });
    let (status, found) = serving.ask("POST", "/v1/collections/c/search", &query);
    assert_eq!((status, &found["hits"][0]["id"]), (200, &json!("i7")));
}
