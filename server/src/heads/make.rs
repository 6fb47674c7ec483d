//! A head made of what a request says.

use std::{sync::Arc, time::Instant};

use actix_web::web::Data;
use embedding::{Modality, Scoring};
use engine::{
    About, Collection, Head, HeadAspect, HeadKind, KeptHead, Lesson, Prompts, Taught, TeachOptions,
    teach,
};
use serde_json::{Value, json};

use super::{
    examples::{Embedded, Examples},
    wire::{AutoIn, HeadIn, NamedTemplates, RegularizationIn, StartIn, TemplatesIn},
};
use crate::{
    classify::{check_limits, encode_prompts},
    clock::now_ms,
    reply::ApiError,
    state::{AppState, Caller, block},
    tower::Client,
};

/// A head that is kept.
pub(crate) struct Made {
    pub(crate) version: u32,
    pub(crate) kept: KeptHead,
    pub(crate) started: Instant,
}

/// Makes a head and keeps it as a new version.
pub(crate) async fn make(
    state: &Data<AppState>,
    client: Client,
    (collection, name): (&str, String),
    wire: HeadIn,
) -> Result<Made, ApiError> {
    let started = Instant::now();
    let caller = Caller { state, client };
    let collection = state.collection(collection)?;
    let kept = match (&wire.examples, &wire.labels_from, &wire.labels) {
        (Some(_), Some(_), _) => {
            let message = "send examples, or labels_from, not both";
            return Err(ApiError::invalid("labels_from", message));
        }
        (None, None, None) => {
            let message = "send examples, or labels_from, or labels for a zero-shot head";
            return Err(ApiError::invalid("examples", message));
        }
        (None, None, Some(_)) => zero_shot(caller, &collection, wire).await?,
        _ => few_shot(state, client, &collection, wire).await?,
    };
    block("keeping a head", move || {
        let version = collection.put_head(&name, &kept);
        Ok(Made {
            version: version.map_err(|e| ApiError::engine("keeping a head", e))?,
            kept,
            started,
        })
    })
    .await
}

async fn zero_shot(
    caller: Caller<'_>,
    collection: &Arc<Collection>,
    wire: HeadIn,
) -> Result<KeptHead, ApiError> {
    let others = [
        ("aspect", wire.aspect != HeadAspect::Shared),
        ("start", wire.start.is_some()),
        ("blend", wire.blend.is_some()),
        ("regularization", wire.regularization.is_some()),
        ("balance", wire.balance.is_some()),
    ];
    if let Some((field, _)) = others.into_iter().find(|(_, is)| *is) {
        let message = format!(
            "labels without examples have no {field}: words are shared, and nothing is learned"
        );
        return Err(ApiError::invalid(field, message));
    }
    caller.state.collection_of_model(collection.name())?;
    let words = Words {
        labels: wire.labels.unwrap_or_default(),
        templates: wire.templates,
        multi_label: wire.multi_label,
    };
    of_words(caller, Some(collection), words).await
}

/// What a head is made of that was shown no examples.
pub(crate) struct Words {
    pub(crate) labels: Vec<String>,
    pub(crate) templates: Option<TemplatesIn>,
    pub(crate) multi_label: bool,
}

/// A head of words alone. The items of a collection of this model say what a label by itself is worth.
pub(crate) async fn of_words(
    caller: Caller<'_>,
    collection: Option<&Arc<Collection>>,
    words: Words,
) -> Result<KeptHead, ApiError> {
    let Words {
        labels,
        templates,
        multi_label,
    } = words;
    let (head, templates) = compared(caller, labels, templates).await?;
    let used = json!({
        "aspect": "shared",
        "templates": templates,
        "multi_label": multi_label,
    });
    let kept = KeptHead {
        head,
        likeness: None,
        about: About {
            kind: HeadKind::ZeroShot,
            multi_label,
            made_at_ms: now_ms(),
            examples: 0,
            accuracy: None,
            field: None,
            example_ids: Vec::new(),
            report: json!({ "used": used, "held_out": null }),
        },
    };
    if multi_label {
        is_told_each_for_itself(kept, collection.cloned()).await
    } else {
        Ok(kept)
    }
}

/// Refuses what could say nothing of a label by itself, before it is kept.
async fn is_told_each_for_itself(
    kept: KeptHead,
    collection: Option<Arc<Collection>>,
) -> Result<KeptHead, ApiError> {
    let Some(collection) = collection else {
        if matches!(kept.head.scoring, Scoring::Softmax { .. }) {
            let message = "the model says how labels compare, not whether one fits: that takes items to \
                           compare with, name a collection";
            return Err(ApiError::invalid("multi_label", message));
        }
        return Ok(kept);
    };
    block("calibrating labels", move || {
        let told = collection.head_for(&kept, Modality::Image).map(drop);
        told.map_err(|e| ApiError::engine("calibrating labels", e))?;
        Ok(kept)
    })
    .await
}

async fn few_shot(
    state: &Data<AppState>,
    client: Client,
    collection: &Arc<Collection>,
    wire: HeadIn,
) -> Result<KeptHead, ApiError> {
    let caller = Caller { state, client };
    let multi_label = wire.multi_label;
    let examples = match (wire.examples, wire.labels_from) {
        (Some(sent), _) => {
            let (labels, limits) = (wire.labels, state.limits.clone());
            let read = move || Examples::read(sent, labels, multi_label, &limits);
            state.pools.read("reading examples", read).await?
        }
        (None, Some(_)) if wire.labels.is_some() => {
            let message = "the labels are those of the field: leave them out";
            return Err(ApiError::invalid("labels", message));
        }
        (None, Some(from)) => {
            let by = (multi_label, wire.seed);
            Examples::from_field(collection, from, by, &state.limits).await?
        }
        (None, None) => return Err(ApiError::invalid("examples", "there are no examples")),
    };
    if examples.need_model() {
        state.collection_of_model(collection.name())?;
    }
    let options = TeachOptions {
        multi_label,
        balance: wire.balance.unwrap_or(false),
        regularization: match wire.regularization {
            None | Some(RegularizationIn::Auto(AutoIn::Auto)) => None,
            Some(RegularizationIn::Given(value)) => Some(value),
        },
        from_zero_shot: wire.start == Some(StartIn::ZeroShot),
        blend: wire.blend.unwrap_or(0.0),
        seed: wire.seed,
    };
    let with_words = options.from_zero_shot || options.blend > 0.0;
    if wire.templates.is_some() && !with_words {
        let message = "templates are for labels alone, and for \"start\": \"zero_shot\" or a blend";
        return Err(ApiError::invalid("templates", message));
    }
    let rows = examples.rows(caller, collection, wire.aspect).await?;
    let words = if with_words && wire.aspect != HeadAspect::Specific {
        let labels = examples.labels.clone();
        state.collection_of_model(collection.name())?;
        Some(compared(caller, labels, wire.templates).await?)
    } else {
        None
    };
    // One at a time, and on threads that let everything else go first.
    let turn = state.lessons.acquire().await;
    let _turn = turn.map_err(|source| ApiError::internal("waiting to learn", source))?;
    let learn = move || learn(examples, rows, words, &options);
    state.pools.read("learning a head", learn).await
}

fn learn(
    examples: Examples,
    rows: Embedded,
    words: Option<(Head, Value)>,
    options: &TeachOptions,
) -> Result<KeptHead, ApiError> {
    let Examples {
        labels,
        of,
        field,
        skipped,
        ..
    } = examples;
    let lesson = Lesson {
        inputs: &rows.inputs,
        labels: &labels,
        rows: &rows.rows,
        of: &of,
        zero_shot: words.as_ref().map(|(head, _)| head),
    };
    let taught = teach(&lesson, options).map_err(|e| ApiError::engine("learning a head", e))?;
    let Taught {
        head,
        likeness,
        regularization,
        folds,
        held_out,
        converged,
    } = taught;
    let counts = labels.iter().enumerate().map(|(i, label)| {
        let count = of.iter().filter(|of| of.contains(&i)).count();
        json!({ "label": label, "examples": count })
    });
    let chosen = match (options.regularization, folds) {
        (Some(_), _) => "given",
        (None, 0) => "default",
        (None, _) => "cross-validation",
    };
    let used = json!({
        "aspect": rows.inputs.aspect(),
        "regularization": regularization,
        "regularization_by": chosen,
        "examples_per_label": counts.collect::<Vec<Value>>(),
        "folds": folds,
        "start": if options.from_zero_shot { "zero_shot" } else { "none" },
        "blend": options.blend,
        "balance": options.balance,
        "multi_label": options.multi_label,
        "seed": options.seed,
        "templates": words.map(|(_, templates)| templates),
        "converged": converged,
        "skipped": skipped,
    });
    let about = About {
        kind: HeadKind::FewShot,
        multi_label: options.multi_label,
        made_at_ms: now_ms(),
        examples: of.len(),
        accuracy: held_out.as_ref().map(|held_out| held_out.accuracy),
        field,
        example_ids: rows.ids,
        report: json!({ "used": used, "held_out": held_out }),
    };
    Ok(KeptHead {
        head,
        likeness,
        about,
    })
}

/// The zero-shot head of some labels, as the model compares them, and its templates.
async fn compared(
    caller: Caller<'_>,
    labels: Vec<String>,
    templates: Option<TemplatesIn>,
) -> Result<(Head, Value), ApiError> {
    let state = caller.state;
    let (templates, named) = match templates {
        None => (None, None),
        Some(TemplatesIn::Named(NamedTemplates::Clip)) => {
            (Some(Prompts::clip_templates()), Some(json!("clip")))
        }
        Some(TemplatesIn::Own(templates)) => (Some(templates), None),
    };
    check_limits(&labels, templates.as_deref(), &state.limits)?;
    let failed = |e| ApiError::engine("making prompts", e);
    let prompts = Prompts::new(labels, templates).map_err(failed)?;
    let named = named.unwrap_or_else(|| json!(prompts.templates()));
    let embeddings = encode_prompts(caller, prompts.texts()).await?;
    let space = state.model.spaces.shared();
    let scoring = state.model.scoring;
    let head = prompts.head(space, &embeddings, scoring);
    Ok((head.map_err(failed)?, named))
}
