//! What every request can reach.

use std::{
    num::NonZeroUsize,
    path::PathBuf,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use actix_web::web;
use embedding::Embedding;
use encoders::Pixels;
use engine::{Collection, Engine};
use lru::LruCache;
use parking_lot::Mutex;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use crate::{
    Audit, ServerError,
    access::{Access, Grant},
    body,
    config::{Limits, ServerConfig},
    crowd::Crowd,
    jobs::Jobs,
    maps::Maps,
    metrics::Metrics,
    model::ModelHandle,
    pools::Pools,
    reply::ApiError,
    thumbnails::Thumbnails,
    tower::{Client, Tower},
    trace::carried,
    urls::Urls,
};

/// Searches of the engine that run at once, for each core. More would only make each of them, and those
/// who speak HTTP, wait for a core; with a single one, all would wait for a long scan.
const SEARCHERS_PER_CORE: usize = 2;

/// What every request can reach.
pub(crate) struct AppState {
    pub(crate) engine: Arc<Engine>,
    pub(crate) model: ModelHandle,
    pub(crate) texts: Tower<String>,
    pub(crate) images: Tower<Pixels>,
    /// Bytes of bodies that may arrive at once; see [`body::BodyRoom`].
    pub(crate) bodies: Arc<Semaphore>,
    /// Searches that are under way.
    pub(crate) searches: Arc<Crowd>,
    /// Turns to search the engine.
    searchers: Arc<Semaphore>,
    /// Turns to decode a picture that asks: one per core.
    decoders: Arc<Semaphore>,
    /// Pictures whose parts may be looked at at once.
    pub(crate) explaining: Semaphore,
    pub(crate) maps: Maps,
    /// A turn to learn a head: one at a time.
    pub(crate) lessons: Semaphore,
    /// Where items are read and their pictures decoded.
    pub(crate) pools: Arc<Pools>,
    /// Embeddings of the prompts of recent classifications.
    pub(crate) prompts: Mutex<LruCache<String, Embedding>>,
    pub(crate) urls: Urls,
    pub(crate) limits: Limits,
    pub(crate) access: Access,
    /// Where administrative actions are written down.
    pub(crate) audit: Option<Audit>,
    /// Whether requests may name this machine as they like.
    pub(crate) any_host: bool,
    /// Names of this machine.
    pub(crate) hosts: Vec<String>,
    /// Origins whose pages may do what this server's own page may.
    pub(crate) cors: Vec<String>,
    /// Folders whose pictures may be shown, links resolved.
    pub(crate) media_roots: Vec<PathBuf>,
    pub(crate) thumbnails: Option<Thumbnails>,
    /// Where snapshots are kept.
    pub(crate) snapshots: Option<PathBuf>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) jobs: Jobs,
    /// Set when the server begins to stop; requests that come after are refused.
    pub(crate) stopping: AtomicBool,
}

/// What a request can reach, and who sent it.
#[derive(Clone, Copy)]
pub(crate) struct Caller<'a> {
    pub(crate) state: &'a AppState,
    pub(crate) client: Client,
}

impl AppState {
    /// Starts both towers.
    pub(crate) fn new(
        config: &ServerConfig,
        engine: Arc<Engine>,
        model: ModelHandle,
    ) -> Result<Self, ServerError> {
        let metrics = Arc::new(Metrics::new()?);
        let limits = config.limits.clone();
        let (text, image) = (metrics.tower("text"), metrics.tower("image"));
        let pools = Arc::new(Pools::start()?);
        let texts = Tower::start(
            &model.text,
            limits.tower(limits.queue_texts, limits.pass_tokens),
            &pools,
            &text,
        )?;
        let images = Tower::start(
            &model.image,
            limits.tower(limits.queue_images, limits.pass_patches),
            &pools,
            &image,
        )?;
        let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let cached = NonZeroUsize::new(limits.cached_prompts).unwrap_or(NonZeroUsize::MIN);
        // A root that does not exist cannot hold a picture; it may appear before the next start.
        let media_roots = config
            .media_roots
            .iter()
            .filter_map(|r| fs_err::canonicalize(r).ok())
            .collect();
        Ok(Self {
            engine,
            model,
            texts,
            images,
            bodies: Arc::new(Semaphore::new(body::room(&limits))),
            searches: Crowd::new(cores.saturating_mul(limits.searches_per_core)),
            searchers: Arc::new(Semaphore::new(SEARCHERS_PER_CORE * cores)),
            decoders: Arc::new(Semaphore::new(cores)),
            explaining: Semaphore::new(cores),
            maps: Maps::default(),
            lessons: Semaphore::new(1),
            pools,
            prompts: Mutex::new(LruCache::new(cached)),
            limits,
            urls: Urls::new(&config.urls, &config.limits)?,
            access: Access::new(config.keys.as_deref(), &config.limits)?,
            audit: config
                .audit
                .clone()
                .map(|path| Audit::new(path, config.limits.audit_bytes, config.limits.audit_files)),
            any_host: config.insecure,
            hosts: config.hosts.clone(),
            cors: config.cors.clone(),
            media_roots,
            thumbnails: config.thumbnails.clone().map(Thumbnails::new),
            snapshots: config.snapshots.clone(),
            metrics,
            jobs: Jobs::new(config.jobs.clone()),
            stopping: AtomicBool::new(false),
        })
    }

    /// A collection, whatever model made it.
    pub(crate) fn collection(&self, name: &str) -> Result<Arc<Collection>, ApiError> {
        let none = || ApiError::NoCollection {
            name: name.to_owned(),
        };
        self.engine.collection(name).ok_or_else(none)
    }

    /// The collections that may be seen.
    pub(crate) fn seen_by(&self, grant: &Grant) -> Vec<Arc<Collection>> {
        let mut collections = self.engine.collections();
        collections.retain(|collection| grant.sees(collection.name()));
        collections
    }

    /// A collection that the model of this server made.
    pub(crate) fn collection_of_model(&self, name: &str) -> Result<Arc<Collection>, ApiError> {
        let collection = self.collection(name)?;
        let (theirs, ours) = (collection.spaces(), &self.model.spaces);
        if theirs.same_model(ours) {
            return Ok(collection);
        }
        Err(ApiError::AnotherModel {
            collection: name.to_owned(),
            theirs: format!("{} ({})", theirs.model, theirs.fingerprint),
            ours: format!("{} ({})", ours.model, ours.fingerprint),
        })
    }

    /// A turn to search, as soon as there is one; too late is as for what waits for a tower.
    pub(crate) async fn search_turn(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        let deadline_ms = self.limits.query_deadline_ms;
        let turn = Arc::clone(&self.searchers).acquire_owned();
        let turn = timeout(Duration::from_millis(deadline_ms), turn).await;
        let turn = turn.map_err(|_| ApiError::LateSearch { deadline_ms })?;
        turn.map_err(|source| ApiError::internal("waiting to search", source))
    }

    /// A turn to decode a picture, as soon as there is one.
    pub(crate) async fn decode_turn(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        let turn = Arc::clone(&self.decoders).acquire_owned().await;
        turn.map_err(|source| ApiError::internal("waiting to decode a picture", source))
    }

    /// Which tower works without finishing anything, if one does.
    pub(crate) fn stuck_tower(&self) -> Option<&'static str> {
        let limit = Duration::from_millis(self.limits.stuck_ms);
        if self.texts.is_stuck(limit) {
            Some("the text tower is stuck")
        } else if self.images.is_stuck(limit) {
            Some("the image tower is stuck")
        } else {
            None
        }
    }
}

/// Runs what blocks on a thread that may block.
pub(crate) async fn block<T: Send + 'static>(
    doing: &'static str,
    work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    // What is logged and traced meanwhile belongs to the request, too.
    web::block(carried(work))
        .await
        .map_err(|source| ApiError::internal(doing, source))?
}
