//! The training loop.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Instant};

use candle_core::{DType, Device, Tensor};
use encoders::{
    Filter, Normalization, PreprocessConfig, TextTokenizer,
    nn::{Form, NetworkConfig},
};
use fs_err as fs;
use pairs::Skipped;
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

use crate::{
    TrainingError,
    checkpoint::{self, Checkpoint, Restored},
    config::RunConfig,
    data::{Data, Evaluation},
    evaluate::{StyleRecall, evaluate},
    loader::{Batch, Batches, Loader},
    metrics::Metrics,
    objective::{
        MAX_LOGIT_SCALE,
        gamma::{Anchors, GammaReport, LogZ, TwoWay},
        latent::{Latent, LatentReport, Positives, Views, cross_modal, with_structures},
        logits,
    },
    optimizer::{AdamW, learning_rate},
    parameters::Parameters,
    plot, tokenizer,
    towers::Towers,
};

/// One line of `metrics.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StepReport {
    /// Steps done.
    pub step: usize,
    /// Loss of the step in nats.
    pub loss: f32,
    /// Values of its terms before they were weighted.
    #[serde(flatten)]
    pub terms: LatentReport,
    /// What the gamma-augmented contrast saw, where it is used.
    #[serde(flatten)]
    pub gamma: Option<GammaReport>,
    /// Length of the gradient before clipping.
    pub gradient: f64,
    /// Factor from cosines to logits.
    pub logit_scale: f64,
    /// Learning rate of the step.
    pub learning_rate: f64,
    /// Pairs per second of the step.
    pub samples_per_second: f64,
    /// Recall by held-out style, where the step ended with an evaluation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held_out: Option<BTreeMap<String, StyleRecall>>,
    /// Recall on the validation pairs by name, where the step ended with an evaluation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub validation: Option<BTreeMap<String, f64>>,
    /// Pictures that could not be read: others were seen in their places, or fewer where the step ended
    /// with an evaluation.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub skipped: Vec<Skipped>,
}

/// A run that is under way.
pub struct Run {
    /// The weights.
    pub parameters: Parameters,
    /// Sizes of the towers.
    pub network: NetworkConfig,
    /// Contents of `tokenizer.json`.
    pub tokenizer: String,
    /// What the image tower wants to see.
    pub preprocess: PreprocessConfig,
    config: RunConfig,
    words: TextTokenizer,
    towers: Towers,
    optimizer: AdamW,
    memory: Option<TwoWay>,
    source: Arc<dyn Batches>,
    evaluation: Evaluation,
    step: usize,
}

impl Run {
    /// Prepares a run, or continues the one whose checkpoint is in `folder`. Nothing is written.
    ///
    /// # Errors
    /// When the configuration differs from that of the run in the folder, or when there is no run
    /// and too little to train on.
    pub fn open(
        config: &RunConfig,
        data: impl Into<Data>,
        folder: &Path,
        device: &Device,
    ) -> Result<Self, TrainingError> {
        let data = data.into();
        let saved = Checkpoint::read(folder, config)?;
        // Token ids mean something to the weights of their own run only.
        let tokenizer = if let Some(saved) = &saved {
            saved.tokenizer.clone()
        } else {
            data.check(config.optimizer.batch)?;
            data.tokenizer(config.model.text.vocabulary)?
        };
        let context = config.model.text.context_length;
        let words = tokenizer::load(&tokenizer, &checkpoint::file(folder), context)?;
        let end = words.id(tokenizer::END).unwrap_or_default();
        let network = config.model.network(words.vocabulary(), end);
        let mut parameters = Parameters::seeded(config.seed, device.clone());
        let form = Form::Differentiable {
            batch_statistics: true,
        };
        let specific_dim = config.model.specific_dim();
        let towers = Towers::new(&mut parameters, &network, specific_dim, form)?;
        let restored = saved
            .map(|saved| saved.restore(&mut parameters))
            .transpose()?;
        let Restored {
            optimizer,
            memory,
            step,
        } = restored.unwrap_or_default();
        let memory = memory_of(data.items(), memory, config, folder)?;
        let side = network.image.image_size();
        let preprocess = squash(side)?;
        let (source, evaluation) = data.divide(&words, &preprocess, side, config)?;
        Ok(Self {
            parameters,
            network,
            tokenizer,
            preprocess,
            config: config.clone(),
            words,
            towers,
            optimizer,
            memory,
            source,
            evaluation,
            step,
        })
    }

    /// Steps done.
    pub fn step(&self) -> usize {
        self.step
    }

    /// Runs up to `until` steps in all; every report goes to `metrics.jsonl` and to `observe`.
    ///
    /// # Errors
    /// When the loss or its gradient stops being a number, or a file cannot be written.
    pub fn train(
        &mut self,
        folder: &Path,
        until: usize,
        observe: &mut dyn FnMut(&StepReport),
    ) -> Result<(), TrainingError> {
        let config = self.config.clone();
        let until = until.min(config.optimizer.steps);
        let loader = Loader::start(Arc::clone(&self.source), self.step);
        fs::create_dir_all(folder)?;
        let mut metrics = Metrics::open(folder, self.step)?;
        while self.step < until {
            let started = Instant::now();
            let mut batch = loader.next(self.step)?;
            let mut report = self.one_step(&batch, &config)?;
            report.skipped = std::mem::take(&mut batch.skipped);
            report.samples_per_second =
                config.optimizer.batch as f64 / started.elapsed().as_secs_f64();
            let last = self.step == config.optimizer.steps;
            let evaluated = last || self.step.is_multiple_of(config.optimizer.evaluate_every);
            if evaluated {
                self.evaluate(&mut report)?;
            }
            // Before the checkpoint: a line too many is dropped later, one too few is lost.
            metrics.write(&report)?;
            if self.step == until || self.step.is_multiple_of(config.optimizer.checkpoint_every) {
                let state = checkpoint::State {
                    config: &config,
                    tokenizer: &self.tokenizer,
                    parameters: &self.parameters,
                    optimizer: &self.optimizer,
                    memory: self.memory.as_ref(),
                    step: self.step,
                };
                checkpoint::save(folder, &state)?;
            }
            if evaluated {
                plot::draw_run(folder, config.optimizer.steps)?;
            }
            observe(&report);
        }
        Ok(())
    }

    /// Adds to a report what the weights are worth.
    fn evaluate(&self, report: &mut StepReport) -> Result<(), TrainingError> {
        let mut settled = self.parameters.settled()?;
        let specific_dim = self.config.model.specific_dim();
        let form = Form::Differentiable {
            batch_statistics: false,
        };
        let towers = Towers::new(&mut settled, &self.network, specific_dim, form)?;
        let device = self.parameters.device();
        match &self.evaluation {
            Evaluation::Nothing => {}
            Evaluation::HeldOut(held_out) => {
                let side = self.network.image.image_size();
                let found = evaluate(&towers, side, &self.words, held_out, device)?;
                report.held_out = Some(found);
            }
            Evaluation::Pairs(validation) => {
                let (found, skipped) = validation.measure(&towers, &self.words, device)?;
                report.validation = Some(found);
                report.skipped.extend(skipped);
            }
        }
        Ok(())
    }

    fn one_step(&mut self, batch: &Batch, config: &RunConfig) -> Result<StepReport, TrainingError> {
        let device = self.parameters.device();
        let n = batch.items.len();
        let (shared, specific) = self.views(batch)?;
        let matrix = |values: &[f32]| Tensor::from_slice(values, (n, n), device);
        let alone = Tensor::eye(n, DType::F32, device)?;
        let texts = if batch.second.is_some() {
            matrix(&batch.text_positives)?
        } else {
            alone.clone()
        };
        let of = Latent {
            shared: &shared,
            specific: specific.as_ref(),
            log_scale: &self.towers.network.logit_scale,
            positives: &Positives {
                cross: matrix(&batch.positives)?,
                images: alone,
                texts,
            },
        };
        let (base, gamma) = match (&config.objective.contrast, &mut self.memory) {
            (Some(contrast), Some(memory)) => {
                let anchors = Anchors {
                    logits: &logits(&shared.image, &shared.text, of.log_scale)?,
                    positives: &of.positives.cross,
                    items: &batch.items,
                    negatives: self.source.items() as f64 - 1.0,
                };
                // Apart from the streams of the batches, which count up.
                let mut random = ChaCha8Rng::seed_from_u64(config.seed);
                random.set_stream(u64::MAX - self.step as u64);
                let (loss, report) = contrast.both_ways(&anchors, memory, &mut random)?;
                (loss, Some(report))
            }
            _ => (
                cross_modal(&shared, of.log_scale, &of.positives.cross)?,
                None,
            ),
        };
        let (loss, terms) = with_structures(&base, &of, &config.objective.latent)?;
        let value = loss.to_scalar::<f32>()?;
        if !value.is_finite() {
            return Err(TrainingError::Diverged {
                step: self.step,
                loss: value,
            });
        }
        let gradients = loss.backward()?;
        let rate = learning_rate(&config.optimizer, self.step);
        let gradient =
            self.optimizer
                .step(&self.parameters, &gradients, &config.optimizer, self.step)?;
        let statistics = self.towers.network.image.take_statistics();
        self.parameters.track(statistics)?;
        let log_scale = f64::from(self.towers.network.logit_scale.to_scalar::<f32>()?);
        if log_scale > MAX_LOGIT_SCALE.ln() {
            let clamped = Tensor::new(MAX_LOGIT_SCALE.ln() as f32, device)?;
            self.parameters.set("logit_scale", &clamped)?;
        }
        if config.optimizer.average > 0.0 {
            self.parameters.average(config.optimizer.average)?;
        }
        self.step += 1;
        Ok(StepReport {
            step: self.step,
            loss: value,
            terms,
            gamma,
            gradient,
            logit_scale: log_scale.exp().min(MAX_LOGIT_SCALE),
            learning_rate: rate,
            samples_per_second: 0.0,
            held_out: None,
            validation: None,
            skipped: Vec::new(),
        })
    }

    /// Shared and specific rows of all views, each tower in one pass.
    fn views(&self, batch: &Batch) -> Result<(Views, Option<Views>), TrainingError> {
        let (n, side) = (batch.items.len(), self.network.image.image_size());
        let device = self.parameters.device();
        let all = || std::iter::once(&batch.first).chain(&batch.second);
        let pixels = all().map(|view| Tensor::from_slice(&view.pixels, (n, 3, side, side), device));
        let pixels = Tensor::cat(&pixels.collect::<Result<Vec<_>, _>>()?, 0)?;
        let tokens: Vec<Vec<u32>> = all().flat_map(|view| view.tokens.iter().cloned()).collect();
        let images = self.towers.images(&pixels)?;
        let texts = self.towers.texts(&tokens)?;
        let part = |rows: &Tensor, view: usize| rows.narrow(0, view * n, n);
        let views = |images: &Tensor, texts: &Tensor| -> Result<Views, candle_core::Error> {
            let second = |rows: &Tensor| batch.second.as_ref().map(|_| part(rows, 1)).transpose();
            Ok(Views {
                image: part(images, 0)?,
                text: part(texts, 0)?,
                image_augmented: second(images)?,
                text_augmented: second(texts)?,
            })
        };
        let shared = views(&images.shared, &texts.shared)?;
        let specific = images.specific.as_ref().zip(texts.specific.as_ref());
        let specific = specific
            .map(|(images, texts)| views(images, texts))
            .transpose()?;
        Ok((shared, specific))
    }
}

/// What the loss remembers of the training data: nothing where it needs none.
fn memory_of(
    items: usize,
    saved: Option<TwoWay>,
    config: &RunConfig,
    folder: &Path,
) -> Result<Option<TwoWay>, TrainingError> {
    if config.objective.contrast.is_none() {
        return Ok(None);
    }
    let new = || LogZ::new(items);
    let memory = saved.unwrap_or_else(|| TwoWay {
        by_row: new(),
        by_column: new(),
    });
    let known = memory.by_row.values().len();
    // Without data nothing is trained: the run is only looked at.
    if items > 0 && known != items {
        return Err(TrainingError::Checkpoint {
            file: checkpoint::file(folder),
            problem: format!(
                "remembers {known} items and the training data has {items}; use the data that the \
                 run began with, or another folder"
            ),
        });
    }
    Ok(Some(memory))
}

/// How pictures are shown to towers that are trained from nothing: squashed to the square, levels from
/// -1 to 1.
fn squash(side: usize) -> Result<PreprocessConfig, TrainingError> {
    let side = u32::try_from(side).ok().and_then(std::num::NonZeroU32::new);
    let side = side.ok_or(TrainingError::Value {
        key: "model.image.image_size",
        expected: "at least 1",
    })?;
    Ok(PreprocessConfig::squash(
        side,
        Filter::Bicubic,
        Normalization::HALF,
    ))
}
