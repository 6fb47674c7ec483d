//! Connections that were answered and do not ask again in time.
//!
//! The HTTP library times the first head of a connection, and how long it may be idle, but no later
//! head: whoever sends one a byte at a time would hold the connection for ever. So each connection
//! has a second handle here, by which it is shut down when it has been between two requests for as long
//! as it may be idle and a head may take.

use std::{
    any::Any,
    net::{Shutdown, TcpStream},
    pin::Pin,
    sync::{Arc, Weak},
    task::{Context, Poll},
    time::{Duration, Instant},
};

#[cfg(unix)]
use actix_tls::accept::rustls_0_23::TlsStream;
#[cfg(unix)]
use actix_web::rt::net;
use actix_web::{
    body::{BodySize, BoxBody, MessageBody},
    dev::Extensions,
    rt::time::sleep,
};
use bytes::Bytes;
use parking_lot::Mutex;

use crate::trace::Ending;

/// How often connections are looked at.
const LOOK: Duration = Duration::from_millis(500);

/// All connections.
#[derive(Clone)]
pub(crate) struct Watch {
    all: Arc<Mutex<Vec<Weak<Watched>>>>,
    patience: Duration,
}

/// One connection.
pub(crate) struct Watched {
    socket: TcpStream,
    state: Mutex<State>,
}

/// Requests that are being answered, and since when there are none. Before the first one, the HTTP
/// library takes care.
#[derive(Default)]
struct State {
    busy: usize,
    idle_since: Option<Instant>,
}

/// A request that is being answered, until its body has been sent.
pub(crate) struct Busy(Arc<Watched>);

impl Watch {
    /// Connections may be between two requests for so long.
    pub(crate) fn new(patience: Duration) -> Self {
        Self {
            all: Arc::default(),
            patience,
        }
    }

    /// Takes a new connection in.
    pub(crate) fn connected(&self, io: &dyn Any, data: &mut Extensions) {
        // Without a handle the connection is as the HTTP library has it.
        let Some(socket) = second_handle(io) else {
            return;
        };
        let watched = Arc::new(Watched {
            socket,
            state: Mutex::default(),
        });
        self.all.lock().push(Arc::downgrade(&watched));
        data.insert(watched);
    }

    /// Shuts down those that are late, for ever.
    pub(crate) async fn run(self) {
        loop {
            sleep(LOOK).await;
            self.all.lock().retain(|one| {
                let one = one.upgrade();
                one.inspect(|one| one.shut_if_late(self.patience)).is_some()
            });
        }
    }
}

impl Watched {
    /// A request of this connection is being answered.
    pub(crate) fn busy(self: &Arc<Self>) -> Busy {
        let mut state = self.state.lock();
        state.busy += 1;
        state.idle_since = None;
        Busy(Arc::clone(self))
    }

    fn shut_if_late(&self, patience: Duration) {
        let idle_since = self.state.lock().idle_since;
        if idle_since.is_some_and(|since| since.elapsed() > patience) {
            // It may be closed already.
            let _ = self.socket.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.busy -= 1;
        if state.busy == 0 {
            state.idle_since = Some(Instant::now());
        }
    }
}

#[cfg(unix)]
fn second_handle(io: &dyn Any) -> Option<TcpStream> {
    use std::os::fd::AsFd as _;
    let socket = if let Some(plain) = io.downcast_ref::<net::TcpStream>() {
        plain.as_fd()
    } else {
        let tls = io.downcast_ref::<TlsStream<net::TcpStream>>()?;
        tls.get_ref().0.as_fd()
    };
    Some(socket.try_clone_to_owned().ok()?.into())
}

#[cfg(not(unix))]
fn second_handle(_: &dyn Any) -> Option<TcpStream> {
    None
}

/// A body, and the request that it answers.
pub(crate) struct Held {
    body: BoxBody,
    _busy: Option<Busy>,
    _ending: Ending,
}

impl Held {
    /// The body, until which has been sent its connection is busy and its request in the trace.
    pub(crate) fn new(body: BoxBody, busy: Option<Busy>, ending: Ending) -> Self {
        Self {
            body,
            _busy: busy,
            _ending: ending,
        }
    }
}

impl MessageBody for Held {
    type Error = <BoxBody as MessageBody>::Error;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Self::Error>>> {
        Pin::new(&mut self.body).poll_next(context)
    }
}
