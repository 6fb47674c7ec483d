//! Short codes, which a walk compares in place of the whole ones: rows along the few directions in
//! which they differ most.
//!
//! Embeddings of real models spread along far fewer directions than they have numbers. A walk
//! compares the query with hundreds of rows to find ten, and waits for memory most of that time;
//! the leading principal components of the rows tell almost all of them apart, and take a quarter
//! of the memory or less (Tepper et al. 2023, `LeanVec`, section 3, for queries of the rows' own
//! distribution). What the walk brings home is compared again by whole codes, and the best of it
//! in full, so that scores are as exact as without.

use embedding::mix;

use super::{
    code_rows::{CodeRows, stride},
    codes::{CodedQuery, encode, step},
    kernel::{self, Kernel, Task},
};
use crate::{background, column::Column};

/// Short codes come in whole cache lines.
const LINE: usize = 64;
/// Part of the rows' variance that short codes must keep.
const LEAST_KEPT: f64 = 0.8;
/// Whole codes are used where short ones would have more than one in so many numbers.
const LEAST_SAVED: usize = 2;
/// Most directions, and the largest dim that has short codes at all: to find the directions takes
/// time with the cube of these, and `[dim, dim]` numbers of memory.
const MOST_DIRECTIONS: usize = 256;
const MOST_DIM: usize = 2048;
/// Rows from which the directions are taken, at most. Their products fit into 32 bits.
const SAMPLE: usize = 8192;
/// Products of the sample's numbers, at most: rows of large dims are sampled more thinly.
const SAMPLE_WORK: usize = 1 << 32;
/// Turns of the power iteration. More change nothing that counts.
const TURNS: usize = 8;

/// Short codes of all nodes, and what makes those of a query.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ShortCodes {
    /// Orthonormal, coded with a step for each: `[short, dim]`.
    directions: CodeRows,
    /// What one unit of each direction's code stands for, `[short]`.
    units: Vec<f32>,
    /// `[nodes]` rows of `short` codes.
    rows: CodeRows,
}

impl ShortCodes {
    /// Short codes for these rows of `dim` whole ones; `None` where they would not be short, tell
    /// too little, or take long to find.
    pub(crate) fn new(dim: usize, whole: &CodeRows) -> Option<Self> {
        let most = (dim / LEAST_SAVED / LINE * LINE).min(MOST_DIRECTIONS);
        if most == 0 || dim > MOST_DIM || whole.len() <= most {
            return None;
        }
        let products = Products::of_sample(dim, whole);
        let directions = products.leading(most, LEAST_KEPT)?;
        let (directions, units) = coded(dim, &directions);
        let mut short = Self {
            rows: CodeRows::new(units.len(), Column::default())?,
            directions,
            units,
        };
        short.rows = kernel::run(Shorten {
            short: &short,
            whole,
        })?;
        Some(short)
    }

    /// Puts together what was kept; `None` when the parts do not fit together.
    pub(crate) fn from_parts(
        dim: usize,
        directions: Column<i8>,
        units: &[f32],
        rows: Column<i8>,
    ) -> Option<Self> {
        let directions = CodeRows::new(dim, directions)?;
        let rows = CodeRows::new(units.len(), rows)?;
        let fits = directions.len() == units.len() && units.len() == rows.stride();
        fits.then(|| Self {
            directions,
            units: units.to_vec(),
            rows,
        })
    }

    /// Directions, units and rows, as [`Self::from_parts`] takes them.
    pub(crate) fn parts(&self) -> (&[i8], &[f32], &[i8]) {
        (self.directions.data(), &self.units, self.rows.data())
    }

    /// `[nodes]` rows.
    pub(crate) fn rows(&self) -> &CodeRows {
        &self.rows
    }

    /// Bytes of all parts.
    pub(crate) fn bytes(&self) -> usize {
        let (directions, units, rows) = self.parts();
        directions.len() + size_of_val(units) + rows.len()
    }

    /// The nodes in another order.
    pub(crate) fn arranged(&self, order: &[u32]) -> Self {
        Self {
            rows: self.rows.arranged(order.iter().copied()),
            ..self.clone()
        }
    }

    /// The same with the rows in memory of their own.
    pub(crate) fn settled(&self) -> Self {
        Self {
            rows: self.rows.settled(),
            ..self.clone()
        }
    }

    /// A query in short codes, and their sum.
    #[inline(always)]
    pub(crate) fn query<K: Kernel>(&self, kernel: K, query: &CodedQuery) -> (Vec<i8>, i32) {
        let mut along = vec![0.0; self.units.len()];
        self.along(kernel, (&query.codes, query.sum), &mut along);
        let largest = along.iter().fold(0.0, |most: f32, x| most.max(x.abs()));
        let mut codes = vec![0; along.len()];
        encode(&mut along, step(largest), &mut codes);
        let sum = kernel::sum(&codes);
        (codes, sum)
    }

    #[inline(always)]
    fn along_row<K: Kernel>(&self, kernel: K, codes: &[i8], along: &mut [f32]) {
        self.along(kernel, (codes, kernel::sum(codes)), along);
    }

    /// How far a row of whole codes goes along each direction, in units of its codes.
    #[inline(always)]
    fn along<K: Kernel>(&self, kernel: K, (codes, sum): (&[i8], i32), along: &mut [f32]) {
        for (i, (to, unit)) in (0..).zip(along.iter_mut().zip(&self.units)) {
            *to = unit * kernel.dot_codes(self.directions.row(i), codes, sum) as f32;
        }
    }
}

/// Makes the short codes of all rows.
struct Shorten<'a> {
    short: &'a ShortCodes,
    whole: &'a CodeRows,
}

impl Task for Shorten<'_> {
    type Output = Option<CodeRows>;

    #[inline(always)]
    fn run<K: Kernel>(self, kernel: K) -> Option<CodeRows> {
        let Self { short, whole } = self;
        let count = short.units.len();
        let mut along = vec![0.0; count];
        // The step is taken from a sample; the few numbers that are larger are cut off.
        let mut largest = Vec::new();
        for i in sample(whole.len(), SAMPLE) {
            short.along_row(kernel, whole.row(i as u32), &mut along);
            largest.push(along.iter().fold(0.0, |most: f32, x| most.max(x.abs())));
        }
        let at = largest.len() * 999 / 1000;
        let step = step(*largest.select_nth_unstable_by(at, f32::total_cmp).1);
        let mut codes = vec![0; whole.len() * count];
        for (i, codes) in codes.chunks_exact_mut(count).enumerate() {
            background::stops();
            short.along_row(kernel, whole.row(i as u32), &mut along);
            encode(&mut along, step, codes);
        }
        CodeRows::new(count, codes.into())
    }
}

/// Sums of products of the numbers of a sample of rows, `[dim, dim]`.
struct Products {
    dim: usize,
    sums: Vec<f32>,
}

impl Products {
    fn of_sample(dim: usize, whole: &CodeRows) -> Self {
        /// Products of columns, for which the sample is laid out by columns.
        struct OfColumns<'a>(&'a CodeRows, usize);

        impl Task for OfColumns<'_> {
            type Output = Vec<f32>;

            #[inline(always)]
            fn run<K: Kernel>(self, kernel: K) -> Vec<f32> {
                let Self(columns, dim) = self;
                let mut sums = vec![0.0; dim * dim];
                for i in 0..dim {
                    background::stops();
                    let column = columns.row(i as u32);
                    let sum = kernel::sum(column);
                    for j in 0..=i {
                        let product = kernel.dot_codes(columns.row(j as u32), column, sum);
                        sums[i * dim + j] = product as f32;
                        sums[j * dim + i] = product as f32;
                    }
                }
                sums
            }
        }

        let most = (SAMPLE_WORK / (dim * dim)).clamp(2 * dim, SAMPLE);
        let rows: Vec<usize> = sample(whole.len(), most).collect();
        let tall = stride(rows.len());
        let mut columns = vec![0; dim * tall];
        for (at, row) in rows.into_iter().enumerate() {
            for (i, code) in whole.row(row as u32)[..dim].iter().enumerate() {
                columns[i * tall + at] = *code;
            }
        }
        let columns = CodeRows::new(tall, columns.into()).expect("whole columns");
        Self {
            dim,
            sums: kernel::run(OfColumns(&columns, dim)),
        }
    }

    /// The fewest leading directions, in whole cache lines and at most `most`, that keep this part
    /// of the variance; `None` where even the most do not. Orthonormal, `[short][dim]`.
    fn leading(&self, most: usize, least_kept: f64) -> Option<Vec<Vec<f32>>> {
        let total: f64 = (0..self.dim)
            .map(|i| f64::from(self.sums[i * self.dim + i]))
            .sum();
        let mut space: Vec<Vec<f32>> = (0..most as u64).map(|i| start(self.dim, i)).collect();
        orthonormalize(&mut space);
        for _ in 0..TURNS {
            space = space.iter().map(|row| self.times(row)).collect();
            orthonormalize(&mut space);
        }
        let mut kept = 0.0;
        for (i, row) in space.iter().enumerate() {
            kept += f64::from(kernel::dot(&self.times(row), row));
            let short = i + 1;
            if short.is_multiple_of(LINE) && kept >= least_kept * total && total > 0.0 {
                space.truncate(short);
                return Some(space);
            }
        }
        None
    }

    fn times(&self, row: &[f32]) -> Vec<f32> {
        background::stops();
        let sums = self.sums.chunks_exact(self.dim);
        sums.map(|sums| kernel::dot(sums, row)).collect()
    }
}

/// Numbers without direction, always the same.
fn start(dim: usize, seed: u64) -> Vec<f32> {
    let number = |i: u64| (mix(mix(seed) ^ i) >> 40) as f32 / (1 << 24) as f32 - 0.5;
    (0..dim as u64).map(number).collect()
}

/// By Gram and Schmidt, twice for the sake of rounding. One that depends on those before becomes
/// zeros, and adds nothing.
fn orthonormalize(rows: &mut [Vec<f32>]) {
    for i in 0..rows.len() {
        let (before, rest) = rows.split_at_mut(i);
        let row = &mut rest[0];
        let length = kernel::dot(row, row).sqrt();
        for _ in 0..2 {
            for other in before.iter() {
                let along = kernel::dot(row, other);
                row.iter_mut().zip(other).for_each(|(x, o)| *x -= along * o);
            }
        }
        let left = kernel::dot(row, row).sqrt();
        let scale = if left > 1e-4 * length {
            1.0 / left
        } else {
            0.0
        };
        for x in row.iter_mut() {
            *x *= scale;
        }
    }
}

/// Directions as codes, each with a unit of its own.
fn coded(dim: usize, directions: &[Vec<f32>]) -> (CodeRows, Vec<f32>) {
    let mut codes = vec![0; directions.len() * stride(dim)];
    let mut units = Vec::with_capacity(directions.len());
    for (row, codes) in directions.iter().zip(codes.chunks_exact_mut(stride(dim))) {
        let unit = step(row.iter().fold(0.0, |most: f32, x| most.max(x.abs())));
        encode(&mut row.clone(), unit, codes);
        units.push(unit);
    }
    let codes = CodeRows::new(dim, codes.into()).expect("whole rows were coded");
    (codes, units)
}

/// Some of so many rows, evenly spread.
fn sample(rows: usize, most: usize) -> impl Iterator<Item = usize> {
    let count = rows.min(most);
    (0..count).map(move |i| i * rows / count)
}

#[cfg(test)]
mod tests;
