//! All that is kept of a head, and its form: a safetensors file.
//!
//! ```text
//! length of the header u64, little-endian | header, JSON | tensors, little-endian
//! ```
//!
//! The tensors are `weight` `[labels, dim]`, `bias` `[labels]` and, where there is one, `means` `[labels, dim]`,
//! all F32. Everything else is JSON in the metadata, under [`KEY`]. The same bytes lie in the store.

use std::{borrow::Cow, collections::BTreeMap};

use embedding::Scoring;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Inputs, Likeness};
use crate::{EngineError, Head, ItemId};

/// Most bytes of a head: a thousand labels of the longest rows that models make, twice over.
pub const MAX_HEAD_BYTES: usize = 64 << 20;
/// Most bytes of a header.
const MAX_HEADER_BYTES: usize = 16 << 20;
/// Where the metadata has what is no tensor.
const KEY: &str = "diptych_head";
const FORMAT: u32 = 1;

/// What a head is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HeadKind {
    /// Examples.
    FewShot,
    /// Words alone.
    ZeroShot,
}

/// Where a head comes from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct About {
    /// What it is made of.
    pub kind: HeadKind,
    /// Whether any number of its labels may fit.
    pub multi_label: bool,
    /// When it was made, in milliseconds since 1970, if whoever made it said so.
    pub made_at_ms: Option<u64>,
    /// Examples that it was learned from.
    pub examples: usize,
    /// The part of held-out examples that it told right, where any were held out.
    pub accuracy: Option<f64>,
    /// Field of payloads that had the labels, where one had.
    pub field: Option<String>,
    /// Items that it was learned from.
    pub example_ids: Vec<ItemId>,
    /// What was said when it was made.
    pub report: Value,
}

/// A head and what is known of it.
#[derive(Debug, Clone, PartialEq)]
pub struct KeptHead {
    /// The classifier.
    pub head: Head,
    /// What tells an item that is like no example, where it was learned from enough of them.
    pub likeness: Option<Likeness>,
    /// Where it comes from.
    pub about: About,
}

/// What the metadata say.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Described<'a> {
    format: u32,
    inputs: Cow<'a, Inputs>,
    labels: Cow<'a, [String]>,
    scoring: Scoring,
    /// [`Likeness::least`].
    least: Option<f32>,
    about: Cow<'a, About>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Tensor {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: [usize; 2],
}

#[derive(Serialize, Deserialize)]
struct Header {
    #[serde(rename = "__metadata__")]
    metadata: BTreeMap<String, String>,
    #[serde(flatten)]
    tensors: BTreeMap<String, Tensor>,
}

impl KeptHead {
    /// The file.
    pub fn to_file(&self) -> Vec<u8> {
        let Head {
            inputs,
            labels,
            weights,
            bias,
            scoring,
        } = &self.head;
        let described = Described {
            format: FORMAT,
            inputs: Cow::Borrowed(inputs),
            labels: Cow::Borrowed(labels),
            scoring: *scoring,
            least: self.likeness.as_ref().map(|likeness| likeness.least),
            about: Cow::Borrowed(&self.about),
        };
        let described = serde_json::to_string(&described).expect("a description is plain JSON");
        let rows = vec![labels.len(), inputs.dim()];
        let mut parts = vec![
            ("bias", vec![labels.len()], bias),
            ("weight", rows.clone(), weights),
        ];
        if let Some(likeness) = &self.likeness {
            parts.insert(1, ("means", rows, &likeness.means));
        }
        let (mut tensors, mut at) = (BTreeMap::new(), 0);
        for (name, shape, numbers) in &parts {
            let end = at + 4 * numbers.len();
            let tensor = Tensor {
                dtype: "F32".into(),
                shape: shape.clone(),
                data_offsets: [at, end],
            };
            tensors.insert((*name).to_owned(), tensor);
            at = end;
        }
        let header = Header {
            metadata: BTreeMap::from([(KEY.to_owned(), described)]),
            tensors,
        };
        let mut header = serde_json::to_vec(&header).expect("a header is plain JSON");
        // Readers that map the file want aligned numbers.
        header.resize(header.len().next_multiple_of(8), b' ');
        let mut file = Vec::with_capacity(8 + header.len() + at);
        file.extend((header.len() as u64).to_le_bytes());
        file.extend(header);
        for (_, _, numbers) in parts {
            file.extend(numbers.iter().flat_map(|x| x.to_le_bytes()));
        }
        file
    }

    /// Reads a file, and checks that everything in it fits together.
    ///
    /// # Errors
    /// [`EngineError::BadHead`] when it is none that we wrote, or its numbers are not finite.
    pub fn from_file(file: &[u8]) -> Result<Self, EngineError> {
        if file.len() > MAX_HEAD_BYTES {
            let bytes = file.len();
            return Err(bad(format!(
                "the file has {bytes} bytes, at most {MAX_HEAD_BYTES} are allowed"
            )));
        }
        let none = || bad("the file is no safetensors file".into());
        let (length, rest) = file.split_first_chunk().ok_or_else(none)?;
        let length = usize::try_from(u64::from_le_bytes(*length)).map_err(|_| none())?;
        if length > MAX_HEADER_BYTES {
            return Err(none());
        }
        let (header, data) = rest.split_at_checked(length).ok_or_else(none)?;
        let header: Header = serde_json::from_slice(header)
            .map_err(|error| bad(format!("the header does not read: {error}")))?;
        let described = header.metadata.get(KEY).ok_or_else(|| {
            bad(format!(
                "the metadata have no {KEY}, which every exported head has"
            ))
        })?;
        let described: Described<'_> = serde_json::from_str(described)
            .map_err(|error| bad(format!("{KEY} does not read: {error}")))?;
        if described.format != FORMAT {
            let format = described.format;
            return Err(bad(format!("it is in format {format}, expected {FORMAT}")));
        }
        let Described {
            inputs,
            labels,
            scoring,
            least,
            about,
            ..
        } = described;
        let rows = [labels.len(), inputs.dim()];
        let tensor = |name: &str, shape: &[usize]| numbers(&header.tensors, name, shape, data);
        let head = Head {
            weights: tensor("weight", &rows)?,
            bias: tensor("bias", &rows[..1])?,
            inputs: inputs.into_owned(),
            labels: labels.into_owned(),
            scoring,
        };
        head.check()?;
        let likeness = match least {
            None => None,
            Some(least) => Some(Likeness {
                means: tensor("means", &rows)?,
                least,
            }),
        };
        if let Some(likeness) = &likeness
            && !likeness.is_usable(rows[0], rows[1])
        {
            return Err(bad("a number of the means is not finite".into()));
        }
        Ok(Self {
            head,
            likeness,
            about: about.into_owned(),
        })
    }
}

fn numbers(
    tensors: &BTreeMap<String, Tensor>,
    name: &str,
    shape: &[usize],
    data: &[u8],
) -> Result<Vec<f32>, EngineError> {
    let tensor = tensors
        .get(name)
        .ok_or_else(|| bad(format!("there is no tensor {name:?}")))?;
    if tensor.dtype != "F32" || tensor.shape != shape {
        let (dtype, got) = (&tensor.dtype, &tensor.shape);
        return Err(bad(format!(
            "tensor {name:?} is {dtype} {got:?}, expected F32 {shape:?}"
        )));
    }
    let [start, end] = tensor.data_offsets;
    let expected = shape
        .iter()
        .try_fold(4_usize, |product, n| product.checked_mul(*n));
    let bytes = data
        .get(start..end)
        .filter(|bytes| Some(bytes.len()) == expected);
    let bytes = bytes.ok_or_else(|| bad(format!("tensor {name:?} is not all in the file")))?;
    let (numbers, _) = bytes.as_chunks();
    Ok(numbers.iter().map(|x| f32::from_le_bytes(*x)).collect())
}

fn bad(reason: String) -> EngineError {
    EngineError::BadHead { reason }
}
