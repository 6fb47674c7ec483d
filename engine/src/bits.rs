//! A growing row of flags, one per row of a shard.

/// Flags that start unset.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Bits {
    words: Vec<u64>,
    len: usize,
    ones: usize,
}

impl Bits {
    /// `len` flags, all unset.
    pub(crate) fn unset(len: usize) -> Self {
        Self {
            words: vec![0; len.div_ceil(64)],
            len,
            ones: 0,
        }
    }

    /// `len` flags, all set.
    pub(crate) fn all_set(len: usize) -> Self {
        let mut bits = Self::unset(len);
        for i in 0..len {
            bits.set(i);
        }
        bits
    }

    /// Number of flags.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Number of flags that are set.
    pub(crate) fn ones(&self) -> usize {
        self.ones
    }

    /// Number of flags before `end` that are set.
    pub(crate) fn ones_below(&self, end: usize) -> usize {
        if self.ones == 0 {
            return 0;
        }
        let (whole, rest) = (end / 64, end % 64);
        let ones = |words: &[u64]| words.iter().map(|word| word.count_ones() as usize).sum();
        let before: usize = ones(&self.words[..whole]);
        let last = self
            .words
            .get(whole)
            .map_or(0, |word| word & ((1 << rest) - 1));
        before + last.count_ones() as usize
    }

    /// Flag `i`; unset beyond the end.
    pub(crate) fn get(&self, i: usize) -> bool {
        self.words
            .get(i / 64)
            .is_some_and(|word| word >> (i % 64) & 1 == 1)
    }

    /// Adds unset flags at the end.
    pub(crate) fn grow(&mut self, by: usize) {
        self.len += by;
        self.words.resize(self.len.div_ceil(64), 0);
    }

    /// Sets flag `i`, which must exist.
    pub(crate) fn set(&mut self, i: usize) {
        debug_assert!(i < self.len, "flag {i} of {}", self.len);
        if !self.get(i) {
            self.words[i / 64] |= 1 << (i % 64);
            self.ones += 1;
        }
    }

    /// Unsets flag `i`, which must exist.
    pub(crate) fn clear(&mut self, i: usize) {
        if self.get(i) {
            self.words[i / 64] &= !(1 << (i % 64));
            self.ones -= 1;
        }
    }

    /// Positions below `end` that are set, in order.
    pub(crate) fn set_below(&self, end: usize) -> impl Iterator<Item = usize> + '_ {
        const NONE: &Bits = &Bits {
            words: Vec::new(),
            len: 0,
            ones: 0,
        };
        self.newly_set(NONE, end)
    }

    /// Positions below `end` that are set here and not in `before`, in order.
    pub(crate) fn newly_set<'a>(
        &'a self,
        before: &'a Self,
        end: usize,
    ) -> impl Iterator<Item = usize> + 'a {
        (0..self.words.len().min(end.div_ceil(64))).flat_map(move |w| {
            let mut word = self.words[w] & !before.words.get(w).copied().unwrap_or(0);
            std::iter::from_fn(move || {
                let bit = word.trailing_zeros() as usize;
                let more = word != 0;
                word &= word.wrapping_sub(1);
                more.then_some(w * 64 + bit)
            })
            .take_while(move |i| *i < end)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_count_and_differ_as_a_plain_list_would() {
        let mut before = Bits::unset(100);
        before.set(3);
        before.set(3);
        let mut after = before.clone();
        after.grow(60);
        for i in [4, 63, 64, 99, 100, 159] {
            after.set(i);
        }
        assert_eq!((before.ones(), after.ones(), after.len()), (1, 7, 160));
        assert_eq!(
            after.newly_set(&before, 100).collect::<Vec<_>>(),
            [4, 63, 64, 99]
        );
        assert_eq!(after.set_below(100).collect::<Vec<_>>(), [3, 4, 63, 64, 99]);
        assert_eq!((after.ones_below(0), after.ones_below(100)), (0, 5));
        assert_eq!((after.ones_below(64), after.ones_below(160)), (3, 7));
        after.clear(64);
        assert!(!after.get(64) && after.get(63) && !after.get(1000));
        assert_eq!(Bits::all_set(65).ones(), 65);
    }
}
