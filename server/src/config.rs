//! What the operator decides before the server starts.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use encoders::DecodeLimits;
use serde::Deserialize;

use crate::{
    ServerError,
    tower::{Class, TowerLimits, most_of_one},
};

/// The port that is served when none is named.
pub const DEFAULT_PORT: u16 = 7700;

/// How the server is reached and what it may touch.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServerConfig {
    /// Where to listen. Port 0 lets the system choose one; see [`crate::RunningServer::addr`].
    pub bind: SocketAddr,
    /// Allows a bind that other machines can reach, and requests that call this machine by any
    /// name; otherwise `Host` must be an IP address or `localhost`. There is no authentication yet.
    pub insecure: bool,
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
    /// Threads that speak HTTP. They never encode or search.
    pub workers: usize,
    /// How long a graceful stop waits for accepted requests, in seconds.
    pub shutdown_s: u64,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            bind: SocketAddr::from((Ipv4Addr::LOCALHOST, DEFAULT_PORT)),
            insecure: false,
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
    /// When the address is reachable from outside and `insecure` is not set, or a limit is zero.
    pub fn validate(&self) -> Result<(), ServerError> {
        if !self.bind.ip().is_loopback() && !self.insecure {
            return Err(ServerError::NotLoopback { bind: self.bind });
        }
        if self.workers == 0 {
            return Err(ServerError::ZeroLimit { name: "workers" });
        }
        self.limits.validate()
    }
}

/// The most that one request, or all of them together, may ask for.
#[derive(Debug, Clone, Deserialize)]
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
            queue_texts: 1_024,
            queue_images: 256,
            query_deadline_ms: 10_000,
            ingest_deadline_ms: 60_000,
            batch: 32,
            pass_tokens: 8_192,
            pass_patches: 8_192,
            cached_prompts: 4_096,
            body_pause_ms: 30_000,
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

    fn validate(&self) -> Result<(), ServerError> {
        let positive = [
            ("limits.body_bytes", self.body_bytes),
            ("limits.items", self.items),
            ("limits.k", self.k),
            ("limits.labels", self.labels),
            ("limits.prompts", self.prompts),
            ("limits.examples", self.examples),
            ("limits.text_bytes", self.text_bytes),
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
        ];
        match positive.into_iter().find(|(_, value)| *value == 0) {
            Some((name, _)) => Err(ServerError::ZeroLimit { name }),
            None => Ok(()),
        }
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
