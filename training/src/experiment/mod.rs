//! Experiments of minutes on made-up data: what a method is for, and the figures that show it.
//!
//! Each has claims that can fail. docs/training.md holds what was measured.

mod amad;
mod latent_structures;
mod net;

use std::{fmt, path::Path};

use clap::ValueEnum;
use fs_err as fs;

use crate::TrainingError;

/// Which experiment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Name {
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
/// plot where there is one, are left in the folder `out`, under the experiment's name.
///
/// # Errors
/// When the folder cannot be written, or the network fails.
pub fn run(name: Name, reduced: bool, out: &Path) -> Result<Outcome, TrainingError> {
    fs::create_dir_all(out)?;
    let outcome = match name {
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

    #[test]
    fn every_experiment_shows_in_its_reduced_form_what_it_claims() -> Result<(), TrainingError> {
        let folder = tempfile::tempdir()?;
        for name in Name::value_variants() {
            let outcome = run(*name, true, folder.path())?;
            assert!(outcome.passed(), "{name:?}\n{outcome}");
            assert!(!outcome.claims.is_empty());
        }
        Ok(())
    }
}
