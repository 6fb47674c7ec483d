//! Opening a collection: its segments from files, where they are good, and everything else from
//! the store. The indexes of fields are compared with the items, and built again where they differ.

use std::{path::PathBuf, sync::Arc};

use embedding::{Aspect, Modality};
use roaring::RoaringBitmap;

use crate::{
    EngineError,
    catalog::{Description, item_prefix},
    collection::{Collection, Core, Derived, id_of},
    confidence::{Confidence, keeping},
    filter::{
        ordinals::Ordinals,
        postings::{Digests, FieldIndex},
    },
    record::Record,
    sealing::{self, index_path, owner},
    segment::Segment,
    segment_file,
    shard::{Shard, ShardKey},
    state::{Part, State, slot_of},
};

/// Opens a collection. What no good file covers lies in tails, is scanned exactly, and is sealed in
/// the background if there is much of it.
pub(crate) fn load(
    name: String,
    description: Description,
    core: &Arc<Core>,
) -> Result<Arc<Collection>, EngineError> {
    let dir = core.index_dir.as_ref().map(|dir| dir.join(&name));
    if let Some(dir) = &dir {
        segment_file::remove_aside(dir);
    }
    let mut state = State::new(parts(dir.as_ref(), &description, core));
    let fields = Arc::new(description.fields.clone());
    let store = core.store.as_ref();
    let mut found = FieldIndex::open(store, name.clone(), description.number, fields.clone())?;
    let (mut used, mut expected) = (RoaringBitmap::new(), Digests::default());
    for entry in core.store.scan(&item_prefix(description.number)) {
        let (key, value) = entry?;
        let id = match id_of(&name, description.number, &key) {
            Ok(id) => id,
            Err(error) => {
                // Nobody can ask for it. The other items are still good.
                tracing::error!("{error}");
                continue;
            }
        };
        let slot = slot_of(id.as_str(), description.shards);
        let restored = Record::read(&key, &value).and_then(|record| {
            let ordinal = record.stamp.ordinal;
            if used.contains(ordinal) {
                return Err(format!("its ordinal {ordinal} is that of another item"));
            }
            restore(&mut state, &description, id.as_str(), slot, &record)?;
            used.insert(ordinal);
            if !fields.is_empty() {
                expected.add_item(&fields, ordinal, &record.payload()?);
            }
            Ok(())
        });
        if let Err(reason) = restored {
            // The other items are still good. Asking for this one gives the error.
            tracing::error!("item {id} of collection {name} is damaged in the store: {reason}");
            state.damaged.insert(id);
        }
    }
    for (field, number) in fields.0.iter().map(|(name, field)| (name, field.number)) {
        if found.digests.of(number) != expected.of(number) && found.damaged.insert(number) {
            tracing::warn!(
                "the index of field {field} of collection {name} does not fit its items"
            );
        }
    }
    for number in &found.damaged {
        core.store.commit(found.index.clear(*number))?;
    }
    let damaged = found.damaged.iter().copied();
    let damaged: Vec<u16> = damaged.filter(|number| fields.has(*number)).collect();
    let (of, fingerprint) = ((&*name, description.number), description.spaces.fingerprint);
    let calibration = keeping::read(store, of, fingerprint)?;
    let derived = Derived {
        confidence: Confidence::with(calibration),
        state,
        index: found.index,
        ordinals: Ordinals::without(&used),
    };
    let collection = Arc::new(Collection::new(name, description, core.clone(), derived));
    if !damaged.is_empty() {
        collection.build_fields(&damaged)?;
    }
    sealing::request(&collection);
    Ok(collection)
}

fn parts(dir: Option<&PathBuf>, description: &Description, core: &Core) -> Vec<Part> {
    let spaces = &description.spaces;
    let shard = |key: ShardKey, dim: usize| {
        let owner = owner(description.number, spaces, key);
        let segment = segment(index_path(dir.cloned(), key), &owner, dim);
        Shard::loaded(segment.settled(&core.budget))
    };
    let slots = Modality::ALL
        .into_iter()
        .flat_map(|modality| (0..description.shards).map(move |slot| (modality, slot)));
    slots
        .map(|(modality, slot)| {
            let key = |aspect| ShardKey {
                modality,
                slot,
                aspect,
            };
            let specific = spaces.specific(modality);
            Part {
                modality,
                slot,
                shared: shard(key(Aspect::Shared), spaces.shared_dim),
                specific: specific.map(|space| shard(key(space.aspect), space.dim)),
            }
        })
        .collect()
}

/// The segment in a file; an empty one where there is no good file.
fn segment(path: Option<PathBuf>, owner: &str, dim: usize) -> Segment {
    let Some(path) = path else {
        return Segment::empty(dim);
    };
    match segment_file::read(&path, owner, dim) {
        Ok(Some(segment)) => segment,
        Ok(None) => Segment::empty(dim),
        Err(error) => {
            let path = path.display();
            tracing::warn!("the index {path} is not usable ({error}) and will be built again");
            Segment::empty(dim)
        }
    }
}

fn restore(
    state: &mut State,
    description: &Description,
    id: &str,
    slot: usize,
    record: &Record<'_>,
) -> Result<(), String> {
    let Record {
        modality, stamp, ..
    } = *record;
    let check = |dim: usize, expected: usize| {
        let wrong = || format!("its embedding has dim {dim}, expected {expected}");
        if dim == expected {
            Ok(())
        } else {
            Err(wrong())
        }
    };
    let spaces = &description.spaces;
    let specific_space = spaces.specific(modality);
    check(record.shared_dim(), spaces.shared_dim)?;
    match (&specific_space, record.specific_dim()) {
        (Some(space), Some(dim)) => check(dim, space.dim)?,
        (None, Some(dim)) => check(dim, 0)?,
        (_, None) => {}
    }
    let key = |aspect| ShardKey {
        modality,
        slot,
        aspect,
    };
    if let Some(shard) = state.shard_mut(&key(Aspect::Shared)) {
        shard.restore(id, stamp, || record.shared())?;
    }
    if record.specific_dim().is_some()
        && let Some(shard) = state.shard_mut(&key(Aspect::Specific(modality)))
    {
        shard.restore(id, stamp, || record.specific())?;
    }
    Ok(())
}
