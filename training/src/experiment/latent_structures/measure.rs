//! What is read from trained towers.

use std::fmt;

use candle_core::Tensor;
use embedding::Embedding;
use engine::{
    logistic::{Logistic, Options, Samples},
    metrics::recall_at_k,
};

use super::{
    data::{Pairs, VALUES},
    towers::{Encoded, Towers},
};
use crate::TrainingError;

/// Neighbors that are looked at.
const NEIGHBORS: usize = 10;

/// Figures of one arm; shares are from 0 to 1.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Measured {
    /// Recall at 1 across modalities, mean of both directions.
    pub(super) recall: f64,
    /// Accuracy of a linear probe for the image's attribute.
    pub(super) probe_shared: f64,
    pub(super) probe_specific: f64,
    pub(super) probe_both: f64,
    /// The same for the text's attribute.
    pub(super) probe_text_shared: f64,
    pub(super) probe_text_both: f64,
    /// Share of the ten nearest images with the same attribute.
    pub(super) neighbors_shared: f64,
    pub(super) neighbors_specific: f64,
    /// Mean squared cosine of an image's two embeddings.
    pub(super) squared_cosine: f64,
}

/// Encodes both sets, fits the probes on the first and measures on the second.
pub(super) fn measure(
    towers: &Towers,
    training: &Pairs,
    test: &Pairs,
) -> Result<Measured, TrainingError> {
    let [known_image, image] = [training, test].map(|pairs| towers.image.encode(&pairs.image));
    let [known_text, text] = [training, test].map(|pairs| towers.text.encode(&pairs.text));
    let (known_image, image, known_text, text) = (known_image?, image?, known_text?, text?);
    let of_image = |part: Part| -> Result<f64, TrainingError> {
        let (known, rows) = (part(&known_image)?, part(&image)?);
        let known = (&known, &training.image_attributes[..]);
        Ok(probe(known, (&rows, &test.image_attributes))?.accuracy)
    };
    let of_text = |part: Part| -> Result<f64, TrainingError> {
        let (known, rows) = (part(&known_text)?, part(&text)?);
        let known = (&known, &training.text_attributes[..]);
        Ok(probe(known, (&rows, &test.text_attributes))?.accuracy)
    };
    let shared: Part = |e| Ok(e.shared.clone());
    let both: Part = |e| Tensor::cat(&[&e.shared, &e.specific], 1);
    let (images, texts) = (embeddings(&image.shared)?, embeddings(&text.shared)?);
    let recall = |a: &[Embedding], b: &[Embedding]| recall_at_k(a, b, |i| vec![i], &[1])[0];
    let neighbors = |of: &[Embedding]| neighbors(of, &test.image_attributes);
    let cosines = (&image.shared * &image.specific)?.sum(1)?;
    Ok(Measured {
        recall: f64::midpoint(recall(&images, &texts), recall(&texts, &images)),
        probe_shared: of_image(shared)?,
        probe_specific: of_image(|e| Ok(e.specific.clone()))?,
        probe_both: of_image(both)?,
        probe_text_shared: of_text(shared)?,
        probe_text_both: of_text(both)?,
        neighbors_shared: neighbors(&images),
        neighbors_specific: neighbors(&embeddings(&image.specific)?),
        squared_cosine: f64::from(cosines.sqr()?.mean_all()?.to_scalar::<f32>()?),
    })
}

impl Measured {
    /// Mean of every figure.
    pub(super) fn mean(of: &[Self]) -> Self {
        let mean = |figure: fn(&Self) -> f64| average(of.iter().map(figure));
        Self {
            recall: mean(|m| m.recall),
            probe_shared: mean(|m| m.probe_shared),
            probe_specific: mean(|m| m.probe_specific),
            probe_both: mean(|m| m.probe_both),
            probe_text_shared: mean(|m| m.probe_text_shared),
            probe_text_both: mean(|m| m.probe_text_both),
            neighbors_shared: mean(|m| m.neighbors_shared),
            neighbors_specific: mean(|m| m.neighbors_specific),
            squared_cosine: mean(|m| m.squared_cosine),
        }
    }
}

/// The two sides of Theorem 3.1 (Jiang et al. 2023) for Y = the image's attribute, of which the text
/// knows nothing: losses of linear probes on test pairs in nats.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Gap {
    /// From the hidden layer of the image tower, which stands for the inputs.
    inputs: f64,
    /// From the shared embeddings of image and text.
    aligned_by_training: f64,
    /// From the text's shared embedding in place of both: alignment is perfect then.
    aligned: f64,
    /// Accuracy of the first of these probes.
    pub(super) probe_inputs: f64,
}

/// Measures the theorem's losses on towers that were trained across modalities only.
pub(super) fn gap(towers: &Towers, training: &Pairs, test: &Pairs) -> Result<Gap, TrainingError> {
    let [known_image, image] = [training, test].map(|pairs| towers.image.encode(&pairs.image));
    let [known_text, text] = [training, test].map(|pairs| towers.text.encode(&pairs.text));
    let (known_image, image, known_text, text) = (known_image?, image?, known_text?, text?);
    let of = |known: &Tensor, test_rows: &Tensor| {
        let known = (known, &training.image_attributes[..]);
        probe(known, (test_rows, &test.image_attributes[..]))
    };
    let inputs = of(&known_image.hidden, &image.hidden)?;
    let both = of(
        &Tensor::cat(&[&known_image.shared, &known_text.shared], 1)?,
        &Tensor::cat(&[&image.shared, &text.shared], 1)?,
    )?;
    Ok(Gap {
        inputs: inputs.loss,
        aligned_by_training: both.loss,
        aligned: of(&known_text.shared, &text.shared)?.loss,
        probe_inputs: inputs.accuracy,
    })
}

impl Gap {
    /// What the image tells of the attribute and the text does not, in nats. A probe reads at most
    /// what is there, so that this is a lower bound of the paper's information gap.
    pub(super) fn information(&self) -> f64 {
        (VALUES as f64).ln() - self.inputs
    }

    /// By how much the loss from perfectly aligned embeddings exceeds that from the inputs.
    pub(super) fn excess_aligned(&self) -> f64 {
        self.aligned - self.inputs
    }

    /// The same for the embeddings that training aligned.
    pub(super) fn excess_as_trained(&self) -> f64 {
        self.aligned_by_training - self.inputs
    }

    /// Mean of every loss.
    pub(super) fn mean(of: &[Self]) -> Self {
        let mean = |figure: fn(&Self) -> f64| average(of.iter().map(figure));
        Self {
            inputs: mean(|g| g.inputs),
            aligned_by_training: mean(|g| g.aligned_by_training),
            aligned: mean(|g| g.aligned),
            probe_inputs: mean(|g| g.probe_inputs),
        }
    }
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "| loss of a probe for the image's attribute, cross-modal towers | nats |\n|---|---|\n\
             | from the hidden layer ({:.3} right) | {:.3} |\n\
             | from [z_V; z_T] as trained | {:.3} |\n\
             | from z_T for both, aligned perfectly | {:.3} |\n\
             | information gap, at least | {:.3} |",
            self.probe_inputs,
            self.inputs,
            self.aligned_by_training,
            self.aligned,
            self.information()
        )
    }
}

/// Which embeddings a probe sees.
type Part = fn(&Encoded) -> candle_core::Result<Tensor>;

struct Probed {
    accuracy: f64,
    /// Mean negative logarithm of the right value's probability.
    loss: f64,
}

/// A logistic probe learned from the first rows and labels, on the second.
fn probe(
    (known, known_labels): (&Tensor, &[usize]),
    (rows, labels): (&Tensor, &[usize]),
) -> Result<Probed, TrainingError> {
    let dim = known.dim(1)?;
    let known = known.flatten_all()?.to_vec1::<f32>()?;
    let samples = Samples::new(&known, dim, known_labels, VALUES);
    let samples = samples.map_err(candle_core::Error::wrap)?;
    let fitted = Logistic::fit(&samples, &Options::new(1.0), None);
    let fitted = fitted.map_err(candle_core::Error::wrap)?;
    let (mut right, mut loss) = (0, 0.0);
    for (row, label) in rows.to_vec2::<f32>()?.iter().zip(labels) {
        let probabilities = fitted.probabilities(row);
        let best = (0..VALUES).max_by(|a, b| probabilities[*a].total_cmp(&probabilities[*b]));
        right += usize::from(best == Some(*label));
        loss -= probabilities[*label].ln();
    }
    let n = labels.len() as f64;
    Ok(Probed {
        accuracy: right as f64 / n,
        loss: loss / n,
    })
}

/// Mean share of the nearest other items that have the item's own label.
fn neighbors(items: &[Embedding], labels: &[usize]) -> f64 {
    average(items.iter().enumerate().map(|(i, item)| {
        let mut others: Vec<usize> = (0..items.len()).filter(|j| *j != i).collect();
        others.sort_by(|a, b| items[*b].cosine(item).total_cmp(&items[*a].cosine(item)));
        let same = |j: &&usize| labels[**j] == labels[i];
        others.iter().take(NEIGHBORS).filter(same).count() as f64 / NEIGHBORS as f64
    }))
}

fn embeddings(rows: &Tensor) -> Result<Vec<Embedding>, TrainingError> {
    let rows = rows.to_vec2::<f32>()?.into_iter();
    rows.map(|row| Ok(Embedding::normalized(row)?)).collect()
}

fn average(figures: impl ExactSizeIterator<Item = f64>) -> f64 {
    let n = figures.len() as f64;
    figures.sum::<f64>() / n
}
