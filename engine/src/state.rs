//! What a collection keeps in memory, and how a write changes it.

use std::collections::BTreeSet;

use embedding::{Aspect, Modality};

use crate::{
    Item, ItemId,
    record::Stamp,
    shard::{Shard, ShardKey},
};

/// What is in memory of a collection; all of it derived from the store.
pub(crate) struct State {
    pub(crate) parts: Vec<Part>,
    /// Items whose record does not read back.
    pub(crate) damaged: BTreeSet<ItemId>,
}

/// The items of one modality and one slot.
pub(crate) struct Part {
    pub(crate) modality: Modality,
    pub(crate) slot: usize,
    pub(crate) shared: Shard,
    /// Present where the model has a specific space for the modality.
    pub(crate) specific: Option<Shard>,
}

impl State {
    pub(crate) fn new(parts: Vec<Part>) -> Self {
        Self {
            parts,
            damaged: BTreeSet::new(),
        }
    }

    pub(crate) fn shards(&self) -> impl Iterator<Item = (ShardKey, &Shard)> {
        self.parts.iter().flat_map(|part| {
            let Part { modality, slot, .. } = *part;
            let key = move |aspect| ShardKey {
                modality,
                slot,
                aspect,
            };
            let specific = part.specific.as_ref();
            std::iter::once((key(Aspect::Shared), &part.shared))
                .chain(specific.map(|shard| (key(Aspect::Specific(modality)), shard)))
        })
    }

    pub(crate) fn shards_mut(&mut self) -> impl Iterator<Item = &mut Shard> {
        let parts = self.parts.iter_mut();
        parts.flat_map(|part| std::iter::once(&mut part.shared).chain(&mut part.specific))
    }

    pub(crate) fn shard(&self, key: &ShardKey) -> Option<&Shard> {
        self.shards()
            .find(|(of, _)| of == key)
            .map(|(_, shard)| shard)
    }

    pub(crate) fn shard_mut(&mut self, key: &ShardKey) -> Option<&mut Shard> {
        let part = self
            .parts
            .iter_mut()
            .find(|p| (p.modality, p.slot) == (key.modality, key.slot))?;
        match key.aspect {
            Aspect::Shared => Some(&mut part.shared),
            Aspect::Specific(_) => part.specific.as_mut(),
        }
    }

    /// The ordinal of the item, when it is there and its record is good.
    pub(crate) fn ordinal(&self, id: &ItemId, slot: usize) -> Option<u32> {
        self.stamp(id, slot).map(|stamp| stamp.ordinal)
    }

    /// The stamp of the item, when it is there and its record is good.
    pub(crate) fn stamp(&self, id: &ItemId, slot: usize) -> Option<Stamp> {
        let mut parts = self.parts.iter().filter(|part| part.slot == slot);
        parts.find_map(|part| part.shared.stamp(id.as_str()))
    }

    /// Whether the item is there, searchable or damaged.
    pub(crate) fn contains(&self, id: &ItemId, slot: usize) -> bool {
        self.damaged.contains(id)
            || self
                .parts
                .iter()
                .any(|p| p.slot == slot && p.shared.contains(id.as_str()))
    }

    /// Whether writing the item changes anything that segments are made of.
    pub(crate) fn changes(&self, item: &Item, slot: usize, stamp: Stamp) -> bool {
        let id = item.id.as_str();
        let mut parts = self.parts.iter().filter(|part| part.slot == slot);
        parts.any(|part| {
            let here = part.modality == item.modality;
            let specific = item.specific.is_some() && here;
            part.shared.changes(id, here.then_some(stamp))
                || part
                    .specific
                    .as_ref()
                    .is_some_and(|shard| shard.changes(id, specific.then_some(stamp)))
        })
    }

    /// Whether the store must say that segments may be wrong about this item.
    pub(crate) fn needs_mark(&self, id: &ItemId, slot: usize) -> bool {
        let shards = self.shards().filter(|(key, _)| key.slot == slot);
        self.damaged.contains(id) || shards.into_iter().any(|(_, s)| s.needs_mark(id.as_str()))
    }

    /// Kills damaged rows of the item in segments.
    pub(crate) fn drop_bad(&mut self, id: &ItemId, slot: usize) {
        for part in self.parts.iter_mut().filter(|part| part.slot == slot) {
            for shard in std::iter::once(&mut part.shared).chain(&mut part.specific) {
                shard.drop_bad(id.as_str());
            }
        }
    }

    pub(crate) fn insert(&mut self, item: &Item, slot: usize, stamp: Stamp) {
        self.damaged.remove(&item.id);
        let id = item.id.as_str();
        for part in self.parts.iter_mut().filter(|part| part.slot == slot) {
            if part.modality != item.modality {
                part.remove(id);
                continue;
            }
            part.shared.insert(id, stamp, &item.shared);
            match (&mut part.specific, &item.specific) {
                (Some(shard), Some(row)) => shard.insert(id, stamp, row),
                (Some(shard), None) => shard.remove(id),
                (None, _) => {}
            }
        }
    }

    pub(crate) fn remove(&mut self, id: &ItemId, slot: usize) {
        self.damaged.remove(id);
        for part in self.parts.iter_mut().filter(|part| part.slot == slot) {
            part.remove(id.as_str());
        }
    }
}

impl Part {
    fn remove(&mut self, id: &str) {
        self.shared.remove(id);
        if let Some(shard) = &mut self.specific {
            shard.remove(id);
        }
    }
}

/// The slot of an id among `slots`. Stored items stay where they are, so this never changes.
pub(crate) fn slot_of(id: &str, slots: usize) -> usize {
    let hash = blake3::hash(id.as_bytes());
    let number = u32::from_le_bytes(*hash.as_bytes().first_chunk().expect("a hash has 32 bytes"));
    number as usize % slots
}
