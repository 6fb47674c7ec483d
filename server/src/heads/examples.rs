//! Examples on their way in: checked, and brought to rows.

use std::{collections::HashMap, sync::Arc};

use embedding::{Encoded, Modality};
use engine::{Collection, EngineError, HeadAspect, Inputs, ItemId, LabeledField};

use super::wire::{ExampleIn, InputIn, LabelIn, LabelsFromIn};
use crate::{
    config::Limits,
    content::{Content, encode_asked},
    reply::ApiError,
    state::{Caller, block},
};

/// What an example is.
#[derive(Debug, Clone)]
pub(super) enum Source {
    Stored(ItemId),
    Sent(Content),
}

/// Examples that were checked, and the labels that they have.
#[derive(Debug, Default)]
pub(crate) struct Examples {
    /// In alphabetical order, or as the request gave them.
    pub(super) labels: Vec<String>,
    /// Numbers of the labels of each, ascending.
    pub(super) of: Vec<Vec<usize>>,
    /// What each is, and its path in the request.
    pub(super) sources: Vec<(String, Source)>,
    /// The field that they were read from.
    pub(super) field: Option<String>,
    /// Items whose field has something else in it.
    pub(super) skipped: usize,
}

/// Rows of examples.
pub(super) struct Embedded {
    pub(super) inputs: Inputs,
    /// `[examples, dim]`.
    pub(super) rows: Vec<f32>,
    /// Of those that are items.
    pub(super) ids: Vec<ItemId>,
}

impl Source {
    /// Exactly one of the three.
    pub(super) fn read(input: InputIn, limits: &Limits) -> Result<Self, ApiError> {
        match (input.id, input.text, input.image) {
            (Some(id), None, None) => {
                let id = ItemId::new(id).map_err(|e| ApiError::engine("reading an id", e))?;
                Ok(Self::Stored(id))
            }
            (None, Some(text), None) => Ok(Self::Sent(Content::text(text, limits)?)),
            (None, None, Some(image)) => {
                Ok(Self::Sent(Content::picture_from_base64(&image, limits)?))
            }
            _ => Err(ApiError::invalid(
                "id",
                "expected exactly one of id, text and image",
            )),
        }
    }

    /// What is the same for the same thing.
    fn key(&self) -> Vec<u8> {
        match self {
            Self::Stored(id) => [b"i", id.as_str().as_bytes()].concat(),
            Self::Sent(Content::Text(text)) => [b"t", text.as_bytes()].concat(),
            Self::Sent(Content::Picture(bytes)) => {
                [b"p", blake3::hash(bytes).as_bytes().as_slice()].concat()
            }
            Self::Sent(Content::Url(url)) => [b"u", url.as_bytes()].concat(),
        }
    }
}

impl Examples {
    /// Checks the examples of a request. What occurs twice counts once.
    pub(super) fn read(
        sent: Vec<ExampleIn>,
        all_labels: Option<Vec<String>>,
        multi_label: bool,
        limits: &Limits,
    ) -> Result<Self, ApiError> {
        if sent.is_empty() || sent.len() > limits.examples {
            let (got, most) = (sent.len(), limits.examples);
            let message = format!("{got} examples, expected 1 to {most}");
            return Err(ApiError::invalid("examples", message));
        }
        let mut seen: HashMap<Vec<u8>, usize> = HashMap::new();
        let mut all: Vec<(String, Source, Vec<String>)> = Vec::with_capacity(sent.len());
        for (i, (label, input)) in sent.into_iter().map(ExampleIn::into_parts).enumerate() {
            let path = format!("examples[{i}]");
            let labels = labels_of(label, multi_label, limits).map_err(|e| e.under(&path))?;
            let source = Source::read(input, limits).map_err(|error| error.under(&path))?;
            match seen.insert(source.key(), all.len()) {
                None => all.push((path, source, labels)),
                Some(before) if all[before].2 == labels => {
                    seen.insert(source.key(), before);
                }
                Some(before) => {
                    let (first, first_labels) = (&all[before].0, &all[before].2);
                    let message = format!(
                        "the same as {first}, which is {first_labels:?}, but here it is {labels:?}"
                    );
                    return Err(ApiError::invalid(format!("{path}.label"), message));
                }
            }
        }
        let labels = all_labels.unwrap_or_else(|| {
            let each = all.iter().flat_map(|(_, _, labels)| labels.iter().cloned());
            let distinct: std::collections::BTreeSet<String> = each.collect();
            distinct.into_iter().collect()
        });
        check_labels(&labels, limits)?;
        let number: HashMap<&String, usize> = labels
            .iter()
            .enumerate()
            .map(|(i, label)| (label, i))
            .collect();
        let mut of = Vec::with_capacity(all.len());
        for (path, _, own) in &all {
            let numbers = own.iter().map(|label| {
                number.get(label).copied().ok_or_else(|| {
                    let message = format!("{label:?} is none of the given labels");
                    ApiError::invalid(format!("{path}.label"), message)
                })
            });
            let mut numbers: Vec<usize> = numbers.collect::<Result<_, _>>()?;
            numbers.sort_unstable();
            of.push(numbers);
        }
        Ok(Self {
            labels,
            of,
            sources: all
                .into_iter()
                .map(|(path, source, _)| (path, source))
                .collect(),
            ..Self::default()
        })
    }

    /// Reads them from a field of the collection's payloads.
    pub(super) async fn from_field(
        collection: &Arc<Collection>,
        LabelsFromIn { field }: LabelsFromIn,
        (multi_label, seed): (bool, u64),
        limits: &Limits,
    ) -> Result<Self, ApiError> {
        let (collection, limits) = (Arc::clone(collection), limits.clone());
        block("reading labels", move || {
            let by = LabeledField {
                field: &field,
                multi_label,
                most_labels: limits.labels,
                most_examples: limits.examples,
                seed,
            };
            let found = collection.labeled(&by);
            let found = found.map_err(|e| ApiError::engine("reading labels", e))?;
            if found.examples.is_empty() {
                let message = format!(
                    "no item has a label in field {field:?} ({} have something else there), expected \
                     a string{}",
                    found.skipped,
                    if multi_label { ", or a list of them" } else { "" }
                );
                return Err(ApiError::invalid("labels_from.field", message));
            }
            let (sources, of) = found.examples.into_iter().map(|(id, of)| {
                (("labels_from.field".to_owned(), Source::Stored(id)), of)
            }).unzip();
            Ok(Self {
                labels: found.labels,
                of,
                sources,
                field: Some(field),
                skipped: found.skipped,
            })
        })
        .await
    }

    /// Whether a tower is needed for them.
    pub(super) fn need_model(&self) -> bool {
        let mut sources = self.sources.iter();
        sources.any(|(_, source)| matches!(source, Source::Sent(_)))
    }

    /// Their embeddings, as `aspect` says.
    pub(super) async fn rows(
        &self,
        caller: Caller<'_>,
        collection: &Arc<Collection>,
        aspect: HeadAspect,
    ) -> Result<Embedded, ApiError> {
        let mut found = stored(collection, &self.sources).await?;
        let (mut contents, mut paths) = (Vec::new(), Vec::new());
        for (path, source) in &self.sources {
            if let Source::Sent(content) = source {
                paths.push(format!("{path}.{}", content.field()));
                contents.push(content.clone());
            }
        }
        let kinds: Vec<Modality> = contents.iter().map(modality).collect();
        let ready = encode_asked(caller, contents, |i| paths[i].clone()).await?;
        let mut sent = kinds.into_iter().zip(ready);
        for (slot, (_, source)) in found.iter_mut().zip(&self.sources) {
            if let Source::Sent(_) = source {
                *slot = sent.next().map(|(kind, ready)| (kind, ready.encoded));
            }
        }
        let kinds: Vec<Modality> = found.iter().flatten().map(|(kind, _)| *kind).collect();
        let first = kinds.first().copied();
        let only = first.filter(|first| kinds.iter().all(|kind| kind == first));
        let inputs = Inputs::of(collection.spaces(), aspect, only);
        let inputs = inputs.map_err(|e| ApiError::engine("reading examples", e))?;
        let mut rows = Vec::with_capacity(found.len() * inputs.dim());
        for ((path, _), one) in self.sources.iter().zip(found) {
            let row = one.and_then(|(kind, Encoded { shared, specific })| {
                inputs.row(kind, &shared, specific.as_ref())
            });
            rows.extend(
                row.ok_or_else(|| ApiError::invalid(path, "it has no embedding of this aspect"))?,
            );
        }
        let ids = self.sources.iter().filter_map(|(_, source)| match source {
            Source::Stored(id) => Some(id.clone()),
            Source::Sent(_) => None,
        });
        Ok(Embedded {
            inputs,
            rows,
            ids: ids.collect(),
        })
    }
}

/// The embeddings of those that are items; an absent one is an error, but not of a field, where it may
/// just have been deleted.
async fn stored(
    collection: &Arc<Collection>,
    sources: &[(String, Source)],
) -> Result<Vec<Option<(Modality, Encoded)>>, ApiError> {
    let (collection, sources) = (Arc::clone(collection), sources.to_vec());
    block("reading examples", move || {
        let read = |(path, source): (String, Source)| {
            let Source::Stored(id) = source else {
                return Ok(None);
            };
            let item = collection.get(&id);
            let item = item.map_err(|e| ApiError::engine("reading an example", e))?;
            let item = item.ok_or_else(|| {
                let message = EngineError::NoItem {
                    collection: collection.name().to_owned(),
                    id: id.to_string(),
                };
                ApiError::invalid(format!("{path}.id"), message.to_string())
            })?;
            let encoded = Encoded {
                shared: item.shared,
                specific: item.specific,
            };
            Ok(Some((item.modality, encoded)))
        };
        sources.into_iter().map(read).collect()
    })
    .await
}

pub(crate) fn modality(content: &Content) -> Modality {
    match content {
        Content::Text(_) => Modality::Text,
        Content::Picture(_) | Content::Url(_) => Modality::Image,
    }
}

fn labels_of(label: LabelIn, several: bool, limits: &Limits) -> Result<Vec<String>, ApiError> {
    let mut labels = match label {
        LabelIn::One(label) => vec![label],
        LabelIn::Many(labels) if several => labels,
        LabelIn::Many(_) => {
            let message = "an example has one label here: send \"multi_label\": true for several";
            return Err(ApiError::invalid("label", message));
        }
    };
    labels.sort_unstable();
    labels.dedup();
    for label in &labels {
        crate::content::check_text("label", label, limits)?;
    }
    Ok(labels)
}

/// Refuses more labels than the operator allows, blank ones and equal ones.
pub(super) fn check_labels(labels: &[String], limits: &Limits) -> Result<(), ApiError> {
    if labels.len() > limits.labels {
        let (got, most) = (labels.len(), limits.labels);
        let message = format!("{got} labels, at most {most} are allowed");
        return Err(ApiError::invalid("labels", message));
    }
    let mut seen = std::collections::HashSet::new();
    for (i, label) in labels.iter().enumerate() {
        crate::content::check_text(&format!("labels[{i}]"), label, limits)?;
        if !seen.insert(label) {
            let message = format!("label {label:?} is given twice");
            return Err(ApiError::invalid(format!("labels[{i}]"), message));
        }
    }
    Ok(())
}
