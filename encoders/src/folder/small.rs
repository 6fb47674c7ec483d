//! Which files a folder has, and what is said when one is missing.

use std::path::Path;

use fs_err as fs;

use super::{
    CARD, CONFIG, Files, Layout, OPEN_CLIP_CONFIG, Preprocessor, README, SUPPORTED, TOKENIZER,
    TOKENIZER_CONFIG, config, parts::WeightFiles, readme,
};
use crate::ModelError;

/// The small files of a folder, owned; the weights are mapped apart.
pub(crate) struct SmallFiles {
    pub layout: Layout,
    pub config: Vec<u8>,
    /// Where the next says what it says.
    pub preprocessor_form: Preprocessor,
    /// Empty in the form of `OpenCLIP`.
    pub preprocessor: Vec<u8>,
    pub tokenizer: Vec<u8>,
    pub tokenizer_config: Option<Vec<u8>>,
    pub card: Option<Vec<u8>>,
    pub readme: Option<Vec<u8>>,
    pub weights: WeightFiles,
}

impl SmallFiles {
    /// Of files in memory.
    pub(crate) fn of(files: &Files<'_>) -> Self {
        let owned = |contents: Option<&[u8]>| contents.map(<[u8]>::to_vec);
        Self {
            layout: files.layout,
            config: files.config.to_vec(),
            preprocessor_form: files.preprocessor_form,
            preprocessor: files.preprocessor.to_vec(),
            tokenizer: files.tokenizer.to_vec(),
            tokenizer_config: owned(files.tokenizer_config),
            card: owned(files.card),
            readme: owned(files.readme),
            weights: WeightFiles {
                named: files.layout.weights().to_owned(),
                parts: files
                    .weights
                    .iter()
                    .map(|(name, _)| (*name).to_owned())
                    .collect(),
            },
        }
    }

    pub(crate) fn read(folder: &Path) -> Result<Self, ModelError> {
        let small = Self::read_without_weights(folder)?;
        let weights = WeightFiles::find(folder, small.layout)?
            .ok_or_else(|| missing(folder, small.layout.weights()))?;
        Ok(Self { weights, ..small })
    }

    /// Of a folder that need not have the weights yet, of which none are named.
    pub(crate) fn read_without_weights(folder: &Path) -> Result<Self, ModelError> {
        fs::metadata(folder)?;
        let has = |name: &str| folder.join(name).is_file();
        let layout = match (has(CONFIG), has(OPEN_CLIP_CONFIG)) {
            (true, false) => Layout::Transformers,
            (false, true) => Layout::OpenClip,
            (true, true) => preferred(has),
            (false, false) => {
                return Err(ModelError::NoModel {
                    folder: folder.to_owned(),
                    supported: SUPPORTED,
                });
            }
        };
        let required = |name: &str| {
            if !has(name) {
                return Err(missing(folder, name));
            }
            let file = folder.join(name);
            let contents = fs::read(&file)?;
            not_pointer(&contents, &file)?;
            Ok(contents)
        };
        let optional = |name: &str| has(name).then(|| fs::read(folder.join(name))).transpose();
        let config = required(layout.config())?;
        // Before files are asked for that another family need not have.
        if layout == Layout::Transformers {
            config::check_family(&config, &folder.join(CONFIG))?;
        }
        // What is missing where neither is there is the first.
        let preprocessor_form = [Preprocessor::Alone, Preprocessor::Inside]
            .into_iter()
            .find(|form| has(form.file()))
            .unwrap_or(Preprocessor::Alone);
        Ok(Self {
            layout,
            config,
            preprocessor_form,
            preprocessor: match layout {
                Layout::Transformers => required(preprocessor_form.file())?,
                Layout::OpenClip => Vec::new(),
            },
            tokenizer: required(TOKENIZER)?,
            tokenizer_config: optional(TOKENIZER_CONFIG)?,
            card: optional(CARD)?,
            readme: readme::head(&folder.join(README)),
            weights: WeightFiles {
                named: layout.weights().to_owned(),
                parts: Vec::new(),
            },
        })
    }
}

/// Refuses what Git leaves in place of a large file that was not fetched.
pub(crate) fn not_pointer(contents: &[u8], file: &Path) -> Result<(), ModelError> {
    if !contents.starts_with(b"version https://git-lfs.github.com/spec/") {
        return Ok(());
    }
    Err(ModelError::MissingFile {
        file: file.to_owned(),
        hint:
            "a pointer of Git LFS is in its place; `git lfs pull` in that folder fetches the file"
                .to_owned(),
    })
}

/// Which of two forms in one folder is read, as many on the hub have them: the one that has weights
/// in one file, else the one that has them in several; ours of transformers came first.
fn preferred(has: impl Fn(&str) -> bool) -> Layout {
    let both = [Layout::Transformers, Layout::OpenClip];
    let whole = both.into_iter().find(|layout| has(layout.weights()));
    let found = whole.or_else(|| both.into_iter().find(|layout| has(&layout.index())));
    found.unwrap_or(Layout::Transformers)
}

/// What to do about a file that is not there depends on what is.
fn missing(folder: &Path, name: &str) -> ModelError {
    let has = |name: &str| folder.join(name).is_file();
    let hint = if name == TOKENIZER {
        let sources = [
            "vocab.json",
            "merges.txt",
            "vocab.txt",
            "spiece.model",
            "tokenizer.model",
        ];
        let there: Vec<&str> = sources.into_iter().filter(|name| has(name)).collect();
        let there = match there.as_slice() {
            [] => "there are no files of a tokenizer at all".to_owned(),
            names => format!("there is {}, which is not read", names.join(" and ")),
        };
        format!(
            "{there}; transformers makes one: \
             AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)"
        )
    } else if name == Preprocessor::Alone.file() {
        let other = Preprocessor::Inside.file();
        format!("there is no {other}, which would do, either")
    } else if let Some(pickled) = ["pytorch_model.bin", "open_clip_pytorch_model.bin"]
        .into_iter()
        .find(|name| has(name))
    {
        format!("there is {pickled}: only safetensors are read, since that can run code")
    } else {
        "the folder is not complete".to_owned()
    };
    ModelError::MissingFile {
        file: folder.join(name),
        hint,
    }
}
