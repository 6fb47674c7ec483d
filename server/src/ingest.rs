//! Items on their way in: checked, encoded, kept.

use std::{collections::HashSet, sync::Arc};

use actix_web::web::Data;
use bytes::Bytes;
use embedding::Modality;
use engine::{Collection, Item, ItemId, Payload};

use crate::{
    config::Limits,
    content::{Content, Patience, Purpose, encode_window},
    reply::ApiError,
    state::{AppState, block},
    wire::{ItemIn, Status, StoredOut},
};

/// Digits of the content's hash that make the id of an item that brings none: 128 bits.
const HASH_ID_DIGITS: usize = 32;

/// An item that was checked and can be encoded.
#[derive(Debug)]
pub(crate) struct NewItem {
    id: ItemId,
    content_hash: [u8; 32],
    content: Content,
    payload: Payload,
}

/// An item that can be kept.
pub(crate) struct EncodedItem {
    item: Item,
    thumbnail: Option<Vec<u8>>,
}

impl NewItem {
    /// Checks what came as JSON.
    pub(crate) fn from_wire(item: ItemIn, limits: &Limits) -> Result<Self, ApiError> {
        let content = match (item.text, item.image) {
            (Some(text), None) => Content::text(text, limits)?,
            (None, Some(image)) => Content::picture_from_base64(&image, limits)?,
            (Some(_), Some(_)) => {
                return Err(ApiError::invalid(
                    "image",
                    "an item has `text` or `image`, not both",
                ));
            }
            (None, None) => {
                return Err(ApiError::invalid(
                    "text",
                    "an item needs one of `text` and `image`",
                ));
            }
        };
        Self::new(item.id, content, item.payload.unwrap_or_default(), limits)
    }

    /// Checks what came as a file.
    pub(crate) fn from_file(
        id: Option<String>,
        bytes: Bytes,
        payload: Payload,
        limits: &Limits,
    ) -> Result<Self, ApiError> {
        Self::new(id, Content::picture(bytes, limits)?, payload, limits)
    }

    fn new(
        id: Option<String>,
        content: Content,
        payload: Payload,
        limits: &Limits,
    ) -> Result<Self, ApiError> {
        let hash = blake3::hash(match &content {
            Content::Text(text) => text.as_bytes(),
            Content::Picture(bytes) => bytes,
        });
        let id = id.unwrap_or_else(|| hash.to_hex()[..HASH_ID_DIGITS].to_owned());
        let id = ItemId::new(id).map_err(|e| ApiError::engine("reading an id", e))?;
        let payload_bytes = serde_json::to_vec(&payload)
            .map_err(|source| ApiError::internal("reading a payload", source))?
            .len();
        if payload_bytes > limits.payload_bytes {
            return Err(ApiError::TooLarge {
                field: Some("payload".into()),
                message: format!(
                    "the payload has {payload_bytes} bytes, at most {} are allowed",
                    limits.payload_bytes
                ),
            });
        }
        Ok(Self {
            id,
            content_hash: *hash.as_bytes(),
            content,
            payload,
        })
    }
}

/// Encodes items that stand or fall together, a window at a time, so that one large request does
/// not fill the queue.
///
/// # Errors
/// The first error of any item, its field under `name(index)`.
pub(crate) async fn encode_all(
    state: &AppState,
    items: Vec<NewItem>,
    name: impl Fn(usize) -> String,
) -> Result<Vec<EncodedItem>, ApiError> {
    let mut done = Vec::with_capacity(items.len());
    let mut items = items.into_iter().peekable();
    let mut patience = Patience::Refuse;
    while items.peek().is_some() {
        let window = items.by_ref().take(state.limits.window()).collect();
        for result in encode(state, window, patience).await? {
            let index = done.len();
            done.push(result.map_err(|error| error.under(&name(index)))?);
        }
        patience = Patience::Wait;
    }
    Ok(done)
}

/// Encodes at most [`Limits::window`] items; each fails alone.
pub(crate) async fn encode(
    state: &AppState,
    items: Vec<NewItem>,
    patience: Patience,
) -> Result<Vec<Result<EncodedItem, ApiError>>, ApiError> {
    let contents = items.iter().map(|item| item.content.clone()).collect();
    let ready = encode_window(state, contents, Purpose::Keep, patience).await?;
    let pair = items.into_iter().zip(ready);
    Ok(pair
        .map(|(item, ready)| ready.map(|ready| join(item, ready)))
        .collect())
}

fn join(item: NewItem, ready: crate::content::Ready) -> EncodedItem {
    let (modality, text) = match item.content {
        Content::Text(text) => (Modality::Text, Some(text)),
        Content::Picture(_) => (Modality::Image, None),
    };
    let item = Item {
        id: item.id,
        modality,
        shared: ready.encoded.shared,
        specific: ready.encoded.specific,
        payload: item.payload,
        // A request can never name a path of this machine.
        source: None,
        content_hash: Some(item.content_hash),
        text,
    };
    EncodedItem {
        item,
        thumbnail: ready.thumbnail,
    }
}

/// Keeps items, durably and all or none of them.
pub(crate) async fn keep(
    state: &Data<AppState>,
    collection: Arc<Collection>,
    items: Vec<EncodedItem>,
) -> Result<Vec<StoredOut>, ApiError> {
    let state = Arc::clone(state);
    block("keeping items", move || {
        let failed = |e| ApiError::engine("keeping items", e);
        let mut seen = HashSet::new();
        let mut stored = Vec::with_capacity(items.len());
        for EncodedItem { item, .. } in &items {
            // The second of two items with one id replaces the first.
            let known =
                !seen.insert(&item.id) || collection.get(&item.id).is_ok_and(|i| i.is_some());
            let status = if known {
                Status::Updated
            } else {
                Status::Inserted
            };
            stored.push(StoredOut {
                id: item.id.to_string(),
                status,
            });
        }
        drop(seen);
        let pairs = items.into_iter().map(|EncodedItem { item, thumbnail }| {
            let id = item.id.clone();
            (item, (id, thumbnail))
        });
        let (items, thumbnails): (Vec<_>, Vec<_>) = pairs.unzip();
        collection.upsert(items).map_err(failed)?;
        if let Some(folder) = &state.thumbnails {
            for (id, png) in &thumbnails {
                folder.put(collection.name(), id, png.as_deref());
            }
        }
        Ok(stored)
    })
    .await
}
