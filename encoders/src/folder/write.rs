//! Writing a model folder.

use std::path::Path;

use candle_core::{DType, Device, Tensor};
use fs_err as fs;
use half::{bf16, f16};
use safetensors::{Dtype, tensor::TensorView};
use serde_json::{Value, json};

use super::{CARD, CONFIG, Card, PREPROCESSOR, TOKENIZER, WEIGHTS, config};
use crate::{ModelError, PreprocessConfig, nn::NetworkConfig};

/// How weights are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    /// 32 bits.
    F32,
    /// 16 bits.
    F16,
}

/// A trained model, ready to be written.
pub struct Export<'a> {
    /// Sizes of the towers.
    pub network: &'a NetworkConfig,
    /// What the towers want to see.
    pub preprocess: &'a PreprocessConfig,
    /// Contents of `tokenizer.json`.
    pub tokenizer: &'a str,
    /// Id of the start-of-text token.
    pub start: u32,
    /// Every tensor by name, `logit_scale` included.
    pub tensors: Vec<(&'a str, Tensor)>,
    /// How they are stored.
    pub stored: Stored,
    /// Who it is.
    pub card: Card,
}

impl Export<'_> {
    /// Writes all files into `folder`, which is made where it does not exist; then loads it and adds
    /// the probes of [`crate::check`] to its card.
    ///
    /// # Errors
    /// When a file cannot be written; or when `config.json` or `preprocessor_config.json` cannot say
    /// what is to be written, as where the pooled token has the id 2, which there means another;
    /// then nothing is written.
    pub fn write(&self, folder: &Path) -> Result<(), ModelError> {
        let config = config::write(self.network, self.start, &folder.join(CONFIG))?;
        let preprocess = self.preprocess.to_json();
        let preprocess = preprocess.ok_or_else(|| ModelError::BadValue {
            file: folder.join(PREPROCESSOR),
            key: "size".to_owned(),
            value: "of OpenCLIP's own kind".to_owned(),
            expected: "what transformers can do".to_owned(),
        })?;
        fs::create_dir_all(folder)?;
        write_weights(&folder.join(WEIGHTS), &self.tensors, self.stored)?;
        fs::write(folder.join(TOKENIZER), self.tokenizer)?;
        fs::write(folder.join(PREPROCESSOR), preprocess)?;
        write_json(folder, CONFIG, &config)?;
        write_card(folder, &self.card)?;
        // The folder says itself what it should compute.
        crate::write_probes(folder, &self.card.name)
    }
}

/// Writes tensors by name as a safetensors file.
pub(super) fn write_weights(
    file: &Path,
    tensors: &[(&str, Tensor)],
    kind: Stored,
) -> Result<(), ModelError> {
    let kind = match kind {
        Stored::F32 => Dtype::F32,
        Stored::F16 => Dtype::F16,
    };
    let mut stored = Vec::new();
    for (name, tensor) in tensors {
        let values = tensor.to_device(&Device::Cpu)?.to_dtype(DType::F32)?;
        let values = values.flatten_all()?.to_vec1::<f32>()?;
        let bytes = to_bytes(&values, kind).unwrap_or_default();
        stored.push((*name, tensor.dims().to_vec(), bytes));
    }
    let weights = |source: safetensors::SafeTensorError| ModelError::Weights {
        file: file.to_owned(),
        source: source.into(),
    };
    let views = stored
        .iter()
        .map(|(name, shape, bytes)| Ok((*name, TensorView::new(kind, shape.clone(), bytes)?)))
        .collect::<Result<Vec<_>, _>>()
        .map_err(weights)?;
    // transformers reads a folder only when the format is named.
    let metadata = [("format".to_owned(), "pt".to_owned())].into();
    let bytes = safetensors::serialize(views, Some(metadata)).map_err(weights)?;
    Ok(fs::write(file, bytes)?)
}

/// Floats in the form of a kind of at most 32 bits; `None` for any other kind.
pub(super) fn to_bytes(values: &[f32], kind: Dtype) -> Option<Vec<u8>> {
    let values = values.iter();
    Some(match kind {
        Dtype::F32 => values.flat_map(|x| x.to_le_bytes()).collect(),
        Dtype::F16 => values
            .flat_map(|x| f16::from_f32(*x).to_le_bytes())
            .collect(),
        Dtype::BF16 => values
            .flat_map(|x| bf16::from_f32(*x).to_le_bytes())
            .collect(),
        _ => return None,
    })
}

/// Writes `diptych.json`: beside it first, so that there is always a whole one.
pub(crate) fn write_card(folder: &Path, card: &Card) -> Result<(), ModelError> {
    let beside = format!("{CARD}.partial");
    write_json(folder, &beside, &json!(card))?;
    Ok(fs::rename(folder.join(beside), folder.join(CARD))?)
}

pub(super) fn write_json(folder: &Path, name: &str, value: &Value) -> Result<(), ModelError> {
    Ok(fs::write(folder.join(name), format!("{value:#}\n"))?)
}
