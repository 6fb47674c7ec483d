use embedding::{Aspect, Embedding, Fingerprint};
use serde::Deserialize;

use super::*;
use crate::{Draws, Query, index::run};

#[derive(Deserialize)]
struct Case {
    rows: Vec<Vec<f32>>,
    labels: Vec<usize>,
    probes: Vec<Vec<f32>>,
    classes: usize,
    dim: usize,
    fits: Vec<Expected>,
}

#[derive(Deserialize)]
struct Expected {
    c: f64,
    coef: Vec<Vec<f64>>,
    intercept: Vec<f64>,
    probabilities: Vec<Vec<f64>>,
}

/// What `tests/reference/eval` wrote.
fn cases() -> Vec<Case> {
    let json = include_str!("../../../tests/reference/data/eval/logistic.json");
    serde_json::from_str(json).expect("the reference is as it was written")
}

fn exact(c: f64) -> Options {
    Options {
        tolerance: 1e-11,
        ..Options::new(c)
    }
}

#[test]
fn a_fit_is_the_one_of_scikit_learn() {
    for case in cases() {
        let rows = case.rows.concat();
        let samples = Samples::new(&rows, case.dim, &case.labels, case.classes).expect("fine");
        let mut near: Option<Logistic> = None;
        for expected in &case.fits {
            let fit = Logistic::fit(&samples, &exact(expected.c), near.as_ref()).expect("fits");
            // The one vector of two classes is the difference of ours.
            let (coef, intercept) = match case.classes {
                2 => {
                    let (no, yes) = fit.weights.split_at(case.dim);
                    let coef = no.iter().zip(yes).map(|(no, yes)| yes - no).collect();
                    (coef, vec![fit.intercepts[1] - fit.intercepts[0]])
                }
                _ => (fit.weights.clone(), fit.intercepts.clone()),
            };
            let scale = expected
                .coef
                .iter()
                .flatten()
                .fold(1.0, |most: f64, x| most.max(x.abs()));
            let theirs = expected.coef.iter().flatten().chain(&expected.intercept);
            for (ours, theirs) in coef.iter().chain(&intercept).zip(theirs) {
                let far = (ours - theirs).abs() / scale;
                assert!(far < 1e-6, "C {}: {ours}, not {theirs}", expected.c);
            }
            for (probe, theirs) in case.probes.iter().zip(&expected.probabilities) {
                for (ours, theirs) in fit.probabilities(probe).iter().zip(theirs) {
                    assert!(
                        (ours - theirs).abs() < 1e-6,
                        "C {}: {ours}, not {theirs}",
                        expected.c
                    );
                }
            }
            near = Some(fit);
        }
    }
}

/// The gradient against differences of the value, for several panels of rows.
#[test]
fn the_gradient_is_the_slope_of_the_value() {
    let (n, dim, classes) = (2500, 11, 3);
    let mut draws = Draws::new(&[5]);
    let mut number = || draws.below(2001) as f32 / 1000.0 - 1.0;
    let rows: Vec<f32> = (0..n * dim).map(|_| number()).collect();
    let at: Vec<f64> = (0..classes * (dim + 1))
        .map(|_| f64::from(number()))
        .collect();
    let labels: Vec<usize> = (0..n).map(|i| i % classes).collect();
    let base: Vec<f64> = (0..n * classes).map(|_| f64::from(number())).collect();
    let weights: Vec<f64> = (0..n).map(|_| 1.5 + f64::from(number())).collect();
    let samples = Samples::new(&rows, dim, &labels, classes).expect("fine");
    let samples = samples.with_base(Some(&base)).weighted(Some(&weights));
    let problem = Problem::new(&samples);
    let objective = problem.with_c(0.01);
    let mut gradient = vec![0.0; at.len()];
    objective.evaluate(&at, &mut gradient);
    let mut scratch = vec![0.0; at.len()];
    for (i, slope) in gradient.iter().enumerate() {
        let mut beside = |by: f64| {
            let mut moved = at.clone();
            moved[i] += by;
            objective.evaluate(&moved, &mut scratch)
        };
        let difference = (beside(1e-5) - beside(-1e-5)) / 2e-5;
        assert!(
            (slope - difference).abs() < 1e-8,
            "{i}: {slope}, not {difference}"
        );
    }
}

#[test]
fn exponentials_are_those_of_the_library() {
    let numbers: Vec<f64> = (0..200_000).map(|i| 3.0 - f64::from(i) * 0.00358).collect();
    let mut found = numbers.clone();
    let sum = run(objective::Exponentials {
        most: 3.0,
        of: &mut found,
    });
    assert!((sum / found.iter().sum::<f64>() - 1.0).abs() < 1e-12);
    for (x, found) in numbers.iter().zip(&found) {
        let expected = (x - 3.0).exp();
        let is_tiny = expected < 1e-300;
        assert!(
            is_tiny || (found / expected - 1.0).abs() < 1e-13,
            "{x}: {found}, not {expected}"
        );
        assert!(
            found.is_finite() && (!is_tiny || *found < 1e-299),
            "{x}: {found}"
        );
    }
}

#[test]
fn a_row_of_weight_2_is_a_row_that_occurs_twice() {
    let case = &cases()[0];
    let rows = case.rows.concat();
    let twice = [&rows[..], &rows[..case.dim]].concat();
    let labels = [&case.labels[..], &case.labels[..1]].concat();
    let mut weights = vec![1.0; case.labels.len()];
    weights[0] = 2.0;
    let weighted = Samples::new(&rows, case.dim, &case.labels, case.classes).expect("fine");
    let weighted = weighted.weighted(Some(&weights));
    let doubled = Samples::new(&twice, case.dim, &labels, case.classes).expect("fine");
    let fit = |samples| Logistic::fit(samples, &exact(10.0), None).expect("fits");
    let (weighted, doubled) = (fit(&weighted), fit(&doubled));
    for (a, b) in weighted.weights.iter().zip(&doubled.weights) {
        assert!((a - b).abs() < 1e-6, "{a}, not {b}");
    }
}

#[test]
fn a_fit_does_not_depend_on_the_number_of_threads() {
    let case = &cases()[0];
    // More rows than one panel.
    let rows = case.rows.concat().repeat(40);
    let labels = case.labels.repeat(40);
    let samples = Samples::new(&rows, case.dim, &labels, case.classes).expect("fine");
    let by = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        let fit = || Logistic::fit(&samples, &Options::new(10.0), None);
        pool.expect("threads").install(fit).expect("fits")
    };
    assert_eq!(by(1), by(4));
}

#[test]
fn what_cannot_be_learned_from_is_refused_with_the_reason() {
    let rows = [1.0, 0.0, 0.0, 1.0];
    let refused = |rows: &[f32], dim, labels: &[usize], classes| {
        let refused = Samples::new(rows, dim, labels, classes).expect_err("is refused");
        refused.to_string()
    };
    assert!(refused(&rows, 2, &[0, 0], 1).contains("1 classes"));
    assert!(refused(&rows, 2, &[0, 0], 2).contains("class 1 has no row"));
    assert!(refused(&rows, 2, &[0, 2], 2).contains("label 2"));
    assert!(refused(&rows, 3, &[0, 1], 2).contains("4 numbers for 2 rows of dim 3"));
    assert!(refused(&[1.0, f32::NAN], 1, &[0, 1], 2).contains("not finite"));
    let samples = Samples::new(&rows, 2, &[0, 1], 2).expect("fine");
    let fit = |c| Logistic::fit(&samples, &Options::new(c), None);
    assert!(fit(0.0).is_err() && fit(f64::NAN).is_err() && fit(1.0).is_ok());
    let other = Logistic {
        dim: 1,
        ..fit(1.0).expect("fits")
    };
    assert!(Logistic::fit(&samples, &Options::new(1.0), Some(&other)).is_err());
}

#[test]
fn a_head_predicts_what_the_fit_does() {
    let case = &cases()[0];
    let rows = case.rows.concat();
    let samples = Samples::new(&rows, case.dim, &case.labels, case.classes).expect("fine");
    let fit = Logistic::fit(&samples, &Options::new(100.0), None).expect("fits");
    let space = Space {
        model: "m".into(),
        fingerprint: Fingerprint([1; 16]),
        dim: case.dim,
        aspect: Aspect::Shared,
    };
    let names: Vec<String> = (0..case.classes).map(|class| class.to_string()).collect();
    let head = fit.head(space.clone(), names.clone()).expect("a head");
    for probe in &case.probes {
        let expected = fit.probabilities(probe);
        let embedding = Embedding::new(probe.clone()).expect("of unit length");
        let space = space.clone();
        for predicted in head.predict(&Query { embedding, space }).expect("predicts") {
            let class: usize = predicted.label.parse().expect("a number");
            assert!((predicted.probability - expected[class]).abs() < 1e-5);
        }
    }
    assert!(fit.head(space, names[1..].to_vec()).is_err());
}

#[test]
fn folds_hold_equal_parts_of_every_class() {
    let labels: Vec<usize> = (0..97).map(|i| usize::from(i % 4 == 0)).collect();
    let folds = stratified_folds(&labels, 5, 3);
    for class in 0..2 {
        let of_class = labels.iter().filter(|label| **label == class).count();
        for fold in 0..5 {
            let pairs = labels.iter().zip(&folds);
            let here = pairs.filter(|pair| *pair == (&class, &fold)).count();
            assert!(
                here.abs_diff(of_class / 5) <= 1,
                "class {class}, fold {fold}: {here}"
            );
        }
    }
    assert_eq!(folds, stratified_folds(&labels, 5, 3));
    assert_ne!(folds, stratified_folds(&labels, 5, 4));
}

/// Classes that their means tell apart want much weight on the rows; labels that say nothing want
/// little.
#[test]
fn the_less_there_is_to_learn_the_more_is_regularized() {
    let (n, dim) = (200, 10);
    let mut draws = Draws::new(&[11]);
    let mut number = || draws.below(2001) as f32 / 1000.0 - 1.0;
    let rows: Vec<f32> = (0..n * dim).map(|_| number()).collect();
    let by_side: Vec<usize> = rows
        .chunks(dim)
        .map(|row| usize::from(row[0] + row[1] > 0.0))
        .collect();
    let by_chance: Vec<usize> = (0..n).map(|i| i % 2).collect();
    let choice = |labels: &[usize]| {
        let samples = Samples::new(&rows, dim, labels, 2).expect("fine");
        choose(&samples, 1).expect("chosen")
    };
    let (clear, chance) = (choice(&by_side), choice(&by_chance));
    assert!(
        clear.c >= 100.0 && (clear.folds, clear.compared_folds) == (5, 5),
        "{clear:?}"
    );
    assert!(chance.c < clear.c, "{chance:?}");
    let accuracy = |choice: &Choice| {
        choice
            .candidates
            .iter()
            .map(|c| c.accuracy)
            .fold(0.0, f64::max)
    };
    assert!(accuracy(&clear) > 0.95 && accuracy(&chance) < 0.65);

    let one_each = Samples::new(&rows[..2 * dim], dim, &[0, 1], 2).expect("fine");
    let nothing = choose(&one_each, 1).expect("chosen");
    assert_eq!((nothing.folds, nothing.candidates.len()), (0, 0));
}
