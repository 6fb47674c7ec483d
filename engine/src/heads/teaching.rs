//! A head learned from examples.
//!
//! Logistic regression, multinomial or one label against the rest. With a zero-shot start, what is
//! learned is what is to be added to the weights that the labels' words make, so that the penalty pulls
//! towards these and not towards nothing: with few examples the words decide, with many the examples.

use embedding::{Aspect, Scoring};
use serde::{Deserialize, Serialize};

use super::{
    HeldOut, Inputs, Likeness,
    held_out::{self, Held, by_loss, chosen_by_others},
    zero::Zero,
};
use crate::{
    EngineError, Head,
    logistic::{
        Candidate, Compared, Comparison, GRID, Logistic, Options, Patience, Plan, Samples, Told,
        WITHOUT_COMPARISON, compare,
    },
};

/// The least loss decides.
const PATIENCE: Patience = Patience {
    accuracy: 2,
    loss: 0,
};
/// The precision of the fit. Logits do not change by more than a thousandth any more.
const TOLERANCE: f64 = 1e-5;
const MAX_STEPS: usize = 1000;

/// What a head is learned from.
#[derive(Debug, Clone, Copy)]
pub struct Lesson<'a> {
    /// Which embeddings the rows are.
    pub inputs: &'a Inputs,
    /// The labels.
    pub labels: &'a [String],
    /// `[examples, dim]`, each of unit length.
    pub rows: &'a [f32],
    /// Labels of each example, by their number, ascending: exactly one unless there may be several.
    pub of: &'a [Vec<usize>],
    /// What the words of the labels make, in the shared space, with the labels in the same order.
    pub zero_shot: Option<&'a Head>,
}

/// How a head is learned.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct TeachOptions {
    /// Whether an example may have several labels or none; each is then told for itself.
    pub multi_label: bool,
    /// Whether all labels count the same, however many examples they have.
    pub balance: bool,
    /// How strongly weights are pulled, one over scikit-learn's `C`; `None` to have cross-validation
    /// choose it.
    pub regularization: Option<f64>,
    /// Whether weights are pulled towards the zero-shot ones, and not towards nothing.
    pub from_zero_shot: bool,
    /// The zero-shot weights' part of the weights, 0 to 1.
    pub blend: f64,
    /// What the parts of cross-validation depend on.
    pub seed: u64,
}

/// What was learned, and how.
#[derive(Debug, Clone, PartialEq)]
pub struct Taught {
    /// The classifier.
    pub head: Head,
    /// What tells an item that is like no example; `None` with too few of them.
    pub likeness: Option<Likeness>,
    /// One over the `C` that was used.
    pub regularization: f64,
    /// Parts that examples were held out in; 0 where none could be.
    pub folds: usize,
    /// How well it does; `None` where a label has one example only.
    pub held_out: Option<HeldOut>,
    /// Whether the fits came to their end.
    pub converged: bool,
}

/// Learns a head.
///
/// # Errors
/// [`EngineError::BadLesson`] when there are too few labels or examples, a label has none, or an option
/// is out of its range; [`EngineError::BadHead`] when rows or labels cannot be used.
pub fn teach(lesson: &Lesson<'_>, options: &TeachOptions) -> Result<Taught, EngineError> {
    check(lesson, options)?;
    let teacher = Teacher {
        lesson,
        options,
        zero: Zero::of(lesson, options),
        dim: lesson.inputs.dim(),
    };
    let learned = if options.multi_label {
        teacher.each_label()?
    } else {
        teacher.one_label()?
    };
    let narrow = |numbers: &[f64]| numbers.iter().map(|x| *x as f32).collect();
    let scoring = if options.multi_label {
        Scoring::Sigmoid {
            logit_scale: 1.0,
            logit_bias: 0.0,
        }
    } else {
        Scoring::Softmax { logit_scale: 1.0 }
    };
    let head = Head {
        inputs: lesson.inputs.clone(),
        labels: lesson.labels.to_vec(),
        weights: narrow(&learned.weights),
        bias: narrow(&learned.bias),
        scoring,
    };
    head.check()?;
    Ok(Taught {
        head,
        likeness: Likeness::of(lesson.rows, teacher.dim, lesson.of, lesson.labels.len()),
        regularization: 1.0 / learned.c,
        folds: learned.folds,
        held_out: learned.held_out,
        converged: learned.converged,
    })
}

fn check(lesson: &Lesson<'_>, options: &TeachOptions) -> Result<(), EngineError> {
    let (labels, multi) = (lesson.labels, options.multi_label);
    if labels.len() < if multi { 1 } else { 2 } {
        let reason = format!(
            "the examples have {} label, expected at least 2 to tell apart",
            labels.len()
        );
        return Err(bad("examples", reason));
    }
    for (number, label) in labels.iter().enumerate() {
        let count = lesson.of.iter().filter(|of| of.contains(&number)).count();
        if count == 0 {
            return Err(bad(
                "examples",
                format!("the label {label:?} has no example, expected at least 1"),
            ));
        }
        if multi && count == lesson.of.len() {
            let reason = format!(
                "all {count} examples have the label {label:?}: nothing tells what has not; add \
                 examples without it"
            );
            return Err(bad("examples", reason));
        }
    }
    if let Some(value) = options.regularization
        && !(value.is_finite() && value > 0.0)
    {
        let reason = format!("regularization is {value}, expected a number above 0, or \"auto\"");
        return Err(bad("regularization", reason));
    }
    if !(0.0..=1.0).contains(&options.blend) {
        return Err(bad(
            "blend",
            format!("blend is {}, expected 0 to 1", options.blend),
        ));
    }
    let needs_words = options.from_zero_shot || options.blend > 0.0;
    let is_shared = lesson.inputs.space.aspect == Aspect::Shared;
    if needs_words && (lesson.zero_shot.is_none() || !is_shared) {
        let field = if options.from_zero_shot {
            "start"
        } else {
            "blend"
        };
        let reason = "words are only in the shared space: use the aspect shared or both, or start \
                      with none";
        return Err(bad(field, reason.into()));
    }
    Ok(())
}

/// A lesson that is being learned.
pub(super) struct Teacher<'a> {
    pub(super) lesson: &'a Lesson<'a>,
    pub(super) options: &'a TeachOptions,
    pub(super) zero: Option<Zero>,
    pub(super) dim: usize,
}

/// What came of it.
pub(super) struct Learned {
    /// `[labels, dim]`.
    pub(super) weights: Vec<f64>,
    pub(super) bias: Vec<f64>,
    pub(super) c: f64,
    pub(super) folds: usize,
    pub(super) held_out: Option<HeldOut>,
    pub(super) converged: bool,
}

impl Teacher<'_> {
    fn one_label(&self) -> Result<Learned, EngineError> {
        let Lesson {
            labels, rows, of, ..
        } = *self.lesson;
        let of: Vec<usize> = of
            .iter()
            .map(|of| of.first().copied().unwrap_or(0))
            .collect();
        let weights = self.balance(&of, labels.len());
        let zero = self.zero.as_ref();
        let base = zero.filter(|_| self.options.from_zero_shot);
        let samples = Samples::new(rows, self.dim, &of, labels.len())?
            .with_base(base.map(|zero| zero.logits.as_slice()))
            .weighted(weights.as_deref());
        let work = of.len() * labels.len() * self.dim;
        let held = Held::of(&of, labels.len(), work, self.options.seed);
        let zero_of = |i: usize| zero.map(|z| &z.logits[i * labels.len()..][..labels.len()]);
        let judge = |fit: &Logistic, i: usize| {
            let logits = self.blended(fit.logits(self.row(i)), zero_of(i));
            Scoring::Softmax { logit_scale: 1.0 }.probabilities(&logits)
        };
        let (mut c, mut held_out) = (self.given().unwrap_or(WITHOUT_COMPARISON), None);
        let mut begin = None;
        if let Some(held) = &held {
            let Comparison { compared, near } = compare(&samples, &self.plan(held), &judge)?;
            begin = near;
            c = self.given().unwrap_or_else(|| choose(&compared));
            let told = told(&compared, held);
            held_out = Some(held_out::of_one_label(
                labels,
                &of,
                &told,
                held.method(of.len()),
            ));
        }
        let fit = Logistic::fit(&samples, &options(c), begin.as_ref())?;
        Ok(Learned {
            weights: self.blended(fit.weights, zero.map(|zero| &*zero.weights)),
            bias: self.blended(fit.intercepts, zero.map(|zero| &*zero.bias)),
            c,
            folds: held.map_or(0, |held| held.folds),
            held_out,
            converged: fit.converged,
        })
    }

    pub(super) fn row(&self, i: usize) -> &[f32] {
        &self.lesson.rows[i * self.dim..][..self.dim]
    }

    /// The `C` that was asked for.
    pub(super) fn given(&self) -> Option<f64> {
        self.options.regularization.map(|value| 1.0 / value)
    }

    pub(super) fn grid(&self) -> Vec<f64> {
        self.given().map_or_else(|| GRID.to_vec(), |c| vec![c])
    }

    pub(super) fn plan(&self, held: &Held) -> Plan {
        Plan {
            grid: self.grid(),
            fold_of: held.fold_of.clone(),
            compared_folds: held.compared,
            patience: PATIENCE,
        }
    }

    /// Logits, or weights, of a fit, with those of the words mixed in.
    pub(super) fn blended(&self, learned: Vec<f64>, zero: Option<&[f64]>) -> Vec<f64> {
        let Some(zero) = zero else {
            return learned;
        };
        let (start, blend) = (
            f64::from(u8::from(self.options.from_zero_shot)),
            self.options.blend,
        );
        let mixed = learned.iter().zip(zero);
        mixed
            .map(|(learned, zero)| (1.0 - blend) * (learned + start * zero) + blend * zero)
            .collect()
    }

    /// How much each example counts, where all classes are to count the same.
    pub(super) fn balance(&self, of: &[usize], classes: usize) -> Option<Vec<f64>> {
        if !self.options.balance {
            return None;
        }
        let mut counts = vec![0_usize; classes];
        for class in of {
            counts[*class] += 1;
        }
        let weight = |class: &usize| of.len() as f64 / (classes * counts[*class]) as f64;
        Some(of.iter().map(weight).collect())
    }
}

pub(super) fn options(c: f64) -> Options {
    Options {
        c,
        tolerance: TOLERANCE,
        max_steps: MAX_STEPS,
    }
}

fn choose(compared: &[Compared]) -> f64 {
    let candidates: Vec<Candidate> = compared.iter().map(Compared::candidate).collect();
    by_loss(&candidates).map_or(WITHOUT_COMPARISON, |best| best.c)
}

/// What was said of the examples that were held out. With one part there are no others that could choose.
pub(super) fn told(compared: &[Compared], held: &Held) -> Vec<(usize, Told)> {
    if held.compared > 1 {
        return chosen_by_others(compared, &held.fold_of);
    }
    let c = choose(compared);
    let chosen = compared.iter().find(|one| one.c.total_cmp(&c).is_eq());
    chosen.map_or_else(Vec::new, |one| one.told.clone())
}

fn bad(field: &str, reason: String) -> EngineError {
    EngineError::BadLesson {
        field: field.into(),
        reason,
    }
}
