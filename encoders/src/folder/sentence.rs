//! Folders of sentence-transformers with a BERT in them: `config.json`, `tokenizer.json`,
//! `model.safetensors` and `sentence_bert_config.json` as transformers and the library write them,
//! `modules.json` for what comes behind the transformer, and a folder for each of these modules.

mod write;

use std::{
    path::{Component, Path, PathBuf},
    sync::LazyLock,
};

use candle_core::Tensor;
use embedding::Fingerprint;
use fs_err as fs;
use memmap2::Mmap;
use serde_json::{Value, json};

pub use write::SentenceExport;

use super::{CONFIG, TOKENIZER, TOKENIZER_CONFIG, WEIGHTS, check_ids, config};
use crate::{
    ModelError, TextTokenizer,
    keys::{self, Keys},
    nn::{
        DenseConfig, FileSource, Form, Init, SentenceConfig, SentencePooling, SentenceTower, Source,
    },
    weights::map_file,
};

const MODULES: &str = "modules.json";
const LENGTH: &str = "sentence_bert_config.json";
/// The file of settings in the folder of a module.
const MODULE_CONFIG: &str = "config.json";
/// Before the names of the tensors of the map behind the pooling, which have a file of their own.
const DENSE: &str = "dense.";
/// The activation of a map that is linear.
const IDENTITY: &str = "torch.nn.modules.linear.Identity";
/// What can stand in `modules.json`.
const ORDER: &str = "a Transformer, a Pooling, at most one Dense, and at most one Normalize";

/// What transformers 5.23 takes for keys of a BERT that are not there.
static BERT: LazyLock<Value> = LazyLock::new(|| {
    json!({
        "vocab_size": 30522,
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "intermediate_size": 3072,
        "hidden_act": "gelu",
        "max_position_embeddings": 512,
        "type_vocab_size": 2,
        "layer_norm_eps": 1e-12,
        "position_embedding_type": "absolute",
        "is_decoder": false,
    })
});

/// A folder, read and checked; its weights are mapped and not yet looked at.
pub struct SentenceFolder {
    /// Sizes of the tower.
    pub config: SentenceConfig,
    /// Words to ids, at most `context_length` of them.
    pub tokenizer: TextTokenizer,
    /// Contents of `tokenizer.json`.
    pub tokenizer_json: String,
    /// Contents of `tokenizer_config.json`, which others want to see.
    pub tokenizer_config: Option<String>,
    weights: (PathBuf, Mmap),
    dense: Option<(PathBuf, Mmap)>,
    fingerprint: Fingerprint,
}

impl SentenceFolder {
    /// Reads everything but the weights.
    ///
    /// # Errors
    /// When a file is missing, or says what is not supported.
    pub fn read(folder: &Path) -> Result<Self, ModelError> {
        let mut hash = blake3::Hasher::new();
        let mut contents = |file: &Path| -> Result<Vec<u8>, ModelError> {
            let contents = fs::read(file)?;
            hash.update(&(contents.len() as u64).to_le_bytes());
            hash.update(&contents);
            Ok(contents)
        };
        let mut json = |file: &Path| keys::parse(&contents(file)?, file);
        let modules = Modules::read(&json(&folder.join(MODULES))?, folder)?;
        let file = folder.join(CONFIG);
        let value = json(&file)?;
        let bert = Keys::root(&file, &value)?.with_defaults(&BERT);
        let file = folder.join(LENGTH);
        let value = json(&file)?;
        let context_length = context_length(&Keys::root(&file, &value)?, &bert)?;
        let file = modules.pooling.join(MODULE_CONFIG);
        let pooling = pooling(&Keys::root(&file, &json(&file)?)?)?;
        let width = bert.count("hidden_size")?;
        let dense = modules.dense.as_ref().map(|folder| {
            let file = folder.join(MODULE_CONFIG);
            dense(&Keys::root(&file, &json(&file)?)?, width)
        });
        let config = SentenceConfig {
            dense: dense.transpose()?,
            ..sizes(&bert, context_length, pooling)?
        };
        let file = folder.join(TOKENIZER);
        let read = contents(&file)?;
        let tokenizer = TextTokenizer::from_json(&read, &file, context_length)?;
        check_ids(&tokenizer, config.vocabulary, CONFIG, &file)?;
        let tokenizer_json = String::from_utf8_lossy(&read).into_owned();
        let file = folder.join(TOKENIZER_CONFIG);
        let tokenizer_config = file
            .is_file()
            .then(|| fs::read_to_string(file))
            .transpose()?;
        let map = |folder: &Path| -> Result<(PathBuf, Mmap), ModelError> {
            let file = folder.join(WEIGHTS);
            let map = map_file(&file)?;
            Ok((file, map))
        };
        let weights = map(folder)?;
        let dense = modules.dense.as_deref().map(map).transpose()?;
        for (_, map) in std::iter::once(&weights).chain(&dense) {
            hash.update_rayon(map);
        }
        let mut fingerprint = [0; 16];
        fingerprint.copy_from_slice(&hash.finalize().as_bytes()[..16]);
        Ok(Self {
            config,
            tokenizer,
            tokenizer_json,
            tokenizer_config,
            weights,
            dense,
            fingerprint: Fingerprint(fingerprint),
        })
    }

    /// A hash over everything that changes an embedding.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// Size of the files of weights.
    pub fn bytes(&self) -> u64 {
        let maps = std::iter::once(&self.weights).chain(&self.dense);
        maps.map(|(_, map)| map.len() as u64).sum()
    }

    /// Its tensors by the names that [`SentenceTower`] has for them.
    ///
    /// # Errors
    /// When a file of weights is damaged.
    pub fn source(&self) -> Result<SentenceSource<'_>, ModelError> {
        Ok(SentenceSource {
            bert: open(&self.weights)?,
            dense: self.dense.as_ref().map(open).transpose()?,
        })
    }

    /// The tower on the CPU.
    ///
    /// # Errors
    /// When a tensor is missing or has another shape.
    pub fn tower(&self, form: Form) -> Result<SentenceTower, ModelError> {
        SentenceTower::new(&mut self.source()?, &self.config, form)
    }
}

fn open((file, map): &(PathBuf, Mmap)) -> Result<FileSource<'_>, ModelError> {
    FileSource::new([(file.clone(), &map[..])], file)
}

/// The tensors of a [`SentenceFolder`].
pub struct SentenceSource<'a> {
    bert: FileSource<'a>,
    dense: Option<FileSource<'a>>,
}

impl<'a> SentenceSource<'a> {
    /// The shape of a tensor, where the folder has it.
    pub fn shape(&self, name: &str) -> Option<Vec<usize>> {
        let (source, name) = self.place(name);
        source.shape(name)
    }

    fn place<'n>(&self, name: &'n str) -> (&FileSource<'a>, &'n str) {
        match (&self.dense, name.strip_prefix(DENSE)) {
            (Some(dense), Some(own)) => (dense, own),
            _ => (&self.bert, name),
        }
    }
}

impl Source for SentenceSource<'_> {
    fn tensor(&mut self, name: &str, shape: &[usize], init: Init) -> Result<Tensor, ModelError> {
        match (&mut self.dense, name.strip_prefix(DENSE)) {
            (Some(dense), Some(own)) => dense.tensor(own, shape, init),
            _ => self.bert.tensor(name, shape, init),
        }
    }
}

/// The folders of what comes behind the transformer.
struct Modules {
    pooling: PathBuf,
    dense: Option<PathBuf>,
}

impl Modules {
    fn read(value: &Value, folder: &Path) -> Result<Self, ModelError> {
        let file = folder.join(MODULES);
        let bad = |value: &Value| ModelError::BadValue {
            file: file.clone(),
            key: ".".to_owned(),
            value: value.to_string(),
            expected: ORDER.to_owned(),
        };
        let listed = value.as_array().ok_or_else(|| bad(value))?;
        let mut kinds = Vec::new();
        let mut folders = Vec::new();
        for module in listed {
            let keys = Keys::root(&file, module)?;
            let kind = keys.text("type", ORDER)?;
            kinds.push(kind.rsplit('.').next().unwrap_or(kind));
            let path = Path::new(keys.text("path", "a folder beside this file")?);
            // The transformer's own is the folder itself.
            let inside = path.components().all(|c| matches!(c, Component::Normal(_)));
            if !inside {
                return Err(keys.bad("path", "a folder beside this file"));
            }
            folders.push(folder.join(path));
        }
        // What Normalize does is done in any case: an embedding has unit length.
        if kinds.last() == Some(&"Normalize") {
            kinds.pop();
        }
        let mut behind = folders.into_iter().skip(1);
        match (&kinds[..], behind.next(), behind.next()) {
            (["Transformer", "Pooling"], Some(pooling), _) => Ok(Self {
                pooling,
                dense: None,
            }),
            (["Transformer", "Pooling", "Dense"], Some(pooling), dense) => {
                Ok(Self { pooling, dense })
            }
            _ => Err(bad(value)),
        }
    }
}

fn context_length(keys: &Keys<'_>, bert: &Keys<'_>) -> Result<usize, ModelError> {
    // The tokenizers of BERT that need it say so themselves.
    if keys.is_set("do_lower_case") && keys.flag("do_lower_case")? {
        return Err(keys.bad("do_lower_case", "false"));
    }
    let length = keys.count("max_seq_length")?;
    if length > bert.count("max_position_embeddings")? {
        return Err(keys.bad(
            "max_seq_length",
            "at most max_position_embeddings of config.json",
        ));
    }
    Ok(length)
}

/// The sizes of the transformer; the rest is as given, without a map behind.
fn sizes(
    keys: &Keys<'_>,
    context_length: usize,
    pooling: SentencePooling,
) -> Result<SentenceConfig, ModelError> {
    let kind = "\"bert\"";
    if keys.text("model_type", kind)? != "bert" {
        return Err(keys.bad("model_type", kind));
    }
    let absolute = "\"absolute\"";
    if keys.text("position_embedding_type", absolute)? != "absolute" {
        return Err(keys.bad("position_embedding_type", absolute));
    }
    if keys.flag("is_decoder")? {
        return Err(keys.bad("is_decoder", "false"));
    }
    Ok(SentenceConfig {
        vocabulary: keys.count("vocab_size")?,
        positions: keys.count("max_position_embeddings")?,
        context_length,
        token_types: keys.count("type_vocab_size")?,
        transformer: config::transformer(keys)?,
        pooling,
        dense: None,
    })
}

fn pooling(keys: &Keys<'_>) -> Result<SentencePooling, ModelError> {
    const MODE: &str = "pooling_mode_";
    const MEAN: &str = "pooling_mode_mean_tokens";
    const FIRST: &str = "pooling_mode_cls_token";
    let chosen: Vec<&str> = keys
        .iter()
        .filter(|(key, value)| key.starts_with(MODE) && value.as_bool() == Some(true))
        .map(|(key, _)| key)
        .collect();
    match chosen[..] {
        [MEAN] => Ok(SentencePooling::Mean),
        [FIRST] => Ok(SentencePooling::First),
        [other, ..] => Err(keys.bad(
            other,
            "the mean of all tokens or the first one, and no more",
        )),
        [] => Err(keys.missing(MEAN, "true, or pooling_mode_cls_token")),
    }
}

fn dense(keys: &Keys<'_>, width: usize) -> Result<DenseConfig, ModelError> {
    if keys.count("in_features")? != width {
        return Err(keys.bad("in_features", &format!("{width}, hidden_size of {CONFIG}")));
    }
    if keys.text("activation_function", IDENTITY)? != IDENTITY {
        return Err(keys.bad("activation_function", IDENTITY));
    }
    Ok(DenseConfig {
        dim: keys.count("out_features")?,
        bias: keys.flag("bias")?,
    })
}
