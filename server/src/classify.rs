//! Zero-shot classification: prompts made of labels, encoded once and remembered.

use std::collections::HashSet;

use embedding::Embedding;
use engine::{Head, Prediction, Query};

use crate::{
    content::{Content, Patience, check_text, encode_one, encode_window},
    query::in_range,
    reply::ApiError,
    state::{AppState, block},
    wire::ClassifyIn,
};

/// The bare label and the plainest sentence; more templates help large models a little.
const DEFAULT_TEMPLATES: [&str; 2] = ["{}", "a photo of {}"];

/// Where the label goes in a template.
const SLOT: &str = "{}";

/// Zero-shot classification: the label whose prompts lie nearest.
pub(crate) async fn classify(
    state: &AppState,
    wire: ClassifyIn,
) -> Result<Vec<Prediction>, ApiError> {
    let content = match (wire.text, wire.image) {
        (Some(text), None) => Content::text(text, &state.limits)?,
        (None, Some(image)) => Content::picture_from_base64(&image, &state.limits)?,
        (Some(_), Some(_)) => {
            return Err(ApiError::invalid(
                "image",
                "send `text` or `image`, not both",
            ));
        }
        (None, None) => return Err(ApiError::invalid("text", "send one of `text` and `image`")),
    };
    let templates = wire
        .templates
        .unwrap_or_else(|| DEFAULT_TEMPLATES.map(String::from).to_vec());
    check_labels(&wire.labels, &templates, state)?;
    let encoded = encode_one(state, content).await?.encoded;
    let prompts = wire.labels.iter().flat_map(|label| {
        templates
            .iter()
            .map(move |template| template.replace(SLOT, label))
    });
    let embeddings = encode_prompts(state, prompts.collect()).await?;
    let per_label: Vec<_> = embeddings
        .chunks(templates.len())
        .map(<[_]>::to_vec)
        .collect();
    let space = state.model.spaces.shared();
    let (labels, logit_scale) = (wire.labels, state.model.logit_scale);
    block("classifying", move || {
        let failed = |e| ApiError::engine("classifying", e);
        let head = Head::zero_shot(space.clone(), labels, &per_label, logit_scale);
        head.map_err(failed)?
            .predict(&Query {
                embedding: encoded.shared,
                space,
            })
            .map_err(failed)
    })
    .await
}

fn check_labels(labels: &[String], templates: &[String], state: &AppState) -> Result<(), ApiError> {
    let limits = &state.limits;
    in_range("labels", labels.len(), limits.labels).map_err(|_| {
        let message = format!("{} labels, expected 1 to {}", labels.len(), limits.labels);
        ApiError::invalid("labels", message)
    })?;
    let mut seen = HashSet::new();
    for (i, label) in labels.iter().enumerate() {
        check_text(&format!("labels[{i}]"), label, limits)?;
        if !seen.insert(label) {
            let message = format!("label {label:?} is given twice");
            return Err(ApiError::invalid(format!("labels[{i}]"), message));
        }
    }
    if templates.is_empty() || labels.len() * templates.len() > limits.prompts {
        let message = format!(
            "{} labels x {} templates make {} prompts, expected 1 to {}",
            labels.len(),
            templates.len(),
            labels.len() * templates.len(),
            limits.prompts
        );
        return Err(ApiError::invalid("templates", message));
    }
    for (i, template) in templates.iter().enumerate() {
        check_text(&format!("templates[{i}]"), template, limits)?;
        if !template.contains(SLOT) {
            let message = "a template needs {} where the label goes";
            return Err(ApiError::invalid(format!("templates[{i}]"), message));
        }
    }
    Ok(())
}

/// The shared embeddings of prompts, from the cache where they are known.
async fn encode_prompts(
    state: &AppState,
    prompts: Vec<String>,
) -> Result<Vec<Embedding>, ApiError> {
    let mut known: Vec<Option<Embedding>> = {
        let mut cache = state.prompts.lock();
        prompts
            .iter()
            .map(|prompt| cache.get(prompt).cloned())
            .collect()
    };
    let unknown: Vec<usize> = (0..known.len()).filter(|i| known[*i].is_none()).collect();
    let mut patience = Patience::Refuse;
    for window in unknown.chunks(state.limits.window()) {
        let contents = window
            .iter()
            .map(|i| Content::Text(prompts[*i].clone()))
            .collect();
        for (i, ready) in window
            .iter()
            .zip(encode_window(state, contents, patience).await?)
        {
            let embedding = ready.map_err(|error| error.under("labels"))?.encoded.shared;
            state
                .prompts
                .lock()
                .put(prompts[*i].clone(), embedding.clone());
            known[*i] = Some(embedding);
        }
        patience = Patience::Wait;
    }
    Ok(known.into_iter().flatten().collect())
}
