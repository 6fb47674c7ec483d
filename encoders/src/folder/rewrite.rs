//! Writing a folder of the form of another one, with other weights.

use std::{borrow::Cow, path::Path};

use candle_core::Tensor;
use fs_err as fs;
use safetensors::tensor::TensorView;

use super::{
    Card, FolderSource, PREPROCESSOR, SmallFiles, Stored, TOKENIZER, TOKENIZER_CONFIG, write_card,
};
use crate::ModelError;

/// As [`crate::Base::write`]; `small` and `source` are of the folder whose form it is.
pub(crate) fn rewrite(
    small: &SmallFiles,
    source: &FolderSource<'_>,
    trained: &[(&str, Tensor)],
    stored: Stored,
    card: &Card,
    folder: &Path,
) -> Result<(), ModelError> {
    let mut trained = source.by_names_of_file(trained)?;
    let layout = small.layout;
    let file = folder.join(layout.weights());
    let mut tensors = Vec::new();
    for (name, view) in source.file().views() {
        let tensor = match trained.remove(name) {
            Some(tensor) => {
                // What is a vector of one element there is a scalar here.
                let (old, new) = (view.shape().iter().product::<usize>(), tensor.elem_count());
                if old != new {
                    return Err(ModelError::Tensor {
                        file,
                        name: name.to_owned(),
                        problem: format!("has {new} elements, expected {:?}", view.shape()),
                    });
                }
                let bytes = Cow::Owned(stored.bytes(&tensor)?);
                (stored.kind(), view.shape().to_vec(), bytes)
            }
            None => (view.dtype(), view.shape().to_vec(), view.data().into()),
        };
        tensors.push((name.to_owned(), tensor));
    }
    for (name, tensor) in trained {
        let bytes = Cow::Owned(stored.bytes(&tensor)?);
        tensors.push((name, (stored.kind(), tensor.dims().to_vec(), bytes)));
    }
    let weights = |source: safetensors::SafeTensorError| ModelError::Weights {
        file: file.clone(),
        source: source.into(),
    };
    let views = tensors
        .iter()
        .map(|(name, (kind, shape, bytes))| {
            Ok((name, TensorView::new(*kind, shape.clone(), bytes)?))
        })
        .collect::<Result<Vec<_>, _>>()
        .map_err(weights)?;
    // transformers reads a folder only when the format is named.
    let metadata = [("format".to_owned(), "pt".to_owned())].into();
    let bytes = safetensors::serialize(views, Some(metadata)).map_err(weights)?;
    fs::create_dir_all(folder)?;
    fs::write(&file, bytes)?;
    fs::write(folder.join(layout.config()), &small.config)?;
    if !small.preprocessor.is_empty() {
        fs::write(folder.join(PREPROCESSOR), &small.preprocessor)?;
    }
    fs::write(folder.join(TOKENIZER), &small.tokenizer)?;
    if let Some(contents) = &small.tokenizer_config {
        fs::write(folder.join(TOKENIZER_CONFIG), contents)?;
    }
    write_card(folder, card)?;
    // The folder says itself what it should compute.
    crate::write_probes(folder, &card.name)
}
