//! Items on their way in: checked, encoded, kept.

use std::sync::Arc;

use actix_web::web::Data;
use bytes::Bytes;
use embedding::Modality;
use engine::{
    Collection, Durability, EngineError, Item, ItemId, ItemWrite, Outcome, Payload, WriteOptions,
    Written,
};
use futures_util::future::join_all;

use crate::{
    answers::StoredOut,
    body::BodyRoom,
    config::Limits,
    content::{Content, Patience, encode_window},
    metrics::Stage,
    reply::ApiError,
    state::{AppState, Caller, block},
    tower::Class,
    urls,
    wire::ItemIn,
};

/// Digits of the content's hash that make the id of an item that brings none: 128 bits.
const HASH_ID_DIGITS: usize = 32;

/// An item that was checked and can be encoded.
#[derive(Debug)]
pub(crate) struct NewItem {
    id: ItemId,
    /// Whether the request says so; otherwise the content does.
    has_id: bool,
    content_hash: [u8; 32],
    content: Content,
    payload: Payload,
    if_version: Option<u64>,
}

/// An item that can be kept.
pub(crate) struct EncodedItem {
    item: Item,
    if_version: Option<u64>,
    thumbnail: Option<Vec<u8>>,
}

impl NewItem {
    /// Checks what came as JSON.
    pub(crate) fn from_wire(item: ItemIn, limits: &Limits) -> Result<Self, ApiError> {
        let picture = Content::sent_picture(item.image, item.image_url, limits)?;
        let content = match (item.text, picture) {
            (Some(text), None) => Content::text(text, limits)?,
            (None, Some(picture)) => picture,
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
        let new = Self::new(item.id, content, item.payload.unwrap_or_default(), limits)?;
        Ok(new.if_version(item.if_version))
    }

    /// The same, if the item in its place has this version then.
    pub(crate) fn if_version(self, if_version: Option<u64>) -> Self {
        Self { if_version, ..self }
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
            Content::Text(text) | Content::Url(text) => text.as_bytes(),
            Content::Picture(bytes) => bytes,
        });
        let has_id = id.is_some();
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
            has_id,
            content_hash: *hash.as_bytes(),
            content,
            payload,
            if_version: None,
        })
    }

    /// The same with the picture that its address led to. The room is to be held as long as that.
    async fn fetched(self, state: &AppState) -> Result<(Self, Option<BodyRoom>), ApiError> {
        if !matches!(self.content, Content::Url(_)) {
            return Ok((self, None));
        }
        let (content, room) = urls::fetched(state, self.content).await?;
        let id = self.has_id.then(|| self.id.to_string());
        let limits = state.limits.clone();
        let item = block("reading a picture", move || {
            Ok(Self::new(id, content, self.payload, &limits)?.if_version(self.if_version))
        });
        Ok((item.await?, room))
    }
}

/// Encodes items that stand or fall together, a window at a time, so that one large request does
/// not fill the queue.
///
/// # Errors
/// The first error of any item, its field under `name(index)`.
pub(crate) async fn encode_all(
    caller: Caller<'_>,
    items: Vec<NewItem>,
    name: impl Fn(usize) -> String,
) -> Result<Vec<EncodedItem>, ApiError> {
    let mut done = Vec::with_capacity(items.len());
    let mut items = items.into_iter().peekable();
    let mut patience = Patience::Refuse;
    while items.peek().is_some() {
        let window = items.by_ref().take(caller.state.limits.window()).collect();
        for result in encode(caller, window, patience).await? {
            let index = done.len();
            done.push(result.map_err(|error| error.under(&name(index)))?);
        }
        patience = Patience::Wait;
    }
    Ok(done)
}

/// Encodes at most [`Limits::window`] items; each fails alone.
pub(crate) async fn encode(
    caller: Caller<'_>,
    items: Vec<NewItem>,
    patience: Patience,
) -> Result<Vec<Result<EncodedItem, ApiError>>, ApiError> {
    let fetched = items.into_iter().map(|item| item.fetched(caller.state));
    let (mut items, mut rooms, mut failed) = (Vec::new(), Vec::new(), Vec::new());
    for one in join_all(fetched).await {
        match one {
            Ok((item, room)) => {
                items.push(item);
                rooms.push(room);
                failed.push(None);
            }
            Err(error) => failed.push(Some(error)),
        }
    }
    let contents = items.iter().map(|item| item.content.clone()).collect();
    let ready = encode_window(caller, contents, Class::Keep, patience).await?;
    let pair = items.into_iter().zip(ready);
    let mut done = pair.map(|(item, ready)| ready.map(|ready| join(item, ready)));
    let each = failed.into_iter();
    Ok(each
        .filter_map(|failed| match failed {
            Some(error) => Some(Err(error)),
            None => done.next(),
        })
        .collect())
}

fn join(item: NewItem, ready: crate::content::Ready) -> EncodedItem {
    let (modality, text) = match item.content {
        Content::Text(text) => (Modality::Text, Some(text)),
        Content::Picture(_) | Content::Url(_) => (Modality::Image, None),
    };
    let kept = Item {
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
        item: kept,
        if_version: item.if_version,
        thumbnail: ready.thumbnail,
    }
}

/// How the server writes.
pub(crate) fn options(state: &AppState, durability: Durability) -> WriteOptions {
    WriteOptions {
        durability,
        most_payload_bytes: state.limits.payload_bytes,
    }
}

/// Keeps all items or none of them.
///
/// # Errors
/// The first error of any item; where that is its condition, its field under `name(index)`.
pub(crate) async fn keep(
    state: &Data<AppState>,
    collection: Arc<Collection>,
    items: Vec<EncodedItem>,
    durability: Durability,
    name: impl Fn(usize) -> String + Send + 'static,
) -> Result<Written<StoredOut>, ApiError> {
    let state = Arc::clone(state);
    block("keeping items", move || {
        let (writes, ready) = split(items);
        let options = options(&state, durability);
        let write = || collection.write(writes, options);
        let written = state.metrics.time(Stage::Store, write);
        let written = written.map_err(|error| {
            let at = conflicting(&error, &ready);
            let error = ApiError::engine("keeping items", error);
            match at {
                Some(at) => error.under(&name(at)),
                None => error,
            }
        })?;
        let outcomes = written.outcomes.into_iter().zip(ready);
        Ok(Written {
            outcomes: outcomes
                .map(|(outcome, ready)| ready.kept(&state, &collection, outcome))
                .collect(),
            durability: written.durability,
        })
    })
    .await
}

/// Keeps items, each of which may fail alone.
pub(crate) async fn keep_each(
    state: &Data<AppState>,
    collection: Arc<Collection>,
    items: Vec<EncodedItem>,
    durability: Durability,
) -> Result<Written<Result<StoredOut, ApiError>>, ApiError> {
    let state = Arc::clone(state);
    block("keeping items", move || {
        let failed = |error| ApiError::engine("keeping items", error);
        let (writes, ready) = split(items);
        let options = options(&state, durability);
        let write = || collection.write_each(writes, options);
        let written = state.metrics.time(Stage::Store, write);
        let Written {
            outcomes,
            durability,
        } = written.map_err(failed)?;
        let outcomes = outcomes.into_iter().zip(ready);
        let kept = outcomes.map(|(outcome, ready)| match outcome {
            Ok(outcome) => Ok(ready.kept(&state, &collection, outcome)),
            Err(error) => Err(failed(error)),
        });
        Ok(Written {
            outcomes: kept.collect(),
            durability,
        })
    })
    .await
}

/// What the server still has to do for an item that is written.
struct Ready {
    id: ItemId,
    if_version: Option<u64>,
    thumbnail: Option<Vec<u8>>,
}

impl Ready {
    fn kept(self, state: &AppState, collection: &Collection, outcome: Outcome) -> StoredOut {
        if let Some(folder) = &state.thumbnails {
            folder.put(collection.name(), &self.id, self.thumbnail.as_deref());
        }
        StoredOut::new(self.id, outcome)
    }
}

fn split(items: Vec<EncodedItem>) -> (Vec<ItemWrite>, Vec<Ready>) {
    let pairs = items.into_iter().map(|encoded| {
        let ready = Ready {
            id: encoded.item.id.clone(),
            if_version: encoded.if_version,
            thumbnail: encoded.thumbnail,
        };
        let write = ItemWrite::put(encoded.item).if_version(encoded.if_version);
        (write, ready)
    });
    pairs.unzip()
}

/// Which of the items did not have the version that was expected.
fn conflicting(error: &EngineError, items: &[Ready]) -> Option<usize> {
    let EngineError::VersionConflict { id, expected, .. } = error else {
        return None;
    };
    let is_it = |ready: &Ready| ready.id.as_str() == id && ready.if_version == Some(*expected);
    items.iter().position(is_it)
}
