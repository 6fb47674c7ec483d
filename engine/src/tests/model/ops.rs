//! What is done, and what it means to a plain map.

use std::collections::BTreeMap;

use embedding::Modality;
use proptest::prelude::*;
use serde_json::Value;

use super::super::{filters, id, item};
use crate::{Item, ItemId, Payload, Target};

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
}

// A new kind of write (a conditional one) has its place here: what it does to the map is in
// `Write::on`, what it does to the collection in `World::write`, and a crash in the middle of it
// comes by itself. Whatever else is new (a snapshot) is an `Op` with an arm in `World::apply`.
/// A change, which is durable as a whole or not at all.
#[derive(Debug, Clone)]
pub(super) enum Write {
    Upsert(Vec<Content>),
    Delete(Vec<u8>),
    /// Declares the field with this number.
    Declare(usize),
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

pub(super) fn name(name: u8) -> String {
    format!("id-{name}")
}

impl Write {
    /// What it does to the map.
    pub(super) fn on(&self, model: &mut Model) {
        match self {
            Self::Upsert(contents) => {
                let items = contents.iter().map(Content::item);
                model
                    .items
                    .extend(items.map(|item| (item.id.clone(), item)));
            }
            Self::Delete(names) => {
                for gone in names {
                    model.items.remove(&id(&name(*gone)));
                }
            }
            Self::Declare(field) if model.fields.contains(field) => {}
            Self::Declare(field) => {
                model.fields.push(*field);
                model.fields.sort_unstable();
            }
        }
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
    ]
}

fn write() -> impl Strategy<Value = Write> {
    let content = (
        0..NAMES,
        any::<bool>(),
        prop::bool::weighted(0.9),
        0..CONTENTS,
        filters::payload(),
    );
    let content = content.prop_map(
        |(name, is_image, has_specific, embedded, payload)| Content {
            name,
            is_image,
            has_specific,
            embedded,
            payload,
        },
    );
    prop_oneof![
        12 => prop::collection::vec(content, 0..40).prop_map(Write::Upsert),
        6 => prop::collection::vec(0..NAMES, 0..20).prop_map(Write::Delete),
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
