//! `diptych serve`: the collections over HTTP.

use std::{collections::BTreeSet, net::SocketAddr, path::PathBuf, sync::Arc};

use anyhow::{Context, Result};
use encoders::Model;
use engine::{Engine, EngineConfig};
use server::ServerConfig;

use crate::{
    args::{Places, ServeArgs},
    home::{self, Home},
    output,
};

/// Serves until a signal comes.
///
/// # Errors
/// When the address, the model or the data folder cannot be used.
pub fn run(places: &Places, args: &ServeArgs) -> Result<()> {
    let bind = SocketAddr::new(args.bind, args.port);
    let home = Home::new(places)?;
    let mut config = config(&home, bind, args.insecure)?;
    if let Some(dir) = &args.snapshots {
        config.snapshots = Some(std::path::absolute(dir)?);
    }
    let limits = &mut config.limits;
    if let Some(inputs) = args.queue {
        (limits.queue_texts, limits.queue_images) = (inputs, inputs);
    }
    limits.query_deadline_ms = args.deadline_ms.unwrap_or(limits.query_deadline_ms);
    config.validate()?;
    server::check_port(bind)?;
    let engine = home.open_or_create_with(engine_config(args))?;
    let model = home::model(places)?;
    serve(config, engine, model, |address| {
        output::line(&format!("serving on http://{address}"))
    })
}

fn engine_config(args: &ServeArgs) -> EngineConfig {
    let default = EngineConfig::default();
    EngineConfig {
        target_recall: args.target_recall.unwrap_or(default.target_recall),
        seal_share: args.seal_share.unwrap_or(default.seal_share),
        index_memory_bytes: args.index_memory.map(|mib| mib.saturating_mul(1 << 20)),
        ..default
    }
}

/// What the server may do with this data folder.
///
/// # Errors
/// When the list of indexed folders is there but cannot be read.
pub fn config(home: &Home, bind: SocketAddr, insecure: bool) -> Result<ServerConfig> {
    let mut media_roots: Vec<PathBuf> = indexed_roots(home)?.into_iter().collect();
    media_roots.push(home.gallery());
    let thumbnails = Some(home.root().join("thumbnails"));
    Ok(ServerConfig {
        bind,
        insecure,
        media_roots,
        thumbnails,
        snapshots: Some(home.snapshots()),
        jobs: Some(home.root().join("jobs")),
        ..ServerConfig::default()
    })
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
