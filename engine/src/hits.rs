//! From found rows to hits: what a search shows of an item comes from its record, which is checked.
//!
//! An open does not read the records of items under a segment, nor all rows of it. What is damaged
//! among them is noticed here at the latest: it is put right or put aside, and the search begins
//! again, so that nobody sees less than there is.

use crate::{
    EngineError, Explained, Hit, ItemId, ItemMeta, SearchRequest,
    collection::Collection,
    searching::{self, Nearest},
};

/// How often a search begins again since a record was damaged. Then it leaves out what it finds
/// damaged: a store may be damaged all over.
const TRIES: usize = 8;

impl Collection {
    /// The nearest items, best first, ties by id. An item whose record is damaged is left out, and
    /// counted in [`crate::Stats::damaged_items`].
    ///
    /// # Errors
    /// When the query comes from another model or has another dim, when its space holds no items
    /// of the target, when the filter does not fit the declared fields, or when the store fails.
    pub fn search(&self, request: &SearchRequest) -> Result<Vec<Hit>, EngineError> {
        for _ in 1..TRIES {
            let nearest = searching::nearest(self, request)?;
            if let Shown::All(hits) = self.hits(nearest)? {
                return Ok(hits);
            }
        }
        let nearest = searching::nearest(self, request)?;
        Ok(self.hits(nearest)?.hits())
    }

    /// The same hits as from [`Collection::search`], and how they were found.
    ///
    /// # Errors
    /// As for [`Collection::search`].
    pub fn explain(&self, request: &SearchRequest) -> Result<Explained, EngineError> {
        let mut tries = 1;
        loop {
            let (nearest, matching_items, shards) = searching::explained(self, request)?;
            let shown = self.hits(nearest)?;
            if matches!(shown, Shown::All(_)) || tries == TRIES {
                return Ok(Explained {
                    hits: shown.hits(),
                    matching_items,
                    shards,
                });
            }
            tries += 1;
        }
    }

    fn hits(&self, nearest: Nearest) -> Result<Shown, EngineError> {
        let Nearest { found, filter } = nearest;
        let (mut hits, mut damaged) = (Vec::with_capacity(found.len()), false);
        for found in found {
            let id = ItemId::new(found.id)?;
            let meta = match self.read(&id, |record| record.meta(id.clone())) {
                Ok(Some(meta)) => meta,
                // A found item that is no longer in the store was deleted a moment ago.
                Ok(None) => continue,
                Err(EngineError::DamagedItem { .. }) => {
                    self.put_aside(&id)?;
                    damaged = true;
                    continue;
                }
                Err(error) => return Err(error),
            };
            // Nor is one that passed, but was changed since, and passes no more.
            if filter
                .as_ref()
                .is_some_and(|filter| !filter.passes(&meta.payload))
            {
                continue;
            }
            let ItemMeta {
                id,
                modality,
                payload,
                source,
                text,
                ..
            } = meta;
            hits.push(Hit {
                id,
                modality,
                score: found.score,
                payload,
                source,
                text,
            });
        }
        Ok(if damaged {
            Shown::Some(hits)
        } else {
            Shown::All(hits)
        })
    }
}

/// What was found, as hits.
enum Shown {
    /// All of it.
    All(Vec<Hit>),
    /// All but items whose records turned out to be damaged.
    Some(Vec<Hit>),
}

impl Shown {
    fn hits(self) -> Vec<Hit> {
        match self {
            Self::All(hits) | Self::Some(hits) => hits,
        }
    }
}
