//! Writing a model folder.

use std::{borrow::Cow, path::Path};

use candle_core::{DType, Device, Tensor};
use fs_err as fs;
use half::{bf16, f16};
use safetensors::{Dtype, tensor::TensorView};
use serde_json::Value;

use super::{CONFIG, Card, PREPROCESSOR, TOKENIZER, WEIGHTS, card::write_card, config};
use crate::{ModelError, PreprocessConfig, nn::NetworkConfig};

/// How weights are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    /// 32 bits.
    F32,
    /// 16 bits.
    F16,
}

impl Stored {
    pub(super) fn kind(self) -> Dtype {
        match self {
            Self::F32 => Dtype::F32,
            Self::F16 => Dtype::F16,
        }
    }
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
    stored: Stored,
) -> Result<(), ModelError> {
    let raw = tensors
        .iter()
        .map(|(name, tensor)| RawTensor::of(*name, tensor, stored));
    write_raw(file, &raw.collect::<Result<Vec<_>, _>>()?)
}

/// A tensor as a file has it.
pub(super) struct RawTensor<'a> {
    pub name: Cow<'a, str>,
    pub kind: Dtype,
    pub shape: Vec<usize>,
    pub bytes: Cow<'a, [u8]>,
}

impl<'a> RawTensor<'a> {
    pub(super) fn of(
        name: impl Into<Cow<'a, str>>,
        tensor: &Tensor,
        stored: Stored,
    ) -> Result<Self, ModelError> {
        let kind = stored.kind();
        Ok(Self {
            name: name.into(),
            kind,
            shape: tensor.dims().to_vec(),
            bytes: to_bytes(tensor, kind)?.unwrap_or_default().into(),
        })
    }
}

/// Writes a safetensors file.
pub(super) fn write_raw(file: &Path, tensors: &[RawTensor<'_>]) -> Result<(), ModelError> {
    let weights = |source: safetensors::SafeTensorError| ModelError::Weights {
        file: file.to_owned(),
        hint: "a tensor does not fit what is said of it".to_owned(),
        source: source.into(),
    };
    let views = tensors
        .iter()
        .map(|t| Ok((&t.name, TensorView::new(t.kind, t.shape.clone(), &t.bytes)?)))
        .collect::<Result<Vec<_>, _>>()
        .map_err(weights)?;
    // transformers reads a folder only when the format is named.
    let metadata = [("format".to_owned(), "pt".to_owned())].into();
    let bytes = safetensors::serialize(views, Some(metadata)).map_err(weights)?;
    Ok(fs::write(file, bytes)?)
}

/// The elements of a tensor, in its order and as a kind of at most 32 bits; `None` for any other kind.
pub(super) fn to_bytes(tensor: &Tensor, kind: Dtype) -> Result<Option<Vec<u8>>, ModelError> {
    let values = tensor.to_device(&Device::Cpu)?.to_dtype(DType::F32)?;
    let values = values.flatten_all()?.to_vec1::<f32>()?;
    let values = values.iter();
    Ok(Some(match kind {
        Dtype::F32 => values.flat_map(|x| x.to_le_bytes()).collect(),
        Dtype::F16 => values
            .flat_map(|x| f16::from_f32(*x).to_le_bytes())
            .collect(),
        Dtype::BF16 => values
            .flat_map(|x| bf16::from_f32(*x).to_le_bytes())
            .collect(),
        _ => return Ok(None),
    }))
}

pub(super) fn write_json(folder: &Path, name: &str, value: &Value) -> Result<(), ModelError> {
    Ok(fs::write(folder.join(name), format!("{value:#}\n"))?)
}
