//! Reading request bodies within their limits.

use std::{sync::Arc, time::Duration};

use actix_web::{
    HttpRequest,
    http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE},
    web,
};
use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt as _};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use crate::{config::Limits, reply::ApiError, state::AppState};

/// How long the rest of a body that is too large is read before it is refused. A client that
/// sends all before it reads would otherwise see a broken connection instead of the answer.
const DRAIN: Duration = Duration::from_secs(1);

/// Bodies of full size for which there is room at once, all requests together.
const BODIES: usize = 4;

/// The media type without parameters, in lower case; empty when none is said.
pub(crate) fn media_type(request: &HttpRequest) -> String {
    let value = request
        .headers()
        .get(CONTENT_TYPE)
        .and_then(|v| v.to_str().ok())
        .unwrap_or("");
    value
        .split(';')
        .next()
        .unwrap_or("")
        .trim()
        .to_ascii_lowercase()
}

/// The answer to a body of another kind than those that are read.
pub(crate) fn unsupported(request: &HttpRequest, expected: &'static str) -> ApiError {
    let got = media_type(request);
    let got = if got.is_empty() {
        "not given".to_owned()
    } else {
        format!("{got:?}")
    };
    ApiError::MediaType { got, expected }
}

/// Refuses compressed bodies: what they unpack to is not bounded by what was sent.
pub(crate) fn refuse_encoded(request: &HttpRequest) -> Result<(), ApiError> {
    match request.headers().get(CONTENT_ENCODING) {
        Some(encoding) if encoding != "identity" => Err(ApiError::MediaType {
            got: format!(
                "encoded as {}",
                String::from_utf8_lossy(encoding.as_bytes())
            ),
            expected: "no content encoding",
        }),
        _ => Ok(()),
    }
}

/// Reads the body of a JSON request. None at all is an empty object, whatever it is said to be.
pub(crate) async fn read_json(
    request: &HttpRequest,
    body: web::Payload,
    state: &AppState,
) -> Result<Sent, ApiError> {
    const JSON: &str = "application/json";
    let is_json = media_type(request) == JSON;
    if !is_json && announced(request).is_some_and(|bytes| bytes > 0) {
        return Err(unsupported(request, JSON));
    }
    refuse_encoded(request)?;
    let mut sent = read(request, body, state).await?;
    if sent.bytes.is_empty() {
        sent.bytes = Bytes::from_static(b"{}");
    } else if !is_json {
        return Err(unsupported(request, JSON));
    }
    Ok(sent)
}

/// A whole body.
pub(crate) struct Sent {
    pub(crate) bytes: Bytes,
    /// To be held as long as the body or what was made of it.
    pub(crate) room: BodyRoom,
}

/// Reads a whole body.
pub(crate) async fn read(
    request: &HttpRequest,
    mut body: web::Payload,
    state: &AppState,
) -> Result<Sent, ApiError> {
    let limits = &state.limits;
    if is_announced_too_large(request, limits) {
        return Err(refuse_rest(body, too_large(limits)).await);
    }
    // Memory that is not written to yet is none; growing would copy all that is there, many times.
    let announced = announced(request).unwrap_or(0).min(limits.body_bytes);
    let (mut all, mut room) = (BytesMut::with_capacity(announced), BodyRoom::new(state));
    while let Some(chunk) = next_chunk(&mut body, limits).await? {
        let more = if all.len() + chunk.len() > limits.body_bytes {
            Err(too_large(limits))
        } else {
            room.take(chunk.len())
        };
        if let Err(refused) = more {
            drop((all, room));
            return Err(refuse_rest(body, refused).await);
        }
        all.extend_from_slice(&chunk);
    }
    let bytes = all.freeze();
    Ok(Sent { bytes, room })
}

/// Whether the head of a request announces more than is read.
pub(crate) fn is_announced_too_large(request: &HttpRequest, limits: &Limits) -> bool {
    announced(request).is_some_and(|bytes| bytes > limits.body_bytes)
}

/// Bytes that the head of a request announces.
fn announced(request: &HttpRequest) -> Option<usize> {
    let announced = request.headers().get(CONTENT_LENGTH)?;
    announced.to_str().ok()?.parse().ok()
}

/// The next part of a stream that must not pause for too long. Lets the other requests of this
/// thread have their turn after each part: a large body that has arrived already would otherwise be
/// read at one go.
pub(crate) async fn next_chunk<T, E: std::fmt::Display>(
    stream: &mut (impl Stream<Item = Result<T, E>> + Unpin),
    limits: &Limits,
) -> Result<Option<T>, ApiError> {
    let pause_ms = limits.body_pause_ms;
    match timeout(Duration::from_millis(pause_ms), stream.next()).await {
        Err(_) => Err(ApiError::Slow { pause_ms }),
        Ok(None) => Ok(None),
        Ok(Some(Ok(chunk))) => {
            tokio::task::yield_now().await;
            Ok(Some(chunk))
        }
        Ok(Some(Err(error))) => Err(ApiError::Form {
            message: error.to_string(),
        }),
    }
}

/// The answer to a body that is too large.
pub(crate) fn too_large(limits: &Limits) -> ApiError {
    let message = format!("the body has more than {} bytes", limits.body_bytes);
    ApiError::TooLarge {
        field: None,
        message,
    }
}

/// Reads on for a moment, keeps nothing, and gives the answer back.
pub(crate) async fn refuse_rest<T, E>(
    mut rest: impl Stream<Item = Result<T, E>> + Unpin,
    answer: ApiError,
) -> ApiError {
    let drain = async { while let Some(Ok(_)) = rest.next().await {} };
    let _ = timeout(DRAIN, drain).await;
    answer
}

/// Bytes that all bodies may hold together.
pub(crate) fn room(limits: &Limits) -> usize {
    let bytes = limits.body_bytes.saturating_mul(BODIES);
    bytes.min(Semaphore::MAX_PERMITS)
}

/// Room for bytes of bodies, of which all requests share [`Limits::body_bytes`] times
/// [`BODIES`]. It is taken for what has arrived, not for what is announced: a client that sends
/// slowly holds little.
pub(crate) struct BodyRoom {
    all: Arc<Semaphore>,
    held: Option<OwnedSemaphorePermit>,
}

impl BodyRoom {
    /// Room for nothing yet.
    pub(crate) fn new(state: &AppState) -> Self {
        Self {
            all: Arc::clone(&state.bodies),
            held: None,
        }
    }

    /// Bytes that all requests hold.
    pub(crate) fn held_by_all(state: &AppState) -> usize {
        room(&state.limits).saturating_sub(state.bodies.available_permits())
    }

    /// Room for `bytes` more, now.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn take(&mut self, bytes: usize) -> Result<(), ApiError> {
        let more = u32::try_from(bytes).map_err(|_| ApiError::BodiesFull)?;
        let more = Arc::clone(&self.all).try_acquire_many_owned(more);
        self.add(more.map_err(|_| ApiError::BodiesFull)?);
        Ok(())
    }

    /// Room for `bytes` in all, as soon as there is some.
    ///
    /// # Errors
    /// When there is none for as long as a body may pause.
    pub(crate) async fn wait(&mut self, bytes: usize, limits: &Limits) -> Result<(), ApiError> {
        let more = bytes.saturating_sub(self.held());
        let more = u32::try_from(more).map_err(|_| ApiError::BodiesFull)?;
        let more = Arc::clone(&self.all).acquire_many_owned(more);
        let pause = Duration::from_millis(limits.body_pause_ms);
        match timeout(pause, more).await {
            Ok(Ok(more)) => self.add(more),
            _ => return Err(ApiError::BodiesFull),
        }
        Ok(())
    }

    /// Gives back what is more than room for `bytes`.
    pub(crate) fn shrink(&mut self, bytes: usize) {
        let excess = self.held().saturating_sub(bytes);
        if let Some(held) = &mut self.held {
            drop(held.split(excess));
        }
    }

    fn held(&self) -> usize {
        self.held
            .as_ref()
            .map_or(0, OwnedSemaphorePermit::num_permits)
    }

    fn add(&mut self, more: OwnedSemaphorePermit) {
        match &mut self.held {
            Some(held) => held.merge(more),
            held => *held = Some(more),
        }
    }
}
