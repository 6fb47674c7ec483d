use embedding::{Aspect, Fingerprint, Scoring, Space};
use serde::{Deserialize, de::DeserializeOwned};

use super::*;
use crate::Head;

#[test]
fn a_query_counts_when_any_relevant_item_is_among_the_first_k() {
    let unit = |x: f32, y: f32| Embedding::normalized(vec![x, y]).expect("has a direction");
    let gallery = [
        unit(1.0, 0.0),
        unit(1.0, 1.0),
        unit(0.0, 1.0),
        unit(-1.0, 0.0),
    ];
    let queries = [
        unit(1.0, 0.1),
        unit(1.0, 0.1),
        unit(0.0, 1.0),
        unit(0.0, 1.0),
    ];
    let relevant = |query| [vec![0], vec![2, 3], vec![2, 0], vec![]][query as usize].clone();
    let recall = recall_at_k(&queries, &gallery, |i| relevant(i as u8), &[1, 2, 3, 100]);
    assert_eq!(recall, [0.5, 0.5, 0.75, 0.75]);
    assert_eq!(recall_at_k(&[], &gallery, |_| vec![], &[1]), [0.0]);
}

#[test]
fn ties_count_against_the_query() {
    assert_eq!(rank(&[1.0, 1.0, 1.0, 0.5], &[0]), Some(2));
    assert_eq!(rank(&[1.0, 1.0, 1.0, 0.5], &[0, 1, 1]), Some(1));
    assert_eq!(rank(&[1.0, 2.0], &[1]), Some(0));
    assert_eq!(rank(&[1.0], &[]), None);
}

#[test]
fn the_area_under_the_curve_counts_pairs_in_the_right_order_and_ties_as_halves() {
    let close = |a: f64, b: f64| (a - b).abs() < 1e-12;
    assert!(close(roc_auc(&[2.0, 3.0], &[0.0, 1.0]), 1.0));
    assert!(close(roc_auc(&[0.0], &[1.0, 2.0]), 0.0));
    assert!(close(roc_auc(&[1.0, 3.0], &[1.0, 2.0]), 0.625));
    assert!(close(roc_auc(&[1.0], &[]), 0.5));
}

#[test]
fn a_probability_that_comes_true_as_often_as_it_says_has_no_error() {
    let good = [(0.25, true), (0.25, false), (0.25, false), (0.25, false)];
    assert!(calibration_error(&good).abs() < 1e-12);
    let bad = [(1.0, false), (1.0, true), (0.0, false), (0.0, false)];
    assert!((calibration_error(&bad) - 0.25).abs() < 1e-12);
    assert!(calibration_error(&[]).abs() < 1e-12);
}

#[test]
fn names_are_those_of_clip_benchmark() {
    assert_eq!(image_retrieval_recall(5), "image_retrieval_recall@5");
    assert_eq!(text_retrieval_recall(1), "text_retrieval_recall@1");
}

/// What `tests/reference/eval` wrote.
fn reference<T: DeserializeOwned>(json: &str) -> T {
    serde_json::from_str(json).expect("the reference is as it was written")
}

fn embeddings(rows: &[Vec<f32>]) -> Vec<Embedding> {
    let embedding = |row: &Vec<f32>| Embedding::new(row.clone()).expect("of unit length");
    rows.iter().map(embedding).collect()
}

#[derive(Deserialize)]
struct Retrieval {
    images: Vec<Vec<f32>>,
    texts: Vec<Vec<f32>>,
    owners: Vec<usize>,
    clip_benchmark: std::collections::BTreeMap<String, f64>,
    image_median_rank: f64,
    text_median_rank: f64,
    image_mrr: f64,
    text_mrr: f64,
}

#[test]
fn retrieval_is_counted_as_clip_benchmark_counts_it() {
    let expected: Retrieval = reference(include_str!(
        "../../../tests/reference/data/eval/retrieval.json"
    ));
    let (images, texts) = (embeddings(&expected.images), embeddings(&expected.texts));
    let owners = &expected.owners;
    let of_image = |i: usize| (0..texts.len()).filter(|t| owners[*t] == i).collect();
    let by_text = ranks(&texts, &images, |t| vec![owners[t]]);
    let by_image = ranks(&images, &texts, of_image);
    let ks = [1, 5, 10];
    for (name, ranks) in [
        (image_retrieval_recall as fn(usize) -> String, &by_text),
        (text_retrieval_recall, &by_image),
    ] {
        for (k, recall) in ks.into_iter().zip(recall_of_ranks(ranks, &ks)) {
            // CLIP_benchmark averages in single precision.
            let theirs = expected.clip_benchmark[&name(k)];
            assert!(
                (recall - theirs).abs() < 1e-7,
                "{}: {recall}, not {theirs}",
                name(k)
            );
        }
    }
    for (ranks, median, mrr) in [
        (&by_text, expected.image_median_rank, expected.image_mrr),
        (&by_image, expected.text_median_rank, expected.text_mrr),
    ] {
        let ones = vec![1; ranks.len()];
        assert!((median_rank(ranks, &ones) - median).abs() < 1e-9);
        assert!((mean_reciprocal_rank(ranks) - mrr).abs() < 1e-9);
    }
}

#[derive(Deserialize)]
struct ZeroShot {
    prompts: Vec<Vec<f32>>,
    templates: usize,
    images: Vec<Vec<f32>>,
    labels: Vec<usize>,
    predicted: Vec<usize>,
    head: Vec<Vec<f32>>,
    acc1: f64,
    acc5: f64,
    mean_per_class_recall: f64,
}

#[test]
fn zero_shot_classes_and_figures_are_those_of_clip_benchmark_and_scikit_learn() {
    let expected: ZeroShot = reference(include_str!(
        "../../../tests/reference/data/eval/zero_shot.json"
    ));
    let dim = expected.images[0].len();
    let space = Space {
        model: "m".into(),
        fingerprint: Fingerprint([1; 16]),
        dim,
        aspect: Aspect::Shared,
    };
    let prompts = embeddings(&expected.prompts);
    let prompts: Vec<_> = prompts
        .chunks(expected.templates)
        .map(<[_]>::to_vec)
        .collect();
    let names = (0..prompts.len()).map(|class| class.to_string()).collect();
    let head = Head::zero_shot(
        space,
        names,
        &prompts,
        Scoring::Softmax { logit_scale: 100.0 },
    )
    .expect("a head");
    for (ours, theirs) in head.weights.iter().zip(expected.head.iter().flatten()) {
        assert!((ours - theirs).abs() < 1e-6);
    }
    let classes: Vec<Embedding> = head
        .weights
        .chunks_exact(dim)
        .map(|row| Embedding::new(row.to_vec()).expect("of unit length"))
        .collect();
    let images = embeddings(&expected.images);
    let of_label = ranks(&images, &classes, |i| vec![expected.labels[i]]);
    let accuracy = recall_of_ranks(&of_label, &[1, 5]);
    assert!((accuracy[0] - expected.acc1).abs() < 1e-9);
    assert!((accuracy[1] - expected.acc5).abs() < 1e-9);
    let ones = vec![1; images.len()];
    let recall = mean_per_class_recall(&expected.labels, &expected.predicted, &ones);
    assert!(
        (recall - expected.mean_per_class_recall).abs() < 1e-9,
        "{recall}"
    );
}

#[test]
fn a_class_that_does_not_occur_has_no_recall_and_weights_repeat_things() {
    let (labels, predicted) = ([0, 0, 2, 2], [0, 1, 2, 2]);
    assert!((mean_per_class_recall(&labels, &predicted, &[1; 4]) - 0.75).abs() < 1e-12);
    let weighted = mean_per_class_recall(&labels, &predicted, &[1, 3, 0, 0]);
    assert!((weighted - 0.25).abs() < 1e-12);
    assert!(mean_per_class_recall(&[], &[], &[]).abs() < 1e-12);
}

#[test]
fn the_most_frequent_confusion_comes_first() {
    let found = confusions(&[0, 0, 1, 1, 2, 2], &[1, 1, 0, 1, 0, 0]);
    let found: Vec<_> = found
        .iter()
        .map(|c| (c.label, c.predicted, c.count))
        .collect();
    assert_eq!(found, [(0, 1, 2), (2, 0, 2), (1, 0, 1)]);
}

#[test]
fn the_median_place_counts_from_one_and_a_query_without_an_answer_is_last() {
    let median = |ranks: &[Option<usize>], weights: &[u32]| median_rank(ranks, weights);
    assert!((median(&[Some(4), Some(0), Some(1)], &[1; 3]) - 2.0).abs() < 1e-12);
    assert!((median(&[Some(0), Some(1)], &[1; 2]) - 1.5).abs() < 1e-12);
    assert!((median(&[Some(0), Some(1)], &[1, 2]) - 2.0).abs() < 1e-12);
    assert!(median(&[None, Some(1), None], &[1; 3]).is_infinite());
    assert!(median(&[], &[]).is_infinite());
    assert!((mean_reciprocal_rank(&[Some(0), Some(3), None]) - 1.25 / 3.0).abs() < 1e-12);
}

#[test]
fn a_class_is_told_right_only_when_it_is_ahead_of_all_others() {
    let verdict = |scores: &[f64], label| {
        let Verdict { predicted, rank } = verdict(scores, label);
        (predicted, rank)
    };
    assert_eq!(verdict(&[0.1, 0.7, 0.2], 1), (1, 0));
    assert_eq!(verdict(&[0.1, 0.7, 0.2], 0), (1, 2));
    assert_eq!(verdict(&[0.5, 0.5], 0), (1, 1));
    assert_eq!(verdict(&[0.5, 0.5], 1), (0, 1));
}
