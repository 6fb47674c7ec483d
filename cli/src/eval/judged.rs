//! Pictures that were put into classes, right or wrong: their figures, and the cases worth seeing.

use engine::metrics::{
    ACC1, ACC5, Confusion, MEAN_PER_CLASS_RECALL, Verdict, bootstrap, confusions,
    mean_per_class_recall, verdict,
};
use pairs::Location;
use serde::Serialize;

use super::{
    html::{Card, Page},
    report::{Figure, Figures},
};

/// Classes from which on it says something that the right one is among the first five;
/// that of `CLIP_benchmark`.
const CLASSES_FOR_ACC5: usize = 5;
/// Pairs of classes that are listed.
const MOST_CONFUSIONS: usize = 20;
/// Pictures of each kind on the page.
const MOST_CARDS: usize = 12;

/// What a classifier says about one picture.
pub struct Judged<'a> {
    picture: &'a Location,
    label: usize,
    verdict: Verdict,
    /// Probability of the predicted class.
    sure: f64,
}

impl<'a> Judged<'a> {
    /// `probabilities` are those of all classes.
    pub fn new(picture: &'a Location, label: usize, probabilities: &[f64]) -> Self {
        let verdict = verdict(probabilities, label);
        Self {
            picture,
            label,
            verdict,
            sure: probabilities[verdict.predicted],
        }
    }

    fn is_right(&self) -> bool {
        self.verdict.rank == 0
    }

    fn card(&self, labels: &[String]) -> Card<'a> {
        let mut lines = vec![format!("{:.1} percent sure", 100.0 * self.sure)];
        if !self.is_right() {
            let (own, place) = (&labels[self.label], self.verdict.rank + 1);
            lines.push(format!("is {own}, at place {place}"));
        }
        Card {
            picture: self.picture,
            title: labels[self.verdict.predicted].clone(),
            lines,
        }
    }
}

/// What a report says about classes.
#[derive(Debug, Serialize)]
pub struct Details {
    /// Pictures that were judged.
    pub pictures: usize,
    /// Each class.
    pub classes: Vec<OfClass>,
    /// The pairs that were confused most often.
    pub confusions: Vec<OfPair>,
}

/// One class.
#[derive(Debug, Serialize)]
pub struct OfClass {
    label: String,
    pictures: usize,
    /// Nothing where it has no picture.
    recall: Option<Figure>,
}

/// Two classes, and how often one was taken for the other.
#[derive(Debug, Serialize)]
pub struct OfPair {
    label: String,
    predicted: String,
    count: usize,
}

/// The figures of all pictures.
pub fn figures(judged: &[Judged<'_>], classes: usize, seed: u64) -> Figures {
    let n = judged.len();
    let below = |k: usize| judged.iter().filter(|j| j.verdict.rank < k).count();
    let mut figures = Figures::default();
    figures.add(ACC1, Figure::proportion(below(1), n));
    if classes >= CLASSES_FOR_ACC5 {
        figures.add(ACC5, Figure::proportion(below(5), n));
    }
    let (labels, predicted) = pairs(judged);
    let mut strata = vec![Vec::new(); classes];
    for (i, label) in labels.iter().enumerate() {
        strata[*label].push(i);
    }
    let recall = |drawn: &[u32]| [mean_per_class_recall(&labels, &predicted, drawn)];
    let [drawn] = bootstrap(&strata, seed, recall);
    let [value] = recall(&vec![1; n]);
    figures.add(MEAN_PER_CLASS_RECALL, Figure::drawn(value, drawn, n));
    figures
}

/// Part of the pictures whose class was the most probable one.
pub fn accuracy(judged: &[Judged<'_>]) -> f64 {
    let right = judged.iter().filter(|j| j.is_right()).count();
    right as f64 / judged.len().max(1) as f64
}

/// What is said besides the figures.
pub fn details(judged: &[Judged<'_>], labels: &[String]) -> Details {
    let of_class = |(class, label): (usize, &String)| {
        let own = judged.iter().filter(|j| j.label == class);
        let (pictures, right) = (own.clone().count(), own.filter(|j| j.is_right()).count());
        OfClass {
            label: label.clone(),
            pictures,
            recall: (pictures > 0).then(|| Figure::proportion(right, pictures)),
        }
    };
    let (own, predicted) = pairs(judged);
    let pair = |Confusion {
                    label,
                    predicted,
                    count,
                }| OfPair {
        label: labels[label].clone(),
        predicted: labels[predicted].clone(),
        count,
    };
    let confused = confusions(&own, &predicted);
    Details {
        pictures: judged.len(),
        classes: labels.iter().enumerate().map(of_class).collect(),
        confusions: confused
            .into_iter()
            .take(MOST_CONFUSIONS)
            .map(pair)
            .collect(),
    }
}

fn pairs(judged: &[Judged<'_>]) -> (Vec<usize>, Vec<usize>) {
    judged
        .iter()
        .map(|j| (j.label, j.verdict.predicted))
        .unzip()
}

/// Puts the best and worst cases onto the page, and which classes were confused.
pub fn show(page: &mut Page, judged: &[Judged<'_>], labels: &[String], details: &Details) {
    let mut sorted: Vec<&Judged<'_>> = judged.iter().collect();
    sorted.sort_by(|a, b| b.sure.total_cmp(&a.sure));
    for (heading, right) in [("Surest and wrong", false), ("Surest and right", true)] {
        let cases = sorted.iter().filter(|j| j.is_right() == right);
        let cards: Vec<Card<'_>> = cases.take(MOST_CARDS).map(|j| j.card(labels)).collect();
        page.cards(heading, &cards);
    }
    let confused = details.confusions.iter();
    let confused: Vec<[String; 3]> = confused
        .map(|c| [c.label.clone(), c.predicted.clone(), c.count.to_string()])
        .collect();
    page.table(
        "Confused most often",
        ["class", "taken for", "times"],
        &confused,
    );
    let classes = details.classes.iter().map(|class| {
        let recall = class
            .recall
            .as_ref()
            .map_or_else(Default::default, Figure::cells);
        let [recall, interval] = recall;
        [
            class.label.clone(),
            class.pictures.to_string(),
            recall,
            interval,
        ]
    });
    let classes: Vec<[String; 4]> = classes.collect();
    page.table(
        "Classes",
        ["class", "pictures", "recall", "95 percent interval"],
        &classes,
    );
}
