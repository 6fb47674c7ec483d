//! Whether a student of few heads learns from few examples where a teacher of many heads looks
//! ([`crate::objective::attention`]).
//!
//! The task is recall of two values by their keys. The teacher learns it from endless data; the
//! students have a few labeled sequences and the teacher's outputs on them. What differs is how
//! they learn from its attention: not at all, head by head, or aligned.

mod learning;
mod recall;
mod transformer;

use std::{fmt::Write as _, time::Instant};

use rayon::prelude::*;

use self::{
    learning::{Guide, Lesson, accuracy, teach, train_teacher},
    recall::Sequences,
    transformer::{Sizes, Transformer},
};
use super::{Outcome, claim, spread};
use crate::{TrainingError, objective::attention::Variant};

const TEACHER: Sizes = Sizes {
    width: 64,
    heads: 8,
    layers: 2,
};
const STUDENT: Sizes = Sizes {
    width: 32,
    heads: 2,
    layers: 2,
};

/// How large a run is.
#[derive(Debug, Clone, Copy)]
struct Size {
    teacher_batch: usize,
    teacher_steps: usize,
    student_steps: usize,
    /// Numbers of labeled sequences, and how many runs with a teacher of their own are averaged.
    /// Claims are made about the first.
    labeled: &'static [(usize, u64)],
    /// Fresh sequences that accuracy is measured on.
    test: usize,
}

const FULL: Size = Size {
    teacher_batch: 64,
    teacher_steps: 1000,
    student_steps: 600,
    labeled: &[(512, 4), (2048, 4)],
    test: 2000,
};
const REDUCED: Size = Size {
    teacher_batch: 32,
    teacher_steps: 500,
    student_steps: 400,
    labeled: &[(512, 1)],
    test: 1000,
};

const LABELS: &str = "labels";
const V2: &str = "AMAD V2, beta";

/// Passes of which the fastest is reported.
const PASSES: usize = 3;

/// The lessons, by the names of the table.
fn lessons(reduced: bool) -> Vec<(&'static str, Lesson)> {
    let guided = |guide, beta| Lesson {
        logits: true,
        guide,
        beta,
    };
    let aligned = |variant, sharpness| Guide::Aligned { variant, sharpness };
    let v2 = aligned(Variant::Divergence, 1.0);
    let nothing = guided(Guide::None, 0.0);
    let labels = Lesson {
        logits: false,
        ..nothing
    };
    let mut lessons = vec![
        (LABELS, labels),
        ("one-to-one, beta 1", guided(Guide::OneToOne, 1.0)),
        ("AMAD V2, beta 1", guided(v2, 1.0)),
    ];
    if !reduced {
        lessons.extend([
            ("logit distillation", nothing),
            ("one-to-one, beta .1", guided(Guide::OneToOne, 0.1)),
            ("one-to-one, beta .3", guided(Guide::OneToOne, 0.3)),
            ("one-to-one, beta 3", guided(Guide::OneToOne, 3.0)),
            (
                "AMAD V1, beta 1",
                guided(aligned(Variant::Distance, 1.0), 1.0),
            ),
            ("AMAD V2, beta .3", guided(v2, 0.3)),
            ("AMAD V2, beta 3", guided(v2, 3.0)),
            (
                "AMAD V2 with tau_w .1, beta 1",
                guided(aligned(Variant::Divergence, 0.1), 1.0),
            ),
        ]);
    }
    lessons
}

/// Trains teachers and students; the reduced form has only the students that the claims need.
///
/// # Errors
/// When training diverges.
pub(super) fn run(reduced: bool) -> Result<Outcome, TrainingError> {
    let size = if reduced { REDUCED } else { FULL };
    let lessons = lessons(reduced);
    // Of every lesson and number of labeled sequences: accuracy by seed.
    let mut found = vec![vec![Vec::new(); size.labeled.len()]; lessons.len()];
    let mut taught = Vec::new();
    let mut times = [f64::INFINITY; 2];
    let seeds = size.labeled.iter().map(|(_, seeds)| *seeds).max();
    for seed in 0..seeds.unwrap_or_default() {
        let teacher = train_teacher(TEACHER, size.teacher_batch, size.teacher_steps, seed)?;
        let test = Sequences::draw(size.test, seed ^ 0x7465_7374)?;
        taught.push(accuracy(&teacher, &test)?);
        for (column, (labeled, seeds)) in size.labeled.iter().enumerate() {
            if seed >= *seeds {
                continue;
            }
            let known = Sequences::draw(*labeled, seed ^ 0x6b6e_6f77)?;
            let students = lessons.par_iter().map(|(_, lesson)| {
                let student = teach(STUDENT, &teacher, &known, *lesson, size.student_steps, seed)?;
                accuracy(&student, &test)
            });
            let right = students.collect::<Result<Vec<f64>, TrainingError>>()?;
            for (row, right) in found.iter_mut().zip(right) {
                row[column].push(right);
            }
        }
        let student = Transformer::new(STUDENT, seed)?;
        for (time, model) in times.iter_mut().zip([&teacher, &student]) {
            for _ in 0..PASSES {
                *time = time.min(seconds(model, &test)?);
            }
        }
    }
    let mut table = table(&size, &lessons, &found);
    let [of_teacher, of_student] = times.map(|s| s * 1e6 / size.test as f64);
    let _ = writeln!(
        table,
        "\nThe teacher is right on {:.3} of fresh sequences. In a batch of {} a sequence takes it \
         {of_teacher:.1} us, and a student {of_student:.1} us.",
        spread(&taught).0,
        size.test
    );
    let best = |wanted: &dyn Fn(&str, Guide) -> bool| {
        let rows = lessons.iter().zip(&found);
        let wanted = rows.filter(|((name, lesson), _)| wanted(name, lesson.guide));
        let means = wanted.map(|(_, row)| spread(&row[0]).0);
        means.fold(f64::NEG_INFINITY, f64::max)
    };
    let aligned = best(&|name, _| name.starts_with(V2));
    // Few steps show less.
    let part = if reduced { 0.5 } else { 1.0 };
    let claim = |least: f64, than: f64, name: &str| {
        let (few, least) = (size.labeled[0].0, least * part);
        let more =
            format!("with {few} sequences alignment is right on {least:.2} more than {name}");
        claim(aligned >= than + least, more)
    };
    let labels = best(&|name, _| name == LABELS);
    let one_to_one = best(&|_, guide| matches!(guide, Guide::OneToOne));
    let claims = vec![
        claim(0.2, labels, "labels alone"),
        claim(0.1, one_to_one, "one-to-one, both at their best beta"),
    ];
    Ok(Outcome { table, claims })
}

fn table(size: &Size, lessons: &[(&str, Lesson)], found: &[Vec<Vec<f64>>]) -> String {
    let mut table = String::from("| |");
    for (labeled, seeds) in size.labeled {
        let _ = write!(table, " {labeled} sequences, {seeds} seeds |");
    }
    table.push_str("\n|---|");
    table.push_str(&"---|".repeat(size.labeled.len()));
    for ((name, _), row) in lessons.iter().zip(found) {
        let _ = write!(table, "\n| {name} |");
        for (mean, deviation) in row.iter().map(|accuracies| spread(accuracies)) {
            let _ = write!(table, " {mean:.3} +- {deviation:.3} |");
        }
    }
    table.push('\n');
    table
}

/// Wall time of one pass over all sequences.
fn seconds(model: &Transformer, of: &Sequences) -> Result<f64, TrainingError> {
    let begin = Instant::now();
    accuracy(model, of)?;
    Ok(begin.elapsed().as_secs_f64())
}
