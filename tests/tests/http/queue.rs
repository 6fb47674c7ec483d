//! The bounded queue, and what happens when the model is slow.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    num::NonZeroUsize,
    thread,
    time::{Duration, Instant},
};

use serde_json::json;

use crate::harness::{HELD, Service, ids, png_base64};

pub fn wait_until(what: &str, is: impl Fn() -> bool) {
    let started = Instant::now();
    while !is() {
        assert!(
            started.elapsed() < Duration::from_secs(20),
            "waited in vain: {what}"
        );
        thread::sleep(Duration::from_millis(10));
    }
}

pub fn waiting(service: &Service) -> String {
    waiting_for(service, "text")
}

fn waiting_for(service: &Service, tower: &str) -> String {
    metric(
        service,
        &format!("diptych_queue_inputs{{tower=\"{tower}\"}}"),
    )
}

fn metric(service: &Service, series: &str) -> String {
    let text = service.get("/metrics").text();
    let start = format!("{series} ");
    let line = text.lines().find(|l| l.starts_with(&start));
    line.and_then(|l| l.split(' ').next_back())
        .unwrap_or_default()
        .to_owned()
}

fn small() -> Service {
    let service = Service::with(|config| {
        config.limits.queue_texts = 2;
        config.limits.stuck_ms = 100;
    });
    service.put("/v1/collections/c");
    service
}

#[test]
fn a_full_queue_is_answered_with_429_and_those_who_wait_are_served() {
    let service = small();
    service.gate.shut();
    thread::scope(|scope| {
        let search = |text| {
            let service = &service;
            scope.spawn(move || {
                service
                    .post("/v1/collections/c/search", &json!({ "text": text }))
                    .status
            })
        };
        let served = [search("one"), search("two")];
        wait_until("the queue is full", || waiting(&service) == "2");
        let refused = service.post("/v1/collections/c/search", &json!({ "text": "three" }));
        refused.refused(429, "queue_full");
        assert_eq!(refused.header("retry-after"), "1");
        let batch = service.post("/v1/collections/c/items", &json!([{ "text": "three" }]));
        batch.refused(429, "queue_full");
        let labels = json!({ "text": "a", "labels": ["b"] });
        service
            .post("/v1/classify", &labels)
            .refused(429, "queue_full");
        assert_eq!(
            service.get("/v1/collections").status,
            200,
            "what needs no model is served"
        );
        service.gate.open();
        for thread in served {
            assert_eq!(thread.join().expect("no panic"), 200);
        }
    });
    assert_eq!(waiting(&service), "0");
    let batch: Vec<_> = (0..9).map(|i| json!({ "text": i.to_string() })).collect();
    assert_eq!(
        service.add(&json!(batch)).len(),
        9,
        "a batch larger than the queue passes through"
    );
}

#[test]
fn a_crowd_of_searches_that_stays_is_answered_with_429_until_it_is_gone() {
    let service = Service::with(|config| config.limits.searches_per_core = 1);
    service.put("/v1/collections/c");
    service.gate.shut();
    let ask = || service.post("/v1/collections/c/search", &json!({ "text": "a" }));
    let cores = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    thread::scope(|scope| {
        let begun: Vec<_> = (0..=cores).map(|_| scope.spawn(ask)).collect();
        let all = (cores + 1).to_string();
        wait_until("a burst begins", || waiting(&service) == all);
        thread::sleep(Duration::from_millis(200));
        let refused = ask();
        refused.refused(429, "queue_full");
        assert_eq!(refused.header("retry-after"), "1");
        let said = String::from_utf8_lossy(&refused.body).into_owned();
        assert!(said.contains("too many searches"), "{said}");
        service.gate.open();
        for thread in begun {
            assert_eq!(thread.join().expect("no panic").status, 200);
        }
    });
    assert_eq!(ask().status, 200);
}

/// An ingest once filled the queue and the tower, and a query waited behind all of it.
#[test]
fn a_query_is_answered_while_an_ingest_waits_for_the_same_tower() {
    let service = Service::with(|config| config.limits.queue_texts = 16);
    service.put("/v1/collections/c");
    service.add(&json!([{ "id": "a", "text": "a" }]));
    service.held_gate.shut();
    let held: Vec<_> = (0..50)
        .map(|i| json!({ "text": format!("{HELD} {i}") }))
        .collect();
    thread::scope(|scope| {
        // Nine inputs of one client fill its room for what is to be kept.
        let ingest = scope.spawn(|| service.add(&json!(held)).len());
        wait_until("the ingest waits", || waiting(&service) == "9");
        let more = service.post("/v1/collections/c/items", &json!({ "text": "more" }));
        more.refused(429, "queue_full");
        let found = service.search(&json!({ "text": "a", "target": "text", "k": 1 }));
        assert_eq!(ids(&found), ["a"]);
        let labels = json!({ "text": "a", "labels": ["b", "c"] });
        assert_eq!(service.post("/v1/classify", &labels).status, 200);
        assert_eq!(service.get("/readyz").status, 200);
        assert_eq!(waiting(&service), "9", "the ingest still waits");
        service.held_gate.open();
        assert_eq!(ingest.join().expect("no panic"), 50);
    });
    let kept = "diptych_queue_seconds_count{class=\"keep\",tower=\"text\"}";
    assert_eq!(metric(&service, kept), "51");
}

#[test]
fn what_is_not_encoded_in_time_is_told_so_and_never_encoded() {
    let service = Service::with(|config| config.limits.query_deadline_ms = 200);
    service.put("/v1/collections/c");
    service.gate.shut();
    let search = || service.post("/v1/collections/c/search", &json!({ "text": "a" }));
    // The first is in the tower, the second behind it.
    for _ in 0..2 {
        let late = search();
        late.refused(503, "deadline_passed");
        assert_eq!(late.header("retry-after"), "1");
    }
    service.gate.open();
    wait_until("the queue is empty", || waiting(&service) == "0");
    assert_eq!(search().status, 200);
    let encoded = metric(&service, "diptych_pass_inputs_sum{tower=\"text\"}");
    assert_eq!(encoded, "2", "the second was not");
}

#[test]
fn readiness_sees_a_stuck_tower_and_its_recovery() {
    let service = small();
    assert_eq!(service.get("/readyz").status, 200);
    service.gate.shut();
    thread::scope(|scope| {
        let search = scope.spawn(|| {
            service
                .post("/v1/collections/c/search", &json!({ "text": "a" }))
                .status
        });
        wait_until("the tower is stuck", || {
            service.get("/readyz").status == 503
        });
        service.get("/readyz").refused(503, "unavailable");
        assert_eq!(service.get("/healthz").status, 200, "the process lives");
        service.gate.open();
        assert_eq!(search.join().expect("no panic"), 200);
    });
    wait_until("the tower works", || service.get("/readyz").status == 200);
}

#[test]
fn what_a_vanished_client_asked_is_dropped_from_the_queue() {
    let service = small();
    service.gate.shut();
    let body = r#"{"text": "a"}"#;
    let head = format!(
        "POST /v1/collections/c/search HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    let address = service.url("").replace("http://", "");
    let ask = || {
        let mut stream = TcpStream::connect(&address).expect("connects");
        stream.write_all(head.as_bytes()).expect("is sent");
        stream
    };
    // The first is in the tower, which cannot be interrupted; the second waits behind it.
    let first = ask();
    wait_until("the first is in the tower", || waiting(&service) == "1");
    thread::sleep(Duration::from_millis(100));
    let second = ask();
    wait_until("the second waits", || waiting(&service) == "2");
    drop(second);
    thread::sleep(Duration::from_millis(100));
    service.gate.open();
    wait_until("the queue is empty", || waiting(&service) == "0");
    drop(first);
    let metrics = service.get("/metrics").text();
    let passes = "diptych_pass_inputs_sum{tower=\"text\"} 1";
    assert!(
        metrics.lines().any(|l| l == passes),
        "only the first was encoded: {metrics}"
    );
}

/// A decode cannot be interrupted, so that one whose client is gone still takes a core and memory.
/// Its turn and its room in the queue were once given back at the disconnect, and clients that came
/// and went had any number of pictures decoded at once.
#[test]
fn a_decode_keeps_its_room_when_its_client_vanishes() {
    let service = Service::with(|config| config.limits.queue_images = 1);
    service.put("/v1/collections/c");
    service.prepare_gate.shut();
    let search = json!({ "image": png_base64(1) });
    let body = search.to_string();
    let head = format!(
        "POST /v1/collections/c/search HTTP/1.1\r\nhost: localhost\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let address = service.url("").replace("http://", "");
    let mut stream = TcpStream::connect(&address).expect("connects");
    stream.write_all(head.as_bytes()).expect("is sent");
    let waiting = || waiting_for(&service, "image");
    wait_until("the picture is decoded", || waiting() == "1");
    thread::sleep(Duration::from_millis(100));
    drop(stream);
    thread::sleep(Duration::from_millis(300));
    assert_eq!(waiting(), "1", "the decode goes on and holds its room");
    service
        .post("/v1/collections/c/search", &search)
        .refused(429, "queue_full");
    service.prepare_gate.open();
    wait_until("the decode is over", || waiting() == "0");
    service.search(&search);
}

/// Bodies were once bounded one by one only: some connections that send slowly could together hold
/// more memory than there is.
#[test]
fn bodies_that_arrive_together_have_one_bound() {
    let service = Service::with(|config| {
        config.limits.body_bytes = 10_000;
        config.limits.body_pause_ms = 5_000;
    });
    service.put("/v1/collections/c");
    let address = service.url("").replace("http://", "");
    let head = |kind: &str| {
        format!(
            "POST /v1/collections/c/items HTTP/1.1\r\nhost: localhost\r\n\
             content-type: {kind}\r\ncontent-length: 10000\r\n\r\n"
        )
    };
    let form = "--xyz\r\nContent-Disposition: form-data; name=\"f\"; filename=\"a\"\r\n\r\n";
    let slow: Vec<_> = [
        (head("application/json"), String::new()),
        (head("multipart/form-data; boundary=xyz"), form.to_owned()),
    ]
    .into_iter()
    .cycle()
    .take(4)
    .map(|(head, start)| {
        let mut stream = TcpStream::connect(&address).expect("connects");
        let body = start.clone() + &" ".repeat(9_900 - start.len());
        stream.write_all(head.as_bytes()).expect("is sent");
        stream.write_all(body.as_bytes()).expect("is sent");
        stream
    })
    .collect();
    let item = json!({ "text": "a".repeat(2_000) });
    let add = || service.post("/v1/collections/c/items", &item);
    // A smaller one that comes in between would take the room that the slow ones are to fill.
    wait_until("the bodies fill all room", || {
        let held = metric(&service, "diptych_body_bytes").parse();
        held.is_ok_and(|held: usize| held > 38_000)
    });
    let refused = add();
    refused.refused(429, "queue_full");
    assert_eq!(refused.header("retry-after"), "1");
    assert_eq!(
        service.get("/v1/collections").status,
        200,
        "what has no body is served"
    );
    // Those who are too slow are given up, and their room is free again.
    for mut stream in slow {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        assert!(answer.contains(" 408 "), "{answer}");
    }
    assert_eq!(add().status, 200);
}
