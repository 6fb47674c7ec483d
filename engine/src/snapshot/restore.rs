//! From a snapshot back to a collection.

use std::path::Path;

use super::{
    Done, SnapshotError, Told, chunks, heads,
    manifest::{MANIFEST, Manifest},
    source::Source,
    tell,
};
use crate::{
    EngineError, ItemId,
    catalog::{Description, item_key},
    confidence::keeping,
    filter::{field::FieldSet, postings::Changes},
    record::{self, Record},
    repair::check_dims,
    store::{Batch, Store},
};

/// Items, and bytes, that are stored in one batch.
const BATCH_ITEMS: usize = 512;
const BATCH_BYTES: usize = 4 << 20;

/// A snapshot that is about to become a collection.
pub(crate) struct Restore {
    source: Source,
    manifest: Manifest,
}

impl Restore {
    pub(crate) fn open(from: &Path) -> Result<Self, EngineError> {
        let (source, manifest) = Source::open(from)?;
        Ok(Self { source, manifest })
    }

    /// The description of the collection that it becomes.
    pub(crate) fn description(
        &self,
        name: &str,
        number: u32,
        shards: usize,
    ) -> Result<Description, EngineError> {
        let mut description = Description::new(number, shards, self.manifest.spaces.clone());
        let (fields, _) = FieldSet::default().with(name, &self.manifest.fields)?;
        description.fields = fields.all_ready();
        Ok(description)
    }

    /// Stores the items under the number of the collection. Gives the number that all versions so
    /// far are below.
    pub(crate) fn fill(
        mut self,
        store: &dyn Store,
        (name, description): (&str, &Description),
        told: Told<'_>,
    ) -> Result<u64, EngineError> {
        let number = description.number;
        let (mut batch, mut bytes, mut ordinal) = (Batch::default(), 0, 0_u64);
        let mut versions_below = self.manifest.versions_below;
        each(&mut self.source, &self.manifest, told, |id, mut body| {
            let ordinal_here = u32::try_from(ordinal).map_err(|_| EngineError::Full {
                collection: name.to_owned(),
            })?;
            ordinal += 1;
            if let Ok(record) = Record::of(&body) {
                versions_below = versions_below.max(record.version.saturating_add(1));
            }
            record::set_ordinal(&mut body, ordinal_here);
            let key = item_key(number, id);
            bytes += key.len() + body.len();
            let value = record::with_checksum(&key, body);
            batch.put(key, value);
            if batch.len() >= BATCH_ITEMS || bytes >= BATCH_BYTES {
                bytes = 0;
                store.commit(std::mem::take(&mut batch))?;
            }
            Ok::<_, EngineError>(())
        })?;
        store.commit(batch)?;
        let of = (self.manifest.heads.as_slice(), description);
        heads::restore(&mut self.source, of, store)?;
        if let Some(calibration) = self.manifest.calibration {
            match serde_json::from_value(calibration) {
                Ok(calibration) => keeping::write(store, number, &calibration)?,
                // It is fitted again.
                Err(error) => tracing::warn!("a calibration is left out: {error}"),
            }
        }
        Ok(versions_below)
    }
}

/// Checks everything, as a restore does.
pub(super) fn verify(
    source: &mut Source,
    manifest: &Manifest,
    told: Told<'_>,
) -> Result<(), SnapshotError> {
    each(source, manifest, told, |_, _| Ok::<_, SnapshotError>(()))?;
    let description = Description::new(0, 1, manifest.spaces.clone());
    heads::each(source, (&manifest.heads, &description), |_, _, _, _| Ok(()))
}

/// Gives the id and the record, without its checksum, of each item of a snapshot, checked.
fn each<E: From<SnapshotError>>(
    source: &mut Source,
    manifest: &Manifest,
    told: Told<'_>,
    mut take: impl FnMut(&ItemId, Vec<u8>) -> Result<(), E>,
) -> Result<(), E> {
    let mut description = Description::new(0, 1, manifest.spaces.clone());
    let fields = FieldSet::default().with(&manifest.collection, &manifest.fields);
    let fields = fields.map_err(|error| source.damaged(MANIFEST, error.to_string()))?;
    description.fields = fields.0.all_ready();
    let mut last: Option<ItemId> = None;
    let mut done = 0;
    for chunk in &manifest.chunks {
        let bytes = source.chunk(chunk)?;
        let damaged = |reason| source.damaged(&chunk.path(), reason);
        let mut items = 0;
        for entry in chunks::entries(&bytes) {
            let (id, body) = entry.ok_or_else(|| damaged("it is cut short".to_owned()))?;
            let id = check(&description, id, body)
                .map_err(|reason| damaged(format!("item {id:?}: {reason}")))?;
            if last.as_ref().is_some_and(|last| *last >= id) || (items == 0 && id != chunk.first) {
                return Err(damaged(format!("item {id:?} is out of order")).into());
            }
            items += 1;
            take(&id, body.to_vec())?;
            last = Some(id);
        }
        if items != chunk.items {
            return Err(damaged(format!("it has {items} items, expected {}", chunk.items)).into());
        }
        done += items;
        let of = manifest.items;
        tell(told, Done { items: done, of })?;
    }
    Ok(())
}

/// Checks that this can be an item of the collection.
fn check(description: &Description, id: &str, body: &[u8]) -> Result<ItemId, String> {
    let id = ItemId::new(id).map_err(|error| error.to_string())?;
    let record = Record::of(body)?;
    check_dims(description, &record)?;
    let item = record.item(id.clone())?;
    let mut entries = Changes::default();
    entries
        .add(&description.fields, 0, None, Some(&item.payload))
        .map_err(|(field, wrong)| {
            format!(
                "field {field} is {}, expected {}",
                wrong.value, wrong.expected
            )
        })?;
    Ok(id)
}
