//! Why the server does not start or ends badly.

use std::net::SocketAddr;

use thiserror::Error;

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
        "{bind} can be reached from other machines and there is no authentication: \
         bind 127.0.0.1, or allow it with --insecure"
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
