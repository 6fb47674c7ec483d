//! Diptych over HTTP: collections, items, search, classification, and the page at `/`.
//!
//! It is **not** a place for models or indexes: towers come from `encoders`, items live in
//! `engine`, and this crate only carries words between them and the network. Async stops here.
//!
//! ```no_run
//! use std::sync::Arc;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let engine = Arc::new(engine::Engine::in_memory(engine::EngineConfig::default()));
//! let model = encoders::Model::builtin()?;
//! let running = server::start(server::ServerConfig::default(), engine, model)?;
//! eprintln!("serving on http://{}", running.addr());
//! running.wait_for_signal()?;
//! # Ok(())
//! # }
//! ```
//!
//! In reading order: [`ServerConfig`] and [`Limits`] say what is allowed; `startup` binds and
//! stops; `observe` sees every request, and `access` says who may do what; `routes` are thin; `wire` and
//! `answers` say what JSON looks like, `openapi` describes all of it;
//! `ingest`, `query` and `classify` turn wire words
//! into calls of the engine; `heads` makes classifiers and asks them; `jobs` does what takes long; `doors` does the same for the words of other services; `tower` is the bounded queue in
//! front of a model, `pools` the threads that work; `reply` is the one table of errors, `trace` what
//! OpenTelemetry is told.

mod config;
mod error;
mod startup;
mod tls;

mod access;
mod answers;
mod audit;
mod keys;
mod observe;
mod openapi;
mod routes;
mod wire;

mod body;
mod classify;
mod clock;
mod content;
mod crowd;
mod cursor;
mod doors;
mod heads;
mod ingest;
mod jobs;
mod maps;
mod query;
mod thumbnails;

mod metrics;
mod model;
mod pools;
mod reply;
mod state;
mod tower;
mod trace;
mod urls;
mod watch;

pub use audit::{Action, Audit};
pub use config::{DEFAULT_PORT, Limits, ServerConfig, TlsFiles, UrlConfig};
pub use error::ServerError;
pub use keys::{Key, KeyError, KeyFile, NewKey, Role};
pub use model::ModelHandle;
pub use routes::openapi_json;
pub use startup::{RunningServer, check_port, run, start};
