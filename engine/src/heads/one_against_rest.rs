//! Each label told for itself, against all examples that do not have it.

use embedding::Scoring;

use super::{
    held_out::{self, Held, by_loss},
    teaching::{Learned, Lesson, Teacher, options, told},
};
use crate::{
    EngineError,
    logistic::{Candidate, Compared, Logistic, Patience, Samples, WITHOUT_COMPARISON, compare},
};

/// What is learned of one label.
struct Problem {
    /// Whether each example has it: 1 where it does.
    own: Vec<usize>,
    /// How much each example counts.
    weights: Option<Vec<f64>>,
    /// What words say: `[examples, 2]` logits, of no and of yes.
    zero: Option<Vec<f64>>,
    held: Option<Held>,
}

impl Teacher<'_> {
    /// One label against the rest, for each; all with one `C`.
    pub(super) fn each_label(&self) -> Result<Learned, EngineError> {
        let Lesson { labels, of, .. } = *self.lesson;
        let problems: Vec<Problem> = (0..labels.len()).map(|label| self.problem(label)).collect();
        let mut compared = Vec::with_capacity(problems.len());
        for problem in &problems {
            compared.push(self.compare_label(problem)?);
        }
        let all = || compared.iter().flatten();
        let figures = |c: &f64| {
            let of_c = all().filter(|one| one.c.total_cmp(c).is_eq());
            Candidate::of(
                *c,
                of_c.flat_map(|one| one.told.iter().map(|(_, told)| told)),
            )
        };
        let candidates: Vec<Candidate> = self.grid().iter().map(figures).collect();
        let best = by_loss(&candidates).filter(|_| all().next().is_some());
        let c = self.given().or(best.map(|best| best.c));
        let c = c.unwrap_or(WITHOUT_COMPARISON);
        let held = problems.iter().filter_map(|problem| problem.held.as_ref());
        let most = held.max_by_key(|held| held.folds);
        let held_out = most.map(|most| {
            let each = compared.iter().zip(&problems).map(|(compared, problem)| {
                let held = problem.held.as_ref();
                held.map_or_else(Vec::new, |held| told(compared, held))
            });
            let each: Vec<_> = each.collect();
            held_out::of_many_labels(labels, of, &each, most.method(of.len()))
        });
        let mut learned = Learned {
            weights: Vec::with_capacity(labels.len() * self.dim),
            bias: Vec::with_capacity(labels.len()),
            c,
            folds: most.map_or(0, |held| held.folds),
            held_out,
            converged: true,
        };
        for (label, problem) in problems.iter().enumerate() {
            let fit = Logistic::fit(&self.samples(problem)?, &options(c), None)?;
            learned.converged &= fit.converged;
            let (no, yes) = fit.weights.split_at(self.dim);
            let weights = yes.iter().zip(no).map(|(yes, no)| yes - no).collect();
            let bias = vec![fit.intercepts[1] - fit.intercepts[0]];
            let zero = self.zero.as_ref();
            let zero_weights = zero.map(|zero| &zero.weights[label * self.dim..][..self.dim]);
            let zero_bias = zero.map(|zero| &zero.bias[label..=label]);
            learned.weights.extend(self.blended(weights, zero_weights));
            learned.bias.extend(self.blended(bias, zero_bias));
        }
        Ok(learned)
    }

    fn problem(&self, label: usize) -> Problem {
        let Lesson { labels, of, .. } = *self.lesson;
        let own: Vec<usize> = of
            .iter()
            .map(|of| usize::from(of.contains(&label)))
            .collect();
        let zero = self.zero.as_ref().map(|zero| {
            let logits = zero.logits.chunks_exact(labels.len());
            logits.flat_map(|of| [0.0, of[label]]).collect()
        });
        let work = of.len() * labels.len() * self.dim;
        Problem {
            weights: self.balance(&own, 2),
            held: Held::of(&own, 2, work, self.options.seed),
            own,
            zero,
        }
    }

    fn compare_label(&self, problem: &Problem) -> Result<Vec<Compared>, EngineError> {
        let Some(held) = &problem.held else {
            return Ok(Vec::new());
        };
        let mut plan = self.plan(held);
        // All labels have the same candidates.
        plan.patience = Patience::ENDLESS;
        let zero = problem.zero.as_ref();
        let judge = |fit: &Logistic, i: usize| {
            let logits = fit.logits(self.row(i));
            let logits = self.blended(logits, zero.map(|zero| &zero[2 * i..][..2]));
            Scoring::Softmax { logit_scale: 1.0 }.probabilities(&logits)
        };
        Ok(compare(&self.samples(problem)?, &plan, &judge)?.compared)
    }

    fn samples<'s>(&'s self, problem: &'s Problem) -> Result<Samples<'s>, EngineError> {
        let base = problem.zero.as_deref();
        let base = base.filter(|_| self.options.from_zero_shot);
        let samples = Samples::new(self.lesson.rows, self.dim, &problem.own, 2)?;
        Ok(samples.with_base(base).weighted(problem.weights.as_deref()))
    }
}
