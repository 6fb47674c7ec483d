//! Rows as one byte per number, for everything but the last comparison.
//!
//! A row `x` is kept as `mean + step * code + rest` with `code` in -127 to 127. The mean of all
//! rows is taken off first: rows of one modality share a large common part (the modality gap),
//! which would waste most of the range, and which adds the same to the scores of all rows. The
//! length of each rest is kept, so that a scan over codes knows how wrong it can be and the exact
//! scan stays exact.

use super::{
    Rows,
    code_rows::{CodeRows, stride},
    kernel::{self, CODE_MAX, Kernel, Task},
};
use crate::{background, column::Column};

/// Rows whose largest number is above this share of all such are cut off rather than to coarsen
/// the code for all.
const CUT_SHARE: f64 = 0.999;
/// Relative rounding error of a dot product in f32, generously.
const ROUNDING: f32 = 1e-5;

/// Coded rows, `[len, stride]`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Codes {
    /// Numbers per row, before padding.
    pub(crate) dim: usize,
    /// Mean of all rows, `[dim]`.
    pub(crate) mean: Vec<f32>,
    /// What one unit of a code stands for.
    pub(crate) step: f32,
    /// Length of the longest row after the mean is taken off.
    pub(crate) span: f32,
    /// `[len]` rows of `dim` codes.
    pub(crate) rows: CodeRows,
    /// Length of the rest of each row, `[len]`.
    pub(crate) rests: Column<f32>,
}

/// A query, coded with a step of its own.
#[derive(Debug, Clone)]
pub(crate) struct CodedQuery {
    /// `[stride]`.
    pub(crate) codes: Vec<i8>,
    /// Sum of the codes.
    pub(crate) sum: i32,
    /// Score of one unit of a product of codes.
    unit: f32,
    /// Score of the mean.
    offset: f32,
    /// Length of the query.
    length: f32,
    /// Length of the rest of the query.
    rest: f32,
}

impl Codes {
    /// Codes all rows.
    pub(crate) fn new(rows: &Rows) -> Self {
        let dim = rows.dim();
        let mean = mean(rows);
        let mut centered = vec![0.0; dim];
        let mut largest: Vec<f32> = (0..rows.len())
            .map(|i| {
                background::stops();
                center(rows.row(i), &mean, &mut centered);
                centered.iter().fold(0.0, |most: f32, x| most.max(x.abs()))
            })
            .collect();
        let at = (largest.len() as f64 * CUT_SHARE) as usize;
        let at = at.min(largest.len().saturating_sub(1));
        let cut = if largest.is_empty() {
            0.0
        } else {
            *largest.select_nth_unstable_by(at, f32::total_cmp).1
        };
        let step = step(cut);
        let stride = stride(dim);
        let mut codes = vec![0; rows.len() * stride];
        let mut rests = Vec::with_capacity(rows.len());
        let mut span: f32 = 0.0;
        for (i, codes) in codes.chunks_exact_mut(stride).enumerate() {
            background::stops();
            center(rows.row(i), &mean, &mut centered);
            span = span.max(length(&centered));
            encode(&mut centered, step, codes);
            rests.push(length(&centered));
        }
        Self {
            dim,
            mean,
            step,
            span,
            rows: CodeRows::new(dim, codes.into()).expect("whole rows were coded"),
            rests: rests.into(),
        }
    }

    /// Number of rows.
    pub(crate) fn len(&self) -> usize {
        self.rests.len()
    }

    /// Codes of row `i`.
    #[inline(always)]
    pub(crate) fn row(&self, i: u32) -> &[i8] {
        self.rows.row(i)
    }

    /// These rows in this order. Of rows that stand together as one, the longest rest counts.
    pub(crate) fn arranged(&self, groups: &[&[u32]]) -> Self {
        let rest = |group: &&[u32]| {
            let rests = group.iter().map(|i| self.rests[*i as usize]);
            rests.fold(0.0, f32::max)
        };
        let rests: Vec<f32> = groups.iter().map(rest).collect();
        Self {
            mean: self.mean.clone(),
            rows: self.rows.arranged(groups.iter().map(|group| group[0])),
            rests: rests.into(),
            ..*self
        }
    }

    /// Codes a query.
    pub(crate) fn query(&self, query: &[f32]) -> CodedQuery {
        /// For the sake of the processor's widest instructions: short searches take as long for
        /// this as for anything else.
        struct OfQuery<'a>(&'a Codes, &'a [f32]);

        impl Task for OfQuery<'_> {
            type Output = CodedQuery;

            #[inline(always)]
            fn run<K: Kernel>(self, kernel: K) -> CodedQuery {
                let Self(codes, query) = self;
                let mut largest: f32 = 0.0;
                for x in query {
                    largest = largest.max(x.abs());
                }
                let step = step(largest);
                let mut numbers = query.to_vec();
                let mut coded = vec![0; codes.rows.stride()];
                encode(&mut numbers, step, &mut coded);
                CodedQuery {
                    sum: kernel::sum(&coded),
                    codes: coded,
                    unit: step * codes.step,
                    offset: kernel.dot(query, &codes.mean),
                    length: kernel.dot(query, query).sqrt(),
                    rest: kernel.dot(&numbers, &numbers).sqrt(),
                }
            }
        }

        kernel::run(OfQuery(self, query))
    }

    /// Whether the parts fit together.
    pub(crate) fn is_sound(&self) -> bool {
        self.dim > 0
            && self.mean.len() == self.dim
            && self.rows.stride() == stride(self.dim)
            && self.rows.len() == self.rests.len()
    }
}

impl CodedQuery {
    /// Score of a row by its product of codes, at most [`Self::error`] off.
    #[inline(always)]
    pub(crate) fn score(&self, product: i32) -> f32 {
        self.offset + self.unit * product as f32
    }

    /// Product of a row's codes with those of the query.
    #[inline(always)]
    pub(crate) fn product<K: Kernel>(&self, kernel: K, row: &[i8]) -> i32 {
        kernel.dot_codes(row, &self.codes, self.sum)
    }

    /// By how much the score from codes can be off: with `x = mean + coded + rest` and
    /// `q = q_coded + q_rest`, it leaves out `q . rest + q_rest . coded` (Cauchy and Schwarz).
    #[inline(always)]
    pub(crate) fn error(&self, codes: &Codes, rest: f32) -> f32 {
        self.length * rest + self.rest * (codes.span + rest) + ROUNDING
    }

    /// By how much the score from codes is off, as a deviation: rests point anywhere, and hardly
    /// ever along what they are multiplied with.
    #[inline(always)]
    pub(crate) fn deviation(&self, codes: &Codes) -> f32 {
        // A rest is spread evenly over one step for each number.
        self.length * codes.step * 12_f32.sqrt().recip()
            + self.rest * codes.span * (codes.dim as f32).sqrt().recip()
    }
}

fn mean(rows: &Rows) -> Vec<f32> {
    let mut sums = vec![0.0_f64; rows.dim()];
    for i in 0..rows.len() {
        for (sum, x) in sums.iter_mut().zip(rows.row(i)) {
            *sum += f64::from(*x);
        }
    }
    let count = rows.len().max(1) as f64;
    sums.iter().map(|sum| (sum / count) as f32).collect()
}

fn center(row: &[f32], mean: &[f32], centered: &mut [f32]) {
    for ((to, x), m) in centered.iter_mut().zip(row).zip(mean) {
        *to = x - m;
    }
}

/// The step at which the largest number still has a code.
#[inline(always)]
pub(super) fn step(largest: f32) -> f32 {
    if largest > 0.0 {
        largest / f32::from(CODE_MAX)
    } else {
        1.0
    }
}

/// Writes the codes of `numbers`, and leaves their rest in place.
#[inline(always)]
pub(super) fn encode(numbers: &mut [f32], step: f32, codes: &mut [i8]) {
    let most = f32::from(CODE_MAX);
    for (x, code) in numbers.iter_mut().zip(codes) {
        let units = (*x / step).round_ties_even().clamp(-most, most);
        *code = units as i8;
        *x -= step * units;
    }
}

fn length(numbers: &[f32]) -> f32 {
    let square: f64 = numbers.iter().map(|x| f64::from(*x) * f64::from(*x)).sum();
    square.sqrt() as f32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::{kernel::Portable, rows::clustered};

    #[test]
    fn a_score_from_codes_is_never_further_off_than_it_says() {
        // A row far from the others is cut off and says so.
        let mut rows = clustered(2000, 100, 20, 3, 1);
        let mut far = vec![0.0; 100];
        far[7] = -1.0;
        rows.push(&far);
        let codes = Codes::new(&rows);
        let queries = clustered(20, 100, 20, 4, 1);
        let mut worst: f32 = 0.0;
        for q in 0..queries.len() {
            let query = codes.query(queries.row(q));
            for i in 0..rows.len() {
                let exact: f64 = queries
                    .row(q)
                    .iter()
                    .zip(rows.row(i))
                    .map(|(a, b)| f64::from(*a) * f64::from(*b))
                    .sum();
                let score = query.score(query.product(Portable, codes.row(i as u32)));
                let off = (f64::from(score) - exact).abs() as f32;
                let bound = query.error(&codes, codes.rests[i]);
                assert!(off <= bound, "row {i} is {off} off, said at most {bound}");
                if i < 2000 {
                    worst = worst.max(bound);
                }
            }
        }
        assert!(worst < 0.05, "the bound {worst} is of use");
    }

    #[test]
    fn no_row_and_equal_rows_are_coded_too() {
        let none = Codes::new(&Rows::new(3));
        assert!(none.is_sound() && none.len() == 0);
        let mut same = Rows::new(3);
        (0..4).for_each(|_| same.push(&[0.6, 0.0, 0.8]));
        let codes = Codes::new(&same);
        assert_eq!((codes.len(), codes.rows.stride()), (4, 64));
        let query = codes.query(&[0.0, 0.0, 1.0]);
        let score = query.score(query.product(Portable, codes.row(3)));
        assert!((score - 0.8).abs() < 1e-6, "{score}");
    }
}
