//! Reading request bodies within their limits.

use std::time::Duration;

use actix_web::{
    HttpRequest,
    http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE},
    web,
};
use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt as _};
use tokio::time::timeout;

use crate::{config::Limits, reply::ApiError};

/// How long the rest of a body that is too large is read before it is refused. A client that
/// sends all before it reads would otherwise see a broken connection instead of the answer.
const DRAIN: Duration = Duration::from_secs(1);

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

/// Reads the body of a JSON request.
pub(crate) async fn read_json(
    request: &HttpRequest,
    body: web::Payload,
    limits: &Limits,
) -> Result<Bytes, ApiError> {
    if media_type(request) != "application/json" {
        return Err(unsupported(request, "application/json"));
    }
    refuse_encoded(request)?;
    read(request, body, limits).await
}

/// Reads a whole body.
pub(crate) async fn read(
    request: &HttpRequest,
    mut body: web::Payload,
    limits: &Limits,
) -> Result<Bytes, ApiError> {
    let announced = request
        .headers()
        .get(CONTENT_LENGTH)
        .and_then(|v| v.to_str().ok());
    if announced
        .and_then(|n| n.parse().ok())
        .is_some_and(|n: usize| n > limits.body_bytes)
    {
        return Err(refuse_rest(body, limits).await);
    }
    let mut all = BytesMut::new();
    while let Some(chunk) = next_chunk(&mut body, limits).await? {
        if all.len() + chunk.len() > limits.body_bytes {
            return Err(refuse_rest(body, limits).await);
        }
        all.extend_from_slice(&chunk);
    }
    Ok(all.freeze())
}

/// The next part of a stream that must not pause for too long.
pub(crate) async fn next_chunk<T, E: std::fmt::Display>(
    stream: &mut (impl Stream<Item = Result<T, E>> + Unpin),
    limits: &Limits,
) -> Result<Option<T>, ApiError> {
    let pause_ms = limits.body_pause_ms;
    match timeout(Duration::from_millis(pause_ms), stream.next()).await {
        Err(_) => Err(ApiError::Slow { pause_ms }),
        Ok(None) => Ok(None),
        Ok(Some(Ok(chunk))) => Ok(Some(chunk)),
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

/// Reads on for a moment, keeps nothing, and refuses.
pub(crate) async fn refuse_rest(mut body: web::Payload, limits: &Limits) -> ApiError {
    let drain = async { while let Some(Ok(_)) = body.next().await {} };
    let _ = timeout(DRAIN, drain).await;
    too_large(limits)
}
