//! The self-check: do the kernels of this build, on this CPU, compute what the reference does?

use std::path::Path;

use embedding::Modality;
use kernels::Level;
use serde::Serialize;

use crate::{
    ModelError, Place, Precision, PrecisionChoice, RunOptions,
    cpu::Plan,
    folder::{self, Measured, SmallFiles},
    load::{ALL_PROBES, Loader, VERSION, found},
    probes::{Deviation, Probes},
    run::least_cosine,
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
    /// Whether the least cosine is at least what is asked of this precision.
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

/// Whether a model folder lacks what [`verify`] would write and a load with these options would use: probes, where
/// one of its towers is so large that another precision than f32 is worth having, and what is found of such.
///
/// # Errors
/// When the folder is no usable model; its weights are not looked at.
pub fn wants_verification(folder: &Path, options: RunOptions) -> Result<bool, ModelError> {
    let small = SmallFiles::read_without_weights(folder)?;
    let loader = Loader::of(folder, "", &small)?;
    let chooses = options.precision == PrecisionChoice::Auto && options.place == Place::Cpu;
    let unprobed = loader.card().probes.is_none();
    Ok(loader.is_large() && (unprobed || chooses && !loader.unmeasured().is_empty()))
}

/// Whether a model folder has probes.
///
/// # Errors
/// When its `diptych.json` cannot be read.
pub fn has_probes(folder: &Path) -> Result<bool, ModelError> {
    Ok(folder::read_card(folder)?.is_some_and(|card| card.probes.is_some()))
}

/// Writes into the `diptych.json` of a model folder what is not there of these: probes, made by the
/// reference network, and how each precision that [`PrecisionChoice::Auto`](crate::PrecisionChoice::Auto) may choose
/// on this CPU does with them. Where there is no such file, the model is called `name` in it.
///
/// # Errors
/// When the folder is no usable model or cannot be written to.
pub fn verify(folder: &Path, name: &str) -> Result<(), ModelError> {
    let files = SmallFiles::read(folder)?;
    let loader = Loader::of(folder, name, &files)?;
    let probes = loader.card().probes.clone();
    complete(folder, &loader, probes)
}

/// As [`verify`], for a folder whose weights are new: what was there is replaced.
///
/// # Errors
/// As there.
pub fn write_probes(folder: &Path, name: &str) -> Result<(), ModelError> {
    let files = SmallFiles::read(folder)?;
    complete(folder, &Loader::of(folder, name, &files)?, None)
}

fn complete(folder: &Path, loader: &Loader<'_>, probes: Option<Probes>) -> Result<(), ModelError> {
    let mut card = loader.card().clone();
    // Before much is computed for it.
    let file = folder::CardFile::create(folder)?;
    let probes = if let Some(probes) = probes {
        probes
    } else {
        card.measured.clear();
        Probes::make(
            &loader.text(Backend::REFERENCE)?,
            &loader.image(Backend::REFERENCE)?,
            loader.preprocess(),
        )?
    };
    for (tower, plan) in loader.measurable() {
        if found(&card.measured, tower, plan).is_none() {
            let deviation = match deviation(loader, &probes, tower, Backend::Packed(plan)) {
                Err(ModelError::Probing(_)) => Deviation::WORST,
                measured => measured?,
            };
            card.measured.push(Measured {
                version: VERSION.to_owned(),
                kernels: plan.level.name.to_owned(),
                tower,
                precision: plan.precision,
                least_cosine: deviation.least_cosine,
            });
        }
    }
    card.probes = Some(probes);
    file.write(&card)
}

/// How far a tower is from all its probes.
fn deviation(
    loader: &Loader<'_>,
    probes: &Probes,
    tower: Modality,
    backend: Backend,
) -> Result<Deviation, ModelError> {
    match tower {
        Modality::Text => probes.of_texts(&loader.text(backend)?, ALL_PROBES),
        Modality::Image => {
            probes.of_pictures(&loader.image(backend)?, loader.preprocess(), ALL_PROBES)
        }
    }
}

fn rows(loader: &Loader<'_>) -> Result<Vec<CheckRow>, ModelError> {
    let Some(probes) = &loader.card().probes else {
        return Err(ModelError::BadProbes {
            problem: "there are none".to_owned(),
        });
    };
    let mut rows = Vec::new();
    for tower in [Modality::Text, Modality::Image] {
        let mut backends = vec![("reference", Precision::F32, Backend::REFERENCE)];
        if tower == Modality::Text || loader.image_is_packed() {
            for level in Level::all() {
                for precision in Precision::ALL {
                    let plan = Backend::Packed(Plan { level, precision });
                    backends.push((level.name, precision, plan));
                }
            }
        }
        for (kernels, precision, backend) in backends {
            let deviation = deviation(loader, probes, tower, backend)?;
            let passed = deviation.least_cosine >= least_cosine(precision);
            rows.push(CheckRow {
                tower,
                kernels,
                precision,
                deviation,
                passed,
            });
        }
    }
    Ok(rows)
}
