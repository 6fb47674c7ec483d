//! Model folders: the only hand-over between training and serving.
//!
//! A folder is a Hugging Face checkpoint: `config.json`, `preprocessor_config.json` (or
//! `processor_config.json`, which holds the same), `tokenizer.json` and `model.safetensors`, for `SigLIP`
//! also `tokenizer_config.json`. Or it is one of `OpenCLIP`: `open_clip_config.json`,
//! `open_clip_model.safetensors` and `tokenizer.json`. In either the weights may be in several files,
//! which an index lists (see [`parts`]). Ours may add a `diptych.json` (see [`Card`]), which others
//! ignore. Teachers and students of distillation are folders of sentence-transformers (`sentence.rs`).
//! Nothing else in the project reads or writes these files.

mod card;
mod config;
mod open_clip;
pub(crate) mod parts;
mod readme;
mod rewrite;
mod sentence;
mod siglip;
mod small;
mod source;
mod tokenizer;
mod write;

use std::path::{Path, PathBuf};

use embedding::Fingerprint;

use card::parse_card;
pub use card::{Card, Measured};
pub(crate) use card::{CardFile, read_card};
pub use rewrite::{Base, Retrained};
pub use sentence::{SentenceExport, SentenceFolder, SentenceSource};
pub(crate) use small::{SmallFiles, not_pointer};
pub(crate) use source::FolderSource;
use tokenizer::Rules;
pub use write::{Export, Stored};

use crate::{
    ModelError, PreprocessConfig, TextTokenizer, keys,
    keys::Keys,
    nn::{ImageConfig, NetworkConfig, Pooling, Sizing, VitPooling},
};

const CONFIG: &str = "config.json";
const PREPROCESSOR: &str = "preprocessor_config.json";
const PROCESSOR: &str = "processor_config.json";
const TOKENIZER: &str = "tokenizer.json";
const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
const WEIGHTS: &str = "model.safetensors";
const OPEN_CLIP_CONFIG: &str = "open_clip_config.json";
const OPEN_CLIP_WEIGHTS: &str = "open_clip_model.safetensors";
const CARD: &str = "diptych.json";
const README: &str = "README.md";

/// Every family, for messages.
const SUPPORTED: &str = "\"clip\" (CLIP of OpenAI, LAION and DataComp), \"siglip\" (SigLIP, and SigLIP 2 \
                         of one resolution), \"siglip2\" (SigLIP 2 NaFlex) or \"diptych\"; or a folder \
                         in the form of OpenCLIP, with open_clip_config.json";

/// Whose form a folder has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    /// That of transformers.
    Transformers,
    /// That of `OpenCLIP`.
    OpenClip,
}

impl Layout {
    fn config(self) -> &'static str {
        match self {
            Self::Transformers => CONFIG,
            Self::OpenClip => OPEN_CLIP_CONFIG,
        }
    }

    /// Name of the file that holds the weights.
    pub(crate) fn weights(self) -> &'static str {
        match self {
            Self::Transformers => WEIGHTS,
            Self::OpenClip => OPEN_CLIP_WEIGHTS,
        }
    }

    /// Name of the file that lists those that hold the weights, where they are several.
    fn index(self) -> String {
        format!("{}.index.json", self.weights())
    }
}

/// Where a folder in the form of transformers says how pictures are prepared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Preprocessor {
    /// In a file of its own.
    Alone,
    /// In an object of the file about the whole processor: the only one that transformers 5 writes.
    Inside,
}

impl Preprocessor {
    fn file(self) -> &'static str {
        match self {
            Self::Alone => PREPROCESSOR,
            Self::Inside => PROCESSOR,
        }
    }

    /// The path of a key, for messages.
    fn path(self, key: &str) -> String {
        match self {
            Self::Alone => key.to_owned(),
            Self::Inside => format!("{}.{key}", PreprocessConfig::SECTION),
        }
    }
}

/// The files of a model folder, by content.
pub(crate) struct Files<'a> {
    /// Where they are, for messages.
    pub folder: PathBuf,
    /// What the model is called where it has no card.
    pub name: &'a str,
    pub layout: Layout,
    pub config: &'a [u8],
    /// Where the next says what it says.
    pub preprocessor_form: Preprocessor,
    /// Empty in the form of `OpenCLIP`.
    pub preprocessor: &'a [u8],
    pub tokenizer: &'a [u8],
    pub tokenizer_config: Option<&'a [u8]>,
    /// Names and contents, sorted by name.
    pub weights: Vec<(&'a str, &'a [u8])>,
    pub card: Option<&'a [u8]>,
    /// What the hub shows of a model; it states what a card does not.
    pub readme: Option<&'a [u8]>,
}

/// A model folder, read and checked, but for the weights.
pub(crate) struct Description {
    pub network: NetworkConfig,
    pub preprocess: PreprocessConfig,
    pub tokenizer: TextTokenizer,
    pub card: Card,
    pub fingerprint: Fingerprint,
}

impl Files<'_> {
    /// Reads everything but the weights.
    pub(crate) fn describe(&self) -> Result<Description, ModelError> {
        let (network, preprocess, rules) = match self.layout {
            Layout::Transformers => self.transformers()?,
            Layout::OpenClip => {
                let file = self.folder.join(OPEN_CLIP_CONFIG);
                let config = keys::parse(self.config, &file)?;
                let (name, value) = self.tokenizer_config()?;
                let keys = Keys::root(&name, &value)?;
                let keys = self.tokenizer_config.map(|_| &keys);
                let read = open_clip::read(&config, &file, keys)?;
                (read.network, read.preprocess, read.rules)
            }
        };
        let file = self.folder.join(TOKENIZER);
        let context = network.text.context_length;
        let tokenizer = TextTokenizer::with_rules(self.tokenizer, &file, context, &rules)?;
        check_tokenizer(&tokenizer, &network, &file, self.layout)?;
        let mut card = if let Some(contents) = self.card {
            let file = self.folder.join(CARD);
            parse_card(contents, file)?
        } else {
            Card {
                name: self.name.to_owned(),
                ..Card::default()
            }
        };
        let stated = self.readme.map(readme::stated).unwrap_or_default();
        card.license = card.license.or(stated.license);
        if card.languages.is_empty() {
            card.languages = stated.languages;
        }
        Ok(Description {
            fingerprint: self.fingerprint(&network),
            network,
            preprocess,
            tokenizer,
            card,
        })
    }

    fn transformers(&self) -> Result<(NetworkConfig, PreprocessConfig, Rules), ModelError> {
        let file = self.folder.join(CONFIG);
        let network = config::read(&keys::parse(self.config, &file)?, &file)?;
        let form = self.preprocessor_form;
        let file = self.folder.join(form.file());
        let preprocess = match form {
            Preprocessor::Alone => PreprocessConfig::from_json(self.preprocessor, &file)?,
            Preprocessor::Inside => PreprocessConfig::from_processor(self.preprocessor, &file)?,
        };
        check_size(&network.image, &preprocess, file, form)?;
        let rules = if is_siglip(&network) {
            let (name, value) = self.tokenizer_config()?;
            let keys = Keys::root(&name, &value)?;
            let naflex = preprocess.patches().is_some();
            tokenizer::siglip(&keys, naflex, network.text.context_length)?
        } else {
            Rules::default()
        };
        Ok((network, preprocess, rules))
    }

    /// The name and contents of `tokenizer_config.json`; an empty object where there is none.
    fn tokenizer_config(&self) -> Result<(PathBuf, serde_json::Value), ModelError> {
        let file = self.folder.join(TOKENIZER_CONFIG);
        let value = keys::parse(self.tokenizer_config.unwrap_or(b"{}"), &file)?;
        Ok((file, value))
    }

    /// A hash over everything that changes an embedding.
    fn fingerprint(&self, network: &NetworkConfig) -> Fingerprint {
        let mut hash = blake3::Hasher::new();
        let mut add = |name: &str, contents: &[u8]| {
            hash.update(name.as_bytes());
            hash.update(&(contents.len() as u64).to_le_bytes());
            hash.update_rayon(contents);
        };
        add(self.layout.config(), self.config);
        if self.layout == Layout::Transformers {
            add(self.preprocessor_form.file(), self.preprocessor);
        }
        add(TOKENIZER, self.tokenizer);
        // CLIP in the form of transformers does not look at it.
        let read = self.layout == Layout::OpenClip || is_siglip(network);
        if let Some(contents) = self.tokenizer_config.filter(|_| read) {
            add(TOKENIZER_CONFIG, contents);
        }
        for (name, contents) in &self.weights {
            add(name, contents);
        }
        let mut fingerprint = [0; 16];
        fingerprint.copy_from_slice(&hash.finalize().as_bytes()[..16]);
        Fingerprint(fingerprint)
    }
}

/// Refuses preprocessing that makes what the tower cannot take. A vision transformer takes other
/// sizes than the one that its positions were learned for: they are interpolated then, as
/// transformers does when asked to. It is the folder that asks here, by saying two sizes.
fn check_size(
    image: &ImageConfig,
    preprocess: &PreprocessConfig,
    file: PathBuf,
    form: Preprocessor,
) -> Result<(), ModelError> {
    let bad = |key: &str, value: String, expected: String| {
        let key = form.path(key);
        Err(ModelError::BadValue {
            file,
            key,
            value,
            expected,
        })
    };
    let sides = preprocess
        .size()
        .map(|size| (size.height.get() as usize, size.width.get() as usize));
    let (height, width) = sides.unwrap_or_default();
    let value = format!("made for {width} x {height} pixels");
    match (image, preprocess.patches()) {
        (ImageConfig::Vit(vit), Some((patch, _))) if vit.sizing == Sizing::Native => {
            if patch != vit.patch_size {
                let expected = format!("{} as {CONFIG} says", vit.patch_size);
                return bad("patch_size", patch.to_string(), expected);
            }
        }
        (ImageConfig::Vit(vit), None) if vit.sizing == Sizing::Fixed => {
            let patch = vit.patch_size;
            if height < patch || width < patch {
                return bad(
                    "size",
                    value,
                    format!("at least one patch of {patch} x {patch}"),
                );
            }
        }
        (ImageConfig::Residual(config), None) => {
            let side = config.image_size;
            if (height, width) != (side, side) {
                let expected = format!("the {side} x {side} that {CONFIG} says");
                return bad("size", value, expected);
            }
        }
        (_, patches) => {
            let kind = |naflex| {
                if naflex {
                    "of whole patches"
                } else {
                    "of one size"
                }
            };
            let (made, wanted) = (kind(patches.is_some()), kind(patches.is_none()));
            let expected = format!("a processor that makes pictures {wanted}");
            return bad(
                "image_processor_type",
                format!("for pictures {made}"),
                expected,
            );
        }
    }
    Ok(())
}

/// Refuses a tokenizer that [`check_ids`] refuses, or that does not give the token that is pooled.
fn check_tokenizer(
    tokenizer: &TextTokenizer,
    network: &NetworkConfig,
    file: &Path,
    layout: Layout,
) -> Result<(), ModelError> {
    let (config, end_key) = match layout {
        Layout::Transformers => (CONFIG, "eos_token_id"),
        Layout::OpenClip => (OPEN_CLIP_CONFIG, "eos_id"),
    };
    check_ids(tokenizer, network.text.vocabulary, config, file)?;
    let problem = |problem: String| ModelError::Tokenizer {
        file: file.to_owned(),
        problem,
    };
    for text in ["", "a"] {
        let ids = tokenizer.encode(text).map_err(problem)?;
        if let Pooling::FirstOf(end) = network.text.pooling
            && !ids.contains(&end)
        {
            return Err(problem(format!(
                "it does not add id {end}, the {end_key} of {config}, to {text:?}"
            )));
        }
    }
    Ok(())
}

/// Refuses a tokenizer that gives no ids, or ids beyond the `vocabulary` of the configuration in the
/// file that `config` names.
fn check_ids(
    tokenizer: &TextTokenizer,
    vocabulary: usize,
    config: &str,
    file: &Path,
) -> Result<(), ModelError> {
    let problem = |problem: String| ModelError::Tokenizer {
        file: file.to_owned(),
        problem,
    };
    let within = |id: Option<u32>| match id.filter(|id| *id as usize >= vocabulary) {
        Some(id) => Err(problem(format!(
            "it gives id {id}, but {config} has vocab_size {vocabulary}"
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
    }
    Ok(())
}

/// `"clip"`, `"siglip"`, `"siglip2"` (`NaFlex`) or `"diptych"`.
pub(crate) fn family(network: &NetworkConfig) -> &'static str {
    match &network.image {
        ImageConfig::Vit(vit) if vit.sizing == Sizing::Native => "siglip2",
        ImageConfig::Vit(vit) if vit.pooling == VitPooling::AttentionHead => "siglip",
        ImageConfig::Vit(_) => "clip",
        ImageConfig::Residual(_) => "diptych",
    }
}

fn is_siglip(network: &NetworkConfig) -> bool {
    family(network).starts_with("siglip")
}

#[cfg(test)]
mod tests;
