//! What a head says, written into the payloads of a collection's items.

use std::sync::Arc;

use engine::{
    Collection, Durability, EngineError, Filter, Item, ItemId, ItemWrite, KeptHead, Payload,
    PayloadChange, WriteOptions,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    run::{Ended, Running},
    scan::steps,
};
use crate::{
    ingest::options,
    reply::ApiError,
    state::{AppState, block},
};

/// Probability from which one of several labels is written, unless the request says otherwise.
const LIKELY: f64 = 0.5;
/// How often an item is looked at again that others write meanwhile.
const TRIES: usize = 3;

/// The body of `POST .../heads/{h}/apply`.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ApplyIn {
    /// Field of the payload that the label goes to.
    field: String,
    /// Only items that pass; see docs/filters.md.
    #[schema(value_type = Option<Object>, additional_properties)]
    filter: Option<Value>,
    min_probability: Option<f64>,
    version: Option<u32>,
}

/// What is to be done.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Spec {
    head: String,
    version: u32,
    field: String,
    filter: Option<Value>,
    min_probability: Option<f64>,
}

/// Where to go on.
#[derive(Debug, Default, Serialize, Deserialize)]
struct At {
    after: Option<String>,
    labeled: u64,
    unchanged: u64,
    below: u64,
    skipped: u64,
}

/// What becomes of an item.
enum Next {
    Write(ItemId, u64, Value),
    Unchanged,
    Below,
    /// It has no such embedding.
    Skipped,
}

impl ApplyIn {
    /// Checks what can be checked before it is a job. Gives the items, where all are meant.
    pub(crate) fn check(
        self,
        collection: &Collection,
        head: String,
    ) -> Result<(Option<u64>, Value), ApiError> {
        if self.field.is_empty() || self.field.len() > engine::MAX_FIELD_NAME_BYTES {
            let most = engine::MAX_FIELD_NAME_BYTES;
            let message = format!("the name of a field has 1 to {most} bytes");
            return Err(ApiError::invalid("field", message));
        }
        if let Some(value) = self.min_probability
            && !(0.0..=1.0).contains(&value)
        {
            let message = format!("min_probability is {value}, expected 0 to 1");
            return Err(ApiError::invalid("min_probability", message));
        }
        let failed = |e| ApiError::engine("reading a head", e);
        let (version, _) = collection.head(&head, self.version).map_err(failed)?;
        if let Some(filter) = &self.filter {
            let filter = Filter::from_json(filter);
            let filter = filter.map_err(|e| ApiError::engine("reading a filter", e))?;
            // Asks for no item, and so only whether it fits the fields.
            let items = collection.items_passing(Some(&filter), None);
            drop(items.map_err(|e| ApiError::engine("reading a filter", e))?);
        }
        let all = self
            .filter
            .is_none()
            .then(|| collection.stats().items as u64);
        let spec = Spec {
            head,
            version,
            field: self.field,
            filter: self.filter,
            min_probability: self.min_probability,
        };
        Ok((all, json!(spec)))
    }
}

pub(super) async fn run(running: &mut Running) -> Result<Ended, ApiError> {
    let spec: Spec = read(&running.job.spec)?;
    let mut at: At = read(&running.job.checkpoint).unwrap_or_default();
    let collection = running.collection()?;
    let (theirs, name) = (Arc::clone(&collection), spec.head.clone());
    let version = spec.version;
    let kept = block("reading a head", move || {
        let kept = theirs.head(&name, Some(version));
        Ok(kept.map_err(|e| ApiError::engine("reading a head", e))?.1)
    })
    .await?;
    let filter = spec.filter.as_ref().map(Filter::from_json).transpose();
    let filter = filter.map_err(|e| ApiError::engine("reading a filter", e))?;
    let after = at.after.clone().map(ItemId::new).transpose();
    let after = after.map_err(|e| ApiError::engine("reading a job", e))?;
    let (head, told) = (Arc::clone(&kept), spec.clone());
    let make = move |item: Item, version| next(&head, &told, &item, version);
    let mut steps = steps(Arc::clone(&collection), filter, after, make)?;
    loop {
        if let Some(ended) = running.is_to_end() {
            return Ok(ended);
        }
        let Some(step) = steps.recv().await else {
            break;
        };
        let step = step?;
        let mut writes = Vec::new();
        for next in step.each {
            running.job.done += 1;
            match next {
                Next::Write(id, version, value) => writes.push((id, version, value)),
                Next::Unchanged => at.unchanged += 1,
                Next::Below => at.below += 1,
                Next::Skipped => at.skipped += 1,
            }
        }
        for (id, error) in step.damaged {
            running.job.done += 1;
            running.fail("id", &json!(id), &error);
        }
        let (theirs, head, told) = (Arc::clone(&collection), Arc::clone(&kept), spec.clone());
        let state = running.state.clone();
        let written = block("writing labels", move || {
            write(&state, &theirs, (&head, &told), writes)
        });
        for (id, result) in written.await? {
            match result {
                Ok(true) => at.labeled += 1,
                // It is gone, or needs nothing any more.
                Ok(false) => at.unchanged += 1,
                Err(error) => running.fail("id", &json!(id), &error),
            }
        }
        at.after = Some(step.last.to_string());
        running.checkpoint(json!(at)).await?;
    }
    Ok(Ended::Done(json!({
        "head": spec.head,
        "version": spec.version,
        "field": spec.field,
        "labeled": at.labeled,
        "unchanged": at.unchanged,
        "below_min_probability": at.below,
        "without_embedding": at.skipped,
        "errors": running.named,
    })))
}

/// What a head says of an item.
fn next(kept: &KeptHead, spec: &Spec, item: &Item, version: u64) -> Next {
    let inputs = &kept.head.inputs;
    let row = inputs.row(item.modality, &item.shared, item.specific.as_ref());
    let Some(row) = row else {
        return Next::Skipped;
    };
    let probabilities = kept.head.row_probabilities(&row);
    let labels = kept.head.labels.iter().zip(&probabilities);
    let value = if kept.about.multi_label {
        let least = spec.min_probability.unwrap_or(LIKELY);
        let fitting = labels.filter(|(_, p)| **p >= least);
        Value::from(fitting.map(|(label, _)| label.as_str()).collect::<Vec<_>>())
    } else {
        let best = labels.max_by(|a, b| a.1.total_cmp(b.1));
        let best = best.filter(|(_, p)| **p >= spec.min_probability.unwrap_or(0.0));
        match best {
            Some((label, _)) => Value::from(label.as_str()),
            None => return Next::Below,
        }
    };
    if item.payload.get(&spec.field) == Some(&value) {
        return Next::Unchanged;
    }
    Next::Write(item.id.clone(), version, value)
}

/// Whether an item was written, or why it could not be.
type Written = (ItemId, Result<bool, ApiError>);

/// Writes labels, each if its item is still what was looked at; otherwise looks again. Nothing but the
/// field changes.
fn write(
    state: &AppState,
    collection: &Arc<Collection>,
    (kept, spec): (&KeptHead, &Spec),
    mut writes: Vec<(ItemId, u64, Value)>,
) -> Result<Vec<Written>, ApiError> {
    let failed = |e| ApiError::engine("writing labels", e);
    let mut results = Vec::with_capacity(writes.len());
    // The checkpoint that follows makes them durable.
    let options = WriteOptions {
        durability: Durability::Buffered,
        ..options(state, Durability::Buffered)
    };
    for last in (0..TRIES).rev() {
        let patch = |(id, version, value): &(ItemId, u64, Value)| {
            let patch = Payload::from_iter([(spec.field.clone(), value.clone())]);
            let write = ItemWrite::payload(id.clone(), PayloadChange::Merge(patch));
            write.if_version(*version)
        };
        let batch: Vec<ItemWrite> = writes.iter().map(patch).collect();
        let written = collection.write_each(batch, options).map_err(failed)?;
        let mut again = Vec::new();
        for ((id, _, _), outcome) in writes.into_iter().zip(written.outcomes) {
            match outcome {
                Ok(_) => results.push((id, Ok(true))),
                Err(
                    EngineError::NoItem { .. } | EngineError::VersionConflict { found: None, .. },
                ) => {
                    results.push((id, Ok(false)));
                }
                Err(EngineError::VersionConflict { .. }) if last > 0 => again.push(id),
                Err(error) => results.push((id, Err(failed(error)))),
            }
        }
        writes = Vec::new();
        for id in again {
            let found = collection.get_with_version(&id).map_err(failed)?;
            let next = found.map(|(item, version)| next(kept, spec, &item, version));
            match next {
                Some(Next::Write(id, version, value)) => writes.push((id, version, value)),
                _ => results.push((id, Ok(false))),
            }
        }
        if writes.is_empty() {
            break;
        }
    }
    Ok(results)
}

/// What the job's own part of its record says.
pub(super) fn read<T: serde::de::DeserializeOwned>(value: &Value) -> Result<T, ApiError> {
    serde_json::from_value(value.clone()).map_err(|e| ApiError::internal("reading a job", e))
}
