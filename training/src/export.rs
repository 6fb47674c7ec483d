//! A finished run as a model folder.

use std::path::Path;

use candle_core::Tensor;
use encoders::{
    Card, Export, Filter, Normalization, Precision, PreprocessConfig, TextTokenizer,
    nn::NetworkConfig,
};
use fs_err as fs;

use crate::{TrainingError, parameters::Parameters, tokenizer};

/// Writes the weights of a run, the tokenizer in its folder, and `card`, as a model folder.
///
/// # Errors
/// When a file cannot be read or written.
pub fn export(
    run: &Path,
    parameters: &Parameters,
    network: &NetworkConfig,
    card: Card,
    precision: Precision,
    folder: &Path,
) -> Result<(), TrainingError> {
    let file = run.join("tokenizer.json");
    let contents = fs::read_to_string(&file)?;
    let words = TextTokenizer::from_json(contents.as_bytes(), &file, network.text.context_length)?;
    let side = u32::try_from(network.image.image_size())
        .ok()
        .and_then(std::num::NonZeroU32::new);
    let Some(side) = side else {
        return Err(TrainingError::Value {
            key: "model.image.image_size",
            expected: "at least 1",
        });
    };
    let tensors: Vec<(&str, Tensor)> = parameters
        .all()
        .map(|(name, var)| (name, var.as_tensor().clone()))
        .collect();
    let export = Export {
        network,
        // As the loader shows pictures: squashed to the square, levels from -1 to 1.
        preprocess: &PreprocessConfig::squash(side, Filter::Bicubic, Normalization::HALF),
        tokenizer: &contents,
        start: words.id(tokenizer::START).unwrap_or_default(),
        tensors,
        precision,
        card,
    };
    Ok(export.write(folder)?)
}
