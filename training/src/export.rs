//! A finished run as a model folder.

use std::path::Path;

use encoders::{Card, Export, Retrained, Stored};

use crate::{TrainingError, fit::Run, tokenizer};

/// Writes the weights and the tokenizer of a run, and `card`, as a model folder: for a run that began with
/// a folder, of the form of that one, with adapters added to what they adapt.
///
/// # Errors
/// When a file cannot be written.
pub fn export(run: &Run, card: Card, stored: Stored, folder: &Path) -> Result<(), TrainingError> {
    let settled = run.parameters.settled()?;
    let tensors = settled.merged()?;
    if let Some(base) = &run.base {
        let of_base = base.card();
        let mut card = card;
        card.license = card.license.or_else(|| of_base.license.clone());
        if card.languages.is_empty() {
            card.languages.clone_from(&of_base.languages);
        }
        let retrained = Retrained {
            tensors,
            stored: Some(stored),
            card,
        };
        return Ok(base.write(&retrained, folder)?);
    }
    let context = run.network.text.context_length;
    let words = tokenizer::load(&run.tokenizer, Path::new("tokenizer.json"), context)?;
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
