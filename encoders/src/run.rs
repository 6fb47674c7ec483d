//! How a model is run: at which precision.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// How weights and activations are stored, and their products computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 32-bit floats.
    F32,
    /// 16-bit whole numbers in the linear maps of the transformers, of which as many bits are used as sums
    /// of 32 bits have room for; otherwise as [`Precision::Int8`].
    Int16,
    /// bfloat16, sums in 32-bit floats.
    Bf16,
    /// Bytes in the linear maps of the transformers: one step per output for weights, one per token
    /// for activations; attention in bfloat16 where the CPU has instructions for it, else in floats.
    Int8,
}

impl Precision {
    /// Every precision, the most exact first.
    pub const ALL: [Self; 4] = [Self::F32, Self::Int16, Self::Bf16, Self::Int8];

    /// Least cosine of an embedding to that of the reference network in f32, below which a model is
    /// not served at this precision.
    pub fn least_cosine(self) -> f32 {
        match self {
            Self::F32 => 0.999_99,
            Self::Int16 | Self::Bf16 => 0.999_9,
            Self::Int8 => 0.998,
        }
    }

    /// 4-byte words of a row with `n` elements.
    pub(crate) fn words(self, n: usize) -> usize {
        match self {
            Self::F32 => n,
            Self::Int16 | Self::Bf16 => n.div_ceil(2),
            Self::Int8 => n.div_ceil(4),
        }
    }

    /// Whether elements are whole numbers, and rows have a step each.
    pub(crate) fn is_whole(self) -> bool {
        matches!(self, Self::Int16 | Self::Int8)
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::F32 => "f32",
            Self::Int16 => "int16",
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
        })
    }
}

/// Which precision a tower gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PrecisionChoice {
    /// For each tower the fastest whose embeddings of the probes of the model folder have a cosine
    /// of at least .9999 to the stored ones; f32 where there are no probes, or the tower is so small
    /// that nothing would be gained.
    #[default]
    Auto,
    /// This one, refused where the probes of the model folder are missed by more than
    /// [`Precision::least_cosine`] allows.
    Only(Precision),
}

/// Why a choice cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("expected {expected}, got {text:?}")]
pub struct BadChoice {
    pub(crate) text: String,
    pub(crate) expected: &'static str,
}

impl FromStr for PrecisionChoice {
    type Err = BadChoice;

    fn from_str(text: &str) -> Result<Self, BadChoice> {
        if text == "auto" {
            return Ok(Self::Auto);
        }
        let named = Precision::ALL.into_iter().find(|p| p.to_string() == text);
        named.map(Self::Only).ok_or_else(|| BadChoice {
            text: text.to_owned(),
            expected: "auto, f32, int16, bf16 or int8",
        })
    }
}

impl fmt::Display for PrecisionChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Only(precision) => precision.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_survive_their_text_form_and_others_are_refused() {
        for text in ["auto", "f32", "int16", "bf16", "int8"] {
            let choice: PrecisionChoice = text.parse().expect("it is one");
            assert_eq!(choice.to_string(), text);
        }
        for text in ["", "F32", "fp16", "auto "] {
            let error = text.parse::<PrecisionChoice>().expect_err(text);
            assert!(
                error.to_string().contains("auto, f32, int16, bf16 or int8"),
                "{error}"
            );
        }
    }
}
