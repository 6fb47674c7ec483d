//! A unit-length row of f32.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// How far from 1 the length of a row may be for [`Embedding::new`] to take it as a unit row.
///
/// Half-precision round trips of a unit row stay within 1e-3.
pub const UNIT_TOLERANCE: f32 = 1e-3;

/// Why a row of numbers is no embedding.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum EmbeddingError {
    /// The row has no elements.
    #[error("an embedding needs at least one dimension, got an empty row")]
    Empty,
    /// An element is NaN or infinite.
    #[error("element {position} of the embedding is {value}, expected a finite number")]
    NotFinite {
        /// Index of the first such element.
        position: usize,
        /// Its value.
        value: f32,
    },
    /// Every element is zero (or the length underflows), so there is no direction.
    #[error("the embedding of dim {dim} has length 0, so it has no direction")]
    ZeroLength {
        /// Number of elements.
        dim: usize,
    },
    /// The row is not of unit length.
    #[error("the embedding has length {length}, expected 1 (tolerance {UNIT_TOLERANCE})")]
    NotUnit {
        /// Its Euclidean length.
        length: f32,
    },
}

/// A finite row of f32 with Euclidean length 1. The cosine of two embeddings is their dot product.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Vec<f32>", into = "Vec<f32>")]
pub struct Embedding(Box<[f32]>);

impl Embedding {
    /// Takes a row that is already of unit length, bit for bit.
    ///
    /// # Errors
    /// When the row is empty, not finite, or its length differs from 1 by more than
    /// [`UNIT_TOLERANCE`].
    pub fn new(row: Vec<f32>) -> Result<Self, EmbeddingError> {
        let length = length(&row)?;
        if (length - 1.0).abs() > f64::from(UNIT_TOLERANCE) {
            return Err(EmbeddingError::NotUnit {
                length: length as f32,
            });
        }
        Ok(Self(row.into()))
    }

    /// Scales a row to unit length.
    ///
    /// # Errors
    /// When the row is empty, not finite, or has no direction.
    pub fn normalized(mut row: Vec<f32>) -> Result<Self, EmbeddingError> {
        let length = length(&row)?;
        if length < f64::from(f32::MIN_POSITIVE) {
            return Err(EmbeddingError::ZeroLength { dim: row.len() });
        }
        for x in &mut row {
            *x = (f64::from(*x) / length) as f32;
        }
        Ok(Self(row.into()))
    }

    /// The elements, `[dim]`.
    pub fn as_slice(&self) -> &[f32] {
        &self.0
    }

    /// Number of elements.
    pub fn dim(&self) -> usize {
        self.0.len()
    }

    /// Cosine with another embedding of the same dim, in `[-1, 1]` up to rounding.
    ///
    /// # Panics
    /// When the dims differ: embeddings of different spaces must be told apart before.
    pub fn cosine(&self, other: &Self) -> f32 {
        assert_eq!(
            self.dim(),
            other.dim(),
            "embeddings of different dims never meet"
        );
        self.0
            .iter()
            .zip(&other.0)
            .map(|(a, b)| f64::from(*a) * f64::from(*b))
            .sum::<f64>() as f32
    }

    /// Gives the elements away.
    pub fn into_vec(self) -> Vec<f32> {
        self.0.into_vec()
    }
}

/// Euclidean length in f64, after checking that every element is finite.
fn length(row: &[f32]) -> Result<f64, EmbeddingError> {
    if row.is_empty() {
        return Err(EmbeddingError::Empty);
    }
    if let Some(position) = row.iter().position(|x| !x.is_finite()) {
        return Err(EmbeddingError::NotFinite {
            position,
            value: row[position],
        });
    }
    Ok(row
        .iter()
        .map(|x| f64::from(*x) * f64::from(*x))
        .sum::<f64>()
        .sqrt())
}

impl TryFrom<Vec<f32>> for Embedding {
    type Error = EmbeddingError;

    fn try_from(row: Vec<f32>) -> Result<Self, Self::Error> {
        Self::new(row)
    }
}

impl From<Embedding> for Vec<f32> {
    fn from(e: Embedding) -> Self {
        e.into_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_that_is_not_finite_is_refused_with_its_position() {
        let refused = Embedding::normalized(vec![0.0, f32::NAN]);
        assert!(matches!(
            refused,
            Err(EmbeddingError::NotFinite { position: 1, .. })
        ));
        let refused = Embedding::new(vec![f32::INFINITY]);
        assert!(matches!(
            refused,
            Err(EmbeddingError::NotFinite { position: 0, .. })
        ));
    }

    #[test]
    fn only_unit_rows_are_taken_as_they_are() {
        assert!(Embedding::new(vec![0.6, 0.8]).is_ok());
        assert_eq!(
            Embedding::new(vec![3.0, 4.0]),
            Err(EmbeddingError::NotUnit { length: 5.0 })
        );
        assert_eq!(Embedding::new(vec![]), Err(EmbeddingError::Empty));
    }

    #[test]
    fn huge_and_tiny_rows_normalise_without_overflow() {
        for scale in [1e-30_f32, 1.0, 1e30] {
            let e =
                Embedding::normalized(vec![3.0 * scale, -4.0 * scale]).expect("has a direction");
            assert!((e.as_slice()[0] - 0.6).abs() < 1e-6 && (e.as_slice()[1] + 0.8).abs() < 1e-6);
        }
    }
}
