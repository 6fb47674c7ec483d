//! `diptych eval retrieval`: captions that find their pictures, and pictures that find their
//! captions, counted as `CLIP_benchmark` counts.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
};

use anyhow::Result;
use embedding::{Embedding, Encoded};
use engine::metrics::{
    bootstrap, image_retrieval_recall, median_rank, ranks, reciprocal, scores,
    text_retrieval_recall,
};
use pairs::{Captioned, Source};
use serde::Serialize;

use super::{
    classes::subset,
    encode,
    html::{Card, Page},
    report::{self, Figure, Figures, Report},
};
use crate::{
    args::{EvalRetrievalArgs, Places},
    home,
    walk::Failure,
};

/// Where recall is measured.
const KS: [usize; 3] = [1, 5, 10];
/// Figures of one direction: recalls, the median place, the mean reciprocal place.
const OF_A_WAY: usize = KS.len() + 2;
/// Pictures of each kind on the page.
const MOST_CARDS: usize = 12;
/// Captions of a picture on the page.
const MOST_CAPTIONS: usize = 5;

#[derive(Debug, Serialize)]
struct Retrieval {
    pictures: usize,
    captions: usize,
    /// Captions that several pictures have; only one of these is right at a time.
    shared_captions: usize,
}

/// All that was encoded.
struct Encodings {
    /// Those that can be read.
    pictures: Vec<Captioned>,
    images: Vec<Embedding>,
    texts: Vec<Embedding>,
    /// The picture of each text.
    owners: Vec<usize>,
    /// The first text of each picture, and where the last one's end.
    starts: Vec<usize>,
}

/// Places of the right answers, from 0.
struct Found {
    /// Of the pictures, for each caption.
    by_text: Vec<Option<usize>>,
    /// Of the best captions, for each picture.
    by_image: Vec<Option<usize>>,
}

/// Measures and prints.
///
/// # Errors
/// When the pairs or the model cannot be used.
pub fn run(places: &Places, args: &EvalRetrievalArgs) -> Result<()> {
    let options = &args.options;
    report::check(options)?;
    let source = Source {
        path: args.path.clone(),
        image_column: args.image_column.clone(),
        caption_column: args.caption_column.clone(),
    };
    let pairs = pairs::read(&[source])?;
    let kept = subset(options.limit, pairs.pictures.len(), options.seed);
    let pictures: Vec<Captioned> = kept.iter().map(|i| pairs.pictures[*i].clone()).collect();
    let mut failed = pairs.skipped.into_iter().map(Failure::from).collect();
    let model = home::model(places)?;
    let locations: Vec<_> = pictures.iter().map(|p| p.location.clone()).collect();
    let shared = |encoded: Encoded| Ok(encoded.shared);
    let encoded = encode::pictures(&locations, &model, &mut failed, shared)?;
    let pictures: Vec<Captioned> = encoded
        .places
        .iter()
        .map(|i| pictures[*i].clone())
        .collect();
    let words: Vec<String> = pictures.iter().flat_map(|p| p.captions.clone()).collect();
    let texts = encode::texts("encoding captions", &words, &model)?;
    let all = Encodings::new(pictures, encoded.rows, texts);
    let found = all.search();

    let details = Retrieval {
        pictures: all.pictures.len(),
        captions: all.texts.len(),
        shared_captions: all.shared_captions(),
    };
    let facts = [
        ("pictures", details.pictures.to_string()),
        ("captions", details.captions.to_string()),
        (
            "captions of several pictures",
            details.shared_captions.to_string(),
        ),
    ];
    let data = args.path.display().to_string();
    let mut report = Report::new("retrieval", data, model.spaces(), options, details);
    report.metrics = figures(&all, &found, options.seed);
    report.failed = failed;
    report.finish(options, &facts, |page| show(page, &all, &found))
}

impl Encodings {
    fn new(pictures: Vec<Captioned>, images: Vec<Embedding>, texts: Vec<Embedding>) -> Self {
        let counts = pictures.iter().map(|picture| picture.captions.len());
        let owners = counts.clone().enumerate();
        let owners = owners
            .flat_map(|(i, n)| std::iter::repeat_n(i, n))
            .collect();
        let starts = std::iter::once(0).chain(counts.scan(0, |end, n| {
            *end += n;
            Some(*end)
        }));
        Self {
            starts: starts.collect(),
            pictures,
            images,
            texts,
            owners,
        }
    }

    fn texts_of(&self, picture: usize) -> std::ops::Range<usize> {
        self.starts[picture]..self.starts[picture + 1]
    }

    fn search(&self) -> Found {
        Found {
            by_text: ranks(&self.texts, &self.images, |text| vec![self.owners[text]]),
            by_image: ranks(&self.images, &self.texts, |i| self.texts_of(i).collect()),
        }
    }

    fn shared_captions(&self) -> usize {
        let mut owners: BTreeMap<&str, BTreeSet<usize>> = BTreeMap::new();
        for (i, picture) in self.pictures.iter().enumerate() {
            for caption in &picture.captions {
                owners.entry(caption).or_default().insert(i);
            }
        }
        owners.values().filter(|of| of.len() > 1).count()
    }
}

/// The figures of both directions. Pictures are drawn for the intervals, each with all its
/// captions, which are not independent of each other.
fn figures(all: &Encodings, found: &Found, seed: u64) -> Figures {
    let n = all.pictures.len();
    let count = |drawn: &[u32]| -> [f64; 2 * OF_A_WAY] {
        let of_texts: Vec<u32> = all.owners.iter().map(|picture| drawn[*picture]).collect();
        let by_text = of_a_way(&found.by_text, &of_texts);
        let by_image = of_a_way(&found.by_image, drawn);
        std::array::from_fn(|i| *by_text.iter().chain(&by_image).nth(i).unwrap_or(&0.0))
    };
    let values = count(&vec![1; n]);
    let drawn = bootstrap(&[(0..n).collect()], seed, count);
    let names = |recall: fn(usize) -> String, way: &str| {
        let recalls = KS.map(|k| (recall(k), true)).into_iter();
        let more = ["median_rank", "mrr"].map(|name| (format!("{way}_retrieval_{name}"), false));
        recalls.chain(more).collect::<Vec<(String, bool)>>()
    };
    let names = [
        names(image_retrieval_recall, "image"),
        names(text_retrieval_recall, "text"),
    ];
    let mut figures = Figures::default();
    for (((name, is_recall), value), interval) in names.into_iter().flatten().zip(values).zip(drawn)
    {
        let figure = if is_recall {
            Figure::drawn(value, interval, n)
        } else {
            Figure {
                value,
                interval: Some(interval),
            }
        };
        figures.add(name, figure);
    }
    figures
}

fn of_a_way(ranks: &[Option<usize>], weights: &[u32]) -> [f64; OF_A_WAY] {
    let all: f64 = weights.iter().map(|weight| f64::from(*weight)).sum();
    let mean = |of: &dyn Fn(usize) -> f64| {
        let each = ranks.iter().zip(weights);
        let sum: f64 = each
            .map(|(rank, weight)| f64::from(*weight) * rank.map_or(0.0, of))
            .sum();
        sum / all.max(1.0)
    };
    let [a, b, c] = KS.map(|k| mean(&|rank| f64::from(u8::from(rank < k))));
    [a, b, c, median_rank(ranks, weights), mean(&reciprocal)]
}

/// Puts the pictures that were found first and last onto the page.
fn show(page: &mut Page, all: &Encodings, found: &Found) {
    let place = |rank: Option<usize>| rank.map_or(usize::MAX, |rank| rank + 1);
    let mean = |picture: usize| {
        let texts = all.texts_of(picture);
        let count = texts.len() as f64;
        texts
            .map(|text| place(found.by_text[text]) as f64)
            .sum::<f64>()
            / count
    };
    let nearness = |picture: usize| {
        let cosine = |text: usize| all.texts[text].cosine(&all.images[picture]);
        all.texts_of(picture).map(cosine).fold(f32::MIN, f32::max)
    };
    let mut order: Vec<(f64, f32, usize)> = (0..all.pictures.len())
        .map(|picture| (mean(picture), nearness(picture), picture))
        .collect();
    order.sort_by(|a, b| a.0.total_cmp(&b.0).then(b.1.total_cmp(&a.1)));
    let captions: Vec<&String> = all.pictures.iter().flat_map(|p| &p.captions).collect();
    let card = |(_, _, picture): &(f64, f32, usize)| {
        let texts = all.texts_of(*picture);
        let mut lines: Vec<String> = texts
            .clone()
            .take(MOST_CAPTIONS)
            .map(|text| format!("{}: place {}", captions[text], place(found.by_text[text])))
            .collect();
        if texts.len() > MOST_CAPTIONS {
            lines.push(format!("and {} more", texts.len() - MOST_CAPTIONS));
        }
        let cosines = scores(&all.images[*picture], &all.texts);
        let nearest = cosines
            .iter()
            .enumerate()
            .max_by(|a, b| match a.1.total_cmp(b.1) {
                Ordering::Equal => b.0.cmp(&a.0),
                order => order,
            });
        if let Some((text, _)) = nearest.filter(|(text, _)| !texts.contains(text)) {
            lines.push(format!("nearest caption: {}", captions[text]));
        }
        let best = place(found.by_image[*picture]);
        Card {
            picture: &all.pictures[*picture].location,
            title: format!("its captions: place {best}"),
            lines,
        }
    };
    let worst: Vec<Card<'_>> = order.iter().rev().take(MOST_CARDS).map(card).collect();
    page.cards("Found last by their captions", &worst);
    let best: Vec<Card<'_>> = order.iter().take(MOST_CARDS).map(card).collect();
    page.cards("Found first by their captions", &best);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(x: f32, y: f32) -> Embedding {
        Embedding::normalized(vec![x, y]).expect("has a direction")
    }

    fn pictures(captions: &[&[&str]]) -> Vec<Captioned> {
        let picture = |captions: &&[&str]| Captioned {
            location: pairs::Location::File("x.png".into()),
            id: "x.png".into(),
            captions: captions.iter().map(|&caption| caption.to_owned()).collect(),
        };
        captions.iter().map(picture).collect()
    }

    /// Two captions of the first picture: one finds it, the other finds the second picture.
    #[test]
    fn a_caption_looks_for_its_picture_and_a_picture_for_any_of_its_captions() {
        let images = vec![unit(1.0, 0.0), unit(0.0, 1.0)];
        let texts = vec![unit(1.0, 0.1), unit(0.1, 1.0), unit(0.2, 1.0)];
        let all = Encodings::new(pictures(&[&["a", "b"], &["b"]]), images, texts);
        assert_eq!(
            (all.owners.as_slice(), all.starts.as_slice()),
            (&[0, 0, 1][..], &[0, 2, 3][..])
        );
        assert_eq!(all.shared_captions(), 1);
        let found = all.search();
        assert_eq!(found.by_text, [Some(0), Some(1), Some(0)]);
        assert_eq!(found.by_image, [Some(0), Some(1)]);
        let figures = figures(&all, &found, 1);
        let value = |name: &str| {
            let figure = figures.0.iter().find(|(known, _)| known == name);
            figure.expect("is there").1.value
        };
        assert!((value("image_retrieval_recall@1") - 2.0 / 3.0).abs() < 1e-12);
        assert!((value("text_retrieval_recall@1") - 0.5).abs() < 1e-12);
        assert!((value("text_retrieval_recall@5") - 1.0).abs() < 1e-12);
        assert!((value("image_retrieval_median_rank") - 1.0).abs() < 1e-12);
        assert!((value("text_retrieval_median_rank") - 1.5).abs() < 1e-12);
        assert!((value("image_retrieval_mrr") - 2.5 / 3.0).abs() < 1e-12);
    }
}
