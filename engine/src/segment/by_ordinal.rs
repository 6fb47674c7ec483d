//! The rows of a segment by the ordinals of their items.

use roaring::RoaringBitmap;

use crate::record::Stamp;

/// Rows in the order of their ordinals: 8 bytes for each.
#[derive(Debug)]
pub(crate) struct ByOrdinal {
    /// All ordinals.
    set: RoaringBitmap,
    /// Ascending, one for each row.
    ordinals: Vec<u32>,
    /// The row of each.
    rows: Vec<u32>,
}

impl ByOrdinal {
    pub(super) fn new(stamps: &[Stamp]) -> Self {
        let mut rows: Vec<u32> = (0..stamps.len() as u32).collect();
        rows.sort_unstable_by_key(|row| stamps[*row as usize].ordinal);
        let ordinals: Vec<u32> = rows.iter().map(|r| stamps[*r as usize].ordinal).collect();
        Self {
            set: ordinals.iter().copied().collect(),
            ordinals,
            rows,
        }
    }

    /// How many rows have one of these ordinals.
    pub(crate) fn count(&self, wanted: &RoaringBitmap) -> usize {
        self.set.intersection_len(wanted) as usize
    }

    /// The rows that have one of these ordinals, in the order of ordinals.
    pub(crate) fn find(&self, wanted: &RoaringBitmap) -> Vec<u32> {
        let here = &self.set & wanted;
        let mut found = Vec::with_capacity(here.len() as usize);
        let mut at = 0;
        for wanted in &here {
            at += below(&self.ordinals[at..], wanted);
            // An item that was deleted may have left its ordinal to another one in this segment.
            while self.ordinals.get(at) == Some(&wanted) {
                found.push(self.rows[at]);
                at += 1;
            }
        }
        found
    }
}

/// How many of these ascending numbers are below the limit. The next one wanted is mostly near, so
/// steps that double are faster than halves of all.
fn below(ascending: &[u32], limit: u32) -> usize {
    let mut end = 1;
    while ascending.get(end - 1).is_some_and(|first| *first < limit) {
        end *= 2;
    }
    let start = end / 2;
    let rest = &ascending[start..ascending.len().min(end)];
    start + rest.partition_point(|number| *number < limit)
}

#[cfg(test)]
mod tests {
    use embedding::mix;

    use super::*;

    #[test]
    fn the_rows_found_are_those_that_a_look_at_each_row_finds() {
        for (len, most) in [(0, 10), (1, 3), (50, 60), (3000, 4000), (3000, 100_000)] {
            // Some ordinals come twice.
            let stamp = |i: u64| Stamp {
                embeddings: [0; 8],
                ordinal: (mix(i) % most) as u32,
            };
            let stamps: Vec<Stamp> = (0..len).map(stamp).collect();
            let by_ordinal = ByOrdinal::new(&stamps);
            for one_in in [1, 2, 7, 100] {
                let wanted: RoaringBitmap = (0..most as u32)
                    .filter(|o| mix(!u64::from(*o)).is_multiple_of(one_in))
                    .collect();
                let mut found = by_ordinal.find(&wanted);
                found.sort_unstable();
                let matches = |row: &u32| wanted.contains(stamps[*row as usize].ordinal);
                let expected: Vec<u32> = (0..len as u32).filter(matches).collect();
                assert_eq!(found, expected, "{len} rows, one in {one_in} ordinals");
                assert!(by_ordinal.count(&wanted) <= expected.len());
                let distinct = stamps.iter().map(|stamp| stamp.ordinal);
                let distinct: RoaringBitmap = distinct.filter(|o| wanted.contains(*o)).collect();
                assert_eq!(by_ordinal.count(&wanted) as u64, distinct.len());
            }
        }
    }
}
