//! A model that is trained further: everything that it consists of, and the way back into a folder of
//! the same form.

use std::path::{Path, PathBuf};

use candle_core::Tensor;
use embedding::Fingerprint;

use crate::{
    Card, ModelError, PreprocessConfig, Stored, TextTokenizer, builtin,
    folder::{FolderSource, SmallFiles, rewrite},
    load::Loader,
    nn::{ImageConfig, NetworkConfig, Sizing, Source},
};

/// A model folder, read and checked, with its weights as they are in the file.
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
    /// As [`crate::Model::load`], and where towers are not trained further: those of the sigmoid loss, of
    /// pictures of any size, and of pictures of another size than the positions were learned for.
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
        let base = Self {
            folder,
            small,
            loader,
        };
        let network = base.network();
        let side = network.image.image_size();
        let size = base.preprocess().size();
        let size = size.map(|size| [size.height.get() as usize, size.width.get() as usize]);
        let native =
            matches!(&network.image, ImageConfig::Vit(vit) if vit.sizing == Sizing::Native);
        let (key, value) = if network.logit_bias {
            ("logit_bias", "trained with the sigmoid loss".to_owned())
        } else if native {
            ("patch_size", "of pictures of any size".to_owned())
        } else if size != Some([side, side]) {
            ("size", format!("{size:?} pixels and image_size {side}"))
        } else {
            return Ok(base);
        };
        let expected = "a model of the softmax loss and of pictures of one size, image_size: others are \
                        not trained further";
        Err(ModelError::BadValue {
            file: base.folder,
            key: key.to_owned(),
            value,
            expected: expected.to_owned(),
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

    /// The shape of a tensor by the name that the file has for it, where there is one.
    ///
    /// # Errors
    /// When the weights are damaged.
    pub fn shape(&self, name: &str) -> Result<Option<Vec<usize>>, ModelError> {
        Ok(self.loader.source()?.file().shape(name))
    }

    /// Writes a folder of the same form with `trained` tensors, by the names of transformers, in place of
    /// its own; what is not among them stays as it is, and what it lacks is added. Then loads it and adds
    /// the probes of [`crate::check`] to `card`.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn write(
        &self,
        trained: &[(&str, Tensor)],
        stored: Stored,
        card: &Card,
        folder: &Path,
    ) -> Result<(), ModelError> {
        let same = |path: &Path| fs_err::canonicalize(path).ok();
        if same(folder).is_some_and(|folder| Some(folder) == same(&self.folder)) {
            let problem = format!(
                "{} is the folder whose weights are read: write into another one",
                folder.display()
            );
            return Err(std::io::Error::other(problem).into());
        }
        let source: FolderSource<'_> = self.loader.source()?;
        rewrite(&self.small, &source, trained, stored, card, folder)
    }
}
