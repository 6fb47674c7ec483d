//! The classifier that words make, as weights of the rows that another is learned from.

use embedding::Scoring;

use super::teaching::{Lesson, TeachOptions};

/// The zero-shot classifier, as weights of the rows.
pub(super) struct Zero {
    /// `[labels, dim]`.
    pub(super) weights: Vec<f64>,
    pub(super) bias: Vec<f64>,
    /// `[examples, labels]`.
    pub(super) logits: Vec<f64>,
}

impl Zero {
    pub(super) fn of(lesson: &Lesson<'_>, options: &TeachOptions) -> Option<Self> {
        let head = lesson.zero_shot?;
        if !options.from_zero_shot && options.blend == 0.0 {
            return None;
        }
        let (dim, shared) = (lesson.inputs.dim(), lesson.inputs.space.dim);
        // The shared half of a row is divided by this.
        let half = if lesson.inputs.beside.is_some() {
            std::f64::consts::SQRT_2
        } else {
            1.0
        };
        let scale = half * f64::from(head.scoring.logit_scale());
        let mut weights = vec![0.0; lesson.labels.len() * dim];
        for (to, from) in weights
            .chunks_exact_mut(dim)
            .zip(head.weights.chunks_exact(shared))
        {
            to.iter_mut()
                .zip(from)
                .for_each(|(to, x)| *to = scale * f64::from(*x));
        }
        let mut bias = vec![f64::from(head.scoring.logit_bias()); lesson.labels.len()];
        let mut logits = Vec::with_capacity(lesson.of.len() * lesson.labels.len());
        for row in lesson.rows.chunks_exact(dim) {
            let dots = weights.chunks_exact(dim).map(|weights| {
                let products = row.iter().zip(weights).map(|(x, w)| f64::from(*x) * w);
                products.sum::<f64>()
            });
            logits.extend(dots);
        }
        if options.multi_label && matches!(head.scoring, Scoring::Softmax { .. }) {
            bias = middles(&logits, lesson.of, lesson.labels.len());
        }
        for logits in logits.chunks_exact_mut(bias.len()) {
            logits.iter_mut().zip(&bias).for_each(|(to, b)| *to += b);
        }
        Some(Self {
            weights,
            bias,
            logits,
        })
    }
}

/// A model with a softmax says nothing of a label alone: so a label fits from the middle between the mean
/// of its examples and that of the others on.
fn middles(logits: &[f64], of: &[Vec<usize>], labels: usize) -> Vec<f64> {
    let middle = |label: usize| {
        let (mut sums, mut counts) = ([0.0; 2], [0.0; 2]);
        for (logits, of) in logits.chunks_exact(labels).zip(of) {
            let side = usize::from(of.contains(&label));
            sums[side] += logits[label];
            counts[side] += 1.0;
        }
        -f64::midpoint(
            sums[0] / f64::max(counts[0], 1.0),
            sums[1] / f64::max(counts[1], 1.0),
        )
    };
    (0..labels).map(middle).collect()
}
