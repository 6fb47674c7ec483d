//! Pictures by address, where the operator allows that.

use std::{sync::Arc, time::Duration};

use fetch::{FetchError, Fetcher, Rules};
use tokio::sync::Semaphore;

use crate::{
    body::BodyRoom,
    config::{Limits, UrlConfig},
    content::Content,
    metrics::Stage,
    reply::ApiError,
    state::{AppState, block},
};

/// What fetches pictures.
pub(crate) struct Urls {
    /// Nobody, unless hosts are named.
    fetcher: Option<Arc<Fetcher>>,
    turns: Arc<Semaphore>,
}

impl Urls {
    /// # Errors
    /// When a host is none.
    pub(crate) fn new(config: &UrlConfig, limits: &Limits) -> Result<Self, FetchError> {
        let rules = Rules {
            allow: config.allow.clone(),
            allow_private: config.allow_private.clone(),
            ports: config.ports.clone(),
            bytes: limits.picture_bytes as u64,
            limit: Duration::from_millis(limits.url_ms),
        };
        let fetcher = Fetcher::new(rules)?;
        Ok(Self {
            fetcher: (!config.allow.is_empty()).then(|| Arc::new(fetcher)),
            turns: Arc::new(Semaphore::new(limits.url_fetches)),
        })
    }
}

/// Content that can be encoded; the room is to be held as long as what was fetched. The field of an
/// error is `image_url`.
pub(crate) async fn fetched(
    state: &AppState,
    content: Content,
) -> Result<(Content, Option<BodyRoom>), ApiError> {
    const DOING: &str = "fetching a picture";
    let Content::Url(url) = content else {
        return Ok((content, None));
    };
    let Some(fetcher) = state.urls.fetcher.clone() else {
        let message = "pictures are not fetched from URLs here: send them as base64 in `image`, \
                       or have the operator allow hosts with `[urls] allow`";
        return Err(ApiError::invalid("image_url", message));
    };
    let turn = Arc::clone(&state.urls.turns).acquire_owned().await;
    let turn = turn.map_err(|source| ApiError::internal(DOING, source))?;
    let metrics = Arc::clone(&state.metrics);
    let bytes = block(DOING, move || {
        let _turn = turn;
        let fetched = metrics.time(Stage::Fetch, || fetcher.get(&url));
        fetched.map_err(|source| {
            let error = &source as &dyn std::error::Error;
            tracing::info!(error, "a picture was not fetched");
            ApiError::NotFetched {
                field: "image_url".into(),
                source,
            }
        })
    })
    .await?;
    let mut room = BodyRoom::new(state);
    room.take(bytes.len())?;
    let picture = Content::picture(bytes.into(), &state.limits);
    Ok((picture.map_err(|error| error.at("image_url"))?, Some(room)))
}
