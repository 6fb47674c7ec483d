//! Texts and pictures as clients send them, and the way through a tower.
//!
//! Over 400 lines only with its tests.

use std::sync::Arc;

use base64::{
    Engine as _,
    alphabet::STANDARD,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use bytes::Bytes;
use embedding::Encoded;
use encoders::Pixels;
use futures_util::future::join_all;
use tokio::time::timeout_at;

use crate::{
    config::Limits,
    metrics::Stage,
    reply::ApiError,
    state::{AppState, Caller, block},
    thumbnails,
    tower::{Class, Done, Failed, Room},
    urls,
};

/// Clients disagree on padding; it carries no information.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What is to be encoded.
#[derive(Debug, Clone)]
pub(crate) enum Content {
    Text(String),
    /// The bytes of a picture file, not yet decoded.
    Picture(Bytes),
    /// The address of a picture, not yet fetched.
    Url(String),
}

/// One encoded content.
pub(crate) struct Ready {
    pub(crate) encoded: Encoded,
    /// The tokens of a text, the patches of a picture.
    pub(crate) cost: usize,
    /// A small PNG, for pictures and where asked for.
    pub(crate) thumbnail: Option<Vec<u8>>,
}

/// What happens when the queue is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Patience {
    /// The request is refused: for the first inputs of a request.
    Refuse,
    /// The request waits: for a request that has been admitted before.
    Wait,
}

impl Content {
    /// Checks a text. The field of an error is `text`.
    pub(crate) fn text(text: String, limits: &Limits) -> Result<Self, ApiError> {
        check_text("text", &text, limits)?;
        Ok(Self::Text(text))
    }

    /// Reads base64, with or without `data:image/png;base64,` before it. The field of an error is
    /// `image`.
    pub(crate) fn picture_from_base64(text: &str, limits: &Limits) -> Result<Self, ApiError> {
        let bad = |message: String| ApiError::invalid("image", message);
        if is_url(text) {
            return Err(bad(
                "an address is no picture: send it as `image_url`, or base64 or a data URI here"
                    .into(),
            ));
        }
        let data = match text.strip_prefix("data:") {
            None => text,
            Some(uri) => match uri.split_once(',') {
                Some((kind, data)) if kind.ends_with(";base64") => data,
                _ => return Err(bad("the data URI has no `;base64,` part".into())),
            },
        };
        let data: String = data.split_ascii_whitespace().collect();
        let bytes = BASE64
            .decode(data)
            .map_err(|error| bad(format!("neither base64 nor a data URI: {error}")))?;
        Self::picture(bytes.into(), limits)
    }

    /// A picture that was sent, or named by its address.
    pub(crate) fn sent_picture(
        image: Option<String>,
        image_url: Option<String>,
        limits: &Limits,
    ) -> Result<Option<Self>, ApiError> {
        match (image, image_url) {
            (Some(_), Some(_)) => {
                let message = "send `image` or `image_url`, not both";
                Err(ApiError::invalid("image_url", message))
            }
            (Some(image), None) => Self::picture_from_base64(&image, limits).map(Some),
            (None, url) => Ok(url.map(Self::Url)),
        }
    }

    /// The same from clients of other services, who put both into one field.
    pub(crate) fn picture_or_url(text: String, limits: &Limits) -> Result<Self, ApiError> {
        if is_url(&text) {
            return Ok(Self::Url(text));
        }
        Self::picture_from_base64(&text, limits)
    }

    /// Checks the size of a picture file. The field of an error is `image`.
    pub(crate) fn picture(bytes: Bytes, limits: &Limits) -> Result<Self, ApiError> {
        if bytes.is_empty() {
            return Err(ApiError::invalid("image", "the picture is empty"));
        }
        if bytes.len() > limits.picture_bytes {
            return Err(ApiError::TooLarge {
                field: Some("image".into()),
                message: format!(
                    "the picture has {} bytes, at most {} are allowed",
                    bytes.len(),
                    limits.picture_bytes
                ),
            });
        }
        Ok(Self::Picture(bytes))
    }

    /// The name of the request field that held this.
    pub(crate) fn field(&self) -> &'static str {
        match self {
            Self::Text(_) => "text",
            Self::Picture(_) => "image",
            Self::Url(_) => "image_url",
        }
    }
}

/// Whether a text is an address that could be fetched.
pub(crate) fn is_url(text: &str) -> bool {
    let starts = |scheme: &str| {
        text.get(..scheme.len())
            .is_some_and(|s| s.eq_ignore_ascii_case(scheme))
    };
    starts("http://") || starts("https://")
}

/// Little-endian f32 in base64, as many embedding services send them. The field of an error is
/// `embedding`.
pub(crate) fn f32_from_base64(text: &str) -> Result<Vec<f32>, ApiError> {
    let bad = |message: String| ApiError::invalid("embedding", message);
    let bytes = BASE64
        .decode(text)
        .map_err(|error| bad(format!("not base64: {error}")))?;
    let (elements, rest) = bytes.as_chunks::<4>();
    if rest.is_empty() {
        Ok(elements
            .iter()
            .map(|element| f32::from_le_bytes(*element))
            .collect())
    } else {
        Err(bad(format!(
            "{} bytes are no row of 4-byte f32",
            bytes.len()
        )))
    }
}

/// Little-endian f32 in base64.
pub(crate) fn f32_to_base64(row: &[f32]) -> String {
    let bytes: Vec<u8> = row
        .iter()
        .flat_map(|element| element.to_le_bytes())
        .collect();
    BASE64.encode(bytes)
}

/// Checks a text of any field.
pub(crate) fn check_text(field: &str, text: &str, limits: &Limits) -> Result<(), ApiError> {
    if text.trim().is_empty() {
        return Err(ApiError::invalid(field, "the text is empty"));
    }
    if text.len() > limits.text_bytes {
        return Err(ApiError::TooLarge {
            field: Some(field.to_owned()),
            message: format!(
                "the text has {} bytes, at most {} are allowed",
                text.len(),
                limits.text_bytes
            ),
        });
    }
    Ok(())
}

/// Encodes at most [`Limits::window`] contents together; each fails alone.
///
/// # Errors
/// When the queue is full and `patience` is [`Patience::Refuse`].
pub(crate) async fn encode_window(
    Caller { state, client }: Caller<'_>,
    contents: Vec<Content>,
    class: Class,
    patience: Patience,
) -> Result<Vec<Result<Ready, ApiError>>, ApiError> {
    let texts = contents
        .iter()
        .filter(|c| matches!(c, Content::Text(_)))
        .count();
    let pictures = contents.len() - texts;
    let (mut text_room, mut picture_room) = match patience {
        Patience::Refuse => (
            state.texts.try_room(client, class, texts)?,
            state.images.try_room(client, class, pictures)?,
        ),
        Patience::Wait => (
            state.texts.wait_room(client, class, texts).await?,
            state.images.wait_room(client, class, pictures).await?,
        ),
    };
    let mut answers = Vec::with_capacity(contents.len());
    for content in contents {
        let room = match content {
            Content::Text(_) => text_room.one(),
            Content::Picture(_) | Content::Url(_) => picture_room.one(),
        };
        let room = room.ok_or(ApiError::QueueFull)?;
        answers.push(encode(state, content, room));
    }
    Ok(join_all(answers).await)
}

/// Encodes one content that asks, which is refused when the queue is full.
pub(crate) async fn encode_one(caller: Caller<'_>, content: Content) -> Result<Ready, ApiError> {
    let is_url = matches!(content, Content::Url(_));
    // The room is held until the answer is there.
    let (content, _room) = urls::fetched(caller.state, content).await?;
    let mut answers = encode_window(caller, vec![content], Class::Ask, Patience::Refuse).await?;
    if is_url {
        let answer = answers
            .pop()
            .map(|one| one.map_err(|error| error.at("image_url")));
        answers.extend(answer);
    }
    answers.pop().unwrap_or(Err(ApiError::Internal {
        doing: "encoding",
        source: None,
    }))
}

/// Encodes any number of contents that ask, a window at a time, so that one large request does not
/// fill the queue. They stand or fall together.
///
/// # Errors
/// The first error of any content, its field named by `name(index)`.
pub(crate) async fn encode_asked(
    caller: Caller<'_>,
    contents: Vec<Content>,
    name: impl Fn(usize) -> String,
) -> Result<Vec<Ready>, ApiError> {
    let mut done = Vec::with_capacity(contents.len());
    let mut contents = contents.into_iter().peekable();
    let mut patience = Patience::Refuse;
    while contents.peek().is_some() {
        let window = contents.by_ref().take(caller.state.limits.window());
        let (mut fetched, mut rooms) = (Vec::new(), Vec::new());
        let window = window.map(|content| urls::fetched(caller.state, content));
        for one in join_all(window).await {
            let index = done.len() + fetched.len();
            let (content, room) = one.map_err(|error| error.at(&name(index)))?;
            fetched.push(content);
            rooms.push(room);
        }
        for ready in encode_window(caller, fetched, Class::Ask, patience).await? {
            let index = done.len();
            done.push(ready.map_err(|error| error.at(&name(index)))?);
        }
        patience = Patience::Wait;
    }
    Ok(done)
}

async fn encode(state: &AppState, content: Content, room: Room) -> Result<Ready, ApiError> {
    let field = content.field();
    let late = ApiError::Late {
        deadline_ms: state.limits.deadline_ms(room.class()),
    };
    let deadline = room.deadline().into();
    let run = async {
        Ok(match content {
            Content::Text(text) => (state.texts.encode(text, room).await, None),
            Content::Picture(bytes) => {
                let prepared = prepare(state, bytes, room).await?;
                let encoded = state.images.encode(prepared.pixels, prepared.room).await;
                (encoded, prepared.thumbnail)
            }
            // Whoever comes here has fetched it.
            Content::Url(_) => {
                return Err(ApiError::Internal {
                    doing: "encoding an address",
                    source: None,
                });
            }
        })
    };
    let Ok(run) = timeout_at(deadline, run).await else {
        return Err(late);
    };
    let (done, thumbnail) = run?;
    match done {
        Ok(Done { encoded, cost }) => Ok(Ready {
            encoded,
            cost,
            thumbnail,
        }),
        Err(Failed::Late) => Err(late),
        Err(Failed::BadInput(reason)) => Err(ApiError::Input {
            field: field.into(),
            reason,
        }),
        Err(Failed::Tower) => Err(ApiError::Internal {
            doing: "encoding",
            source: None,
        }),
    }
}

/// A picture that can enter its tower.
struct Prepared {
    pixels: Pixels,
    thumbnail: Option<Vec<u8>>,
    room: Room,
}

/// Decodes on as many threads as there are cores, never more: a decoded picture is large. What is
/// to be kept is decoded with what is left of the processor.
///
/// A decode goes on when its client is gone. Its turn and its room in the queue go with it, so that
/// nobody can have more decoded by leaving early.
async fn prepare(state: &AppState, bytes: Bytes, room: Room) -> Result<Prepared, ApiError> {
    const DOING: &str = "decoding a picture";
    let limits = state.limits.decode();
    let prepare = state.model.prepare.clone();
    let metrics = Arc::clone(&state.metrics);
    let class = room.class();
    let keep = class == Class::Keep && state.thumbnails.is_some();
    let decode = move || {
        let picture = encoders::decode(&bytes, &limits).map_err(|source| ApiError::Picture {
            field: "image".into(),
            source,
        })?;
        let thumbnail = if keep {
            thumbnails::make(&picture)
        } else {
            None
        };
        let pixels = prepare(&picture);
        Ok(Prepared {
            pixels,
            thumbnail,
            room,
        })
    };
    let work = move || metrics.time(Stage::Decode, decode);
    match class {
        Class::Ask => {
            let turn = state.decode_turn().await?;
            block(DOING, move || {
                let _turn = turn;
                work()
            })
            .await
        }
        Class::Keep => state.pools.read(DOING, work).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_is_read_from_base64_and_from_a_data_uri_with_or_without_padding() {
        let limits = Limits::default();
        for text in ["aGVsbG8=", "aGVsbG8", "data:image/png;base64,aGVs\nbG8="] {
            let picture = Content::picture_from_base64(text, &limits);
            assert!(
                matches!(picture, Ok(Content::Picture(b)) if b == "hello"),
                "{text}"
            );
        }
        for text in [
            "",
            "aGVsb*8=",
            "data:image/png,hello",
            "https://example.org/cat.png",
        ] {
            let picture = Content::picture_from_base64(text, &limits);
            assert!(matches!(picture, Err(ApiError::Invalid { .. })), "{text}");
        }
    }

    #[test]
    fn an_embedding_is_read_from_little_endian_f32() {
        let text = BASE64.encode([0.5_f32.to_le_bytes(), (-2.0_f32).to_le_bytes()].concat());
        assert_eq!(f32_from_base64(&text).expect("is read"), [0.5, -2.0]);
        assert_eq!(f32_to_base64(&[0.5, -2.0]), text);
        assert!(f32_from_base64("AAAA").is_err(), "3 bytes are no f32");
    }
}
