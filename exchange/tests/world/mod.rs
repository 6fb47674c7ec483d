//! Items with and without each of their parts, and where they go.

// Every test target uses its own part.
#![allow(dead_code)]

use std::{path::PathBuf, sync::Arc};

use embedding::{Embedding, Encoder, Fingerprint, HashEncoder, Modality, Spaces};
use engine::{Collection, Engine, EngineConfig, FieldKind, Fields, Item, ItemId};
use exchange::{
    ExchangeError, ExportOptions, Exported, Format, ImportOptions, Imported, Source, export,
};
use serde_json::json;
use tempfile::TempDir;

/// Images have specific embeddings of another dim than texts.
pub const SPACES: Spaces = Spaces {
    model: String::new(),
    fingerprint: Fingerprint([7; 16]),
    shared_dim: 16,
    specific_text_dim: Some(8),
    specific_image_dim: Some(12),
    scoring: None,
};

pub struct World {
    dir: TempDir,
    pub engine: Engine,
}

impl World {
    pub fn new() -> Self {
        let config = EngineConfig {
            audit_share: 0.0,
            ..EngineConfig::default()
        };
        Self {
            dir: tempfile::tempdir().expect("a folder"),
            engine: Engine::in_memory(config),
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Whether nothing but these is in the folder.
    pub fn has_only(&self, names: &[&str]) -> bool {
        let entries = fs_err::read_dir(self.dir.path()).expect("lists");
        let mut found: Vec<_> = entries
            .map(|entry| entry.expect("lists").file_name())
            .collect();
        found.sort();
        found == names
    }

    pub fn create(&self, name: &str, spaces: &Spaces) -> Arc<Collection> {
        self.engine.create(name, spaces).expect("creates")
    }

    /// A collection with so many items of every kind.
    pub fn filled(&self, name: &str, count: usize) -> Arc<Collection> {
        let fields = Fields::new([("n", FieldKind::Integer), ("tag", FieldKind::Keyword)]);
        let fields = fields.expect("are fields");
        let made = self.engine.create_with_fields(name, &SPACES, &fields);
        let collection = made.expect("creates");
        let items = (0..count).map(item).collect();
        collection.upsert(items).expect("upserts");
        collection
    }

    pub fn export(&self, from: &Collection, to: &str) -> Result<Exported, ExchangeError> {
        self.export_with(from, to, &ExportOptions::default())
    }

    pub fn export_with(
        &self,
        from: &Collection,
        to: &str,
        options: &ExportOptions,
    ) -> Result<Exported, ExchangeError> {
        let to = self.path(to);
        export(from, &to, Format::of(&to), options, &mut |_| ())
    }

    pub fn import(
        &self,
        from: &str,
        to: &Arc<Collection>,
        options: ImportOptions,
    ) -> Result<Imported, ExchangeError> {
        let from = self.path(from);
        Source::open(&from, Format::of(&from))?.import(to, options, &mut |_| ())
    }
}

/// Everything in a collection, in the order of ids.
pub fn items(collection: &Collection) -> Vec<Item> {
    let items = collection.items().expect("lists");
    items.collect::<Result<_, _>>().expect("reads")
}

pub fn row(modality: Modality, content: usize, dim: usize) -> Embedding {
    let encoder = HashEncoder::new(modality, dim);
    let content = content.to_string();
    let encoded = encoder.encode(&[content.as_str()]).expect("encodes");
    encoded[0].shared.clone()
}

/// Item `i`: whether it has each of its parts follows from `i`.
pub fn item(i: usize) -> Item {
    let (modality, dim) = if i.is_multiple_of(3) {
        (Modality::Text, SPACES.specific_text_dim)
    } else {
        (Modality::Image, SPACES.specific_image_dim)
    };
    let id = ItemId::new(format!("/photos/\u{e9}\u{1f34e}/{i:05}")).expect("an id");
    let mut item = Item::new(id, modality, row(modality, i, SPACES.shared_dim));
    let has = |bit: usize| i & bit != 0;
    item.specific = dim.filter(|_| has(1)).map(|dim| row(modality, i + 1, dim));
    item.content_hash = has(2).then_some([i as u8; 32]);
    item.source = has(4).then(|| format!("/photos/\u{4e2d}\u{6587} {i}.jpg"));
    item.text = has(8).then(|| {
        if has(16) {
            String::new()
        } else {
            "a \"red\"\n\tbike".into()
        }
    });
    if has(1) {
        let tags = json!(["a", "\u{1f6b2}", null]);
        // A fraction that a fast but careless parser of decimals rounds to its neighbor.
        let nested = json!({"x": 31.245_270_191_439_438, "big": u64::MAX, "": []});
        item.payload.insert("n".into(), i.into());
        item.payload.insert("tag".into(), tags);
        item.payload.insert("nested".into(), nested);
    }
    item
}
