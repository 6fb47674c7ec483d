//! Zero-shot classification: a head is made of words, put to one thing or to items, and not kept. Prompts
//! are encoded once and remembered.

use std::sync::Arc;

use embedding::Embedding;
use engine::{Collection, KeptHead, Prompts};
use serde_json::Value;

use crate::{
    config::Limits,
    content::{Content, check_text, encode_asked, encode_one},
    heads::{DEFAULT_K, InputIn, Said, Teller, Words, modality, of_words, tell},
    query::in_range,
    reply::ApiError,
    state::{Caller, block},
    wire::ClassifyIn,
};

/// Longest prompt that is remembered: a cache of prompts is bounded by their number, and common
/// ones are short.
const MAX_CACHED_BYTES: usize = 256;

/// How well the labels fit one text or picture.
pub(crate) async fn classify(caller: Caller<'_>, mut wire: ClassifyIn) -> Result<Said, ApiError> {
    let limits = &caller.state.limits;
    let picture = Content::sent_picture(wire.image.take(), wire.image_url.take(), limits)?;
    let content = match (wire.text.take(), picture) {
        (Some(text), None) => Content::text(text, limits)?,
        (None, Some(picture)) => picture,
        (Some(_), Some(_)) => {
            return Err(ApiError::invalid(
                "image",
                "send `text` or `image`, not both",
            ));
        }
        (None, None) => {
            let message = "send one of `text`, `image`, `image_url` and `ids`";
            return Err(ApiError::invalid("text", message));
        }
    };
    let k = wire
        .k
        .map(|k| in_range("k", k, limits.labels))
        .transpose()?;
    let modality = modality(&content);
    let (head, collection) = head(caller, wire).await?;
    let encoded = encode_one(caller, content).await?.encoded;
    block("classifying", move || {
        let mut said = Teller::new(collection.as_ref(), &head).one(modality, &encoded)??;
        said.predictions.truncate(k.map_or(usize::MAX, usize::from));
        Ok(said)
    })
    .await
}

/// How well the labels fit each of some items, of which any fails alone.
pub(crate) async fn classify_items(
    caller: Caller<'_>,
    ids: Vec<String>,
    wire: ClassifyIn,
) -> Result<Vec<Value>, ApiError> {
    let limits = &caller.state.limits;
    for (field, is_sent) in [
        ("text", wire.text.is_some()),
        ("image", wire.image.is_some()),
        ("image_url", wire.image_url.is_some()),
    ] {
        if is_sent {
            let message = format!("send `ids` or `{field}`, not both");
            return Err(ApiError::invalid(field, message));
        }
    }
    in_range("ids", ids.len(), limits.items).map_err(|_| {
        let message = format!("{} ids, expected 1 to {}", ids.len(), limits.items);
        ApiError::invalid("ids", message)
    })?;
    let k = in_range("k", wire.k.unwrap_or(DEFAULT_K), limits.labels)?.get();
    let nowhere = || ApiError::invalid("collection", "ids are those of a collection: name it");
    if wire.collection.is_none() {
        return Err(nowhere());
    }
    let (head, collection) = head(caller, wire).await?;
    let collection = collection.ok_or_else(nowhere)?;
    let input = |id| InputIn {
        id: Some(id),
        ..InputIn::default()
    };
    let inputs = ids.into_iter().map(input).collect();
    tell(caller, (collection, Arc::new(head)), inputs, k).await
}

/// What the words make, and the collection that they are seen in.
async fn head(
    caller: Caller<'_>,
    wire: ClassifyIn,
) -> Result<(KeptHead, Option<Arc<Collection>>), ApiError> {
    let named = wire.collection.as_deref();
    let collection = named.map(|name| caller.state.collection_of_model(name));
    let collection = collection.transpose()?;
    let words = Words {
        labels: wire.labels,
        templates: wire.templates,
        multi_label: wire.multi_label,
    };
    let head = of_words(caller, collection.as_ref(), words).await?;
    Ok((head, collection))
}

/// Refuses what is more than the operator allows.
pub(crate) fn check_limits(
    labels: &[String],
    templates: Option<&[String]>,
    limits: &Limits,
) -> Result<(), ApiError> {
    in_range("labels", labels.len(), limits.labels).map_err(|_| {
        let message = format!("{} labels, expected 1 to {}", labels.len(), limits.labels);
        ApiError::invalid("labels", message)
    })?;
    for (i, label) in labels.iter().enumerate() {
        check_text(&format!("labels[{i}]"), label, limits)?;
    }
    let each = templates.map_or(Prompts::DEFAULT_TEMPLATES.len(), <[String]>::len);
    let prompts = labels.len() * each;
    if prompts > limits.prompts {
        let message = format!(
            "{} labels x {each} templates make {prompts} prompts, expected 1 to {}",
            labels.len(),
            limits.prompts
        );
        return Err(ApiError::invalid("templates", message));
    }
    for (i, template) in templates.unwrap_or_default().iter().enumerate() {
        check_text(&format!("templates[{i}]"), template, limits)?;
    }
    Ok(())
}

/// The shared embeddings of prompts, from the cache where they are known.
pub(crate) async fn encode_prompts(
    caller: Caller<'_>,
    prompts: &[String],
) -> Result<Vec<Embedding>, ApiError> {
    let state = caller.state;
    let mut known: Vec<Option<Embedding>> = {
        let mut cache = state.prompts.lock();
        prompts
            .iter()
            .map(|prompt| cache.get(prompt).cloned())
            .collect()
    };
    let unknown: Vec<usize> = (0..known.len()).filter(|i| known[*i].is_none()).collect();
    let contents = unknown.iter().map(|i| Content::Text(prompts[*i].clone()));
    let ready = encode_asked(caller, contents.collect(), |_| "labels".to_owned()).await?;
    for (i, ready) in unknown.into_iter().zip(ready) {
        let embedding = ready.encoded.shared;
        if prompts[i].len() <= MAX_CACHED_BYTES {
            let prompt = prompts[i].clone();
            state.prompts.lock().put(prompt, embedding.clone());
        }
        known[i] = Some(embedding);
    }
    Ok(known.into_iter().flatten().collect())
}
