//! Where images and texts lie in their shared space.

use embedding::Embedding;
use rayon::prelude::*;

/// Steps of the search for principal components: enough for a plot where the third is nearly as large as
/// the second, too.
const STEPS: usize = 300;

/// Length of the difference between the mean of the images and that of the texts (Liang et al. 2022, "Mind
/// the gap"): 0 where both lie around one middle, 2 at most. Both need at least one row.
pub fn modality_gap(images: &[Embedding], texts: &[Embedding]) -> f64 {
    let (images, texts) = (mean(images), mean(texts));
    let squares = images.iter().zip(&texts).map(|(a, b)| (a - b).powi(2));
    squares.sum::<f64>().sqrt()
}

/// Mean of rows, not of unit length; empty where there are none.
pub(crate) fn mean(rows: &[Embedding]) -> Vec<f64> {
    let rows: Vec<&[f32]> = rows.iter().map(Embedding::as_slice).collect();
    middle(&rows)
}

fn middle(rows: &[&[f32]]) -> Vec<f64> {
    let mut sum = vec![0.0; rows.first().map_or(0, |row| row.len())];
    for row in rows {
        for (sum, x) in sum.iter_mut().zip(*row) {
            *sum += f64::from(*x);
        }
    }
    let n = rows.len().max(1) as f64;
    sum.into_iter().map(|x| x / n).collect()
}

/// The plane in which rows vary most: their first two principal components.
#[derive(Debug, Clone)]
pub struct Plane {
    mean: Vec<f64>,
    /// Orthonormal.
    axes: [Vec<f64>; 2],
    /// Share of all variance along each axis, the larger first.
    pub explained: [f64; 2],
}

impl Plane {
    /// By subspace iteration on the covariance, with a Rayleigh-Ritz step at the end. All rows have one
    /// length, of at least two elements. The largest element of an axis is positive, so that equal rows
    /// give equal planes.
    pub fn of(rows: &[&[f32]]) -> Self {
        let mean = middle(rows);
        let dim = mean.len();
        let covariance = covariance(rows, &mean);
        let times = |x: &[f64]| -> Vec<f64> {
            covariance
                .chunks_exact(dim)
                .map(|row| dot(row, x))
                .collect()
        };
        let start = |k: usize| (0..dim).map(|i| ((i * (k + 2) + k) as f64).sin()).collect();
        let mut axes = orthonormal([start(0), start(1)]);
        for _ in 0..STEPS {
            axes = orthonormal([times(&axes[0]), times(&axes[1])]);
        }
        // The plane is found; turned by this angle its axes are the components.
        let images = [times(&axes[0]), times(&axes[1])];
        let between = |at: usize, of: usize| dot(&axes[at], &images[of]);
        let angle = (2.0 * between(0, 1)).atan2(between(0, 0) - between(1, 1)) / 2.0;
        let (sine, cosine) = angle.sin_cos();
        let turned = |along: f64, across: f64| -> Vec<f64> {
            let pairs = axes[0].iter().zip(&axes[1]);
            upright(pairs.map(|(x, y)| along * x + across * y).collect())
        };
        let axes = [turned(cosine, sine), turned(-sine, cosine)];
        let all: f64 = covariance.iter().step_by(dim + 1).sum();
        let share = |axis: &[f64]| dot(axis, &times(axis)) / all.max(f64::MIN_POSITIVE);
        Self {
            explained: [share(&axes[0]), share(&axes[1])],
            mean,
            axes,
        }
    }

    /// Where a row lies in the plane.
    pub fn project(&self, row: &[f32]) -> (f64, f64) {
        let off: Vec<f64> = row
            .iter()
            .zip(&self.mean)
            .map(|(x, mean)| f64::from(*x) - mean)
            .collect();
        (dot(&self.axes[0], &off), dot(&self.axes[1], &off))
    }
}

/// `[dim, dim]`.
fn covariance(rows: &[&[f32]], mean: &[f64]) -> Vec<f64> {
    let dim = mean.len();
    let mut covariance = vec![0.0; dim * dim];
    let off: Vec<Vec<f64>> = rows
        .iter()
        .map(|row| {
            row.iter()
                .zip(mean)
                .map(|(x, m)| f64::from(*x) - m)
                .collect()
        })
        .collect();
    let n = rows.len().max(1) as f64;
    covariance
        .par_chunks_mut(dim.max(1))
        .enumerate()
        .for_each(|(i, line)| {
            for row in &off {
                let scale = row[i] / n;
                for (sum, x) in line.iter_mut().zip(row) {
                    *sum += scale * x;
                }
            }
        });
    covariance
}

/// Two directions at right angles and of unit length that span what was given; where that is less than a
/// plane, others fill it up.
fn orthonormal([first, second]: [Vec<f64>; 2]) -> [Vec<f64>; 2] {
    let unit = |x: Vec<f64>| {
        let length = dot(&x, &x).sqrt();
        (length > 1e-150).then(|| x.iter().map(|x| x / length).collect::<Vec<f64>>())
    };
    let axis = |dim: usize, at: usize| (0..dim).map(|i| f64::from(u8::from(i == at))).collect();
    let dim = first.len();
    let first = unit(first).unwrap_or_else(|| axis(dim, 0));
    let without = |mut x: Vec<f64>| {
        // Twice, since the first pass leaves rounding behind.
        for _ in 0..2 {
            let along = dot(&first, &x);
            x.iter_mut().zip(&first).for_each(|(x, f)| *x -= along * f);
        }
        x
    };
    // At least one of two axes is not along the first.
    let spare = || (0..2).find_map(|at| unit(without(axis(dim, at))));
    let second = unit(without(second)).or_else(spare).unwrap_or_default();
    [first, second]
}

fn upright(mut axis: Vec<f64>) -> Vec<f64> {
    let largest = axis
        .iter()
        .copied()
        .max_by(|a, b| a.abs().total_cmp(&b.abs()));
    if largest.is_some_and(|x| x < 0.0) {
        for x in &mut axis {
            *x = -*x;
        }
    }
    axis
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Bins of a histogram of cosines, from -1 to 1.
pub const BINS: usize = 100;

/// How often cosines fall into each bin.
#[derive(Debug, Clone, PartialEq)]
pub struct Cosines {
    counts: Vec<u64>,
    sum: f64,
}

impl Default for Cosines {
    fn default() -> Self {
        Self {
            counts: vec![0; BINS],
            sum: 0.0,
        }
    }
}

impl Cosines {
    fn add(&mut self, cosine: f32) {
        let cosine = f64::from(cosine).clamp(-1.0, 1.0);
        let bin = (f64::midpoint(cosine, 1.0) * BINS as f64) as usize;
        self.counts[bin.min(BINS - 1)] += 1;
        self.sum += cosine;
    }

    fn merge(mut self, other: &Self) -> Self {
        let pairs = self.counts.iter_mut().zip(&other.counts);
        pairs.for_each(|(count, more)| *count += more);
        self.sum += other.sum;
        self
    }

    /// Number of cosines.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Their mean; 0 of none.
    pub fn mean(&self) -> f64 {
        self.sum / self.count().max(1) as f64
    }

    /// Share of all in each bin.
    pub fn shares(&self) -> Vec<f64> {
        let all = self.count().max(1) as f64;
        self.counts
            .iter()
            .map(|count| *count as f64 / all)
            .collect()
    }
}

/// Cosines of each image with its own text, and with those of others; text `i` is that of image `i`.
pub fn cosines(images: &[Embedding], texts: &[Embedding]) -> [Cosines; 2] {
    let of_image = |(i, image): (usize, &Embedding)| {
        let mut found = [Cosines::default(), Cosines::default()];
        for (j, text) in texts.iter().enumerate() {
            found[usize::from(i != j)].add(image.cosine(text));
        }
        found
    };
    // In the order of the images, so that sums do not depend on the number of threads.
    let found: Vec<[Cosines; 2]> = images.par_iter().enumerate().map(of_image).collect();
    let none = [Cosines::default(), Cosines::default()];
    found.iter().fold(none, |[own, others], found| {
        [own.merge(&found[0]), others.merge(&found[1])]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(degrees: f32) -> Embedding {
        let angle = degrees.to_radians();
        Embedding::normalized(vec![angle.cos(), angle.sin()]).expect("a unit row")
    }

    #[test]
    fn the_gap_is_the_distance_of_the_means() {
        let gap = modality_gap(&[at(0.0)], &[at(90.0)]);
        assert!((gap - 2.0_f64.sqrt()).abs() < 1e-6, "{gap}");
        // Means are (1/2, 1/2) and (-1/2, -1/2).
        let gap = modality_gap(&[at(0.0), at(90.0)], &[at(180.0), at(270.0)]);
        assert!((gap - 2.0_f64.sqrt()).abs() < 1e-6, "{gap}");
        let all = [at(10.0), at(50.0)];
        assert!(modality_gap(&all, &[at(50.0), at(10.0)]) < 1e-7);
    }

    #[test]
    fn the_plane_is_that_of_the_largest_deviations() {
        // Deviations 3, 2 and 1 along an orthonormal basis that is along no axis, around a middle.
        let basis = [
            [2.0 / 3.0, 2.0 / 3.0, 1.0 / 3.0],
            [-2.0 / 3.0, 1.0 / 3.0, 2.0 / 3.0],
            [1.0 / 3.0, -2.0 / 3.0, 2.0 / 3.0],
        ];
        let mut rows: Vec<Vec<f32>> = Vec::new();
        for (axis, length) in basis.iter().zip([3.0_f32, 2.0, 1.0]) {
            for sign in [-1.0, 1.0] {
                rows.push(axis.iter().map(|x| 5.0 + sign * length * x).collect());
            }
        }
        let plane = Plane::of(&rows.iter().map(Vec::as_slice).collect::<Vec<_>>());
        let expected = [9.0 / 14.0, 4.0 / 14.0];
        for (found, expected) in plane.explained.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-6, "{:?}", plane.explained);
        }
        let (x, y) = plane.project(&rows[1]);
        assert!((x.abs() - 3.0).abs() < 1e-5 && y.abs() < 1e-5, "{x}, {y}");
        let (x, y) = plane.project(&rows[3]);
        assert!(x.abs() < 1e-5 && (y.abs() - 2.0).abs() < 1e-5, "{x}, {y}");
        let (x, y) = plane.project(&rows[4]);
        assert!(x.abs() < 1e-5 && y.abs() < 1e-5, "{x}, {y}");
    }

    #[test]
    fn rows_that_vary_along_a_line_or_not_at_all_have_a_plane_too() {
        let line: Vec<[f32; 2]> = (0..5).map(|i| [i as f32, 0.0]).collect();
        let rows: Vec<&[f32]> = line.iter().map(<[f32; 2]>::as_slice).collect();
        let plane = Plane::of(&rows);
        assert!((plane.explained[0] - 1.0).abs() < 1e-9 && plane.explained[1].abs() < 1e-9);
        assert!((plane.project(&[4.0, 0.0]).0 - 2.0).abs() < 1e-9);
        let plane = Plane::of(&[rows[1], rows[1]]);
        assert!(plane.explained.iter().all(|share| share.abs() < 1e-9));
        assert!(plane.project(rows[1]).0.abs() < 1e-9);
    }

    #[test]
    fn own_and_other_cosines_are_told_apart() {
        let images = [at(0.0), at(90.0), at(180.0)];
        let [own, others] = cosines(&images, &images);
        assert_eq!((own.count(), others.count()), (3, 6));
        assert!((own.mean() - 1.0).abs() < 1e-6, "{own:?}");
        // Right angles four times, and opposite directions twice.
        assert!(
            (others.mean() + 1.0 / 3.0).abs() < 1e-6,
            "{}",
            others.mean()
        );
        assert!((own.shares()[BINS - 1] - 1.0).abs() < 1e-12);
        assert!((others.shares()[0] - 1.0 / 3.0).abs() < 1e-12);
    }
}
