//! Names into addresses.

use std::{
    fmt::Debug,
    io,
    net::{IpAddr, ToSocketAddrs as _},
    sync::mpsc,
    thread,
    time::Duration,
};

/// Turns a name into its addresses.
pub trait Resolve: Debug + Send + Sync {
    /// All addresses of `host`, within `limit`.
    ///
    /// # Errors
    /// When it has none, or the answer does not come in time.
    fn resolve(&self, host: &str, limit: Duration) -> io::Result<Vec<IpAddr>>;
}

/// What the system says.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemResolver;

impl Resolve for SystemResolver {
    fn resolve(&self, host: &str, limit: Duration) -> io::Result<Vec<IpAddr>> {
        let (send, answer) = mpsc::channel();
        let host = host.to_owned();
        // The system's own patience is not ours, and cannot be told.
        thread::Builder::new()
            .name("resolve".into())
            .spawn(move || {
                let found = (host.as_str(), 0).to_socket_addrs();
                let found = found.map(|all| all.map(|address| address.ip()).collect());
                // Whoever asked may be gone.
                let _ = send.send(found);
            })?;
        let late = |_| io::Error::from(io::ErrorKind::TimedOut);
        answer.recv_timeout(limit).map_err(late)?
    }
}
