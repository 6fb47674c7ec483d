//! Clients that send slowly, or nothing, or come in crowds.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

use crate::harness::Service;

/// Sends a byte at a time until the server answers or hangs up; returns what it said, and when.
fn trickle(mut stream: TcpStream, bytes: &[u8], pause: Duration) -> (String, Duration) {
    let started = Instant::now();
    stream
        .set_read_timeout(Some(Duration::from_millis(1)))
        .expect("is set");
    let mut said = Vec::new();
    for byte in bytes.iter().cycle() {
        let sent = stream.write_all(&[*byte]);
        let mut some = [0; 1024];
        match stream.read(&mut some) {
            Ok(0) => break,
            Ok(n) => {
                said.extend_from_slice(&some[..n]);
                break;
            }
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => break,
            Err(_) if sent.is_err() => break,
            Err(_) => {}
        }
        assert!(started.elapsed() < Duration::from_secs(30), "never cut off");
        thread::sleep(pause);
    }
    (
        String::from_utf8_lossy(&said).into_owned(),
        started.elapsed(),
    )
}

#[test]
fn a_head_that_comes_a_byte_at_a_time_is_cut_off_in_time() {
    let service = Service::with(|config| config.limits.head_ms = 1_000);
    let head = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nx-padding: aaaaaaaaaaaaaaaaaaaaaaa";
    let (said, took) = trickle(service.connect(), head, Duration::from_millis(250));
    assert!(
        said.is_empty() || said.starts_with("HTTP/1.1 408"),
        "{said}"
    );
    let range = Duration::from_millis(400)..Duration::from_secs(5);
    assert!(range.contains(&took), "{took:?}");
    assert_eq!(service.get("/healthz").status, 200);
}

#[test]
fn a_body_that_never_pauses_and_never_ends_is_cut_off_in_time() {
    let service = Service::with(|config| config.limits.request_ms = 1_000);
    service.put("/v1/collections/c");
    let mut stream = service.connect();
    let head = "POST /v1/collections/c/search HTTP/1.1\r\nhost: localhost\r\n\
                content-type: application/json\r\ncontent-length: 5000\r\n\r\n";
    stream.write_all(head.as_bytes()).expect("is sent");
    let (said, took) = trickle(stream, b" ", Duration::from_millis(100));
    assert!(
        said.starts_with("HTTP/1.1 503") && said.contains("request_timeout"),
        "{said}"
    );
    let range = Duration::from_millis(900)..Duration::from_secs(5);
    assert!(range.contains(&took), "{took:?}");
}

#[test]
fn a_body_that_pauses_is_cut_off_in_time() {
    let service = Service::with(|config| config.limits.body_pause_ms = 500);
    service.put("/v1/collections/c");
    let mut stream = service.connect();
    let head = "POST /v1/collections/c/search HTTP/1.1\r\nhost: localhost\r\n\
                content-type: application/json\r\ncontent-length: 5000\r\n\r\n{";
    stream.write_all(head.as_bytes()).expect("is sent");
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .expect("is set");
    let mut some = [0; 1024];
    let n = stream.read(&mut some).expect("an answer");
    let said = String::from_utf8_lossy(&some[..n]);
    assert!(said.starts_with("HTTP/1.1 408"), "{said}");
}

/// The HTTP library times the first head of a connection, and no later one: whoever had been answered
/// once could send the next head as slowly as they liked.
#[test]
fn a_second_head_that_comes_a_byte_at_a_time_is_cut_off_in_time() {
    let service = Service::with(|config| {
        config.limits.head_ms = 1_000;
        config.limits.idle_ms = 1_000;
    });
    let mut stream = service.connect();
    let first = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n";
    stream.write_all(first).expect("is sent");
    let mut some = [0; 4096];
    let n = stream.read(&mut some).expect("an answer");
    assert!(some[..n].starts_with(b"HTTP/1.1 200"));
    let head = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nx-padding: aaaaaaaaaaaaaaaaaaaaaaa";
    let (said, took) = trickle(stream, head, Duration::from_millis(200));
    assert_eq!(said, "");
    let range = Duration::from_millis(1_500)..Duration::from_secs(6);
    assert!(range.contains(&took), "{took:?}");
}

#[test]
fn a_client_that_keeps_asking_keeps_its_connection() {
    let service = Service::with(|config| {
        config.limits.head_ms = 1_000;
        config.limits.idle_ms = 2_000;
    });
    let mut stream = service.connect();
    for _ in 0..8 {
        let head = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n";
        stream.write_all(head).expect("is sent");
        let mut some = [0; 4096];
        let n = stream.read(&mut some).expect("an answer");
        assert!(some[..n].starts_with(b"HTTP/1.1 200"));
        thread::sleep(Duration::from_millis(600));
    }
}

#[test]
fn with_no_idle_time_every_head_is_the_first_of_its_connection() {
    let service = Service::with(|config| config.limits.idle_ms = 0);
    let mut stream = service.connect();
    let head = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n";
    stream.write_all(head).expect("is sent");
    let mut said = String::new();
    stream
        .read_to_string(&mut said)
        .expect("is closed after the answer");
    assert!(said.contains("connection: close"), "{said}");
}

#[test]
fn a_crowd_that_says_nothing_does_not_keep_others_out() {
    let service = Service::with(|config| {
        config.limits.connections = 64;
        config.limits.head_ms = 1_000;
        config.limits.idle_ms = 1_000;
    });
    let crowd: Vec<TcpStream> = (0..300).map(|_| service.connect()).collect();
    let started = Instant::now();
    assert_eq!(service.get("/v1/collections").status, 200);
    let took = started.elapsed();
    assert!(took < Duration::from_secs(30), "{took:?}");
    drop(crowd);
}
