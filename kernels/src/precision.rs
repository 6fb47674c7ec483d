//! The precisions of products.

use std::fmt;

use serde::{Deserialize, Serialize};

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

    /// 4-byte words of a row with `n` elements.
    pub fn words(self, n: usize) -> usize {
        match self {
            Self::F32 => n,
            Self::Int16 | Self::Bf16 => n.div_ceil(2),
            Self::Int8 => n.div_ceil(4),
        }
    }

    /// Whether elements are whole numbers, and rows have a step each.
    pub fn is_whole(self) -> bool {
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
