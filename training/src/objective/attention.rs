//! Attention-map alignment distillation: a student learns where a teacher of other heads looks
//! (Zhao et al., "No Head Left Behind", AAAI
//! 2024; equation numbers as there).
//!
//! Maps are `[b, heads, q, k]`, attention probabilities whose rows sum to 1. Every teacher head is
//! compared with a mixture of all student heads, weighted by how alike they are, so that neither
//! the number nor the order of heads matters. Teachers get no gradient. A loss is a sum over
//! teacher heads and a mean over samples.

mod overlap;
#[cfg(test)]
mod tests;

use candle_core::{D, Result, Tensor, bail};
use candle_nn::ops::softmax;
use encoders::nn::unit_rows;
use serde::{Deserialize, Serialize};

pub use self::overlap::{Overlap, TextToken, pool};

/// Keeps logarithms and quotients finite.
const EPSILON: f64 = 1e-9;

/// How the mixture is compared with a teacher head.
#[derive(Debug, Clone, Copy)]
pub enum Variant<'a> {
    /// V1, squared distance of unit maps (equations 4 to 6). Even a perfect copy has a distance
    /// above 0 as soon as there are two heads, because other heads are in the mixture.
    Distance,
    /// V2, Kullback-Leibler divergence of whole maps (equation 9). The best one of the paper.
    Divergence,
    /// V3, as V2 after a learned map of student heads, `ReLU(S W^T + b)` (equation 11).
    ProjectedDivergence {
        /// W, `[q * k, q * k]`: only small maps can afford it.
        weight: &'a Tensor,
        /// b, `[q * k]`.
        bias: &'a Tensor,
    },
    /// V4, as V2 with the divergences of single rows summed (equation 12). When rows sum to 1 and
    /// weights come from whole maps, as here, it is V2 times the number of rows.
    RowDivergence,
}

/// The alignment loss of one layer, a scalar. `sharpness` divides cosines before the softmax over
/// student heads: 1 is the paper's, smaller lets the likest heads count more.
///
/// # Errors
/// When maps differ in samples, queries or keys.
pub fn amad(
    teacher: &Tensor,
    student: &Tensor,
    variant: Variant<'_>,
    sharpness: f64,
) -> Result<Tensor> {
    let (batch, _, queries, _) = same_tokens(teacher, student)?;
    let t = teacher.detach().flatten_from(2)?;
    let s = student.flatten_from(2)?;
    match variant {
        Variant::Distance => {
            let mixture = mixing(&t, &s, sharpness)?.matmul(&unit(&s)?)?;
            (unit(&t)? - mixture)?.sqr()?.sum_all()? / batch as f64
        }
        Variant::Divergence => {
            let mixture = mixing(&t, &s, sharpness)?.matmul(&distributions(&s)?)?;
            divergence(&distributions(&t)?, &mixture)
        }
        Variant::ProjectedDivergence { weight, bias } => {
            let (_, heads, n) = s.dims3()?;
            let projected = s.reshape((batch * heads, n))?.matmul(&weight.t()?)?;
            let projected = projected.broadcast_add(bias)?.relu()?;
            let s = projected.reshape((batch, heads, n))?;
            let mixture = mixing(&t, &s, sharpness)?.matmul(&distributions(&s)?)?;
            divergence(&distributions(&t)?, &mixture)
        }
        Variant::RowDivergence => {
            let mixing = mixing(&t, &s, sharpness)?;
            let rows = |row: usize| {
                let t = teacher.detach().narrow(2, row, 1)?.squeeze(2)?;
                let s = student.narrow(2, row, 1)?.squeeze(2)?.contiguous()?;
                divergence(&t, &mixing.matmul(&s)?)
            };
            let first = rows(0)?;
            (1..queries).try_fold(first, |sum, row| sum + rows(row)?)
        }
    }
}

/// What alignment is compared with: the divergence of the first teacher heads from the student
/// heads of the same number, a scalar.
///
/// # Errors
/// When maps differ in samples, queries or keys, or the student has more heads.
pub fn one_to_one(teacher: &Tensor, student: &Tensor) -> Result<Tensor> {
    same_tokens(teacher, student)?;
    let (heads, known) = (student.dim(1)?, teacher.dim(1)?);
    if heads > known {
        bail!("{heads} student heads have no partner of their own among {known} teacher heads");
    }
    let t = teacher.detach().narrow(1, 0, heads)?.flatten_from(2)?;
    let s = student.flatten_from(2)?;
    divergence(&distributions(&t)?, &distributions(&s)?)
}

/// Maps without padding: rows and columns where `queries` `[b, q]` or `keys` `[b, k]` is 0 become
/// 0, and the other rows sum to 1 again. Both teacher and student need it.
///
/// # Errors
/// When shapes do not fit.
pub fn masked(maps: &Tensor, queries: &Tensor, keys: &Tensor) -> Result<Tensor> {
    let keys = keys.unsqueeze(1)?.unsqueeze(1)?;
    let queries = queries.unsqueeze(1)?.unsqueeze(3)?;
    let maps = maps.broadcast_mul(&keys)?.broadcast_mul(&queries)?;
    maps.broadcast_div(&(maps.sum_keepdim(D::Minus1)? + EPSILON)?)
}

/// Which teacher layer each student layer learns from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LayerMap {
    /// Layer m of `L_s` from layer `ceil(m L_t / L_s)` of `L_t`, counted from 1 (Jiao et al.,
    /// "`TinyBERT`", 2020).
    Uniform,
    /// Only the last from the last.
    Last,
}

impl LayerMap {
    /// Pairs of a student and a teacher layer, counted from 0.
    pub fn pairs(self, student_layers: usize, teacher_layers: usize) -> Vec<(usize, usize)> {
        if student_layers == 0 || teacher_layers == 0 {
            return Vec::new();
        }
        let teacher = |m: usize| (m * teacher_layers).div_ceil(student_layers);
        let pairs = (1..=student_layers).map(|m| (m - 1, teacher(m) - 1));
        match self {
            Self::Uniform => pairs.collect(),
            Self::Last => pairs.rev().take(1).collect(),
        }
    }

    /// Sum of a loss of `(teacher, student)` over the layers, the maps of which begin with the
    /// lowest; a scalar.
    ///
    /// # Errors
    /// When there are no layers, or the loss of a pair fails.
    pub fn sum(
        self,
        teacher: &[Tensor],
        student: &[Tensor],
        loss: impl Fn(&Tensor, &Tensor) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let pairs = self.pairs(student.len(), teacher.len()).into_iter();
        let losses = pairs.map(|(s, t)| loss(&teacher[t], &student[s]));
        let sum = losses.reduce(|sum, loss| sum? + loss?);
        sum.unwrap_or_else(|| {
            bail!(
                "{} student layers and {} teacher layers: there must be one of each",
                student.len(),
                teacher.len()
            )
        })
    }
}

/// Samples, teacher heads, queries and keys.
fn same_tokens(teacher: &Tensor, student: &Tensor) -> Result<(usize, usize, usize, usize)> {
    let (t, s) = (teacher.dims4()?, student.dims4()?);
    if (t.0, t.2, t.3) != (s.0, s.2, s.3) {
        bail!("teacher maps {t:?} and student maps {s:?} are of different tokens: pool them first");
    }
    Ok(t)
}

/// Weights of student heads for every teacher head, `[b, teacher heads, student heads]`: a softmax
/// of cosines (equation 2).
fn mixing(t: &Tensor, s: &Tensor, sharpness: f64) -> Result<Tensor> {
    let cosines = unit(t)?.matmul(&unit(s)?.transpose(1, 2)?)?;
    softmax(&(cosines / sharpness)?, D::Minus1)
}

/// `[b, heads, n]` with heads of unit length.
fn unit(maps: &Tensor) -> Result<Tensor> {
    unit_rows(&maps.flatten_to(1)?)?.reshape(maps.shape())
}

/// `[b, heads, n]` with heads that sum to 1.
fn distributions(maps: &Tensor) -> Result<Tensor> {
    maps.broadcast_div(&(maps.sum_keepdim(D::Minus1)? + EPSILON)?)
}

/// Kullback-Leibler divergence of `[b, heads, n]`, summed over heads, mean over samples.
fn divergence(of: &Tensor, from: &Tensor) -> Result<Tensor> {
    let ratio = ((of + EPSILON)?.log()? - (from + EPSILON)?.log()?)?;
    (of * ratio)?.sum_all()? / of.dim(0)? as f64
}
