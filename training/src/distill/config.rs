//! What a distillation is told, as one TOML file.

use std::path::{Path, PathBuf};

use encoders::nn::{DenseConfig, SentenceConfig, TransformerConfig};
use serde::{Deserialize, Serialize};

use super::lesson::{Guide, LessonConfig};
use crate::{
    TrainingError,
    config::{
        Factors, OptimizerConfig,
        check::{self, AT_LEAST_1, Rule, SPREAD, are_heads_of, is_spread},
    },
};

/// Largest context for the learned map of `amad_v3`, which has its fourth power of numbers.
const MAX_PROJECTED: usize = 32;

/// Everything that decides the result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DistillConfig {
    /// Seed of every random choice.
    pub seed: u64,
    /// Folder of the teacher. Paths are relative to the working folder.
    pub teacher: PathBuf,
    /// What is read.
    pub texts: TextsConfig,
    /// Sizes of the student.
    pub student: StudentConfig,
    /// What the student learns from the teacher.
    pub lesson: LessonConfig,
    /// Steps and learning rates.
    pub optimizer: StepsConfig,
}

/// What is read: JSON lines with a `text` each. No labels are needed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextsConfig {
    /// To learn from.
    pub training: PathBuf,
    /// To compare on.
    pub held_out: PathBuf,
}

/// Sizes of the student.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StudentConfig {
    /// Number of blocks.
    pub layers: usize,
    /// Heads per block.
    pub heads: usize,
    /// Elements per token. Where it is not the teacher's, a linear map leads to the teacher's dim.
    pub width: usize,
    /// Elements between the two layers of an MLP.
    pub mlp_width: usize,
    /// Longest text in tokens.
    pub context_length: usize,
    /// What its weights begin with.
    pub start: Start,
    /// Whether word embeddings are trained. Where they are not, they stay the teacher's, also of words
    /// that no training text has.
    pub learn_words: bool,
    /// Whether 16 bits of each weight are stored instead of 32.
    pub half_precision: bool,
}

/// What a student's weights begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Start {
    /// All from the seed.
    Random,
    /// Those of the teacher where shapes are equal, the rest from the seed. Layers are those that
    /// [`crate::objective::attention::LayerMap::Uniform`] pairs.
    Teacher,
}

/// As [`OptimizerConfig`], without what is of two towers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepsConfig {
    /// Texts per step.
    pub batch: usize,
    /// Number of steps.
    pub steps: usize,
    /// Steps over which the learning rate rises from 0.
    pub warmup_steps: usize,
    /// Highest learning rate; it falls to 0 along a cosine.
    pub learning_rate: f64,
    /// Decoupled weight decay of matrices.
    pub weight_decay: f64,
    /// Longest gradient, over all parameters together.
    pub clip: f64,
    /// Steps between checkpoints.
    pub checkpoint_every: usize,
}

impl StepsConfig {
    pub(super) fn optimizer(&self) -> OptimizerConfig {
        OptimizerConfig {
            batch: self.batch,
            steps: self.steps,
            warmup_steps: self.warmup_steps,
            learning_rate: self.learning_rate,
            logit_scale_factor: 1.0,
            factors: Factors::F32,
            weight_decay: self.weight_decay,
            clip: self.clip,
            average: 0.0,
            accumulate: 1,
            checkpoint_every: self.checkpoint_every,
            evaluate_every: 1,
        }
    }
}

impl DistillConfig {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// When the file cannot be read or a value is out of range.
    pub fn read(file: &Path) -> Result<Self, TrainingError> {
        let config: Self = crate::config::parse(file)?;
        config.check()?;
        Ok(config)
    }

    /// # Errors
    /// When a value is out of range whatever the teacher; the message names its key.
    pub(super) fn check(&self) -> Result<(), TrainingError> {
        let (student, lesson) = (&self.student, &self.lesson);
        let guided = lesson.attention.as_ref();
        let projects = guided.is_some_and(|a| a.guide == Guide::AmadV3);
        let attention = guided.map_or(1.0, |a| a.weight);
        let rules: [Rule; 12] = [
            ("student.layers", student.layers > 0, AT_LEAST_1),
            ("student.width", student.width > 0, AT_LEAST_1),
            ("student.mlp_width", student.mlp_width > 0, AT_LEAST_1),
            (
                "student.heads",
                are_heads_of(student.width, student.heads),
                "a divisor of student.width",
            ),
            (
                "student.context_length",
                !projects || student.context_length <= MAX_PROJECTED,
                "at most 32 with amad_v3, the learned map of which has its fourth power of numbers",
            ),
            (
                "student.learn_words",
                student.learn_words || student.start == Start::Teacher,
                "true unless student.start is \"teacher\"",
            ),
            ("lesson.embedding", is_spread(lesson.embedding), SPREAD),
            ("lesson.logits", is_spread(lesson.logits), SPREAD),
            (
                "lesson.logits",
                lesson.embedding + lesson.logits > 0.0,
                "above 0 where lesson.embedding is 0: nothing else teaches embeddings",
            ),
            (
                "lesson.logit_scale",
                lesson.logit_scale.is_finite() && lesson.logit_scale > 0.0,
                "a number above 0",
            ),
            (
                "lesson.attention.weight",
                attention.is_finite() && attention > 0.0,
                "a number above 0",
            ),
            (
                "lesson.attention.sharpness",
                guided.is_none_or(|a| a.sharpness.is_finite() && a.sharpness > 0.0),
                "a number above 0",
            ),
        ];
        // That rule is about what this run does not have.
        let optimizer = check::optimizer(&self.optimizer.optimizer());
        check::all_hold(rules.into_iter().chain(optimizer))
    }

    /// The sizes of the student of a teacher.
    ///
    /// # Errors
    /// When they do not fit that teacher; the message names the key.
    pub(super) fn sizes(&self, teacher: &SentenceConfig) -> Result<SentenceConfig, TrainingError> {
        let own = &self.student;
        let equal = own.width == teacher.transformer.width;
        let guide = self.lesson.attention.as_ref().map(|a| a.guide);
        check::all_hold([
            (
                "student.context_length",
                (3..=teacher.context_length).contains(&own.context_length),
                "at least 3, and at most the teacher's",
            ),
            (
                "student.start",
                equal || own.start == Start::Random,
                "\"random\" where student.width is not the teacher's: no tensor would fit",
            ),
            (
                "student.layers",
                own.layers <= teacher.transformer.layers,
                "at most the teacher's",
            ),
            (
                "student.heads",
                guide != Some(Guide::OneToOne) || own.heads <= teacher.transformer.heads,
                "at most the teacher's with one_to_one, where each needs a partner",
            ),
        ])?;
        let dim = teacher.dim();
        let dense = match teacher.dense {
            Some(dense) if equal => Some(dense),
            _ if own.width == dim => None,
            _ => Some(DenseConfig { dim, bias: false }),
        };
        Ok(SentenceConfig {
            positions: own.context_length,
            context_length: own.context_length,
            transformer: TransformerConfig {
                width: own.width,
                mlp_width: own.mlp_width,
                layers: own.layers,
                heads: own.heads,
                ..teacher.transformer.clone()
            },
            dense,
            ..teacher.clone()
        })
    }
}
