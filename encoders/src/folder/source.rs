//! The tensors of a folder, in whichever form it has.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use candle_core::Tensor;

use super::{Layout, open_clip::names::OpenClipSource};
use crate::{
    ModelError,
    nn::{FileSource, Init, Source},
};

/// Gives the tensors of a folder by the names of transformers.
pub(crate) enum FolderSource<'a> {
    Transformers(FileSource<'a>),
    OpenClip(OpenClipSource<'a>),
}

impl<'a> FolderSource<'a> {
    /// As [`FileSource::new`].
    pub(crate) fn new(
        layout: Layout,
        files: impl IntoIterator<Item = (PathBuf, &'a [u8])>,
        named: &Path,
    ) -> Result<Self, ModelError> {
        let tensors = FileSource::new(files, named)?;
        Ok(match layout {
            Layout::Transformers => Self::Transformers(tensors),
            Layout::OpenClip => Self::OpenClip(OpenClipSource::new(tensors)),
        })
    }

    /// The tensors by the names of the files.
    pub(crate) fn files(&self) -> &FileSource<'a> {
        match self {
            Self::Transformers(tensors) => tensors,
            Self::OpenClip(tensors) => tensors.files(),
        }
    }

    /// Tensors by the names of transformers, as the file has them.
    pub(crate) fn by_names_of_file(
        &self,
        tensors: &[(&str, Tensor)],
    ) -> Result<BTreeMap<String, Tensor>, ModelError> {
        match self {
            Self::Transformers(_) => {
                let owned = |(name, tensor): &(&str, Tensor)| ((*name).to_owned(), tensor.clone());
                Ok(tensors.iter().map(owned).collect())
            }
            Self::OpenClip(source) => source.by_names_of_file(tensors),
        }
    }
}

impl Source for FolderSource<'_> {
    fn tensor(&mut self, name: &str, shape: &[usize], init: Init) -> Result<Tensor, ModelError> {
        match self {
            Self::Transformers(tensors) => tensors.tensor(name, shape, init),
            Self::OpenClip(tensors) => tensors.tensor(name, shape, init),
        }
    }
}
