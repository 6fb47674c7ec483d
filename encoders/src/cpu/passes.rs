//! How sequences are divided among threads and passes, and the memory that passes reuse.

use std::ops::Range;

use parking_lot::Mutex;
use rayon::prelude::*;

use super::{Team, transformer::Transformer, workspace::Workspace};

/// Tokens of one pass, unless a single sequence has more: enough that reading the weights costs
/// little, few enough that the rows between products stay in the caches.
const PASS_ROWS: usize = 448;

/// Workspaces that wait for their next pass.
pub(super) struct Workspaces {
    free: Mutex<Vec<(usize, Workspace)>>,
}

impl Workspaces {
    pub(super) fn new() -> Self {
        Self {
            free: Mutex::new(Vec::new()),
        }
    }

    /// Runs `f` with memory for `rows` tokens.
    fn with<R>(&self, stack: &Transformer, rows: usize, f: impl FnOnce(&mut Workspace) -> R) -> R {
        let free = {
            let mut free = self.free.lock();
            let fits = free.iter().position(|(size, _)| *size >= rows);
            if let Some(i) = fits {
                Some(free.swap_remove(i))
            } else {
                // One that is too small is let go, so that there are never more than run at once.
                free.pop();
                None
            }
        };
        let (size, mut workspace) = free.unwrap_or_else(|| {
            let rows = rows.max(PASS_ROWS);
            (rows, stack.workspace(rows))
        });
        let result = f(&mut workspace);
        self.free.lock().push((size, workspace));
        result
    }

    /// Calls `pass` for ranges of sequences that together cover all of `lengths` (in tokens), with
    /// memory for them and the threads that they may use. Appends what the passes return in order.
    ///
    /// Many sequences are divided among the threads, which then never wait for each other; few go
    /// one pass after another through all threads.
    pub(super) fn run(
        &self,
        stack: &Transformer,
        lengths: &[usize],
        pass: impl Fn(Range<usize>, &mut Workspace, Team) -> Vec<f32> + Sync,
    ) -> Vec<f32> {
        let threads = rayon::current_num_threads();
        let alone = Team { threads: 1 };
        let run = |range: Range<usize>, team: Team| {
            let rows = lengths[range.clone()].iter().sum();
            self.with(stack, rows, |workspace| pass(range, workspace, team))
        };
        if threads > 1
            && lengths.len() >= threads
            && (lengths.len().is_multiple_of(threads) || lengths.len() > 4 * threads)
        {
            let parts = by_tokens(lengths, threads);
            let parts = parts.into_par_iter().with_max_len(1).map(|part| {
                let passes = in_passes(&lengths[part.clone()]);
                let passes = passes.map(|r| run(part.start + r.start..part.start + r.end, alone));
                passes.collect::<Vec<_>>().concat()
            });
            return parts.collect::<Vec<_>>().concat();
        }
        let passes: Vec<Vec<f32>> = in_passes(lengths)
            .map(|range| run(range, Team { threads }))
            .collect();
        passes.concat()
    }
}

/// `parts` ranges with about as many tokens each.
fn by_tokens(lengths: &[usize], parts: usize) -> Vec<Range<usize>> {
    let total: usize = lengths.iter().sum();
    let mut ranges = Vec::with_capacity(parts);
    let (mut start, mut seen) = (0, 0);
    for part in 1..=parts {
        let mut end = start;
        // Up to the sequence whose middle lies beyond the share.
        while end < lengths.len()
            && (part == parts || 2 * seen + lengths[end] <= 2 * total * part / parts)
        {
            seen += lengths[end];
            end += 1;
        }
        ranges.push(start..end);
        start = end;
    }
    ranges
}

/// Ranges of about the same size, each of at most [`PASS_ROWS`] tokens or one sequence.
fn in_passes(lengths: &[usize]) -> impl Iterator<Item = Range<usize>> {
    let total: usize = lengths.iter().sum();
    let share = total.div_ceil(total.div_ceil(PASS_ROWS).max(1));
    let mut start = 0;
    std::iter::from_fn(move || {
        if start == lengths.len() {
            return None;
        }
        let (mut end, mut rows) = (start, 0);
        while end < lengths.len() && (end == start || rows + lengths[end] <= share) {
            rows += lengths[end];
            end += 1;
        }
        let range = start..end;
        start = end;
        Some(range)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_cover_every_sequence_once_and_are_about_equal() {
        for lengths in [
            vec![50; 33],
            vec![1, 600, 3, 3, 900, 2],
            vec![7],
            vec![16; 500],
            vec![],
        ] {
            let cover = |ranges: Vec<Range<usize>>| {
                let all: Vec<usize> = ranges.into_iter().flatten().collect();
                assert_eq!(all, (0..lengths.len()).collect::<Vec<_>>());
            };
            cover(in_passes(&lengths).collect());
            for range in in_passes(&lengths) {
                let rows: usize = lengths[range.clone()].iter().sum();
                assert!(rows <= PASS_ROWS || range.len() == 1, "{rows}");
            }
            for parts in 1..5 {
                let ranges = by_tokens(&lengths, parts);
                cover(ranges.clone());
                let rows = |r: &Range<usize>| lengths[r.clone()].iter().sum::<usize>();
                let longest = lengths.iter().copied().max().unwrap_or(0);
                let share = lengths.iter().sum::<usize>() / parts;
                for range in &ranges {
                    assert!(
                        rows(range).abs_diff(share) <= longest,
                        "{lengths:?} {range:?}"
                    );
                }
            }
        }
    }
}
