//! A collection that another model made, encoded with the one that is served: into a collection beside it,
//! and then the two take each other's name.

use std::{io::Read as _, sync::Arc};

use actix_web::web::Data;
use bytes::Bytes;
use embedding::Modality;
use encoders::DecodeLimits;
use engine::{Collection, EngineError, Item, ItemId, ItemWrite, PayloadChange, WriteOptions};
use fs_err as fs;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    apply::read,
    run::{Ended, Running},
    scan::steps,
};
use crate::{
    content::{Content, Patience, encode_window},
    reply::ApiError,
    routes::picture_file,
    state::{AppState, Caller, block},
    tower::{Class, Client},
};

/// Names that are tried for the collection beside.
const MOST_NAMES: usize = 1000;

/// The optional body of `POST .../reencode`.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReencodeIn {
    /// Whether items that cannot be encoded again may be left behind.
    #[serde(default)]
    allow_missing: bool,
}

/// What is to be done.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Spec {
    beside: String,
    allow_missing: bool,
}

/// Where to go on.
#[derive(Debug, Default, Serialize, Deserialize)]
struct At {
    after: Option<String>,
}

/// Checks what can be checked before it is a job. Gives the items, the name of the collection beside, and
/// what is to be done.
pub(crate) fn plan(
    state: &AppState,
    name: &str,
    wire: &ReencodeIn,
) -> Result<(u64, String, Value), ApiError> {
    let collection = state.collection(name)?;
    if collection.spaces().same_model(&state.model.spaces) {
        return Err(ApiError::SameModel {
            collection: name.to_owned(),
        });
    }
    // At most 64 characters.
    let stem: String = name.chars().take(58).collect();
    let mut names = (2..MOST_NAMES).map(|n| format!("{stem}-{n}"));
    let free = names.find(|name| state.engine.collection(name).is_none());
    let beside = free.ok_or_else(|| ApiError::CollectionExists {
        message: format!("all names from {stem}-2 on are taken: delete a collection first"),
    })?;
    let spec = Spec {
        beside: beside.clone(),
        allow_missing: wire.allow_missing,
    };
    Ok((collection.stats().items as u64, beside, json!(spec)))
}

pub(super) async fn run(running: &mut Running) -> Result<Ended, ApiError> {
    let spec: Spec = read(&running.job.spec)?;
    let mut at: At = read(&running.job.checkpoint).unwrap_or_default();
    let state = running.state.clone();
    let old = running.collection()?;
    if old.spaces().same_model(&state.model.spaces) {
        // A stop came between the swap and its being written down.
        return Ok(done(running, &spec));
    }
    let (theirs, beside, fields) = (state.clone(), spec.beside.clone(), old.fields());
    let new = block("making a collection", move || {
        let spaces = &theirs.model.spaces;
        let made = theirs.engine.create_with_fields(&beside, spaces, &fields);
        made.map_err(|e| ApiError::engine("making a collection", e))
    })
    .await?;
    let after = at.after.clone().map(ItemId::new).transpose();
    let after = after.map_err(|e| ApiError::engine("reading a job", e))?;
    let (theirs, name) = (state.clone(), running.job.collection.clone());
    let make = move |item: Item, _| {
        let content = content(&theirs, &name, &item);
        (item, content)
    };
    let mut steps = steps(Arc::clone(&old), None, after, make)?;
    loop {
        if let Some(ended) = running.is_to_end() {
            if matches!(ended, Ended::Canceled) {
                remove(&state, &spec.beside).await;
            }
            return Ok(ended);
        }
        let Some(step) = steps.recv().await else {
            break;
        };
        let step = step?;
        for (id, error) in step.damaged {
            running.job.done += 1;
            running.fail("id", &json!(id), &error);
        }
        encode(running, &new, step.each).await?;
        at.after = Some(step.last.to_string());
        running.checkpoint(json!(at)).await?;
    }
    if running.job.failed > 0 && !spec.allow_missing {
        let failed = running.job.failed;
        let message = format!(
            "{failed} items cannot be encoded again, and the names were not swapped: collection {} has \
             the others; delete it, and ask again with \"allow_missing\": true to do without them",
            spec.beside
        );
        let result = json!({ "beside": spec.beside, "errors": running.named });
        return Ok(Ended::Failed(message, result));
    }
    let (theirs, beside, name) = (
        state.clone(),
        spec.beside.clone(),
        running.job.collection.clone(),
    );
    block("swapping collections", move || {
        let swapped = theirs.engine.swap(&name, &beside, |old, new| {
            catch_up(old, new)?;
            Ok(true)
        });
        swapped.map_err(|e| ApiError::engine("swapping collections", e))
    })
    .await?;
    Ok(done(running, &spec))
}

fn done(running: &Running, spec: &Spec) -> Ended {
    Ended::Done(json!({
        "beside": spec.beside,
        "missing": running.job.failed,
        "errors": running.named,
    }))
}

/// What an item was encoded from, as far as it is kept: the words of a text; of a picture the file that it
/// came from, or the small version of what was uploaded.
fn content(state: &Data<AppState>, collection: &str, item: &Item) -> Result<Content, ApiError> {
    if let Some(text) = &item.text {
        return Ok(Content::Text(text.clone()));
    }
    let none = || ApiError::NoPicture {
        id: item.id.to_string(),
    };
    if item.modality == Modality::Text {
        return Err(ApiError::invalid("text", "its words were not kept"));
    }
    let file = picture_file(state, collection, &item.id, item.source.as_deref());
    let most = DecodeLimits::default().max_bytes as u64;
    let mut bytes = Vec::new();
    let file = fs::File::open(file.ok_or_else(none)?).map_err(|_| none())?;
    file.take(most + 1)
        .read_to_end(&mut bytes)
        .map_err(|_| none())?;
    Ok(Content::Picture(Bytes::from(bytes)))
}

/// Encodes items and puts them into the new collection.
async fn encode(
    running: &mut Running,
    new: &Arc<Collection>,
    items: Vec<(Item, Result<Content, ApiError>)>,
) -> Result<(), ApiError> {
    let state = running.state.clone();
    let caller = Caller {
        state: &state,
        client: Client::own(),
    };
    let mut items = items.into_iter().peekable();
    while items.peek().is_some() {
        let (mut contents, mut with_content) = (Vec::new(), Vec::new());
        for (item, content) in items.by_ref().take(state.limits.window()) {
            running.job.done += 1;
            match content {
                Ok(content) => {
                    contents.push(content);
                    with_content.push(item);
                }
                Err(error) => running.fail("id", &json!(item.id), &error),
            }
        }
        let ready = encode_window(caller, contents, Class::Keep, Patience::Wait).await?;
        let (mut writes, mut thumbnails) = (Vec::new(), Vec::new());
        for (mut item, ready) in with_content.into_iter().zip(ready) {
            match ready {
                Ok(ready) => {
                    if item.source.is_none() {
                        thumbnails.push((item.id.clone(), ready.thumbnail));
                    }
                    item.shared = ready.encoded.shared;
                    item.specific = ready.encoded.specific;
                    writes.push(ItemWrite::put(item));
                }
                Err(error) => running.fail("id", &json!(item.id), &error),
            }
        }
        let (theirs, new) = (state.clone(), Arc::clone(new));
        block("keeping items", move || {
            let written = new.write(writes, WriteOptions::default());
            written.map_err(|e| ApiError::engine("keeping items", e))?;
            if let Some(folder) = &theirs.thumbnails {
                for (id, png) in thumbnails {
                    folder.put(new.name(), &id, png.as_deref());
                }
            }
            Ok(())
        })
        .await?;
    }
    Ok(())
}

/// Brings to the new collection what became of the old one's items since they were encoded: of a collection
/// of another model only payloads change, and items go.
fn catch_up(old: &Arc<Collection>, new: &Arc<Collection>) -> Result<(), EngineError> {
    /// Changes of one batch.
    const BATCH: usize = 256;
    let mut writes = Vec::new();
    let all = new.metas()?.collect::<Vec<_>>();
    for meta in all {
        let meta = meta?;
        let there = match old.get(&meta.id) {
            Err(EngineError::DamagedItem { .. }) => continue,
            there => there?,
        };
        match there {
            None => writes.push(ItemWrite::delete(meta.id)),
            Some(item) if item.payload != meta.payload => {
                let change = PayloadChange::Replace(item.payload);
                writes.push(ItemWrite::payload(meta.id, change));
            }
            Some(_) => {}
        }
        if writes.len() >= BATCH {
            new.write(std::mem::take(&mut writes), WriteOptions::default())?;
        }
    }
    new.write(writes, WriteOptions::default())?;
    Ok(())
}

/// Removes what a job that was given up has made.
async fn remove(state: &Data<AppState>, name: &str) {
    let (theirs, name) = (state.clone(), name.to_owned());
    let removed = block("removing a collection", move || {
        let removed = theirs.engine.delete(&name);
        removed.map_err(|e| ApiError::engine("removing a collection", e))?;
        if let Some(thumbnails) = &theirs.thumbnails {
            thumbnails.remove_collection(&name);
        }
        Ok(())
    });
    if let Err(error) = removed.await {
        tracing::warn!(%error, "the collection of a job that was given up is left over");
    }
}
