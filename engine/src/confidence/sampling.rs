//! What a collection keeps to be sure of hits: samples that follow its items, and a calibration.

use std::sync::{Arc, atomic::AtomicBool};

use embedding::{Aspect, Modality};
use parking_lot::{Mutex, RwLock};

use super::{calibration::Calibration, sample::Sample};
use crate::{ItemId, collection::Collection, item::hash_of, shard::View};

/// Which rows a sample is of.
type Of = (Modality, Aspect);

/// Kept in memory of a collection; derived from its items, but for the calibration.
#[derive(Debug, Default)]
pub(crate) struct Confidence {
    watched: Mutex<Watched>,
    pub(crate) calibration: RwLock<Arc<Calibration>>,
    /// Whether a fit in the background waits or is under way.
    pub(crate) fitting: AtomicBool,
}

#[derive(Debug, Default)]
struct Watched {
    /// One at most for each modality and aspect.
    samples: Vec<(Of, Arc<Sample>)>,
    /// Samples that are being taken.
    taking: usize,
    /// Lowest hash of an item that was changed since the first of them began.
    changed: Option<u64>,
}

impl Confidence {
    /// What was kept of an earlier run.
    pub(crate) fn with(calibration: Calibration) -> Self {
        Self {
            calibration: RwLock::new(Arc::new(calibration)),
            ..Self::default()
        }
    }

    /// What was fitted, as JSON for a snapshot; `None` when nothing was.
    pub(crate) fn to_keep(&self) -> Option<serde_json::Value> {
        let calibration = Arc::clone(&self.calibration.read());
        let is_fitted = *calibration != Calibration::default();
        is_fitted.then(|| serde_json::to_value(&*calibration).expect("a calibration is plain JSON"))
    }

    /// Must hear of every item that is inserted, changed or removed, before readers of the state
    /// see it.
    pub(crate) fn changed<'a>(&self, ids: impl Iterator<Item = &'a ItemId>) {
        let Some(lowest) = ids.map(|id| hash_of(id.as_str())).min() else {
            return;
        };
        let mut watched = self.watched.lock();
        watched
            .samples
            .retain(|(_, sample)| lowest > sample.last_hash);
        if watched.taking > 0 {
            let changed = watched.changed.map_or(lowest, |before| before.min(lowest));
            watched.changed = Some(changed);
        }
    }

    /// The sample of a collection's items as they are now. Looks at all tails when one of the
    /// sample's items was changed since the last call, which a write to a large collection seldom
    /// does.
    pub(crate) fn sample(&self, collection: &Collection, of: Of) -> Arc<Sample> {
        let views = {
            let state = collection.state.read();
            let mut watched = self.watched.lock();
            if let Some((_, sample)) = watched.samples.iter().find(|(is, _)| *is == of) {
                return Arc::clone(sample);
            }
            if watched.taking == 0 {
                watched.changed = None;
            }
            watched.taking += 1;
            let shards = state.shards();
            let shards = shards.filter(|(key, _)| (key.modality, key.aspect) == of);
            shards
                .map(|(_, shard)| shard.view.clone())
                .collect::<Vec<View>>()
        };
        let dim = match of.1 {
            Aspect::Shared => collection.spaces().shared_dim,
            Aspect::Specific(modality) => collection
                .spaces()
                .specific(modality)
                .map_or(1, |space| space.dim),
        };
        let sample = Arc::new(Sample::take(&views, dim));
        let mut watched = self.watched.lock();
        watched.taking -= 1;
        let still_true = watched.changed.is_none_or(|hash| hash > sample.last_hash);
        if still_true && !watched.samples.iter().any(|(is, _)| *is == of) {
            watched.samples.push((of, Arc::clone(&sample)));
        }
        sample
    }
}
