//! Traces of a real server: what a collector gets, and that nobody waits for one.

mod collector;
#[path = "../world/mod.rs"]
mod world;

use std::{
    io::{BufRead as _, BufReader},
    net::TcpListener,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use opentelemetry_proto::tonic::trace::v1::{Span, span::SpanKind, status::StatusCode};
use serde_json::{Value, json};
use ureq::{Agent, Body, http::Response};

use self::{
    collector::{Collector, attribute},
    world::{World, diptych},
};

/// A trace, a span in it, and how a client says that both are sampled.
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";
const SAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const NOT_SAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";

/// A server that exports its traces; it is killed when it is dropped.
struct Server {
    child: Child,
    url: String,
    log: std::path::PathBuf,
    agent: Agent,
}

impl Server {
    fn start(world: &World, endpoint: &str, variables: &[(&str, &str)]) -> Self {
        let log = world.path("log");
        let mut child = diptych(&world.path("data"))
            .args(["serve", "--port", "0", "--otlp-endpoint", endpoint])
            // Batches go at once.
            .env("OTEL_BSP_SCHEDULE_DELAY", "100")
            .envs(variables.iter().copied())
            .stdout(Stdio::piped())
            .stderr(fs_err::File::create(&log).expect("is made").into_parts().0)
            .spawn()
            .expect("the binary runs");
        let mut line = String::new();
        let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
        stdout.read_line(&mut line).expect("reads");
        let url = line
            .trim()
            .split(' ')
            .next_back()
            .expect("an address")
            .to_owned();
        assert!(url.starts_with("http://"), "{line}");
        let config = Agent::config_builder().http_status_as_error(false).build();
        let agent = config.into();
        Self {
            child,
            url,
            log,
            agent,
        }
    }

    fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &Value,
    ) -> Response<Body> {
        let mut request = ureq::http::Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.url))
            .header("content-type", "application/json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(body.to_string()).expect("is a request");
        self.agent.run(request).expect("answers")
    }

    /// Asks it to stop, and waits until it has.
    fn stop(&mut self) -> Duration {
        let pid = self.child.id().to_string();
        let killed = Command::new("kill").args(["-TERM", &pid]).status();
        assert!(killed.expect("runs").success());
        let since = Instant::now();
        assert!(self.child.wait().expect("ends").success());
        since.elapsed()
    }

    fn log(&self) -> String {
        fs_err::read_to_string(&self.log).expect("is there")
    }

    /// Lines of the log with these words.
    fn said(&self, words: &str) -> usize {
        self.log()
            .lines()
            .filter(|line| line.contains(words))
            .count()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn hex(id: &[u8]) -> String {
    let bytes: Vec<_> = id.iter().map(|byte| format!("{byte:02x}")).collect();
    bytes.concat()
}

/// The span with this name, which must be the only one.
fn named(spans: &[Span], name: &str) -> Span {
    let all: Vec<_> = spans.iter().filter(|span| span.name == name).collect();
    let names: Vec<_> = spans.iter().map(|span| &span.name).collect();
    assert_eq!(all.len(), 1, "{name} in {names:?}");
    all[0].clone()
}

/// Names of what is below a span, each of which lies within it.
fn below(spans: &[Span], parent: &Span) -> Vec<String> {
    let below = spans
        .iter()
        .filter(|span| span.parent_span_id == parent.span_id);
    let mut names: Vec<_> = below
        .inspect(|span| {
            assert_eq!(span.trace_id, parent.trace_id);
            assert!(span.start_time_unix_nano <= span.end_time_unix_nano);
            // Both are of the same clock, but not read in the same moment.
            let (a, b) = (parent.start_time_unix_nano, span.start_time_unix_nano);
            assert!(a <= b + 5_000_000, "{} began too early", span.name);
            assert!(span.end_time_unix_nano <= parent.end_time_unix_nano + 5_000_000);
        })
        .map(|span| span.name.clone())
        .collect();
    names.sort();
    names
}

#[test]
fn a_request_is_a_span_of_its_clients_trace_and_the_stages_of_its_work_are_below_it() {
    let world = World::new();
    let collector = Collector::start(0);
    let variables = [
        ("DIPTYCH_TELEMETRY__SERVICE_NAME", "pictures"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-token=a%20b"),
    ];
    let mut server = Server::start(&world, &collector.endpoint, &variables);
    let collection = "/v1/collections/c";
    assert_eq!(
        server.send("PUT", collection, &[], &json!({})).status(),
        201
    );
    let picture = fs_err::read(world.picture("a.png", 1)).expect("is there");
    let picture = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, picture);
    let items = json!([{ "id": "a", "image": picture }]);
    let added = server.send("POST", &format!("{collection}/items"), &[], &items);
    assert_eq!(added.status(), 200);
    let search = json!({ "text": "a red bicycle" });
    let headers = [("traceparent", SAMPLED), ("x-request-id", "which.one-1")];
    let found = server.send("POST", &format!("{collection}/search"), &headers, &search);
    assert_eq!(found.status(), 200);
    assert_eq!(found.headers()["x-request-id"], "which.one-1");
    assert_eq!(
        server
            .send("GET", "/nothing/here", &[], &json!({}))
            .status(),
        404
    );
    let refused = server.send("POST", "/v1/collections/none/search", &[], &search);
    let refused_id = refused.headers()["x-request-id"]
        .to_str()
        .expect("text")
        .to_owned();
    server.stop();

    // What is left is exported at the end.
    let spans = collector.until(|got| (got.spans.len() >= 12).then(|| got.spans.clone()));
    let route = "POST /v1/collections/{collection}/search";
    let searches: Vec<_> = spans.iter().filter(|span| span.name == route).collect();
    assert_eq!(searches.len(), 2);
    let (ours, other) = match searches[..] {
        [a, b] if hex(&a.trace_id) == TRACE => (a, b),
        [a, b] => (b, a),
        _ => unreachable!(),
    };
    assert_eq!(
        (hex(&ours.trace_id), hex(&ours.parent_span_id)),
        (TRACE.into(), PARENT.into())
    );
    assert_eq!(ours.kind, SpanKind::Server as i32);
    for (key, value) in [
        ("http.request.method", "POST"),
        ("http.route", "/v1/collections/{collection}/search"),
        ("http.response.status_code", "200"),
        ("request_id", "which.one-1"),
    ] {
        assert_eq!(attribute(&ours.attributes, key), value, "{key}");
    }
    assert_eq!(below(&spans, ours), ["search", "text queue", "text tower"]);
    let tower = named(&spans, "text tower");
    assert_eq!(attribute(&tower.attributes, "inputs"), "1");
    assert!(server.said("which.one-1") > 0, "{}", server.log());

    // Whose client names no trace has one of its own.
    let added = named(&spans, "POST /v1/collections/{collection}/items");
    assert!(added.parent_span_id.is_empty() && hex(&added.trace_id) != TRACE);
    assert_eq!(
        below(&spans, &added),
        ["decode", "image queue", "image tower", "store"]
    );
    let nowhere = named(&spans, "GET");
    assert_eq!(attribute(&nowhere.attributes, "http.route"), "");
    for (span, id) in [(&nowhere, ""), (other, refused_id.as_str())] {
        assert_eq!(
            attribute(&span.attributes, "http.response.status_code"),
            "404"
        );
        let given = attribute(&span.attributes, "request_id");
        assert!(given == id || id.is_empty() && given.len() == 16, "{given}");
        // The client's mistake is no failure of the server.
        let status = span.status.clone().unwrap_or_default();
        assert_eq!(status.code, StatusCode::Unset as i32);
    }
    collector.until(|got| {
        assert_eq!(attribute(&got.resource, "service.name"), "pictures");
        assert_eq!(
            attribute(&got.resource, "service.version"),
            env!("CARGO_PKG_VERSION")
        );
        let head = &got.heads[0];
        assert!(head.starts_with("post /v1/traces http/1.1"), "{head}");
        assert!(
            head.contains("content-type: application/x-protobuf"),
            "{head}"
        );
        assert!(head.contains("x-token: a b"), "{head}");
        Some(())
    });
}

#[test]
fn a_stream_is_one_span_until_its_end_and_not_every_line_has_spans_of_its_own() {
    let world = World::new();
    let collector = Collector::start(0);
    let mut server = Server::start(&world, &collector.endpoint, &[]);
    server.send("PUT", "/v1/collections/c", &[], &json!({}));
    let lines: Vec<_> = (0..400)
        .map(|i| format!("{{\"text\":\"thing {i}\"}}\n"))
        .collect();
    let request = ureq::http::Request::post(format!("{}/v1/collections/c/items", server.url))
        .header("content-type", "application/x-ndjson")
        .body(lines.concat())
        .expect("is a request");
    let mut answer = server.agent.run(request).expect("answers");
    let results = answer.body_mut().read_to_string().expect("is text");
    assert_eq!(results.lines().count(), 400);
    server.stop();
    let name = "POST /v1/collections/{collection}/items";
    let spans = collector.until(|got| {
        let has = got.spans.iter().any(|span| span.name == name);
        has.then(|| got.spans.clone())
    });
    let stages = below(&spans, &named(&spans, name));
    assert_eq!(stages.len(), 256);
    assert!(stages.iter().any(|name| name == "store"), "{stages:?}");
}

#[test]
fn whether_a_request_is_traced_says_its_client_or_the_share() {
    let world = World::new();
    let collector = Collector::start(0);
    let none = [("DIPTYCH_TELEMETRY__SAMPLE", "0")];
    let mut server = Server::start(&world, &collector.endpoint, &none);
    for headers in [
        &[][..],
        &[("traceparent", NOT_SAMPLED)],
        &[("traceparent", "00-nonsense-01")],
        &[("traceparent", SAMPLED)],
    ] {
        assert_eq!(
            server.send("GET", "/healthz", headers, &json!({})).status(),
            200
        );
    }
    server.stop();
    let spans = collector.until(|got| (!got.spans.is_empty()).then(|| got.spans.clone()));
    assert_eq!(spans.len(), 1);
    assert_eq!(hex(&named(&spans, "GET /healthz").trace_id), TRACE);
}

#[test]
fn without_a_collector_requests_are_answered_and_one_that_comes_later_is_used() {
    let world = World::new();
    // A port where nobody listens.
    let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
    let address = listener.local_addr().expect("has one");
    drop(listener);
    let mut server = Server::start(&world, &format!("http://{address}"), &[]);
    let lost = "traces are lost";
    for _ in 0..3 {
        assert_eq!(server.send("GET", "/readyz", &[], &json!({})).status(), 200);
        let since = Instant::now();
        while server.said(lost) == 0 {
            assert!(since.elapsed() < Duration::from_mins(1), "{}", server.log());
            thread::sleep(Duration::from_millis(20));
        }
    }
    let collector = Collector::start(address.port());
    assert_eq!(
        server.send("GET", "/v1/model", &[], &json!({})).status(),
        200
    );
    collector.until(|got| {
        got.spans
            .iter()
            .find(|span| span.name == "GET /v1/model")
            .map(drop)
    });
    let took = server.stop();
    assert!(took < Duration::from_secs(10), "{took:?}");
    assert_eq!(
        (server.said(lost), server.said("traces are exported again")),
        (1, 1),
        "{}",
        server.log()
    );
}

#[test]
fn a_collector_that_never_answers_costs_spans_and_neither_time_nor_memory() {
    let world = World::new();
    let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
    let endpoint = format!("http://{}", listener.local_addr().expect("has one"));
    let mut server = Server::start(&world, &endpoint, &[]);
    let ask = |times: usize| {
        let one = |_| {
            let since = Instant::now();
            let answer = server.send("GET", "/v1/model", &[], &json!({}));
            assert_eq!(answer.status(), 200);
            since.elapsed()
        };
        let mut took: Vec<_> = (0..times).map(one).collect();
        took.sort();
        took
    };
    let resident = || {
        let metrics = server
            .send("GET", "/metrics", &[], &json!({}))
            .body_mut()
            .read_to_string();
        let metrics = metrics.expect("is text");
        let line = metrics
            .lines()
            .find_map(|line| line.strip_prefix("diptych_resident_bytes "));
        line.and_then(|bytes| bytes.parse::<f64>().ok())
            .expect("is told")
    };
    // More than the queue holds.
    ask(4_000);
    let before = resident();
    let took = ask(4_000);
    let more = resident() - before;
    // The slowest tell of a machine that has other things to do.
    let most = took[took.len() * 99 / 100];
    assert!(most < Duration::from_millis(200), "{most:?}");
    assert!(more < 4e6, "{more} bytes more");
    let took = server.stop();
    assert!(took < Duration::from_secs(15), "{took:?}");
    assert_eq!(
        server.said("dropped a Span due to queue full"),
        1,
        "{}",
        server.log()
    );
}
