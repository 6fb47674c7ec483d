//! Zero-shot classification: prompts made of labels, encoded once and remembered.

use embedding::Embedding;
use engine::{Prediction, Prompts, Query};

use crate::{
    config::Limits,
    content::{Content, check_text, encode_asked, encode_one},
    query::in_range,
    reply::ApiError,
    state::{Caller, block},
    wire::ClassifyIn,
};

/// Longest prompt that is remembered: a cache of prompts is bounded by their number, and common
/// ones are short.
const MAX_CACHED_BYTES: usize = 256;

/// Zero-shot classification: the label whose prompts lie nearest.
pub(crate) async fn classify(
    caller: Caller<'_>,
    wire: ClassifyIn,
) -> Result<Vec<Prediction>, ApiError> {
    let state = caller.state;
    let picture = Content::sent_picture(wire.image, wire.image_url, &state.limits)?;
    let content = match (wire.text, picture) {
        (Some(text), None) => Content::text(text, &state.limits)?,
        (None, Some(picture)) => picture,
        (Some(_), Some(_)) => {
            return Err(ApiError::invalid(
                "image",
                "send `text` or `image`, not both",
            ));
        }
        (None, None) => return Err(ApiError::invalid("text", "send one of `text` and `image`")),
    };
    check_limits(&wire.labels, wire.templates.as_deref(), &state.limits)?;
    let prompts = Prompts::new(wire.labels, wire.templates)
        .map_err(|e| ApiError::engine("making prompts", e))?;
    let encoded = encode_one(caller, content).await?.encoded;
    let embeddings = encode_prompts(caller, prompts.texts()).await?;
    let space = state.model.spaces.shared();
    let scoring = state.model.scoring;
    block("classifying", move || {
        let failed = |e| ApiError::engine("classifying", e);
        let head = prompts.head(space.clone(), &embeddings, scoring);
        head.map_err(failed)?
            .predict(&Query {
                embedding: encoded.shared,
                space,
            })
            .map_err(failed)
    })
    .await
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
