//! `diptych serve`: the collections over HTTP.

use std::{collections::BTreeSet, net::SocketAddr, path::PathBuf, sync::Arc};

use anyhow::{Context, Result};
use encoders::Model;
use engine::Engine;
use server::ServerConfig;
use toml::Value;

use crate::{
    args::{Places, ServeArgs},
    home::{self, Home},
    output,
    settings::{Settings, layers::Layers},
    telemetry,
};

/// Lays the flags of `serve` upon the other settings.
///
/// # Errors
/// When a number is larger than a setting can be.
pub fn flags(layers: &mut Layers, args: &ServeArgs) -> Result<()> {
    if args.bind.is_some() || args.port.is_some() {
        let below = layers.settle::<Settings>()?.bind;
        let port = args.port.or(args.bind.and_then(|bind| bind.port));
        let bind = SocketAddr::new(
            args.bind.map_or(below.ip(), |bind| bind.ip),
            port.unwrap_or(below.port()),
        );
        layers.flag("bind", Some(bind.to_string()))?;
    }
    let queue = args.queue.map(i64::try_from).transpose()?;
    let bytes = args.index_memory.map(|mib| mib.saturating_mul(1 << 20));
    let deadline = args.deadline_ms.map(i64::try_from).transpose()?;
    layers.flag("insecure", args.insecure.then_some(true))?;
    layers.flag("limits.queue_texts", queue)?;
    layers.flag("limits.queue_images", queue)?;
    layers.flag("limits.query_deadline_ms", deadline)?;
    layers.flag("index.target_recall", args.target_recall)?;
    layers.flag("index.seal_share", args.seal_share)?;
    layers.flag("index.memory_bytes", bytes.map(i64::try_from).transpose()?)?;
    let format = args.log_format.map(Value::try_from).transpose()?;
    layers.flag("log.format", format)?;
    layers.flag("telemetry.otlp_endpoint", args.otlp_endpoint.clone())?;
    Ok(())
}

/// Serves until a signal comes.
///
/// # Errors
/// When the address, the model or the data folder cannot be used.
pub fn run(places: &Places, args: &ServeArgs, settings: &Settings) -> Result<()> {
    let home = Home::new(places)?;
    let mut config = config(&home, settings)?;
    if let Some(dir) = &args.snapshots {
        config.snapshots = Some(std::path::absolute(dir)?);
    }
    config.validate()?;
    let engine = settings.engine()?;
    server::check_port(config.bind)?;
    // Until the server has ended.
    let _exporting = telemetry::start(&settings.telemetry)?;
    let engine = home.open_or_create_with(engine)?;
    let model = home::model(places)?;
    let scheme = if config.tls.is_some() {
        "https"
    } else {
        "http"
    };
    serve(config, engine, model, |address| {
        output::line(&format!("serving on {scheme}://{address}"))
    })
}

/// What the server may do with this data folder.
///
/// # Errors
/// When the list of indexed folders is there but cannot be read, or settings do not fit together.
pub fn config(home: &Home, settings: &Settings) -> Result<ServerConfig> {
    let mut config = settings.server()?;
    config.media_roots.extend(indexed_roots(home)?);
    config.media_roots.push(home.gallery());
    config.thumbnails = Some(home.root().join("thumbnails"));
    config.keys = Some(home.keys());
    config.audit = Some(home.audit());
    config.snapshots = Some(if settings.snapshots.as_os_str().is_empty() {
        home.snapshots()
    } else {
        std::path::absolute(&settings.snapshots)?
    });
    config.jobs = Some(home.root().join("jobs"));
    Ok(config)
}

/// Serves until a signal comes; `announce` is told the address once it is bound.
///
/// # Errors
/// When the address cannot be bound, or the server fails.
pub fn serve(
    config: ServerConfig,
    engine: Engine,
    model: Model,
    announce: impl FnOnce(SocketAddr) -> std::io::Result<()>,
) -> Result<()> {
    let running = server::start(config, Arc::new(engine), model)?;
    announce(running.addr())?;
    Ok(running.wait_for_signal()?)
}

/// Remembers folders whose pictures were indexed, so that the page may show them.
///
/// # Errors
/// When the list cannot be read or written.
pub fn remember_roots(home: &Home, roots: &[PathBuf]) -> Result<()> {
    let mut known = indexed_roots(home)?;
    let before = known.len();
    for root in roots {
        // What lies inside a known folder is shown already.
        if !root.ancestors().any(|folder| known.contains(folder)) {
            known.insert(root.clone());
        }
    }
    if known.len() == before {
        return Ok(());
    }
    let (file, aside) = (roots_file(home), home.root().join("indexed_roots.json.new"));
    // Paths that are no UTF-8 cannot be written as JSON; their pictures are found but not shown.
    let known: Vec<&str> = known.iter().filter_map(|path| path.to_str()).collect();
    fs_err::write(&aside, serde_json::to_vec_pretty(&known)?)?;
    Ok(fs_err::rename(aside, file)?)
}

fn indexed_roots(home: &Home) -> Result<BTreeSet<PathBuf>> {
    let file = roots_file(home);
    match fs_err::read(&file) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .with_context(|| format!("{} is damaged; remove it and index again", file.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(BTreeSet::new()),
        Err(error) => Err(error.into()),
    }
}

fn roots_file(home: &Home) -> PathBuf {
    home.root().join("indexed_roots.json")
}
