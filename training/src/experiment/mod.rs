//! Experiments of minutes on made-up data: what a method is for, and the figures that show it.
//!
//! Each has claims that can fail. docs/training.md holds what was measured.

mod amad;
mod digits;
mod gamma_bias;
mod gamma_noise;
mod latent_structures;
mod memory_bank;
mod net;
mod ridge;

use std::{fmt, path::Path};

use clap::ValueEnum;
use fs_err as fs;

use crate::TrainingError;

/// Which experiment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Name {
    /// How far the mean gradient of small batches is from that of all data.
    GammaBias,
    /// Where small batches with noise end up, beside the optimum.
    GammaNoise,
    /// What a bank of earlier keys adds to small batches.
    MemoryBank,
    /// What latent structures keep in embeddings that pairs alone do not.
    LatentStructures,
    /// Whether a student of few heads learns where a teacher of many looks.
    Amad,
}

/// What came out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The figures, as a Markdown table.
    pub table: String,
    /// What they must show.
    pub claims: Vec<Claim>,
}

/// A statement about the figures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// What is said.
    pub text: String,
    /// Whether the figures show it.
    pub holds: bool,
}

impl Outcome {
    /// Whether every claim holds.
    pub fn passed(&self) -> bool {
        self.claims.iter().all(|claim| claim.holds)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        writeln!(f, "{}", self.table)?;
        for claim in &self.claims {
            let holds = if claim.holds { "holds" } else { "MISSED" };
            writeln!(f, "- {holds}: {}", claim.text)?;
        }
        Ok(())
    }
}

/// Runs an experiment; `reduced` takes seconds in place of minutes and has wider bounds. The figures, and a
/// plot where there is one, are left in the folder `out`, under the experiment's name. `digits` is a file of
/// handwritten digits, the control of [`Name::MemoryBank`].
///
/// # Errors
/// When the folder cannot be written, the digits cannot be read, or the network fails.
pub fn run(
    name: Name,
    reduced: bool,
    digits: Option<&Path>,
    out: &Path,
) -> Result<Outcome, TrainingError> {
    fs::create_dir_all(out)?;
    let outcome = match name {
        Name::GammaBias => gamma_bias::run(reduced)?,
        Name::GammaNoise => gamma_noise::run(reduced, &out.join("gamma-noise.svg"))?,
        Name::MemoryBank => memory_bank::run(reduced, digits)?,
        Name::LatentStructures => latent_structures::run(reduced)?,
        Name::Amad => amad::run(reduced)?,
    };
    let name = name.to_possible_value();
    let name = name.as_ref().map_or("experiment", |name| name.get_name());
    fs::write(out.join(format!("{name}.md")), outcome.to_string())?;
    Ok(outcome)
}

fn claim(holds: bool, text: impl Into<String>) -> Claim {
    let text = text.into();
    Claim { text, holds }
}

/// Mean and standard deviation of the values.
fn spread(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let squares = values.iter().map(|x| (x - mean).powi(2)).sum::<f64>();
    (mean, (squares / (n - 1.0).max(1.0)).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the reduced form, which must show what is claimed.
    fn shows_what_it_claims(name: Name) -> Result<tempfile::TempDir, TrainingError> {
        let folder = tempfile::tempdir()?;
        let outcome = run(name, true, None, folder.path())?;
        assert!(outcome.passed(), "{name:?}\n{outcome}");
        assert!(!outcome.claims.is_empty());
        Ok(folder)
    }

    // A test each, so that they run beside each other.

    #[test]
    fn gamma_bias_shows_in_its_reduced_form_what_it_claims() -> Result<(), TrainingError> {
        shows_what_it_claims(Name::GammaBias).map(|_| ())
    }

    #[test]
    fn gamma_noise_shows_in_its_reduced_form_what_it_claims() -> Result<(), TrainingError> {
        let folder = shows_what_it_claims(Name::GammaNoise)?;
        let plot = fs::read_to_string(folder.path().join("gamma-noise.svg"))?;
        assert!(plot.trim_end().ends_with("</svg>"), "{plot}");
        Ok(())
    }

    #[test]
    fn memory_bank_shows_in_its_reduced_form_what_it_claims() -> Result<(), TrainingError> {
        shows_what_it_claims(Name::MemoryBank).map(|_| ())
    }

    #[test]
    fn latent_structures_show_in_their_reduced_form_what_they_claim() -> Result<(), TrainingError> {
        shows_what_it_claims(Name::LatentStructures).map(|_| ())
    }

    #[test]
    fn amad_shows_in_its_reduced_form_what_it_claims() -> Result<(), TrainingError> {
        shows_what_it_claims(Name::Amad).map(|_| ())
    }

    #[test]
    fn one_missed_claim_is_enough_to_fail() {
        let outcome = Outcome {
            table: String::new(),
            claims: vec![claim(true, "one"), claim(false, "other")],
        };
        assert!(!outcome.passed());
        assert!(outcome.to_string().contains("MISSED: other"));
    }
}
