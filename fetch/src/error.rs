//! Why a file is not fetched.

use std::time::Duration;

use thiserror::Error;

/// Why a file is not fetched. The messages are for whoever named the address: of the network that
/// the operator is in, they tell nothing.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum FetchError {
    /// It is no address of a file on the web.
    #[error("it is no address that can be fetched: {reason}")]
    BadUrl {
        /// What is wrong with it.
        reason: String,
    },
    /// The operator has not named this host.
    #[error("nothing is fetched from {host:?}: its operator has not allowed that")]
    NotAllowed {
        /// The host.
        host: String,
    },
    /// The port is not that of the scheme.
    #[error("nothing is fetched from port {port}")]
    Port {
        /// The port.
        port: u16,
    },
    /// The name leads to an address that is not public.
    #[error("{host:?} is not on the public network")]
    NotPublic {
        /// The host.
        host: String,
    },
    /// The name leads nowhere.
    #[error("{host:?} has no address")]
    Unresolved {
        /// The host.
        host: String,
    },
    /// Too many redirects.
    #[error("it was redirected more than {most} times")]
    Redirects {
        /// How many are followed.
        most: usize,
    },
    /// The answer is another one than the file.
    #[error("{host:?} answered {status}")]
    Status {
        /// The host.
        host: String,
        /// Its answer.
        status: u16,
    },
    /// What arrives would have to be unpacked first, to nobody knows how much.
    #[error("{host:?} answered in the encoding {encoding:?}, which was not asked for")]
    Encoded {
        /// The host.
        host: String,
        /// The encoding.
        encoding: String,
    },
    /// The file is too large.
    #[error("it has more than {limit} bytes")]
    TooLarge {
        /// The most that is fetched.
        limit: u64,
    },
    /// It took too long.
    #[error("it was not there within {} ms", limit.as_millis())]
    TooSlow {
        /// How long is waited.
        limit: Duration,
    },
    /// The connection failed.
    #[error("{host:?} could not be asked")]
    Failed {
        /// The host.
        host: String,
        /// Why.
        #[source]
        source: Box<ureq::Error>,
    },
    /// An entry of the list of hosts is none.
    #[error(
        "{entry:?} names no host: expected a name such as images.example.com, *.example.org, or *"
    )]
    BadEntry {
        /// The entry.
        entry: String,
    },
}
