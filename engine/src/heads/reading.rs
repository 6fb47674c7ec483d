//! Labels that items have already, and the items that a head is put to.

use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use embedding::mix;
use serde_json::Value;

use crate::{EngineError, ItemId, collection::Collection, item::hash_of};

/// A field of payloads that has labels: strings, or lists of strings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LabeledField<'a> {
    /// Name of the field, declared or not.
    pub field: &'a str,
    /// Whether an item may have several labels, or an empty list.
    pub multi_label: bool,
    /// Labels there may be.
    pub most_labels: usize,
    /// Examples to give back at most. Where there are more, the seed chooses, of each label as evenly as
    /// can be.
    pub most_examples: usize,
    /// What the choice depends on.
    pub seed: u64,
}

/// Labels and the items that have them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Labeled {
    /// All labels, in alphabetical order.
    pub labels: Vec<String>,
    /// Items and the numbers of their labels, ascending.
    pub examples: Vec<(ItemId, Vec<usize>)>,
    /// Items that have the field with something else in it, or are damaged.
    pub skipped: usize,
}

impl Collection {
    /// The items that have labels in a field.
    ///
    /// # Errors
    /// [`EngineError::BadLesson`] when there are more labels than allowed; when the store fails.
    pub fn labeled(&self, by: &LabeledField<'_>) -> Result<Labeled, EngineError> {
        let mut groups = Groups::new(by.most_examples);
        let mut distinct: BTreeSet<String> = BTreeSet::new();
        let mut skipped = 0;
        for meta in self.metas()? {
            let meta = match meta {
                Ok(meta) => meta,
                Err(EngineError::DamagedItem { .. }) => {
                    skipped += 1;
                    continue;
                }
                Err(error) => return Err(error),
            };
            let Some(value) = meta.payload.get(by.field).filter(|value| !value.is_null()) else {
                continue;
            };
            let Some(labels) = labels_in(value, by.multi_label) else {
                skipped += 1;
                continue;
            };
            for label in &labels {
                if !distinct.contains(label) {
                    distinct.insert(label.clone());
                }
            }
            if distinct.len() > by.most_labels {
                let most = by.most_labels;
                return Err(EngineError::BadLesson {
                    field: "labels_from.field".into(),
                    reason: format!(
                        "field {:?} has more than {most} different labels, at most {most} are allowed",
                        by.field
                    ),
                });
            }
            let hash = mix(by.seed ^ hash_of(meta.id.as_str()));
            groups.add(hash, meta.id, labels);
        }
        let labels: Vec<String> = distinct.into_iter().collect();
        let number = |label: &String| labels.binary_search(label).ok();
        let examples = groups.finish().into_iter().map(|(id, of)| {
            let mut of: Vec<usize> = of.iter().filter_map(number).collect();
            of.sort_unstable();
            of.dedup();
            (id, of)
        });
        Ok(Labeled {
            examples: examples.collect(),
            labels,
            skipped,
        })
    }
}

/// The labels in a value; `None` where it has something else.
fn labels_in(value: &Value, several: bool) -> Option<Vec<String>> {
    let label = |value: &Value| {
        let label = value.as_str().filter(|label| !label.trim().is_empty());
        label.map(str::to_owned)
    };
    match value {
        Value::Array(all) if several => all.iter().map(label).collect(),
        value => Some(vec![label(value)?]),
    }
}

/// Examples by their first label, of each those with the lowest hashes. Holds at most twice as many as
/// are wanted.
struct Groups {
    wanted: usize,
    /// Of one label.
    most: usize,
    held: usize,
    by_label: BTreeMap<String, BinaryHeap<(u64, ItemId, Vec<String>)>>,
}

impl Groups {
    fn new(wanted: usize) -> Self {
        Self {
            wanted,
            most: wanted.max(1),
            held: 0,
            by_label: BTreeMap::new(),
        }
    }

    fn add(&mut self, hash: u64, id: ItemId, labels: Vec<String>) {
        let key = labels.first().cloned().unwrap_or_default();
        let group = self.by_label.entry(key).or_default();
        group.push((hash, id, labels));
        self.held += 1;
        if group.len() > self.most {
            group.pop();
            self.held -= 1;
        }
        if self.held > 2 * self.wanted {
            self.shrink();
        }
    }

    /// Keeps as many of each label as fit. More that come later only make them fewer.
    fn shrink(&mut self) {
        let count = |most: usize| -> usize {
            let groups = self.by_label.values();
            groups.map(|group| group.len().min(most)).sum()
        };
        let (mut low, mut high) = (1, self.most);
        while low < high {
            let middle = (low + high).div_ceil(2);
            if count(middle) <= self.wanted {
                low = middle;
            } else {
                high = middle - 1;
            }
        }
        let most = low;
        self.most = most;
        for group in self.by_label.values_mut() {
            while group.len() > most {
                group.pop();
            }
        }
        self.held = self.by_label.values().map(BinaryHeap::len).sum();
    }

    fn finish(mut self) -> Vec<(ItemId, Vec<String>)> {
        if self.held > self.wanted {
            self.shrink();
        }
        let mut all: Vec<_> = self.by_label.into_values().flatten().collect();
        all.sort_unstable_by(|a, b| a.1.cmp(&b.1));
        all.into_iter()
            .map(|(_, id, labels)| (id, labels))
            .collect()
    }
}
