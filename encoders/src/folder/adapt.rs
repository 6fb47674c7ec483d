//! A model folder whose image tower is trained further while everything else stays as it is.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
};

use candle_core::{DType, Device, Tensor};
use embedding::Fingerprint;
use fs_err as fs;
use safetensors::{Dtype, SafeTensors, tensor::TensorView};

use super::{
    CONFIG, Card, Description, Files, Layout, OPEN_CLIP_CONFIG, SmallFiles, TOKENIZER,
    TOKENIZER_CONFIG, WEIGHTS,
    parts::WeightFiles,
    write::{to_bytes, write_card},
};
use crate::{
    ModelError, PreprocessConfig, builtin,
    nn::{FileSource, NetworkConfig},
};

/// A model in memory, as it was read: every tensor that is not replaced is written as it was.
pub struct Adaptable {
    /// Where it is; `None` for the built-in model.
    folder: Option<PathBuf>,
    small: SmallFiles,
    weights: Cow<'static, [u8]>,
    /// Name of the weights file, for messages.
    file: PathBuf,
    description: Description,
}

impl Adaptable {
    /// Reads a model folder in the form of transformers, whose image tower takes pictures of one size.
    ///
    /// # Errors
    /// When it is no usable model, or of another form: that of `OpenCLIP`, or `NaFlex`.
    pub fn read(folder: &Path) -> Result<Self, ModelError> {
        let small = SmallFiles::read(folder)?;
        if small.layout == Layout::OpenClip {
            return Err(ModelError::BadValue {
                file: folder.join(OPEN_CLIP_CONFIG),
                key: "model_cfg".to_owned(),
                value: "a model in the form of OpenCLIP".to_owned(),
                expected: "a folder in the form of transformers: only that is written back"
                    .to_owned(),
            });
        }
        let name = folder.file_name().map(|name| name.to_string_lossy());
        let name = name.as_deref().unwrap_or("model").to_owned();
        if small.weights.parts.len() > 1 {
            return Err(ModelError::BadValue {
                file: folder.join(&small.weights.named),
                key: "weight_map".to_owned(),
                value: format!("of {} files", small.weights.parts.len()),
                expected: "weights in one file: only that is written back".to_owned(),
            });
        }
        let weights = fs::read(folder.join(WEIGHTS))?;
        Self::new(Some(folder.to_owned()), folder, &name, small, weights)
    }

    /// The model that is part of the binary.
    ///
    /// # Errors
    /// Only when the binary was built from damaged files.
    pub fn builtin() -> Result<Self, ModelError> {
        let files = builtin::files();
        let small = SmallFiles {
            layout: files.layout,
            config: files.config.to_vec(),
            preprocessor_form: files.preprocessor_form,
            preprocessor: files.preprocessor.to_vec(),
            tokenizer: files.tokenizer.to_vec(),
            tokenizer_config: None,
            card: files.card.map(<[u8]>::to_vec),
            readme: None,
            weights: WeightFiles {
                named: WEIGHTS.to_owned(),
                parts: vec![WEIGHTS.to_owned()],
            },
        };
        let weights = files.weights.first().map_or(&[][..], |(_, bytes)| bytes);
        Self::new(None, &files.folder, files.name, small, weights)
    }

    fn new(
        folder: Option<PathBuf>,
        place: &Path,
        name: &str,
        small: SmallFiles,
        weights: impl Into<Cow<'static, [u8]>>,
    ) -> Result<Self, ModelError> {
        let weights = weights.into();
        let files = Files {
            folder: place.to_owned(),
            name,
            layout: small.layout,
            config: &small.config,
            preprocessor_form: small.preprocessor_form,
            preprocessor: &small.preprocessor,
            tokenizer: &small.tokenizer,
            tokenizer_config: small.tokenizer_config.as_deref(),
            weights: vec![(WEIGHTS, &weights)],
            card: small.card.as_deref(),
            readme: small.readme.as_deref(),
        };
        let description = files.describe()?;
        if description.preprocess.size().is_none() {
            return Err(ModelError::BadValue {
                file: place.join(CONFIG),
                key: "model_type".to_owned(),
                value: "of a tower that takes pictures of every size (NaFlex)".to_owned(),
                expected: "a tower that takes pictures of one size".to_owned(),
            });
        }
        Ok(Self {
            file: place.join(WEIGHTS),
            folder,
            small,
            weights,
            description,
        })
    }

    /// Sizes of both towers.
    pub fn network(&self) -> &NetworkConfig {
        &self.description.network
    }

    /// What the image tower wants to see.
    pub fn preprocess(&self) -> &PreprocessConfig {
        &self.description.preprocess
    }

    /// What people want to know of it.
    pub fn card(&self) -> &Card {
        &self.description.card
    }

    /// A hash over everything that changes an embedding.
    pub fn fingerprint(&self) -> Fingerprint {
        self.description.fingerprint
    }

    /// Its tensors by name.
    ///
    /// # Errors
    /// When the weights file is damaged.
    pub fn source(&self) -> Result<FileSource<'_>, ModelError> {
        FileSource::new([(self.file.clone(), &*self.weights)], &self.file)
    }

    /// Writes a model folder in which the named `tensors` are replaced and the card is `card`, then loads
    /// it and adds the probes of [`crate::check`]. A tensor is stored in the type that it had.
    ///
    /// # Errors
    /// When the folder is the one that the model was read from or cannot be written, or a tensor is not
    /// in the model or of another shape.
    pub fn write(
        &self,
        tensors: &BTreeMap<String, Tensor>,
        card: Card,
        folder: &Path,
    ) -> Result<(), ModelError> {
        fs::create_dir_all(folder)?;
        if let Some(own) = &self.folder
            && fs::canonicalize(own)? == fs::canonicalize(folder)?
        {
            let message = format!(
                "{} is the folder that the model was read from: write another one",
                folder.display()
            );
            return Err(std::io::Error::new(std::io::ErrorKind::AlreadyExists, message).into());
        }
        let bytes = self.replaced(tensors)?;
        fs::write(folder.join(WEIGHTS), bytes)?;
        fs::write(folder.join(CONFIG), &self.small.config)?;
        let preprocessor = self.small.preprocessor_form.file();
        fs::write(folder.join(preprocessor), &self.small.preprocessor)?;
        fs::write(folder.join(TOKENIZER), &self.small.tokenizer)?;
        if let Some(contents) = &self.small.tokenizer_config {
            fs::write(folder.join(TOKENIZER_CONFIG), contents)?;
        }
        // Those of the model as it was would no longer be right.
        let card = Card {
            probes: None,
            ..card
        };
        write_card(folder, &card)?;
        crate::write_probes(folder, &card.name)
    }

    /// The weights file with some tensors replaced.
    fn replaced(&self, tensors: &BTreeMap<String, Tensor>) -> Result<Vec<u8>, ModelError> {
        let damaged = |source: safetensors::SafeTensorError| ModelError::Weights {
            file: self.file.clone(),
            source: source.into(),
        };
        let stored = SafeTensors::deserialize(&self.weights).map_err(damaged)?;
        let (_, header) = SafeTensors::read_metadata(&self.weights).map_err(damaged)?;
        let mut new: HashMap<&str, (Dtype, Vec<usize>, Vec<u8>)> = HashMap::new();
        for (name, tensor) in tensors {
            let error = |problem: String| ModelError::Tensor {
                file: self.file.clone(),
                name: name.clone(),
                problem,
            };
            let Ok(old) = stored.tensor(name) else {
                return Err(error("is not there to be replaced".to_owned()));
            };
            if old.shape() != tensor.dims() {
                let (old, new) = (old.shape(), tensor.dims());
                return Err(error(format!(
                    "has shape {old:?}, a replacement has {new:?}"
                )));
            }
            let values = tensor.to_device(&Device::Cpu)?.to_dtype(DType::F32)?;
            let values = values.flatten_all()?.to_vec1::<f32>()?;
            let Some(bytes) = to_bytes(&values, old.dtype()) else {
                return Err(error(format!("has type {:?}", old.dtype())));
            };
            new.insert(name, (old.dtype(), old.shape().to_vec(), bytes));
        }
        let views = stored.iter().map(|(name, old)| {
            let view = match new.get(name) {
                Some((kind, shape, bytes)) => TensorView::new(*kind, shape.clone(), bytes),
                None => TensorView::new(old.dtype(), old.shape().to_vec(), old.data()),
            };
            Ok((name, view?))
        });
        let views = views.collect::<Result<Vec<_>, _>>().map_err(damaged)?;
        safetensors::serialize(views, header.metadata().clone()).map_err(damaged)
    }
}

#[cfg(test)]
mod tests {
    use crate::{Model, nn::Source as _};

    use super::*;

    #[test]
    fn what_is_not_replaced_is_written_as_it_was() {
        let folder = tempfile::tempdir().expect("a folder");
        let base = Adaptable::builtin().expect("reads");
        let name = "vision_model.head.bias";
        let dims = [base.network().image.width()];
        let mut source = base.source().expect("its tensors");
        let old = source.tensor(name, &dims, crate::nn::Init::Constant(0.0));
        let new = (old.expect("is there") + 1.0).expect("a sum");
        let card = Card {
            name: "other".to_owned(),
            ..base.card().clone()
        };
        let tensors = BTreeMap::from([(name.to_owned(), new.clone())]);
        base.write(&tensors, card, folder.path()).expect("writes");

        let written = Adaptable::read(folder.path()).expect("reads");
        assert_ne!(written.fingerprint(), base.fingerprint());
        let of = |model: &Adaptable, name: &str| -> Vec<u8> {
            let stored = SafeTensors::deserialize(&model.weights).expect("safetensors");
            stored.tensor(name).expect("is there").data().to_vec()
        };
        let names = SafeTensors::deserialize(&base.weights).expect("safetensors");
        for other in names.names() {
            let same = of(&base, other) == of(&written, other);
            assert_eq!(same, other != name, "{other}");
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

        let again = written.write(&tensors, Card::default(), folder.path());
        let message = again.expect_err("its own folder").to_string();
        assert!(message.contains("was read from"), "{message}");
        let unknown = BTreeMap::from([("nothing".to_owned(), new)]);
        let beside = folder.path().join("beside");
        let refused = written.write(&unknown, Card::default(), &beside);
        let message = refused.expect_err("no such tensor").to_string();
        assert!(message.contains("`nothing`"), "{message}");
    }
}
