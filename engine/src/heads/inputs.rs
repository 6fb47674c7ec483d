//! Which embeddings of an item a head reads.

use std::{f32::consts::FRAC_1_SQRT_2, fmt};

use embedding::{Aspect, Embedding, Modality, Space, Spaces};
use serde::{Deserialize, Serialize};

use crate::EngineError;

/// Which embeddings a head reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HeadAspect {
    /// Those where pictures and texts meet.
    #[default]
    Shared,
    /// What only one modality knows.
    Specific,
    /// Both, one after the other.
    Both,
}

/// The spaces of the embeddings that a head reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Inputs {
    /// Where they must come from.
    pub space: Space,
    /// A second space. Its embedding follows that of the first, each divided by the square root of 2, so
    /// that both together are of unit length.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beside: Option<Space>,
}

impl Inputs {
    /// The embeddings of one space.
    pub fn one(space: Space) -> Self {
        Self {
            space,
            beside: None,
        }
    }

    /// What an aspect of a model's embeddings is for items of this modality; it need not be known for
    /// the shared ones.
    ///
    /// # Errors
    /// [`EngineError::BadLesson`] when the model keeps nothing specific, or the modality is needed and
    /// not known.
    pub fn of(
        spaces: &Spaces,
        aspect: HeadAspect,
        modality: Option<Modality>,
    ) -> Result<Self, EngineError> {
        if aspect == HeadAspect::Shared {
            return Ok(Self::one(spaces.shared()));
        }
        let bad = |reason: String| EngineError::BadLesson {
            field: "aspect".into(),
            reason,
        };
        let modality = modality.ok_or_else(|| {
            bad(
                "only pictures or only texts can be told apart by what is specific to them: use the \
                 aspect shared for both"
                    .into(),
            )
        })?;
        let specific = spaces.specific(modality).ok_or_else(|| {
            let model = &spaces.model;
            bad(format!(
                "model {model} keeps nothing specific to a modality for {modality}s: use the aspect shared"
            ))
        })?;
        Ok(match aspect {
            HeadAspect::Both => Self {
                space: spaces.shared(),
                beside: Some(specific),
            },
            _ => Self::one(specific),
        })
    }

    /// Numbers of a row.
    pub fn dim(&self) -> usize {
        let beside = self.beside.as_ref().map_or(0, |space| space.dim);
        self.space.dim.saturating_add(beside)
    }

    /// Which aspect this is.
    pub fn aspect(&self) -> HeadAspect {
        match (self.space.aspect, &self.beside) {
            (_, Some(_)) => HeadAspect::Both,
            (Aspect::Shared, None) => HeadAspect::Shared,
            (Aspect::Specific(_), None) => HeadAspect::Specific,
        }
    }

    /// The only modality whose items have such embeddings, where it is one.
    pub fn modality(&self) -> Option<Modality> {
        match self.beside.as_ref().unwrap_or(&self.space).aspect {
            Aspect::Shared => None,
            Aspect::Specific(modality) => Some(modality),
        }
    }

    /// The row of an item, `[dim]` and of unit length; `None` where it has no such embedding.
    pub fn row(
        &self,
        modality: Modality,
        shared: &Embedding,
        specific: Option<&Embedding>,
    ) -> Option<Vec<f32>> {
        if self.modality().is_some_and(|only| only != modality) {
            return None;
        }
        let row = match self.aspect() {
            HeadAspect::Shared => shared.as_slice().to_vec(),
            HeadAspect::Specific => specific?.as_slice().to_vec(),
            HeadAspect::Both => {
                let both = shared.as_slice().iter().chain(specific?.as_slice());
                both.map(|x| x * FRAC_1_SQRT_2).collect()
            }
        };
        (row.len() == self.dim()).then_some(row)
    }

    /// Refuses a head for embeddings of another model, or that this one does not make.
    ///
    /// # Errors
    /// [`EngineError::AnotherSpace`] then.
    pub fn check(&self, spaces: &Spaces) -> Result<(), EngineError> {
        let has = |space: &Space| match space.aspect {
            Aspect::Shared => space.meets(&spaces.shared()),
            Aspect::Specific(of) => spaces.specific(of).is_some_and(|own| own.meets(space)),
        };
        let is_pair = |beside: &Space| {
            self.space.aspect == Aspect::Shared && beside.aspect != Aspect::Shared && has(beside)
        };
        if has(&self.space) && self.beside.as_ref().is_none_or(is_pair) {
            return Ok(());
        }
        Err(EngineError::AnotherSpace {
            expected: self.to_string(),
            got: spaces.shared().to_string(),
        })
    }
}

impl fmt::Display for Inputs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.beside {
            None => self.space.fmt(f),
            Some(beside) => write!(f, "{} with {beside}", self.space),
        }
    }
}
