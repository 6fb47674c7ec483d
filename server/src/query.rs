//! What a search asks, put to the engine.

use std::{num::NonZeroUsize, sync::Arc};

use actix_web::web::Data;
use embedding::{Embedding, Encoded, Modality};
use engine::{
    Collection, Explained, Filter, Hit, Item, ItemId, Query, SearchRequest, ShardPlan, Target,
};

use crate::{
    content::{Content, encode_one, f32_from_base64},
    reply::ApiError,
    state::{AppState, block},
    wire::{RowIn, SearchIn, SpaceIn},
};

/// Hits of a search that does not say how many.
const DEFAULT_K: usize = 10;

/// Largest number of candidates that an index may be told to keep.
const MAX_EF_SEARCH: usize = 65_536;

/// What a search found, and how.
pub(crate) struct Found {
    pub(crate) hits: Vec<Hit>,
    pub(crate) target: Target,
    pub(crate) space: &'static str,
    /// What was done in each shard, when the request asked for it.
    pub(crate) shards: Option<Vec<ShardPlan>>,
}

/// The row to compare with, in the wanted aspect, and the modality that it is of, where known.
struct Asked {
    /// `None` where the model keeps nothing specific of the modality.
    row: Option<Embedding>,
    modality: Option<Modality>,
    exclude: Option<ItemId>,
}

/// Runs one search.
pub(crate) async fn search(
    state: &Data<AppState>,
    collection: Arc<Collection>,
    wire: SearchIn,
) -> Result<Found, ApiError> {
    let k = in_range("k", wire.k.unwrap_or(DEFAULT_K), state.limits.k)?;
    let ef_search = wire
        .ef_search
        .map(|ef| in_range("ef_search", ef, MAX_EF_SEARCH))
        .transpose()?;
    let filter = wire.filter.as_ref().map(Filter::from_json).transpose();
    let filter = filter.map_err(|e| ApiError::engine("reading a filter", e))?;
    let specific = wire.space == SpaceIn::Specific;
    let (target, exact, explain) = (wire.target, wire.exact, wire.explain);
    let asked = ask(state, &collection, wire, specific).await?;
    let target = choose_target(&collection, target, asked.modality.filter(|_| specific));
    let query = query(state, asked.row, asked.modality, specific.then_some(target))?;
    let request = SearchRequest {
        query,
        target,
        k,
        ef_search: ef_search.map(NonZeroUsize::get),
        exact,
        exclude: asked.exclude,
        filter,
    };
    let (hits, shards) = block("searching", move || {
        let search = |request: &SearchRequest| -> Result<(Vec<Hit>, Vec<ShardPlan>), ApiError> {
            let failed = |e| ApiError::engine("searching", e);
            if !explain {
                let hits = collection.search(request).map_err(failed)?;
                return Ok((hits, Vec::new()));
            }
            let Explained { hits, shards, .. } = collection.explain(request).map_err(failed)?;
            Ok((hits, shards))
        };
        if request.target != Target::Both {
            return search(&request);
        }
        let images = SearchRequest {
            target: Target::Image,
            ..request.clone()
        };
        let texts = SearchRequest {
            target: Target::Text,
            ..request
        };
        let (images, mut shards) = search(&images)?;
        let (texts, of_texts) = search(&texts)?;
        shards.extend(of_texts);
        Ok((interleave(images, texts, k.get()), shards))
    })
    .await?;
    Ok(Found {
        hits,
        target,
        space: if specific { "specific" } else { "shared" },
        shards: explain.then_some(shards),
    })
}

/// The embeddings of what was sent, which is exactly one thing.
async fn ask(
    state: &AppState,
    collection: &Arc<Collection>,
    wire: SearchIn,
    specific: bool,
) -> Result<Asked, ApiError> {
    let encoded = |encoded: Encoded, modality, exclude| Asked {
        row: if specific {
            encoded.specific
        } else {
            Some(encoded.shared)
        },
        modality: Some(modality),
        exclude,
    };
    match (wire.text, wire.image, wire.id, wire.embedding) {
        (Some(text), None, None, None) => {
            let content = Content::text(text, &state.limits)?;
            Ok(encoded(
                encode_one(state, content).await?.encoded,
                Modality::Text,
                None,
            ))
        }
        (None, Some(image), None, None) => {
            let content = Content::picture_from_base64(&image, &state.limits)?;
            Ok(encoded(
                encode_one(state, content).await?.encoded,
                Modality::Image,
                None,
            ))
        }
        (None, None, Some(id), None) => {
            let id = ItemId::new(id).map_err(|e| ApiError::engine("reading an id", e))?;
            let item = get(collection, id.clone()).await?;
            let both = Encoded {
                shared: item.shared,
                specific: item.specific,
            };
            Ok(encoded(both, item.modality, Some(id)))
        }
        (None, None, None, Some(row)) => {
            let row = match row {
                RowIn::Numbers(row) => row,
                RowIn::Base64(text) => f32_from_base64(&text)?,
            };
            let row = Embedding::normalized(row)
                .map_err(|error| ApiError::invalid("embedding", error.to_string()))?;
            Ok(Asked {
                row: Some(row),
                modality: None,
                exclude: None,
            })
        }
        (text, image, id, embedding) => {
            let given = [
                ("text", text.is_some()),
                ("image", image.is_some()),
                ("id", id.is_some()),
                ("embedding", embedding.is_some()),
            ];
            let given: Vec<_> = given
                .into_iter()
                .filter_map(|(n, is)| is.then_some(n))
                .collect();
            let field = given.get(1).copied().unwrap_or("text");
            let got = if given.is_empty() {
                "none".to_owned()
            } else {
                given.join(", ")
            };
            Err(ApiError::invalid(
                field,
                format!("a search needs exactly one of text, image, id, embedding; got {got}"),
            ))
        }
    }
}

/// One item of a collection.
pub(crate) async fn get(collection: &Arc<Collection>, id: ItemId) -> Result<Item, ApiError> {
    let collection = Arc::clone(collection);
    block("reading an item", move || {
        let item = collection
            .get(&id)
            .map_err(|e| ApiError::engine("reading an item", e))?;
        item.ok_or_else(|| ApiError::NoItem {
            collection: collection.name().to_owned(),
            id: id.to_string(),
        })
    })
    .await
}

/// What is searched when the request does not say: the query's own modality in a specific space,
/// otherwise images, unless the collection holds only texts.
fn choose_target(
    collection: &Collection,
    wanted: Option<Target>,
    specific: Option<Modality>,
) -> Target {
    let stats = collection.stats();
    match (wanted, specific) {
        (Some(target), _) => target,
        (None, Some(Modality::Text)) => Target::Text,
        (None, None) if stats.images == 0 && stats.texts > 0 => Target::Text,
        (None, _) => Target::Image,
    }
}

/// A query in the shared space or, with a target, in the specific space of that target.
fn query(
    state: &AppState,
    row: Option<Embedding>,
    own: Option<Modality>,
    specific: Option<Target>,
) -> Result<Query, ApiError> {
    let model = &state.model.spaces;
    let space = match specific {
        None => Some(model.shared()),
        Some(target) => model.specific(specific_modality(target, own)?),
    };
    let (Some(space), Some(embedding)) = (space, row) else {
        let message = format!(
            "model {} keeps nothing specific here: use shared",
            model.model
        );
        return Err(ApiError::invalid("space", message));
    };
    if embedding.dim() != space.dim {
        let message = format!(
            "the {} space has dim {}, got {}",
            space.aspect,
            space.dim,
            embedding.dim()
        );
        return Err(ApiError::invalid("embedding", message));
    }
    Ok(Query { embedding, space })
}

/// The modality of a target in a specific space, which must be the query's own.
fn specific_modality(target: Target, own: Option<Modality>) -> Result<Modality, ApiError> {
    let modality = match target {
        Target::Image => Modality::Image,
        Target::Text => Modality::Text,
        Target::Both => {
            let message = "texts and images meet only in the shared space: with space `specific` \
                           the target is image or text";
            return Err(ApiError::invalid("target", message));
        }
    };
    match own {
        Some(own) if own != modality => {
            let message =
                format!("in the specific space of {own}s only {own}s are found, not {modality}s");
            Err(ApiError::invalid("target", message))
        }
        _ => Ok(modality),
    }
}

/// Best of each in turn. Cosines of a query with texts and with images are not comparable: ranked
/// by score, one modality would hide the other.
fn interleave(images: Vec<Hit>, texts: Vec<Hit>, k: usize) -> Vec<Hit> {
    let (mut images, mut texts) = (images.into_iter(), texts.into_iter());
    let mut hits = Vec::with_capacity(k);
    while hits.len() < k {
        let (image, text) = (images.next(), texts.next());
        if image.is_none() && text.is_none() {
            break;
        }
        hits.extend(image.into_iter().chain(text));
    }
    hits.truncate(k);
    hits
}

/// A number that must be in its range.
pub(crate) fn in_range(field: &str, value: usize, max: usize) -> Result<NonZeroUsize, ApiError> {
    NonZeroUsize::new(value)
        .filter(|v| v.get() <= max)
        .ok_or_else(|| ApiError::invalid(field, format!("{field} is {value}, expected 1 to {max}")))
}
