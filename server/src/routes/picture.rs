//! `GET /v1/collections/{collection}/items/{id}/image`: the picture that stands for an item.
//!
//! A request names an item, never a path. What is served lies inside a folder that the operator
//! named, links resolved, and begins as a picture does.

use std::{
    fmt::Write as _,
    io::Read as _,
    path::{Path as FilePath, PathBuf},
};

use actix_web::{
    HttpResponse,
    http::header,
    web::{Data, Path},
};
use embedding::Modality;
use encoders::DecodeLimits;
use engine::{Hit, ItemId};
use fs_err as fs;

use super::items::item_id;
use crate::{
    openapi::{params::DemoItem, twins},
    query,
    reply::ApiError,
    state::{AppState, block},
    thumbnails,
};

const PNG: &str = "image/png";
const TIFF: &str = "image/tiff";

/// How long a browser may show a picture without asking again, in seconds.
const CACHE: &str = "private, max-age=60";

/// Shows the picture of an item.
///
/// The file that it came from, where that lies in a folder that the operator indexed, otherwise a
/// small PNG of what was uploaded. Of a TIFF, a small PNG.
#[utoipa::path(
    get,
    path = "/v1/collections/{collection}/items/{id}/image",
    operation_id = "get_image",
    tag = "Items",
    params(DemoItem),
    responses((status = 200, description = "The picture.", content(
        (twins::Bytes = "image/png"), (twins::Bytes = "image/jpeg"), (twins::Bytes = "image/gif"),
        (twins::Bytes = "image/webp"), (twins::Bytes = "image/bmp"),
    ))),
)]
pub(crate) async fn picture(
    state: Data<AppState>,
    path: Path<(String, String)>,
) -> Result<HttpResponse, ApiError> {
    let (name, id) = path.into_inner();
    let collection = state.collection(&name)?;
    let (item, _) = query::get(&collection, item_id(id)?).await?;
    let id = item.id.to_string();
    let none = || ApiError::NoPicture { id };
    let theirs = state.clone();
    let read = block("reading a picture", move || {
        let file = file(&theirs, &name, &item.id, item.source.as_deref());
        // What `index` reads is shown, too: its limits are not those of uploads.
        Ok(file.and_then(|file| read(&file, DecodeLimits::default().max_bytes)))
    })
    .await?;
    let (kind, bytes) = match read {
        Some((TIFF, bytes)) => (PNG, for_browsers(&state, bytes).await?.ok_or_else(none)?),
        read => read.ok_or_else(none)?,
    };
    Ok(HttpResponse::Ok()
        .content_type(kind)
        .insert_header((header::CACHE_CONTROL, CACHE))
        .body(bytes))
}

/// A small PNG of a picture that no browser shows; `None` where it cannot be decoded.
async fn for_browsers(state: &AppState, bytes: Vec<u8>) -> Result<Option<Vec<u8>>, ApiError> {
    let turn = state.decode_turn().await?;
    block("converting a picture", move || {
        let picture = encoders::decode(&bytes, &DecodeLimits::default()).ok();
        let small = picture.as_ref().and_then(thumbnails::make);
        drop((picture, turn));
        Ok(small)
    })
    .await
}

/// Where the picture of a hit is served, if it has one.
pub(super) fn url_of(state: &AppState, collection: &str, hit: &Hit) -> Option<String> {
    let shown = hit.modality == Modality::Image
        && file(state, collection, &hit.id, hit.source.as_deref()).is_some();
    shown.then(|| url(collection, &hit.id))
}

/// Where the picture of an item is served.
pub(super) fn url(collection: &str, id: &ItemId) -> String {
    let mut url = format!("/v1/collections/{collection}/items/");
    for byte in id.as_str().bytes() {
        if byte.is_ascii_alphanumeric() || b"-_~".contains(&byte) {
            url.push(byte as char);
        } else {
            // Writing to a String cannot fail.
            let _ = write!(url, "%{byte:02X}");
        }
    }
    url + "/image"
}

/// The file whose picture stands for an item: where it came from, when that lies inside a media
/// root, links resolved; otherwise the thumbnail of what was uploaded.
pub(crate) fn file(
    state: &AppState,
    collection: &str,
    id: &ItemId,
    source: Option<&str>,
) -> Option<PathBuf> {
    if let Some(source) = source {
        let roots = &state.media_roots;
        let resolved = |path: &FilePath| {
            let path = fs::canonicalize(path).ok()?;
            roots
                .iter()
                .any(|root| path.starts_with(root))
                .then_some(path)
        };
        let source = FilePath::new(source);
        // Asked once, not once per root: links are resolved on disk for every hit of a search.
        return if source.is_absolute() {
            resolved(source)
        } else {
            roots.iter().find_map(|root| resolved(&root.join(source)))
        };
    }
    let thumbnail = state.thumbnails.as_ref()?.path(collection, id);
    thumbnail.is_file().then_some(thumbnail)
}

/// A whole file and its media type; `None` where it is gone, too large or no picture.
pub(super) fn read(path: &FilePath, max_bytes: usize) -> Option<(&'static str, Vec<u8>)> {
    let mut bytes = Vec::new();
    fs::File::open(path)
        .ok()?
        .take(max_bytes as u64 + 1)
        .read_to_end(&mut bytes)
        .ok()?;
    let kind = media_type(&bytes)?;
    (bytes.len() <= max_bytes).then_some((kind, bytes))
}

/// The media type that the first bytes of a picture file tell. Only formats that cannot hold a
/// script.
fn media_type(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => Some(PNG),
        [0xff, 0xd8, 0xff, ..] => Some("image/jpeg"),
        [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Some("image/gif"),
        [
            b'R',
            b'I',
            b'F',
            b'F',
            _,
            _,
            _,
            _,
            b'W',
            b'E',
            b'B',
            b'P',
            ..,
        ] => Some("image/webp"),
        [b'B', b'M', ..] => Some("image/bmp"),
        [b'I', b'I', 42, 0, ..] | [b'M', b'M', 0, 42, ..] => Some(TIFF),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_raster_picture_has_no_media_type() {
        assert_eq!(media_type(b"GIF89a..."), Some("image/gif"));
        assert_eq!(
            media_type(b"RIFF\x01\x02\x03\x04WEBPVP8 "),
            Some("image/webp")
        );
        for other in [
            &b"<svg xmlns"[..],
            b"root:x:0:0",
            b"",
            b"<html>",
            b"RIFF1234WAVE",
        ] {
            assert_eq!(media_type(other), None);
        }
    }

    #[test]
    fn an_id_becomes_one_segment_of_a_path() {
        let id = ItemId::new("a/b c%\u{e9}.png").expect("a fine id");
        assert_eq!(
            url("c", &id),
            "/v1/collections/c/items/a%2Fb%20c%25%C3%A9%2Epng/image"
        );
    }
}
