//! How errors are answered: the one table of statuses and codes, headers and body.

use std::{error::Error as StdError, fmt::Write as _};

use actix_web::{
    HttpResponse, ResponseError,
    http::{StatusCode, header},
};
use encoders::PictureError;
use fetch::FetchError;
use serde_json::{Value, json};

use super::{ApiError, RETRY_AFTER_S};
use crate::openapi;

impl ApiError {
    /// The table: status and code of every error.
    pub(crate) fn row(&self) -> (StatusCode, &'static str) {
        match self {
            Self::Invalid { .. } => (StatusCode::BAD_REQUEST, "invalid_field"),
            Self::Json { .. } => (StatusCode::BAD_REQUEST, "invalid_json"),
            Self::Form { .. } => (StatusCode::BAD_REQUEST, "invalid_form"),
            Self::CrossOrigin { .. } => (StatusCode::FORBIDDEN, "cross_origin"),
            Self::ForeignHost { .. } => (StatusCode::FORBIDDEN, "foreign_host"),
            Self::Unauthorized { .. } => (StatusCode::UNAUTHORIZED, "unauthorized"),
            Self::Forbidden { .. } => (StatusCode::FORBIDDEN, "forbidden"),
            Self::TooOften { .. } => (StatusCode::TOO_MANY_REQUESTS, "rate_limited"),
            Self::Overdue { .. } => (StatusCode::SERVICE_UNAVAILABLE, "request_timeout"),
            Self::NoRoute { .. } => (StatusCode::NOT_FOUND, "route_not_found"),
            Self::NoModel { .. } => (StatusCode::NOT_FOUND, "model_not_found"),
            Self::NoCollection { .. } => (StatusCode::NOT_FOUND, "collection_not_found"),
            Self::NoItem { .. } => (StatusCode::NOT_FOUND, "item_not_found"),
            Self::NoHead { .. } => (StatusCode::NOT_FOUND, "head_not_found"),
            Self::NoJob { .. } => (StatusCode::NOT_FOUND, "job_not_found"),
            Self::NoJobs => (StatusCode::NOT_FOUND, "no_jobs_kept"),
            Self::TooManyJobs { .. } => (StatusCode::TOO_MANY_REQUESTS, "too_many_jobs"),
            Self::SameModel { .. } => (StatusCode::CONFLICT, "same_model"),
            Self::TooManyHeads { .. } => (StatusCode::CONFLICT, "too_many_heads"),
            Self::AnotherSpace { .. } => (StatusCode::CONFLICT, "another_space"),
            Self::VersionConflict { .. } => (StatusCode::CONFLICT, "version_conflict"),
            Self::NoSnapshot { .. } => (StatusCode::NOT_FOUND, "snapshot_not_found"),
            Self::NoSnapshots => (StatusCode::NOT_FOUND, "no_snapshots_kept"),
            Self::SnapshotExists { .. } => (StatusCode::CONFLICT, "snapshot_exists"),
            Self::SnapshotBusy { .. } => (StatusCode::CONFLICT, "snapshot_busy"),
            Self::CollectionExists { .. } => (StatusCode::CONFLICT, "collection_exists"),
            Self::Damaged { code, .. } => (StatusCode::UNPROCESSABLE_ENTITY, code),
            Self::NoPicture { .. } => (StatusCode::NOT_FOUND, "picture_not_found"),
            Self::Method { .. } => (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed"),
            Self::Slow { .. } => (StatusCode::REQUEST_TIMEOUT, "body_timeout"),
            Self::Unread { .. } => (StatusCode::REQUEST_TIMEOUT, "results_unread"),
            Self::AnotherModel { .. } => (StatusCode::CONFLICT, "another_model"),
            Self::TooLarge { .. }
            | Self::NotFetched {
                source: FetchError::TooLarge { .. },
                ..
            } => (StatusCode::PAYLOAD_TOO_LARGE, "too_large"),
            Self::MediaType { .. } => {
                (StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type")
            }
            Self::Picture { source, .. } if is_too_large(source) => {
                (StatusCode::PAYLOAD_TOO_LARGE, "too_large")
            }
            Self::Picture { .. } => (StatusCode::UNPROCESSABLE_ENTITY, "undecodable_picture"),
            Self::NotFetched { .. } => (StatusCode::UNPROCESSABLE_ENTITY, "not_fetched"),
            Self::Input { .. } => (StatusCode::UNPROCESSABLE_ENTITY, "unusable_input"),
            Self::QueueFull | Self::Crowded | Self::BodiesFull => {
                (StatusCode::TOO_MANY_REQUESTS, "queue_full")
            }
            Self::Late { .. } | Self::LateSearch { .. } => {
                (StatusCode::SERVICE_UNAVAILABLE, "deadline_passed")
            }
            Self::Unavailable { .. } => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
            Self::StorageFull { .. } => (StatusCode::INSUFFICIENT_STORAGE, "storage_full"),
            Self::Internal { .. } => (StatusCode::INTERNAL_SERVER_ERROR, "internal"),
        }
    }

    /// The value of `error` in the answer. 5xx logs the chain here and says little.
    pub(crate) fn to_json(&self) -> Value {
        let (status, code) = self.row();
        debug_assert!(
            openapi::errors::is_known(status, code),
            "{status} {code} is in no row of openapi/errors.rs"
        );
        match self {
            Self::Internal { .. } => tracing::error!(error = chain(self), "a request failed"),
            Self::StorageFull { doing, source } => {
                tracing::error!(error = chain(source.as_ref()), doing, "the disk is full");
            }
            _ => {}
        }
        let mut error = json!({ "code": code, "message": self.to_string() });
        if let Some(field) = self.field() {
            error["field"] = json!(field);
        }
        if let Self::VersionConflict { found, .. } = self {
            error["found"] = json!(found);
        }
        error
    }
}

impl ResponseError for ApiError {
    fn status_code(&self) -> StatusCode {
        self.row().0
    }

    fn error_response(&self) -> HttpResponse {
        let mut reply = HttpResponse::build(self.status_code());
        match self {
            Self::TooOften { wait_s } => {
                reply.insert_header((header::RETRY_AFTER, *wait_s));
            }
            Self::Unauthorized { .. } => {
                reply.insert_header((header::WWW_AUTHENTICATE, "Bearer realm=\"diptych\""));
            }
            Self::QueueFull
            | Self::Crowded
            | Self::BodiesFull
            | Self::TooManyJobs { .. }
            | Self::Late { .. }
            | Self::LateSearch { .. }
            | Self::Overdue { .. }
            | Self::Unavailable { .. } => {
                reply.insert_header((header::RETRY_AFTER, RETRY_AFTER_S));
            }
            Self::Method { allowed, .. } => {
                reply.insert_header((header::ALLOW, allowed.as_str()));
            }
            _ => {}
        }
        reply.json(json!({ "error": self.to_json() }))
    }
}

fn is_too_large(error: &PictureError) -> bool {
    matches!(
        error,
        PictureError::TooManyBytes { .. }
            | PictureError::TooManyPixels { .. }
            | PictureError::TooLong { .. }
    )
}

/// An error and everything below it, on one line.
fn chain(error: &dyn StdError) -> String {
    let mut line = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        // Writing to a String cannot fail.
        let _ = write!(line, ": {cause}");
        next = cause.source();
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_internal_error_hides_its_cause_from_the_client_and_keeps_it_for_the_log() {
        let error = ApiError::internal("saving", std::io::Error::other("/secret/path is full"));
        assert!(!error.to_json().to_string().contains("secret"));
        assert_eq!(chain(&error), "saving failed: /secret/path is full");
    }
}
