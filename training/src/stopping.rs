//! Early stop: a run ends when a figure of its evaluations has not risen for a while, and its best weights
//! are kept.
//!
//! What was seen so far is read from `metrics.jsonl`, so that a run that goes on stops where it would have
//! stopped.

use std::path::Path;

use fs_err as fs;
use serde_json::Value;

use crate::{TrainingError, config::StopConfig, fit::StepReport};

/// The best evaluation of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Best {
    /// Name of the figure.
    pub metric: String,
    /// Steps done then.
    pub step: usize,
    /// The figure.
    pub value: f64,
    /// Whether the run ended because nothing better came.
    pub stopped: bool,
}

/// Watches a figure.
pub(crate) struct Stopping {
    config: StopConfig,
    best: Option<(usize, f64)>,
    /// Evaluations since the best one.
    since: usize,
}

impl Stopping {
    /// Behind the lines of the run in `folder`.
    ///
    /// # Errors
    /// When `metrics.jsonl` cannot be read.
    pub fn resume(config: &StopConfig, folder: &Path) -> Result<Self, TrainingError> {
        let mut stopping = Self {
            config: config.clone(),
            best: None,
            since: 0,
        };
        let text = fs::read_to_string(folder.join("metrics.jsonl"))?;
        for line in text.lines() {
            if let Ok(line) = serde_json::from_str::<Value>(line) {
                stopping.look(&line);
            }
        }
        Ok(stopping)
    }

    /// Takes in a step; whether it is the best so far.
    ///
    /// # Errors
    /// When it was evaluated and has no such figure.
    pub fn see(&mut self, report: &StepReport) -> Result<bool, TrainingError> {
        if report.held_out.is_none() && report.validation.is_none() {
            return Ok(false);
        }
        let line = serde_json::to_value(report).map_err(std::io::Error::from)?;
        self.look(&line).ok_or_else(|| TrainingError::Tuning {
            key: "stop.metric",
            problem: format!("there is no figure {} in an evaluation", self.config.metric),
        })
    }

    /// Whether a line of metrics is the best so far; none where it has no such figure.
    fn look(&mut self, line: &Value) -> Option<bool> {
        let value = figure(line, &self.config.metric)?;
        let is_best = self.best.is_none_or(|(_, best)| value > best);
        if is_best {
            let step = line["step"].as_u64().unwrap_or_default() as usize;
            self.best = Some((step, value));
            self.since = 0;
        } else {
            self.since += 1;
        }
        Some(is_best)
    }

    /// Whether it is enough.
    pub fn is_over(&self) -> bool {
        self.since >= self.config.patience
    }

    /// The best evaluation, where there was one.
    pub fn best(&self) -> Option<Best> {
        let (step, value) = self.best?;
        Some(Best {
            metric: self.config.metric.clone(),
            step,
            value,
            stopped: self.is_over(),
        })
    }
}

/// A figure of the validation pairs by its name, or one of a held-out style as `STYLE.NAME`.
fn figure(line: &Value, metric: &str) -> Option<f64> {
    let of_style = || {
        let (style, name) = metric.rsplit_once('.')?;
        line["held_out"][style][name].as_f64()
    };
    line["validation"][metric].as_f64().or_else(of_style)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watch(metric: &str, lines: &[String]) -> Stopping {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("metrics.jsonl"), lines.join("\n")).expect("written");
        let config = StopConfig {
            metric: metric.to_owned(),
            patience: 2,
        };
        Stopping::resume(&config, folder.path()).expect("reads")
    }

    #[test]
    fn a_run_is_over_after_so_many_evaluations_that_are_not_better() {
        let line = |step: usize, recall: f64| {
            format!("{{\"step\":{step},\"validation\":{{\"image_retrieval_recall@10\":{recall}}}}}")
        };
        let mut lines = vec![
            "{\"step\":1,\"loss\":2.0}".to_owned(),
            line(2, 0.3),
            line(4, 0.5),
        ];
        let over = |lines: &[String]| {
            let stopping = watch("image_retrieval_recall@10", lines);
            (stopping.is_over(), stopping.best().map(|best| best.step))
        };
        assert_eq!(over(&lines[..1]), (false, None));
        assert_eq!(over(&lines), (false, Some(4)));
        lines.push(line(6, 0.5));
        assert_eq!(over(&lines), (false, Some(4)), "as good is not better");
        lines.push(line(8, 0.4));
        assert_eq!(over(&lines), (true, Some(4)));
        lines[3] = line(6, 0.6);
        assert_eq!(over(&lines), (false, Some(6)));
    }

    #[test]
    fn a_style_can_be_watched_by_its_name() {
        let line = r#"{"step":3,"held_out":{"fx.2":{"recall_at_10":0.5}}}"#.to_owned();
        let best = watch("fx.2.recall_at_10", &[line])
            .best()
            .expect("a figure");
        assert_eq!((best.step, best.stopped), (3, false));
    }
}
