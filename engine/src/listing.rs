//! Items in the order of their ids, a page at a time.

use std::num::NonZeroUsize;

use embedding::Modality;

use crate::{EngineError, Filter, Item, ItemId, ItemMeta, collection::Collection, record::Record};

/// Items that one page looks at, at most: a rare filter must not read all of a large collection in one go.
const MOST_LOOKED_AT: usize = 20_000;
/// Bytes of payloads and texts after which a page ends.
const MOST_BYTES: usize = 8 << 20;

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
    /// Behind which id the next page begins; `None` where this was the last. A page that has looked at 20,000 items, or holds
    /// 8 MiB of payloads and texts, ends early: it may hold fewer items than were asked for, or none, and have a next one.
    pub next: Option<ItemId>,
}

impl Collection {
    /// At most `limit` items. Those whose record is damaged are left out. Others may write meanwhile: what they add in front
    /// of the page is not seen.
    ///
    /// # Errors
    /// As for [`Collection::metas`], and when the filter does not fit the declared fields.
    pub fn list(&self, request: &ListRequest, limit: NonZeroUsize) -> Result<Listing, EngineError> {
        self.list_within(request, limit, MOST_LOOKED_AT)
    }

    pub(crate) fn list_within(
        &self,
        request: &ListRequest,
        limit: NonZeroUsize,
        most_looked_at: usize,
    ) -> Result<Listing, EngineError> {
        let ListRequest {
            after,
            filter,
            modality,
        } = request;
        let passes = self.passing(filter.as_ref())?;
        let read = move |record: &Record<'_>, id: ItemId| {
            let is_of = modality.is_none_or(|modality| record.modality == modality);
            if !(is_of && passes(record)?) {
                return Ok((id, None));
            }
            Ok((id.clone(), Some((record.meta(id)?, record.words_bytes()))))
        };
        let mut items = Vec::new();
        let (mut bytes, mut looked_at, mut last) = (0, 0, None);
        for entry in self.each(after.clone(), read)? {
            // There is a next page where there is a next item.
            if items.len() == limit.get() || looked_at >= most_looked_at || bytes >= MOST_BYTES {
                return Ok(Listing { items, next: last });
            }
            looked_at += 1;
            match entry {
                Ok((id, found)) => {
                    last = Some(id);
                    if let Some((item, size)) = found {
                        bytes += size;
                        items.push(item);
                    }
                }
                Err(EngineError::DamagedItem { id, .. }) => last = ItemId::new(id).ok().or(last),
                Err(error) => return Err(error),
            }
        }
        Ok(Listing { items, next: None })
    }

    /// Whether a record passes a filter.
    fn passing(
        &self,
        filter: Option<&Filter>,
    ) -> Result<impl Fn(&Record<'_>) -> Result<bool, String> + Send + use<>, EngineError> {
        let filter = filter.map(|filter| self.check_filter(filter)).transpose()?;
        Ok(move |record: &Record<'_>| match &filter {
            Some(filter) => Ok(filter.passes(&record.payload()?)),
            None => Ok(true),
        })
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
        let passes = self.passing(filter)?;
        let read = move |record: &Record<'_>, id: ItemId| {
            if !passes(record)? {
                return Ok(None);
            }
            Ok(Some((record.item(id)?, record.version)))
        };
        Ok(self.each(after, read)?.filter_map(Result::transpose))
    }
}
