//! Items in the order of their ids, a page at a time.

use std::num::NonZeroUsize;

use embedding::Modality;

use crate::{
    EngineError, Filter, Item, ItemId, ItemMeta, Payload, collection::Collection, record::Record,
};

/// Items that one page looks at, at most: a rare filter must not read all of a large collection in one go.
const MOST_LOOKED_AT: usize = 20_000;

/// Which items are listed.
#[derive(Debug, Clone, Default)]
pub struct ListRequest {
    /// Only those behind this id.
    pub after: Option<ItemId>,
    /// Only those that pass.
    pub filter: Option<Filter>,
    /// Only those of this modality.
    pub modality: Option<Modality>,
}

/// A page of items.
#[derive(Debug, Clone, PartialEq)]
pub struct Listing {
    /// In the order of ids, without their embeddings.
    pub items: Vec<ItemMeta>,
    /// Where the next page begins behind; `None` where this was the last. There may be a next one behind fewer items
    /// than were asked for, or behind none: so many had been looked at.
    pub next: Option<ItemId>,
}

impl Collection {
    /// At most `limit` items. Damaged ones are left out. Others may write meanwhile: what they add in front of the page
    /// is not seen.
    ///
    /// # Errors
    /// As for [`Collection::metas`], and when the filter does not fit the declared fields.
    pub fn list(&self, request: &ListRequest, limit: NonZeroUsize) -> Result<Listing, EngineError> {
        let ListRequest {
            after,
            filter,
            modality,
        } = request;
        let filter = filter.as_ref().map(|filter| self.check_filter(filter));
        let filter = filter.transpose()?;
        let mut items = Vec::new();
        let read = |record: &Record<'_>, id: ItemId| record.meta(id);
        for (looked_at, item) in self.each(after.clone(), read)?.enumerate() {
            let item = match item {
                Ok(item) => item,
                Err(EngineError::DamagedItem { .. }) => continue,
                Err(error) => return Err(error),
            };
            let id = item.id.clone();
            let is_of = modality.is_none_or(|modality| item.modality == modality);
            if is_of && filter.as_ref().is_none_or(|f| f.passes(&item.payload)) {
                items.push(item);
            }
            if items.len() == limit.get() || looked_at + 1 >= MOST_LOOKED_AT {
                return Ok(Listing {
                    items,
                    next: Some(id),
                });
            }
        }
        Ok(Listing { items, next: None })
    }

    /// Every item that passes a filter, with the version that it has so, in the order of ids after
    /// `after`. Others may write meanwhile.
    ///
    /// # Errors
    /// As for [`Collection::items`], and when the filter does not fit the declared fields.
    pub fn items_passing(
        &self,
        filter: Option<&Filter>,
        after: Option<ItemId>,
    ) -> Result<impl Iterator<Item = Result<(Item, u64), EngineError>> + Send + '_, EngineError>
    {
        let filter = filter.map(|filter| self.check_filter(filter)).transpose()?;
        let read = move |record: &Record<'_>, id: ItemId| {
            let passes = |payload: &Payload| filter.as_ref().is_none_or(|f| f.passes(payload));
            if !passes(&record.payload()?) {
                return Ok(None);
            }
            Ok(Some((record.item(id)?, record.version)))
        };
        Ok(self.each(after, read)?.filter_map(Result::transpose))
    }
}
