//! Where specific embeddings come from.

use candle_core::Tensor;

use crate::{
    ModelError,
    complement::Complement,
    folder::FolderSource,
    nn::{Init, Source, beside},
};

/// Where the specific embeddings of one tower come from.
pub(crate) enum Specific {
    /// A projection of their own: of pooled rows, `[dim, width]`.
    Projection(Tensor),
    /// One of pooled rows beside the details of each picture, `[dim, width + details]`.
    Detailed(Tensor),
    /// What the shared projection discards.
    Complement(Complement),
    /// The shared projection discards nothing.
    Nothing,
}

impl Specific {
    /// Takes `{tower}_specific_projection.weight` where the file has it. `shared` is the shared
    /// projection, `[dim, width]`, where there is one; `details` is how many the tower has.
    pub(crate) fn new(
        source: &mut FolderSource<'_>,
        tower: &str,
        shared: Option<&Tensor>,
        (width, details): (usize, usize),
    ) -> Result<Self, ModelError> {
        let name = format!("{tower}_specific_projection.weight");
        if let Some(shape) = source.files().shape(&name) {
            // As many rows as the file has, but at least one: an embedding has elements.
            let rows = shape.first().copied().unwrap_or_default().max(1);
            let reads_details = details > 0 && shape.get(1) == Some(&(width + details));
            let columns = if reads_details {
                width + details
            } else {
                width
            };
            let weight = source.tensor(&name, &[rows, columns], Init::Constant(0.0))?;
            return Ok(if reads_details {
                Self::Detailed(weight)
            } else {
                Self::Projection(weight)
            });
        }
        let complement = shared.map(Complement::new).transpose()?.flatten();
        Ok(complement.map_or(Self::Nothing, Self::Complement))
    }

    /// Elements of a specific embedding, where there is one; `width` is that of a pooled row.
    pub(crate) fn dim(&self, width: usize) -> Result<Option<usize>, ModelError> {
        Ok(match self {
            Self::Projection(weight) | Self::Detailed(weight) => Some(weight.dim(0)?),
            Self::Complement(_) => Some(width),
            Self::Nothing => None,
        })
    }

    /// Whether they depend on the details of a picture.
    pub(crate) fn reads_details(&self) -> bool {
        matches!(self, Self::Detailed(_))
    }

    /// Pooled rows `[n, width]` to specific rows, not yet of unit length. `details` are there where they are read.
    pub(crate) fn of(
        &self,
        pooled: &Tensor,
        details: Option<&Tensor>,
    ) -> candle_core::Result<Option<Tensor>> {
        match self {
            Self::Detailed(weight) => {
                let details = details.ok_or_else(|| {
                    candle_core::Error::Msg("this tower tells no details".to_owned())
                })?;
                beside(pooled, details)?.matmul(&weight.t()?).map(Some)
            }
            Self::Projection(weight) => pooled.matmul(&weight.t()?).map(Some),
            Self::Complement(complement) => complement.of(pooled).map(Some),
            Self::Nothing => Ok(None),
        }
    }
}
