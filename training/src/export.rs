//! A finished run as a model folder.

use std::path::Path;

use candle_core::Tensor;
use embedding::Embedding;
use encoders::{
    Card, Export, Retrained, RgbaPicture, Stored,
    nn::{beside, unit_rows},
};
use rayon::prelude::*;

use crate::{
    TrainingError,
    data::{Data, still},
    fit::Run,
    tokenizer,
    towers::VISUAL_SPECIFIC,
    whitening::{Pictures, Whitening, learned_whitening},
};

/// Pictures that one pass takes.
const BATCH: usize = 256;

/// The projection that [`learned_whitening`] finds on the pictures that a run was trained on, each as it is
/// when it is served. Specific embeddings become `dim` numbers, or as many as shared ones have.
///
/// # Errors
/// When the run has no specific projections, `data` are pairs, or as for [`learned_whitening`].
pub fn whitening(
    run: &Run,
    data: &Data,
    ridge: f64,
    dim: Option<usize>,
) -> Result<Whitening, TrainingError> {
    let Data::Drawings(dataset) = data else {
        return Err(TrainingError::NoThings);
    };
    let towers = run.settled_towers()?;
    if !towers.has_specific() {
        return Err(TrainingError::NoSpecific);
    }
    let side = run.network.image.image_size();
    let concepts = dataset.training.iter().enumerate();
    let all: Vec<(usize, &RgbaPicture)> = concepts
        .flat_map(|(thing, concept)| concept.pictures.iter().map(move |(p, _)| (thing, p)))
        .collect();
    let (mut seen, mut shared) = (Vec::new(), Vec::new());
    for part in all.chunks(BATCH) {
        let pixels: Vec<f32> = part
            .par_iter()
            .flat_map_iter(|(_, picture)| still(picture, side))
            .collect();
        let shape = (part.len(), 3, side, side);
        let pixels = Tensor::from_vec(pixels, shape, run.parameters.device())?;
        let tower = &towers.network.image;
        let (pooled, details) = tower.with_details(&pixels)?;
        seen.extend(match details {
            Some(details) => beside(&pooled, &details)?.to_vec2::<f32>()?,
            None => unit_rows(&pooled)?.to_vec2::<f32>()?,
        });
        for row in tower.project(&pooled)?.to_vec2::<f32>()? {
            shared.push(Embedding::normalized(row)?);
        }
    }
    let things: Vec<usize> = all.iter().map(|(thing, _)| *thing).collect();
    let pictures = Pictures {
        seen: &seen,
        shared: &shared,
        things: &things,
    };
    learned_whitening(pictures, ridge, dim.unwrap_or(run.network.dim))
}

/// Writes the weights and the tokenizer of a run, and `card`, as a model folder: for a run that began with
/// a folder, of the form of that one, with adapters added to what they adapt. `whitening` takes the place of
/// the specific projection of pictures.
///
/// # Errors
/// When a file cannot be written.
pub fn export(
    run: &Run,
    whitening: Option<&Whitening>,
    (card, stored): (Card, Stored),
    folder: &Path,
) -> Result<(), TrainingError> {
    let settled = run.parameters.settled()?;
    let mut tensors = settled.merged()?;
    if let Some(whitening) = whitening {
        let own = tensors
            .iter_mut()
            .find(|(name, _)| *name == VISUAL_SPECIFIC);
        let (_, own) = own.ok_or(TrainingError::NoSpecific)?;
        let rows = whitening.projection.len() / whitening.width;
        let shape = (rows, whitening.width);
        *own = Tensor::from_slice(&whitening.projection, shape, own.device())?;
    }
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
