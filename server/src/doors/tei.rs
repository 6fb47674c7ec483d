//! `POST /embed` and `GET /info` as clients of text-embeddings-inference know them.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::inputs::{Inputs, OneOrMany, plain_text};
use crate::{content::Ready, reply::ApiError, state::AppState};

/// Texts to embed.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct EmbedIn {
    /// One text or up to 1,000 (`limits.items`).
    inputs: OneOrMany<String>,
    /// `false` is refused: embeddings are of unit length here.
    #[schema(default = true)]
    normalize: Option<bool>,
    /// Whether a text may be cut to what the model reads; `false` refuses one that is longer.
    #[schema(default = true)]
    truncate: Option<bool>,
    /// `Left` is refused: a text is cut at its end.
    truncation_direction: Option<DirectionIn>,
    /// Anything but null is refused: the model has no prompts.
    prompt_name: Option<String>,
}

/// The end at which a text is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
enum DirectionIn {
    Left,
    Right,
}

impl EmbedIn {
    /// Checks all of it. Tokenizes where texts must not be cut.
    pub(crate) fn check(self, state: &AppState) -> Result<Inputs, ApiError> {
        if self.normalize == Some(false) {
            let message = "embeddings are of unit length here: leave `normalize` out";
            return Err(ApiError::invalid("normalize", message));
        }
        if self.truncation_direction == Some(DirectionIn::Left) {
            let message = "only `Right` is supported: a text that is too long is cut at its end";
            return Err(ApiError::invalid("truncation_direction", message));
        }
        if self.prompt_name.is_some() {
            let message = "the model has no prompts: only null is supported";
            return Err(ApiError::invalid("prompt_name", message));
        }
        let limits = &state.limits;
        let inputs = Inputs::read("inputs", self.inputs, limits, |text| {
            plain_text(text, limits)
        })?;
        if self.truncate == Some(false) {
            for (name, text) in inputs.texts() {
                if (state.model.cuts)(text) {
                    return Err(ApiError::TooLarge {
                        field: Some(name.to_owned()),
                        message: "the text has more tokens than the model reads: shorten it, or \
                                  let it be cut with `truncate`"
                            .into(),
                    });
                }
            }
        }
        Ok(inputs)
    }
}

/// The answer, as JSON: always an array of rows.
pub(crate) fn write(ready: &[Ready]) -> Result<Vec<u8>, ApiError> {
    let rows: Vec<&[f32]> = ready.iter().map(|r| r.encoded.shared.as_slice()).collect();
    serde_json::to_vec(&rows).map_err(|source| ApiError::internal("writing embeddings", source))
}

/// What is said of the model, and of the limits of this server.
#[derive(Serialize, ToSchema)]
pub(crate) struct InfoOut {
    model_id: String,
    /// Always null: it is not known here.
    #[schema(required, value_type = Option<String>)]
    model_sha: Option<&'static str>,
    /// How the weights of the text tower are stored.
    #[schema(value_type = String)]
    model_dtype: Value,
    model_type: ModelTypeOut,
    max_concurrent_requests: usize,
    /// Tokens of the longest text that is read whole.
    #[schema(value_type = usize)]
    max_input_length: Value,
    max_batch_tokens: usize,
    /// Always null: passes are bounded by their tokens.
    #[schema(required)]
    max_batch_requests: Option<usize>,
    max_client_batch_size: usize,
    auto_truncate: bool,
    #[schema(value_type = String)]
    version: &'static str,
}

/// What kind of model it is.
#[derive(Serialize, ToSchema)]
struct ModelTypeOut {
    #[schema(value_type = Object)]
    embedding: serde_json::Map<String, Value>,
}

pub(crate) fn info(state: &AppState) -> InfoOut {
    let (model, limits) = (&state.model, &state.limits);
    InfoOut {
        model_id: model.spaces.model.clone(),
        model_sha: None,
        model_dtype: model.info["text"]["precision"].clone(),
        model_type: ModelTypeOut {
            embedding: serde_json::Map::new(),
        },
        max_concurrent_requests: limits.queue_texts,
        max_input_length: model.info["context_length"].clone(),
        max_batch_tokens: limits.pass_tokens,
        max_batch_requests: None,
        max_client_batch_size: limits.items,
        auto_truncate: true,
        version: env!("CARGO_PKG_VERSION"),
    }
}
