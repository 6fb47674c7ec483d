//! What a write asks for, and what became of it.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{Item, ItemId, Payload};

/// A write of one item, perhaps under a condition.
#[derive(Debug, Clone, PartialEq)]
pub struct ItemWrite {
    /// What becomes of the item.
    pub change: Change,
    /// The version that the item must have before it; 0 when it must not be there.
    pub if_version: Option<u64>,
}

/// What becomes of an item.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// It is added, or put in place of the one with its id.
    Put(Item),
    /// Its payload changes; everything else stays.
    Payload(ItemId, PayloadChange),
    /// It goes, if it is there.
    Delete(ItemId),
}

/// How a payload changes.
#[derive(Debug, Clone, PartialEq)]
pub enum PayloadChange {
    /// As a JSON merge patch (RFC 7386): what is `null` goes, objects are merged, everything else is
    /// put in place of what was there.
    Merge(Payload),
    /// This is the payload from now on.
    Replace(Payload),
}

/// When a write is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// When it survives a stop of the process and of the machine.
    #[default]
    Flushed,
    /// When everybody sees it. It is written out within 200 ms, or with the next write that is
    /// flushed, or when the engine is closed. A stop before that loses it and every write after it:
    /// what is found then is always as it was at one moment.
    Buffered,
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Flushed => "flushed",
            Self::Buffered => "buffered",
        })
    }
}

/// How writes are done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WriteOptions {
    /// When they are acknowledged.
    pub durability: Durability,
    /// Most bytes, as JSON, that a payload may have after a [`PayloadChange`].
    pub most_payload_bytes: usize,
}

impl Default for WriteOptions {
    fn default() -> Self {
        Self {
            durability: Durability::Flushed,
            most_payload_bytes: usize::MAX,
        }
    }
}

/// What became of one write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The id was new; the item has this version.
    Inserted(u64),
    /// The item was there, and has this version now.
    Updated(u64),
    /// The item was there and is gone.
    Deleted,
    /// There was no item to delete.
    NotThere,
}

/// What became of some writes, in their order.
#[derive(Debug)]
pub struct Written<O = Outcome> {
    /// Of each write.
    pub outcomes: Vec<O>,
    /// How durable they are: at least as much as was asked for.
    pub durability: Durability,
}

impl ItemWrite {
    /// Adds an item, or puts it in place of the one with its id.
    pub fn put(item: Item) -> Self {
        Self::of(Change::Put(item))
    }

    /// Changes the payload of an item that is there.
    pub fn payload(id: ItemId, change: PayloadChange) -> Self {
        Self::of(Change::Payload(id, change))
    }

    /// Removes an item, if it is there.
    pub fn delete(id: ItemId) -> Self {
        Self::of(Change::Delete(id))
    }

    fn of(change: Change) -> Self {
        Self {
            change,
            if_version: None,
        }
    }

    /// The same, if the item has this version then; 0 when it must not be there.
    #[must_use]
    pub fn if_version(mut self, version: impl Into<Option<u64>>) -> Self {
        self.if_version = version.into();
        self
    }

    /// The item that is written.
    pub fn id(&self) -> &ItemId {
        match &self.change {
            Change::Put(item) => &item.id,
            Change::Payload(id, _) | Change::Delete(id) => id,
        }
    }
}

impl PayloadChange {
    pub(crate) fn apply(self, payload: &mut Payload) {
        match self {
            Self::Merge(patch) => merge(payload, patch),
            Self::Replace(new) => *payload = new,
        }
    }
}

fn merge(into: &mut Map<String, Value>, patch: Map<String, Value>) {
    for (name, value) in patch {
        match value {
            Value::Null => {
                into.remove(&name);
            }
            Value::Object(patch) => {
                let place = into.entry(name).or_insert(Value::Null);
                if !place.is_object() {
                    *place = Value::Object(Map::new());
                }
                if let Value::Object(there) = place {
                    merge(there, patch);
                }
            }
            value => {
                into.insert(name, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn payloads_merge_as_in_the_examples_of_rfc_7386() {
        let object = |value: Value| match value {
            Value::Object(object) => object,
            other => panic!("{other} is no object"),
        };
        for (before, patch, after) in [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (
                json!({"a": "b"}),
                json!({"b": "c"}),
                json!({"a": "b", "b": "c"}),
            ),
            (json!({"a": "b"}), json!({"a": null}), json!({})),
            (
                json!({"a": "b", "b": "c"}),
                json!({"a": null}),
                json!({"b": "c"}),
            ),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "c"}), json!({"a": ["b"]}), json!({"a": ["b"]})),
            (
                json!({"a": {"b": "c"}}),
                json!({"a": {"b": "d", "c": null}}),
                json!({"a": {"b": "d"}}),
            ),
            (
                json!({"a": [{"b": "c"}]}),
                json!({"a": [1]}),
                json!({"a": [1]}),
            ),
            (
                json!({"e": null}),
                json!({"a": 1}),
                json!({"e": null, "a": 1}),
            ),
            (
                json!({}),
                json!({"a": {"bb": {"ccc": null}}}),
                json!({"a": {"bb": {}}}),
            ),
        ] {
            let mut payload = object(before);
            PayloadChange::Merge(object(patch)).apply(&mut payload);
            assert_eq!(Value::Object(payload), after);
        }
        let mut payload = object(json!({"a": 1}));
        PayloadChange::Replace(object(json!({"b": null}))).apply(&mut payload);
        assert_eq!(Value::Object(payload), json!({"b": null}));
    }
}
