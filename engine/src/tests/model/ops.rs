//! What is done, and what it means to a plain map.

use std::collections::{BTreeMap, BTreeSet};

use embedding::Modality;
use proptest::prelude::*;
use serde_json::{Map, Value};

use super::super::{filters, id, item};
use crate::{Item, ItemId, ItemWrite, Payload, PayloadChange, Target};

/// Ids: enough for graphs that are walked, and few enough that writes meet.
const NAMES: u8 = 250;
/// Contents. There are fewer than ids, so that rows come several times and scores tie.
const CONTENTS: u8 = 120;

/// One operation.
#[derive(Debug, Clone)]
pub(super) enum Op {
    Write(Write),
    Seal,
    /// Closes the engine and opens it again, with its folder of indexes or without any.
    Reopen {
        indexes: bool,
    },
    /// The store takes so many more bytes and stops there, in the middle of the write or after it.
    Crash(usize, Write),
    /// Hurts an index file of the closed engine.
    Damage(Damage),
    Search(Search),
    /// Makes a snapshot, one file or a folder, which shares what it can with the one before.
    Snapshot {
        tar: bool,
    },
    /// Restores the last snapshot beside the collection, looks at it, and deletes it.
    Restore,
}

// A new kind of write has its place here: what it does to the map is in `Write::on`, what it does
// to the collection in `World::write`, and a crash in the middle of it comes by itself. Whatever
// else is new is an `Op` with an arm in `World::apply`.
/// A change, which is durable as a whole or not at all.
#[derive(Debug, Clone)]
pub(super) enum Write {
    Upsert(Vec<Content>),
    Delete(Vec<u8>),
    /// Changes of all kinds, perhaps under conditions: all of them or none, or each that can be done.
    Steps {
        steps: Vec<Step>,
        each: bool,
    },
    /// Declares the field with this number.
    Declare(usize),
}

/// A change of one item.
#[derive(Debug, Clone)]
pub(super) struct Step {
    does: Does,
    condition: Condition,
}

#[derive(Debug, Clone)]
enum Does {
    Put(Content),
    Payload {
        name: u8,
        payload: Payload,
        merge: bool,
    },
    Delete(u8),
}

/// What a step asks of its item.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Condition {
    Nothing,
    /// That it is as it was before all steps: it has its version, or is not there.
    Unchanged,
    Absent,
    /// A version that no item has.
    Never,
}

/// What a step must say that it did.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Said {
    Inserted,
    Updated,
    Deleted,
    NotThere,
    Conflict,
    NoItem,
}

/// An item.
#[derive(Debug, Clone)]
pub(super) struct Content {
    name: u8,
    is_image: bool,
    has_specific: bool,
    embedded: u8,
    payload: Payload,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Damage {
    Remove { file: usize },
    Flip { file: usize, byte: usize, bit: u8 },
    Cut { file: usize, at: usize },
}

#[derive(Debug, Clone)]
pub(super) struct Search {
    pub(super) content: u8,
    pub(super) of: Sought,
    pub(super) k: usize,
    pub(super) exact: bool,
    pub(super) filter: Option<Value>,
    /// Whether all pages are asked for, one after the other.
    pub(super) pages: bool,
}

/// Which space, and what in it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Sought {
    Shared(Target),
    Specific(Modality),
}

/// What must be there.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Model {
    pub(super) items: BTreeMap<ItemId, Item>,
    /// Numbers of the declared fields.
    pub(super) fields: Vec<usize>,
}

impl Content {
    pub(super) fn item(&self) -> Item {
        let modality = if self.is_image {
            Modality::Image
        } else {
            Modality::Text
        };
        let mut item = item(&name(self.name), modality, &self.embedded.to_string());
        if !self.has_specific {
            item.specific = None;
        }
        item.payload = self.payload.clone();
        item
    }
}

impl Step {
    fn id(&self) -> ItemId {
        let (Does::Put(Content { name: n, .. }) | Does::Payload { name: n, .. } | Does::Delete(n)) =
            &self.does;
        id(&name(*n))
    }

    /// The write that it is, where items have these versions.
    pub(super) fn write(&self, versions: &BTreeMap<ItemId, u64>) -> ItemWrite {
        let write = match &self.does {
            Does::Put(content) => ItemWrite::put(content.item()),
            Does::Payload { payload, merge, .. } => {
                let change = if *merge {
                    PayloadChange::Merge
                } else {
                    PayloadChange::Replace
                };
                ItemWrite::payload(self.id(), change(payload.clone()))
            }
            Does::Delete(_) => ItemWrite::delete(self.id()),
        };
        write.if_version(match self.condition {
            Condition::Nothing => None,
            Condition::Unchanged => Some(versions.get(&self.id()).copied().unwrap_or(0)),
            Condition::Absent => Some(0),
            Condition::Never => Some(u64::MAX),
        })
    }

    /// What it does to the map. The items of `before` were there before all steps, and those of
    /// `put` were written by the steps so far.
    fn on(
        &self,
        items: &mut BTreeMap<ItemId, Item>,
        before: &BTreeSet<ItemId>,
        put: &mut BTreeSet<ItemId>,
    ) -> Said {
        let id = self.id();
        let is_there = items.contains_key(&id);
        let holds = match self.condition {
            Condition::Nothing => true,
            Condition::Unchanged if before.contains(&id) => is_there && !put.contains(&id),
            Condition::Unchanged | Condition::Absent => !is_there,
            Condition::Never => false,
        };
        if !holds {
            return Said::Conflict;
        }
        match &self.does {
            Does::Put(content) => {
                items.insert(id.clone(), content.item());
            }
            Does::Payload { payload, merge, .. } => {
                let Some(item) = items.get_mut(&id) else {
                    return Said::NoItem;
                };
                if *merge {
                    merged(&mut item.payload, payload);
                } else {
                    item.payload = payload.clone();
                }
            }
            Does::Delete(_) => {
                items.remove(&id);
                let said = [Said::NotThere, Said::Deleted];
                return said[usize::from(is_there)];
            }
        }
        put.insert(id);
        let said = [Said::Inserted, Said::Updated];
        said[usize::from(is_there)]
    }
}

/// What these steps do to the items, and say; and which they have written. Where all must be done,
/// the first that cannot is the last that says something, and nothing is changed.
pub(super) fn steps(
    steps: &[Step],
    each: bool,
    items: &mut BTreeMap<ItemId, Item>,
) -> (Vec<Said>, BTreeSet<ItemId>) {
    let before: BTreeSet<ItemId> = items.keys().cloned().collect();
    let (mut after, mut put, mut all) = (items.clone(), BTreeSet::new(), Vec::new());
    for step in steps {
        let said = step.on(&mut after, &before, &mut put);
        all.push(said);
        if !each && matches!(said, Said::Conflict | Said::NoItem) {
            return (all, BTreeSet::new());
        }
    }
    *items = after;
    (all, put)
}

/// A merge patch of payloads, which have no objects in them.
fn merged(payload: &mut Map<String, Value>, patch: &Map<String, Value>) {
    for (name, value) in patch {
        payload.insert(name.clone(), value.clone());
    }
    payload.retain(|name, _| !patch.get(name).is_some_and(Value::is_null));
}

pub(super) fn name(name: u8) -> String {
    format!("id-{name}")
}

impl Write {
    /// What it does to the map. Gives the items that have a new version.
    pub(super) fn on(&self, model: &mut Model) -> BTreeSet<ItemId> {
        match self {
            Self::Upsert(contents) => {
                let items = contents.iter().map(Content::item);
                let items: BTreeMap<_, _> = items.map(|item| (item.id.clone(), item)).collect();
                let ids = items.keys().cloned().collect();
                model.items.extend(items);
                return ids;
            }
            Self::Delete(names) => {
                for gone in names {
                    model.items.remove(&id(&name(*gone)));
                }
            }
            Self::Steps { steps: all, each } => return steps(all, *each, &mut model.items).1,
            Self::Declare(field) if model.fields.contains(field) => {}
            Self::Declare(field) => {
                model.fields.push(*field);
                model.fields.sort_unstable();
            }
        }
        BTreeSet::new()
    }
}

pub(super) fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        40 => write().prop_map(Op::Write),
        4 => Just(Op::Seal),
        4 => prop::bool::weighted(0.8).prop_map(|indexes| Op::Reopen { indexes }),
        6 => (0..16_000_usize, write()).prop_map(|(room, write)| Op::Crash(room, write)),
        4 => damage().prop_map(Op::Damage),
        40 => search().prop_map(Op::Search),
        2 => any::<bool>().prop_map(|tar| Op::Snapshot { tar }),
        2 => Just(Op::Restore),
    ]
}

fn content() -> impl Strategy<Value = Content> {
    let content = (
        0..NAMES,
        any::<bool>(),
        prop::bool::weighted(0.9),
        0..CONTENTS,
        filters::payload(),
    );
    content.prop_map(
        |(name, is_image, has_specific, embedded, payload)| Content {
            name,
            is_image,
            has_specific,
            embedded,
            payload,
        },
    )
}

fn step() -> impl Strategy<Value = Step> {
    let payload = (0..NAMES, filters::payload(), any::<bool>());
    let does = prop_oneof![
        content().prop_map(Does::Put),
        payload.prop_map(|(name, payload, merge)| Does::Payload {
            name,
            payload,
            merge
        }),
        (0..NAMES).prop_map(Does::Delete),
    ];
    let condition = prop_oneof![
        8 => Just(Condition::Nothing),
        8 => Just(Condition::Unchanged),
        1 => Just(Condition::Absent),
        1 => Just(Condition::Never),
    ];
    (does, condition).prop_map(|(does, condition)| Step { does, condition })
}

fn write() -> impl Strategy<Value = Write> {
    // A few, so that often all of them can be done.
    let steps = (prop::collection::vec(step(), 0..5), any::<bool>());
    prop_oneof![
        12 => prop::collection::vec(content(), 0..40).prop_map(Write::Upsert),
        6 => prop::collection::vec(0..NAMES, 0..20).prop_map(Write::Delete),
        8 => steps.prop_map(|(steps, each)| Write::Steps { steps, each }),
        1 => (0..filters::NAMES.len()).prop_map(Write::Declare),
    ]
}

fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        any::<usize>().prop_map(|file| Damage::Remove { file }),
        (any::<usize>(), any::<usize>(), 0..8_u8).prop_map(|(file, byte, bit)| Damage::Flip {
            file,
            byte,
            bit
        }),
        (any::<usize>(), any::<usize>()).prop_map(|(file, at)| Damage::Cut { file, at }),
    ]
}

fn search() -> impl Strategy<Value = Search> {
    let targets = vec![Target::Both, Target::Image, Target::Text];
    let of = prop_oneof![
        3 => prop::sample::select(targets).prop_map(Sought::Shared),
        1 => prop::sample::select(Modality::ALL.to_vec()).prop_map(Sought::Specific),
    ];
    let k = prop_oneof![3 => 1..8_usize, 1 => 8..200_usize];
    let filter = prop::option::weighted(0.6, filters::some_filter());
    let pages = prop::bool::weighted(0.2);
    (0..CONTENTS, of, k, any::<bool>(), filter, pages).prop_map(
        |(content, of, k, exact, filter, pages)| Search {
            content,
            of,
            k,
            exact,
            filter,
            pages,
        },
    )
}
