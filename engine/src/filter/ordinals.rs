//! Small numbers for items, so that sets of items are bitmaps.

use roaring::RoaringBitmap;

/// Which ordinals the items of a collection have. An item gets the smallest free one when it is
/// first inserted, and keeps it, in its record, until it is deleted.
#[derive(Debug, Default)]
pub(crate) struct Ordinals {
    /// Below `next`.
    free: RoaringBitmap,
    /// From here on nothing was ever taken.
    next: u64,
}

impl Ordinals {
    /// What is left when these are taken.
    pub(crate) fn without(used: &RoaringBitmap) -> Self {
        let next = used.max().map_or(0, |last| u64::from(last) + 1);
        let mut free = RoaringBitmap::new();
        if let Some(last) = used.max() {
            free.insert_range(0..=last);
            free -= used;
        }
        Self { free, next }
    }

    /// Takes one; `None` when there are no more.
    pub(crate) fn take(&mut self) -> Option<u32> {
        if let Some(first) = self.free.min() {
            self.free.remove(first);
            return Some(first);
        }
        let taken = u32::try_from(self.next).ok()?;
        self.next += 1;
        Some(taken)
    }

    /// Gives one back, when the delete of its item is durable.
    pub(crate) fn give_back(&mut self, ordinal: u32) {
        self.free.insert(ordinal);
    }

    /// All that are taken.
    pub(crate) fn taken(&self) -> RoaringBitmap {
        let mut taken = RoaringBitmap::new();
        if let Some(last) = self.next.checked_sub(1) {
            taken.insert_range(0..=last as u32);
            taken -= &self.free;
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_free_one_is_taken_and_the_last_of_all_is_the_last() {
        let used: RoaringBitmap = [0, 2, 5].into_iter().collect();
        let mut ordinals = Ordinals::without(&used);
        assert_eq!(ordinals.taken(), used);
        let taken: Vec<_> = (0..4).filter_map(|_| ordinals.take()).collect();
        assert_eq!(taken, [1, 3, 4, 6]);
        ordinals.give_back(2);
        assert_eq!(ordinals.taken().len(), 6);
        assert_eq!((ordinals.take(), ordinals.take()), (Some(2), Some(7)));
        let mut ordinals = Ordinals::without(&[u32::MAX].into_iter().collect());
        ordinals.free.clear();
        assert_eq!(ordinals.take(), None);
        assert_eq!(Ordinals::without(&RoaringBitmap::new()).take(), Some(0));
    }
}
