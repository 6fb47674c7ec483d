//! The self-check: do the kernels of this build, on this CPU, compute what the reference does?

use std::path::Path;

use embedding::Modality;
use serde::Serialize;

use crate::{
    ModelError, Precision,
    cpu::{Level, Plan},
    folder::{self, SmallFiles},
    load::{ALL_PROBES, Loader},
    probes::{Deviation, Probes},
    towers::Backend,
};

/// What one tower does at one precision with the kernels of one instruction set.
#[derive(Debug, Clone, Serialize)]
pub struct CheckRow {
    /// Which tower.
    pub tower: Modality,
    /// The instruction set; `"reference"` is candle, on this machine, now.
    pub kernels: &'static str,
    /// How weights and activations are stored.
    pub precision: Precision,
    /// How far its embeddings of the probes are from the stored ones.
    #[serde(flatten)]
    pub deviation: Deviation,
    /// Whether the least cosine is at least that of [`Precision::least_cosine`].
    pub passed: bool,
}

/// Compares every precision and every set of kernels that this CPU runs with the stored probes of a
/// model folder.
///
/// A tower that runs on kernels of one kind alone, as the residual one does, has one row.
///
/// # Errors
/// When the folder is no usable model, has no probes (see [`write_probes`]), or they do not fit it.
/// An embedding that is wrong is not an error here, but a row that has not passed.
pub fn check(folder: &Path) -> Result<Vec<CheckRow>, ModelError> {
    rows(&Loader::of(folder, "", &SmallFiles::read(folder)?)?)
}

/// Whether the files of a model folder but for its weights, which need not be there yet, are of a model
/// that can be used.
///
/// # Errors
/// When they are not.
pub fn check_files(folder: &Path) -> Result<(), ModelError> {
    let small = SmallFiles::read_without_weights(folder)?;
    Loader::of(folder, "", &small).map(|_| ())
}

/// [`check`] of the built-in model.
///
/// # Errors
/// Only when the binary was built from damaged files.
pub fn check_builtin() -> Result<Vec<CheckRow>, ModelError> {
    rows(&Loader::builtin()?)
}

/// Whether a model folder has no probes, though one of its towers is so large that another precision
/// than f32 is worth having.
///
/// # Errors
/// When the folder is no usable model.
pub fn wants_probes(folder: &Path) -> Result<bool, ModelError> {
    if has_probes(folder)? {
        return Ok(false);
    }
    let files = SmallFiles::read(folder)?;
    Ok(Loader::of(folder, "", &files)?.is_large())
}

/// Whether a model folder has probes.
///
/// # Errors
/// When its `diptych.json` cannot be read.
pub fn has_probes(folder: &Path) -> Result<bool, ModelError> {
    Ok(folder::read_card(folder)?.is_some_and(|card| card.probes.is_some()))
}

/// Makes probes by the reference network and writes them into the `diptych.json` of a model folder.
/// Where there is no such file, the model is called `name` in it.
///
/// # Errors
/// When the folder is no usable model or cannot be written to.
pub fn write_probes(folder: &Path, name: &str) -> Result<(), ModelError> {
    let files = SmallFiles::read(folder)?;
    let loader = Loader::of(folder, name, &files)?;
    let probes = Probes::make(
        &loader.text(Backend::REFERENCE)?,
        &loader.image(Backend::REFERENCE)?,
        loader.preprocess(),
    )?;
    let mut card = loader.card().clone();
    card.probes = Some(probes);
    folder::write_card(folder, &card)
}

fn rows(loader: &Loader<'_>) -> Result<Vec<CheckRow>, ModelError> {
    let Some(probes) = &loader.card().probes else {
        return Err(ModelError::BadProbes {
            problem: "there are none".to_owned(),
        });
    };
    let mut rows = Vec::new();
    let mut add = |tower, kernels, precision: Precision, deviation: Deviation| {
        let passed = deviation.least_cosine >= precision.least_cosine();
        rows.push(CheckRow {
            tower,
            kernels,
            precision,
            deviation,
            passed,
        });
    };
    let of_text = |backend| probes.of_texts(&loader.text(backend)?, ALL_PROBES);
    let of_image =
        |backend| probes.of_pictures(&loader.image(backend)?, loader.preprocess(), ALL_PROBES);
    add(
        Modality::Text,
        "reference",
        Precision::F32,
        of_text(Backend::REFERENCE)?,
    );
    for level in Level::all() {
        for precision in Precision::ALL {
            let plan = Backend::Packed(Plan { level, precision });
            add(Modality::Text, level.name, precision, of_text(plan)?);
        }
    }
    add(
        Modality::Image,
        "reference",
        Precision::F32,
        of_image(Backend::REFERENCE)?,
    );
    if loader.image_is_packed() {
        for level in Level::all() {
            for precision in Precision::ALL {
                let plan = Backend::Packed(Plan { level, precision });
                add(Modality::Image, level.name, precision, of_image(plan)?);
            }
        }
    }
    Ok(rows)
}
