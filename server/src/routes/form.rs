//! Picture files as a browser's form or `curl -F` sends them.

use actix_multipart::{Field, Multipart};
use actix_web::{HttpRequest, http::header::CONTENT_LENGTH, web::Payload};
use bytes::BytesMut;
use serde_json::Value;

use super::items::check_count;
use crate::{body, config::Limits, ingest::NewItem, reply::ApiError, wire::parse};

/// Longest file name that is kept.
const MAX_NAME_CHARS: usize = 255;

/// Reads every file of the form as an item. A field `id` or `payload` (a JSON object) belongs to
/// the next file; a payload without a `name` gets that of the file.
pub(super) async fn read(
    request: &HttpRequest,
    payload: Payload,
    limits: &Limits,
) -> Result<Vec<NewItem>, ApiError> {
    let announced = request
        .headers()
        .get(CONTENT_LENGTH)
        .and_then(|v| v.to_str().ok());
    if announced
        .and_then(|n| n.parse().ok())
        .is_some_and(|n: usize| n > limits.body_bytes)
    {
        return Err(body::refuse_rest(payload, limits).await);
    }
    let mut form = Multipart::new(request.headers(), payload);
    let mut room = limits.body_bytes;
    let mut items = Vec::new();
    let (mut id, mut next_payload) = (None, engine::Payload::new());
    while let Some(mut field) = body::next_chunk(&mut form, limits).await? {
        let file = file_name(&field);
        let name = field.name().unwrap_or_default().to_owned();
        let bytes = read_field(&mut field, &mut room, limits).await?;
        match (file, name.as_str()) {
            (Some(file), _) => {
                let mut item_payload = std::mem::take(&mut next_payload);
                if !file.is_empty() && !item_payload.contains_key("name") {
                    item_payload.insert("name".into(), Value::String(file));
                }
                let item = NewItem::from_file(id.take(), bytes.freeze(), item_payload, limits);
                let at = items.len();
                items.push(item.map_err(|error| error.under(&format!("items[{at}]")))?);
                check_count(items.len(), limits)?;
            }
            (None, "id") => {
                let text = String::from_utf8(bytes.to_vec());
                id = Some(text.map_err(|_| ApiError::invalid("id", "the id is not UTF-8"))?);
            }
            (None, "payload") => {
                next_payload = parse(&bytes).map_err(|error| error.under("payload"))?;
            }
            (None, name) => {
                let message = "expected files, each after its `id` and `payload` if it has them";
                return Err(ApiError::invalid(name, message));
            }
        }
    }
    check_count(items.len(), limits)?;
    Ok(items)
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

async fn read_field(
    field: &mut Field,
    room: &mut usize,
    limits: &Limits,
) -> Result<BytesMut, ApiError> {
    let mut bytes = BytesMut::new();
    while let Some(chunk) = body::next_chunk(field, limits).await? {
        *room = room
            .checked_sub(chunk.len())
            .ok_or_else(|| body::too_large(limits))?;
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}
