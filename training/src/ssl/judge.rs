//! How good an image tower is for labeled pictures that it was not trained with labels of, and how far its
//! embeddings have moved.

use std::{collections::BTreeMap, fmt::Write as _, path::PathBuf, sync::Arc};

use candle_core::{Device, Tensor};
use embedding::Embedding;
use encoders::{
    Model,
    nn::{ImageTower, unit_rows},
};
use engine::{
    Draws,
    logistic::{Logistic, Options, Samples, choose},
    metrics::verdict,
};
use fs_err as fs;
use serde::Serialize;

use super::{
    ProbeConfig, Skipped,
    pictures::{Copying, Pictures, find},
};
use crate::TrainingError;

/// Pictures that one pass takes.
const PASS: usize = 64;
/// Pictures on which it is measured how far embeddings have moved.
const REFERENCES: usize = 256;
/// Neighbors that vote, and the temperature of their votes (Wu et al. 2018, section 3.4).
const NEIGHBORS: usize = 200;
const VOTE_TEMPERATURE: f64 = 0.1;

/// What a tower is worth.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Measured {
    /// On labeled pictures, where there are any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probe: Option<Probed>,
    /// Mean cosine of shared embeddings of pictures to those of the tower that it comes from, where it
    /// comes from one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cosine_to_original: Option<f64>,
}

/// Shares of the tested pictures whose class is told right.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Probed {
    /// By a logistic head on pooled outputs of unit length.
    pub linear_features: f64,
    /// By a logistic head on shared embeddings, where there is a shared space.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub linear_shared: Option<f64>,
    /// By the votes of the nearest pooled outputs.
    pub neighbors: f64,
    /// By the nearest name of a class, where there is a text tower.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zero_shot: Option<f64>,
}

/// Figures of two towers side by side, as Markdown.
pub fn table(before: &Measured, after: &Measured) -> String {
    let mut table = String::from("| | before | after |\n|---|---|---|\n");
    let mut row = |name: &str, figure: &dyn Fn(&Measured) -> Option<f64>| {
        if let (Some(before), Some(after)) = (figure(before), figure(after)) {
            let _ = writeln!(table, "| {name} | {before:.3} | {after:.3} |");
        }
    };
    let probe = |m: &Measured, of: fn(&Probed) -> Option<f64>| m.probe.as_ref().and_then(of);
    row("linear head on features", &|m| {
        probe(m, |p| Some(p.linear_features))
    });
    row("linear head on shared embeddings", &|m| {
        probe(m, |p| p.linear_shared)
    });
    row("nearest neighbors of features", &|m| {
        probe(m, |p| Some(p.neighbors))
    });
    row("zero-shot by the names of the folders", &|m| {
        probe(m, |p| p.zero_shot)
    });
    row("mean cosine to the shared embeddings of before", &|m| {
        m.cosine_to_original
    });
    table
}

/// Labeled pictures.
pub(super) struct ProbeSet {
    pictures: Pictures,
    labels: Vec<usize>,
    /// Pictures that heads learn from, and those that they are tested on.
    learned: Vec<usize>,
    tested: Vec<usize>,
    classes: usize,
    /// Shared embeddings of the names, where there is a text tower.
    names: Option<Vec<Embedding>>,
}

impl ProbeSet {
    /// Draws pictures of every class by `seed`; `model` encodes the names.
    pub(super) fn open(
        config: &ProbeConfig,
        seed: u64,
        copying: Copying,
        model: Option<&Model>,
    ) -> Result<(Self, Vec<Skipped>), TrainingError> {
        let problem = |problem: String| TrainingError::Probe {
            folder: config.folder.clone(),
            problem,
        };
        let folders = class_folders(config)?;
        if folders.len() < 2 {
            let count = folders.len();
            return Err(problem(format!(
                "it holds {count} folders of classes, expected at least 2"
            )));
        }
        let mut label_of = BTreeMap::new();
        let mut files = Vec::new();
        for (class, folder) in folders.values().enumerate() {
            let mut of_class = find(folder)?;
            Draws::new(&[seed, class as u64]).shuffle(&mut of_class);
            of_class.truncate(config.shots.saturating_add(config.tests));
            label_of.extend(of_class.iter().cloned().map(|file| (file, class)));
            files.extend(of_class);
        }
        let (pictures, skipped) = Pictures::read(&files, copying);
        let labels: Vec<usize> = pictures
            .files()
            .iter()
            .filter_map(|file| label_of.get(file).copied())
            .collect();
        let (mut learned, mut tested) = (Vec::new(), Vec::new());
        for (class, name) in folders.keys().enumerate() {
            let own: Vec<usize> = (0..labels.len()).filter(|i| labels[*i] == class).collect();
            if own.len() <= config.shots {
                let (count, shots) = (own.len(), config.shots);
                return Err(problem(format!(
                    "class {name} has {count} pictures that can be read, expected more than \
                     probe.shots = {shots}"
                )));
            }
            let (shots, tests) = own.split_at(config.shots);
            learned.extend_from_slice(shots);
            tested.extend_from_slice(tests);
        }
        let words: Vec<String> = folders.keys().map(|n| n.replace(['_', '-'], " ")).collect();
        let names = model.map(|model| model.text().encode(&words)).transpose()?;
        let set = Self {
            pictures,
            labels,
            learned,
            tested,
            classes: folders.len(),
            names: names.map(|names| names.into_iter().map(|n| n.shared).collect()),
        };
        Ok((set, skipped))
    }

    fn measure(
        &self,
        tower: &ImageTower,
        device: &Device,
        shared: bool,
    ) -> Result<Probed, TrainingError> {
        let of = |places: &[usize]| Rows::of(tower, &self.pictures, places, device);
        let (known, tested) = (of(&self.learned)?, of(&self.tested)?);
        let label = |places: &[usize]| places.iter().map(|i| self.labels[*i]).collect();
        let labels: [Vec<usize>; 2] = [label(&self.learned), label(&self.tested)];
        let linear = |known: &[Embedding], tested: &[Embedding]| {
            linear_accuracy([known, tested], [&labels[0], &labels[1]], self.classes)
        };
        let linear_shared = shared.then(|| linear(&known.shared, &tested.shared));
        let zero_shot = self.names.as_ref().map(|names| {
            share_right(&tested.shared, &labels[1], |row| {
                names.iter().map(|n| f64::from(n.cosine(row))).collect()
            })
        });
        let neighbors = share_right(&tested.pooled, &labels[1], |row| {
            votes(row, &known.pooled, &labels[0], self.classes)
        });
        Ok(Probed {
            linear_features: linear(&known.pooled, &tested.pooled)?,
            linear_shared: linear_shared.transpose()?,
            neighbors,
            zero_shot,
        })
    }
}

/// The folder of each class by its name.
fn class_folders(config: &ProbeConfig) -> Result<BTreeMap<String, PathBuf>, TrainingError> {
    let mut folders = BTreeMap::new();
    for entry in fs::read_dir(&config.folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.path().is_dir() && !name.starts_with('.') {
            folders.insert(name, entry.path());
        }
    }
    Ok(folders)
}

/// Measures towers.
pub(super) struct Judge {
    pub probe: Option<ProbeSet>,
    pictures: Arc<Pictures>,
    /// Pictures whose embeddings are compared, and what they were; none without a shared space.
    references: Option<(Vec<usize>, Vec<Embedding>)>,
    device: Device,
}

impl Judge {
    /// `original` is the tower before training; `seed` draws the pictures that are compared, where there
    /// is a `shared` space.
    pub(super) fn new(
        probe: Option<ProbeSet>,
        pictures: Arc<Pictures>,
        original: &ImageTower,
        shared: bool,
        (seed, device): (u64, &Device),
    ) -> Result<Self, TrainingError> {
        let references = if shared {
            let drawn = Draws::new(&[seed]).subset(REFERENCES, pictures.len());
            let rows = Rows::of(original, &pictures, &drawn, device)?;
            Some((drawn, rows.shared))
        } else {
            None
        };
        Ok(Self {
            probe,
            pictures,
            references,
            device: device.clone(),
        })
    }

    /// The figures of a tower that is only run.
    pub(super) fn measure(&self, tower: &ImageTower) -> Result<Measured, TrainingError> {
        let shared = self.references.is_some();
        let probe = self.probe.as_ref();
        let probe = probe.map(|probe| probe.measure(tower, &self.device, shared));
        let moved = self.references.as_ref().map(|(places, before)| {
            let now = Rows::of(tower, &self.pictures, places, &self.device)?.shared;
            let cosines = now.iter().zip(before).map(|(a, b)| f64::from(a.cosine(b)));
            Ok::<_, TrainingError>(cosines.sum::<f64>() / before.len().max(1) as f64)
        });
        Ok(Measured {
            probe: probe.transpose()?,
            cosine_to_original: moved.transpose()?,
        })
    }
}

/// Outputs of unit length, one for each picture.
struct Rows {
    pooled: Vec<Embedding>,
    shared: Vec<Embedding>,
}

impl Rows {
    fn of(
        tower: &ImageTower,
        pictures: &Pictures,
        places: &[usize],
        device: &Device,
    ) -> Result<Self, TrainingError> {
        let mut rows = Self {
            pooled: Vec::with_capacity(places.len()),
            shared: Vec::with_capacity(places.len()),
        };
        for part in places.chunks(PASS) {
            let mut pixels = Vec::new();
            for i in part {
                pixels.extend(pictures.prepared(*i)?);
            }
            // Squares in three colors.
            let side = (pixels.len() / (3 * part.len())).isqrt();
            let pixels = Tensor::from_vec(pixels, (part.len(), 3, side, side), device)?;
            let pooled = tower.pooled(&pixels)?;
            let shared = unit_rows(&tower.project(&pooled)?)?;
            for (all, part) in [(&mut rows.pooled, &pooled), (&mut rows.shared, &shared)] {
                for row in part.to_vec2::<f32>()? {
                    all.push(Embedding::normalized(row)?);
                }
            }
        }
        Ok(rows)
    }
}

/// Share of rows whose own class has the highest score.
fn share_right(
    rows: &[Embedding],
    labels: &[usize],
    scores: impl Fn(&Embedding) -> Vec<f64>,
) -> f64 {
    let right = rows.iter().zip(labels);
    let right = right.filter(|(row, label)| verdict(&scores(row), **label).rank == 0);
    right.count() as f64 / rows.len().max(1) as f64
}

/// Accuracy of a logistic head that learns from the first rows, its penalty chosen on them alone, on the
/// second.
fn linear_accuracy(
    [known, tested]: [&[Embedding]; 2],
    [known_labels, labels]: [&[usize]; 2],
    classes: usize,
) -> Result<f64, TrainingError> {
    let dim = known.first().map_or(0, Embedding::dim);
    let rows: Vec<f32> = known
        .iter()
        .flat_map(Embedding::as_slice)
        .copied()
        .collect();
    let samples = Samples::new(&rows, dim, known_labels, classes)?;
    let c = choose(&samples, 0)?.c;
    let head = Logistic::fit(&samples, &Options::new(c), None)?;
    Ok(share_right(tested, labels, |row| {
        head.probabilities(row.as_slice())
    }))
}

/// Votes of the nearest rows for their classes.
fn votes(row: &Embedding, known: &[Embedding], known_labels: &[usize], classes: usize) -> Vec<f64> {
    let mut near: Vec<(f64, usize)> = known
        .iter()
        .zip(known_labels)
        .map(|(other, label)| (f64::from(row.cosine(other)), *label))
        .collect();
    near.sort_by(|a, b| b.0.total_cmp(&a.0));
    let mut votes = vec![0.0; classes];
    for (cosine, label) in near.into_iter().take(NEIGHBORS) {
        votes[label] += (cosine / VOTE_TEMPERATURE).exp();
    }
    votes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(degrees: f32) -> Embedding {
        let angle = degrees.to_radians();
        Embedding::normalized(vec![angle.cos(), angle.sin()]).expect("a unit row")
    }

    #[test]
    fn the_nearest_rows_vote_by_their_cosine() {
        let known = [at(0.0), at(5.0), at(90.0), at(95.0), at(100.0)];
        let labels = [0, 0, 1, 1, 1];
        let near_first = votes(&at(10.0), &known, &labels, 2);
        assert!(near_first[0] > near_first[1], "{near_first:?}");
        let by_hand = (f64::from(at(10.0).cosine(&at(0.0))) / 0.1).exp()
            + (f64::from(at(10.0).cosine(&at(5.0))) / 0.1).exp();
        assert!((near_first[0] - by_hand).abs() < 1e-6 * by_hand);
        let right = share_right(&[at(10.0), at(80.0), at(89.0)], &[0, 1, 0], |row| {
            votes(row, &known, &labels, 2)
        });
        assert!((right - 2.0 / 3.0).abs() < 1e-9, "{right}");
    }

    #[test]
    fn a_head_tells_apart_what_a_line_can() {
        let known: Vec<Embedding> = (0..10).map(|i| at(i as f32 * 18.0)).collect();
        let labels: Vec<usize> = (0..10).map(|i| usize::from(i >= 5)).collect();
        let accuracy = linear_accuracy(
            [&known, &[at(20.0), at(160.0), at(150.0)]],
            [&labels, &[0, 1, 0]],
            2,
        );
        let accuracy = accuracy.expect("a head");
        assert!((accuracy - 2.0 / 3.0).abs() < 1e-9, "{accuracy}");
    }

    #[test]
    fn a_table_shows_what_was_measured_on_both_sides() {
        let measured = |linear: f64, cosine: Option<f64>| Measured {
            probe: Some(Probed {
                linear_features: linear,
                linear_shared: None,
                neighbors: 0.25,
                zero_shot: None,
            }),
            cosine_to_original: cosine,
        };
        let table = table(&measured(0.5, Some(1.0)), &measured(0.625, Some(0.875)));
        assert!(table.contains("| linear head on features | 0.500 | 0.625 |"));
        assert!(table.contains("of before | 1.000 | 0.875 |"), "{table}");
        assert!(!table.contains("zero-shot") && !table.contains("linear head on shared"));
    }
}
