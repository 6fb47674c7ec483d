//! A model that is trained further: everything that it consists of, and the way back into a folder of
//! the same form.

use std::path::{Path, PathBuf};

use candle_core::Tensor;
use embedding::Fingerprint;
use fs_err as fs;

use super::{
    CONFIG, Card, FolderSource, Layout, SmallFiles, Stored, TOKENIZER, TOKENIZER_CONFIG,
    card::write_card,
    write::{RawTensor, to_bytes, write_raw},
};
use crate::{
    ModelError, PreprocessConfig, TextTokenizer, builtin,
    load::Loader,
    nn::{ImageConfig, NetworkConfig, Sizing, Source},
};

/// A model folder, read and checked, with its weights as they are in the files.
///
/// ```
/// use encoders::Base;
///
/// let base = Base::builtin()?;
/// assert_eq!(base.network().dim, 128);
/// assert!(base.tokenizer().encode("red heart")?.len() > 2);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Base {
    folder: PathBuf,
    small: SmallFiles,
    loader: Loader<'static>,
}

impl Base {
    /// Opens a folder.
    ///
    /// # Errors
    /// As [`crate::Model::load`], and where its image tower takes pictures of every size (`NaFlex`).
    pub fn open(folder: &Path) -> Result<Self, ModelError> {
        let small = SmallFiles::read(folder)?;
        let name = folder.file_name().map(|name| name.to_string_lossy());
        let loader = Loader::of(folder, name.as_deref().unwrap_or("model"), &small)?;
        Self::checked(folder.to_owned(), small, loader)
    }

    /// The model that is part of the binary.
    ///
    /// # Errors
    /// Only when the binary was built from damaged files.
    pub fn builtin() -> Result<Self, ModelError> {
        let files = builtin::files();
        let (folder, small) = (files.folder.clone(), SmallFiles::of(&files));
        Self::checked(folder, small, Loader::builtin()?)
    }

    fn checked(
        folder: PathBuf,
        small: SmallFiles,
        loader: Loader<'static>,
    ) -> Result<Self, ModelError> {
        if let ImageConfig::Vit(vit) = &loader.description.network.image
            && vit.sizing == Sizing::Native
        {
            return Err(ModelError::BadValue {
                file: folder.join(CONFIG),
                key: "model_type".to_owned(),
                value: "of a tower that takes pictures of every size (NaFlex)".to_owned(),
                expected: "a tower that takes pictures of one size: others are not trained further"
                    .to_owned(),
            });
        }
        Ok(Self {
            folder,
            small,
            loader,
        })
    }

    /// Sizes of the towers.
    pub fn network(&self) -> &NetworkConfig {
        &self.loader.description.network
    }

    /// What the image tower wants to see.
    pub fn preprocess(&self) -> &PreprocessConfig {
        self.loader.preprocess()
    }

    /// Words to ids.
    pub fn tokenizer(&self) -> &TextTokenizer {
        &self.loader.description.tokenizer
    }

    /// Contents of its `tokenizer.json`.
    pub fn tokenizer_json(&self) -> String {
        String::from_utf8_lossy(&self.small.tokenizer).into_owned()
    }

    /// Who it is.
    pub fn card(&self) -> &Card {
        self.loader.card()
    }

    /// A hash over everything that changes an embedding.
    pub fn fingerprint(&self) -> Fingerprint {
        self.loader.description.fingerprint
    }

    /// Its tensors.
    ///
    /// # Errors
    /// When the weights are damaged.
    pub fn source(&self) -> Result<impl Source, ModelError> {
        self.loader.source()
    }

    /// The shape of a tensor by the name that a file has for it, where there is one.
    ///
    /// # Errors
    /// When the weights are damaged.
    pub fn shape(&self, name: &str) -> Result<Option<Vec<usize>>, ModelError> {
        Ok(self.loader.source()?.files().shape(name))
    }

    /// Writes a folder of the same form with other tensors in place of some of its own; what is not
    /// among them stays as it is, and what it lacks is added. Weights in several files become one. Then
    /// loads it and adds the probes of [`crate::check`] to its card.
    ///
    /// # Errors
    /// When the folder is the one that the model was read from or cannot be written, or a tensor has not
    /// the shape of the one that it replaces.
    pub fn write(&self, retrained: &Retrained<'_>, folder: &Path) -> Result<(), ModelError> {
        let same = |path: &Path| fs::canonicalize(path).ok();
        if same(folder).is_some_and(|folder| Some(folder) == same(&self.folder)) {
            let message = format!(
                "{} is the folder that the model was read from: write another one",
                folder.display()
            );
            return Err(std::io::Error::new(std::io::ErrorKind::AlreadyExists, message).into());
        }
        let layout = self.small.layout;
        let file = folder.join(layout.weights());
        let source = self.loader.source()?;
        let tensors = retrained.replace(&source, &file)?;
        fs::create_dir_all(folder)?;
        write_raw(&file, &tensors)?;
        fs::write(folder.join(layout.config()), &self.small.config)?;
        if layout == Layout::Transformers {
            let preprocessor = self.small.preprocessor_form.file();
            fs::write(folder.join(preprocessor), &self.small.preprocessor)?;
        }
        fs::write(folder.join(TOKENIZER), &self.small.tokenizer)?;
        if let Some(contents) = &self.small.tokenizer_config {
            fs::write(folder.join(TOKENIZER_CONFIG), contents)?;
        }
        // Probes of the model as it was would no longer be right.
        let card = Card {
            probes: None,
            measured: Vec::new(),
            ..retrained.card.clone()
        };
        write_card(folder, &card)?;
        // The folder says itself what it should compute.
        crate::write_probes(folder, &card.name)
    }
}

/// How the names of specific projections end.
const SPECIFIC: &str = "_specific_projection.weight";

/// What is new in a model that was trained further.
pub struct Retrained<'a> {
    /// Tensors by the names of transformers.
    pub tensors: Vec<(&'a str, Tensor)>,
    /// How they are stored; where it is `None`, as the ones that they replace were, and in 32 bits where
    /// they replace none.
    pub stored: Option<Stored>,
    /// Who it is.
    pub card: Card,
}

impl Retrained<'_> {
    /// All tensors of `source` as they will be in `file`.
    fn replace<'s>(
        &self,
        source: &'s FolderSource<'_>,
        file: &Path,
    ) -> Result<Vec<RawTensor<'s>>, ModelError> {
        let error = |name: &str, problem: String| ModelError::Tensor {
            file: file.to_owned(),
            name: name.to_owned(),
            problem,
        };
        let mut new = source.by_names_of_file(&self.tensors)?;
        let mut all = Vec::new();
        for (name, old) in source.files().views() {
            let shape = old.shape().to_vec();
            let (kind, shape, bytes) = match new.remove(name) {
                Some(tensor) => {
                    // SigLIP stores its scale and bias as vectors of one element.
                    let is_scalar = tensor.dims().is_empty() && shape == [1];
                    // A specific projection may read more than the one before, and make more of it.
                    let is_free = name.ends_with(SPECIFIC);
                    if tensor.dims() != shape && !is_scalar && !is_free {
                        let problem =
                            format!("has shape {shape:?}, its replacement {:?}", tensor.dims());
                        return Err(error(name, problem));
                    }
                    let kind = self.stored.map_or(old.dtype(), Stored::kind);
                    let shape = if is_free {
                        tensor.dims().to_vec()
                    } else {
                        shape
                    };
                    let bytes = to_bytes(&tensor, kind)?;
                    let bytes = bytes.ok_or_else(|| {
                        error(
                            name,
                            format!("has type {kind:?}, expected F32, F16 or BF16"),
                        )
                    })?;
                    (kind, shape, bytes.into())
                }
                None => (old.dtype(), shape, old.data().to_vec().into()),
            };
            all.push(RawTensor {
                name: name.into(),
                kind,
                shape,
                bytes,
            });
        }
        for (name, tensor) in new {
            all.push(RawTensor::of(
                name,
                &tensor,
                self.stored.unwrap_or(Stored::F32),
            )?);
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use crate::{Model, nn::Init};

    use super::*;

    fn raw(base: &Base) -> HashMap<String, Vec<u8>> {
        let source = base.loader.source().expect("its tensors");
        let views = source.files().views();
        let owned = views.map(|(name, view)| (name.to_owned(), view.data().to_vec()));
        owned.collect()
    }

    #[test]
    fn what_is_not_replaced_is_written_as_it_was() {
        let folder = tempfile::tempdir().expect("a folder");
        let base = Base::builtin().expect("reads");
        let name = "vision_model.head.bias";
        let dims = [base.network().image.width()];
        let mut source = base.source().expect("its tensors");
        let old = source.tensor(name, &dims, Init::Constant(0.0));
        let new = (old.expect("is there") + 1.0).expect("a sum");
        let retrained = |name, tensor: &Tensor| Retrained {
            tensors: vec![(name, tensor.clone())],
            stored: None,
            card: Card {
                name: "other".to_owned(),
                ..base.card().clone()
            },
        };
        let moved = retrained(name, &new);
        base.write(&moved, folder.path()).expect("writes");

        let written = Base::open(folder.path()).expect("reads");
        assert_ne!(written.fingerprint(), base.fingerprint());
        let (before, after) = (raw(&base), raw(&written));
        assert_eq!(before.len(), after.len());
        for (other, bytes) in &before {
            // The built-in model has 16 bits, which the sum keeps.
            assert_eq!(bytes.len(), after[other].len(), "{other}");
            assert_eq!(*bytes == after[other], other != name, "{other}");
        }
        let texts = ["red heart".to_owned()];
        let shared = |model: &Model| model.text().encode(&texts).expect("encodes")[0].clone();
        let (builtin, other) = (Model::builtin(), Model::load(folder.path()));
        let (builtin, other) = (builtin.expect("loads"), other.expect("loads"));
        assert_eq!(other.info().name, "other");
        assert_eq!(
            shared(&builtin).shared.as_slice(),
            shared(&other).shared.as_slice()
        );

        let again = written.write(&moved, folder.path());
        let message = again.expect_err("its own folder").to_string();
        assert!(message.contains("was read from"), "{message}");
        let short = new.narrow(0, 1, dims[0] - 1).expect("a part");
        let refused = written.write(&retrained(name, &short), &folder.path().join("beside"));
        let message = refused.expect_err("another shape").to_string();
        assert!(message.contains("its replacement"), "{message}");
    }
}
