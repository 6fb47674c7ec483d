//! Which model and aspect made an embedding, and so which embeddings may meet.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::Scoring;

/// What kind of thing an item is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Modality {
    /// Words.
    Text,
    /// A picture.
    Image,
}

impl Modality {
    /// Every modality.
    pub const ALL: [Self; 2] = [Self::Text, Self::Image];
}

impl fmt::Display for Modality {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "text",
            Self::Image => "image",
        })
    }
}

/// Which of an item's embeddings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Aspect {
    /// Where images and texts meet.
    Shared,
    /// What only this modality knows; orthogonal to the shared one inside the tower's output.
    Specific(Modality),
}

impl fmt::Display for Aspect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shared => f.write_str("shared"),
            Self::Specific(modality) => write!(f, "specific-{modality}"),
        }
    }
}

/// The first 16 bytes of a hash over everything in a model folder that changes an embedding.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Fingerprint(pub [u8; 16]);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

impl FromStr for Fingerprint {
    type Err = SpaceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || SpaceError::BadFingerprint {
            text: text.to_owned(),
        };
        if text.len() != 32 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(bad());
        }
        let mut bytes = [0; 16];
        for (i, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).map_err(|_| bad())?;
        }
        Ok(Self(bytes))
    }
}

impl TryFrom<String> for Fingerprint {
    type Error = SpaceError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Fingerprint> for String {
    fn from(f: Fingerprint) -> Self {
        f.to_string()
    }
}

/// Where an embedding lives. Embeddings meet only when their spaces are equal.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Space {
    /// Name of the model, for people.
    pub model: String,
    /// Identity of the model, for machines.
    pub fingerprint: Fingerprint,
    /// Number of elements of every embedding.
    pub dim: usize,
    /// Which embedding.
    pub aspect: Aspect,
}

impl Space {
    /// Whether embeddings of the two spaces may meet. The name is for people and does not count.
    pub fn meets(&self, other: &Self) -> bool {
        self.fingerprint == other.fingerprint
            && self.dim == other.dim
            && self.aspect == other.aspect
    }
}

impl fmt::Display for Space {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} ({}, {}, dim {})",
            self.model, self.fingerprint, self.aspect, self.dim
        )
    }
}

/// Every space that one model fills. A collection remembers these.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spaces {
    /// Name of the model, for people.
    pub model: String,
    /// Identity of the model, for machines.
    pub fingerprint: Fingerprint,
    /// Dim of the shared embeddings.
    pub shared_dim: usize,
    /// Dim of the specific embeddings of texts; `None` where the shared projection discards
    /// nothing, so that nothing specific is left.
    pub specific_text_dim: Option<usize>,
    /// The same for images.
    pub specific_image_dim: Option<usize>,
    /// How a shared cosine becomes a probability; `None` where it is not known, as in spaces that
    /// were stored before this was kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scoring: Option<Scoring>,
}

impl Spaces {
    /// The space where images and texts meet.
    pub fn shared(&self) -> Space {
        self.space(self.shared_dim, Aspect::Shared)
    }

    /// The space of one modality's specific embeddings, where the model has one.
    pub fn specific(&self, modality: Modality) -> Option<Space> {
        let dim = match modality {
            Modality::Text => self.specific_text_dim,
            Modality::Image => self.specific_image_dim,
        };
        dim.map(|dim| self.space(dim, Aspect::Specific(modality)))
    }

    /// Whether both sets were made by the same model. Embeddings do not depend on the scoring, so it
    /// does not count.
    pub fn same_model(&self, other: &Self) -> bool {
        self.fingerprint == other.fingerprint
            && self.shared_dim == other.shared_dim
            && self.specific_text_dim == other.specific_text_dim
            && self.specific_image_dim == other.specific_image_dim
    }

    fn space(&self, dim: usize, aspect: Aspect) -> Space {
        Space {
            model: self.model.clone(),
            fingerprint: self.fingerprint,
            dim,
            aspect,
        }
    }
}

/// Why a space cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SpaceError {
    /// Not 32 hexadecimal digits.
    #[error("a fingerprint is 32 hexadecimal digits, got {text:?}")]
    BadFingerprint {
        /// What was given.
        text: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_survives_its_text_form() {
        let f = Fingerprint(std::array::from_fn(|i| (i * 17) as u8));
        assert_eq!(f.to_string().parse(), Ok(f));
        assert!("00".parse::<Fingerprint>().is_err());
        assert!("zz".repeat(16).parse::<Fingerprint>().is_err());
        assert!("\u{e9}".repeat(16).parse::<Fingerprint>().is_err());
    }

    #[test]
    fn the_name_of_a_model_does_not_decide_whether_spaces_meet() {
        let fingerprint = Fingerprint([1; 16]);
        let a = Space {
            model: "a".into(),
            fingerprint,
            dim: 4,
            aspect: Aspect::Shared,
        };
        assert!(a.meets(&Space {
            model: "b".into(),
            ..a.clone()
        }));
        assert!(!a.meets(&Space {
            dim: 5,
            ..a.clone()
        }));
        assert!(!a.meets(&Space {
            aspect: Aspect::Specific(Modality::Text),
            ..a.clone()
        }));
        assert!(!a.meets(&Space {
            fingerprint: Fingerprint([2; 16]),
            ..a.clone()
        }));
    }

    /// What collections stored before the scoring was kept.
    #[test]
    fn spaces_without_a_scoring_are_read() {
        let old = r#"{"model":"m","fingerprint":"00000000000000000000000000000000",
            "shared_dim":4,"specific_text_dim":null,"specific_image_dim":8}"#;
        let read: Spaces = serde_json::from_str(old).expect("as it was written");
        assert_eq!(read.scoring, None);
        let scoring = Some(Scoring::Softmax { logit_scale: 100.0 });
        let new = Spaces { scoring, ..read };
        let text = serde_json::to_string(&new).expect("plain");
        assert_eq!(serde_json::from_str::<Spaces>(&text).ok(), Some(new));
    }
}
