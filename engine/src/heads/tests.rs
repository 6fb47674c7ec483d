//! Heads: learned, kept, and read back.

mod keeping;
mod learning;
mod words;

use embedding::{Embedding, Encoder, HashEncoder, Modality, Scoring, Spaces};
use serde_json::json;

use super::*;
use crate::{Draws, Head, ItemId};

const DIM: usize = 24;

fn spaces() -> Spaces {
    Encoder::<&str>::spaces(&HashEncoder::new(Modality::Text, DIM)).clone()
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|&name| name.into()).collect()
}

fn id(id: &str) -> ItemId {
    ItemId::new(id).expect("an id")
}

fn normal(draws: &mut Draws) -> f32 {
    let sum: usize = (0..12).map(|_| draws.below(1 << 16)).sum();
    sum as f32 / f32::from(u16::MAX) - 6.0
}

/// Rows around a center for each class, `noise` far from it on average; `[classes * each, dim]`, class
/// after class.
fn clusters(classes: usize, each: usize, noise: f32, seed: u64) -> Vec<f32> {
    let mut draws = Draws::new(&[99]);
    let centers: Vec<Vec<f32>> = (0..classes)
        .map(|_| unit((0..DIM).map(|_| normal(&mut draws)).collect()))
        .collect();
    let mut draws = Draws::new(&[seed]);
    let by = noise / (DIM as f32).sqrt();
    let row =
        |center: &Vec<f32>| unit(center.iter().map(|x| x + by * normal(&mut draws)).collect());
    let all = centers
        .iter()
        .flat_map(|center| std::iter::repeat_n(center, each));
    all.flat_map(row).collect()
}

fn unit(row: Vec<f32>) -> Vec<f32> {
    Embedding::normalized(row)
        .expect("has a direction")
        .into_vec()
}

fn options() -> TeachOptions {
    TeachOptions {
        multi_label: false,
        balance: false,
        regularization: None,
        from_zero_shot: false,
        blend: 0.0,
        seed: 1,
    }
}

fn inputs() -> Inputs {
    Inputs::one(spaces().shared())
}

fn kept(head: Head) -> KeptHead {
    KeptHead {
        head,
        likeness: None,
        about: About {
            kind: HeadKind::FewShot,
            multi_label: false,
            made_at_ms: Some(7),
            examples: 2,
            accuracy: None,
            field: None,
            example_ids: vec![id("a"), id("b")],
            report: json!({ "by": "hand" }),
        },
    }
}

/// A head of two labels that learned from clusters.
fn two() -> KeptHead {
    let rows = clusters(2, 8, 0.3, 5);
    let of: Vec<Vec<usize>> = (0..16).map(|i| vec![i / 8]).collect();
    let lesson = Lesson {
        inputs: &inputs(),
        labels: &names(&["up", "down"]),
        rows: &rows,
        of: &of,
        zero_shot: None,
    };
    let taught = teach(&lesson, &options()).expect("learns");
    KeptHead {
        likeness: taught.likeness,
        ..kept(taught.head)
    }
}

/// The words of each class are a little off its center.
fn words(classes: usize, labels: &[String]) -> Head {
    let rows = clusters(classes, 1, 0.4, 77);
    let prompts: Vec<Vec<Embedding>> = rows
        .chunks(DIM)
        .map(|row| vec![Embedding::new(row.to_vec()).expect("of unit length")])
        .collect();
    let scoring = Scoring::Softmax { logit_scale: 20.0 };
    Head::zero_shot(spaces().shared(), labels.to_vec(), &prompts, scoring).expect("a head")
}
