//! Where specific embeddings come from.

use candle_core::Tensor;

use crate::{
    ModelError,
    complement::Complement,
    folder::FolderSource,
    nn::{Init, Source},
};

/// Where the specific embeddings of one tower come from.
pub(crate) enum Specific {
    /// A projection of their own, `[dim, width]`.
    Projection(Tensor),
    /// What the shared projection discards.
    Complement(Complement),
    /// The shared projection discards nothing.
    Nothing,
}

impl Specific {
    /// Takes `{tower}_specific_projection.weight` where the file has it. `shared` is the shared
    /// projection, `[dim, width]`, where there is one.
    pub(crate) fn new(
        source: &mut FolderSource<'_>,
        tower: &str,
        shared: Option<&Tensor>,
        width: usize,
    ) -> Result<Self, ModelError> {
        let name = format!("{tower}_specific_projection.weight");
        if let Some(shape) = source.files().shape(&name) {
            // As many rows as the file has, but at least one: an embedding has elements.
            let rows = shape.first().copied().unwrap_or_default().max(1);
            let shape = [rows, width];
            return Ok(Self::Projection(source.tensor(
                &name,
                &shape,
                Init::Constant(0.0),
            )?));
        }
        let complement = shared.map(Complement::new).transpose()?.flatten();
        Ok(complement.map_or(Self::Nothing, Self::Complement))
    }

    /// Elements of a specific embedding, where there is one; `width` is that of a pooled row.
    pub(crate) fn dim(&self, width: usize) -> Result<Option<usize>, ModelError> {
        Ok(match self {
            Self::Projection(weight) => Some(weight.dim(0)?),
            Self::Complement(_) => Some(width),
            Self::Nothing => None,
        })
    }

    /// Pooled rows `[n, width]` to specific rows, not yet of unit length.
    pub(crate) fn of(&self, pooled: &Tensor) -> candle_core::Result<Option<Tensor>> {
        match self {
            Self::Projection(weight) => pooled.matmul(&weight.t()?).map(Some),
            Self::Complement(complement) => complement.of(pooled).map(Some),
            Self::Nothing => Ok(None),
        }
    }
}
