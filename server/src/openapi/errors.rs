//! Which errors a route may answer with, and what they are about. `reply` says what each is answered
//! with, and checks in debug builds that it stands here.

use actix_web::http::StatusCode;
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::doors::Dialect;

/// The codes that come from one part of the work on a request.
pub(crate) type Codes = &'static [&'static str];

/// Of every route.
pub(super) const ANY: Codes = &[
    "foreign_host",
    "unauthorized",
    "forbidden",
    "rate_limited",
    "internal",
    "request_timeout",
    "unavailable",
];
/// Of every route that changes something, or could.
pub(super) const UNSAFE: Codes = &["cross_origin", "storage_full"];
/// Of every route with braces in its path.
pub(super) const PATH: Codes = &["invalid_field"];
/// A body is read.
pub(crate) const BODY: Codes = &["invalid_form", "body_timeout", "too_large", "queue_full"];
/// It is JSON.
pub(crate) const JSON: Codes = &["invalid_json", "invalid_field"];
/// It must say what it is.
pub(crate) const KIND: Codes = &["unsupported_media_type"];
/// What follows `?` is read.
pub(crate) const QUERY: Codes = &["invalid_field"];
/// Something goes through the model.
pub(crate) const ENCODE: Codes = &[
    "undecodable_picture",
    "not_fetched",
    "unusable_input",
    "too_large",
    "queue_full",
    "deadline_passed",
];
/// It waits for its turn among searches.
pub(crate) const TURN: Codes = &["deadline_passed"];
/// A collection is named.
pub(crate) const COLLECTION: Codes = &["collection_not_found"];
/// It must be of the server's model.
pub(crate) const OF_MODEL: Codes = &["another_model"];
/// An item is named.
pub(crate) const ITEM: Codes = &["item_not_found"];
/// A picture is shown.
pub(crate) const PICTURE: Codes = &["picture_not_found"];
/// A write may be conditional, and fills payloads.
pub(crate) const WRITE: Codes = &["version_conflict", "too_large"];
/// The model is named.
pub(crate) const MODEL: Codes = &["model_not_found"];
/// Only some files are served.
pub(crate) const FILE: Codes = &["route_not_found"];
/// A head is named.
pub(crate) const HEAD: Codes = &["head_not_found", "another_space", "damaged_head"];
/// Heads are looked at.
pub(crate) const HEADS: Codes = &["damaged_head"];
/// A head is made.
pub(crate) const MAKE_HEAD: Codes = &[
    "head_not_found",
    "too_many_heads",
    "another_space",
    "damaged_head",
];
/// There must be jobs.
pub(crate) const JOBS: Codes = &["no_jobs_kept"];
/// A job is named.
pub(crate) const JOB: Codes = &["invalid_field", "job_not_found"];
/// A job is begun.
pub(crate) const MAKE_JOB: Codes = &[
    "too_many_jobs",
    "too_large",
    "same_model",
    "collection_exists",
];
/// There must be snapshots.
pub(crate) const SNAPSHOTS: Codes = &["no_snapshots_kept"];
/// A snapshot is named.
pub(crate) const SNAPSHOT: Codes = &["snapshot_not_found", "snapshot_busy", "damaged_snapshot"];
/// A snapshot is made.
pub(crate) const MAKE_SNAPSHOT: Codes = &[
    "snapshot_exists",
    "snapshot_busy",
    "damaged_item",
    "damaged_head",
];
/// A collection is made of a snapshot.
pub(crate) const RESTORE: Codes = &["collection_exists"];

/// Every code, its status, and when it is answered.
#[rustfmt::skip]
const ALL: &[(&str, u16, &str)] = &[
    ("invalid_field", 400, "a value is not what it may be; `field` names it"),
    ("invalid_json", 400, "the body is not JSON"),
    ("invalid_form", 400, "the body broke off, or is no form"),
    ("unauthorized", 401, "no key was sent, one that is not known, or several that differ"),
    ("forbidden", 403, "the key has another role, or may not see the collection"),
    ("cross_origin", 403, "a web page of another origin sent the request"),
    ("foreign_host", 403, "`Host` is neither `localhost` nor an IP address"),
    ("route_not_found", 404, "nothing is served at this path"),
    ("model_not_found", 404, "the server runs another model"),
    ("collection_not_found", 404, "there is no such collection"),
    ("item_not_found", 404, "the collection has no such item"),
    ("head_not_found", 404, "the collection has no such head, or no such version of it"),
    ("job_not_found", 404, "there is no such job, or it ended long ago"),
    ("no_jobs_kept", 404, "this server keeps no jobs"),
    ("picture_not_found", 404, "no picture is kept for the item"),
    ("snapshot_not_found", 404, "the collection has no such snapshot"),
    ("no_snapshots_kept", 404, "this server keeps no snapshots"),
    ("method_not_allowed", 405, "the path is served, but not to this method; `Allow` says to which"),
    ("body_timeout", 408, "the body paused for too long"),
    ("results_unread", 408, "the results of a stream were not read; stands in its last line"),
    ("version_conflict", 409, "the item has another version than `if_version`; `found` is the one it has"),
    ("another_model", 409, "another model made the collection; `POST .../reencode` encodes it again for that of the server"),
    ("same_model", 409, "the collection is of the server's model already"),
    ("too_many_heads", 409, "the collection has as many heads as it may"),
    ("another_space", 409, "the head reads embeddings of another space"),
    ("collection_exists", 409, "there is a collection of this name"),
    ("snapshot_exists", 409, "there is a snapshot of this name"),
    ("snapshot_busy", 409, "a snapshot of the collection is being made: try again after it"),
    ("too_large", 413, "a part of the request is over its limit; `field` names it, unless it is the body"),
    ("unsupported_media_type", 415, "the content type or encoding is not one that is read"),
    ("undecodable_picture", 422, "the picture cannot be decoded; `field` names it"),
    ("not_fetched", 422, "the picture cannot be had from its address; `field` names it"),
    ("unusable_input", 422, "the model can make nothing of an input; `field` names it"),
    ("damaged_item", 422, "an item is damaged on disk"),
    ("damaged_head", 422, "a head is damaged on disk"),
    ("damaged_snapshot", 422, "the snapshot is damaged on disk"),
    ("queue_full", 429, "too much waits for the model, too many searches are under way, or too many bodies arrive at once: try again after `Retry-After`"),
    ("rate_limited", 429, "this key, or this address, asks too often: try again after `Retry-After`"),
    ("too_many_jobs", 429, "too many jobs wait"),
    ("internal", 500, "the server failed; its log says why"),
    ("deadline_passed", 503, "not encoded, or not searched, in time: try again after `Retry-After`"),
    ("request_timeout", 503, "the request took longer than it may"),
    ("unavailable", 503, "the server stops, a tower is stuck, or the store takes no more writes"),
    ("storage_full", 507, "the disk is full; nothing that was answered as `flushed` is lost"),
];

/// Whether this answer is known to the description.
pub(crate) fn is_known(status: StatusCode, code: &str) -> bool {
    ALL.iter()
        .any(|row| row.0 == code && row.1 == status.as_u16())
}

/// The error responses of a route, by status.
pub(super) fn responses(codes: &[&str], dialect: Dialect) -> Vec<(u16, Value)> {
    let mut rows: Vec<_> = ALL.iter().filter(|row| codes.contains(&row.0)).collect();
    rows.sort_by_key(|row| row.1);
    let by_status = rows.chunk_by(|a, b| a.1 == b.1);
    by_status
        .map(|rows| (rows[0].1, response(rows, dialect)))
        .collect()
}

fn response(rows: &[&(&str, u16, &str)], dialect: Dialect) -> Value {
    let lines = rows
        .iter()
        .map(|(code, _, when)| format!("- `{code}`: {when}"));
    let codes: Vec<&str> = rows.iter().map(|row| row.0).collect();
    let one_of =
        json!({ "properties": { "error": { "properties": { "code": { "enum": codes } } } } });
    let reference = |name: &str| json!({ "$ref": format!("#/components/schemas/{name}") });
    let schema = match dialect {
        Dialect::Own => json!({ "allOf": [reference("ErrorOut"), one_of] }),
        Dialect::OpenAi => json!({ "allOf": [reference("OpenAiErrorOut"), one_of] }),
        Dialect::HuggingFace => reference("HuggingFaceErrorOut"),
    };
    let mut response = json!({
        "description": lines.collect::<Vec<_>>().join("\n"),
        "content": { "application/json": { "schema": schema } },
    });
    if matches!(rows[0].1, 429 | 503) {
        response["headers"] = json!({
            "retry-after": {
                "description": "Seconds after which to try again.",
                "schema": { "type": "integer", "minimum": 0 },
            },
        });
    }
    response
}

/// Why a request is not answered with what it asked for.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only its schema is used")]
pub(super) struct ErrorOut {
    error: ErrorBody,
}

/// What is wrong.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only its schema is used")]
pub(super) struct ErrorBody {
    /// For machines.
    code: String,
    /// For people.
    message: String,
    /// Which part of the request is wrong, by its path, where one part is: `items[3].image`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    field: Option<String>,
    /// Of `version_conflict`: the version of the item; null when it is not there.
    #[serde(skip_serializing_if = "Option::is_none")]
    found: Option<u64>,
}

/// An error as clients of `OpenAI` read it.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only its schema is used")]
pub(super) struct OpenAiErrorOut {
    error: OpenAiErrorBody,
}

/// What is wrong.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only its schema is used")]
pub(super) struct OpenAiErrorBody {
    /// For people.
    message: String,
    /// `invalid_request_error`, `rate_limit_error` or `server_error`.
    r#type: String,
    /// Which part of the request is wrong; null where no one part is.
    #[schema(required)]
    param: Option<String>,
    /// For machines.
    code: String,
}

/// An error as clients of Hugging Face and text-embeddings-inference read it.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only its schema is used")]
pub(super) struct HuggingFaceErrorOut {
    /// For people; it begins with the part of the request that is wrong, where one part is.
    error: String,
    /// `Validation`, `Overloaded`, `Unhealthy` or `Backend`.
    error_type: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_of_a_group_has_its_row() {
        let groups = [
            ANY,
            FILE,
            UNSAFE,
            PATH,
            BODY,
            JSON,
            KIND,
            QUERY,
            ENCODE,
            TURN,
            COLLECTION,
            OF_MODEL,
            ITEM,
            PICTURE,
            WRITE,
            MODEL,
            SNAPSHOTS,
            SNAPSHOT,
            MAKE_SNAPSHOT,
            RESTORE,
        ];
        for code in groups.concat() {
            assert!(ALL.iter().any(|row| row.0 == code), "{code}");
        }
    }
}
