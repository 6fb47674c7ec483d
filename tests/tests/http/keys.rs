//! API keys: who is let in, to what, how often, and what is written down.

use std::{
    path::Path,
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use server::{KeyFile, NewKey, Role, ServerConfig};
use tempfile::TempDir;

use crate::harness::{Reply, Service};

/// A server with keys, and a folder for them.
struct Guarded {
    service: Service,
    file: KeyFile,
    folder: TempDir,
}

impl Guarded {
    fn with(change: impl FnOnce(&mut ServerConfig)) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("keys.json");
        let file = KeyFile::new(path.clone());
        let audit = folder.path().join("audit.jsonl");
        let snapshots = folder.path().join("snapshots");
        let service = Service::with(|config| {
            config.keys = Some(path);
            config.audit = Some(audit);
            config.snapshots = Some(snapshots);
            change(config);
        });
        Self {
            service,
            file,
            folder,
        }
    }

    fn start() -> Self {
        Self::with(|_| {})
    }

    fn key(&self, name: &str, role: Role, collections: Option<&[&str]>) -> String {
        let collections = collections.map(|all| all.iter().map(|name| (*name).into()).collect());
        let name = name.into();
        let new = NewKey {
            name,
            role,
            collections,
        };
        self.file.add(new).expect("is made")
    }

    fn call(&self, method: &str, path: &str, key: &str) -> Reply {
        let bearer = format!("Bearer {key}");
        self.service
            .call(method, path, &[("authorization", &bearer)])
    }

    fn post(&self, path: &str, key: &str, json: &Value) -> Reply {
        let bearer = format!("Bearer {key}");
        let headers = [
            ("content-type", "application/json"),
            ("authorization", &bearer),
        ];
        self.service
            .send(path, &headers, json.to_string().as_bytes())
    }

    /// Waits until the server has noticed what was changed.
    fn wait(&self, status: u16, key: &str) {
        let until = Instant::now() + Duration::from_secs(10);
        while self.call("GET", "/v1/collections", key).status != status {
            assert!(Instant::now() < until, "no {status} in time");
            thread::sleep(Duration::from_millis(50));
        }
    }
}

fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).expect("reads");
    let lines = text.lines();
    lines
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect()
}

#[test]
fn the_first_key_closes_a_running_server_and_the_last_one_does_not_open_it() {
    let guarded = Guarded::start();
    assert_eq!(guarded.service.get("/v1/collections").status, 200);
    let key = guarded.key("a", Role::Read, None);
    guarded.wait(401, "none");
    assert_eq!(guarded.call("GET", "/v1/collections", &key).status, 200);
    guarded.file.remove("a").expect("is there");
    guarded.wait(401, &key);
    thread::sleep(Duration::from_millis(400));
    guarded
        .service
        .get("/v1/collections")
        .refused(401, "unauthorized");
    let again = guarded.key("b", Role::Read, None);
    guarded.wait(200, &again);
}

#[test]
fn each_role_may_do_what_it_is_for_and_no_more() {
    let guarded = Guarded::start();
    assert_eq!(guarded.service.put("/v1/collections/c").status, 201);
    let roles = [Role::Read, Role::Write, Role::Admin];
    let keys = roles.map(|role| guarded.key(role.name(), role, None));
    guarded.wait(401, "none");
    let item = "/v1/collections/c/items/a";
    for (method, path, least) in [
        ("GET", "/v1/collections", Role::Read),
        ("GET", "/v1/collections/c", Role::Read),
        ("GET", "/v1/model", Role::Read),
        ("GET", "/v1/models", Role::Read),
        ("GET", "/metrics", Role::Read),
        ("GET", "/info", Role::Read),
        ("GET", "/v1/collections/c/items", Role::Read),
        ("GET", item, Role::Read),
        ("GET", "/v1/collections/c/items/a/image", Role::Read),
        ("POST", "/v1/collections/c/search", Role::Read),
        ("POST", "/v1/classify", Role::Read),
        ("POST", "/v1/embeddings", Role::Read),
        ("POST", "/embed", Role::Read),
        ("POST", "/zero-shot-image-classification", Role::Read),
        ("POST", "/knn-service", Role::Read),
        ("GET", "/v1/collections/c/heads", Role::Read),
        ("POST", "/v1/collections/c/heads/h/predict", Role::Read),
        ("GET", "/v1/jobs", Role::Read),
        ("PUT", "/v1/collections/c/heads/h", Role::Write),
        ("POST", "/v1/collections/c/heads/h/apply", Role::Write),
        ("POST", "/v1/collections/c/import", Role::Write),
        ("POST", "/v1/collections/c/reencode", Role::Admin),
        ("POST", "/v1/collections/c/items", Role::Write),
        ("PATCH", item, Role::Write),
        ("DELETE", item, Role::Write),
        ("POST", "/v1/collections/c/calibrate", Role::Write),
        ("GET", "/v1/collections/c/snapshots", Role::Admin),
        ("POST", "/v1/collections/c/snapshots", Role::Admin),
        ("GET", "/v1/collections/c/snapshots/s", Role::Admin),
        ("DELETE", "/v1/collections/c/snapshots/s", Role::Admin),
        ("POST", "/v1/collections/c/snapshots/s/restore", Role::Admin),
        ("PUT", "/v1/collections/d", Role::Admin),
        ("DELETE", "/v1/collections/d", Role::Admin),
        ("GET", "/v1/secret", Role::Admin),
    ] {
        let nobody = guarded.service.call(method, path, &[]);
        assert_eq!(nobody.status, 401, "{method} {path}: {}", nobody.text());
        assert_eq!(
            nobody.header("www-authenticate"),
            "Bearer realm=\"diptych\""
        );
        for (role, key) in roles.into_iter().zip(&keys) {
            let status = guarded.call(method, path, key).status;
            let is_refused = status == 401 || status == 403;
            assert_eq!(
                is_refused,
                role < least,
                "{method} {path} as {role:?}: {status}"
            );
        }
    }
    for path in [
        "/",
        "/page/app.js",
        "/page/style.css",
        "/healthz",
        "/readyz",
        "/health",
    ] {
        assert_eq!(guarded.service.get(path).status, 200, "{path}");
    }
}

#[test]
fn a_key_of_one_collection_meets_no_other_on_any_way() {
    let guarded = Guarded::start();
    for name in ["mine", "theirs"] {
        guarded.service.put(&format!("/v1/collections/{name}"));
        let path = format!("/v1/collections/{name}/items");
        let item = json!({ "id": "a", "text": name });
        assert_eq!(guarded.service.post(&path, &item).status, 200);
    }
    let key = guarded.key("one", Role::Admin, Some(&["mine"]));
    guarded.wait(401, "none");
    let list = guarded.call("GET", "/v1/collections", &key).json();
    assert_eq!(
        list["collections"].as_array().map(Vec::len),
        Some(1),
        "{list}"
    );
    for path in [
        "/v1/collections/theirs",
        "/v1/collections/t%68eirs",
        "/v1/collections/theirs/items/a",
        "/v1/collections/theirs/snapshots",
        "/v1/collections/not-there",
    ] {
        guarded.call("GET", path, &key).refused(403, "forbidden");
    }
    assert_eq!(
        guarded
            .call("GET", "/v1/collections/mine/items/a", &key)
            .status,
        200
    );
    guarded
        .call("PUT", "/v1/collections/third", &key)
        .refused(403, "forbidden");
    guarded
        .call("DELETE", "/v1/collections/theirs", &key)
        .refused(403, "forbidden");
    let metrics = guarded.call("GET", "/metrics", &key).text();
    assert!(
        metrics.contains("\"mine\"") && !metrics.contains("\"theirs\""),
        "{metrics}"
    );

    let knn = |name: Option<&str>| {
        let asked =
            json!({ "text": "a", "modality": "text", "num_images": 3, "indice_name": name });
        guarded.post("/knn-service", &key, &asked)
    };
    knn(Some("theirs")).refused(403, "forbidden");
    assert_eq!(knn(Some("mine")).status, 200);
    assert_eq!(knn(None).status, 200, "the only one that the key sees");

    let classify = |name: &str, ids: Option<&[&str]>| {
        let mut asked = json!({ "labels": ["a"], "collection": name });
        match ids {
            Some(ids) => asked["ids"] = json!(ids),
            None => asked["text"] = json!("a"),
        }
        guarded.post("/v1/classify", &key, &asked)
    };
    for ids in [None, Some(&["a"][..])] {
        classify("theirs", ids).refused(403, "forbidden");
        classify("not-there", ids).refused(403, "forbidden");
        assert_eq!(classify("mine", ids).status, 200);
    }

    let snapshots = "/v1/collections/mine/snapshots";
    let made = guarded.post(snapshots, &key, &json!({ "name": "s" }));
    assert_eq!(made.status, 201, "{}", made.text());
    let restore = format!("{snapshots}/s/restore");
    let other = guarded.post(&restore, &key, &json!({ "into": "fourth" }));
    other.refused(403, "forbidden");
}

#[test]
fn a_key_comes_in_either_header_and_a_wrong_one_is_told_in_the_words_of_the_client() {
    let guarded = Guarded::start();
    let key = guarded.key("a", Role::Read, None);
    guarded.wait(401, "none");
    let with = |name: &str, value: &str| {
        guarded
            .service
            .call("GET", "/v1/collections", &[(name, value)])
            .status
    };
    assert_eq!(with("x-api-key", &key), 200);
    assert_eq!(with("authorization", &format!("bearer {key}")), 200);
    assert_eq!(with("authorization", &key), 401);
    assert_eq!(with("x-api-key", &key.to_lowercase()), 401);
    let bearer = format!("Bearer {key}");
    let both = |other: &str| {
        let headers = [("authorization", bearer.as_str()), ("x-api-key", other)];
        guarded.service.call("GET", "/v1/collections", &headers)
    };
    assert_eq!(both(&key).status, 200);
    let differ = both("another");
    differ.refused(401, "unauthorized");
    assert!(differ.text().contains("send one"), "{}", differ.text());
    let openai = guarded.call("GET", "/v1/models", "sk-none");
    let error = &openai.json()["error"];
    assert_eq!(
        (openai.status, &error["type"]),
        (401, &json!("authentication_error"))
    );
}

#[test]
fn what_administrators_do_is_written_down() {
    let guarded = Guarded::start();
    let admin = guarded.key("ops", Role::Admin, None);
    guarded.wait(401, "none");
    let bearer = format!("Bearer {admin}");
    let headers = [
        ("authorization", bearer.as_str()),
        ("x-request-id", "made-c"),
    ];
    assert_eq!(
        guarded
            .service
            .call("PUT", "/v1/collections/c", &headers)
            .status,
        201
    );
    guarded.call("GET", "/v1/collections/c", &admin);
    guarded.post("/v1/collections/c/items", &admin, &json!({ "text": "a" }));
    guarded.call("DELETE", "/v1/collections/nothing", &admin);
    let written = lines(&guarded.folder.path().join("audit.jsonl"));
    assert_eq!(written.len(), 2, "{written:?}");
    let expected = json!({
        "time": written[0]["time"], "key": "ops", "address": "127.0.0.1",
        "action": "PUT /v1/collections/{collection}", "target": "/v1/collections/c",
        "outcome": "201", "request_id": "made-c",
    });
    assert_eq!(written[0], expected);
    assert_eq!(written[1]["outcome"], "404");
}

/// The log had what was done, and nothing of what somebody had tried.
#[test]
fn attempts_at_changes_are_written_down_and_cannot_fill_the_log() {
    let guarded = Guarded::start();
    let reader = guarded.key("reader", Role::Read, None);
    let writer = guarded.key("writer", Role::Write, None);
    guarded.wait(401, "none");
    let call = |method, path, key: &str| {
        let status = guarded.call(method, path, key).status;
        assert!(matches!(status, 401 | 403), "{method} {path}: {status}");
    };
    call("DELETE", "/v1/collections/c", &writer);
    call("DELETE", "/v1/collections/c/items/a", &reader);
    call("POST", "/v1/collections/c/items", "none");
    // These change nothing.
    call("GET", "/v1/collections/c/snapshots", &writer);
    call("POST", "/v1/collections/c/search", "none");
    let file = guarded.folder.path().join("audit.jsonl");
    let written = lines(&file);
    let told: Vec<_> = written
        .iter()
        .map(|line| json!([line["key"], line["action"], line["target"], line["outcome"]]))
        .collect();
    let collection = "/v1/collections/{collection}";
    let expected = [
        json!([
            "writer",
            format!("DELETE {collection}"),
            "/v1/collections/c",
            "403"
        ]),
        json!([
            "reader",
            format!("DELETE {collection}/items/{{id}}"),
            "/v1/collections/c/items/a",
            "403"
        ]),
        json!([
            null,
            format!("POST {collection}/items"),
            "/v1/collections/c/items",
            "401"
        ]),
    ];
    assert_eq!(told, expected);
    for _ in 0..30 {
        call("DELETE", "/v1/collections/c", "none");
    }
    let more = lines(&file).len() - written.len();
    assert!((5..=12).contains(&more), "{more} lines");
}

#[test]
fn who_asks_too_often_is_told_when_to_come_again_and_others_are_not() {
    let guarded = Guarded::with(|config| {
        config.limits.requests_per_s = 1;
        config.limits.request_burst = 5;
    });
    let keys = ["a", "b"].map(|name| guarded.key(name, Role::Read, None));
    thread::sleep(Duration::from_millis(300));
    let statuses: Vec<u16> = (0..8)
        .map(|_| guarded.call("GET", "/v1/collections", &keys[0]).status)
        .collect();
    assert_eq!(statuses[..5], [200; 5]);
    let refused = guarded.call("GET", "/v1/collections", &keys[0]);
    refused.refused(429, "rate_limited");
    assert_eq!(refused.header("retry-after"), "1");
    assert_eq!(guarded.call("GET", "/v1/collections", &keys[1]).status, 200);
    // Whoever has no key is counted by their address, and health is never counted.
    let nobody: Vec<u16> = (0..8)
        .map(|_| guarded.service.get("/v1/model").status)
        .collect();
    assert_eq!((nobody[0], nobody[7]), (401, 429));
    assert_eq!(guarded.service.get("/healthz").status, 200);
    thread::sleep(Duration::from_millis(1_100));
    assert_eq!(guarded.call("GET", "/v1/collections", &keys[0]).status, 200);
}

#[test]
fn with_keys_other_machines_may_reach_the_server_by_the_names_that_it_knows() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = KeyFile::new(folder.path().join("keys.json"));
    let new = NewKey {
        name: "a".into(),
        role: Role::Read,
        collections: None,
    };
    let key = format!("Bearer {}", file.add(new).expect("is made"));
    let service = Service::with(|config| {
        config.bind = ([0, 0, 0, 0], 0).into();
        config.keys = Some(file.path().to_owned());
        config.hosts = vec!["Photos.example".into()];
    });
    let get = |host: &str| {
        let headers = [("host", host), ("authorization", key.as_str())];
        service.call("GET", "/v1/collections", &headers)
    };
    assert_eq!(get("photos.example:7700").status, 200);
    get("evil.example").refused(403, "foreign_host");
}

#[test]
fn pages_of_other_origins_may_ask_only_where_that_is_configured() {
    let origin = "https://app.example.com";
    let preflight = |service: &Service, origin: &str| {
        let headers = [
            ("origin", origin),
            ("access-control-request-method", "POST"),
            (
                "access-control-request-headers",
                "authorization,content-type",
            ),
        ];
        let reply = service.call("OPTIONS", "/v1/collections/c/search", &headers);
        reply.header("access-control-allow-origin").to_owned()
    };
    let closed = Service::with_collection();
    assert_eq!(preflight(&closed, origin), "");
    let open = Service::with(|config| config.cors = vec![origin.into()]);
    open.put("/v1/collections/c");
    assert_eq!(preflight(&open, origin), origin);
    assert_eq!(preflight(&open, "https://evil.example"), "");
    let search = |origin: &str| {
        let headers = [("content-type", "application/json"), ("origin", origin)];
        open.send("/v1/collections/c/search", &headers, br#"{"text": "a"}"#)
    };
    let found = search(origin);
    assert_eq!(
        (found.status, found.header("access-control-allow-origin")),
        (200, origin)
    );
    search("https://evil.example").refused(403, "cross_origin");
}
