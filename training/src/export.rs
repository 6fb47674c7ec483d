//! A finished run as a model folder.

use std::path::Path;

use candle_core::Tensor;
use encoders::{Card, Export, Stored};

use crate::{TrainingError, fit::Run, tokenizer};

/// Writes the weights and the tokenizer of a run, and `card`, as a model folder.
///
/// # Errors
/// When a file cannot be written.
pub fn export(run: &Run, card: Card, stored: Stored, folder: &Path) -> Result<(), TrainingError> {
    let context = run.network.text.context_length;
    let words = tokenizer::load(&run.tokenizer, Path::new("tokenizer.json"), context)?;
    let settled = run.parameters.settled()?;
    let tensors: Vec<(&str, Tensor)> = settled
        .all()
        .map(|(name, var)| (name, var.as_tensor().clone()))
        .collect();
    let export = Export {
        network: &run.network,
        preprocess: &run.preprocess,
        tokenizer: &run.tokenizer,
        start: words.id(tokenizer::START).unwrap_or_default(),
        tensors,
        stored,
        card,
    };
    Ok(export.write(folder)?)
}
