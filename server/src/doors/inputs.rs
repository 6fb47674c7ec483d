//! What is to be embedded, as clients of other services send it: one thing or an array, texts as
//! strings, texts and pictures as objects.

use std::{fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{
        Error, IntoDeserializer as _, MapAccess, SeqAccess, Visitor,
        value::{MapAccessDeserializer, StringDeserializer},
    },
};
use utoipa::ToSchema;

use crate::{
    config::Limits,
    content::{Content, Ready, check_text, encode_asked},
    reply::ApiError,
    state::Caller,
};

/// Why token ids are refused.
const TOKENS: &str = "token ids are those of another model's tokenizer: send the text itself \
                      (LangChain: check_embedding_ctx_length=False)";

/// How a plain string begins that is a picture, unless the request says what it is.
const PICTURE: &str = "data:image/";

/// One value, or an array of them.
#[derive(Debug, ToSchema)]
#[serde(untagged)]
pub(crate) enum OneOrMany<T> {
    One(T),
    Many(Vec<T>),
}

/// One thing to embed: a string, `{"text": ...}` or `{"image": ...}`.
#[derive(Debug, ToSchema)]
#[serde(untagged)]
pub(crate) enum InputIn {
    /// A picture if it begins with `data:image/`, otherwise a text, unless `modality` says which. A
    /// text is never an address that is fetched.
    Plain(String),
    /// `{"text": ...}` or `{"image": ...}`, as Jina's clients send them.
    Named(NamedIn),
}

/// A text or a picture: exactly one of both.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NamedIn {
    text: Option<String>,
    /// base64, a data URI or an address.
    image: Option<String>,
}

/// What plain strings are: texts, or pictures as base64 or data URIs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ModalityIn {
    Text,
    Image,
}

/// Contents, and what the request calls each.
pub(crate) struct Inputs {
    contents: Vec<Content>,
    names: Vec<String>,
}

impl<T> OneOrMany<T> {
    /// All values with their names: `field` is that of a single one.
    fn named(self, field: &str) -> Vec<(String, T)> {
        match self {
            Self::One(one) => vec![(field.to_owned(), one)],
            Self::Many(many) => {
                let many = many.into_iter().enumerate();
                many.map(|(i, one)| (format!("{field}[{i}]"), one))
                    .collect()
            }
        }
    }
}

impl Inputs {
    /// Checks what came in `field`. With a content comes its own name within the input, if any.
    pub(super) fn read<T>(
        field: &str,
        given: OneOrMany<T>,
        limits: &Limits,
        content: impl Fn(T) -> Result<(Content, &'static str), ApiError>,
    ) -> Result<Self, ApiError> {
        let given = given.named(field);
        let message = || format!("{} inputs, expected 1 to {}", given.len(), limits.items);
        if given.is_empty() {
            return Err(ApiError::invalid(field, message()));
        }
        if given.len() > limits.items {
            return Err(ApiError::TooLarge {
                field: Some(field.to_owned()),
                message: message(),
            });
        }
        let mut inputs = Self {
            contents: Vec::with_capacity(given.len()),
            names: Vec::with_capacity(given.len()),
        };
        for (name, one) in given {
            let (content, own) = content(one).map_err(|error| error.under(&name))?;
            inputs.contents.push(content);
            inputs.names.push(if own.is_empty() {
                name
            } else {
                format!("{name}.{own}")
            });
        }
        Ok(inputs)
    }

    /// The texts among them, with their names.
    pub(super) fn texts(&self) -> impl Iterator<Item = (&str, &str)> {
        let all = self.names.iter().zip(&self.contents);
        all.filter_map(|(name, content)| match content {
            Content::Text(text) => Some((name.as_str(), text.as_str())),
            Content::Picture(_) | Content::Url(_) => None,
        })
    }

    /// Encodes all of them, or none.
    pub(crate) async fn encode(self, caller: Caller<'_>) -> Result<Vec<Ready>, ApiError> {
        let Self { contents, names } = self;
        encode_asked(caller, contents, |i| names[i].clone()).await
    }
}

impl InputIn {
    /// What is to be encoded.
    pub(super) fn content(
        self,
        plain: Option<ModalityIn>,
        limits: &Limits,
    ) -> Result<(Content, &'static str), ApiError> {
        match self {
            Self::Plain(text) => {
                let is_picture = || text.starts_with(PICTURE);
                if plain.map_or_else(is_picture, |plain| plain == ModalityIn::Image) {
                    let image = Content::picture_or_url(text, limits);
                    Ok((image.map_err(|error| error.at(""))?, ""))
                } else {
                    plain_text(text, limits)
                }
            }
            Self::Named(named) => match (named.text, named.image) {
                (Some(text), None) => Ok((Content::text(text, limits)?, "text")),
                (None, Some(image)) => Ok((Content::picture_or_url(image, limits)?, "image")),
                (text, _) => {
                    let got = if text.is_some() { "both" } else { "neither" };
                    let message = format!("an input has `text` or `image`, got {got}");
                    Err(ApiError::invalid("", message))
                }
            },
        }
    }
}

/// A text that has no field of its own.
pub(super) fn plain_text(
    text: String,
    limits: &Limits,
) -> Result<(Content, &'static str), ApiError> {
    check_text("", &text, limits)?;
    Ok((Content::Text(text), ""))
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for OneOrMany<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OneOrManyVisitor(PhantomData))
    }
}

/// Written out, since an untagged enum would not say which of its elements is wrong.
struct OneOrManyVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for OneOrManyVisitor<T> {
    type Value = OneOrMany<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("one input or an array of them")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        self.visit_string(text.to_owned())
    }

    fn visit_string<E: Error>(self, text: String) -> Result<Self::Value, E> {
        let text: StringDeserializer<E> = text.into_deserializer();
        T::deserialize(text).map(OneOrMany::One)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(OneOrMany::One)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut many = Vec::new();
        while let Some(one) = seq.next_element()? {
            many.push(one);
        }
        Ok(OneOrMany::Many(many))
    }
}

impl<'de> Deserialize<'de> for InputIn {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(InputVisitor)
    }
}

struct InputVisitor;

impl<'de> Visitor<'de> for InputVisitor {
    type Value = InputIn;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text, {\"text\": ...} or {\"image\": ...}")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(InputIn::Plain(text.to_owned()))
    }

    fn visit_string<E: Error>(self, text: String) -> Result<Self::Value, E> {
        Ok(InputIn::Plain(text))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        NamedIn::deserialize(MapAccessDeserializer::new(map)).map(InputIn::Named)
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<Self::Value, E> {
        Err(E::custom(TOKENS))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> Result<Self::Value, A::Error> {
        Err(A::Error::custom(TOKENS))
    }
}
