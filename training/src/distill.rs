//! A smaller, faster text tower that takes the place of a larger one: it learns the embeddings of its
//! teacher, so that a collection that the teacher filled stays usable, and if wanted also where the
//! teacher looks ([`crate::objective::attention`]).
//!
//! Start at [`Distillation`]. Teacher and student are folders of sentence-transformers with a BERT in
//! them; the tokenizer is the teacher's.

mod agreement;
pub mod config;
mod lesson;
mod report;
mod run;
mod student;
mod texts;

use std::path::Path;

use fs_err as fs;

pub use self::{
    config::DistillConfig,
    report::{Figures, Report},
    run::{Distillation, StepReport},
};
use crate::TrainingError;

/// Trains up to `until` steps in all, and goes on where the run in `folder` stopped. Behind the last
/// step the student is written to `folder/student`, and how it compares to `folder/report.json`.
///
/// # Errors
/// When the teacher, the texts or the checkpoint cannot be used, or training diverges.
pub fn distill(
    config: &DistillConfig,
    folder: &Path,
    until: usize,
    observe: &mut dyn FnMut(&StepReport),
) -> Result<Option<Report>, TrainingError> {
    let mut run = Distillation::open(config, folder)?;
    run.train(folder, until, observe)?;
    if run.step() < config.optimizer.steps {
        return Ok(None);
    }
    let student = folder.join("student");
    run.export(&student)?;
    let report = report::compare(&run, &student)?;
    let contents = serde_json::to_string_pretty(&report).map_err(std::io::Error::from)?;
    fs::write(folder.join("report.json"), contents + "\n")?;
    Ok(Some(report))
}
