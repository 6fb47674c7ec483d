//! Items: added as JSON, as a form and as a stream; listed, read and deleted. Over 400 lines: all of it is about one
//! resource and shares its paths.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::harness::{REFUSED, Service, ids, png, png_base64};

const ITEMS: &str = "/v1/collections/c/items";

#[test]
fn one_object_and_an_array_of_one_get_the_same_answer() {
    let service = Service::with_collection();
    let shape = |mut reply: Value| {
        assert!(reply["took_ms"].take().is_number());
        let item = reply["items"][0].as_object_mut().expect("an item");
        assert!(item.remove("version").is_some_and(|v| v.is_u64()));
        reply
    };
    let item = json!({ "id": "a", "text": "a cat", "payload": { "n": 1 } });
    let one = shape(service.post(ITEMS, &item).json());
    assert_eq!(one["items"], json!([{ "id": "a", "status": "inserted" }]));
    assert_eq!(one["durability"], "flushed");
    service.delete(&format!("{ITEMS}/a"));
    assert_eq!(shape(service.post(ITEMS, &json!([item])).json()), one);
    let again = service.post(ITEMS, &item).json();
    assert_eq!(again["items"][0]["status"], "updated");
}

#[test]
fn an_item_is_read_back_with_its_embeddings_and_deleted_for_good() {
    let service = Service::with_collection();
    let id = "folder/a b\u{e9}.png";
    service.add(&json!({ "id": id, "image": png_base64(1), "payload": { "n": [1, null] } }));
    let path = format!("{ITEMS}/folder%2Fa%20b%C3%A9.png");
    let item = service.get(&path).json();
    assert_eq!(
        item,
        json!({ "id": id, "version": 1, "modality": "image", "payload": { "n": [1, null] } })
    );
    let rows = service.get(&format!("{path}?embeddings=true")).json();
    assert_eq!(
        rows["embeddings"]["shared"].as_array().map(Vec::len),
        Some(32)
    );
    assert_eq!(
        service.get(&format!("{path}?embedding=1")).status,
        400,
        "an unknown word"
    );
    assert_eq!(service.delete(&path).status, 204);
    service.get(&path).refused(404, "item_not_found");
    service.delete(&path).refused(404, "item_not_found");
    assert_eq!(
        ids(&service.search(&json!({ "image": png_base64(1) }))),
        [""; 0]
    );
}

#[test]
fn items_are_listed_a_page_at_a_time_and_by_a_filter() {
    let service = Service::start();
    let fields = json!({ "fields": { "kind": "keyword" } });
    assert_eq!(service.put_json("/v1/collections/c", &fields).status, 201);
    let items = (0..25).map(|i| {
        let kind = if i % 2 == 0 { "even" } else { "odd" };
        json!({ "id": format!("{i:02}"), "text": format!("number {i}"), "payload": { "kind": kind } })
    });
    service.add(&Value::from(items.collect::<Vec<_>>()));
    service.add(&json!({ "id": "picture", "image": png_base64(1) }));

    let page = service.get(&format!("{ITEMS}?limit=10")).json();
    let listed = |page: &Value| -> Vec<String> {
        let items = page["items"].as_array().expect("items");
        let id = |item: &Value| item["id"].as_str().expect("an id").to_owned();
        items.iter().map(id).collect()
    };
    let expected = |numbers: &mut dyn Iterator<Item = usize>| -> Vec<String> {
        numbers.map(|i| format!("{i:02}")).collect()
    };
    assert_eq!(listed(&page), expected(&mut (0..10)));
    assert_eq!(page["next"], "09");
    assert_eq!(
        page["items"][3],
        json!({ "id": "03", "version": page["items"][3]["version"], "modality": "text",
            "payload": { "kind": "odd" }, "text": "number 3" })
    );
    let rest = service.get(&format!("{ITEMS}?after=09")).json();
    let mut all = expected(&mut (10..25));
    all.push("picture".to_owned());
    assert_eq!((listed(&rest), &rest["next"]), (all, &Value::Null));
    let pictures = service.get(&format!("{ITEMS}?modality=image")).json();
    assert_eq!(listed(&pictures), ["picture"]);
    let filter = "%7B%22must%22%3A%5B%7B%22field%22%3A%22kind%22%2C%22eq%22%3A%22odd%22%7D%5D%7D";
    let odd = service.get(&format!("{ITEMS}?filter={filter}")).json();
    assert_eq!(listed(&odd), expected(&mut (1..25).step_by(2)));

    for (asked, field) in [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("filter=red", "filter"),
        (
            "filter=%7B%22must%22%3A%5B%7B%22field%22%3A%22size%22%2C%22eq%22%3A1%7D%5D%7D",
            "filter.must[0].field",
        ),
        ("after=", "after"),
        ("modality=sound", "query string"),
    ] {
        let refused = service.get(&format!("{ITEMS}?{asked}"));
        assert_eq!(refused.status, 400, "{asked}");
        assert_eq!(refused.json()["error"]["field"], field, "{asked}");
    }
    let absent = service.get("/v1/collections/absent/items");
    absent.refused(404, "collection_not_found");
}

#[test]
fn content_without_an_id_is_kept_once() {
    let service = Service::with_collection();
    let items = json!([{ "text": "a cat" }, { "image": png_base64(1) }, { "text": "a dog" }]);
    let first = service.add(&items);
    assert_eq!(service.add(&items), first);
    assert_eq!(service.count(), 3);
}

#[test]
fn a_batch_is_kept_whole_or_not_at_all_and_the_bad_item_is_named() {
    let service = Service::with_collection();
    let good = json!({ "text": "a cat" });
    let batch = |bad: Value| service.post(ITEMS, &json!([good, good, bad]));
    let broken = base64_of("\u{89}PNG\r\n\x1a\n broken");
    assert_eq!(
        batch(json!({ "image": broken })).refused(422, "undecodable_picture"),
        "items[2].image"
    );
    assert_eq!(
        batch(json!({ "text": REFUSED })).refused(422, "unusable_input"),
        "items[2].text"
    );
    assert_eq!(
        batch(json!({ "image": "**" })).refused(400, "invalid_field"),
        "items[2].image"
    );
    assert_eq!(
        batch(json!({ "txt": "a" })).refused(400, "invalid_field"),
        "items[2].txt"
    );
    assert_eq!(
        batch(json!({ "id": "" , "text": "a" })).refused(400, "invalid_field"),
        "items[2].id"
    );
    assert_eq!(
        batch(json!({})).refused(400, "invalid_field"),
        "items[2].text"
    );
    let both = json!({ "text": "a", "image": png_base64(1) });
    assert_eq!(batch(both).refused(400, "invalid_field"), "items[2].image");
    assert_eq!(
        service
            .post(ITEMS, &json!([]))
            .refused(400, "invalid_field"),
        "items"
    );
    assert_eq!(
        service
            .post(ITEMS, &json!({ "text": " " }))
            .refused(400, "invalid_field"),
        "text"
    );
    assert_eq!(service.count(), 0);
}

#[test]
fn a_batch_larger_than_the_window_keeps_its_order() {
    let service = Service::with_collection();
    let items: Vec<_> = (0..150)
        .map(|i| json!({ "id": format!("{i}"), "text": format!("text {i}") }))
        .collect();
    let ids = service.add(&json!(items));
    assert_eq!(ids, (0..150).map(|i| i.to_string()).collect::<Vec<_>>());
    for i in [0, 31, 32, 149] {
        let found = service.search(&json!({ "text": format!("text {i}"), "target": "text" }));
        assert_eq!(found["hits"][0]["id"], json!(i.to_string()));
        assert!(
            found["hits"][0]["score"]
                .as_f64()
                .is_some_and(|s| s > 0.9999)
        );
    }
}

#[test]
fn files_of_a_form_become_pictures_with_their_names() {
    let service = Service::with_collection();
    let mut form = Vec::new();
    let mut part = |head: &str, body: &[u8]| {
        form.extend_from_slice(
            format!("--xyz\r\nContent-Disposition: form-data; {head}").as_bytes(),
        );
        form.extend_from_slice(b"\r\n\r\n");
        form.extend_from_slice(body);
        form.extend_from_slice(b"\r\n");
    };
    part(
        "name=\"file\"; filename=\"C:\\\\photos\\\\cat.png\"",
        &png(1, 4),
    );
    part("name=\"id\"", b"dog");
    part("name=\"payload\"", b"{\"color\": \"brown\"}");
    part("name=\"file\"; filename=\"dog.png\"", &png(2, 4));
    form.extend_from_slice(b"--xyz--\r\n");
    let kind = [("content-type", "multipart/form-data; boundary=xyz")];
    let reply = service.send(ITEMS, &kind, &form);
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(
        reply.json()["items"][1],
        json!({ "id": "dog", "status": "inserted", "version": 2 })
    );
    let dog = service.get(&format!("{ITEMS}/dog")).json();
    assert_eq!(
        dog["payload"],
        json!({ "color": "brown", "name": "dog.png" })
    );
    let found = service.search(&json!({ "image": png_base64(1) }));
    assert_eq!(found["hits"][0]["payload"], json!({ "name": "cat.png" }));

    let text = b"--xyz\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.txt\"\r\n\r\nhi\r\n--xyz--\r\n";
    let reply = service.send(ITEMS, &kind, text);
    assert_eq!(reply.refused(422, "undecodable_picture"), "items[0].image");
    service
        .send(ITEMS, &kind, b"--xyz\r\nbroken")
        .refused(400, "invalid_form");
}

/// An id or a payload that followed its file, as it easily does in a hand-written form, was once
/// dropped without a word.
#[test]
fn a_field_without_a_file_after_it_is_refused_by_name() {
    let service = Service::with_collection();
    let picture = png(1, 4);
    let file = ("name=\"file\"; filename=\"cat.png\"", picture.as_slice());
    let (id, payload) = ("name=\"id\"", "name=\"payload\"");
    let cases = [
        (vec![file, (id, b"late")], "id"),
        (vec![file, (payload, b"{}")], "payload"),
        (vec![(id, b"a"), (id, b"b"), file], "id"),
    ];
    for (parts, name) in cases {
        let mut form = Vec::new();
        for (head, body) in parts {
            form.extend_from_slice(b"--xyz\r\nContent-Disposition: form-data; ");
            form.extend_from_slice(&[head.as_bytes(), b"\r\n\r\n", body, b"\r\n"].concat());
        }
        form.extend_from_slice(b"--xyz--\r\n");
        let kind = [("content-type", "multipart/form-data; boundary=xyz")];
        let reply = service.send(ITEMS, &kind, &form);
        assert_eq!(reply.refused(400, "invalid_field"), name);
        assert!(reply.text().contains("before"), "{}", reply.text());
    }
    assert_eq!(service.count(), 0);
}

#[test]
fn a_bad_line_of_a_stream_fails_alone() {
    let service = Service::with_collection();
    let lines = [
        json!({ "id": "a", "text": "a cat" }).to_string(),
        "{ broken".to_owned(),
        String::new(),
        json!({ "id": "b", "image": png_base64(3) }).to_string(),
        json!({ "id": "c", "image": "AAAA" }).to_string(),
        json!({ "id": "d", "text": REFUSED }).to_string(),
        json!({ "id": "e", "text": "a dog" }).to_string(),
    ];
    let kind = [("content-type", "application/x-ndjson")];
    let reply = service.send(ITEMS, &kind, lines.join("\n").as_bytes());
    assert_eq!(
        (reply.status, reply.header("content-type")),
        (200, "application/x-ndjson")
    );
    let results: Vec<Value> = reply
        .text()
        .lines()
        .map(|l| serde_json::from_str(l).expect("JSON"))
        .collect();
    let brief: Vec<_> = results
        .iter()
        .map(|r| {
            (
                r["line"].as_u64(),
                r["status"].as_str().or(r["error"]["code"].as_str()),
            )
        })
        .collect();
    let expected = [
        (Some(1), Some("inserted")),
        (Some(2), Some("invalid_json")),
        (Some(4), Some("inserted")),
        (Some(5), Some("undecodable_picture")),
        (Some(6), Some("unusable_input")),
        (Some(7), Some("inserted")),
    ];
    assert_eq!(brief, expected);
    assert_eq!(service.count(), 3);
}

#[test]
fn a_long_stream_is_kept_whole_and_a_line_that_is_too_long_is_skipped() {
    let service = Service::with(|config| config.limits.body_bytes = 4096);
    service.put("/v1/collections/c");
    let mut lines: Vec<_> = (0..3000)
        .map(|i| json!({ "text": format!("text {i}") }).to_string())
        .collect();
    lines.insert(1000, json!({ "text": "a".repeat(9000) }).to_string());
    let body = lines.join("\r\n") + "\n";
    let reply = service.send(
        ITEMS,
        &[("content-type", "application/x-ndjson")],
        body.as_bytes(),
    );
    let text = reply.text();
    assert_eq!(text.lines().count(), 3001);
    let long: Value = serde_json::from_str(text.lines().nth(1000).expect("a line")).expect("JSON");
    assert_eq!(
        (&long["line"], &long["error"]["code"]),
        (&json!(1001), &json!("too_large"))
    );
    let last: Value = serde_json::from_str(text.lines().last().expect("a line")).expect("JSON");
    assert_eq!(last["line"], 3001);
    assert_eq!(service.count(), 3000);
}

#[test]
fn a_stream_is_answered_while_more_comes_in() {
    let service = Service::with_collection();
    let address = service.url("").replace("http://", "");
    let mut stream = TcpStream::connect(&address).expect("connects");
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .expect("is set");
    let head = format!(
        "POST {ITEMS} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/x-ndjson\r\n\
         transfer-encoding: chunked\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).expect("is sent");
    let mut answers = BufReader::new(stream.try_clone().expect("a second handle")).lines();
    for i in 1..4 {
        let line = format!("{{\"text\": \"text {i}\"}}\n");
        write!(stream, "{:x}\r\n{line}\r\n", line.len()).expect("is sent");
        let number = format!("\"line\":{i}");
        let answered = answers
            .by_ref()
            .map(|l| l.expect("an answer"))
            .any(|l| l.contains(&number));
        assert!(answered, "line {i} is answered before the next is sent");
    }
    stream.write_all(b"0\r\n\r\n").expect("is sent");
    assert!(
        answers.map(|l| l.expect("the end")).any(|l| l == "0"),
        "the answer ends"
    );
}

/// A client that sends all before it reads once hung for ever: the server waited until its results
/// were read, the client until its lines were.
#[test]
fn a_client_that_reads_nothing_until_it_has_sent_all_gets_an_end() {
    // Far more than results may wait and than the sockets hold. Lines are refused before any
    // encoding, with answers that repeat them.
    const LINES: usize = 20_000;
    let service = Service::with(|config| {
        config.limits.batch = 1;
        config.limits.body_pause_ms = 2_000;
    });
    service.put("/v1/collections/c");
    let address = service.url("").replace("http://", "");
    let mut stream = TcpStream::connect(&address).expect("connects");
    let patience = Some(Duration::from_secs(30));
    stream.set_write_timeout(patience).expect("is set");
    stream.set_read_timeout(patience).expect("is set");
    let line = format!("{{\"{}\": 1}}\n", "x".repeat(2_000));
    let head = format!(
        "POST {ITEMS} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/x-ndjson\r\n\
         connection: close\r\ncontent-length: {}\r\n\r\n",
        LINES * line.len()
    );
    stream.write_all(head.as_bytes()).expect("is sent");
    for _ in 0..LINES {
        stream.write_all(line.as_bytes()).expect("all is taken");
    }
    let mut answer = String::new();
    BufReader::new(stream)
        .read_to_string(&mut answer)
        .expect("the answer ends");
    let results = answer.matches("\"line\":").count();
    assert!((1_000..LINES).contains(&results), "{results} results");
    assert!(answer.contains("\"results_unread\""), "the end is told");
}

/// Lines that had arrived when the rest of a body turned out to be broken were once thrown away.
#[test]
fn what_arrived_before_a_stream_broke_is_kept() {
    let service = Service::with_collection();
    let address = service.url("").replace("http://", "");
    let mut stream = TcpStream::connect(&address).expect("connects");
    let line = "{\"id\": \"a\", \"text\": \"a\"}\n";
    let request = format!(
        "POST {ITEMS} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/x-ndjson\r\n\
         transfer-encoding: chunked\r\n\r\n{:x}\r\n{line}\r\nno length\r\n",
        line.len()
    );
    stream.write_all(request.as_bytes()).expect("is sent");
    // The connection is closed at once, with or without an answer; the item must be there.
    let begin = Instant::now();
    while service.count() != 1 {
        assert!(begin.elapsed() < Duration::from_secs(10), "it was lost");
        thread::sleep(Duration::from_millis(20));
    }
}

fn base64_of(text: &str) -> String {
    crate::harness::base64(text.as_bytes())
}
