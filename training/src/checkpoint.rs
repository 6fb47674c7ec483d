//! Everything that a run needs to go on exactly where it was.

use std::{collections::HashMap, path::Path};

use candle_core::{Device, Tensor};
use fs_err as fs;

use crate::{TrainingError, config::RunConfig, optimizer::AdamW, parameters::Parameters};

const FIRST: &str = "moment1/";
const SECOND: &str = "moment2/";
const STEP: &str = "step";

/// Writes the state behind `step` steps, aside and then renamed, so that a kill leaves the last
/// one whole. The configuration is written beside it.
///
/// # Errors
/// When the folder cannot be written.
pub fn save(
    folder: &Path,
    config: &RunConfig,
    parameters: &Parameters,
    optimizer: &AdamW,
    step: usize,
) -> Result<(), TrainingError> {
    let mut tensors: HashMap<String, Tensor> = parameters
        .all()
        .map(|(name, var)| (name.to_owned(), var.as_tensor().clone()))
        .collect();
    for (name, (first, second)) in &optimizer.moments {
        for (prefix, values) in [(FIRST, first), (SECOND, second)] {
            let tensor = Tensor::from_slice(values, values.len(), &Device::Cpu)?;
            tensors.insert(format!("{prefix}{name}"), tensor);
        }
    }
    tensors.insert(STEP.to_owned(), Tensor::new(step as i64, &Device::Cpu)?);
    let file = folder.join("checkpoint.safetensors");
    let aside = folder.join("checkpoint.safetensors.new");
    candle_core::safetensors::save(&tensors, &aside)?;
    fs::File::open(&aside)?.sync_all()?;
    fs::rename(aside, file)?;
    fs::write(folder.join("run.json"), describe(config))?;
    Ok(())
}

/// Reads a checkpoint into `parameters`, which must have all tensors already. Returns the
/// optimizer's state and the number of steps done, or `None` where there is no checkpoint.
///
/// # Errors
/// When it belongs to another configuration or is damaged.
pub fn load(
    folder: &Path,
    config: &RunConfig,
    parameters: &Parameters,
) -> Result<Option<(AdamW, usize)>, TrainingError> {
    let file = folder.join("checkpoint.safetensors");
    if !file.exists() {
        return Ok(None);
    }
    let problem = |problem: &str| TrainingError::Checkpoint {
        file: file.clone(),
        problem: problem.to_owned(),
    };
    if fs::read_to_string(folder.join("run.json"))? != describe(config) {
        return Err(problem(
            "was made with another configuration; use another folder, or the old configuration",
        ));
    }
    let tensors = candle_core::safetensors::load(&file, &Device::Cpu)?;
    let get = |name: &str| tensors.get(name).ok_or_else(|| problem("lacks a tensor"));
    for (name, _) in parameters.all() {
        parameters.set(name, get(name)?)?;
    }
    let mut optimizer = AdamW::default();
    for name in tensors.keys().filter_map(|name| name.strip_prefix(FIRST)) {
        let first = get(&format!("{FIRST}{name}"))?.to_vec1()?;
        let second = get(&format!("{SECOND}{name}"))?.to_vec1()?;
        optimizer.moments.insert(name.to_owned(), (first, second));
    }
    let step = get(STEP)?.to_scalar::<i64>()? as usize;
    Ok(Some((optimizer, step)))
}

/// What must be equal for a run to go on: everything but how often it reports.
fn describe(config: &RunConfig) -> String {
    let mut config = config.clone();
    config.optimizer.checkpoint_every = 1;
    config.optimizer.evaluate_every = 1;
    serde_json::to_string_pretty(&config).unwrap_or_default()
}
