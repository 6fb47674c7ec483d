//! Picture files as a browser's form or `curl -F` sends them.

use actix_multipart::{Field, Multipart};
use actix_web::{HttpRequest, web::Payload};
use bytes::BytesMut;
use serde_json::Value;

use super::items::check_count;
use crate::{
    body::{self, BodyRoom},
    config::Limits,
    ingest::NewItem,
    reply::ApiError,
    state::AppState,
    wire::{parse, parse_value},
};

/// Longest file name that is kept.
const MAX_NAME_CHARS: usize = 255;

/// Reads every file of the form as an item. A field `id` or `payload` (a JSON object) belongs to
/// the next file; a payload without a `name` gets that of the file.
pub(super) async fn read(
    request: &HttpRequest,
    payload: Payload,
    state: &AppState,
) -> Result<(Vec<NewItem>, BodyRoom), ApiError> {
    let limits = &state.limits;
    if body::is_announced_too_large(request, limits) {
        return Err(body::refuse_rest(payload, body::too_large(limits)).await);
    }
    let mut form = Multipart::new(request.headers(), payload);
    let (mut left, mut room) = (limits.body_bytes, BodyRoom::new(state));
    let mut items = Vec::new();
    let (mut id, mut next_payload, mut if_version) = (None, None, None);
    while let Some(mut field) = body::next_chunk(&mut form, limits).await? {
        let file = file_name(&field);
        let name = field.name().unwrap_or_default().to_owned();
        let bytes = match read_field(&mut field, &mut left, &mut room, limits).await {
            Ok(bytes) => bytes,
            Err(refused @ (ApiError::TooLarge { .. } | ApiError::BodiesFull)) => {
                drop((field, items, room));
                return Err(body::refuse_rest(form, refused).await);
            }
            Err(error) => return Err(error),
        };
        match (file, name.as_str()) {
            (Some(file), _) => {
                let mut item_payload: engine::Payload = next_payload.take().unwrap_or_default();
                if !file.is_empty() && !item_payload.contains_key("name") {
                    item_payload.insert("name".into(), Value::String(file));
                }
                let item = NewItem::from_file(id.take(), bytes.freeze(), item_payload, limits);
                let at = items.len();
                let item = item.map_err(|error| error.under(&format!("items[{at}]")))?;
                items.push(item.if_version(if_version.take()));
                check_count(items.len(), limits)?;
            }
            (None, "id") => {
                let text = String::from_utf8(bytes.to_vec());
                let text = text.map_err(|_| ApiError::invalid("id", "the id is not UTF-8"))?;
                if id.replace(text).is_some() {
                    return Err(without_file("id"));
                }
            }
            (None, "payload") => {
                let read = parse(&bytes).map_err(|error| error.under("payload"))?;
                if next_payload.replace(read).is_some() {
                    return Err(without_file("payload"));
                }
            }
            (None, "if_version") => {
                let read = parse_value(&bytes).map_err(|error| error.under("if_version"))?;
                if if_version.replace(read).is_some() {
                    return Err(without_file("if_version"));
                }
            }
            (None, name) => {
                let message = "expected files, each after its `id`, `payload` and `if_version` if it has them";
                return Err(ApiError::invalid(name, message));
            }
        }
    }
    if id.is_some() {
        return Err(without_file("id"));
    }
    if next_payload.is_some() {
        return Err(without_file("payload"));
    }
    if if_version.is_some() {
        return Err(without_file("if_version"));
    }
    check_count(items.len(), limits)?;
    Ok((items, room))
}

/// The answer to a field that belongs to no file.
fn without_file(field: &str) -> ApiError {
    let message = "no file follows it: an `id`, `payload` or `if_version` stands before its file";
    ApiError::invalid(field, message)
}

/// The name of a file without its folders; `None` for a field that is no file.
fn file_name(field: &Field) -> Option<String> {
    let given = field.content_disposition().and_then(|d| d.get_filename());
    let picture = field
        .content_type()
        .is_some_and(|kind| kind.type_() == "image");
    let given = given.or(picture.then_some(""))?;
    let name = given.rsplit(['/', '\\']).next().unwrap_or_default();
    Some(
        name.chars()
            .filter(|c| !c.is_control())
            .take(MAX_NAME_CHARS)
            .collect(),
    )
}

/// Reads one field; `left` is what the whole form may still have.
async fn read_field(
    field: &mut Field,
    left: &mut usize,
    room: &mut BodyRoom,
    limits: &Limits,
) -> Result<BytesMut, ApiError> {
    let mut bytes = BytesMut::new();
    while let Some(chunk) = body::next_chunk(field, limits).await? {
        *left = left
            .checked_sub(chunk.len())
            .ok_or_else(|| body::too_large(limits))?;
        room.take(chunk.len())?;
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}
