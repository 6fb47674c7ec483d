//! `metrics.jsonl`: a line for each step of a run.

use std::{
    io::{ErrorKind, Result, Write as _},
    path::Path,
};

use fs_err as fs;
use serde::{Deserialize, Serialize};

/// The file, open for the lines to come.
pub(crate) struct Metrics {
    file: fs::File,
}

/// What a line must say to be kept.
#[derive(Deserialize)]
struct Line {
    step: usize,
}

impl Metrics {
    /// Opens the file of the run in `folder`, behind the lines of its first `step` steps. Others
    /// come from a run that was killed between checkpoints and does those steps again.
    pub fn open(folder: &Path, step: usize) -> Result<Self> {
        let file = folder.join("metrics.jsonl");
        let old = match fs::read(&file) {
            Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
            read => read?,
        };
        let is_done = |line: &[u8]| {
            // A kill may also leave half a line.
            line.ends_with(b"\n")
                && serde_json::from_slice::<Line>(line).is_ok_and(|line| line.step <= step)
        };
        let lines = old.split_inclusive(|byte| *byte == b'\n');
        let kept: Vec<&[u8]> = lines.filter(|line| is_done(line)).collect();
        let aside = folder.join("metrics.jsonl.new");
        fs::write(&aside, kept.concat())?;
        fs::rename(aside, &file)?;
        let file = fs::OpenOptions::new().append(true).open(file)?;
        Ok(Self { file })
    }

    /// Adds the line of one step; `report` has its number as `step`.
    pub fn write(&mut self, report: &impl Serialize) -> Result<()> {
        let line = serde_json::to_string(report)?;
        writeln!(self.file, "{line}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{fit::StepReport, objective::latent::LatentReport};

    fn report(step: usize) -> StepReport {
        StepReport {
            step,
            terms: LatentReport::default(),
            gamma: None,
            loss: 1.5,
            gradient: 2.0,
            logit_scale: 3.0,
            learning_rate: 0.1,
            samples_per_second: 100.0,
            held_out: None,
            modality_gap: None,
            validation: None,
            memory_estimate: None,
            memory_peak: None,
            skipped: Vec::new(),
        }
    }

    fn steps(folder: &Path) -> Vec<usize> {
        let text = fs::read_to_string(folder.join("metrics.jsonl")).expect("a file");
        let lines = text.lines();
        let step = |line: &str| serde_json::from_str::<Line>(line).expect("a line").step;
        lines.map(step).collect()
    }

    /// Steps that were done again after a kill were once listed twice.
    #[test]
    fn lines_behind_the_checkpoint_and_half_lines_are_dropped() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut metrics = Metrics::open(folder.path(), 0).expect("opens");
        for step in 1..=6 {
            metrics.write(&report(step)).expect("writes");
        }
        write!(metrics.file, "{{\"step\":7,\"lo").expect("writes");
        assert!(Metrics::open(folder.path(), 9).is_ok());
        assert_eq!(steps(folder.path()), [1, 2, 3, 4, 5, 6]);
        let mut metrics = Metrics::open(folder.path(), 4).expect("opens");
        assert_eq!(steps(folder.path()), [1, 2, 3, 4]);
        metrics.write(&report(5)).expect("writes");
        assert_eq!(steps(folder.path()), [1, 2, 3, 4, 5]);
    }
}
