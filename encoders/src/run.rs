//! How a model is run: at which precision.

use std::{fmt, str::FromStr};

use kernels::Precision;
use thiserror::Error;

/// Least cosine of an embedding to that of the reference network in f32, below which a model is not served at this
/// precision.
pub(crate) fn least_cosine(precision: Precision) -> f32 {
    match precision {
        Precision::F32 => 0.999_99,
        Precision::Int16 | Precision::Bf16 => 0.999_9,
        Precision::Int8 => 0.998,
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
    /// its precision allows.
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
