//! How cosines become probabilities.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How a model's cosine of a picture and a text becomes a probability: by the loss that it was
/// trained with.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Scoring {
    /// Against each other (Radford et al. 2021): the probabilities of all labels sum to 1.
    Softmax {
        /// Factor from cosines to logits, already exponentiated.
        logit_scale: f32,
    },
    /// Each for itself (Zhai et al. 2023, equation 1): any number of labels may fit, or none.
    Sigmoid {
        /// Factor from cosines to logits, already exponentiated.
        logit_scale: f32,
        /// Added to the scaled cosine.
        logit_bias: f32,
    },
}

impl Scoring {
    /// Factor from cosines to logits.
    pub fn logit_scale(&self) -> f32 {
        match self {
            Self::Softmax { logit_scale } | Self::Sigmoid { logit_scale, .. } => *logit_scale,
        }
    }

    /// Added to scaled cosines; 0 where a softmax follows, which would not see it.
    pub fn logit_bias(&self) -> f32 {
        match self {
            Self::Softmax { .. } => 0.0,
            Self::Sigmoid { logit_bias, .. } => *logit_bias,
        }
    }

    /// The logit of a cosine.
    pub fn logit(&self, cosine: f32) -> f64 {
        f64::from(self.logit_scale() * cosine) + f64::from(self.logit_bias())
    }

    /// The probabilities of labels with these logits.
    pub fn probabilities(&self, logits: &[f64]) -> Vec<f64> {
        match self {
            Self::Softmax { .. } => softmax(logits),
            Self::Sigmoid { .. } => logits.iter().map(|x| 1.0 / (1.0 + (-x).exp())).collect(),
        }
    }

    /// Whether the numbers are usable: finite, and the scale above 0.
    pub fn is_usable(&self) -> bool {
        self.logit_scale().is_finite() && self.logit_scale() > 0.0 && self.logit_bias().is_finite()
    }
}

/// By bits, so that equality holds for any number.
impl PartialEq for Scoring {
    fn eq(&self, other: &Self) -> bool {
        let bits = |s: &Self| (s.logit_scale().to_bits(), s.logit_bias().to_bits());
        std::mem::discriminant(self) == std::mem::discriminant(other) && bits(self) == bits(other)
    }
}

impl Eq for Scoring {}

impl fmt::Display for Scoring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Softmax { logit_scale } => write!(f, "softmax (scale {logit_scale})"),
            Self::Sigmoid {
                logit_scale,
                logit_bias,
            } => write!(f, "sigmoid (scale {logit_scale}, bias {logit_bias})"),
        }
    }
}

fn softmax(logits: &[f64]) -> Vec<f64> {
    let max = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let powers: Vec<f64> = logits.iter().map(|logit| (logit - max).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.iter().map(|power| power / sum).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_softmax_sums_to_1_and_a_sigmoid_stands_for_itself() {
        let softmax = Scoring::Softmax { logit_scale: 10.0 };
        let sigmoid = Scoring::Sigmoid {
            logit_scale: 10.0,
            logit_bias: -3.0,
        };
        let logits = |scoring: Scoring| [0.8, 0.6].map(|cosine| scoring.logit(cosine));
        let both = softmax.probabilities(&logits(softmax));
        assert!((both[0] - 1.0 / (1.0 + (-2.0_f64).exp())).abs() < 1e-6);
        assert!((both[0] + both[1] - 1.0).abs() < 1e-12);
        let both = sigmoid.probabilities(&logits(sigmoid));
        assert!((both[0] - 1.0 / (1.0 + (-5.0_f64).exp())).abs() < 1e-6);
        let alone = sigmoid.probabilities(&[sigmoid.logit(0.8)]);
        assert_eq!(alone[0].to_bits(), both[0].to_bits());
    }

    #[test]
    fn it_survives_its_json_form_and_nothing_else_is_read() {
        for (scoring, json) in [
            (
                Scoring::Softmax { logit_scale: 100.0 },
                r#"{"kind":"softmax","logit_scale":100.0}"#,
            ),
            (
                Scoring::Sigmoid {
                    logit_scale: 117.5,
                    logit_bias: -12.75,
                },
                r#"{"kind":"sigmoid","logit_scale":117.5,"logit_bias":-12.75}"#,
            ),
        ] {
            assert_eq!(serde_json::to_string(&scoring).expect("plain"), json);
            let read: Scoring = serde_json::from_str(json).expect("as written");
            assert_eq!(read, scoring);
        }
        assert!(serde_json::from_str::<Scoring>(r#"{"kind":"other","logit_scale":1}"#).is_err());
    }
}
