//! `POST /knn-service` as the client of clip-retrieval knows it.

use std::sync::Arc;

use engine::{Answer, Collection, ItemId, Payload, Score, Target};
use serde::{Deserialize, Serialize, de::IgnoredAny};
use serde_json::Value;
use utoipa::ToSchema;

use crate::{
    access::Grant,
    openapi::twins,
    query::{self, in_range},
    reply::ApiError,
    state::{AppState, Caller},
    wire::{RowIn, SearchIn},
};

/// Cosine from which clip-retrieval takes two results for the same.
const SAME: f32 = 0.94;

/// A search with exactly one of `text`, `image` and `embedding_input`; an empty text counts as none.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct KnnIn {
    text: Option<String>,
    /// A picture file as base64.
    image: Option<String>,
    /// Refused: nothing is fetched from an address.
    image_url: Option<String>,
    /// A shared embedding.
    #[schema(min_items = 1)]
    embedding_input: Option<Vec<f32>>,
    #[schema(value_type = twins::Target)]
    modality: Target,
    /// Results that are told with all that is known of them; at most `limits.k`.
    #[schema(minimum = 1, maximum = 1000)]
    num_images: usize,
    /// Results in all; left out, `num_images`. Those beyond have an id and a similarity.
    #[schema(minimum = 1, maximum = 1000)]
    num_result_ids: Option<usize>,
    /// A collection; may be left out where there is only one.
    indice_name: Option<String>,
    /// Whether results are left out whose cosine with a better one is .94 or more.
    #[serde(default)]
    deduplicate: bool,
    /// `true` is refused: there is one model.
    #[serde(default)]
    use_mclip: bool,
    // As with clip-retrieval, these do nothing on a server that has no such models. Its client always
    // sends them.
    /// Nothing is done with it.
    #[serde(rename = "use_safety_model")]
    #[schema(value_type = Option<Value>)]
    _safety: Option<IgnoredAny>,
    /// Nothing is done with it.
    #[serde(rename = "use_violence_detector")]
    #[schema(value_type = Option<Value>)]
    _violence: Option<IgnoredAny>,
    /// Nothing is done with it.
    #[serde(rename = "aesthetic_score")]
    #[schema(value_type = Option<Value>)]
    _aesthetic: Option<IgnoredAny>,
    /// Nothing is done with it.
    #[serde(rename = "aesthetic_weight")]
    #[schema(value_type = Option<Value>)]
    _aesthetic_weight: Option<IgnoredAny>,
}

/// What was found.
pub(crate) struct Found {
    pub(crate) collection: String,
    pub(crate) answer: Answer,
    /// Hits that are told whole; of the others the id and the similarity.
    pub(crate) whole: usize,
}

impl KnnIn {
    /// Searches.
    pub(crate) async fn run(self, caller: Caller<'_>, grant: &Grant) -> Result<Found, ApiError> {
        let state = caller.state;
        if self.use_mclip {
            let message = "this server runs one model: leave `use_mclip` out";
            return Err(ApiError::invalid("use_mclip", message));
        }
        let most = state.limits.k;
        let whole = in_range("num_images", self.num_images, most)?.get();
        let k = self.num_result_ids.unwrap_or(whole);
        let k = in_range("num_result_ids", k, most)?.get();
        let collection = collection(state, grant, self.indice_name)?;
        let name = collection.name().to_owned();
        let asked = SearchIn {
            text: self.text.filter(|text| !text.is_empty()),
            image: self.image,
            image_url: self.image_url,
            embedding: self.embedding_input.map(RowIn::Numbers),
            target: Some(self.modality),
            k: Some(k),
            collapse: self.deduplicate.then_some(SAME),
            ..SearchIn::default()
        };
        let found = query::search(caller, collection, asked).await;
        Ok(Found {
            collection: name,
            answer: found.map_err(rename)?.answer,
            whole,
        })
    }
}

/// One result. Of those beyond `num_images` only `id` and `similarity` are told.
#[derive(Serialize, ToSchema)]
pub(crate) struct KnnHitOut {
    #[schema(value_type = String)]
    pub(crate) id: ItemId,
    /// Cosine with the query.
    #[schema(value_type = f32)]
    pub(crate) similarity: Score,
    /// Of the payload; otherwise the text, or the payload's `name`, or null.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Value>)]
    pub(crate) caption: Option<Value>,
    /// Of the payload; otherwise where this server shows the picture, if it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Value>)]
    pub(crate) url: Option<Value>,
    /// What else the payload has, as fields beside these.
    #[serde(flatten)]
    #[schema(value_type = Object, additional_properties)]
    pub(crate) rest: Payload,
}

/// The collection that is meant.
fn collection(
    state: &AppState,
    grant: &Grant,
    name: Option<String>,
) -> Result<Arc<Collection>, ApiError> {
    if let Some(name) = name {
        grant.check(&name)?;
        return state.collection_of_model(&name);
    }
    match &state.seen_by(grant)[..] {
        [only] => state.collection_of_model(only.name()),
        all => {
            let message = format!("there are {} collections: name one", all.len());
            Err(ApiError::invalid("indice_name", message))
        }
    }
}

/// Names fields as this request does.
fn rename(error: ApiError) -> ApiError {
    match error.field() {
        Some("embedding") => error.at("embedding_input"),
        Some("target") => error.at("modality"),
        _ => error,
    }
}
