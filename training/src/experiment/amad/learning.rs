//! How the teacher learns, and the students from it.

use candle_core::{D, DType, Device, Tensor};
use candle_nn::loss::cross_entropy;
use rand::{RngExt as _, SeedableRng as _, seq::SliceRandom as _};
use rand_chacha::ChaCha8Rng;

use super::{
    recall::Sequences,
    transformer::{Sizes, Transformer},
};
use crate::{
    TrainingError,
    experiment::net::{Rate, minimize},
    objective::{
        attention::{LayerMap, Variant, amad, one_to_one},
        distillation::logit_divergence,
    },
};

/// Sequences of a student's step.
const BATCH: usize = 64;
const RATE: Rate = Rate::Falling(2e-3);
const TEMPERATURE: f64 = 2.0;

/// What a student learns from beside labels.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lesson {
    /// Whether it learns from the teacher's logits.
    pub(super) logits: bool,
    /// How it learns from the teacher's attention.
    pub(super) guide: Guide,
    /// Weight of that.
    pub(super) beta: f64,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Guide {
    None,
    OneToOne,
    Aligned {
        variant: Variant<'static>,
        sharpness: f64,
    },
}

/// A teacher that sees a fresh batch at every step.
pub(super) fn train_teacher(
    sizes: Sizes,
    batch: usize,
    steps: usize,
    seed: u64,
) -> Result<Transformer, TrainingError> {
    let teacher = Transformer::new(sizes, seed)?;
    let mut random = ChaCha8Rng::seed_from_u64(seed ^ 0x7465_6163);
    minimize(&teacher.parameters, steps, RATE, |_| {
        let batch = Sequences::draw(batch, random.random())?;
        Ok(cross_entropy(
            &teacher.forward(&batch)?.logits,
            &batch.answers,
        )?)
    })?;
    Ok(teacher)
}

/// A student that sees the known sequences and what the teacher makes of them.
pub(super) fn teach(
    sizes: Sizes,
    teacher: &Transformer,
    known: &Sequences,
    lesson: Lesson,
    steps: usize,
    seed: u64,
) -> Result<Transformer, TrainingError> {
    let student = Transformer::new(sizes, seed ^ 0x7374_7564)?;
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let taught = teacher.forward(known)?;
    let mut order: Vec<u32> = (0..known.len()? as u32).collect();
    let per_epoch = order.len() / BATCH;
    minimize(&student.parameters, steps, RATE, |step| {
        if step % per_epoch == 0 {
            order.shuffle(&mut random);
        }
        let numbers = &order[step % per_epoch * BATCH..][..BATCH];
        let numbers = Tensor::new(numbers, &Device::Cpu)?;
        let batch = known.select(&numbers)?;
        let pass = student.forward(&batch)?;
        let of_batch = |of: &Tensor| of.detach().index_select(&numbers, 0);
        let mut loss = cross_entropy(&pass.logits, &batch.answers)?;
        if lesson.logits {
            let logits = of_batch(&taught.logits)?;
            loss = (loss + logit_divergence(&logits, &pass.logits, TEMPERATURE)?)?;
        }
        let by_layer = |of: &dyn Fn(&Tensor, &Tensor) -> candle_core::Result<Tensor>| {
            let maps = taught.maps.iter().map(of_batch);
            let maps = maps.collect::<candle_core::Result<Vec<_>>>()?;
            LayerMap::Uniform.sum(&maps, &pass.maps, of)
        };
        let attention = match lesson.guide {
            Guide::None => return Ok(loss),
            Guide::OneToOne => by_layer(&one_to_one)?,
            Guide::Aligned { variant, sharpness } => {
                by_layer(&|t, s| amad(t, s, variant, sharpness))?
            }
        };
        Ok((loss + (attention * lesson.beta)?)?)
    })?;
    Ok(student)
}

/// Share of sequences that are answered right.
pub(super) fn accuracy(model: &Transformer, of: &Sequences) -> Result<f64, TrainingError> {
    let answers = model.forward(of)?.logits.argmax(D::Minus1)?;
    let right = answers.eq(&of.answers)?.to_dtype(DType::F64)?;
    Ok(right.mean_all()?.to_scalar()?)
}
