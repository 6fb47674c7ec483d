//! The files of a collection's segments, as they are found.

use std::{io::ErrorKind::NotFound, path::Path};

use embedding::{Aspect, Modality};
use rayon::prelude::*;

use crate::{
    EngineError,
    catalog::Description,
    collection::Core,
    marks::{self, Sealed},
    sealing::owner,
    segment::Segment,
    segment_file::{self, Wanted},
    shard::{Shard, ShardKey, Standing},
    state::Part,
};

/// What was found.
pub(super) struct Files {
    /// With all rows of good segments alive; a shard without a good one is empty.
    pub(super) parts: Vec<Part>,
    /// Whether the segments of all shards are those that the store says are good.
    pub(super) are_good: bool,
}

impl Files {
    /// No files at all.
    pub(super) fn none(description: &Description) -> Vec<Part> {
        let empty =
            |_: ShardKey, dim: usize| Shard::loaded(Segment::empty(dim), Standing::default());
        parts(description, empty)
    }

    /// Opens the good files in the folder of a collection, and removes all others.
    pub(super) fn open(
        dir: &Path,
        description: &Description,
        core: &Core,
    ) -> Result<Self, EngineError> {
        let keys = keys(description);
        let said: Vec<Option<Sealed>> = keys
            .iter()
            .map(|(key, _)| marks::sealed(core.store.as_ref(), description.number, *key))
            .collect::<Result<_, _>>()?;
        let path = |(key, sealed): (&(ShardKey, usize), &Option<Sealed>)| {
            let sealed = sealed.filter(|sealed| sealed.head.is_some())?;
            Some(segment_file::path(dir, key.0, sealed.generation))
        };
        let good: Vec<_> = keys.iter().zip(&said).filter_map(path).collect();
        segment_file::remove_others(dir, &good);
        let opened: Vec<Shard> = keys
            .par_iter()
            .zip(&said)
            .map(|((key, dim), sealed)| {
                // Without marks, what was said once does not count any more.
                let trusted = sealed.filter(|_| description.is_marked());
                let segment = trusted.and_then(|sealed| {
                    let owner = owner(description.number, &description.spaces, *key);
                    segment(dir, *key, (sealed, &owner, *dim))
                });
                let standing = Standing {
                    generation: sealed.map_or(0, |sealed| sealed.generation),
                    kept: segment.is_some(),
                };
                let segment = segment.unwrap_or_else(|| Segment::empty(*dim));
                Shard::loaded(segment.settled(&core.budget), standing)
            })
            .collect();
        let are_good = opened.iter().all(|shard| shard.standing.kept);
        let mut opened = opened.into_iter();
        let next = |_: ShardKey, _: usize| opened.next().expect("one was opened for each key");
        Ok(Self {
            parts: parts(description, next),
            are_good,
        })
    }
}

/// The good segment; `None` when it is not there.
fn segment(
    dir: &Path,
    key: ShardKey,
    (sealed, owner, dim): (Sealed, &str, usize),
) -> Option<Segment> {
    let Some(head) = sealed.head else {
        return Some(Segment::empty(dim));
    };
    let path = segment_file::path(dir, key, sealed.generation);
    let wanted = Wanted {
        owner,
        generation: sealed.generation,
        dim,
    };
    let reason = match segment_file::read(&path, &wanted) {
        Ok(opened) if opened.head == head => return Some(opened.segment),
        Ok(_) => "it is not the one that was sealed".to_owned(),
        Err(error) if error.kind() == NotFound => "it is gone".to_owned(),
        Err(error) => error.to_string(),
    };
    let path = path.display();
    tracing::warn!("the index {path} is not usable ({reason}) and will be built again");
    None
}

/// All shards of a collection, and the dims of their rows, in the order of [`parts`].
fn keys(description: &Description) -> Vec<(ShardKey, usize)> {
    let mut keys = Vec::new();
    parts(description, |key, dim| {
        keys.push((key, dim));
        Shard::loaded(Segment::empty(dim), Standing::default())
    });
    keys
}

fn parts(description: &Description, mut shard: impl FnMut(ShardKey, usize) -> Shard) -> Vec<Part> {
    let spaces = &description.spaces;
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
            Part {
                modality,
                slot,
                shared: shard(key(Aspect::Shared), spaces.shared_dim),
                specific: spaces
                    .specific(modality)
                    .map(|space| shard(key(space.aspect), space.dim)),
            }
        })
        .collect()
}
