//! Where pictures and words come from.

use std::{collections::BTreeMap, path::PathBuf};

use pairs::Source;
use serde::{Deserialize, Serialize};

use super::{Validation, one, sources};

/// Pictures and their words: manifests of drawings, or pairs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataConfig {
    /// Pairs of pictures and captions, in place of manifests (docs/training.md).
    #[serde(
        default,
        deserialize_with = "sources::sources",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub pairs: Vec<Source>,
    /// What a run on pairs is evaluated on; nothing where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation: Option<Validation>,
    /// A run on pairs stops once more than this share of its pictures surely cannot be read.
    #[serde(
        default = "DataConfig::unreadable_share",
        skip_serializing_if = "DataConfig::is_usual"
    )]
    pub unreadable_share: f64,
    /// Manifests (JSON lines); picture paths in them are relative to the manifest.
    #[serde(default)]
    pub manifests: Vec<PathBuf>,
    /// Styles that are kept out of training and evaluated on.
    #[serde(default)]
    pub held_out: Vec<String>,
    /// How often pictures of a style are drawn, relative to 1 for styles that are not named.
    #[serde(default)]
    pub style_weights: BTreeMap<String, f64>,
    /// Languages besides English whose words are taken from the `words.jsonl` beside the manifests:
    /// for the tokenizer, the captions and the evaluation.
    #[serde(default)]
    pub languages: Vec<String>,
    /// How often a concept with a skin tone is drawn, relative to 1 for the others.
    #[serde(default = "one")]
    pub skin_tone_weight: f64,
}

impl DataConfig {
    /// One picture in twenty: collections from the web lose that many, more is a wrong path.
    fn unreadable_share() -> f64 {
        0.05
    }

    #[allow(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
    fn is_usual(share: &f64) -> bool {
        share.to_bits() == Self::unreadable_share().to_bits()
    }
}

impl Default for DataConfig {
    /// No data.
    fn default() -> Self {
        Self {
            pairs: Vec::new(),
            validation: None,
            unreadable_share: Self::unreadable_share(),
            manifests: Vec::new(),
            held_out: Vec::new(),
            style_weights: BTreeMap::new(),
            languages: Vec::new(),
            skin_tone_weight: one(),
        }
    }
}
