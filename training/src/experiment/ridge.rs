//! A linear head in closed form, to see what features hold.

/// Weights by class `[classes][dim + 1]`, the last being the constant.
pub struct Ridge {
    weights: Vec<Vec<f64>>,
}

impl Ridge {
    /// The head that minimizes squared error to one-hot classes plus `penalty` times the squared length of
    /// its weights, constants included (Hoerl, Kennard 1970, equation 2.1).
    pub fn fit(rows: &[Vec<f32>], labels: &[usize], classes: usize, penalty: f64) -> Self {
        let dim = rows.first().map_or(0, Vec::len) + 1;
        let mut gram = vec![vec![0.0; dim]; dim];
        let mut targets = vec![vec![0.0; dim]; classes];
        for (row, label) in rows.iter().zip(labels) {
            let row = extended(row);
            for (i, x) in row.iter().enumerate() {
                for (sum, y) in gram[i].iter_mut().zip(&row) {
                    *sum += x * y;
                }
                targets[*label][i] += x;
            }
        }
        for (i, row) in gram.iter_mut().enumerate() {
            row[i] += penalty;
        }
        factor(&mut gram);
        let weights = targets.into_iter().map(|t| solve(&gram, t)).collect();
        Self { weights }
    }

    /// Share of rows whose label is their class of the highest score.
    pub fn accuracy(&self, rows: &[Vec<f32>], labels: &[usize]) -> f64 {
        let right = rows.iter().zip(labels).filter(|(row, label)| {
            let row = extended(row);
            let score = |w: &Vec<f64>| -> f64 { w.iter().zip(&row).map(|(w, x)| w * x).sum() };
            let scores = self.weights.iter().map(score).enumerate();
            let best = scores.max_by(|a, b| a.1.total_cmp(&b.1));
            best.is_some_and(|(class, _)| class == **label)
        });
        right.count() as f64 / rows.len() as f64
    }
}

fn extended(row: &[f32]) -> Vec<f64> {
    row.iter().map(|x| f64::from(*x)).chain([1.0]).collect()
}

/// Cholesky's factor in the lower triangle of a positive definite matrix.
fn factor(a: &mut [Vec<f64>]) {
    for i in 0..a.len() {
        for j in 0..=i {
            let sum = a[i][j] - (0..j).map(|k| a[i][k] * a[j][k]).sum::<f64>();
            a[i][j] = if i == j { sum.sqrt() } else { sum / a[j][j] };
        }
    }
}

/// Solves `L * L^t * x = b`, given the factor `L`.
fn solve(l: &[Vec<f64>], mut x: Vec<f64>) -> Vec<f64> {
    for i in 0..x.len() {
        let known: f64 = (0..i).map(|k| l[i][k] * x[k]).sum();
        x[i] = (x[i] - known) / l[i][i];
    }
    for i in (0..x.len()).rev() {
        let known: f64 = (i + 1..x.len()).map(|k| l[k][i] * x[k]).sum();
        x[i] = (x[i] - known) / l[i][i];
    }
    x
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gradient_of_the_penalized_error_is_0() {
        let rows: Vec<Vec<f32>> = (0..7)
            .map(|i| (0..3).map(|j| ((i * 3 + j) as f32 * 0.7).sin()).collect())
            .collect();
        let labels = [0, 1, 1, 0, 1, 0, 0];
        let (penalty, classes) = (0.5, 2);
        let head = Ridge::fit(&rows, &labels, classes, penalty);
        for (class, weights) in head.weights.iter().enumerate() {
            for i in 0..4 {
                let errors = rows.iter().zip(labels).map(|(row, label)| {
                    let row = extended(row);
                    let score: f64 = weights.iter().zip(&row).map(|(w, x)| w * x).sum();
                    (score - f64::from(u8::from(label == class))) * row[i]
                });
                let gradient = errors.sum::<f64>() + penalty * weights[i];
                assert!(gradient.abs() < 1e-12, "class {class}, {i}: {gradient}");
            }
        }
    }

    #[test]
    fn separable_classes_are_told_apart() {
        let rows = vec![
            vec![1.0, 0.0],
            vec![0.9, 0.1],
            vec![0.0, 1.0],
            vec![0.2, 1.1],
        ];
        let head = Ridge::fit(&rows, &[0, 0, 1, 1], 2, 0.01);
        assert!((head.accuracy(&rows, &[0, 0, 1, 1]) - 1.0).abs() < 1e-12);
        assert!((head.accuracy(&rows, &[0, 0, 1, 0]) - 0.75).abs() < 1e-12);
    }
}
