//! `POST /embed` and `GET /info` as clients of text-embeddings-inference know them.

use serde::Deserialize;
use serde_json::{Value, json};

use super::inputs::{Inputs, OneOrMany, plain_text};
use crate::{content::Ready, reply::ApiError, state::AppState};

/// The body of `POST /embed`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct EmbedIn {
    inputs: OneOrMany<String>,
    /// `false` is refused: embeddings are of unit length here.
    normalize: Option<bool>,
    /// Whether a text may be cut to what the model reads; it may where nothing is said.
    truncate: Option<bool>,
}

impl EmbedIn {
    /// Checks all of it. Tokenizes where texts must not be cut.
    pub(crate) fn check(self, state: &AppState) -> Result<Inputs, ApiError> {
        if self.normalize == Some(false) {
            let message = "embeddings are of unit length here: leave `normalize` out";
            return Err(ApiError::invalid("normalize", message));
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
pub(crate) fn info(state: &AppState) -> Value {
    let (model, limits) = (&state.model, &state.limits);
    json!({
        "model_id": model.spaces.model,
        "model_sha": null,
        "model_dtype": model.info["text"]["precision"],
        "model_type": { "embedding": {} },
        "max_concurrent_requests": limits.queue_texts,
        "max_input_length": model.info["context_length"],
        "max_batch_tokens": limits.pass_tokens,
        "max_batch_requests": null,
        "max_client_batch_size": limits.items,
        "auto_truncate": true,
        "version": env!("CARGO_PKG_VERSION"),
    })
}
