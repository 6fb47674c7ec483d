//! Everything a request can do wrong.

mod answer;

use std::error::Error as StdError;

use encoders::PictureError;
use engine::{EngineError, store::StoreError};
use fetch::FetchError;
use thiserror::Error;

/// Seconds after which a client that met a full queue may try again.
const RETRY_AFTER_S: &str = "1";

/// What is said since a write failed.
pub(crate) const STORE_STOPPED: &str =
    "the store takes no more writes: see the log, and start the server again";

/// Why a request is not answered with what it asked for.
#[derive(Debug, Error)]
pub(crate) enum ApiError {
    #[error("{message}")]
    Invalid { field: String, message: String },
    #[error("the body is not valid JSON: {message}")]
    Json { message: String },
    #[error("{message}")]
    Form { message: String },
    #[error("a page of another origin ({origin}) may not change anything here")]
    CrossOrigin { origin: String },
    #[error(
        "{host:?} is not known to name this machine: use localhost or the machine's IP address, or \
         have its operator add the name to `hosts`"
    )]
    ForeignHost { host: String },
    #[error("{message}")]
    Unauthorized { message: &'static str },
    #[error("{message}")]
    Forbidden { message: String },
    #[error("too many requests from here, try again in {wait_s} s")]
    TooOften { wait_s: u64 },
    #[error("not answered within {limit_ms} ms: send less at once, or try again later")]
    Overdue { limit_ms: u64 },
    #[error("nothing is served at {path}")]
    NoRoute { path: String },
    #[error(
        "there is no model {model:?} here: this server runs {ours:?}; say that, or leave `model` out"
    )]
    NoModel { model: String, ours: String },
    #[error("there is no collection {name:?}: PUT /v1/collections/{name} makes it")]
    NoCollection { name: String },
    #[error("collection {collection:?} has no item {id:?}")]
    NoItem { collection: String, id: String },
    #[error("{message}")]
    NoHead { message: String },
    #[error(
        "there is no job {id}, or it was forgotten: the last {} are kept",
        engine::MAX_JOBS
    )]
    NoJob { id: u64 },
    #[error(
        "this server imports nothing in the background: its operator has to say where bodies lie"
    )]
    NoJobs,
    #[error("{message}")]
    TooManyJobs { message: String },
    #[error(
        "collection {collection:?} was made by the model that this server runs: there is nothing to do"
    )]
    SameModel { collection: String },
    #[error("{message}")]
    TooManyHeads { message: String },
    #[error("{message}")]
    AnotherSpace { message: String },
    #[error("{message}")]
    VersionConflict {
        field: String,
        message: String,
        /// The version of the item, if it is there.
        found: Option<u64>,
    },
    #[error("collection {collection:?} has no snapshot {name:?}")]
    NoSnapshot { collection: String, name: String },
    #[error("this server keeps no snapshots: its operator has to say where they should be")]
    NoSnapshots,
    #[error("collection {collection:?} has a snapshot {name:?} already: choose another name")]
    SnapshotExists { collection: String, name: String },
    #[error("a snapshot of collection {collection:?} is being made just now: try again after it")]
    SnapshotBusy { collection: String },
    #[error("{message}")]
    CollectionExists { message: String },
    #[error("{message}")]
    Damaged { code: &'static str, message: String },
    #[error("no picture is kept for item {id:?}")]
    NoPicture { id: String },
    #[error("{method} is not allowed here, expected one of {allowed}")]
    Method { method: String, allowed: String },
    #[error("the body paused for more than {pause_ms} ms")]
    Slow { pause_ms: u64 },
    #[error(
        "collection {collection:?} was made by model {theirs}, this server runs {ours}: \
         POST /v1/collections/{collection}/reencode encodes it again for this model; or start the \
         server with the first model, or add the items again to another collection"
    )]
    AnotherModel {
        collection: String,
        theirs: String,
        ours: String,
    },
    #[error("the results were not read for {pause_ms} ms: no further line was worked on")]
    Unread { pause_ms: u64 },
    #[error("{message}")]
    TooLarge {
        field: Option<String>,
        message: String,
    },
    #[error("content type is {got}, expected {expected}")]
    MediaType { got: String, expected: &'static str },
    #[error("{source}")]
    Picture { field: String, source: PictureError },
    #[error("the picture was not fetched: {source}")]
    NotFetched { field: String, source: FetchError },
    #[error("{reason}")]
    Input { field: String, reason: String },
    #[error("too many inputs wait for the model, try again in {RETRY_AFTER_S} s")]
    QueueFull,
    #[error("too many searches are under way, try again in {RETRY_AFTER_S} s")]
    Crowded,
    #[error(
        "not encoded within {deadline_ms} ms, since much waits for the model or other programs keep this \
         machine busy: try again in {RETRY_AFTER_S} s, or raise limits.query_deadline_ms (for items \
         limits.ingest_deadline_ms)"
    )]
    Late { deadline_ms: u64 },
    #[error(
        "not searched within {deadline_ms} ms, since searches before it take long: try again in \
         {RETRY_AFTER_S} s"
    )]
    LateSearch { deadline_ms: u64 },
    #[error("too many bodies arrive at once, try again in {RETRY_AFTER_S} s")]
    BodiesFull,
    #[error("{reason}")]
    Unavailable { reason: &'static str },
    #[error(
        "the disk is full, and this may not have been kept: make room there, and start the server again if \
         /readyz says that its store takes no more writes"
    )]
    StorageFull {
        doing: &'static str,
        source: Box<dyn StdError + Send + Sync>,
    },
    #[error("{doing} failed")]
    Internal {
        doing: &'static str,
        source: Option<Box<dyn StdError + Send + Sync>>,
    },
}

impl ApiError {
    /// A value that may not be what it is.
    pub(crate) fn invalid(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Invalid {
            field: field.into(),
            message: message.into(),
        }
    }

    /// Something that is not the client's fault.
    pub(crate) fn internal(
        doing: &'static str,
        source: impl Into<Box<dyn StdError + Send + Sync>>,
    ) -> Self {
        let source = source.into();
        if engine::is_storage_full(source.as_ref()) {
            return Self::StorageFull { doing, source };
        }
        Self::Internal {
            doing,
            source: Some(source),
        }
    }

    /// What the engine refuses: names, ids, fields and filters are the client's, the rest is not.
    pub(crate) fn engine(doing: &'static str, source: EngineError) -> Self {
        let message = source.to_string();
        match source {
            EngineError::BadName { .. } => Self::invalid("collection", message),
            EngineError::BadId { .. } => Self::invalid("id", message),
            EngineError::Deleted { collection } => Self::NoCollection { name: collection },
            EngineError::CollectionExists { .. } => Self::CollectionExists { message },
            EngineError::AnotherModel {
                collection,
                made_by,
                got,
            } => Self::AnotherModel {
                collection,
                theirs: made_by,
                ours: got,
            },
            EngineError::VersionConflict { found, .. } => Self::VersionConflict {
                field: "if_version".into(),
                message,
                found,
            },
            EngineError::NoItem { collection, id } => Self::NoItem { collection, id },
            EngineError::PayloadTooLarge { .. } => Self::TooLarge {
                field: Some("payload".into()),
                message,
            },
            EngineError::NoSuchTarget { .. } => Self::invalid("target", message),
            EngineError::CannotCalibrate { .. } => Self::invalid("pairs", message),
            EngineError::BadSearch { field, reason } => Self::invalid(field, reason),
            EngineError::BadFilter { path, .. } if path.is_empty() => {
                Self::invalid("filter", message)
            }
            EngineError::BadFilter { path, reason } => {
                Self::invalid(format!("filter.{path}"), reason)
            }
            EngineError::WrongValue { field, .. } => {
                Self::invalid(format!("payload.{field}"), message)
            }
            EngineError::BadField { .. }
            | EngineError::TooManyFields { .. }
            | EngineError::AnotherKind { .. } => Self::invalid("fields", message),
            EngineError::BadPrompt { field, reason } | EngineError::BadLesson { field, reason } => {
                Self::invalid(field, reason)
            }
            EngineError::PromptsTooLarge { .. } => Self::TooLarge {
                field: Some("templates".into()),
                message,
            },
            EngineError::BadHead { .. } => Self::invalid("labels", message),
            EngineError::BadHeadName { .. } => Self::invalid("head", message),
            EngineError::NoHead { .. } => Self::NoHead { message },
            EngineError::TooManyJobs { .. } => Self::TooManyJobs { message },
            EngineError::TooManyHeads { .. } => Self::TooManyHeads { message },
            EngineError::AnotherSpace { .. } => Self::AnotherSpace { message },
            EngineError::DamagedHead { .. } => Self::Damaged {
                code: "damaged_head",
                message,
            },
            EngineError::Store(StoreError::Stopped { reason }) => {
                tracing::error!(doing, reason, "the store has stopped");
                Self::Unavailable {
                    reason: STORE_STOPPED,
                }
            }
            source => Self::internal(doing, source),
        }
    }

    /// Which part of the request is wrong, where one part is.
    pub(crate) fn field(&self) -> Option<&str> {
        match self {
            Self::Invalid { field, .. }
            | Self::VersionConflict { field, .. }
            | Self::Picture { field, .. }
            | Self::NotFetched { field, .. }
            | Self::Input { field, .. } => Some(field),
            Self::TooLarge { field, .. } => field.as_deref(),
            _ => None,
        }
    }

    /// The same error, its field named from further outside: `image` under `items[3]` becomes
    /// `items[3].image`.
    pub(crate) fn under(mut self, prefix: &str) -> Self {
        if let Some(field) = self.field_mut().filter(|_| !prefix.is_empty()) {
            *field = if field.is_empty() {
                prefix.to_owned()
            } else if field.starts_with('[') {
                format!("{prefix}{field}")
            } else {
                format!("{prefix}.{field}")
            };
        }
        self
    }

    /// The same error, of a field that the client knows by another name.
    pub(crate) fn at(mut self, name: &str) -> Self {
        if let Some(field) = self.field_mut() {
            name.clone_into(field);
        }
        self
    }

    fn field_mut(&mut self) -> Option<&mut String> {
        match self {
            Self::Invalid { field, .. }
            | Self::VersionConflict { field, .. }
            | Self::Picture { field, .. }
            | Self::NotFetched { field, .. }
            | Self::Input { field, .. } => Some(field),
            Self::TooLarge { field, .. } => field.as_mut(),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_named_from_outside_inwards() {
        let field = |f: &str, prefix: &str| {
            ApiError::invalid(f, "")
                .under(prefix)
                .field()
                .map(str::to_owned)
        };
        assert_eq!(
            field("image", "items[3]").as_deref(),
            Some("items[3].image")
        );
        assert_eq!(
            field("[3].image", "items").as_deref(),
            Some("items[3].image")
        );
        assert_eq!(field("", "items").as_deref(), Some("items"));
        assert_eq!(field("image", "").as_deref(), Some("image"));
    }
}
