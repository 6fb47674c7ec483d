//! Everything that a run needs to go on exactly where it was, in one file.

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
};

use candle_core::{Device, Tensor};
use embedding::Fingerprint;
use fs_err as fs;
use safetensors::SafeTensors;
use serde::{Deserialize, Serialize};

use crate::{
    TrainingError,
    config::RunConfig,
    objective::gamma::{LogZ, TwoWay},
    optimizer::AdamW,
    parameters::Parameters,
};

const FIRST: &str = "moment1/";
const SECOND: &str = "moment2/";
const STEP: &str = "step";
const AVERAGE: &str = "average/";
/// Of `log Z`, by direction.
const MEMORY: [&str; 2] = ["memory/by_row/", "memory/by_column/"];
/// The one key of the file's metadata.
const ORIGIN: &str = "run";

/// Where the checkpoint of the run in `folder` is, if it has one.
pub fn file(folder: &Path) -> PathBuf {
    folder.join("checkpoint.safetensors")
}

/// Where the weights of its best evaluation are, if it stops early.
pub fn best(folder: &Path) -> PathBuf {
    folder.join("best.safetensors")
}

/// What a run consists of behind `step` steps.
pub struct State<'a> {
    /// What must be equal for a run to go on from here.
    pub identity: &'a str,
    /// Contents of its `tokenizer.json`; empty where it has none.
    pub tokenizer: &'a str,
    /// The model that it began with, if it did not begin from nothing.
    pub base: Option<Fingerprint>,
    /// The weights.
    pub parameters: &'a Parameters,
    /// The moments.
    pub optimizer: &'a AdamW,
    /// What the loss remembers of each item, where it does.
    pub memory: Option<&'a TwoWay>,
    /// What else the run keeps, by names that begin as no others here do.
    pub others: Vec<(String, Tensor)>,
    /// Steps done.
    pub step: usize,
}

/// What a checkpoint gives back beside the weights.
#[derive(Default)]
pub struct Restored {
    /// The moments.
    pub optimizer: AdamW,
    /// What the loss remembers of each item, where it did.
    pub memory: Option<TwoWay>,
    /// Steps done.
    pub step: usize,
}

/// What makes the tensors usable: part of their file, so that no kill comes between them.
#[derive(Serialize, Deserialize)]
struct Origin {
    config: String,
    tokenizer: String,
    /// The model whose weights stand where a run did not change any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    base: Option<Fingerprint>,
}

/// Writes a state into a file, aside and then renamed, so that a kill leaves the last one whole.
///
/// # Errors
/// When the folder cannot be written.
pub fn save(file: &Path, state: &State) -> Result<(), TrainingError> {
    let mut tensors: HashMap<String, Tensor> = state
        .parameters
        .moving()
        .map(|(name, var)| (name.to_owned(), var.as_tensor().clone()))
        .collect();
    for (name, (first, second)) in &state.optimizer.moments {
        tensors.insert(format!("{FIRST}{name}"), first.clone());
        tensors.insert(format!("{SECOND}{name}"), second.clone());
    }
    for (name, average) in state.parameters.averages() {
        tensors.insert(format!("{AVERAGE}{name}"), average.clone());
    }
    if let Some(memory) = state.memory {
        for (prefix, of) in MEMORY.into_iter().zip([&memory.by_row, &memory.by_column]) {
            for (name, tensor) in of.to_tensors()? {
                tensors.insert(format!("{prefix}{name}"), tensor);
            }
        }
    }
    tensors.extend(state.others.iter().cloned());
    let step = Tensor::new(state.step as i64, &Device::Cpu)?;
    tensors.insert(STEP.to_owned(), step);
    let origin = Origin {
        config: state.identity.to_owned(),
        tokenizer: state.tokenizer.to_owned(),
        base: state.base,
    };
    let origin = serde_json::to_string(&origin).map_err(std::io::Error::from)?;
    let metadata = HashMap::from([(ORIGIN.to_owned(), origin)]);
    let aside = file.with_extension("safetensors.new");
    safetensors::serialize_to_file(&tensors, Some(metadata), &aside)
        .map_err(candle_core::Error::from)?;
    fs::File::open(&aside)?.sync_all()?;
    fs::rename(aside, file)?;
    Ok(())
}

/// A checkpoint of the same configuration, as far as it can be read before there is a network.
pub struct Checkpoint {
    /// Contents of the run's `tokenizer.json`.
    pub tokenizer: String,
    file: PathBuf,
    tensors: HashMap<String, Tensor>,
}

impl Checkpoint {
    /// Reads the checkpoint in a file, or `None` where there is none. `identity` and `base` are what must
    /// be equal, as in [`State`].
    ///
    /// # Errors
    /// When it was saved with another `identity`, began with another model than `base`, or is damaged.
    pub fn read(
        file: &Path,
        identity: &str,
        base: Option<Fingerprint>,
    ) -> Result<Option<Self>, TrainingError> {
        let file = file.to_owned();
        if !file.exists() {
            return Ok(None);
        }
        let problem = |problem: &str| TrainingError::Checkpoint {
            file: file.clone(),
            problem: problem.to_owned(),
        };
        let bytes = fs::read(&file)?;
        let (_, header) = SafeTensors::read_metadata(&bytes).map_err(candle_core::Error::from)?;
        let origin = header.metadata().as_ref().and_then(|m| m.get(ORIGIN));
        let origin = origin.and_then(|origin| serde_json::from_str::<Origin>(origin).ok());
        let Some(origin) = origin else {
            return Err(problem(
                "does not say which run it belongs to; use another folder",
            ));
        };
        if origin.config != identity {
            return Err(problem(
                "was made with another configuration; use another folder, or the old configuration",
            ));
        }
        if origin.base != base {
            return Err(problem(
                "began with another model than `model.from` now holds; use another folder, or that model",
            ));
        }
        Ok(Some(Self {
            tokenizer: origin.tokenizer,
            tensors: candle_core::safetensors::load_buffer(&bytes, &Device::Cpu)?,
            file,
        }))
    }

    /// Sets `parameters`, which must have all tensors already, and returns the rest.
    ///
    /// # Errors
    /// When a tensor is missing or has another shape.
    pub fn restore(&self, parameters: &mut Parameters) -> Result<Restored, TrainingError> {
        for (name, _) in parameters.moving() {
            parameters.set(name, self.tensor(name)?)?;
        }
        let mut optimizer = AdamW::default();
        let names = self.tensors.keys();
        for name in names.filter_map(|name| name.strip_prefix(FIRST)) {
            let moment = |prefix: &str| -> Result<Tensor, TrainingError> {
                let tensor = self.tensor(&format!("{prefix}{name}"))?;
                Ok(tensor.to_device(parameters.device())?)
            };
            let (first, second) = (moment(FIRST)?, moment(SECOND)?);
            optimizer.moments.insert(name.to_owned(), (first, second));
        }
        let mut averages = BTreeMap::new();
        for (name, tensor) in &self.tensors {
            if let Some(name) = name.strip_prefix(AVERAGE) {
                averages.insert(name.to_owned(), tensor.to_device(parameters.device())?);
            }
        }
        parameters.set_averages(averages);
        let memory = |prefix: &str| -> Result<LogZ, TrainingError> {
            let part = |name: &str| self.tensor(&format!("{prefix}{name}"));
            Ok(LogZ::from_tensors(part("log_z")?, part("visits")?)?)
        };
        let [by_row, by_column] = MEMORY;
        let remembers = self.tensors.keys().any(|name| name.starts_with(by_row));
        let memory = remembers.then(|| {
            let (by_row, by_column) = (memory(by_row)?, memory(by_column)?);
            Ok::<_, TrainingError>(TwoWay { by_row, by_column })
        });
        Ok(Restored {
            optimizer,
            memory: memory.transpose()?,
            step: self.tensor(STEP)?.to_scalar::<i64>()? as usize,
        })
    }

    /// A tensor of the file, on the CPU.
    ///
    /// # Errors
    /// When it is not there.
    pub fn tensor(&self, name: &str) -> Result<&Tensor, TrainingError> {
        let lacks = || TrainingError::Checkpoint {
            file: self.file.clone(),
            problem: format!("lacks the tensor {name}"),
        };
        self.tensors.get(name).ok_or_else(lacks)
    }
}

/// The identity of a run of `fit`: everything but how often it reports.
pub fn identity(config: &RunConfig) -> String {
    let mut config = config.clone();
    config.optimizer.checkpoint_every = 1;
    config.optimizer.evaluate_every = 1;
    config.stop = None;
    serde_json::to_string_pretty(&config).unwrap_or_default()
}
