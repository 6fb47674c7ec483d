//! `POST /knn-service` as the client of clip-retrieval knows it.

use std::sync::Arc;

use engine::{Answer, Collection, Target};
use serde::{Deserialize, de::IgnoredAny};

use crate::{
    access::Grant,
    query::{self, in_range},
    reply::ApiError,
    state::{AppState, Caller},
    wire::{RowIn, SearchIn},
};

/// Cosine from which clip-retrieval takes two results for the same.
const SAME: f32 = 0.94;

/// What is searched with: `text`, `image`, `embedding_input`; an empty text counts as none.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct KnnIn {
    text: Option<String>,
    image: Option<String>,
    image_url: Option<String>,
    embedding_input: Option<Vec<f32>>,
    modality: Target,
    /// Results that are told with all that is known of them.
    num_images: usize,
    /// Results in all.
    num_result_ids: Option<usize>,
    /// A collection; may be left out where there is only one.
    indice_name: Option<String>,
    #[serde(default)]
    deduplicate: bool,
    #[serde(default)]
    use_mclip: bool,
    // As with clip-retrieval, these do nothing on a server that has no such models. Its client always
    // sends them.
    #[serde(rename = "use_safety_model")]
    _safety: Option<IgnoredAny>,
    #[serde(rename = "use_violence_detector")]
    _violence: Option<IgnoredAny>,
    #[serde(rename = "aesthetic_score")]
    _aesthetic: Option<IgnoredAny>,
    #[serde(rename = "aesthetic_weight")]
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
