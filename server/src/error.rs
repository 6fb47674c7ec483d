//! Why the server does not start or ends badly.

use std::{net::SocketAddr, path::PathBuf};

use thiserror::Error;

use crate::KeyError;

/// Why the server does not start or ends badly. What a request can do wrong is not here: that is
/// answered over HTTP.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ServerError {
    /// Another process listens there.
    #[error("port {} is in use: choose another with --port", addr.port())]
    PortInUse {
        /// The address that was asked for.
        addr: SocketAddr,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {addr}")]
    Bind {
        /// The address that was asked for.
        addr: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Anyone on the network could read and delete everything.
    #[error(
        "{bind} can be reached from other machines and there are no API keys: make one with \
         `diptych key add NAME --role admin`, bind 127.0.0.1, or allow it with --insecure"
    )]
    NotLoopback {
        /// The address that was asked for.
        bind: SocketAddr,
    },
    /// A limit that would refuse everything.
    #[error("{name} is 0, expected at least 1")]
    ZeroLimit {
        /// The setting.
        name: &'static str,
    },
    /// The API keys cannot be read.
    #[error(transparent)]
    Keys(#[from] KeyError),
    /// The certificate or its key cannot be used.
    #[error("TLS: {} cannot be used: {reason}", file.display())]
    Tls {
        /// The file.
        file: PathBuf,
        /// Why.
        reason: String,
    },
    /// Pictures cannot be fetched from what is named.
    #[error("`allow` in [urls]")]
    Urls(#[from] fetch::FetchError),
    /// No page has this origin.
    #[error(
        "{origin:?} in `cors` is no origin: expected a scheme and a host, as https://app.example.com"
    )]
    BadOrigin {
        /// What was set.
        origin: String,
    },
    /// A time so short that it would not be kept.
    #[error("{name} is {value_ms}, expected at least {least_ms}")]
    TooShort {
        /// The setting.
        name: &'static str,
        /// What was set, in milliseconds.
        value_ms: u64,
        /// What it may be at least.
        least_ms: u64,
    },
    /// A number beyond reason.
    #[error("{name} is {value}, expected at most {most}")]
    TooMuch {
        /// The setting.
        name: &'static str,
        /// What was set.
        value: u64,
        /// What it may be at most.
        most: u64,
    },
    /// No request can call this machine so.
    #[error(
        "{host:?} in `hosts` is no host name: expected the name alone, as pictures.example.com"
    )]
    BadHost {
        /// What was set.
        host: String,
    },
    /// A metric cannot be registered.
    #[error("the metrics cannot be set up")]
    Metrics(#[from] prometheus::Error),
    /// The system refuses threads, timers or signals, or serving ended with an error.
    #[error("the server failed")]
    Io(#[from] std::io::Error),
    /// The serving thread ended by a panic, which was reported where it happened.
    #[error("the serving thread panicked")]
    Panicked,
}
