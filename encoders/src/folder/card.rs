//! `diptych.json`: what it says, and how it is written.

use std::{
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use embedding::Modality;
use fs_err as fs;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::CARD;
use crate::{ModelError, Precision, Probes, keys};

/// `diptych.json`: what people want to know of a model. Nothing in it changes an embedding.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Card {
    /// Name of the model.
    pub name: String,
    /// License of the weights, as an SPDX expression.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub license: Option<String>,
    /// Languages that its text tower was trained for, as BCP 47 writes them; empty where nothing says.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub languages: Vec<String>,
    /// Where it comes from, what it is for, and what it is not for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Inputs whose embeddings are known (see [`crate::check`]).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probes: Option<Probes>,
    /// What came of precisions that may be chosen without being asked for (see [`crate::verify`]).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub measured: Vec<Measured>,
}

/// How a tower at some precision did with the probes of its folder, so that it need not be tried at every start.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measured {
    /// Version of this crate.
    pub version: String,
    /// The instruction set of the kernels.
    pub kernels: String,
    /// Which tower.
    pub tower: Modality,
    /// How weights and activations were stored.
    pub precision: Precision,
    /// Least cosine of an embedding to the stored one.
    pub least_cosine: f32,
}

/// The contents of a card.
pub(super) fn parse_card(contents: &[u8], file: PathBuf) -> Result<Card, ModelError> {
    serde_json::from_value(keys::parse(contents, &file)?)
        .map_err(|source| ModelError::Json { file, source })
}

/// The card of a folder, where it has one.
pub(crate) fn read_card(folder: &Path) -> Result<Option<Card>, ModelError> {
    let file = folder.join(CARD);
    if !file.exists() {
        return Ok(None);
    }
    parse_card(&fs::read(&file)?, file).map(Some)
}

/// Writes `diptych.json`: beside it first, so that there is always a whole one.
pub(crate) fn write_card(folder: &Path, card: &Card) -> Result<(), ModelError> {
    CardFile::create(folder)?.write(card)
}

/// A card on its way into a folder: the file that was there stays whole until it is replaced, by whichever of
/// several processes comes last.
pub(crate) struct CardFile {
    beside: PathBuf,
    to: PathBuf,
}

impl CardFile {
    /// Fails where nothing can be written.
    pub(crate) fn create(folder: &Path) -> Result<Self, ModelError> {
        // Processes in containers have the same numbers.
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let unique = now.map_or(0, |now| now.as_nanos()) ^ u128::from(std::process::id());
        let beside = folder.join(format!("{CARD}.{unique:x}.partial"));
        fs::write(&beside, "")?;
        let to = folder.join(CARD);
        Ok(Self { beside, to })
    }

    /// Puts the card in its place.
    pub(crate) fn write(self, card: &Card) -> Result<(), ModelError> {
        fs::write(&self.beside, format!("{:#}\n", json!(card)))?;
        Ok(fs::rename(&self.beside, &self.to)?)
    }
}

impl Drop for CardFile {
    fn drop(&mut self) {
        // Gone where it was renamed.
        let _ = fs::remove_file(&self.beside);
    }
}
