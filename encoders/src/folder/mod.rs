//! Model folders: the only hand-over between training and serving.
//!
//! A folder is a Hugging Face checkpoint: `config.json`, `preprocessor_config.json`,
//! `tokenizer.json` and `model.safetensors`. Ours may add a `diptych.json` (see [`Card`]), which
//! others ignore. Nothing else in the project reads or writes these files.

mod config;
mod write;

use std::path::{Path, PathBuf};

use embedding::Fingerprint;
use fs_err as fs;
use serde::{Deserialize, Serialize};

pub(crate) use write::write_card;
pub use write::{Export, Stored};

use crate::{
    ModelError, PreprocessConfig, Probes, TextTokenizer, keys,
    nn::{ImageConfig, NetworkConfig, Pooling},
};

pub(crate) const CONFIG: &str = "config.json";
pub(crate) const PREPROCESSOR: &str = "preprocessor_config.json";
pub(crate) const TOKENIZER: &str = "tokenizer.json";
pub(crate) const WEIGHTS: &str = "model.safetensors";
const CARD: &str = "diptych.json";

/// `diptych.json`: what people want to know of a model. Nothing in it changes an embedding.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Card {
    /// Name of the model.
    pub name: String,
    /// License of the weights, as an SPDX expression.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub license: Option<String>,
    /// Where it comes from, what it is for, and what it is not for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Inputs whose embeddings are known (see [`crate::check`]).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probes: Option<Probes>,
}

/// The files of a model folder, by content.
pub(crate) struct Files<'a> {
    /// Where they are, for messages.
    pub folder: PathBuf,
    /// What the model is called where it has no card.
    pub name: &'a str,
    pub config: &'a [u8],
    pub preprocessor: &'a [u8],
    pub tokenizer: &'a [u8],
    pub weights: &'a [u8],
    pub card: Option<&'a [u8]>,
}

/// A model folder, read and checked, but for the weights.
pub(crate) struct Description {
    pub network: NetworkConfig,
    pub preprocess: PreprocessConfig,
    pub tokenizer: TextTokenizer,
    pub card: Card,
    pub fingerprint: Fingerprint,
}

/// The small files of a folder, owned; the weights are mapped apart.
pub(crate) struct SmallFiles {
    pub config: Vec<u8>,
    pub preprocessor: Vec<u8>,
    pub tokenizer: Vec<u8>,
    pub card: Option<Vec<u8>>,
}

impl SmallFiles {
    pub(crate) fn read(folder: &Path) -> Result<Self, ModelError> {
        let card = folder.join(CARD);
        Ok(Self {
            config: fs::read(folder.join(CONFIG))?,
            preprocessor: fs::read(folder.join(PREPROCESSOR))?,
            tokenizer: fs::read(folder.join(TOKENIZER))?,
            card: if card.exists() {
                Some(fs::read(card)?)
            } else {
                None
            },
        })
    }
}

impl Files<'_> {
    /// Reads everything but the weights.
    pub(crate) fn describe(&self) -> Result<Description, ModelError> {
        let file = self.folder.join(CONFIG);
        let network = config::read(&keys::parse(self.config, &file)?, &file)?;
        let file = self.folder.join(PREPROCESSOR);
        let preprocess = PreprocessConfig::from_json(self.preprocessor, &file)?;
        let side = network.image.image_size();
        let size = preprocess.size();
        if (size.width.get() as usize, size.height.get() as usize) != (side, side) {
            return Err(ModelError::BadValue {
                file,
                key: "size".to_owned(),
                value: format!("made for {} x {} pixels", size.width, size.height),
                expected: format!("the {side} x {side} that {CONFIG} says"),
            });
        }
        let file = self.folder.join(TOKENIZER);
        let context = network.text.context_length;
        let tokenizer = TextTokenizer::from_json(self.tokenizer, &file, context)?;
        check_tokenizer(&tokenizer, &network, &file)?;
        let card = if let Some(contents) = self.card {
            let file = self.folder.join(CARD);
            parse_card(contents, file)?
        } else {
            Card {
                name: self.name.to_owned(),
                ..Card::default()
            }
        };
        Ok(Description {
            network,
            preprocess,
            tokenizer,
            card,
            fingerprint: self.fingerprint(),
        })
    }

    /// A hash over everything that changes an embedding.
    fn fingerprint(&self) -> Fingerprint {
        let mut hash = blake3::Hasher::new();
        for (name, contents) in [
            (CONFIG, self.config),
            (PREPROCESSOR, self.preprocessor),
            (TOKENIZER, self.tokenizer),
            (WEIGHTS, self.weights),
        ] {
            hash.update(name.as_bytes());
            hash.update(&(contents.len() as u64).to_le_bytes());
            hash.update_rayon(contents);
        }
        let mut fingerprint = [0; 16];
        fingerprint.copy_from_slice(&hash.finalize().as_bytes()[..16]);
        Fingerprint(fingerprint)
    }
}

fn parse_card(contents: &[u8], file: PathBuf) -> Result<Card, ModelError> {
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

/// Refuses a tokenizer that gives no ids, ids the text tower does not have, or not the token that
/// is pooled.
fn check_tokenizer(
    tokenizer: &TextTokenizer,
    network: &NetworkConfig,
    file: &Path,
) -> Result<(), ModelError> {
    let vocabulary = network.text.vocabulary;
    let problem = |problem: String| ModelError::Tokenizer {
        file: file.to_owned(),
        problem,
    };
    let within = |id: Option<u32>| match id.filter(|id| *id as usize >= vocabulary) {
        Some(id) => Err(problem(format!(
            "it gives id {id}, but {CONFIG} has vocab_size {vocabulary}"
        ))),
        None => Ok(()),
    };
    within(tokenizer.largest_id())?;
    // What the template adds need not be in the vocabulary, and may be nothing.
    for text in ["", "a"] {
        let ids = tokenizer.encode(text).map_err(problem)?;
        if ids.is_empty() {
            return Err(problem(format!("it gives no ids for {text:?}")));
        }
        within(ids.iter().max().copied())?;
        if let Pooling::FirstOf(end) = network.text.pooling
            && !ids.contains(&end)
        {
            return Err(problem(format!(
                "it does not add id {end}, the eos_token_id of {CONFIG}, to {text:?}"
            )));
        }
    }
    Ok(())
}

/// `"clip"` or `"diptych"`.
pub(crate) fn family(network: &NetworkConfig) -> &'static str {
    match network.image {
        ImageConfig::Vit(_) => "clip",
        ImageConfig::Residual(_) => "diptych",
    }
}

#[cfg(test)]
mod tests;
