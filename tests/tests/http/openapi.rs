//! The description of the server, and whether it tells the truth.

use std::{collections::BTreeSet, fs, path::Path};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::{Reply, Service, base64, png};

/// Texts, and as many pictures, of the collection `demo`: enough to calibrate by itself.
const GALLERY: usize = 210;

/// What `diptych demo` has, in small, and what the examples need of a collection `mine`.
struct World {
    service: Service,
    _data: TempDir,
}

impl World {
    fn new() -> Self {
        let data = TempDir::new().expect("a folder");
        let service = Service::with(|config| {
            config.thumbnails = Some(data.path().join("thumbnails"));
            config.snapshots = Some(data.path().join("snapshots"));
            config.jobs = Some(data.path().join("jobs"));
        });
        assert_eq!(service.put("/v1/collections/demo").status, 201);
        let items = (0..GALLERY).flat_map(|i| {
            let id = format!("{:x}", 0x1f34e + i);
            let name = if i == 0 {
                "red apple".to_owned()
            } else {
                format!("drawing {i}")
            };
            let payload = json!({ "name": name });
            let picture = base64(&png(i as u8, 2));
            [
                json!({ "id": format!("{id}-name"), "text": name, "payload": payload }),
                json!({ "id": id, "image": picture, "payload": payload }),
            ]
        });
        let items: Vec<Value> = items.collect();
        let added = service.post("/v1/collections/demo/items", &json!(items));
        assert_eq!(added.status, 200, "{}", added.text());
        Self {
            service,
            _data: data,
        }
    }

    /// As it is after the examples that make `mine`, and before all that change it.
    fn reset(&self) {
        let service = &self.service;
        for collection in ["mine", "mine-again"] {
            service.delete(&format!("/v1/collections/{collection}"));
        }
        service.put("/v1/collections/mine");
        let item = json!({ "id": "a", "text": "a red bicycle", "payload": { "by": "me" } });
        service.post("/v1/collections/mine/items", &item);
        for name in ["tuesday", "monday"] {
            service.delete(&format!("/v1/collections/mine/snapshots/{name}"));
        }
    }

    /// A snapshot `monday`, for the routes that name one.
    fn with_snapshot(&self) {
        let made = self.service.post(
            "/v1/collections/mine/snapshots",
            &json!({ "name": "monday" }),
        );
        assert_eq!(made.status, 201, "{}", made.text());
    }

    /// A head `kinds` with a first version, for the routes that name one.
    fn with_head(&self) {
        let heads = "/v1/collections/mine/heads/kinds";
        self.service.delete(heads);
        let made = self
            .service
            .put_json(heads, &json!({ "labels": ["a cat", "a dog"] }));
        assert_eq!(made.status, 201, "{}", made.text());
    }

    /// The first job, for the routes that name one: it goes on, or has ended.
    fn with_job(&self) {
        let line = b"{\"text\": \"a jug\"}\n";
        let kind = Some("application/x-ndjson");
        let import = "/v1/collections/mine/import";
        let begun = self.service.request("POST", import, kind, line);
        assert_eq!(begun.status, 202, "{}", begun.text());
        assert_eq!(begun.json()["job"], 1);
    }
}

/// What a head is sent as. It has no example, which would say nothing to anybody.
const FILE: &str = "application/octet-stream";

fn description(service: &Service) -> Value {
    let reply = service.get("/openapi.json");
    assert_eq!(reply.header("content-type"), "application/json");
    reply.json()
}

/// All operations with their methods and paths.
fn operations(description: &Value) -> Vec<(String, String, Value)> {
    let paths = description["paths"].as_object().expect("paths");
    let of_path = |(path, methods): (&String, &Value)| {
        let methods = methods.as_object().expect("methods").clone();
        let path = path.clone();
        let one = move |(method, operation): (String, Value)| {
            (method.to_uppercase(), path.clone(), operation)
        };
        methods.into_iter().map(one).collect::<Vec<_>>()
    };
    paths.iter().flat_map(of_path).collect()
}

#[test]
fn the_copy_in_docs_is_what_the_server_says() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/openapi.json");
    let copy = fs::read(&file).unwrap_or_default();
    let copy: Option<Value> = serde_json::from_slice(&copy).ok();
    let said: Value = serde_json::from_str(server::openapi_json()).expect("JSON");
    assert!(
        copy.as_ref() == Some(&said),
        "docs/openapi.json is not what the server says: look at the difference, and write it again \
         with\n\n    cargo run -- openapi > docs/openapi.json\n"
    );
    assert_eq!(description(&Service::start()), said);
}

#[test]
fn every_example_works_when_it_is_sent_as_it_is() {
    let world = World::new();
    world.reset();
    world.with_job();
    let description = description(&world.service);
    let mut sent = 0;
    for (method, path, operation) in operations(&description) {
        let at = with_examples(&path, &operation, &world.service);
        let bodies = bodies(&operation);
        let named = format!("{method} {path}");
        let needs_body = operation["requestBody"]["required"] == true;
        assert!(!(needs_body && bodies.is_empty()), "{named} has no example");
        let without = (None, Vec::new());
        for (kind, body) in bodies.into_iter().chain((!needs_body).then_some(without)) {
            world.reset();
            if path.contains("{snapshot}") {
                world.with_snapshot();
            }
            if path.contains("{head}") {
                world.with_head();
            }
            let body = if kind.as_deref() == Some(FILE) {
                world.service.get(&at.replace("/import", "/export")).body
            } else {
                body
            };
            let reply = world.service.request(&method, &at, kind.as_deref(), &body);
            let said = format!(
                "{named} {}: {}",
                String::from_utf8_lossy(&body),
                reply.text()
            );
            if path.ends_with("/reencode") {
                // There is no second model here: it says so.
                reply.refused(409, "same_model");
            } else {
                assert!((200..300).contains(&reply.status), "{said}");
            }
            check(&description, &operation, &reply, &said);
            sent += 1;
        }
    }
    assert!(sent > 45, "{sent} examples");
}

/// The path with the examples of its parameters.
fn with_examples(path: &str, operation: &Value, service: &Service) -> String {
    let parameters = operation["parameters"].as_array();
    let mut at = path.to_owned();
    for parameter in parameters.into_iter().flatten() {
        if parameter["in"] == "path" {
            let name = parameter["name"].as_str().expect("a name");
            let example = match &parameter["example"] {
                Value::String(text) => text.clone(),
                Value::Number(number) => number.to_string(),
                other => panic!("{path} has the example {other} for {name}"),
            };
            // The demo runs another model than these tests.
            let example = match name {
                "model" => service.get("/v1/models").json()["data"][0]["id"]
                    .as_str()
                    .expect("a model")
                    .to_owned(),
                _ => example,
            };
            at = at.replace(&format!("{{{name}}}"), &example);
        }
    }
    assert!(!at.contains('{'), "{at}");
    at
}

/// The example bodies of an operation with their content types.
fn bodies(operation: &Value) -> Vec<(Option<String>, Vec<u8>)> {
    let content = operation["requestBody"]["content"].as_object();
    let of_kind = |(kind, content): (&String, &Value)| {
        if kind == FILE {
            return vec![(Some(kind.clone()), Vec::new())];
        }
        let examples = content["examples"].as_object().cloned().unwrap_or_default();
        let kind = kind.clone();
        let body = move |(_, example): (String, Value)| {
            let value = &example["value"];
            let body = match value.as_str() {
                Some(text) if kind != "application/json" => text.to_owned(),
                _ => value.to_string(),
            };
            (Some(kind.clone()), body.into_bytes())
        };
        examples.into_iter().map(body).collect::<Vec<_>>()
    };
    content.into_iter().flatten().flat_map(of_kind).collect()
}

/// Checks that an answer is as documented: its status, its content type, and every field in it.
fn check(description: &Value, operation: &Value, reply: &Reply, said: &str) {
    let documented = &operation["responses"][reply.status.to_string()];
    assert!(documented.is_object(), "{said}: an undocumented status");
    let Some(content) = documented["content"].as_object() else {
        assert!(reply.body.is_empty(), "{said}: an undocumented body");
        return;
    };
    let kind = reply.header("content-type");
    let found = content.get(kind);
    let found = found.unwrap_or_else(|| panic!("{said}: undocumented content type {kind:?}"));
    if kind == "application/json" {
        let mut odd = BTreeSet::new();
        undocumented(description, &found["schema"], &reply.json(), "", &mut odd);
        assert!(odd.is_empty(), "{said}: undocumented {odd:?}");
    }
}

/// Collects the fields of a value of which the schema knows nothing.
fn undocumented(all: &Value, schema: &Value, value: &Value, at: &str, odd: &mut BTreeSet<String>) {
    if let Some(to) = schema["$ref"].as_str() {
        let schema = all.pointer(to.trim_start_matches('#')).expect("a schema");
        return undocumented(all, schema, value, at, odd);
    }
    for any in [&schema["oneOf"], &schema["anyOf"]] {
        let Some(any) = any.as_array() else { continue };
        let known = any.iter().any(|schema| {
            let mut odd = BTreeSet::new();
            undocumented(all, schema, value, at, &mut odd);
            odd.is_empty()
        });
        if !known {
            odd.insert(at.to_owned());
        }
        return;
    }
    if let Some(parts) = schema["allOf"].as_array() {
        // What one of the parts knows is known.
        let of_part = |part: &Value| {
            let mut odd = BTreeSet::new();
            undocumented(all, part, value, at, &mut odd);
            odd
        };
        let unknown = parts.iter().map(of_part).reduce(|a, b| &a & &b);
        return odd.extend(unknown.unwrap_or_default());
    }
    match value {
        Value::Object(fields) => {
            let rest = &schema["additionalProperties"];
            for (name, value) in fields {
                let at = format!("{at}.{name}");
                match schema["properties"].get(name) {
                    Some(schema) => undocumented(all, schema, value, &at, odd),
                    None if rest.is_object() => undocumented(all, rest, value, &at, odd),
                    None if rest == true || schema["properties"].is_null() => {}
                    None => {
                        odd.insert(at);
                    }
                }
            }
        }
        Value::Array(items) => {
            for item in items {
                undocumented(all, &schema["items"], item, &format!("{at}[]"), odd);
            }
        }
        _ => {}
    }
}

#[test]
fn a_field_that_is_not_documented_is_found() {
    let all = json!({ "schemas": { "A": { "properties": { "b": { "type": "string" } } } } });
    let schema = json!({ "items": { "$ref": "#/schemas/A" } });
    let mut odd = BTreeSet::new();
    undocumented(&all, &schema, &json!([{ "b": "", "c": 1 }]), "", &mut odd);
    assert_eq!(odd, BTreeSet::from(["[].c".to_owned()]));
}

#[test]
fn the_page_of_the_description_loads_nothing_from_elsewhere() {
    let service = Service::start();
    let page = service.get("/docs");
    assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
    let policy = page.header("content-security-policy");
    assert!(policy.starts_with("default-src 'none'; script-src 'self'"));
    for elsewhere in ["http://", "https://", "<script>", "style="] {
        assert!(!page.text().contains(elsewhere), "{elsewhere}");
    }
    let page = page.text();
    let files: Vec<&str> = page
        .split('"')
        .filter(|text| text.starts_with("/docs/"))
        .collect();
    assert_eq!(files.len(), 4);
    for file in files {
        let reply = service.get(file);
        assert_eq!(reply.status, 200, "{file}");
        let is_style = Path::new(file)
            .extension()
            .is_some_and(|kind| kind == "css");
        let kind = if is_style {
            "text/css"
        } else {
            "text/javascript"
        };
        assert!(reply.header("content-type").starts_with(kind), "{file}");
        if file.contains("swagger-ui") {
            assert_eq!(reply.header("content-encoding"), "gzip");
            assert_eq!(reply.body[..3], [0x1f, 0x8b, 8], "{file}");
        }
    }
    service.get("/docs/nothing").refused(404, "route_not_found");
}
