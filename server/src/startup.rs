//! Binding, serving, and stopping without losing what was accepted.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    sync::{Arc, atomic::Ordering, mpsc},
    thread::JoinHandle,
    time::Duration,
};

use actix_cors::Cors;
use actix_web::{
    App, HttpServer,
    dev::ServerHandle,
    middleware::{Condition, from_fn},
    rt::System,
    web::{self, Data},
};
use engine::Engine;
use tokio::sync::oneshot;

use crate::{
    ServerError, config::ServerConfig, jobs::Jobs, model::ModelHandle, observe::observe, routes,
    state::AppState, tls::Certificate, watch::Watch,
};

/// Open files that are left for the store, snapshots and indexes when all connections are open.
const OTHER_FILES: u64 = 512;

/// Connections that wait to be accepted; the system may allow fewer.
const WAITING: i32 = 4_096;

/// Open files of one connection: its own, and that of `watch`.
const FILES_EACH: u64 = 2;

/// How long a browser may remember what a page of another origin may send, in seconds.
const CORS_AGE_S: usize = 600;

/// A server that answers. Dropping it stops it at once; see [`RunningServer::stop`].
pub struct RunningServer {
    addr: SocketAddr,
    handle: ServerHandle,
    state: Data<AppState>,
    certificate: Option<Arc<Certificate>>,
    thread: Option<JoinHandle<io::Result<()>>>,
    ended: oneshot::Receiver<()>,
}

/// Serves until the process is asked to stop (SIGINT or SIGTERM).
///
/// # Errors
/// See [`start`]; also when serving fails later.
pub fn run(
    config: ServerConfig,
    engine: Arc<Engine>,
    model: impl Into<ModelHandle>,
) -> Result<(), ServerError> {
    start(config, engine, model)?.wait_for_signal()
}

/// Binds, and serves on threads of its own. When this returns, clients can connect.
///
/// # Errors
/// When the configuration is refused, the address cannot be bound, or threads cannot be started.
pub fn start(
    config: ServerConfig,
    engine: Arc<Engine>,
    model: impl Into<ModelHandle>,
) -> Result<RunningServer, ServerError> {
    config.validate()?;
    let listener = listen(config.bind)?;
    let addr = listener.local_addr()?;
    let state = Data::new(AppState::new(&config, engine, model.into())?);
    Jobs::start(&state)?;
    if !config.bind.ip().is_loopback() && config.tls.is_none() {
        tracing::warn!(
            "others on the network can read what is sent, keys included: use TLS, or a proxy that does"
        );
    }
    let certificate = config.tls.clone().map(Certificate::new).transpose()?;
    let tls = certificate.as_ref().map(Certificate::config).transpose();
    let tls = tls.map_err(io::Error::other)?;
    let (send_handle, handle) = mpsc::channel();
    let (send_ended, ended) = oneshot::channel();
    let theirs = state.clone();
    let thread = std::thread::Builder::new()
        .name("http".into())
        .spawn(move || {
            let served =
                System::new().block_on(serve(config, (listener, tls), theirs, send_handle));
            // Whoever waited may be gone.
            let _ = send_ended.send(());
            served
        })?;
    match handle.recv() {
        Ok(handle) => Ok(RunningServer {
            addr,
            handle,
            state,
            certificate,
            thread: Some(thread),
            ended,
        }),
        // The thread ended before it served; it knows why.
        Err(_) => Err(join(thread).err().unwrap_or(ServerError::Panicked)),
    }
}

/// Says early what would otherwise fail late: that an address cannot be listened on.
///
/// # Errors
/// When it cannot be, as [`start`] would say it.
pub fn check_port(bind: SocketAddr) -> Result<(), ServerError> {
    listen(bind).map(drop)
}

fn listen(bind: SocketAddr) -> Result<TcpListener, ServerError> {
    let listener = TcpListener::bind(bind).map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => ServerError::PortInUse { addr: bind },
        _ => ServerError::Bind { addr: bind, source },
    })?;
    // The standard library has room for 128, which a crowd fills in a moment: who comes then is not
    // told so, and tries again a second later.
    socket2::SockRef::from(&listener).listen(WAITING)?;
    Ok(listener)
}

async fn serve(
    config: ServerConfig,
    (listener, tls): (TcpListener, Option<rustls::ServerConfig>),
    state: Data<AppState>,
    send_handle: mpsc::Sender<ServerHandle>,
) -> io::Result<()> {
    let shared = state.clone();
    let origins = config.cors.clone();
    let app = move || {
        App::new()
            .app_data(shared.clone())
            .wrap(from_fn(observe))
            .wrap(Condition::new(!origins.is_empty(), cors(&origins)))
            .configure(routes::configure)
            .default_service(web::to(routes::no_route))
    };
    let limits = &config.limits;
    let head = Duration::from_millis(limits.head_ms);
    // Where connections are closed after each answer, there is no second head to wait for.
    let idle = Duration::from_millis(limits.idle_ms);
    let watch = (!idle.is_zero()).then(|| Watch::new(idle + head));
    if let Some(watch) = watch.clone() {
        actix_web::rt::spawn(watch.run());
    }
    let server = HttpServer::new(app)
        .on_connect(move |io, data| {
            if let Some(watch) = &watch {
                watch.connected(io, data);
            }
        })
        .workers(config.workers)
        .max_connections((connections(limits.connections) / config.workers).max(1))
        .client_request_timeout(head)
        .tls_handshake_timeout(head)
        .keep_alive(idle)
        .shutdown_timeout(config.shutdown_s)
        // A client that closed its side is gone: what it asked for is dropped from the queues.
        .h1_allow_half_closed(false)
        .disable_signals();
    let server = match tls {
        Some(tls) => server.listen_rustls_0_23(listener, tls)?,
        None => server.listen(listener)?,
    };
    let server = server.run();
    // Whoever started may be gone; then the handle has no use.
    let _ = send_handle.send(server.handle());
    let served = server.await;
    let closing = state.clone();
    // They wait for towers.
    closing.jobs.close();
    // Joining threads blocks, which this thread may do: nothing else runs on it any more.
    closing.texts.close();
    closing.images.close();
    served
}

/// What pages of these origins may send, and read of the answers.
fn cors(origins: &[String]) -> Cors {
    let cors = Cors::default()
        .allowed_methods(["GET", "POST", "PUT", "PATCH", "DELETE"])
        .allowed_headers([
            "authorization",
            "content-type",
            "traceparent",
            "tracestate",
            "x-api-key",
            "x-request-id",
        ])
        .expose_headers(["retry-after", "x-durability", "x-request-id"])
        .max_age(CORS_AGE_S);
    origins
        .iter()
        .fold(cors, |cors, origin| cors.allowed_origin(origin))
}

/// How many connections may be open, within what the system allows this process.
#[cfg(unix)]
fn connections(wanted: usize) -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let needed = FILES_EACH * wanted as u64 + OTHER_FILES;
    let mut files = current.unwrap_or(u64::MAX);
    if files < needed {
        let more = maximum.unwrap_or(u64::MAX).min(needed);
        let raised = Rlimit {
            current: Some(more),
            maximum,
        };
        if setrlimit(Resource::Nofile, raised).is_ok() {
            files = more;
        }
    }
    let possible = files.saturating_sub(OTHER_FILES).max(files / 2) / FILES_EACH;
    let possible = possible as usize;
    if possible < wanted {
        tracing::warn!(
            connections = possible,
            wanted,
            "the limit of open files allows fewer connections: raise `ulimit -n`"
        );
    }
    wanted.min(possible)
}

#[cfg(not(unix))]
fn connections(wanted: usize) -> usize {
    wanted
}

impl RunningServer {
    /// Where clients connect.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Finishes what was accepted, refuses what comes after, and returns when all is done or
    /// [`ServerConfig::shutdown_s`] is over.
    ///
    /// # Errors
    /// When serving had failed.
    pub fn stop(mut self) -> Result<(), ServerError> {
        self.begin_stop();
        self.join()
    }

    /// Reads the certificate and its key again, if there is TLS. Connections that are open go on.
    ///
    /// # Errors
    /// When they cannot be used; those that were read before stay.
    pub fn reload(&self) -> Result<(), ServerError> {
        match &self.certificate {
            Some(certificate) => certificate.reload(),
            None => Ok(()),
        }
    }

    /// Serves until the process is asked to stop (SIGINT or SIGTERM), then as
    /// [`RunningServer::stop`]. SIGHUP is as [`RunningServer::reload`]. After a second signal this returns at once and leaves behind what
    /// still runs: the process is expected to end.
    ///
    /// # Errors
    /// When signals cannot be received, or serving failed.
    pub fn wait_for_signal(mut self) -> Result<(), ServerError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async {
            let mut signals = Signals::new()?;
            loop {
                tokio::select! {
                    // An end without a signal is an error, told when the thread is joined.
                    _ = &mut self.ended => return Ok::<_, io::Error>(()),
                    signal = signals.next() => match signal {
                        Signal::Stop => break,
                        Signal::Reload => self.reload_or_tell(),
                    },
                }
            }
            self.begin_stop();
            loop {
                tokio::select! {
                    _ = &mut self.ended => break,
                    signal = signals.next() => if signal == Signal::Stop {
                        // The server listens to nothing else before its graceful stop is over, and a
                        // tower that is stuck never ends: nobody waits for that thread.
                        tracing::warn!("stopping at once: requests are left unanswered");
                        self.thread = None;
                        break;
                    },
                }
            }
            Ok(())
        })?;
        self.join()
    }

    fn reload_or_tell(&self) {
        match self.reload() {
            Ok(()) => tracing::info!("the certificate was read again"),
            Err(error) => tracing::error!(%error, "the certificate stays as it was"),
        }
    }

    fn begin_stop(&self) {
        tracing::info!("stopping: accepted requests are finished, new ones refused");
        self.state.stopping.store(true, Ordering::Release);
        // The command is sent at once; the future only waits.
        drop(self.handle.stop(true));
    }

    fn join(&mut self) -> Result<(), ServerError> {
        self.thread.take().map_or(Ok(()), join)
    }
}

impl Drop for RunningServer {
    fn drop(&mut self) {
        if self.thread.is_some() {
            drop(self.handle.stop(false));
            if let Err(error) = self.join() {
                tracing::error!(error = %error, "the server ended badly");
            }
        }
    }
}

fn join(thread: JoinHandle<io::Result<()>>) -> Result<(), ServerError> {
    thread
        .join()
        .map_err(|_| ServerError::Panicked)?
        .map_err(ServerError::Io)
}

/// What is asked for from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Signal {
    Stop,
    /// Read again what may have changed.
    Reload,
}

/// Where signals come from.
struct Signals {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
    #[cfg(unix)]
    hangup: tokio::signal::unix::Signal,
}

impl Signals {
    #[cfg(unix)]
    fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    #[cfg(unix)]
    async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.terminate.recv() => Signal::Stop,
            _ = self.interrupt.recv() => Signal::Stop,
            _ = self.hangup.recv() => Signal::Reload,
        }
    }

    #[cfg(not(unix))]
    fn new() -> io::Result<Self> {
        Ok(Self {})
    }

    #[cfg(not(unix))]
    async fn next(&mut self) -> Signal {
        if tokio::signal::ctrl_c().await.is_err() {
            // Without signals the server runs until its process is ended.
            std::future::pending::<()>().await;
        }
        Signal::Stop
    }
}
