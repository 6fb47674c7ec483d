//! What linear classifiers learn from, and what they are measured on.

use std::path::Path;

use anyhow::{Context, Result, bail};
use embedding::{Encoded, Modality};
use encoders::Model;
use engine::logistic::{Choice, Logistic, Options, Samples, choose, stratified_folds};
use pairs::Location;
use serde::Serialize;

use super::{
    classes::{self, Classes},
    encode,
    judged::Judged,
};
use crate::{
    args::{AspectArg, ProbeArgs},
    walk::Failure,
};

/// One in so many pictures is measured on, where no folder says which.
const TEST_PART: usize = 5;

/// Encoded pictures with their classes.
#[derive(Debug, Default)]
pub struct Part {
    files: Vec<Location>,
    of: Vec<usize>,
    /// `[files, dim]`.
    rows: Vec<f32>,
}

/// All that a probe needs.
#[derive(Debug)]
pub struct Data {
    /// Names of the classes.
    pub labels: Vec<String>,
    /// Numbers of an embedding.
    pub dim: usize,
    /// What is learned from.
    pub train: Part,
    /// What is measured on.
    pub test: Part,
    /// How the two are told apart.
    pub split: Split,
    /// What cannot be read.
    pub failed: Vec<Failure>,
}

/// How many pictures are learned from, and how many are measured on.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Split {
    /// `folders` or `seeded`.
    by: &'static str,
    /// Pictures to learn from.
    pub train: usize,
    /// Pictures to measure on.
    pub test: usize,
}

/// Finds and encodes the pictures of folders `train` and `test`, or of one that is split by the
/// seed: a fifth of each class is measured on.
///
/// # Errors
/// When the folders are not as expected, a class has too few pictures that can be read, or the
/// model keeps no such embeddings.
pub fn load(args: &ProbeArgs, model: &Model) -> Result<Data> {
    let (folder, names) = (&args.data.folder, args.data.classes.as_deref());
    let options = &args.options;
    let own = folder.join("classes.json");
    let names = names.or_else(|| own.is_file().then_some(own.as_path()));
    let dim = dim(args.aspect, model)?;
    let mut failed = Vec::new();
    let [train, test] = ["train", "test"].map(|part| folder.join(part));
    let find = |folder: &Path| -> Result<Classes> {
        let mut classes = classes::find(folder, names)?;
        classes.limit(options.limit, options.seed);
        Ok(classes)
    };
    let (labels, train, test, by) = if train.is_dir() && test.is_dir() {
        let (train, mut test) = (find(&train)?, find(&test)?);
        for class in &mut test.of {
            let label = &test.labels[*class];
            let there = train.labels.iter().position(|known| known == label);
            *class = there.with_context(|| {
                format!("the class {label:?} is in test and not in train, nothing tells what it is")
            })?;
        }
        let labels = train.labels.clone();
        let train = encode(train, args.aspect, model, &mut failed)?;
        let test = encode(test, args.aspect, model, &mut failed)?;
        (labels, train, test, "folders")
    } else {
        let all = find(folder)?;
        let labels = all.labels.clone();
        let all = encode(all, args.aspect, model, &mut failed)?;
        at_least(&labels, &all, 2)?;
        let folds = stratified_folds(&all.of, TEST_PART, options.seed);
        let [train, test] = [false, true].map(|is_test| {
            let rows = (0..all.of.len()).filter(|i| (folds[*i] == 0) == is_test);
            all.part(&rows.collect::<Vec<usize>>(), dim)
        });
        (labels, train, test, "seeded")
    };
    at_least(&labels, &train, 1)?;
    let split = Split {
        by,
        train: train.of.len(),
        test: test.of.len(),
    };
    Ok(Data {
        labels,
        dim,
        train,
        test,
        split,
        failed,
    })
}

/// Numbers of an embedding of this aspect.
fn dim(aspect: AspectArg, model: &Model) -> Result<usize> {
    let spaces = model.spaces();
    let specific = || {
        let space = spaces.specific(Modality::Image).map(|space| space.dim);
        space.with_context(|| {
            let model = &spaces.model;
            format!("the model {model} keeps nothing specific to pictures: use --aspect shared")
        })
    };
    Ok(match aspect {
        AspectArg::Shared => spaces.shared_dim,
        AspectArg::Specific => specific()?,
        AspectArg::Both => spaces.shared_dim + specific()?,
    })
}

fn encode(
    classes: Classes,
    aspect: AspectArg,
    model: &Model,
    failed: &mut Vec<Failure>,
) -> Result<Part> {
    failed.extend(classes.failed);
    let keep = |encoded: Encoded| {
        let shared = encoded.shared.into_vec();
        if aspect == AspectArg::Shared {
            return Ok(shared);
        }
        let specific = encoded
            .specific
            .context("a picture got no specific embedding")?;
        Ok(match aspect {
            AspectArg::Both => [shared.as_slice(), specific.as_slice()].concat(),
            _ => specific.into_vec(),
        })
    };
    let pictures = encode::pictures(&classes.files, model, failed, keep)?;
    let places = pictures.places.iter();
    Ok(Part {
        files: places.clone().map(|i| classes.files[*i].clone()).collect(),
        of: places.map(|i| classes.of[*i]).collect(),
        rows: pictures.rows.concat(),
    })
}

/// Refuses a class with fewer pictures.
fn at_least(labels: &[String], part: &Part, least: usize) -> Result<()> {
    for (class, label) in labels.iter().enumerate() {
        let count = part.of.iter().filter(|of| **of == class).count();
        if count < least {
            bail!(
                "the class {label:?} has {count} pictures to learn from and to measure on, \
                 expected at least {least}"
            );
        }
    }
    Ok(())
}

impl Part {
    /// The class of each picture.
    pub fn of(&self) -> &[usize] {
        &self.of
    }

    /// The embedding of each picture, `[pictures, dim]`.
    pub fn rows(&self) -> &[f32] {
        &self.rows
    }

    /// Some of the pictures.
    pub fn part(&self, rows: &[usize], dim: usize) -> Self {
        let row = |i: &usize| &self.rows[i * dim..][..dim];
        Self {
            files: rows.iter().map(|i| self.files[*i].clone()).collect(),
            of: rows.iter().map(|i| self.of[*i]).collect(),
            rows: rows.iter().flat_map(row).copied().collect(),
        }
    }
}

impl Data {
    /// Learns from `part` with this `C`, or with the one that cross-validation chooses.
    ///
    /// # Errors
    /// When `C` is not a positive number.
    pub fn learn(
        &self,
        part: &Part,
        c: Option<f64>,
        seed: u64,
    ) -> Result<(Logistic, f64, Option<Choice>)> {
        let samples = Samples::new(&part.rows, self.dim, &part.of, self.labels.len())?;
        let choice = match c {
            Some(_) => None,
            None => Some(choose(&samples, seed)?),
        };
        let c = c.or(choice.as_ref().map(|choice| choice.c)).unwrap_or(1.0);
        let fit = Logistic::fit(&samples, &Options::new(c), None);
        Ok((fit.context("--c")?, c, choice))
    }

    /// What a classifier says about the pictures to measure on.
    pub fn judge(&self, fit: &Logistic) -> Vec<Judged<'_>> {
        self.judge_by(|row| fit.probabilities(row))
    }

    /// The same of anything that gives a row the probabilities of all classes.
    pub fn judge_by(&self, probabilities: impl Fn(&[f32]) -> Vec<f64>) -> Vec<Judged<'_>> {
        let rows = self.test.rows.chunks_exact(self.dim);
        let each = self.test.files.iter().zip(&self.test.of).zip(rows);
        each.map(|((file, of), row)| Judged::new(file, *of, &probabilities(row)))
            .collect()
    }
}
