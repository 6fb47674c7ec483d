//! The loop.

use std::{path::Path, time::Instant};

use candle_core::{Device, Tensor};
use encoders::{
    SentenceExport, SentenceFolder, Stored, TextTokenizer,
    nn::{Form, SentenceConfig, SentenceTower},
};
use fs_err as fs;
use serde::Serialize;

use super::{
    config::DistillConfig,
    lesson::{ASIDE, Lesson},
    report::NEIGHBORS,
    student,
    texts::{self, Order},
};
use crate::{
    TrainingError,
    checkpoint::{self, Checkpoint, Restored},
    config::OptimizerConfig,
    metrics::Metrics,
    optimizer::{AdamW, learning_rate},
    parameters::Parameters,
};

/// One line of `metrics.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StepReport {
    /// Steps done.
    pub step: usize,
    /// Loss of the step.
    pub loss: f32,
    /// One minus the mean cosine to the teacher's embeddings.
    pub embedding: f32,
    /// Divergence of logits in nats, where they are taught.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logits: Option<f32>,
    /// Loss of attention before it was weighted, where it is taught.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attention: Option<f32>,
    /// Length of the gradient before clipping.
    pub gradient: f64,
    /// Learning rate of the step.
    pub learning_rate: f64,
    /// Texts per second of the step.
    pub texts_per_second: f64,
}

/// A distillation that is under way.
pub struct Distillation {
    /// What it was told.
    pub config: DistillConfig,
    /// The teacher's folder.
    pub teacher: SentenceFolder,
    /// Sizes of the student.
    pub sizes: SentenceConfig,
    parameters: Parameters,
    student: SentenceTower,
    lesson: Lesson,
    teaching: SentenceTower,
    optimizer: AdamW,
    /// Tokens of the texts, as many as the student reads.
    ids: Vec<Vec<u32>>,
    order: Order,
    /// What teacher and student are compared on.
    pub(super) held_out: Vec<String>,
    identity: String,
    step: usize,
}

impl Distillation {
    /// Prepares a run, or continues the one whose checkpoint is in `folder`. Nothing is written.
    ///
    /// # Errors
    /// When the teacher or the texts cannot be used or do not fit the configuration, or the run in the
    /// folder is another.
    pub fn open(config: &DistillConfig, folder: &Path) -> Result<Self, TrainingError> {
        config.check()?;
        let teacher = SentenceFolder::read(&config.teacher)?;
        let sizes = config.sizes(&teacher.config)?;
        let texts = texts::read(&config.texts.training, config.optimizer.batch)?;
        // A text is not its own neighbor.
        let held_out = texts::read(&config.texts.held_out, NEIGHBORS + 1)?;
        let tokenizer = tokenizer(&teacher, config)?;
        let encode = |text: &String| {
            let ids = tokenizer.encode(text);
            ids.map_err(|problem| TrainingError::Tokenizer(problem.into()))
        };
        let ids = texts.iter().map(encode).collect::<Result<Vec<_>, _>>()?;
        let form = Form::Differentiable {
            batch_statistics: false,
        };
        let (mut parameters, student) = begin(config, &sizes, &teacher, form)?;
        let layers = [sizes.transformer.layers, teacher.config.transformer.layers];
        let lesson = Lesson::new(
            &config.lesson,
            layers,
            sizes.context_length,
            &mut parameters,
        )?;
        let identity = identity(config, &teacher, ids.len());
        let saved = Checkpoint::read(&checkpoint::file(folder), &identity, None)?;
        let restored = saved.map(|saved| saved.restore(&mut parameters));
        let Restored {
            optimizer, step, ..
        } = restored.transpose()?.unwrap_or_default();
        let lengths = ids.iter().map(Vec::len).collect();
        Ok(Self {
            order: Order::new(lengths, config.optimizer.batch, config.seed),
            teaching: teacher.tower(Form::Fused)?,
            config: config.clone(),
            teacher,
            sizes,
            parameters,
            student,
            lesson,
            optimizer,
            ids,
            held_out,
            identity,
            step,
        })
    }

    /// Steps done.
    pub fn step(&self) -> usize {
        self.step
    }

    /// The student as it is now.
    pub fn student(&self) -> &SentenceTower {
        &self.student
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
        let optimizer = self.config.optimizer.optimizer();
        let until = until.min(optimizer.steps);
        fs::create_dir_all(folder)?;
        let mut metrics = Metrics::open(folder, self.step)?;
        while self.step < until {
            let report = self.one_step(&optimizer)?;
            // Before the checkpoint: a line too many is dropped later, one too few is lost.
            metrics.write(&report)?;
            if self.step == until || self.step.is_multiple_of(optimizer.checkpoint_every) {
                let state = checkpoint::State {
                    identity: &self.identity,
                    tokenizer: &self.teacher.tokenizer_json,
                    base: None,
                    parameters: &self.parameters,
                    optimizer: &self.optimizer,
                    memory: None,
                    others: Vec::new(),
                    step: self.step,
                };
                checkpoint::save(&checkpoint::file(folder), &state)?;
            }
            observe(&report);
        }
        Ok(())
    }

    fn one_step(&mut self, config: &OptimizerConfig) -> Result<StepReport, TrainingError> {
        let started = Instant::now();
        let batch = self.order.batch(self.step).iter();
        let batch: Vec<&[u32]> = batch.map(|text| &self.ids[*text][..]).collect();
        let taught = self.teaching.forward(&batch)?;
        let learned = self.student.forward(&batch)?;
        let loss = self.lesson.loss(&taught, &learned)?;
        let value = loss.whole.to_scalar::<f32>()?;
        if !value.is_finite() {
            return Err(TrainingError::Diverged {
                step: self.step,
                loss: value,
            });
        }
        let gradients = loss.whole.backward()?;
        let rate = learning_rate(config, self.step);
        let gradient = self
            .optimizer
            .step(&self.parameters, &gradients, config, self.step)?;
        self.step += 1;
        let number = |term: Option<&Tensor>| term.map(Tensor::to_scalar).transpose();
        Ok(StepReport {
            step: self.step,
            loss: value,
            embedding: loss.embedding.to_scalar()?,
            logits: number(loss.logits.as_ref())?,
            attention: number(loss.attention.as_ref())?,
            gradient,
            learning_rate: rate,
            texts_per_second: batch.len() as f64 / started.elapsed().as_secs_f64(),
        })
    }

    /// Writes the student as a folder of sentence-transformers.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn export(&self, folder: &Path) -> Result<(), TrainingError> {
        let all = self.parameters.all();
        let own = all.filter(|(name, _)| !name.starts_with(ASIDE));
        let export = SentenceExport {
            config: &self.sizes,
            tokenizer: &self.teacher.tokenizer_json,
            tokenizer_config: self.teacher.tokenizer_config.as_deref(),
            tensors: own
                .map(|(name, var)| (name, var.as_tensor().clone()))
                .collect(),
            stored: if self.config.student.half_precision {
                Stored::F16
            } else {
                Stored::F32
            },
        };
        Ok(export.write(folder)?)
    }

    /// The student as it was before the first step, in the form for serving.
    pub(super) fn beginning(&self) -> Result<(SentenceTower, TextTokenizer), TrainingError> {
        let (_, tower) = begin(&self.config, &self.sizes, &self.teacher, Form::Fused)?;
        Ok((tower, tokenizer(&self.teacher, &self.config)?))
    }
}

/// New parameters and the student that is made of them.
fn begin(
    config: &DistillConfig,
    sizes: &SentenceConfig,
    teacher: &SentenceFolder,
    form: Form,
) -> Result<(Parameters, SentenceTower), TrainingError> {
    let mut parameters = Parameters::seeded(config.seed, Device::Cpu);
    let tower = student::begin(&config.student, sizes, teacher, &mut parameters, form)?;
    Ok((parameters, tower))
}

/// The teacher's tokenizer, which cuts texts where the student ends.
fn tokenizer(
    teacher: &SentenceFolder,
    config: &DistillConfig,
) -> Result<TextTokenizer, TrainingError> {
    let (contents, file) = (teacher.tokenizer_json.as_bytes(), &config.teacher);
    let context = config.student.context_length;
    Ok(TextTokenizer::from_json(contents, file, context)?)
}

/// What must be equal for a run to go on: all but where things lie and how often it saves.
fn identity(config: &DistillConfig, teacher: &SentenceFolder, texts: usize) -> String {
    let mut config = config.clone();
    config.teacher = teacher.fingerprint().to_string().into();
    config.texts.training = format!("{texts} texts").into();
    config.texts.held_out = std::path::PathBuf::new();
    config.student.half_precision = false;
    config.optimizer.checkpoint_every = 1;
    serde_json::to_string_pretty(&config).unwrap_or_default()
}
