//! A server on a port of its own, and a client.

use std::{
    net::TcpStream,
    sync::{Arc, Condvar, Mutex},
    time::Duration,
};

use embedding::{EncodeError, Encoded, Encoder, HashEncoder, Modality, Scoring, Spaces};
use encoders::{Picture, Pixels};
use engine::{Engine, EngineConfig};
use serde_json::Value;
use server::{ModelHandle, RunningServer, ServerConfig};

/// Elements of every embedding of the hash model.
pub const DIM: usize = 32;

/// Bytes of a text that the hash model reads whole, as it says.
pub const CONTEXT: usize = 100;

/// A text that the tower refuses.
pub const REFUSED: &str = "refused";

/// A text that makes the tower panic.
pub const POISON: &str = "poison";

/// How texts begin that only the gate for them holds.
pub const HELD: &str = "held";

/// A running server and a client of it.
pub struct Service {
    pub running: Option<RunningServer>,
    pub engine: Arc<Engine>,
    pub gate: Gate,
    /// Holds the text tower when a text begins with [`HELD`].
    pub held_gate: Gate,
    /// Holds pictures between their decoding and the tower.
    pub prepare_gate: Gate,
    agent: ureq::Agent,
    base: String,
}

/// What came back.
pub struct Reply {
    pub status: u16,
    pub headers: ureq::http::HeaderMap,
    pub body: Vec<u8>,
}

impl Service {
    /// A server with the default limits.
    pub fn start() -> Self {
        Self::with(|_| {})
    }

    /// A server with other settings.
    pub fn with(change: impl FnOnce(&mut ServerConfig)) -> Self {
        Self::on(Arc::new(Engine::in_memory(EngineConfig::default())), change)
    }

    /// A server of this engine.
    pub fn on(engine: Arc<Engine>, change: impl FnOnce(&mut ServerConfig)) -> Self {
        let mut config = ServerConfig {
            bind: ([127, 0, 0, 1], 0).into(),
            ..ServerConfig::default()
        };
        change(&mut config);
        let gates: [Gate; 3] = Default::default();
        let model = model(&gates);
        let [gate, held_gate, prepare_gate] = gates;
        let running = server::start(config, Arc::clone(&engine), model).expect("starts");
        let base = format!("http://{}", running.addr());
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_mins(1)))
            .build()
            .into();
        Self {
            running: Some(running),
            engine,
            gate,
            held_gate,
            prepare_gate,
            agent,
            base,
        }
    }

    /// The same, with an empty collection `c`.
    pub fn with_collection() -> Self {
        let service = Self::start();
        assert_eq!(service.put("/v1/collections/c").status, 201);
        service
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    pub fn get(&self, path: &str) -> Reply {
        Reply::of(self.agent.get(self.url(path)).call())
    }

    /// Whether the answer to a GET begins well and does not come to its end.
    pub fn breaks_off(&self, path: &str) -> bool {
        let reply = self.agent.get(self.url(path)).call();
        reply
            .is_ok_and(|mut reply| reply.status() == 200 && reply.body_mut().read_to_vec().is_err())
    }

    pub fn get_as(&self, path: &str, request_id: &str) -> Reply {
        Reply::of(
            self.agent
                .get(self.url(path))
                .header("x-request-id", request_id)
                .call(),
        )
    }

    pub fn put(&self, path: &str) -> Reply {
        Reply::of(self.agent.put(self.url(path)).send_empty())
    }

    pub fn put_json(&self, path: &str, json: &Value) -> Reply {
        let request = self.agent.put(self.url(path));
        let request = request.header("content-type", "application/json");
        Reply::of(request.send(json.to_string()))
    }

    pub fn put_bytes(&self, path: &str, bytes: &[u8]) -> Reply {
        Reply::of(self.agent.put(self.url(path)).send(bytes))
    }

    pub fn patch(&self, path: &str, json: &Value) -> Reply {
        let request = self.agent.patch(self.url(path));
        let request = request.header("content-type", "application/json");
        Reply::of(request.send(json.to_string()))
    }

    pub fn delete(&self, path: &str) -> Reply {
        Reply::of(self.agent.delete(self.url(path)).call())
    }

    pub fn post(&self, path: &str, json: &Value) -> Reply {
        self.send(
            path,
            &[("content-type", "application/json")],
            json.to_string().as_bytes(),
        )
    }

    pub fn send(&self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
        let mut request = self.agent.post(self.url(path));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Reply::of(request.send(body))
    }

    /// Any request, with an empty object of JSON where a body is usual.
    pub fn call(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Reply {
        let mut request = ureq::http::Request::builder()
            .method(method)
            .uri(self.url(path))
            .header("content-type", "application/json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let has_body = matches!(method, "POST" | "PUT" | "PATCH");
        Reply::of(if has_body {
            self.agent.run(request.body("{}").expect("is fine"))
        } else {
            self.agent.run(request.body(()).expect("is fine"))
        })
    }

    /// A connection of its own, on which anything can be sent.
    pub fn connect(&self) -> TcpStream {
        let address = self.running.as_ref().expect("runs").addr();
        TcpStream::connect(address).expect("connects")
    }

    /// Any request.
    pub fn request(&self, method: &str, path: &str, kind: Option<&str>, body: &[u8]) -> Reply {
        let request = ureq::http::Request::builder();
        let mut request = request.method(method).uri(self.url(path));
        if let Some(kind) = kind {
            request = request.header("content-type", kind);
        }
        let request = request.body(body.to_vec()).expect("a fine request");
        Reply::of(self.agent.run(request))
    }

    /// Adds items to `c` and returns their ids.
    pub fn add(&self, items: &Value) -> Vec<String> {
        let reply = self.post("/v1/collections/c/items", items);
        assert_eq!(reply.status, 200, "{}", reply.text());
        let json = reply.json();
        let items = json["items"].as_array().expect("items");
        items
            .iter()
            .map(|item| item["id"].as_str().expect("an id").to_owned())
            .collect()
    }

    /// Searches `c` and returns the whole answer.
    pub fn search(&self, query: &Value) -> Value {
        let reply = self.post("/v1/collections/c/search", query);
        assert_eq!(reply.status, 200, "{}", reply.text());
        reply.json()
    }

    /// Number of items in `c`.
    pub fn count(&self) -> u64 {
        self.get("/v1/collections/c").json()["stats"]["items"]
            .as_u64()
            .expect("a count")
    }
}

impl Reply {
    fn of(reply: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Self {
        let mut reply = reply.expect("the server answers");
        let body = reply.body_mut().with_config().limit(64 << 20);
        let body = body.read_to_vec().expect("the body arrives");
        Self {
            status: reply.status().as_u16(),
            headers: reply.headers().clone(),
            body,
        }
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .and_then(|v| v.to_str().ok())
            .unwrap_or_default()
    }

    /// Checks the one shape of errors and returns the field.
    #[track_caller]
    pub fn refused(&self, status: u16, code: &str) -> String {
        assert_eq!(
            (self.status, self.error_code()),
            (status, code.to_owned()),
            "{}",
            self.text()
        );
        let error = &self.json()["error"];
        assert!(
            error["message"].as_str().is_some_and(|m| m.len() > 5),
            "{error}"
        );
        error["field"].as_str().unwrap_or_default().to_owned()
    }

    fn error_code(&self) -> String {
        self.json()["error"]["code"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }
}

/// Ids of the hits of a search.
pub fn ids(found: &Value) -> Vec<&str> {
    let hits = found["hits"].as_array().expect("hits");
    hits.iter()
        .map(|hit| hit["id"].as_str().expect("an id"))
        .collect()
}

/// A PNG of one color.
pub fn png(red: u8, side: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, side, side);
    encoder.set_color(png::ColorType::Rgb);
    let mut writer = encoder.write_header().expect("a fine header");
    writer
        .write_image_data(&[red, 90, 7].repeat((side * side) as usize))
        .expect("fine data");
    writer.finish().expect("a fine end");
    bytes
}

/// The same in base64.
pub fn png_base64(red: u8) -> String {
    base64(&png(red, 4))
}

pub fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// The spaces of the hash model.
pub fn spaces() -> Spaces {
    Encoder::<String>::spaces(&HashEncoder::new(Modality::Text, DIM)).clone()
}

/// The hash model, which never waits.
pub fn open_model() -> ModelHandle {
    model(&Default::default())
}

fn model([gate, held_gate, prepare_gate]: &[Gate; 3]) -> ModelHandle {
    let prepare_gate = prepare_gate.clone();
    ModelHandle {
        info: serde_json::json!({ "name": "hash" }),
        spaces: spaces(),
        scoring: Scoring::Softmax { logit_scale: 10.0 },
        text: Arc::new(Texts {
            hash: HashEncoder::new(Modality::Text, DIM),
            gate: gate.clone(),
            held_gate: held_gate.clone(),
        }),
        cuts: Arc::new(|text: &str| text.len() > CONTEXT),
        image: Arc::new(Images(HashEncoder::new(Modality::Image, DIM))),
        prepare: Arc::new(move |picture: &Picture| {
            prepare_gate.pass();
            let values = picture.as_rgb().iter().map(|v| f32::from(*v)).collect();
            let (height, width) = (picture.height() as usize, picture.width() as usize);
            Pixels::new(values, height, width).expect("a whole picture")
        }),
    }
}

/// Holds whatever passes it while it is shut.
#[derive(Clone, Default)]
pub struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    pub fn shut(&self) {
        *self.0.0.lock().expect("no panic") = true;
    }

    pub fn open(&self) {
        *self.0.0.lock().expect("no panic") = false;
        self.0.1.notify_all();
    }

    fn pass(&self) {
        let shut = self.0.0.lock().expect("no panic");
        drop(self.0.1.wait_while(shut, |shut| *shut).expect("no panic"));
    }
}

struct Texts {
    hash: HashEncoder,
    gate: Gate,
    held_gate: Gate,
}

impl Encoder<String> for Texts {
    fn spaces(&self) -> &Spaces {
        Encoder::<String>::spaces(&self.hash)
    }

    fn modality(&self) -> Modality {
        Modality::Text
    }

    fn cost(&self, text: &String) -> usize {
        self.hash.cost(text)
    }

    fn encode(&self, batch: &[String]) -> Result<Vec<Encoded>, EncodeError> {
        self.gate.pass();
        if batch.iter().any(|text| text.starts_with(HELD)) {
            self.held_gate.pass();
        }
        assert!(
            !batch.iter().any(|text| text == POISON),
            "a tower that panics"
        );
        if let Some(position) = batch.iter().position(|text| text == REFUSED) {
            return Err(EncodeError::BadInput {
                position,
                reason: "refused by the tower".into(),
            });
        }
        self.hash.encode(batch)
    }
}

struct Images(HashEncoder);

impl Encoder<Pixels> for Images {
    fn spaces(&self) -> &Spaces {
        Encoder::<String>::spaces(&self.0)
    }

    fn modality(&self) -> Modality {
        Modality::Image
    }

    fn cost(&self, pixels: &Pixels) -> usize {
        pixels.height() * pixels.width()
    }

    fn encode(&self, batch: &[Pixels]) -> Result<Vec<Encoded>, EncodeError> {
        let bytes = |p: &Pixels| p.as_slice().iter().flat_map(|v| v.to_le_bytes()).collect();
        let batch: Vec<Vec<u8>> = batch.iter().map(bytes).collect();
        self.0.encode(&batch)
    }
}
