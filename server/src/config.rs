//! What the operator decides before the server starts.
//!
//! Over 400 lines only with its tests.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use actix_web::http::uri::Authority;
use encoders::DecodeLimits;
use fetch::IpNet;
use serde::{Deserialize, Serialize};

use crate::{
    KeyFile, ServerError, tls,
    tower::{Class, TowerLimits, most_of_one},
    urls::Urls,
};

/// The port that is served when none is named.
pub const DEFAULT_PORT: u16 = 7700;

/// The shortest time after which a connection can be closed. The HTTP library counts from a clock that
/// is up to half a second late, and forgets what should have ended before it began.
const LEAST_MS: u64 = 1_000;

/// Threads that speak HTTP, at most: each core needs one, and few machines have more.
const MOST_WORKERS: usize = 1_024;

/// The longest graceful stop: a day.
const MOST_SHUTDOWN_S: u64 = 86_400;

/// How the server is reached and what it may touch.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// Where to listen. Port 0 lets the system choose one; see [`crate::RunningServer::addr`].
    pub bind: SocketAddr,
    /// Allows a bind that other machines can reach without keys, and requests that call this machine
    /// by any name. Keys, where there are some, are asked for all the same.
    pub insecure: bool,
    /// Names by which requests may call this machine, beside `localhost` and IP addresses.
    pub hosts: Vec<String>,
    /// Origins, such as `https://app.example.com`, whose pages may call this server from a browser.
    pub cors: Vec<String>,
    /// The file of API keys; `None`, or a file that is not there, asks for none.
    pub keys: Option<PathBuf>,
    /// The file that administrative actions are written to; `None` writes none.
    pub audit: Option<PathBuf>,
    /// Certificate and key; `None` speaks HTTP in the clear.
    pub tls: Option<TlsFiles>,
    /// From where pictures may be fetched.
    pub urls: UrlConfig,
    /// What a request may ask for.
    pub limits: Limits,
    /// Folders whose pictures may be shown. An item's stored `source` is served only when it lies,
    /// links resolved, inside one of them.
    pub media_roots: Vec<PathBuf>,
    /// Where small versions of uploaded pictures are kept; `None` keeps none, and uploaded
    /// pictures are then shown as a tile with their name.
    pub thumbnails: Option<PathBuf>,
    /// Where snapshots are kept, those of each collection in a folder of its own; `None` keeps
    /// none.
    pub snapshots: Option<PathBuf>,
    /// Where bodies lie that are imported in the background; without it there are no such imports.
    pub jobs: Option<PathBuf>,
    /// Threads that speak HTTP, 1 to 1,024. They never encode or search.
    pub workers: usize,
    /// How long a graceful stop waits for accepted requests, in seconds, a day at most.
    pub shutdown_s: u64,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            bind: SocketAddr::from((Ipv4Addr::LOCALHOST, DEFAULT_PORT)),
            insecure: false,
            hosts: Vec::new(),
            cors: Vec::new(),
            keys: None,
            audit: None,
            tls: None,
            urls: UrlConfig::default(),
            limits: Limits::default(),
            media_roots: Vec::new(),
            thumbnails: None,
            snapshots: None,
            jobs: None,
            workers: 2,
            shutdown_s: 30,
        }
    }
}

impl ServerConfig {
    /// Checks everything that can be checked before a socket is opened.
    ///
    /// # Errors
    /// The first of [`ServerConfig::mistakes`].
    pub fn validate(&self) -> Result<(), ServerError> {
        self.mistakes().into_iter().next().map_or(Ok(()), Err)
    }

    /// All that is wrong: the address is reachable from outside, there are no keys and `insecure` is not
    /// set; the keys, the certificate, a host or an origin cannot be read; a number is out of its range.
    pub fn mistakes(&self) -> Vec<ServerError> {
        let mut all = Vec::new();
        let tls = self.tls.as_ref().map(tls::read).transpose();
        all.extend(self.check_bind().err());
        all.extend(tls.err());
        all.extend(self.hosts.iter().filter_map(|host| check_host(host).err()));
        let origins = self.cors.iter();
        all.extend(origins.filter_map(|origin| check_origin(origin).err()));
        let urls = Urls::new(&self.urls, &self.limits);
        all.extend(urls.err().map(ServerError::Urls));
        if self.workers == 0 {
            all.push(ServerError::ZeroLimit { name: "workers" });
        }
        let bounded = [
            ("workers", self.workers as u64, MOST_WORKERS as u64),
            ("shutdown_s", self.shutdown_s, MOST_SHUTDOWN_S),
        ];
        let beyond = bounded.into_iter().filter(|(_, value, most)| value > most);
        all.extend(beyond.map(|(name, value, most)| ServerError::TooMuch { name, value, most }));
        all.extend(self.limits.mistakes());
        all
    }

    fn check_bind(&self) -> Result<(), ServerError> {
        let keys = self.keys.clone().map(KeyFile::new);
        let has_keys = match keys {
            Some(file) => !file.read()?.is_empty(),
            None => false,
        };
        if self.bind.ip().is_loopback() || self.insecure || has_keys {
            return Ok(());
        }
        Err(ServerError::NotLoopback { bind: self.bind })
    }
}

/// Files of a certificate, in the PEM form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate, then those that vouch for it.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// From where pictures may be fetched that requests name by their address.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UrlConfig {
    /// Hosts: a name, `*.` before a name for all that are below it, or `*` for every name. Where there
    /// are none, nothing is fetched.
    pub allow: Vec<String>,
    /// Networks that may be asked although they are not public, as `10.1.0.0/16`.
    pub allow_private: Vec<IpNet>,
    /// Ports beside 80 for http and 443 for https.
    pub ports: Vec<u16>,
}

/// Refuses what no `Host` can say: addresses with a scheme or a port, and patterns.
fn check_host(host: &str) -> Result<(), ServerError> {
    let name = Authority::try_from(host);
    if !host.contains('*') && name.is_ok_and(|name| name.host() == host) {
        return Ok(());
    }
    Err(ServerError::BadHost {
        host: host.to_owned(),
    })
}

/// Refuses what no browser says of a page.
fn check_origin(origin: &str) -> Result<(), ServerError> {
    let host = ["http://", "https://"]
        .iter()
        .find_map(|scheme| origin.strip_prefix(scheme));
    match host {
        Some(host) if !host.is_empty() && !host.contains(['/', '*', '?', '#', '@']) => Ok(()),
        _ => Err(ServerError::BadOrigin {
            origin: origin.to_owned(),
        }),
    }
}

/// The most that one request, or all of them together, may ask for. docs/limits.md lists them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Bytes of one request body, or of one line of an NDJSON stream. All bodies that arrive at
    /// once have four times as many; more are answered with 429.
    pub body_bytes: usize,
    /// Items of one request. An NDJSON stream may be of any length.
    pub items: usize,
    /// Bytes of all bodies that are imported in the background, or wait for it.
    pub import_bytes: u64,
    /// Hits of one search.
    pub k: usize,
    /// Labels of one classification.
    pub labels: usize,
    /// Labels times templates of one classification.
    pub prompts: usize,
    /// Examples that one head is learned from.
    pub examples: usize,
    /// Bytes of one text.
    pub text_bytes: usize,
    /// Bytes of one item's payload as JSON.
    pub payload_bytes: usize,
    /// Bytes of one picture file.
    pub picture_bytes: usize,
    /// Width times height of one picture, checked before it is decoded.
    pub picture_pixels: u64,
    /// Width or height of one picture, checked before it is decoded.
    pub picture_side: u32,
    /// Searches that are under way at once, for each core. Up to four times as many are a burst, and
    /// served; when there have been more for a tenth of a second they are answered with 429.
    pub searches_per_core: usize,
    /// Texts that wait for the text tower; more are answered with 429.
    pub queue_texts: usize,
    /// Pictures that are decoded or wait for the image tower; more are answered with 429.
    ///
    /// Of both queues, three quarters are for what is to be kept, and three quarters of what a
    /// class may have for one client.
    pub queue_images: usize,
    /// How long a text or picture that asks may wait for its embedding, in milliseconds; what would
    /// come later is answered with 503.
    pub query_deadline_ms: u64,
    /// The same for what is to be kept, from when it has its place in the queue.
    pub ingest_deadline_ms: u64,
    /// Inputs that one request has in a queue at a time.
    pub batch: usize,
    /// Tokens of one pass through the text tower. It is shorter where it would take too long.
    pub pass_tokens: usize,
    /// Patches of one pass through the image tower, in the same way.
    pub pass_patches: usize,
    /// Prompts whose embeddings are remembered between classifications.
    pub cached_prompts: usize,
    /// How long a body may pause, or the results of a stream go unread, before the request is
    /// given up, in milliseconds.
    pub body_pause_ms: u64,
    /// How long a request may take until its answer begins, in milliseconds. A stream of NDJSON, whose
    /// answer begins at once, may go on for longer.
    pub request_ms: u64,
    /// How long the first head of a connection, or its TLS handshake, may take to arrive, in
    /// milliseconds.
    pub head_ms: u64,
    /// How long a connection may be open between two requests, in milliseconds; 0 closes each after its
    /// first answer.
    pub idle_ms: u64,
    /// Connections that are open at once; more wait to be accepted. There are fewer where the system
    /// allows this process fewer open files.
    pub connections: usize,
    /// Requests per second of one key, or of one address where there are no keys; more are answered
    /// with 429. 0 for any number.
    pub requests_per_s: u32,
    /// Requests that may come at once before that is counted.
    pub request_burst: u32,
    /// Bytes of one file of the audit log, after which another is begun.
    pub audit_bytes: u64,
    /// Files of the audit log that are kept.
    pub audit_files: usize,
    /// How long a picture may take to be fetched, redirects included, in milliseconds.
    pub url_ms: u64,
    /// Pictures that are fetched at once, all requests together; more wait.
    pub url_fetches: usize,
    /// How long a tower may work without finishing anything before `/readyz` says 503, in
    /// milliseconds.
    pub stuck_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        const MIB: usize = 1 << 20;
        Self {
            body_bytes: 64 * MIB,
            items: 1_000,
            import_bytes: 8 << 30,
            k: 1_000,
            labels: 1_000,
            prompts: 10_000,
            examples: 10_000,
            text_bytes: 32 << 10,
            payload_bytes: 64 << 10,
            picture_bytes: 32 * MIB,
            picture_pixels: 50_000_000,
            picture_side: 32_768,
            searches_per_core: 16,
            queue_texts: 1_024,
            queue_images: 256,
            query_deadline_ms: 10_000,
            ingest_deadline_ms: 60_000,
            batch: 32,
            pass_tokens: 8_192,
            pass_patches: 8_192,
            cached_prompts: 4_096,
            body_pause_ms: 30_000,
            request_ms: 600_000,
            head_ms: 5_000,
            idle_ms: 5_000,
            connections: 10_240,
            requests_per_s: 0,
            request_burst: 100,
            audit_bytes: 16 << 20,
            audit_files: 8,
            url_ms: 10_000,
            url_fetches: 16,
            stuck_ms: 10_000,
        }
    }
}

impl Limits {
    /// The part that the picture decoder knows.
    pub(crate) fn decode(&self) -> DecodeLimits {
        DecodeLimits {
            max_bytes: self.picture_bytes,
            max_pixels: self.picture_pixels,
            max_side: self.picture_side,
        }
    }

    fn mistakes(&self) -> Vec<ServerError> {
        let positive = [
            ("limits.body_bytes", self.body_bytes),
            ("limits.items", self.items),
            ("limits.k", self.k),
            ("limits.labels", self.labels),
            ("limits.prompts", self.prompts),
            ("limits.examples", self.examples),
            ("limits.text_bytes", self.text_bytes),
            ("limits.searches_per_core", self.searches_per_core),
            ("limits.queue_texts", self.queue_texts),
            ("limits.queue_images", self.queue_images),
            ("limits.query_deadline_ms", self.query_deadline_ms as usize),
            (
                "limits.ingest_deadline_ms",
                self.ingest_deadline_ms as usize,
            ),
            ("limits.batch", self.batch),
            ("limits.pass_tokens", self.pass_tokens),
            ("limits.pass_patches", self.pass_patches),
            ("limits.cached_prompts", self.cached_prompts),
            ("limits.body_pause_ms", self.body_pause_ms as usize),
            ("limits.head_ms", self.head_ms as usize),
            ("limits.request_ms", self.request_ms as usize),
            ("limits.connections", self.connections),
            ("limits.request_burst", self.request_burst as usize),
            ("limits.audit_bytes", self.audit_bytes as usize),
            ("limits.audit_files", self.audit_files),
            ("limits.url_ms", self.url_ms as usize),
            ("limits.url_fetches", self.url_fetches),
        ];
        let zero = positive.into_iter().filter(|(_, value)| *value == 0);
        let zero = zero.map(|(name, _)| ServerError::ZeroLimit { name });
        let times = [
            ("limits.head_ms", self.head_ms),
            ("limits.idle_ms", self.idle_ms),
        ];
        let short = times
            .into_iter()
            .filter(|(_, ms)| (1..LEAST_MS).contains(ms));
        let short = short.map(|(name, value_ms)| ServerError::TooShort {
            name,
            value_ms,
            least_ms: LEAST_MS,
        });
        zero.chain(short).collect()
    }

    /// Inputs that one request may have in a queue at a time.
    pub(crate) fn window(&self) -> usize {
        let queue = self.queue_texts.min(self.queue_images);
        self.batch.min(most_of_one(queue, Class::Keep))
    }

    /// How long an input of this class may wait.
    pub(crate) fn deadline_ms(&self, class: Class) -> u64 {
        match class {
            Class::Ask => self.query_deadline_ms,
            Class::Keep => self.ingest_deadline_ms,
        }
    }

    /// What a tower may do whose queue is for so many inputs and whose pass for so much.
    pub(crate) fn tower(&self, capacity: usize, pass_cost: usize) -> TowerLimits {
        TowerLimits {
            capacity,
            pass_cost,
            deadlines: Class::ALL.map(|class| Duration::from_millis(self.deadline_ms(class))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn an_address_that_others_reach_needs_the_insecure_flag() {
        let open = ServerConfig {
            bind: ([0, 0, 0, 0], 7700).into(),
            ..ServerConfig::default()
        };
        assert!(matches!(
            open.validate(),
            Err(ServerError::NotLoopback { .. })
        ));
        assert!(
            ServerConfig {
                insecure: true,
                ..open
            }
            .validate()
            .is_ok()
        );
        let local = ServerConfig {
            bind: ([127, 0, 0, 9], 0).into(),
            ..ServerConfig::default()
        };
        assert!(local.validate().is_ok());
    }

    #[test]
    fn the_table_of_limits_has_all_of_them_with_their_defaults() {
        let limits = serde_json::to_value(Limits::default()).expect("is JSON");
        let defaults = limits.as_object().expect("an object").iter();
        let expected: BTreeSet<_> = defaults.map(|(k, v)| (k.clone(), v.to_string())).collect();
        let table = include_str!("../../docs/limits.md").lines();
        let listed: BTreeSet<_> = table
            .filter_map(|line| line.strip_prefix("| `")?.split_once("` | "))
            .map(|(key, rest)| {
                (
                    key.to_owned(),
                    rest.split(' ').next().unwrap_or("").to_owned(),
                )
            })
            .collect();
        assert_eq!(listed, expected);
    }

    #[test]
    fn a_time_that_would_not_be_kept_is_refused() {
        let mut config = ServerConfig::default();
        config.limits.head_ms = 999;
        let refused = config.validate().expect_err("is too short");
        let said = refused.to_string();
        assert_eq!(said, "limits.head_ms is 999, expected at least 1000");
    }

    #[test]
    fn a_limit_of_zero_is_refused_by_name() {
        let limits = Limits {
            batch: 0,
            ..Limits::default()
        };
        let refused = ServerConfig {
            limits,
            ..ServerConfig::default()
        }
        .validate();
        assert!(matches!(
            refused,
            Err(ServerError::ZeroLimit {
                name: "limits.batch"
            })
        ));
    }
}
