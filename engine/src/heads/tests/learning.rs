//! What is learned, and what is said of it.

// Parts of a whole that are all or none of it.
#![allow(clippy::float_cmp)]

use super::*;
use crate::EngineError;

fn one_of(classes: usize, each: usize) -> Vec<Vec<usize>> {
    (0..classes * each).map(|i| vec![i / each]).collect()
}

fn accuracy(head: &Head, rows: &[f32], each: usize) -> f64 {
    let best = |row: &[f32]| head.predict_row(row)[0].label.clone();
    let right = rows.chunks(DIM).enumerate();
    let right = right
        .filter(|(i, row)| best(row) == head.labels[i / each])
        .count();
    right as f64 / (rows.len() / DIM) as f64
}

#[test]
fn examples_that_lie_apart_are_learned_and_held_out_ones_are_told_right() {
    let labels = names(&["a", "b", "c", "d"]);
    let (rows, of) = (clusters(4, 10, 0.5, 3), one_of(4, 10));
    let lesson = Lesson {
        inputs: &inputs(),
        labels: &labels,
        rows: &rows,
        of: &of,
        zero_shot: None,
    };
    let taught = teach(&lesson, &options()).expect("learns");
    assert_eq!(accuracy(&taught.head, &clusters(4, 25, 0.5, 4), 25), 1.0);
    let held_out = taught.held_out.expect("ten of each");
    assert_eq!((taught.folds, held_out.examples), (5, 40));
    assert_eq!(held_out.accuracy, 1.0);
    assert!(held_out.interval[0] > 0.9 && held_out.interval[1] == 1.0);
    let confusion = held_out.confusion.expect("four labels");
    assert!((0..4).all(|i| confusion[i][i] == 10), "{confusion:?}");
    assert!(held_out.per_label.iter().all(|of| of.recall == Some(1.0)));
    assert!(taught.converged);
}

/// Labels that say nothing are told as chance would: an accuracy of the examples that were learned from
/// would be 1 here.
#[test]
fn labels_by_chance_are_told_by_chance() {
    let rows = clusters(1, 200, 3.0, 3);
    let of: Vec<Vec<usize>> = (0..200).map(|i| vec![i % 2]).collect();
    let lesson = Lesson {
        inputs: &inputs(),
        labels: &names(&["a", "b"]),
        rows: &rows,
        of: &of,
        zero_shot: None,
    };
    let held_out = teach(&lesson, &options()).expect("learns").held_out;
    let held_out = held_out.expect("many examples");
    assert!((0.35..0.65).contains(&held_out.accuracy), "{held_out:?}");
    assert_eq!(held_out.method, "5-fold, each example in one of them");
}

#[test]
fn few_examples_are_left_out_one_at_a_time_and_single_ones_not_at_all() {
    let labels = names(&["a", "b", "c"]);
    let teach_each = |each: usize| {
        let lesson = Lesson {
            inputs: &inputs(),
            labels: &labels,
            rows: &clusters(3, each, 0.3, 8),
            of: &one_of(3, each),
            zero_shot: None,
        };
        teach(&lesson, &options()).expect("learns")
    };
    let three = teach_each(3);
    let held_out = three.held_out.expect("three of each");
    assert_eq!(
        (three.folds, held_out.examples, &*held_out.method),
        (9, 9, "leave-one-out")
    );
    let one = teach_each(1);
    assert_eq!((one.folds, one.held_out), (0, None));
    assert_eq!(accuracy(&one.head, &clusters(3, 20, 0.3, 9), 20), 1.0);
}

#[test]
fn a_strong_pull_leaves_what_the_words_say_and_a_weak_one_what_the_examples_do() {
    let labels = names(&["a", "b", "c"]);
    let words = words(3, &labels);
    // The examples say the opposite of the words: each class is the next one.
    let rows = clusters(3, 10, 0.3, 3);
    let of: Vec<Vec<usize>> = (0..30).map(|i| vec![(i / 10 + 1) % 3]).collect();
    let taught = |regularization: f64, from_zero_shot: bool, blend: f64| {
        let lesson = Lesson {
            inputs: &inputs(),
            labels: &labels,
            rows: &rows,
            of: &of,
            zero_shot: Some(&words),
        };
        let options = TeachOptions {
            regularization: Some(regularization),
            from_zero_shot,
            blend,
            ..options()
        };
        teach(&lesson, &options).expect("learns").head
    };
    let probe = clusters(3, 20, 0.3, 9);
    assert_eq!(accuracy(&words, &probe, 20), 1.0);
    assert_eq!(accuracy(&taught(1e5, true, 0.0), &probe, 20), 1.0);
    assert_eq!(accuracy(&taught(1e-3, true, 0.0), &probe, 20), 0.0);
    assert_eq!(accuracy(&taught(1e-3, false, 1.0), &probe, 20), 1.0);
    assert_eq!(accuracy(&taught(1e-3, false, 0.0), &probe, 20), 0.0);
    // The pull towards words with no example's say is the words.
    let (pulled, row) = (taught(1e9, true, 0.0), &probe[..DIM]);
    let both = pulled
        .row_probabilities(row)
        .into_iter()
        .zip(words.row_probabilities(row));
    // But for intercepts, which nothing pulls: the examples' labels are as frequent as each other.
    both.for_each(|(a, b)| assert!((a - b).abs() < 0.2, "{a} {b}"));
}

#[test]
fn words_help_where_examples_are_few() {
    let labels: Vec<String> = (0..8).map(|i| i.to_string()).collect();
    let words = words(8, &labels);
    let (mut with, mut without) = (0.0, 0.0);
    for seed in 0..10 {
        let lesson = Lesson {
            inputs: &inputs(),
            labels: &labels,
            rows: &clusters(8, 1, 1.4, seed),
            of: &one_of(8, 1),
            zero_shot: Some(&words),
        };
        let head = |from_zero_shot| {
            let options = TeachOptions {
                from_zero_shot,
                ..options()
            };
            teach(&lesson, &options).expect("learns").head
        };
        let probe = clusters(8, 20, 1.4, 100 + seed);
        with += accuracy(&head(true), &probe, 20);
        without += accuracy(&head(false), &probe, 20);
    }
    assert!(with > without + 1.0, "{with} and {without} of 10");
}

#[test]
fn any_number_of_labels_may_fit() {
    // Columns 0 and 1 of a row have a label each where they are high.
    let mut draws = Draws::new(&[4]);
    let mut row = |of: &[usize]| {
        let mut row: Vec<f32> = (0..DIM).map(|_| 0.2 * normal(&mut draws)).collect();
        for label in of {
            row[*label] += 2.0;
        }
        row[2] += 1.0;
        unit(row)
    };
    let kinds: [&[usize]; 4] = [&[], &[0], &[1], &[0, 1]];
    let of: Vec<Vec<usize>> = (0..48).map(|i| kinds[i % 4].to_vec()).collect();
    let rows: Vec<f32> = of.iter().flat_map(|of| row(of)).collect();
    let labels = names(&["left", "right"]);
    let lesson = Lesson {
        inputs: &inputs(),
        labels: &labels,
        rows: &rows,
        of: &of,
        zero_shot: None,
    };
    let options = TeachOptions {
        multi_label: true,
        ..options()
    };
    let taught = teach(&lesson, &options).expect("learns");
    for of in kinds {
        let p = taught.head.row_probabilities(&row(of));
        for (label, p) in p.iter().enumerate() {
            assert_eq!(*p > 0.5, of.contains(&label), "{of:?}: {p}");
        }
    }
    let held_out = taught.held_out.expect("many examples");
    assert_eq!((held_out.examples, held_out.accuracy), (96, 1.0));
    assert_eq!(
        held_out.confusion,
        Some(vec![vec![24, 0, 0, 24], vec![24, 0, 0, 24]])
    );
    let all = TeachOptions { ..options };
    let everyone: Vec<Vec<usize>> = of.iter().map(|_| vec![0, 1]).collect();
    let lesson = Lesson {
        of: &everyone,
        ..lesson
    };
    let refused = teach(&lesson, &all).expect_err("nothing lacks a label");
    assert!(
        refused.to_string().contains("nothing tells what has not"),
        "{refused}"
    );
}

#[test]
fn balanced_classes_count_the_same_however_many_examples_they_have() {
    // Classes that overlap: without balance the frequent one is told nearly always.
    let mut rows = clusters(2, 60, 6.0, 3);
    rows.truncate(66 * DIM);
    let of: Vec<Vec<usize>> = (0..66).map(|i| vec![usize::from(i >= 60)]).collect();
    let told_rare = |balance| {
        let lesson = Lesson {
            inputs: &inputs(),
            labels: &names(&["often", "rare"]),
            rows: &rows,
            of: &of,
            zero_shot: None,
        };
        let options = TeachOptions {
            balance,
            regularization: Some(1.0),
            ..options()
        };
        let head = teach(&lesson, &options).expect("learns").head;
        let probe = clusters(2, 100, 6.0, 11);
        let rare = probe
            .chunks(DIM)
            .filter(|row| head.predict_row(row)[0].label == "rare");
        rare.count()
    };
    let (plain, balanced) = (told_rare(false), told_rare(true));
    assert!(plain < 10 && balanced > 25, "{plain} {balanced}");
}

#[test]
fn both_aspects_are_read_one_after_the_other_at_unit_length() {
    let mut spaces = spaces();
    spaces.specific_image_dim = Some(3);
    let both = Inputs::of(&spaces, HeadAspect::Both, Some(Modality::Image)).expect("there is one");
    assert_eq!((both.dim(), both.aspect()), (DIM + 3, HeadAspect::Both));
    let shared = Embedding::normalized(vec![1.0; DIM]).expect("a direction");
    let specific = Embedding::normalized(vec![0.0, 3.0, 4.0]).expect("a direction");
    let row = both
        .row(Modality::Image, &shared, Some(&specific))
        .expect("has both");
    let length: f32 = row.iter().map(|x| x * x).sum();
    assert!((length - 1.0).abs() < 1e-6);
    assert!((row[DIM + 2] - 0.8 * std::f32::consts::FRAC_1_SQRT_2).abs() < 1e-6);
    assert_eq!(both.row(Modality::Text, &shared, Some(&specific)), None);
    assert_eq!(both.row(Modality::Image, &shared, None), None);
    assert!(Inputs::of(&spaces, HeadAspect::Both, None).is_err());
    spaces.specific_image_dim = None;
    let none = Inputs::of(&spaces, HeadAspect::Specific, Some(Modality::Image));
    assert!(matches!(none, Err(EngineError::BadLesson { field, .. }) if field == "aspect"));
}

#[test]
fn what_is_far_from_all_examples_is_none_of_these() {
    let rows = clusters(3, 20, 0.4, 3);
    let of = one_of(3, 20);
    let likeness = Likeness::of(&rows, DIM, &of, 3).expect("many examples");
    let told = |rows: &[f32]| {
        rows.chunks(DIM)
            .filter(|r| likeness.is_none_of_these(r))
            .count()
    };
    let alike = told(&clusters(3, 100, 0.4, 21));
    assert!(alike <= 20, "{alike} of 300 that are like the examples");
    let others = &clusters(9, 100, 0.4, 22)[300 * DIM..];
    assert_eq!(told(others), 600, "classes that were never seen");
    assert_eq!(Likeness::of(&rows[..9 * DIM], DIM, &of[..9], 3), None);
}

#[test]
fn what_cannot_be_learned_is_refused_by_field() {
    let (rows, of) = (clusters(2, 2, 0.3, 3), one_of(2, 2));
    let refused = |labels: &[&str], of: &[Vec<usize>], options: TeachOptions| {
        let (labels, inputs) = (names(labels), inputs());
        let lesson = Lesson {
            inputs: &inputs,
            labels: &labels,
            rows: &rows,
            of,
            zero_shot: None,
        };
        match teach(&lesson, &options) {
            Err(EngineError::BadLesson { field, .. }) => field,
            other => panic!("{other:?}"),
        }
    };
    let two = ["a", "b"];
    assert_eq!(refused(&["a"], &vec![vec![0]; 4], options()), "examples");
    assert_eq!(refused(&["a", "b", "c"], &of, options()), "examples");
    let blend = |blend| TeachOptions { blend, ..options() };
    assert_eq!(refused(&two, &of, blend(1.5)), "blend");
    assert_eq!(refused(&two, &of, blend(f64::NAN)), "blend");
    assert_eq!(refused(&two, &of, blend(0.5)), "blend");
    let start = TeachOptions {
        from_zero_shot: true,
        ..options()
    };
    assert_eq!(refused(&two, &of, start), "start");
    for value in [0.0, -1.0, f64::INFINITY] {
        let options = TeachOptions {
            regularization: Some(value),
            ..options()
        };
        assert_eq!(refused(&two, &of, options), "regularization");
    }
}
