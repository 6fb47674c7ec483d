//! Where the tensors of a network come from.

use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use half::{bf16, f16};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};

use crate::ModelError;

/// How a tensor starts when a network is trained from nothing.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Init {
    /// Every element the same.
    Constant(f32),
    /// Normal with mean 0.
    Normal {
        /// Standard deviation.
        deviation: f32,
    },
}

/// Gives a network its tensors by name. Two implementations: [`FileSource`], and the trainer's
/// seeded one.
pub trait Source {
    /// The f32 tensor of that name and shape.
    ///
    /// # Errors
    /// When it does not exist or has another shape or type.
    fn tensor(&mut self, name: &str, shape: &[usize], init: Init) -> Result<Tensor, ModelError>;
}

/// The tensors of a safetensors file, converted to f32 one by one. `init` plays no part: a missing
/// tensor is an error, never invented.
pub struct FileSource<'a> {
    file: PathBuf,
    tensors: SafeTensors<'a>,
}

impl<'a> FileSource<'a> {
    /// Reads the header of a safetensors file; `file` is for messages.
    ///
    /// # Errors
    /// When the bytes are no safetensors file.
    pub fn new(bytes: &'a [u8], file: &Path) -> Result<Self, ModelError> {
        let file = file.to_owned();
        match SafeTensors::deserialize(bytes) {
            Ok(tensors) => Ok(Self { file, tensors }),
            Err(source) => Err(ModelError::Weights {
                file,
                source: source.into(),
            }),
        }
    }

    /// The shape of a tensor, where the file has it.
    pub fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.tensors.tensor(name).ok().map(|t| t.shape().to_vec())
    }

    /// Every tensor as it is in the file.
    pub(crate) fn views(&self) -> impl Iterator<Item = (&str, TensorView<'_>)> {
        self.tensors.iter()
    }

    /// Number of learned elements in the whole file: those of floats that are no running statistics.
    pub fn parameters(&self) -> usize {
        let learned = |name: &str, kind| {
            let own = name.rsplit('.').next().unwrap_or(name);
            matches!(kind, Dtype::F32 | Dtype::F16 | Dtype::BF16) && !own.starts_with("running_")
        };
        self.tensors
            .iter()
            .filter(|(name, t)| learned(name, t.dtype()))
            .map(|(_, t)| t.shape().iter().product::<usize>())
            .sum()
    }
}

impl Source for FileSource<'_> {
    fn tensor(&mut self, name: &str, shape: &[usize], _init: Init) -> Result<Tensor, ModelError> {
        let error = |problem: String| ModelError::Tensor {
            file: self.file.clone(),
            name: name.to_owned(),
            problem,
        };
        let Ok(view) = self.tensors.tensor(name) else {
            return Err(error(format!("is missing, expected shape {shape:?}")));
        };
        // SigLIP stores its scale and bias as vectors of one element.
        let scalar = shape.is_empty() && view.shape() == [1];
        if view.shape() != shape && !scalar {
            return Err(error(format!(
                "has shape {:?}, expected {shape:?}",
                view.shape()
            )));
        }
        let Some(values) = to_f32(&view) else {
            return Err(error(format!(
                "has type {:?}, expected F32, F16 or BF16",
                view.dtype()
            )));
        };
        if let Some(position) = values.iter().position(|x| !x.is_finite()) {
            return Err(error(format!("element {position} is {}", values[position])));
        }
        Ok(Tensor::from_vec(values, shape, &Device::Cpu)?)
    }
}

/// The elements as f32, where the type is a float of at most 32 bits.
fn to_f32(view: &TensorView<'_>) -> Option<Vec<f32>> {
    let halves = || view.data().as_chunks::<2>().0.iter().copied();
    Some(match view.dtype() {
        Dtype::F32 => view
            .data()
            .as_chunks::<4>()
            .0
            .iter()
            .map(|b| f32::from_le_bytes(*b))
            .collect(),
        Dtype::F16 => halves().map(|b| f16::from_le_bytes(b).to_f32()).collect(),
        Dtype::BF16 => halves().map(|b| bf16::from_le_bytes(b).to_f32()).collect(),
        _ => return None,
    })
}
