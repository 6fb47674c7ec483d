//! The training loop.

use std::{path::Path, sync::Arc, time::Instant};

use candle_core::{DType, Device, Tensor};
use encoders::{
    Base, Filter, Normalization, PreprocessConfig, TextTokenizer,
    nn::{Form, NetworkConfig, with_narrow_factors},
};
use fs_err as fs;
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;

pub use crate::report::StepReport;
use crate::{
    TrainingError,
    checkpoint::{self, Checkpoint, Restored},
    config::{Factors, ModelSection, RunConfig},
    data::{Data, Evaluation},
    evaluate::{Space, evaluate},
    geometry::modality_gap,
    loader::{Batch, Batches, Loader},
    manifest::Dataset,
    memory::{self, Estimate},
    metrics::Metrics,
    objective::{
        MAX_LOGIT_SCALE,
        gamma::{Anchors, LogZ, TwoWay},
        latent::{Latent, Positives, cross_modal, with_structures},
        logits,
    },
    optimizer::{AdamW, learning_rate},
    parameters::Parameters,
    passes::Passes,
    plot,
    stopping::{Best, Stopping},
    tokenizer,
    towers::Towers,
    tuning,
};

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
    /// The model that it began with, if it did not begin from nothing.
    pub base: Option<Base>,
    config: RunConfig,
    words: TextTokenizer,
    towers: Towers,
    optimizer: AdamW,
    memory: Option<TwoWay>,
    source: Arc<dyn Batches>,
    evaluation: Evaluation,
    step: usize,
    /// Whether to go on where a step seems to take more memory than is free.
    pub ignore_memory: bool,
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
        Self::of_file(config, data, &checkpoint::file(folder), device)
    }

    /// The run in a folder as it was at its best evaluation, where that was kept; as it is now otherwise.
    ///
    /// # Errors
    /// As [`Run::open`].
    pub fn best(config: &RunConfig, folder: &Path, device: &Device) -> Result<Self, TrainingError> {
        let best = checkpoint::best(folder);
        let kept = config.stop.is_some() && best.exists();
        let file = if kept { best } else { checkpoint::file(folder) };
        Self::of_file(config, Dataset::default(), &file, device)
    }

    fn of_file(
        config: &RunConfig,
        data: impl Into<Data>,
        file: &Path,
        device: &Device,
    ) -> Result<Self, TrainingError> {
        let data = data.into();
        let base = tuning::base(&config.model)?;
        let fingerprint = base.as_ref().map(Base::fingerprint);
        let saved = Checkpoint::read(file, &checkpoint::identity(config), fingerprint)?;
        // Token ids mean something to the weights of their own run only.
        let tokenizer = if let Some(saved) = &saved {
            saved.tokenizer.clone()
        } else {
            data.check(config.optimizer.batch)?;
            match &base {
                Some(base) => base.tokenizer_json(),
                None => data.tokenizer(config.model.towers()?.1.vocabulary)?,
            }
        };
        let mut parameters = Parameters::seeded(config.seed, device.clone());
        let (network, words, preprocess) = if let Some(base) = &base {
            tuning::begin(base, &config.model, &mut parameters)?;
            let words = base.tokenizer().clone();
            (base.network().clone(), words, base.preprocess().clone())
        } else {
            let context = config.model.towers()?.1.context_length;
            let words = tokenizer::load(&tokenizer, file, context)?;
            let end = words.id(tokenizer::END).unwrap_or_default();
            let network = config.model.network(words.vocabulary(), end)?;
            let preprocess = squash(network.image.image_size())?;
            (network, words, preprocess)
        };
        let specific_dim = specific_dim(&config.model, &network);
        let form = training_form(&config.model);
        let towers = Towers::new(&mut parameters, &network, specific_dim, form)?;
        let restored = saved
            .map(|saved| saved.restore(&mut parameters))
            .transpose()?;
        let Restored {
            optimizer,
            memory,
            step,
        } = restored.unwrap_or_default();
        let memory = memory_of(data.items(), memory, config, file)?;
        let side = network.image.image_size();
        let (source, evaluation) = data.divide(&words, &preprocess, side, config)?;
        Ok(Self {
            parameters,
            network,
            tokenizer,
            preprocess,
            base,
            config: config.clone(),
            words,
            towers,
            optimizer,
            memory,
            source,
            evaluation,
            step,
            ignore_memory: false,
        })
    }

    /// Steps done.
    pub fn step(&self) -> usize {
        self.step
    }

    /// Runs up to `until` steps in all; every report goes to `metrics.jsonl` and to `observe`. Gives the best
    /// evaluation where the run stops early by one.
    ///
    /// # Errors
    /// When a step would take more memory than is free, the loss or its gradient stops being a number, or a
    /// file cannot be written.
    pub fn train(
        &mut self,
        folder: &Path,
        until: usize,
        observe: &mut dyn FnMut(&StepReport),
    ) -> Result<Option<Best>, TrainingError> {
        let config = self.config.clone();
        let identity = checkpoint::identity(&config);
        let until = until.min(config.optimizer.steps);
        let source = Arc::clone(&self.source);
        let loader = Loader::start(self.step, move |step| source.batch(step));
        fs::create_dir_all(folder)?;
        let mut metrics = Metrics::open(folder, self.step)?;
        let stopping = config.stop.as_ref();
        let mut stopping = stopping
            .map(|stop| Stopping::resume(stop, folder))
            .transpose()?;
        let mut checked = 0;
        let is_over =
            |stopping: &Option<Stopping>| stopping.as_ref().is_some_and(Stopping::is_over);
        while self.step < until && !is_over(&stopping) {
            let started = Instant::now();
            let mut batch = loader.next(self.step)?;
            // Second views may begin later.
            let views = 1 + usize::from(batch.second.is_some());
            let mut estimate = None;
            if views > checked {
                estimate = Some(self.check_memory(&batch)?.total());
                checked = views;
            }
            let narrow = config.optimizer.factors == Factors::Bf16;
            // On a thread of the pool: what runs in parallel starts sooner from there.
            let (report, ()) = rayon::join(
                || with_narrow_factors(narrow, || self.one_step(&batch, &config)),
                || (),
            );
            let mut report = report.map_err(|error| out_of_memory(error, self.step))?;
            report.skipped = std::mem::take(&mut batch.skipped);
            report.samples_per_second =
                config.optimizer.batch as f64 / started.elapsed().as_secs_f64();
            let last = self.step == config.optimizer.steps;
            let mut space = None;
            if last || self.step.is_multiple_of(config.optimizer.evaluate_every) {
                space = Some(self.evaluate(&mut report)?);
            }
            let is_best = match &mut stopping {
                Some(stopping) => stopping.see(&report)?,
                None => false,
            };
            // Before the checkpoint: a line too many is dropped later, one too few is lost.
            metrics.write(&report)?;
            let is_due = self.step.is_multiple_of(config.optimizer.checkpoint_every);
            let is_due = is_due || self.step == until || is_over(&stopping);
            if is_due || is_best {
                let state = checkpoint::State {
                    identity: &identity,
                    tokenizer: &self.tokenizer,
                    base: self.base.as_ref().map(Base::fingerprint),
                    parameters: &self.parameters,
                    optimizer: &self.optimizer,
                    memory: self.memory.as_ref(),
                    others: Vec::new(),
                    step: self.step,
                };
                if is_best {
                    checkpoint::save(&checkpoint::best(folder), &state)?;
                }
                if is_due {
                    checkpoint::save(&checkpoint::file(folder), &state)?;
                }
            }
            if let Some(space) = &space {
                plot::draw_run(folder, config.optimizer.steps)?;
                plot::draw_space(folder, &space.images, &space.texts)?;
            }
            // Of this process, and not of the run, whose lines are the same however often it was stopped.
            report.memory_estimate = estimate;
            report.memory_peak = space.and_then(|_| memory::peak());
            observe(&report);
        }
        Ok(stopping.and_then(|stopping| stopping.best()))
    }

    /// Refuses to begin what would not fit.
    fn check_memory(&self, batch: &Batch) -> Result<Estimate, TrainingError> {
        let parts = self.config.optimizer.accumulate;
        let estimate = Estimate::of(&self.network, &self.parameters, batch, parts);
        // Nothing says what is free on another device; it refuses by itself.
        if !self.ignore_memory
            && self.parameters.device().is_cpu()
            && let Some(free) = memory::free()
        {
            estimate.check(free)?;
        }
        Ok(estimate)
    }

    /// The towers as they are evaluated and exported.
    pub(crate) fn settled_towers(&self) -> Result<Towers, TrainingError> {
        let mut settled = self.parameters.settled()?;
        let specific_dim = specific_dim(&self.config.model, &self.network);
        let form = Form::Differentiable {
            batch_statistics: false,
        };
        Towers::new(&mut settled, &self.network, specific_dim, form)
    }

    /// Adds to a report what the weights are worth, and gives the embeddings that say so.
    fn evaluate(&self, report: &mut StepReport) -> Result<Space, TrainingError> {
        let towers = self.settled_towers()?;
        let device = self.parameters.device();
        let space = match &self.evaluation {
            Evaluation::Nothing => Space::default(),
            Evaluation::HeldOut(held_out) => {
                let side = self.network.image.image_size();
                let (recall, space) = evaluate(&towers, side, &self.words, held_out, device)?;
                report.held_out = Some(recall);
                space
            }
            Evaluation::Pairs(validation) => {
                let found = validation.measure(&towers, &self.words, device)?;
                report.validation = Some(found.figures);
                report.skipped.extend(found.skipped);
                found.space
            }
        };
        let any = !space.images.is_empty();
        report.modality_gap = any.then(|| modality_gap(&space.images, &space.texts));
        Ok(space)
    }

    fn one_step(&mut self, batch: &Batch, config: &RunConfig) -> Result<StepReport, TrainingError> {
        let n = batch.items.len();
        if self.parameters.has_adapters() {
            // Weights are sums that were made of the adapters as they were.
            let specific_dim = specific_dim(&config.model, &self.network);
            let form = training_form(&config.model);
            let parameters = &mut self.parameters;
            self.towers = Towers::new(parameters, &self.network, specific_dim, form)?;
        }
        let device = self.parameters.device();
        let passes = Passes {
            towers: &self.towers,
            batch,
            side: self.network.image.image_size(),
            device,
            parts: config.optimizer.accumulate,
        };
        let embedded = passes.embed()?;
        let (shared, specific) = (&embedded.shared, &embedded.specific);
        let matrix = |values: &[f32]| Tensor::from_slice(values, (n, n), device);
        let alone = Tensor::eye(n, DType::F32, device)?;
        let texts = if batch.second.is_some() {
            matrix(&batch.text_positives)?
        } else {
            alone.clone()
        };
        let of = Latent {
            shared,
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
                cross_modal(shared, of.log_scale, &of.positives.cross)?,
                None,
            ),
        };
        let progress = self.step as f64 / config.optimizer.steps as f64;
        let weights = config.objective.latent_at(progress);
        let (loss, terms) = with_structures(&base, &of, &weights)?;
        let value = loss.to_scalar::<f32>()?;
        if !value.is_finite() {
            return Err(TrainingError::Diverged {
                step: self.step,
                loss: value,
            });
        }
        let (gradients, statistics) = passes.backward(&embedded, loss.backward()?)?;
        let rate = learning_rate(&config.optimizer, self.step);
        let gradient =
            self.optimizer
                .step(&self.parameters, &gradients, &config.optimizer, self.step)?;
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
            modality_gap: None,
            validation: None,
            memory_estimate: None,
            memory_peak: None,
            skipped: Vec::new(),
        })
    }
}

/// What the loss remembers of the training data: nothing where it needs none.
fn memory_of(
    items: usize,
    saved: Option<TwoWay>,
    config: &RunConfig,
    file: &Path,
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
            file: file.to_owned(),
            problem: format!(
                "remembers {known} items and the training data has {items}; use the data that the \
                 run began with, or another folder"
            ),
        });
    }
    Ok(Some(memory))
}

/// Says what to do where a device had no memory left.
fn out_of_memory(error: TrainingError, step: usize) -> TrainingError {
    let says_so = |error: &TrainingError| {
        let text = format!("{error:?}").to_lowercase();
        text.contains("out of memory") || text.contains("out_of_memory")
    };
    if says_so(&error) {
        let source = Box::new(error);
        TrainingError::OutOfMemory { step, source }
    } else {
        error
    }
}

/// Elements of a trained specific embedding; 0 where there is none.
fn specific_dim(config: &ModelSection, network: &NetworkConfig) -> usize {
    if config.specific { network.dim } else { 0 }
}

/// How towers are built while they learn.
fn training_form(config: &ModelSection) -> Form {
    Form::Differentiable {
        batch_statistics: !tuning::images_stand_still(config),
    }
}

/// How pictures are shown to towers that are trained from nothing: on white, squashed to the square, levels
/// from -1 to 1.
pub(crate) fn squash(side: usize) -> Result<PreprocessConfig, TrainingError> {
    let side = u32::try_from(side).ok().and_then(std::num::NonZeroU32::new);
    let side = side.ok_or(TrainingError::Value {
        key: "model.image.image_size",
        expected: "at least 1",
    })?;
    let config = PreprocessConfig::squash(side, Filter::Bicubic, Normalization::HALF);
    Ok(config.on_white())
}
