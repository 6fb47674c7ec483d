//! What a student learns from its teacher in one step.

use candle_core::{Device, Result, Tensor};
use encoders::nn::{Init, SentencePass, Source as _};
use serde::{Deserialize, Serialize};

use crate::{
    TrainingError,
    objective::{
        attention::{LayerMap, Variant, amad, masked, one_to_one},
        distillation::{embedding_distance, logit_divergence},
    },
    parameters::Parameters,
};

/// Before the names of the parameters that only the lesson has.
pub(super) const ASIDE: &str = "lesson.";

/// Weights of what is taught.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LessonConfig {
    /// Of one minus the cosine of a text's embedding to the teacher's.
    pub embedding: f64,
    /// Of the divergence of a text's similarities to the teacher's embeddings of the batch from the
    /// teacher's own: what a search in a collection that the teacher filled would see.
    pub logits: f64,
    /// Factor from cosines to these logits.
    pub logit_scale: f64,
    /// Where the teacher looks; not taught where nothing is said.
    pub attention: Option<AttentionConfig>,
}

/// How the student learns where the teacher looks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttentionConfig {
    /// How heads are compared.
    pub guide: Guide,
    /// Weight of the sum over layers and teacher heads.
    pub weight: f64,
    /// Divides cosines of maps before the softmax over student heads; plays no part in `one_to_one`.
    /// 1 is the paper's.
    #[serde(default = "papers_sharpness")]
    pub sharpness: f64,
    /// Which layers learn from which.
    pub layers: LayerMap,
}

fn papers_sharpness() -> f64 {
    1.0
}

/// How heads are compared (see [`crate::objective::attention`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Guide {
    /// The first heads, one by one.
    OneToOne,
    /// [`Variant::Distance`]
    AmadV1,
    /// [`Variant::Divergence`]
    AmadV2,
    /// [`Variant::ProjectedDivergence`]
    AmadV3,
    /// [`Variant::RowDivergence`]
    AmadV4,
}

/// The loss of a step and its terms before they were weighted.
pub(super) struct Loss {
    pub(super) whole: Tensor,
    pub(super) embedding: Tensor,
    pub(super) logits: Option<Tensor>,
    pub(super) attention: Option<Tensor>,
}

/// A lesson with what it learns itself.
pub(super) struct Lesson {
    config: LessonConfig,
    /// Student and teacher layer.
    pairs: Vec<(usize, usize)>,
    /// For `amad_v3`, W and b of each pair.
    projections: Vec<(Tensor, Tensor)>,
    /// Tokens a side of the maps that these take.
    tokens: usize,
}

impl Lesson {
    /// For a student and a teacher of so many layers and texts of at most `tokens`.
    pub(super) fn new(
        config: &LessonConfig,
        [student, teacher]: [usize; 2],
        tokens: usize,
        parameters: &mut Parameters,
    ) -> std::result::Result<Self, TrainingError> {
        let attention = config.attention.as_ref();
        let pairs = attention.map_or_else(Vec::new, |a| a.layers.pairs(student, teacher));
        let mut projections = Vec::new();
        if attention.is_some_and(|a| a.guide == Guide::AmadV3) {
            let n = tokens * tokens;
            // It begins as V2: heads are not negative, so that the rectifier changes nothing.
            let same = Tensor::eye(n, candle_core::DType::F32, &Device::Cpu)?;
            for pair in 0..pairs.len() {
                let [weight, bias] = ["weight", "bias"].map(|part| format!("{ASIDE}{pair}.{part}"));
                let w = parameters.tensor(&weight, &[n, n], Init::Constant(0.0))?;
                parameters.set(&weight, &same)?;
                projections.push((w, parameters.tensor(&bias, &[n], Init::Constant(0.0))?));
            }
        }
        Ok(Self {
            config: config.clone(),
            pairs,
            projections,
            tokens,
        })
    }

    /// Of passes for the same texts.
    pub(super) fn loss(&self, teacher: &SentencePass, student: &SentencePass) -> Result<Loss> {
        let config = &self.config;
        let embedding = embedding_distance(&teacher.rows, &student.rows)?;
        let mut whole = (&embedding * config.embedding)?;
        let logits = if config.logits > 0.0 {
            let logits = |rows: &Tensor| rows.matmul(&teacher.rows.t()?)? * config.logit_scale;
            let (of_teacher, of_student) = (logits(&teacher.rows)?, logits(&student.rows)?);
            let term = logit_divergence(&of_teacher, &of_student, 1.0)?;
            whole = (whole + (&term * config.logits)?)?;
            Some(term)
        } else {
            None
        };
        let attention = if let Some(attention) = &config.attention {
            let term = self.attention(attention, teacher, student)?;
            whole = (whole + (&term * attention.weight)?)?;
            Some(term)
        } else {
            None
        };
        Ok(Loss {
            whole,
            embedding,
            logits,
            attention,
        })
    }

    fn attention(
        &self,
        config: &AttentionConfig,
        teacher: &SentencePass,
        student: &SentencePass,
    ) -> Result<Tensor> {
        let mask = &student.mask;
        let mut sum = Tensor::zeros((), mask.dtype(), mask.device())?;
        for (pair, (of_student, of_teacher)) in self.pairs.iter().enumerate() {
            let t = masked(&teacher.maps[*of_teacher], mask, mask)?;
            let s = masked(&student.maps[*of_student], mask, mask)?;
            let aligned = |variant| amad(&t, &s, variant, config.sharpness);
            let loss = match config.guide {
                Guide::OneToOne => one_to_one(&t, &s),
                Guide::AmadV1 => aligned(Variant::Distance),
                Guide::AmadV2 => aligned(Variant::Divergence),
                Guide::AmadV3 => {
                    let (weight, bias) = &self.projections[pair];
                    let whole = |maps: &Tensor| {
                        let missing = self.tokens - maps.dim(2)?;
                        maps.pad_with_zeros(2, 0, missing)?
                            .pad_with_zeros(3, 0, missing)
                    };
                    let variant = Variant::ProjectedDivergence { weight, bias };
                    amad(&whole(&t)?, &whole(&s)?, variant, config.sharpness)
                }
                Guide::AmadV4 => aligned(Variant::RowDivergence),
            };
            sum = (sum + loss?)?;
        }
        Ok(sum)
    }
}

#[cfg(test)]
mod tests {
    use encoders::nn::{
        Activation, Form, SentenceConfig, SentencePooling, SentenceTower, TransformerConfig,
    };

    use super::*;

    const TOKENS: usize = 6;

    fn tower(seed: u64, layers: usize, heads: usize) -> SentenceTower {
        let config = SentenceConfig {
            vocabulary: 20,
            positions: TOKENS,
            context_length: TOKENS,
            token_types: 1,
            transformer: TransformerConfig {
                width: 12,
                mlp_width: 20,
                layers,
                heads,
                activation: Activation::Gelu,
                layer_norm_eps: 1e-12,
            },
            pooling: SentencePooling::Mean,
            dense: None,
        };
        let mut parameters = Parameters::seeded(seed, Device::Cpu);
        let tower = SentenceTower::new(&mut parameters, &config, Form::Fused).expect("a tower");
        // Sharper attention than that of fresh weights, so that maps differ.
        for (name, var) in parameters.all() {
            let larger = (var.as_tensor() * 8.0).expect("a product");
            if name.contains("attention.self") {
                parameters.set(name, &larger).expect("of one shape");
            }
        }
        tower
    }

    #[test]
    fn padding_plays_no_part_in_where_the_teacher_looks() {
        let (teacher, student) = (tower(1, 4, 3), tower(2, 2, 2));
        let texts = [vec![1, 2], vec![3, 4, 5, 6, 7, 8], vec![9, 10, 11]];
        for guide in [
            Guide::OneToOne,
            Guide::AmadV1,
            Guide::AmadV2,
            Guide::AmadV3,
            Guide::AmadV4,
        ] {
            let config = LessonConfig {
                embedding: 1.0,
                logits: 0.0,
                logit_scale: 1.0,
                attention: Some(AttentionConfig {
                    guide,
                    weight: 0.5,
                    sharpness: 0.5,
                    layers: LayerMap::Uniform,
                }),
            };
            let mut aside = Parameters::seeded(3, Device::Cpu);
            let lesson = Lesson::new(&config, [2, 4], TOKENS, &mut aside).expect("a lesson");
            let attention = |texts: &[Vec<u32>]| {
                let pass = |tower: &SentenceTower| tower.forward(texts).expect("a pass");
                let loss = lesson
                    .loss(&pass(&teacher), &pass(&student))
                    .expect("a loss");
                let number = |term: &Tensor| term.to_scalar::<f32>().expect("a number");
                let attention = number(loss.attention.as_ref().expect("it is taught"));
                let whole = number(&loss.embedding) + 0.5 * attention;
                assert!((number(&loss.whole) - whole).abs() < 1e-5, "{guide:?}");
                attention
            };
            let together = attention(&texts);
            let alone = texts
                .each_ref()
                .map(|text| attention(std::slice::from_ref(text)));
            let mean = alone.iter().sum::<f32>() / 3.0;
            let gap = (together - mean).abs();
            assert!(
                gap < 1e-4 * mean,
                "{guide:?}: {together}, one by one {alone:?}"
            );
        }
    }
}
