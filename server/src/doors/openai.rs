//! `POST /v1/embeddings` and `GET /v1/models` as clients of `OpenAI` know them.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::inputs::{InputIn, Inputs, ModalityIn, OneOrMany};
use crate::{
    content::{Ready, f32_to_base64},
    reply::ApiError,
    state::{AppState, Caller},
};

/// What should be embedded.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct EmbeddingsIn {
    /// One input or up to 1,000 (`limits.items`). Token ids are refused: they are those of another
    /// model's tokenizer.
    input: OneOrMany<InputIn>,
    /// Must be the model of this server, as `GET /v1/models` says it.
    model: Option<String>,
    encoding_format: Option<FormatIn>,
    /// Must be what the model has: none here was trained to be cut.
    dimensions: Option<usize>,
    /// What plain strings are. Left out, those that begin with `data:image/` are pictures, all others
    /// texts.
    modality: Option<ModalityIn>,
    /// Who asks on behalf of whom; nothing is done with it.
    #[serde(rename = "user")]
    _user: Option<String>,
}

/// How an embedding is written: as an array of numbers, or as base64 of little-endian f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum FormatIn {
    /// An array of numbers.
    #[default]
    Float,
    /// base64 of little-endian f32.
    Base64,
}

/// What was checked and can be encoded.
pub(crate) struct Asked {
    inputs: Inputs,
    format: FormatIn,
}

/// Encoded, and how to write it.
pub(crate) struct Embedded {
    ready: Vec<Ready>,
    format: FormatIn,
}

impl EmbeddingsIn {
    /// Checks all of it.
    pub(crate) fn check(self, state: &AppState) -> Result<Asked, ApiError> {
        check_model(state, self.model.as_deref())?;
        let dim = state.model.spaces.shared_dim;
        if let Some(asked) = self.dimensions.filter(|asked| *asked != dim) {
            let message = format!(
                "embeddings of {} have {dim} dimensions, got {asked}: it was not trained to be cut, \
                 so leave `dimensions` out",
                state.model.spaces.model
            );
            return Err(ApiError::invalid("dimensions", message));
        }
        let limits = &state.limits;
        let content = |input: InputIn| input.content(self.modality, limits);
        Ok(Asked {
            inputs: Inputs::read("input", self.input, limits, content)?,
            format: self.encoding_format.unwrap_or_default(),
        })
    }
}

impl Asked {
    /// Encodes all inputs, or none.
    pub(crate) async fn encode(self, caller: Caller<'_>) -> Result<Embedded, ApiError> {
        Ok(Embedded {
            ready: self.inputs.encode(caller).await?,
            format: self.format,
        })
    }
}

impl Embedded {
    /// The answer of `model`, as JSON.
    pub(crate) fn write(&self, model: &str) -> Result<Vec<u8>, ApiError> {
        let row = |(index, ready): (usize, &Ready)| {
            let row = ready.encoded.shared.as_slice().to_vec();
            EmbeddingOut {
                object: "embedding",
                index,
                embedding: match self.format {
                    FormatIn::Float => RowOut::Numbers(row),
                    FormatIn::Base64 => RowOut::Base64(f32_to_base64(&row)),
                },
            }
        };
        let tokens = self.ready.iter().map(|ready| ready.cost).sum();
        let out = EmbeddingsOut {
            object: "list",
            data: self.ready.iter().enumerate().map(row).collect(),
            model,
            usage: UsageOut {
                prompt_tokens: tokens,
                total_tokens: tokens,
            },
        };
        serde_json::to_vec(&out).map_err(|source| ApiError::internal("writing embeddings", source))
    }
}

/// Embeddings as clients of `OpenAI` read them.
#[derive(Serialize, ToSchema)]
pub(crate) struct EmbeddingsOut<'a> {
    #[schema(example = "list")]
    object: &'static str,
    data: Vec<EmbeddingOut>,
    #[schema(value_type = String)]
    model: &'a str,
    usage: UsageOut,
}

/// One embedding, of unit length.
#[derive(Serialize, ToSchema)]
struct EmbeddingOut {
    #[schema(example = "embedding")]
    object: &'static str,
    /// Which input it is of, from 0.
    index: usize,
    embedding: RowOut,
}

/// Numbers, or base64 of little-endian f32, as `encoding_format` asked.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
enum RowOut {
    Numbers(Vec<f32>),
    Base64(String),
}

/// Tokens of texts and patches of pictures that went through the model.
#[derive(Serialize, ToSchema)]
struct UsageOut {
    prompt_tokens: usize,
    total_tokens: usize,
}

/// Refuses a model that this server does not run: its embeddings would be of another space.
pub(crate) fn check_model(state: &AppState, asked: Option<&str>) -> Result<(), ApiError> {
    let ours = &state.model.spaces.model;
    match asked {
        Some(asked) if asked != ours => Err(ApiError::NoModel {
            model: asked.to_owned(),
            ours: ours.clone(),
        }),
        _ => Ok(()),
    }
}

/// A model as clients of `OpenAI` read it.
#[derive(Serialize, ToSchema)]
pub(crate) struct ModelOut {
    id: String,
    #[schema(example = "model")]
    object: &'static str,
    /// 0: when it was made is not known, and clients want a number.
    created: u64,
    #[schema(example = "diptych")]
    owned_by: &'static str,
}

/// All models as clients of `OpenAI` read them.
#[derive(Serialize, ToSchema)]
pub(crate) struct ModelsOut {
    #[schema(example = "list")]
    object: &'static str,
    data: Vec<ModelOut>,
}

impl ModelsOut {
    pub(crate) fn new(data: impl Into<Vec<ModelOut>>) -> Self {
        Self {
            object: "list",
            data: data.into(),
        }
    }
}

/// The one model.
pub(crate) fn model(state: &AppState) -> ModelOut {
    ModelOut {
        id: state.model.spaces.model.clone(),
        object: "model",
        created: 0,
        owned_by: "diptych",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::parse;

    fn refused(json: &str) -> (String, String) {
        match parse::<EmbeddingsIn>(json.as_bytes()) {
            Err(ApiError::Invalid { field, message }) => (field, message),
            Err(other) => panic!("{json}: {other}"),
            Ok(_) => panic!("{json} is read"),
        }
    }

    #[test]
    fn the_input_that_is_wrong_is_named() {
        let field = |json| refused(json).0;
        assert_eq!(field(r#"{"input": ["a", {"image": 3}]}"#), "input[1].image");
        assert_eq!(field(r#"{"input": ["a", {"url": "b"}]}"#), "input[1].url");
        assert_eq!(field(r#"{"input": {"txt": "a"}}"#), "input.txt");
        assert_eq!(field(r#"{"input": null}"#), "input");
        assert_eq!(field("{}"), "input");
        let float = r#"{"input": "a", "encoding_format": "int8"}"#;
        assert_eq!(field(float), "encoding_format");
    }

    #[test]
    fn token_ids_are_refused_in_words() {
        for (json, at) in [
            (r#"{"input": [1, 2]}"#, "input[0]"),
            (r#"{"input": [[1, 2], [3]]}"#, "input[0]"),
            (r#"{"input": ["a", [3]]}"#, "input[1]"),
        ] {
            let (field, message) = refused(json);
            assert_eq!(field, at, "{json}");
            assert!(message.contains("send the text itself"), "{message}");
        }
    }
}
