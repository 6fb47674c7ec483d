//! What items become by some writes, and everything that can be wrong with that.

use std::collections::BTreeMap;

use embedding::{Aspect, Embedding};

use crate::{
    Change, EngineError, Item, ItemId, ItemWrite, Outcome, Payload, PayloadChange, WriteOptions,
    collection::Collection,
};

/// What an item becomes.
pub(super) enum Next {
    /// This, with this version.
    Put(Item, u64),
    /// Nothing.
    Gone,
}

impl Next {
    pub(super) fn is_put(&self) -> bool {
        matches!(self, Self::Put(..))
    }
}

/// What becomes of the items of some writes, each of which acts on what those before it leave.
pub(super) struct Plan<'a> {
    collection: &'a Collection,
    options: WriteOptions,
    pub(super) next: BTreeMap<ItemId, Next>,
}

impl<'a> Plan<'a> {
    pub(super) fn new(collection: &'a Collection, options: WriteOptions) -> Self {
        Self {
            collection,
            options,
            next: BTreeMap::new(),
        }
    }

    /// Takes up a write; after an error, nothing of it.
    pub(super) fn add(&mut self, write: ItemWrite) -> Result<Outcome, EngineError> {
        if let Some(expected) = write.if_version {
            self.check_version(write.id(), expected)?;
        }
        let item = match write.change {
            Change::Delete(id) => {
                let is_there = self.is_there(&id);
                self.next.insert(id, Next::Gone);
                return Ok(if is_there {
                    Outcome::Deleted
                } else {
                    Outcome::NotThere
                });
            }
            Change::Put(item) => item,
            Change::Payload(id, change) => self.with_payload(&id, change)?,
        };
        self.collection.check_item(&item)?;
        self.collection.check_payload(&item)?;
        let version = self.collection.versions.take();
        let outcome = if self.is_there(&item.id) {
            Outcome::Updated(version)
        } else {
            Outcome::Inserted(version)
        };
        self.next.insert(item.id.clone(), Next::Put(item, version));
        Ok(outcome)
    }

    fn is_there(&self, id: &ItemId) -> bool {
        let slot = self.collection.slot(id);
        let stored = || self.collection.state.read().contains(id, slot);
        self.next.get(id).map_or_else(stored, Next::is_put)
    }

    fn check_version(&self, id: &ItemId, expected: u64) -> Result<(), EngineError> {
        let found = match self.next.get(id) {
            Some(Next::Put(_, version)) => Some(*version),
            Some(Next::Gone) => None,
            None => self.collection.read(id, |record| Ok(record.version))?,
        };
        if found.unwrap_or(0) == expected {
            return Ok(());
        }
        Err(EngineError::VersionConflict {
            collection: self.collection.name.clone(),
            id: id.to_string(),
            expected,
            found,
        })
    }

    /// The item with a changed payload.
    fn with_payload(&self, id: &ItemId, change: PayloadChange) -> Result<Item, EngineError> {
        let there = match self.next.get(id) {
            Some(Next::Put(item, _)) => Some(item.clone()),
            Some(Next::Gone) => None,
            None => self.collection.get(id)?,
        };
        let mut item = there.ok_or_else(|| EngineError::NoItem {
            collection: self.collection.name.clone(),
            id: id.to_string(),
        })?;
        change.apply(&mut item.payload);
        let (bytes, most) = (json_bytes(&item.payload), self.options.most_payload_bytes);
        if bytes > most {
            let id = id.to_string();
            return Err(EngineError::PayloadTooLarge { id, bytes, most });
        }
        Ok(item)
    }
}

fn json_bytes(payload: &Payload) -> usize {
    let json = serde_json::to_vec(payload);
    json.expect("a JSON object writes to memory").len()
}

impl Collection {
    pub(crate) fn check_item(&self, item: &Item) -> Result<(), EngineError> {
        let spaces = self.spaces();
        let check = |aspect, expected: usize, embedding: &Embedding| {
            let got = embedding.dim();
            if got == expected {
                return Ok(());
            }
            let (collection, what) = (self.name.clone(), format!("item {}", item.id));
            Err(EngineError::WrongDim {
                collection,
                aspect,
                expected,
                got,
                what,
            })
        };
        check(Aspect::Shared, spaces.shared_dim, &item.shared)?;
        match (spaces.specific(item.modality), &item.specific) {
            (Some(space), Some(specific)) => check(space.aspect, space.dim, specific),
            (None, Some(_)) => Err(EngineError::NoSuchAspect {
                collection: self.name.clone(),
                aspect: Aspect::Specific(item.modality),
                id: item.id.to_string(),
            }),
            (_, None) => Ok(()),
        }
    }
}
