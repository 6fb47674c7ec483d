//! Where the tensors of a network come from.

use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use half::{bf16, f16};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};

use crate::{ModelError, cpu::wide, folder::not_pointer};

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

/// The tensors of safetensors files, converted to f32 one by one. `init` plays no part: a missing
/// tensor is an error, never invented.
pub struct FileSource<'a> {
    files: Vec<(PathBuf, SafeTensors<'a>)>,
    named: PathBuf,
}

impl<'a> FileSource<'a> {
    /// Reads the headers of safetensors files. Their paths are for messages; `named` is the one file,
    /// or what lists several, and stands in where a tensor is in none.
    ///
    /// # Errors
    /// When the bytes of one are no safetensors file, or two have a tensor of the same name.
    pub fn new(
        files: impl IntoIterator<Item = (PathBuf, &'a [u8])>,
        named: &Path,
    ) -> Result<Self, ModelError> {
        let mut source = Self {
            files: Vec::new(),
            named: named.to_owned(),
        };
        for (file, bytes) in files {
            not_pointer(bytes, &file)?;
            let tensors = SafeTensors::deserialize(bytes).map_err(|source| {
                let hint = unusable(bytes);
                let source = source.into();
                ModelError::Weights {
                    file: file.clone(),
                    hint,
                    source,
                }
            })?;
            // Which of two the model was trained with, nobody can tell.
            for (name, _) in tensors.iter() {
                if let Some((other, _)) = source.find(name) {
                    let problem = format!("is in {}, too", other.display());
                    let name = name.to_owned();
                    return Err(ModelError::Tensor {
                        file,
                        name,
                        problem,
                    });
                }
            }
            source.files.push((file, tensors));
        }
        Ok(source)
    }

    /// A tensor, and the file that has it.
    fn find(&self, name: &str) -> Option<(&Path, TensorView<'a>)> {
        let mut files = self.files.iter();
        files.find_map(|(file, tensors)| Some((file.as_path(), tensors.tensor(name).ok()?)))
    }

    /// The file that has a tensor; where none has it, the one file or what lists several.
    pub fn file_of(&self, name: &str) -> &Path {
        self.find(name).map_or(&self.named, |(file, _)| file)
    }

    /// The shape of a tensor, where a file has it.
    pub fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.find(name).map(|(_, tensor)| tensor.shape().to_vec())
    }

    /// Every tensor as it is in its file.
    pub(crate) fn views(&self) -> impl Iterator<Item = (&str, TensorView<'_>)> {
        self.files.iter().flat_map(|(_, tensors)| tensors.iter())
    }

    /// Number of learned elements in all files: those of floats that are no running statistics.
    pub fn parameters(&self) -> usize {
        let learned = |name: &str, kind| {
            let own = name.rsplit('.').next().unwrap_or(name);
            matches!(kind, Dtype::F32 | Dtype::F16 | Dtype::BF16) && !own.starts_with("running_")
        };
        self.views()
            .filter(|(name, t)| learned(name, t.dtype()))
            .map(|(_, t)| t.shape().iter().product::<usize>())
            .sum()
    }
}

impl Source for FileSource<'_> {
    fn tensor(&mut self, name: &str, shape: &[usize], _init: Init) -> Result<Tensor, ModelError> {
        let error = |problem: String| ModelError::Tensor {
            file: self.file_of(name).to_owned(),
            name: name.to_owned(),
            problem,
        };
        let Some((_, view)) = self.find(name) else {
            let missing = match self.files.len() {
                1 => "is missing".to_owned(),
                files => format!("is in none of the {files} files that are listed"),
            };
            return Err(error(format!("{missing}, expected shape {shape:?}")));
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
        // The loop that looks at all of them is the faster one, and nearly always they are all finite.
        if !all_finite(&values)
            && let Some(position) = values.iter().position(|x| !x.is_finite())
        {
            return Err(error(format!("element {position} is {}", values[position])));
        }
        Ok(Tensor::from_vec(values, shape, &Device::Cpu)?)
    }
}

/// What bytes are that are no safetensors file, and what to do.
fn unusable(bytes: &[u8]) -> String {
    // Zip files are those of torch since 1.6, the others those before.
    if bytes.starts_with(b"PK\x03\x04") || bytes.starts_with(b"\x80\x02\x8a\x0a") {
        return "it is a file of torch.save under another name: save it as safetensors".to_owned();
    }
    format!(
        "it is damaged or cut short, at {} bytes; copy or download it again",
        bytes.len()
    )
}

fn all_finite(values: &[f32]) -> bool {
    let magnitude = |x: &f32| x.to_bits() & 0x7fff_ffff;
    let largest = wide(
        #[inline(always)]
        || values.iter().fold(0, |most, x| magnitude(x).max(most)),
    );
    f32::from_bits(largest).is_finite()
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
