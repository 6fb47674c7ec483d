//! Pictures by address: off, and where hosts are allowed.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::TcpListener,
    thread,
};

use serde_json::{Value, json};
use server::ServerConfig;

use crate::harness::{Service, ids, png, png_base64};

const ITEMS: &str = "/v1/collections/c/items";

/// A site on the loopback address with a picture at `/RED.png`, a text at `/text.png`, and a way to
/// elsewhere at `/away`.
fn site() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
    let port = listener.local_addr().expect("an address").port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a client");
            let mut lines = BufReader::new(stream.try_clone().expect("clones")).lines();
            let first = lines.next().and_then(Result::ok).unwrap_or_default();
            while lines
                .next()
                .and_then(Result::ok)
                .is_some_and(|line| !line.is_empty())
            {}
            let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
            let red = path.trim_matches('/').trim_end_matches(".png").parse();
            let (head, body) = match (path.as_str(), red) {
                ("/away", _) => ("302 Found\r\nlocation: http://169.254.169.254/", Vec::new()),
                ("/text.png", _) => ("200 OK\r\ncontent-type: image/png", b"<html>".to_vec()),
                // What a server says of a picture does not matter.
                (_, Ok(red)) => ("200 OK\r\ncontent-type: text/html", png(red, 4)),
                _ => ("404 Not Found", Vec::new()),
            };
            let length = body.len();
            let head =
                format!("HTTP/1.1 {head}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
            // A client that has gone is no failure here.
            let _ = stream
                .write_all(head.as_bytes())
                .and_then(|()| stream.write_all(&body));
        }
    });
    port
}

fn service(port: u16, change: impl FnOnce(&mut ServerConfig)) -> Service {
    let service = Service::with(|config| {
        config.urls.allow = vec!["127.0.0.1".into()];
        config.urls.allow_private = vec!["127.0.0.0/8".parse().expect("a network")];
        config.urls.ports = vec![port];
        change(config);
    });
    assert_eq!(service.put("/v1/collections/c").status, 201);
    service
}

#[test]
fn an_item_by_its_address_is_the_item_by_its_bytes() {
    let port = site();
    let service = service(port, |_| {});
    let url = |red: u8| format!("http://127.0.0.1:{port}/{red}.png");
    let sent = service.add(&json!({ "image": png_base64(7) }));
    let fetched =
        service.add(&json!([{ "image_url": url(7) }, { "id": "b", "image_url": url(200) }]));
    assert_eq!(
        fetched,
        [sent[0].as_str(), "b"],
        "the id is that of the content"
    );
    assert_eq!(service.count(), 2);
    let lines = format!(
        "{}\n{}\n{}\n",
        json!({ "id": "x", "image_url": url(9) }),
        json!({ "id": "y", "image_url": format!("http://127.0.0.1:{port}/none") }),
        json!({ "id": "z", "image": png_base64(8) }),
    );
    let reply = service.send(
        ITEMS,
        &[("content-type", "application/x-ndjson")],
        lines.as_bytes(),
    );
    let results: Vec<Value> = reply
        .text()
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(results[0]["status"], "inserted", "{results:?}");
    assert_eq!(results[1]["error"]["code"], "not_fetched", "{results:?}");
    assert_eq!(results[2]["status"], "inserted", "{results:?}");
}

#[test]
fn a_query_may_be_an_address_wherever_it_may_be_a_picture() {
    let port = site();
    let service = service(port, |_| {});
    let url = format!("http://127.0.0.1:{port}/7.png");
    service.add(
        &json!([{ "id": "a", "image": png_base64(7) }, { "id": "b", "image": png_base64(200) }]),
    );
    let found = service.search(&json!({ "image_url": url, "k": 1 }));
    assert_eq!(ids(&found), ["a"]);
    let parts = json!({ "parts": [{ "image_url": url }, { "text": "x", "weight": 0.1 }], "k": 1 });
    assert_eq!(
        service.search(&parts)["hits"].as_array().map(Vec::len),
        Some(1)
    );
    for (path, body) in [
        (
            "/v1/classify",
            json!({ "image_url": url, "labels": ["a", "b"] }),
        ),
        (
            "/v1/embeddings",
            json!({ "input": [{ "image": url }, "words"] }),
        ),
        (
            "/v1/embeddings",
            json!({ "input": url, "modality": "image" }),
        ),
        (
            "/zero-shot-image-classification",
            json!({ "inputs": url, "parameters": { "candidate_labels": ["a", "b"] } }),
        ),
        (
            "/knn-service",
            json!({ "image_url": url, "modality": "image", "num_images": 1 }),
        ),
    ] {
        let reply = service.post(path, &body);
        assert_eq!(reply.status, 200, "{path}: {}", reply.text());
    }
}

#[test]
fn what_is_not_fetched_is_told_without_a_word_about_the_network() {
    let port = site();
    let service = service(port, |config| config.limits.picture_bytes = 5_000);
    let add = |url: &str| service.post(ITEMS, &json!([{ "image_url": url }]));
    let at = format!("http://127.0.0.1:{port}");
    for url in [
        "http://10.0.0.1/a.png".to_owned(),
        "http://localhost/a.png".to_owned(),
        format!("http://127.0.0.1@10.0.0.1:{port}/7.png"),
        format!("{at}/away"),
        format!("{at}/none"),
        "ftp://127.0.0.1/a.png".to_owned(),
        "a.png".to_owned(),
        "http://127.0.0.1:1/a.png".to_owned(),
    ] {
        let reply = add(&url);
        assert_eq!(
            reply.refused(422, "not_fetched"),
            "items[0].image_url",
            "{url}"
        );
        assert!(!reply.text().contains("os error"), "{}", reply.text());
    }
    let text = add(&format!("{at}/text.png"));
    text.refused(422, "undecodable_picture");
    let both = service.post(ITEMS, &json!({ "image_url": at, "image": png_base64(1) }));
    assert_eq!(both.refused(400, "invalid_field"), "image_url");
    let closed = Service::with_collection();
    let off = closed.post(ITEMS, &json!({ "image_url": format!("{at}/7.png") }));
    assert_eq!(off.refused(400, "invalid_field"), "image_url");
    // In a field of bytes, or of words, an address is none.
    let typed = service.post(ITEMS, &json!({ "image": format!("{at}/7.png") }));
    assert_eq!(typed.refused(400, "invalid_field"), "image");
}
