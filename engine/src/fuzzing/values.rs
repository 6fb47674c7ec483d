//! Values of the store made of any bytes.

use std::collections::{BTreeMap, BTreeSet};

use embedding::{Fingerprint, Modality};
use roaring::RoaringBitmap;

use super::seeds::{entries_of, put_right};
use crate::{
    Engine, EngineConfig, ItemId,
    catalog::{self, collection_key},
    confidence::{
        calibration::{Calibration, Features},
        keeping,
    },
    filter::page::{Damaged, Page, entries},
    record::{self, Record, with_checksum},
    store::{Batch, MemoryStore, Store},
};

/// A record, as it is and with its checksum put right. What reads back is written as it was read.
pub(super) fn record(bytes: &[u8]) {
    let key = b"key";
    use_record(key, bytes);
    use_record(key, &with_checksum(key, bytes.to_vec()));
}

fn use_record(key: &[u8], value: &[u8]) {
    let Ok(record) = Record::read(key, value) else {
        return;
    };
    let id = ItemId::new("id").expect("an id");
    let (shared, specific) = (record.shared(), record.specific());
    assert!(shared.is_err() || shared.is_ok_and(|row| row.dim() == record.shared_dim()));
    assert!(specific.is_err() || specific.is_ok_and(|r| Some(r.dim()) == record.specific_dim()));
    let meta = record.meta(id.clone());
    let Ok(item) = record.item(id.clone()) else {
        return;
    };
    assert_eq!(meta.map(|meta| meta.payload), Ok(item.payload.clone()));
    let again = record::encode(key, &item, record.stamp, record.version);
    let again = Record::read(key, &again).expect("what was written reads back");
    assert_eq!(again.stamp, record.stamp);
    assert_eq!(again.item(id), Ok(item));
}

/// Block, changes, and a page: `block u16 | count u8 | (value u8, low u16, there u8)* | page`.
/// A page that an open would take for good changes as a plain map does.
pub(super) fn page(bytes: &[u8]) {
    let Some((block, rest)) = bytes.split_first_chunk() else {
        return;
    };
    let block = u16::from_le_bytes(*block);
    let Some((count, rest)) = rest.split_first() else {
        return;
    };
    let count = usize::from(count % 16).min(rest.len() / 4);
    let (changes, page) = rest.split_at(4 * count);
    let mut model = plain(page, block);
    let Ok(mut changed) = Page::read(page) else {
        assert!(model.is_err(), "both find the damage");
        return;
    };
    let values: Vec<[u8; 1]> = changes.as_chunks::<4>().0.iter().map(|c| [c[0]]).collect();
    for (change, value) in changes.as_chunks::<4>().0.iter().zip(&values) {
        let [_, low, high, there] = change;
        let ordinal = u32::from(block) << 16 | u32::from(u16::from_le_bytes([*low, *high]));
        let there = there % 2 == 1;
        let Ok(moved) = changed.change(value, block, &[(ordinal, there)]) else {
            assert!(model.is_err(), "both find the damage");
            return;
        };
        if let Ok(model) = &mut model {
            let ordinals = model.entry(value.to_vec()).or_default();
            let moves = if there {
                ordinals.insert(ordinal)
            } else {
                ordinals.remove(ordinal)
            };
            assert_eq!(!moved.is_empty(), moves);
            model.retain(|_, ordinals| !ordinals.is_empty());
        }
    }
    let pages = changed.into_pages();
    let mut after = BTreeMap::new();
    for (first, page) in &pages {
        let Ok(part) = plain(page, block) else {
            assert!(model.is_err(), "a good page becomes good pages");
            return;
        };
        assert_eq!(part.keys().next(), Some(first));
        after.extend(part);
    }
    if let Ok(model) = model {
        assert_eq!(after, model);
    }
}

type Plain = BTreeMap<Vec<u8>, RoaringBitmap>;

/// What a page says, where an open would take it for good.
fn plain(page: &[u8], block: u16) -> Result<Plain, Damaged> {
    let mut all = Plain::new();
    for entry in entries(page) {
        let entry = entry?;
        let ordinals = entry.postings.ordinals(block)?;
        let is_here = |ordinal: u32| (ordinal >> 16) as u16 == block;
        let ends = [ordinals.min(), ordinals.max()];
        let in_order = all.last_key_value().is_none_or(|(l, _)| &**l < entry.value);
        if !in_order || !ends.into_iter().all(|end| end.is_some_and(is_here)) {
            return Err(Damaged);
        }
        all.insert(entry.value.to_vec(), ordinals);
    }
    Ok(all)
}

/// A calibration as JSON. One that is taken gives probabilities, and is kept as it is.
pub(super) fn calibration(bytes: &[u8]) {
    let Ok(parsed) = serde_json::from_slice::<Calibration>(bytes) else {
        return;
    };
    let fingerprint = parsed.fingerprint.unwrap_or(Fingerprint([0; 16]));
    let store = MemoryStore::new();
    let key = catalog::calibration_key(1);
    let mut batch = Batch::default();
    batch.put(key.clone(), with_checksum(&key, bytes.to_vec()));
    store.commit(batch).expect("commits");
    let read = || keeping::read(&store, ("c", 1), fingerprint).expect("the store reads");
    let taken = read();
    for from in Modality::ALL {
        let (model, _) = taken.model(from);
        for lead in [None, Some(0.0), Some(f32::MAX)] {
            let (cosine, standing) = (0.5, 2.0);
            let features = Features {
                cosine,
                standing,
                lead,
            };
            let probability = model.probability(&features);
            let in_range = (0.0..=1.0).contains(&probability);
            assert!(in_range, "{model:?}: {probability} with lead {lead:?}");
        }
    }
    assert_eq!(taken.report().directions.len(), Modality::ALL.len());
    keeping::write(&store, 1, &taken).expect("writes");
    let kept = read();
    assert!(kept == taken || taken == Calibration::default());
}

/// The description of a collection as JSON. One that is taken makes a collection that works.
pub(super) fn description(bytes: &[u8]) {
    let key = collection_key("c");
    open_store(vec![(key, bytes.to_vec())]);
}

/// Keys and values of a whole store: `(key length u8, value length u16, key, value)*`.
pub(super) fn store(bytes: &[u8]) {
    open_store(entries_of(bytes));
}

/// Opens an engine on these entries, and uses what opens. With an odd number of them there is a
/// folder for indexes, without any file.
fn open_store(entries: Vec<(Vec<u8>, Vec<u8>)>) {
    let store = MemoryStore::new();
    let mut batch = Batch::default();
    let dir = entries.len() % 2 == 1;
    for (key, value) in entries {
        let value = put_right(&key, value);
        batch.put(key, value);
    }
    store.commit(batch).expect("commits");
    let dir = dir.then(|| tempfile::tempdir().expect("a temporary folder"));
    let config = EngineConfig {
        audit_share: 0.0,
        graph_rows: 4,
        ..EngineConfig::default()
    };
    let index_dir = dir.as_ref().map(|dir| dir.path().to_owned());
    let Ok(engine) = Engine::with_store(Box::new(store), index_dir, config) else {
        return;
    };
    for collection in engine.collections() {
        let metas = collection.metas().expect("it is not deleted");
        let ids: BTreeSet<ItemId> = metas.filter_map(|meta| Some(meta.ok()?.id)).collect();
        let good = ids.iter().filter_map(|id| collection.get(id).ok()?);
        let good: Vec<_> = good.collect();
        let stats = collection.stats();
        assert!(stats.items <= ids.len() + stats.damaged_items);
        // What reads back can be written again, if it fits, and be deleted.
        if let Some(item) = good.first() {
            let written = collection.upsert(vec![item.clone()]).is_ok();
            let found = collection.get(&item.id).expect("it read before");
            assert!(!written || found.as_ref() == Some(item));
        }
        for head in collection.heads().unwrap_or_default() {
            let _ = collection.head(&head.name, None);
        }
        if let Err(error) = collection.seal() {
            panic!("a seal failed: {error}");
        }
        let ids: Vec<ItemId> = ids.into_iter().collect();
        collection.delete(&ids).expect("deletes");
        assert!(collection.stats().items <= stats.items);
    }
    let spaces = engine.collections().first().map(|c| c.spaces().clone());
    if let Some(spaces) = spaces
        && let Ok(new) = engine.create("new", &spaces)
    {
        assert!(new.spaces().same_model(&spaces));
    }
}
