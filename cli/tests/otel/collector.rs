//! An OpenTelemetry collector: it reads OTLP over HTTP, and keeps what it got.

use std::{
    io::{BufRead, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{KeyValue, any_value::Value},
    trace::v1::Span,
};
use prost::Message as _;

/// Something that never takes so long, even where much else runs.
const LONG: Duration = Duration::from_mins(1);

/// A collector on the loopback address.
pub struct Collector {
    pub endpoint: String,
    got: Arc<Mutex<Got>>,
}

/// What arrived.
#[derive(Default)]
pub struct Got {
    pub spans: Vec<Span>,
    /// Attributes of who sent them.
    pub resource: Vec<KeyValue>,
    /// Heads of the requests.
    pub heads: Vec<String>,
}

impl Collector {
    /// One that listens there; port 0 takes a free one.
    pub fn start(port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).expect("binds");
        let endpoint = format!("http://{}", listener.local_addr().expect("has one"));
        let got = Arc::new(Mutex::new(Got::default()));
        let theirs = Arc::clone(&got);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, got) = (stream.expect("accepts"), Arc::clone(&theirs));
                thread::spawn(move || take(stream, &got));
            }
        });
        Self { endpoint, got }
    }

    /// What is there as soon as it is so.
    pub fn until<T>(&self, is_so: impl Fn(&Got) -> Option<T>) -> T {
        let since = Instant::now();
        loop {
            let got = self.got.lock().expect("no panic");
            if let Some(so) = is_so(&got) {
                return so;
            }
            let names: Vec<_> = got.spans.iter().map(|span| &span.name).collect();
            assert!(since.elapsed() < LONG, "only {names:?} arrived");
            drop(got);
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Takes the requests of one connection.
fn take(mut stream: TcpStream, got: &Mutex<Got>) {
    let mut reader = BufReader::new(stream.try_clone().expect("has two handles"));
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head).expect("reads") == 0 {
                return;
            }
        }
        let head = head.to_lowercase();
        let length = head.split("content-length: ").nth(1).expect("a length");
        let length = length.lines().next().and_then(|length| length.parse().ok());
        let mut body = vec![0; length.expect("a number")];
        reader.read_exact(&mut body).expect("reads");
        let sent = ExportTraceServiceRequest::decode(&*body).expect("is OTLP");
        {
            let mut got = got.lock().expect("no panic");
            got.heads.push(head);
            for of in sent.resource_spans {
                got.resource = of.resource.expect("says who sends").attributes;
                let spans = of.scope_spans.into_iter().flat_map(|scope| scope.spans);
                got.spans.extend(spans);
            }
        }
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
        stream.write_all(answer).expect("answers");
    }
}

/// An attribute as text; empty where there is none.
pub fn attribute(attributes: &[KeyValue], key: &str) -> String {
    let one = attributes.iter().find(|one| one.key == key);
    let value = one.and_then(|one| one.value.as_ref()?.value.as_ref());
    match value {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        other => {
            assert!(other.is_none(), "{key} is neither text nor a number");
            String::new()
        }
    }
}
