//! What is answered to requests that no route can help.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
};

use serde_json::json;

use crate::harness::{POISON, Service, base64, png, png_base64};

const JSON: (&str, &str) = ("content-type", "application/json");

#[test]
fn an_unknown_path_and_a_wrong_method_are_told_apart() {
    let service = Service::with_collection();
    for path in [
        "/nothing",
        "/v1/collections/c/item",
        "/v2/collections",
        "/v1/collections/",
    ] {
        service.get(path).refused(404, "route_not_found");
    }
    let wrong = service.delete("/v1/model");
    wrong.refused(405, "method_not_allowed");
    assert_eq!(wrong.header("allow"), "GET");
    service
        .get("/v1/collections/c/search")
        .refused(405, "method_not_allowed");
    let wrong = service.post("/v1/collections/c", &json!({}));
    wrong.refused(405, "method_not_allowed");
    assert_eq!(wrong.header("allow"), "GET, PUT, DELETE");
}

/// The router reads what is no UTF-8 as U+FFFD: a request about `%FF` was one about the item with the
/// id U+FFFD, and could delete it.
#[test]
fn a_path_that_is_no_text_is_refused() {
    let service = Service::with_collection();
    service.add(&json!({ "id": "\u{fffd}", "text": "a" }));
    for path in ["%ff", "%FF%fe", "%c3", "a%", "a%4", "%zz", "%+1"] {
        let item = format!("/v1/collections/c/items/{path}");
        let refused = service.call("DELETE", &item, &[]);
        assert_eq!(refused.refused(400, "invalid_field"), "path", "{path}");
    }
    assert_eq!(service.count(), 1);
    service
        .get("/v1/collections/%ff")
        .refused(400, "invalid_field");
    let item = "/v1/collections/c/items/%EF%BF%BD";
    assert_eq!(service.get(item).status, 200);
}

/// What serde derives for a struct reads an array as its fields in their order: `["a", "b"]` was an item
/// with the id a and the text b, where a client sent something else than it meant.
#[test]
fn an_array_in_place_of_an_object_is_refused() {
    let service = Service::with_collection();
    let item = json!(["a", "b", null, null, null]);
    let items = "/v1/collections/c/items";
    let search = "/v1/collections/c/search";
    let zero_shot = "/zero-shot-image-classification";
    for (path, body, field) in [
        (items, json!([item]), "items[0]"),
        (
            search,
            json!({ "parts": [["a", null, null, null, 1]] }),
            "parts[0]",
        ),
        (
            search,
            json!({ "text": "a", "group_by": ["by", 1] }),
            "group_by",
        ),
        ("/v1/classify", json!(["a", null, ["b"], null]), "body"),
        (
            "/v1/collections/c/snapshots",
            json!(["monday", true]),
            "body",
        ),
    ] {
        let refused = service.post(path, &body);
        assert_eq!(refused.refused(400, "invalid_field"), field, "{body}");
    }
    for (path, body) in [
        ("/embed", json!(["a", null, null])),
        (
            zero_shot,
            json!({ "inputs": png_base64(1), "parameters": [["a"], null] }),
        ),
    ] {
        assert_eq!(service.post(path, &body).status, 400, "{body}");
    }
    let kind = [("content-type", "application/x-ndjson")];
    let lines = service.send(items, &kind, item.to_string().as_bytes());
    assert_eq!(lines.json()["error"]["code"], "invalid_field");
    assert_eq!(service.count(), 0);
}

/// Some paths took no body for an empty object, and others said that its type was not given.
#[test]
fn no_body_is_an_empty_object_whatever_its_kind() {
    let service = Service::with_collection();
    for headers in [&[][..], &[JSON], &[("content-type", "text/plain")]] {
        for (path, missing) in [
            ("/v1/collections/c/snapshots", "name"),
            ("/v1/collections/c/heads/h/rollback", "version"),
            ("/v1/collections/c/heads/h/apply", "field"),
        ] {
            let reply = service.send(path, headers, b"");
            assert_eq!(reply.refused(400, "invalid_field"), missing, "{path}");
        }
        let reply = service.send("/v1/collections/c/reencode", headers, b"");
        reply.refused(409, "same_model");
    }
}

#[test]
fn a_body_of_another_kind_is_refused_with_what_is_read() {
    let service = Service::with_collection();
    for (path, whole) in [
        ("/v1/collections/c/search", r#"{"text": "a"}"#),
        ("/v1/classify", r#"{"text": "a", "labels": ["b"]}"#),
        ("/v1/collections/c/items", r#"{"text": "a"}"#),
    ] {
        for headers in [&[][..], &[("content-type", "text/plain")]] {
            let reply = service.send(path, headers, b"{}");
            reply.refused(415, "unsupported_media_type");
            assert!(
                reply.text().contains("application/json"),
                "{}",
                reply.text()
            );
        }
        let packed = service.send(path, &[JSON, ("content-encoding", "gzip")], b"{}");
        packed.refused(415, "unsupported_media_type");
        service
            .send(path, &[JSON], b"{\"text\": ")
            .refused(400, "invalid_json");
        assert_eq!(service.send(path, &[JSON], whole.as_bytes()).status, 200);
        service
            .send(path, &[JSON], format!("{whole} {{}}").as_bytes())
            .refused(400, "invalid_json");
    }
    let charset = [("content-type", "Application/JSON; charset=utf-8")];
    let reply = service.send("/v1/collections/c/search", &charset, b"{\"text\": \"a\"}");
    assert_eq!(
        reply.status, 200,
        "parameters of a media type do not matter"
    );
}

#[test]
fn what_is_too_large_is_refused_with_the_limit() {
    let service = Service::with(|config| {
        config.limits.body_bytes = 100_000;
        config.limits.items = 3;
        config.limits.text_bytes = 50;
        config.limits.payload_bytes = 20;
        config.limits.picture_bytes = 2_000;
        config.limits.picture_pixels = 100;
    });
    service.put("/v1/collections/c");
    let items = "/v1/collections/c/items";
    let text = |n: usize| json!({ "text": "a".repeat(n) });
    assert_eq!(service.post(items, &text(50)).status, 200);
    assert_eq!(
        service.post(items, &text(51)).refused(413, "too_large"),
        "text"
    );
    assert_eq!(
        service
            .post(items, &json!([text(1), text(51)]))
            .refused(413, "too_large"),
        "items[1].text"
    );
    let many = json!([text(1), text(2), text(3), text(4)]);
    assert_eq!(
        service.post(items, &many).refused(413, "too_large"),
        "items"
    );
    let payload = json!({ "text": "a", "payload": { "a": "b".repeat(20) } });
    assert_eq!(
        service.post(items, &payload).refused(413, "too_large"),
        "payload"
    );
    let wide = json!({ "image": base64(&png(1, 11)) });
    assert_eq!(
        service.post(items, &wide).refused(413, "too_large"),
        "image"
    );
    let heavy = json!({ "image": base64(&[7; 2_001]) });
    assert_eq!(
        service.post(items, &heavy).refused(413, "too_large"),
        "image"
    );
    assert_eq!(
        service
            .post(items, &json!({ "image": base64(&png(1, 10)) }))
            .status,
        200
    );
    let body = service.post(items, &text(100_000));
    assert_eq!(body.refused(413, "too_large"), "");
    assert!(body.text().contains("100000 bytes"), "{}", body.text());
}

#[test]
fn a_page_of_another_site_changes_nothing() {
    let service = Service::with_collection();
    let path = "/v1/collections/c/items";
    let item = br#"{"text": "a"}"#;
    let foreign = service.send(path, &[JSON, ("origin", "https://example.org")], item);
    foreign.refused(403, "cross_origin");
    let sandboxed = service.send(path, &[JSON, ("origin", "null")], item);
    sandboxed.refused(403, "cross_origin");
    let own = service.url("");
    assert_eq!(
        service.send(path, &[JSON, ("origin", &own)], item).status,
        200
    );
    assert_eq!(
        service
            .get("/healthz")
            .header("access-control-allow-origin"),
        ""
    );
}

/// A page whose name was made to lead to this machine (DNS rebinding) is of the same origin as far
/// as its browser can tell; only the name in Host is not one of this machine.
#[test]
fn a_request_to_a_foreign_name_is_refused_unless_others_may_come() {
    let get = |service: &Service, host: &str| {
        let address = service.url("").replace("http://", "");
        let mut stream = TcpStream::connect(address).expect("connects");
        let head = format!("GET /v1/collections HTTP/1.1\r\n{host}connection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).expect("is sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer
    };
    let service = Service::with_collection();
    for host in [
        "host: evil.example\r\n",
        "host: evil.example:7700\r\n",
        "host: 127.0.0.1.evil.example\r\n",
        "host: localhost.evil.example\r\n",
        "host: localhost\r\nhost: evil.example\r\n",
        "host: \r\n",
        "",
    ] {
        let answer = get(&service, host);
        let refused = answer.starts_with("HTTP/1.1 403") && answer.contains("\"foreign_host\"");
        assert!(
            refused || answer.starts_with("HTTP/1.1 400"),
            "{host}: {answer}"
        );
        assert!(!answer.contains("\"stats\""), "{host}: {answer}");
    }
    for host in ["localhost", "LOCALHOST:80", "127.0.0.1", "[::1]:7700"] {
        let answer = get(&service, &format!("host: {host}\r\n"));
        assert!(answer.starts_with("HTTP/1.1 200"), "{host}: {answer}");
    }
    let open = Service::with(|config| config.insecure = true);
    let answer = get(&open, "host: diptych.example\r\n");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[test]
fn a_tower_that_fails_costs_one_item_and_tells_nothing() {
    let service = Service::with_collection();
    let reply = service.post("/v1/collections/c/items", &json!({ "text": POISON }));
    reply.refused(500, "internal");
    assert_eq!(reply.json()["error"]["message"], "encoding failed");
    let lines = format!("{{\"text\": \"a\"}}\n{{\"text\": \"{POISON}\"}}\n{{\"text\": \"b\"}}\n");
    let kind = [("content-type", "application/x-ndjson")];
    let reply = service.send("/v1/collections/c/items", &kind, lines.as_bytes());
    assert_eq!(
        reply.text().matches("inserted").count(),
        2,
        "{}",
        reply.text()
    );
    assert_eq!(service.get("/readyz").status, 200);
}
