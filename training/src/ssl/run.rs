//! The training loop.

use std::{path::Path, sync::Arc, time::Instant};

use candle_core::{Device, Tensor};
use encoders::{
    Base, Retrained,
    nn::{Form, ImageTower, unit_rows},
};
use fs_err as fs;
use serde::Serialize;

use super::{
    Measured, Skipped, SslConfig, card,
    judge::{Judge, ProbeSet},
    origin::{Origin, TRAINED, made, text_model},
    pictures::{Copying, Pictures, find},
    tower::{HEAD, Sizes, Tower},
    views::{ViewSource, Views},
};
use crate::{
    TrainingError,
    checkpoint::{self, Checkpoint},
    loader::Loader,
    metrics::Metrics,
    objective::bank::{Bank, BankConfig, follow},
    optimizer::{AdamW, learning_rate},
    parameters::{Detached, Parameters},
    plot,
};

/// Names in a checkpoint: of the keys' encoder, of the bank, and of the number of pictures.
const KEYS: &str = "keys/";
const BANK: &str = "bank";
const PICTURES: &str = "pictures";

/// One line of `metrics.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SslReport {
    /// Steps done.
    pub step: usize,
    /// Loss of the step: the contrast in nats, and the weighted anchor.
    pub loss: f32,
    /// The contrast alone, in nats.
    pub contrast: f32,
    /// One minus the mean cosine to the shared embeddings of before, where that is part of the loss.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub anchor: Option<f32>,
    /// Length of the gradient before clipping.
    pub gradient: f64,
    /// Learning rate of the step.
    pub learning_rate: f64,
    /// Pictures per second of the step.
    pub samples_per_second: f64,
    /// Where the step ended with an evaluation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub measured: Option<Measured>,
}

/// The first line of `metrics.jsonl`.
#[derive(Serialize)]
struct Start<'a> {
    step: usize,
    measured: &'a Measured,
}

/// A run that is under way.
pub struct SslRun {
    /// What is trained: the tower, and the head that is thrown away.
    pub parameters: Parameters,
    /// Files that could not be used.
    pub skipped: Vec<Skipped>,
    /// The tower before the first step.
    pub before: Measured,
    keys: Parameters,
    tower: Tower,
    original: ImageTower,
    sizes: Sizes,
    base: Option<Base>,
    bank: Bank,
    optimizer: AdamW,
    source: Arc<ViewSource>,
    judge: Judge,
    /// What must be equal for the run to go on.
    identity: String,
    step: usize,
}

impl SslRun {
    /// Reads the pictures and prepares a run, or continues the one whose checkpoint is in `folder`.
    /// Nothing is written.
    ///
    /// # Errors
    /// When there are too few pictures, the model or the labeled pictures cannot be used, or the run in
    /// the folder is of another configuration, of another model or of another number of pictures.
    pub fn open(config: &SslConfig, folder: &Path, device: &Device) -> Result<Self, TrainingError> {
        let Origin {
            base,
            sizes,
            preprocess,
            side,
        } = Origin::of(config)?;
        let fingerprint = base.as_ref().map(|base| base.fingerprint().to_string());
        let identity = config.describe(fingerprint.as_deref().unwrap_or("nothing"));
        let saved = Checkpoint::read(&checkpoint::file(folder), &identity, None)?;

        let copying = Copying::new(preprocess, side, config.data.memory_mib);
        let mut files = Vec::new();
        for folder in &config.data.folders {
            files.extend(find(folder)?);
        }
        let (pictures, mut skipped) = Pictures::read(&files, copying);
        if pictures.len() < config.optimizer.batch {
            return Err(TrainingError::TooFewPictures {
                usable: pictures.len(),
                skipped: skipped.len(),
                batch: config.optimizer.batch,
            });
        }
        let pictures = Arc::new(pictures);
        let make = || made(config.seed, base.as_ref(), &sizes, device);
        // Copies of their own: a tower that is only run shares the memory of its parameters.
        let original = Tower::new(&mut Detached(&make()?), &sizes, Form::Fused)?.image;
        let (mut parameters, keys) = (make()?, make()?);
        let tower = Tower::new(&mut parameters, &sizes, TRAINED)?;
        let probe = match &config.probe {
            None => None,
            Some(probe) => {
                let model = base.as_ref().map(|_| text_model(config)).transpose()?;
                let copying = pictures.copying();
                let (set, unusable) = ProbeSet::open(probe, config.seed, copying, model.as_ref())?;
                skipped.extend(unusable);
                Some(set)
            }
        };
        let of = (config.seed, device);
        let judge = Judge::new(probe, Arc::clone(&pictures), &original, base.is_some(), of)?;
        let mut run = Self {
            before: judge.measure(&original)?,
            bank: Bank::seeded(config.contrast.queue, sizes.key, config.seed, device)?,
            optimizer: AdamW::default(),
            source: Arc::new(ViewSource {
                pictures,
                config: config.clone(),
                side,
            }),
            step: 0,
            parameters,
            skipped,
            keys,
            tower,
            original,
            sizes,
            base,
            judge,
            identity,
        };
        if let Some(saved) = saved {
            run.restore(&saved, folder)?;
        }
        Ok(run)
    }

    fn restore(&mut self, saved: &Checkpoint, folder: &Path) -> Result<(), TrainingError> {
        let (known, found) = (saved.tensor(PICTURES)?, self.source.pictures.len());
        let known = known.to_scalar::<i64>()?;
        if known != found as i64 {
            return Err(TrainingError::Checkpoint {
                file: checkpoint::file(folder),
                problem: format!(
                    "learned from {known} pictures and {found} are there; use the pictures that the \
                     run began with, or another folder"
                ),
            });
        }
        let restored = saved.restore(&mut self.parameters)?;
        (self.optimizer, self.step) = (restored.optimizer, restored.step);
        for (name, _) in self.keys.all() {
            self.keys
                .set(name, saved.tensor(&format!("{KEYS}{name}"))?)?;
        }
        let keys = saved.tensor(BANK)?.to_device(self.parameters.device())?;
        self.bank = Bank::from_keys(&keys)?;
        Ok(())
    }

    /// Steps done.
    pub fn step(&self) -> usize {
        self.step
    }

    /// Number of pictures that it learns from.
    pub fn pictures(&self) -> usize {
        self.source.pictures.len()
    }

    /// Runs up to `until` steps in all; every report goes to `metrics.jsonl` and to `observe`.
    ///
    /// # Errors
    /// When the loss or its gradient stops being a number, a picture can no longer be read, or a file
    /// cannot be written.
    pub fn train(
        &mut self,
        folder: &Path,
        until: usize,
        observe: &mut dyn FnMut(&SslReport),
    ) -> Result<(), TrainingError> {
        let options = self.source.config.optimizer.clone();
        let until = until.min(options.steps);
        fs::create_dir_all(folder)?;
        self.list_skipped(folder)?;
        let mut metrics = Metrics::open(folder, self.step)?;
        if self.step == 0 {
            let (step, measured) = (0, &self.before);
            metrics.write(&Start { step, measured })?;
        }
        let source = Arc::clone(&self.source);
        let loader = Loader::start(self.step, move |step| source.batch(step));
        while self.step < until {
            let started = Instant::now();
            let views = loader.next(self.step)?;
            let mut report = self.one_step(views)?;
            report.samples_per_second = options.batch as f64 / started.elapsed().as_secs_f64();
            if self.step == options.steps || self.step.is_multiple_of(options.evaluate_every) {
                report.measured = Some(self.measure()?);
            }
            // Before the checkpoint: a line too many is dropped later, one too few is lost.
            metrics.write(&report)?;
            if self.step == until || self.step.is_multiple_of(options.checkpoint_every) {
                checkpoint::save(&checkpoint::file(folder), &self.state()?)?;
            }
            if report.measured.is_some() {
                plot::draw_run(folder, options.steps)?;
            }
            observe(&report);
        }
        Ok(())
    }

    /// The figures of the tower as it is now.
    ///
    /// # Errors
    /// When a picture can no longer be read, or the network fails.
    pub fn measure(&self) -> Result<Measured, TrainingError> {
        let settled = self.parameters.settled()?;
        let tower = Tower::new(&mut Detached(&settled), &self.sizes, Form::Fused)?;
        self.judge.measure(&tower.image)
    }

    /// Writes the model folder that the tower comes from with the tower as it is now, and returns its
    /// figures.
    ///
    /// # Errors
    /// When the tower comes from none, or the folder cannot be written.
    pub fn export(&self, folder: &Path) -> Result<Measured, TrainingError> {
        let base = self.base.as_ref().ok_or(TrainingError::NoTextTower)?;
        let measured = self.measure()?;
        let settled = self.parameters.settled()?;
        let tower = settled.all().filter(|(name, _)| !name.starts_with(HEAD));
        let seen = (self.pictures(), self.step);
        let retrained = Retrained {
            tensors: tower
                .map(|(name, var)| (name, var.as_tensor().clone()))
                .collect(),
            stored: None,
            card: card::adapted(base.card(), &self.source.config, seen, &measured),
        };
        base.write(&retrained, folder)?;
        Ok(measured)
    }

    fn list_skipped(&self, folder: &Path) -> Result<(), TrainingError> {
        let line = |s: &Skipped| format!("{}\t{}\n", s.file.display(), s.reason);
        let lines: String = self.skipped.iter().map(line).collect();
        Ok(fs::write(folder.join("skipped.tsv"), lines)?)
    }

    fn state(&self) -> Result<checkpoint::State<'_>, TrainingError> {
        let keys = self.keys.all();
        let mut others: Vec<(String, Tensor)> = keys
            .map(|(name, var)| (format!("{KEYS}{name}"), var.as_tensor().clone()))
            .collect();
        others.push((BANK.to_owned(), self.bank.keys().clone()));
        let pictures = Tensor::new(self.pictures() as i64, &Device::Cpu)?;
        others.push((PICTURES.to_owned(), pictures));
        Ok(checkpoint::State {
            identity: &self.identity,
            tokenizer: "",
            base: None,
            parameters: &self.parameters,
            optimizer: &self.optimizer,
            memory: None,
            others,
            step: self.step,
        })
    }

    fn one_step(&mut self, views: Views) -> Result<SslReport, TrainingError> {
        let (contrast, options) = {
            let config = &self.source.config;
            (config.contrast.clone(), config.optimizer.clone())
        };
        let (device, side) = (self.parameters.device(), self.source.side);
        let n = options.batch;
        let pixels = |values: Vec<f32>| Tensor::from_vec(values, (n, 3, side, side), device);
        // Statistics follow, too: keys are normalized by running ones of their own, since those of the
        // batch would tell a query which batch its key is in (He et al. 2020, section 3.3).
        follow(self.keys.all(), self.parameters.all(), contrast.momentum)?;
        let keys = Tower::new(&mut Detached(&self.keys), &self.sizes, Form::Fused)?;
        let keys = keys.contrasted(&keys.image.pooled(&pixels(views.keys)?)?)?;

        let queries = pixels(views.queries)?;
        let still = views.still.map(pixels).transpose()?;
        let all = match &still {
            Some(still) => Tensor::cat(&[&queries, still], 0)?,
            None => queries,
        };
        let pooled = self.tower.image.pooled(&all)?;
        let queries = self.tower.contrasted(&pooled.narrow(0, 0, n)?)?;
        let told = BankConfig {
            temperature: contrast.temperature,
            hardest: contrast.hard_negatives,
        };
        let contrasted = self.bank.loss(&queries, &keys, &told)?;
        let anchor = still
            .map(|still| {
                let now = self.tower.image.project(&pooled.narrow(0, n, n)?)?;
                let before = self.original.project(&self.original.pooled(&still)?)?;
                one_minus_cosine(&now, &before.detach())
            })
            .transpose()?;
        let loss = match &anchor {
            Some(anchor) => (&contrasted + (anchor * contrast.anchor)?)?,
            None => contrasted.clone(),
        };
        let value = loss.to_scalar::<f32>()?;
        if !value.is_finite() {
            return Err(TrainingError::Diverged {
                step: self.step,
                loss: value,
            });
        }
        let gradients = loss.backward()?;
        let gradient = self
            .optimizer
            .step(&self.parameters, &gradients, &options, self.step)?;
        self.parameters.track(self.tower.image.take_statistics())?;
        if options.average > 0.0 {
            self.parameters.average(options.average)?;
        }
        self.bank.push(&keys)?;
        let rate = learning_rate(&options, self.step);
        self.step += 1;
        Ok(SslReport {
            step: self.step,
            loss: value,
            contrast: contrasted.to_scalar()?,
            anchor: anchor.as_ref().map(Tensor::to_scalar).transpose()?,
            gradient,
            learning_rate: rate,
            samples_per_second: 0.0,
            measured: None,
        })
    }
}

/// Mean over rows `[n, dim]` of any length.
fn one_minus_cosine(a: &Tensor, b: &Tensor) -> candle_core::Result<Tensor> {
    let cosines = (unit_rows(a)? * unit_rows(b)?)?.sum(1)?;
    cosines.mean_all()?.affine(-1.0, 1.0)
}
