//! Binding, serving, and stopping without losing what was accepted.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    sync::{Arc, atomic::Ordering, mpsc},
    thread::JoinHandle,
};

use actix_web::{
    App, HttpServer,
    dev::ServerHandle,
    middleware::from_fn,
    rt::System,
    web::{self, Data},
};
use engine::Engine;
use tokio::sync::oneshot;

use crate::{
    ServerError, config::ServerConfig, jobs::Jobs, model::ModelHandle, observe::observe, routes,
    state::AppState,
};

/// Connections that are open at once, on all workers together; more wait to be accepted.
const MAX_CONNECTIONS: usize = 1_024;

/// A server that answers. Dropping it stops it at once; see [`RunningServer::stop`].
pub struct RunningServer {
    addr: SocketAddr,
    handle: ServerHandle,
    state: Data<AppState>,
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
    let (send_handle, handle) = mpsc::channel();
    let (send_ended, ended) = oneshot::channel();
    let theirs = state.clone();
    let thread = std::thread::Builder::new()
        .name("http".into())
        .spawn(move || {
            let served = System::new().block_on(serve(config, listener, theirs, send_handle));
            // Whoever waited may be gone.
            let _ = send_ended.send(());
            served
        })?;
    match handle.recv() {
        Ok(handle) => Ok(RunningServer {
            addr,
            handle,
            state,
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
    TcpListener::bind(bind).map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => ServerError::PortInUse { addr: bind },
        _ => ServerError::Bind { addr: bind, source },
    })
}

async fn serve(
    config: ServerConfig,
    listener: TcpListener,
    state: Data<AppState>,
    send_handle: mpsc::Sender<ServerHandle>,
) -> io::Result<()> {
    let shared = state.clone();
    let app = move || {
        App::new()
            .app_data(shared.clone())
            .wrap(from_fn(observe))
            .configure(routes::configure)
            .default_service(web::to(routes::no_route))
    };
    let server = HttpServer::new(app)
        .workers(config.workers)
        .max_connections((MAX_CONNECTIONS / config.workers).max(1))
        .shutdown_timeout(config.shutdown_s)
        // A client that closed its side is gone: what it asked for is dropped from the queues.
        .h1_allow_half_closed(false)
        .disable_signals()
        .listen(listener)?
        .run();
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

    /// Serves until the process is asked to stop (SIGINT or SIGTERM), then as
    /// [`RunningServer::stop`]. After a second signal this returns at once and leaves behind what
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
            tokio::select! {
                // An end without a signal is an error, told when the thread is joined.
                _ = &mut self.ended => return Ok::<_, io::Error>(()),
                () = signals.next() => self.begin_stop(),
            }
            tokio::select! {
                _ = &mut self.ended => {}
                () = signals.next() => {
                    // The server listens to nothing else before its graceful stop is over, and a
                    // tower that is stuck never ends: nobody waits for that thread.
                    tracing::warn!("stopping at once: requests are left unanswered");
                    self.thread = None;
                }
            }
            Ok(())
        })?;
        self.join()
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

/// Requests to stop from outside.
struct Signals {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    #[cfg(unix)]
    fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    #[cfg(unix)]
    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    #[cfg(not(unix))]
    fn new() -> io::Result<Self> {
        Ok(Self {})
    }

    #[cfg(not(unix))]
    async fn next(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            // Without signals the server runs until its process is ended.
            std::future::pending::<()>().await;
        }
    }
}
