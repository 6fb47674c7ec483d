//! What a search asks, put to the engine.

use std::{num::NonZeroUsize, sync::Arc, time::Instant};

use embedding::{Aspect, Embedding, Encoded, Modality, Space};
use engine::{
    Answer, Collection, Filter, GroupBy, Item, ItemId, Mix, Page, Part, Query, Score,
    SearchRequest, Target,
};

use crate::{
    content::{Content, encode_one, f32_from_base64},
    cursor,
    metrics::Stage,
    reply::ApiError,
    state::{AppState, Caller, block},
    wire::{PartIn, RowIn, SearchIn, SpaceIn},
};

/// Hits of a search that does not say how many.
const DEFAULT_K: usize = 10;

/// Largest number of candidates that an index may be told to keep.
const MAX_EF_SEARCH: usize = 65_536;

/// Hits that may lie before a page. Farther down, a cursor or a filter takes less time.
const MAX_OFFSET: usize = 10_000;

/// Most hits of one group.
const MAX_GROUP_HITS: usize = 100;

/// Items that a search may leave out by their ids.
const MAX_EXCLUDED: usize = 1000;

/// The specific space's share of a score when both spaces are compared and the request does not
/// say more.
const DEFAULT_SHARE: f32 = 0.5;

/// What a search found, and how.
pub(crate) struct Found {
    pub(crate) answer: Answer,
    /// For the next page.
    pub(crate) next: Option<String>,
    pub(crate) target: Target,
    pub(crate) space: &'static str,
}

/// One of the things to look for.
struct Asked {
    rows: Rows,
    /// What it is, where known.
    modality: Option<Modality>,
    weight: f32,
}

/// What is compared with items.
enum Rows {
    /// Made by the towers.
    Both(Encoded),
    /// Sent as it is, for the space that is searched.
    One(Embedding),
}

/// Runs one search.
pub(crate) async fn search(
    caller: Caller<'_>,
    collection: Arc<Collection>,
    mut wire: SearchIn,
) -> Result<Found, ApiError> {
    let state = caller.state;
    state.pools.query();
    let k = in_range("k", wire.k.unwrap_or(DEFAULT_K), state.limits.k)?;
    let ef_search = wire.ef_search;
    let ef_search = ef_search.map(|ef| in_range("ef_search", ef, MAX_EF_SEARCH));
    let ef_search = ef_search.transpose()?.map(NonZeroUsize::get);
    let filter = wire.filter.as_ref().map(Filter::from_json).transpose();
    let filter = filter.map_err(|e| ApiError::engine("reading a filter", e))?;
    let search_id = cursor::search_id(&wire);
    let page = page(&wire, search_id)?;
    let group_by = wire.group_by.take().map(|by| {
        let hits = in_range("group_by.hits", by.hits, MAX_GROUP_HITS)?;
        Ok::<_, ApiError>(GroupBy {
            field: by.field,
            hits,
        })
    });
    if wire.exclude.len() > MAX_EXCLUDED {
        let message = format!(
            "{} ids, expected at most {MAX_EXCLUDED}",
            wire.exclude.len()
        );
        return Err(ApiError::invalid("exclude", message));
    }
    let mut exclude = Vec::with_capacity(wire.exclude.len());
    for id in std::mem::take(&mut wire.exclude) {
        exclude.push(ItemId::new(id).map_err(|e| ApiError::engine("reading an id", e))?);
    }
    let parts = wire.parts()?;
    let enter = || state.searches.enter(caller.client);
    let begun = enter()?;
    // Whoever waits for another host holds no place meanwhile.
    let fetches = parts.iter().any(|(_, part)| part.image_url.is_some());
    let begun = (!fetches).then_some(begun);
    let asked = ask(caller, &collection, parts, &mut exclude).await?;
    let place = match begun {
        Some(place) => place,
        None => enter()?,
    };
    let own = own_modality(&asked);
    let target = choose_target(&collection, &wire, own);
    let spaces = Spaces {
        state,
        own,
        target,
        wanted: wire.space,
    };
    let (parts, mix) = spaces.parts(&asked, wire.specific_share)?;
    let request = SearchRequest {
        mix,
        ef_search,
        exact: wire.exact,
        exclude,
        filter,
        min_score: wire.min_score.map(Score),
        min_confidence: wire.min_confidence,
        confidence: wire.confidence,
        page,
        group_by: group_by.transpose()?,
        collapse: wire.collapse.map(Score),
        diversity: wire.diversity,
        explain: wire.explain,
        ..SearchRequest::of(parts, target, k)
    };
    let metrics = Arc::clone(&state.metrics);
    let started = Instant::now();
    let turn = state.search_turn().await?;
    let answer = block("searching", move || {
        // A search goes on when its client is gone, and counts as long.
        let _held = (turn, place);
        let answer = metrics.time_since(started, Stage::Search, || collection.search(&request));
        answer.map_err(|e| ApiError::engine("searching", e))
    })
    .await?;
    let next = answer
        .next
        .as_ref()
        .map(|next| cursor::write(next, search_id));
    Ok(Found {
        next,
        answer,
        target,
        space: wire.space.name(),
    })
}

fn page(wire: &SearchIn, search_id: u64) -> Result<Page, ApiError> {
    match (&wire.cursor, wire.offset) {
        (None, 0) => Ok(Page::First),
        (None, offset) if offset <= MAX_OFFSET => Ok(Page::Offset(offset)),
        (None, offset) => {
            let message = format!(
                "offset is {offset}, expected 0 to {MAX_OFFSET}: follow the cursor `next` of each \
                 page to get farther"
            );
            Err(ApiError::invalid("offset", message))
        }
        (Some(cursor), 0) => Ok(Page::After(cursor::read(cursor, search_id)?)),
        (Some(_), _) => {
            let message = "a cursor says where its page begins: leave the offset out";
            Err(ApiError::invalid("offset", message))
        }
    }
}

/// The embeddings of all that is asked for. Items that are asked for by id are not to be found.
async fn ask(
    caller: Caller<'_>,
    collection: &Arc<Collection>,
    parts: Vec<(String, PartIn)>,
    exclude: &mut Vec<ItemId>,
) -> Result<Vec<Asked>, ApiError> {
    let mut asked = Vec::with_capacity(parts.len());
    for (path, part) in parts {
        let one = ask_one(caller, collection, part, exclude).await;
        asked.push(one.map_err(|error| error.under(&path))?);
    }
    Ok(asked)
}

async fn ask_one(
    caller: Caller<'_>,
    collection: &Arc<Collection>,
    part: PartIn,
    exclude: &mut Vec<ItemId>,
) -> Result<Asked, ApiError> {
    let limits = &caller.state.limits;
    let weight = part.weight.unwrap_or(1.0);
    let picture = Content::sent_picture(part.image, part.image_url, limits)?;
    let content = match (part.text, picture, part.id, part.embedding) {
        (Some(text), None, None, None) => Content::text(text, limits)?,
        (None, Some(picture), None, None) => picture,
        (None, None, Some(id), None) => {
            let id = ItemId::new(id).map_err(|e| ApiError::engine("reading an id", e))?;
            let (item, _) = get(collection, id.clone()).await?;
            exclude.push(id);
            return Ok(Asked {
                modality: Some(item.modality),
                rows: Rows::Both(Encoded {
                    shared: item.shared,
                    specific: item.specific,
                }),
                weight,
            });
        }
        (None, None, None, Some(row)) => {
            let row = match row {
                RowIn::Numbers(row) => row,
                RowIn::Base64(text) => f32_from_base64(&text)?,
            };
            let row = Embedding::normalized(row);
            let row = row.map_err(|error| ApiError::invalid("embedding", error.to_string()))?;
            return Ok(Asked {
                rows: Rows::One(row),
                modality: None,
                weight,
            });
        }
        (text, image, id, embedding) => {
            let given = [
                ("text", text.is_some()),
                ("image", image.is_some()),
                ("id", id.is_some()),
                ("embedding", embedding.is_some()),
            ];
            let given = given.into_iter().filter_map(|(n, is)| is.then_some(n));
            let given: Vec<_> = given.collect();
            let field = given.get(1).copied().unwrap_or("text");
            let got = if given.is_empty() {
                "none".to_owned()
            } else {
                given.join(", ")
            };
            let message = format!(
                "a search, and each of its parts, needs exactly one of text, image, id, \
                 embedding; got {got}"
            );
            return Err(ApiError::invalid(field, message));
        }
    };
    let modality = match content {
        Content::Text(_) => Modality::Text,
        Content::Picture(_) | Content::Url(_) => Modality::Image,
    };
    Ok(Asked {
        rows: Rows::Both(encode_one(caller, content).await?.encoded),
        modality: Some(modality),
        weight,
    })
}

/// One item of a collection, and its version.
pub(crate) async fn get(collection: &Arc<Collection>, id: ItemId) -> Result<(Item, u64), ApiError> {
    let collection = Arc::clone(collection);
    block("reading an item", move || {
        let item = collection
            .get_with_version(&id)
            .map_err(|e| ApiError::engine("reading an item", e))?;
        item.ok_or_else(|| ApiError::NoItem {
            collection: collection.name().to_owned(),
            id: id.to_string(),
        })
    })
    .await
}

/// The modality of all parts; `None` where they differ or it is not known.
fn own_modality(asked: &[Asked]) -> Option<Modality> {
    let mut modalities = asked.iter().map(|part| part.modality);
    let first = modalities.next()??;
    modalities
        .all(|other| other == Some(first))
        .then_some(first)
}

/// What is searched when the request does not say: the query's own modality in a specific space,
/// otherwise images, unless the collection holds only texts.
fn choose_target(collection: &Collection, wire: &SearchIn, own: Option<Modality>) -> Target {
    let specific = matches!(wire.space, SpaceIn::Specific | SpaceIn::Mixed);
    let stats = collection.stats();
    match (wire.target, own.filter(|_| specific)) {
        (Some(target), _) => target,
        (None, Some(Modality::Text)) => Target::Text,
        (None, None) if stats.images == 0 && stats.texts > 0 => Target::Text,
        (None, _) => Target::Image,
    }
}

/// Which spaces are searched, and what decides that.
struct Spaces<'a> {
    state: &'a AppState,
    own: Option<Modality>,
    target: Target,
    wanted: SpaceIn,
}

impl Spaces<'_> {
    /// The parts of a search, and what is mixed in.
    fn parts(
        &self,
        asked: &[Asked],
        share: Option<f32>,
    ) -> Result<(Vec<Part>, Option<Mix>), ApiError> {
        if share.is_some() && self.wanted != SpaceIn::Mixed {
            let message = "only space `mixed` has a share of the specific space";
            return Err(ApiError::invalid("specific_share", message));
        }
        let model = &self.state.model.spaces;
        match self.wanted {
            SpaceIn::Auto | SpaceIn::Shared => Ok((in_space(asked, &model.shared())?, None)),
            SpaceIn::Specific => Ok((in_space(asked, &self.specific()?)?, None)),
            SpaceIn::Mixed => {
                if asked.iter().any(|part| matches!(part.rows, Rows::One(_))) {
                    let message = "an embedding is of one space: space `mixed` needs text, image \
                                   or id";
                    return Err(ApiError::invalid("space", message));
                }
                let mix = Mix {
                    parts: in_space(asked, &self.specific()?)?,
                    share: share.unwrap_or(DEFAULT_SHARE),
                };
                Ok((in_space(asked, &model.shared())?, Some(mix)))
            }
        }
    }

    /// The specific space of the target, whose modality must be the query's own.
    fn specific(&self) -> Result<Space, ApiError> {
        let modality = match self.target {
            Target::Image => Modality::Image,
            Target::Text => Modality::Text,
            Target::Both => {
                let message = "texts and images meet only in the shared space: with space \
                               `specific` or `mixed` the target is image or text";
                return Err(ApiError::invalid("target", message));
            }
        };
        if self.own.is_some_and(|own| own != modality) {
            let message = format!(
                "in the specific space of {modality}s only {modality}s can be looked for, not {}s",
                self.own.unwrap_or(modality)
            );
            return Err(ApiError::invalid("target", message));
        }
        let model = &self.state.model.spaces;
        let space = model.specific(modality);
        space.ok_or_else(|| nothing_specific(&model.model))
    }
}

fn nothing_specific(model: &str) -> ApiError {
    let message = format!("model {model} keeps nothing specific here: use shared");
    ApiError::invalid("space", message)
}

fn in_space(asked: &[Asked], space: &Space) -> Result<Vec<Part>, ApiError> {
    let part = |asked: &Asked| {
        let row = match &asked.rows {
            Rows::One(row) => Some(row),
            Rows::Both(both) if space.aspect == Aspect::Shared => Some(&both.shared),
            Rows::Both(both) => {
                let fits = asked.modality.map(Aspect::Specific) == Some(space.aspect);
                both.specific.as_ref().filter(|_| fits)
            }
        };
        let embedding = row.cloned().ok_or_else(|| nothing_specific(&space.model))?;
        if embedding.dim() != space.dim {
            let (aspect, dim, got) = (space.aspect, space.dim, embedding.dim());
            let message = format!("the {aspect} space has dim {dim}, got {got}");
            return Err(ApiError::invalid("embedding", message));
        }
        Ok(Part {
            query: Query {
                embedding,
                space: space.clone(),
            },
            modality: asked.modality,
            weight: asked.weight,
        })
    };
    asked.iter().map(part).collect()
}

/// A number that must be in its range.
pub(crate) fn in_range(field: &str, value: usize, max: usize) -> Result<NonZeroUsize, ApiError> {
    NonZeroUsize::new(value)
        .filter(|v| v.get() <= max)
        .ok_or_else(|| ApiError::invalid(field, format!("{field} is {value}, expected 1 to {max}")))
}
