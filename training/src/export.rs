//! A finished run as a model folder.

use std::path::Path;

use candle_core::Tensor;
use encoders::{Card, Export, Filter, Normalization, PreprocessConfig, Stored};

use crate::{TrainingError, fit::Run, tokenizer};

/// Writes the weights and the tokenizer of a run, and `card`, as a model folder.
///
/// # Errors
/// When a file cannot be written.
pub fn export(run: &Run, card: Card, stored: Stored, folder: &Path) -> Result<(), TrainingError> {
    let context = run.network.text.context_length;
    let words = tokenizer::load(&run.tokenizer, Path::new("tokenizer.json"), context)?;
    let side = u32::try_from(run.network.image.image_size())
        .ok()
        .and_then(std::num::NonZeroU32::new);
    let Some(side) = side else {
        return Err(TrainingError::Value {
            key: "model.image.image_size",
            expected: "at least 1",
        });
    };
    let settled = run.parameters.settled()?;
    let tensors: Vec<(&str, Tensor)> = settled
        .all()
        .map(|(name, var)| (name, var.as_tensor().clone()))
        .collect();
    let export = Export {
        network: &run.network,
        // As the loader shows pictures: squashed to the square, levels from -1 to 1.
        preprocess: &PreprocessConfig::squash(side, Filter::Bicubic, Normalization::HALF),
        tokenizer: &run.tokenizer,
        start: words.id(tokenizer::START).unwrap_or_default(),
        tensors,
        stored,
        card,
    };
    Ok(export.write(folder)?)
}
