//! Comparing a collection with the map.

use std::{collections::BTreeMap, mem};

use embedding::Modality;

use super::{super::filters, meta, ops::Model, oracle};
use crate::{Collection, EngineError, ItemId, ItemMeta};

/// What went wrong, in words.
pub(super) type Outcome = Result<(), String>;

/// Fails with words that say where two things differ.
pub(super) fn same<T: PartialEq + std::fmt::Debug>(what: &str, got: &T, wanted: &T) -> Outcome {
    if got == wanted {
        return Ok(());
    }
    Err(format!("{what}: got {got:?}, expected {wanted:?}"))
}

/// What the collection holds, read off it.
pub(super) fn there(collection: &Collection) -> Result<Model, String> {
    let metas = collection.metas().map_err(|error| error.to_string())?;
    let mut there = Model::default();
    for meta in metas {
        let id = meta.map_err(|error| error.to_string())?.id;
        let item = collection.get(&id).map_err(|error| error.to_string())?;
        let item = item.ok_or_else(|| format!("{id} is listed and not there"))?;
        there.items.insert(id, item);
    }
    let declared = collection.fields();
    let is_declared = |field: &usize| {
        let mut declared = declared.iter();
        declared.any(|(name, _)| name == filters::NAMES[*field])
    };
    there.fields = (0..filters::NAMES.len()).filter(is_declared).collect();
    Ok(there)
}

/// The version of each item.
pub(super) fn versions(collection: &Collection) -> Result<BTreeMap<ItemId, u64>, String> {
    let metas = collection.metas().map_err(|error| error.to_string())?;
    let versions = metas.map(|meta| meta.map(|meta| (meta.id, meta.version)));
    let versions: Result<_, EngineError> = versions.collect();
    versions.map_err(|error| error.to_string())
}

/// Whether the items are those of the map, and are counted so.
pub(super) fn holds_all(collection: &Collection, model: &Model) -> Outcome {
    let items = &model.items;
    same("what is there", &there(collection)?, model)?;
    let metas = collection.metas().map_err(|error| error.to_string())?;
    let metas: Result<Vec<ItemMeta>, EngineError> = metas.collect();
    let mut metas = metas.map_err(|error| error.to_string())?;
    let mut versions: Vec<u64> = metas
        .iter_mut()
        .map(|m| mem::take(&mut m.version))
        .collect();
    versions.sort_unstable();
    if versions.first() == Some(&0) || !versions.is_sorted_by(|a, b| a < b) {
        return Err(format!(
            "versions that are no versions, or come twice: {versions:?}"
        ));
    }
    same("metas", &metas, &items.values().map(meta).collect())?;
    let stats = collection.stats();
    let images = items.values().filter(|i| i.modality == Modality::Image);
    same("images", &stats.images, &images.count())?;
    same("items", &stats.items, &items.len())?;
    let rows = stats.sealed_rows + stats.tail_rows - stats.deleted_rows;
    same("rows", &rows, &items.len())
}

/// Whether searches for everything find everything, by every way.
pub(super) fn answers_all(collection: &Collection, model: &Model) -> Outcome {
    for search in oracle::all(model) {
        oracle::check(collection, model, &search)?;
    }
    Ok(())
}
