//! What all measurements print: figures with their intervals, and what could not be read.

use std::path::Path;

use anyhow::{Context, Result, bail};
use embedding::{Fingerprint, Spaces};
use engine::metrics::{Interval, wilson};
use serde::{Serialize, Serializer};

use super::html::Page;
use crate::{args::EvalOptions, output, walk::Failure};

/// A figure and where it lies with 95 percent confidence.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Figure {
    /// The figure.
    pub value: f64,
    /// The interval, where one can be told.
    #[serde(flatten)]
    pub interval: Option<Interval>,
}

/// Figures by name, in the order in which they are shown.
#[derive(Debug, Default)]
pub struct Figures(pub Vec<(String, Figure)>);

impl Figures {
    /// Adds one.
    pub fn add(&mut self, name: impl Into<String>, figure: Figure) {
        self.0.push((name.into(), figure));
    }

    /// Name, value and interval of each.
    pub fn rows(&self) -> Vec<[String; 3]> {
        let row = |(name, figure): &(String, Figure)| {
            let [value, interval] = figure.cells();
            [name.clone(), value, interval]
        };
        self.0.iter().map(row).collect()
    }
}

impl Serialize for Figures {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, figure)| (name, figure)))
    }
}

/// What a run says.
#[derive(Debug, Serialize)]
pub struct Report<T> {
    /// Which measurement it is.
    pub task: &'static str,
    /// What was measured on.
    pub data: String,
    /// The model that made the embeddings.
    pub model: String,
    /// Its fingerprint.
    pub fingerprint: Fingerprint,
    /// What choices depended on.
    pub seed: u64,
    /// How many pictures, or queries, were measured at most.
    pub limit: Option<usize>,
    /// The figures.
    pub metrics: Figures,
    /// What this measurement says besides.
    #[serde(flatten)]
    pub details: T,
    /// What was left out, and why.
    pub failed: Vec<Failure>,
}

impl Figure {
    /// A proportion, of so many.
    pub fn proportion(hits: usize, of: usize) -> Self {
        Self {
            value: hits as f64 / of.max(1) as f64,
            interval: Some(wilson(hits, of)),
        }
    }

    /// A mean of proportions over `of` things whose interval was drawn. Where all of them are hits, or
    /// none is, nothing else can be drawn, and Wilson's interval stands in.
    pub fn drawn(value: f64, drawn: Interval, of: usize) -> Self {
        let certain = [(0.0, 0), (1.0, of)]
            .into_iter()
            .find(|(end, _)| (value - end).abs() < 1e-12);
        let interval = certain.map_or(drawn, |(_, hits)| wilson(hits, of));
        Self {
            value,
            interval: Some(interval),
        }
    }

    /// In words: the figure, and its interval.
    pub fn cells(&self) -> [String; 2] {
        let digits = |x: f64| {
            if x.abs() < 10.0 {
                format!("{x:.4}")
            } else {
                format!("{x:.1}")
            }
        };
        let interval = self.interval.map_or_else(String::new, |i| {
            format!("{} to {}", digits(i.low), digits(i.high))
        });
        [digits(self.value), interval]
    }
}

/// Refuses what would fail after all the work only.
///
/// # Errors
/// When the page has no folder to lie in.
pub fn check(options: &EvalOptions) -> Result<()> {
    let Some(path) = &options.html else {
        return Ok(());
    };
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    if path.is_dir() || !folder.is_dir() {
        bail!(
            "--html {}: expected a file in a folder that exists",
            path.display()
        );
    }
    Ok(())
}

impl<T: Serialize> Report<T> {
    /// What was measured; the figures are still to come.
    pub fn new(
        task: &'static str,
        data: String,
        spaces: &Spaces,
        options: &EvalOptions,
        details: T,
    ) -> Self {
        Self {
            task,
            data,
            model: spaces.model.clone(),
            fingerprint: spaces.fingerprint,
            seed: options.seed,
            limit: options.limit.map(usize::from),
            metrics: Figures::default(),
            details,
            failed: Vec::new(),
        }
    }

    /// Prints it as JSON, or as a table under `facts`, and writes the page that `page` completes.
    ///
    /// # Errors
    /// When standard output or the page cannot be written.
    pub fn finish(
        &self,
        options: &EvalOptions,
        facts: &[(&str, String)],
        page: impl FnOnce(&mut Page),
    ) -> Result<()> {
        if let Some(path) = &options.html {
            let mut all = vec![
                ("data", self.data.clone()),
                ("model", format!("{} ({})", self.model, self.fingerprint)),
            ];
            all.extend(facts.iter().cloned());
            let mut html = Page::new(&format!("diptych eval {}", self.task), &all);
            html.figures(&self.metrics);
            page(&mut html);
            html.failures(&self.failed);
            fs_err::write(path, html.finish()).context("the page cannot be written")?;
        }
        if options.json {
            return Ok(output::json(self)?);
        }
        for failure in &self.failed {
            let (path, reason) = (output::clean(&failure.path), output::clean(&failure.reason));
            output::note(&format!("left out: {path}: {reason}"));
        }
        if !self.failed.is_empty() {
            output::note(&format!("{} left out", output::count(self.failed.len())));
        }
        for (name, value) in facts {
            output::line(&format!("{name}: {}", output::clean(value)))?;
        }
        Ok(output::table(
            ["metric", "value", "95 percent"],
            &self.metrics.rows(),
        )?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_that_no_resample_can_move_still_has_an_interval() {
        let drawn = Interval {
            low: 1.0,
            high: 1.0,
        };
        let interval = Figure::drawn(1.0, drawn, 20).interval.expect("one");
        assert!((interval.low - 0.8389).abs() < 1e-4, "{interval:?}");
        let spread = Interval {
            low: 0.2,
            high: 0.6,
        };
        assert_eq!(Figure::drawn(0.5, spread, 20).interval, Some(spread));
    }

    #[test]
    fn a_figure_without_an_interval_has_no_ends_in_json() {
        let json = |figure| serde_json::to_string(&figure).expect("plain");
        let bare = Figure {
            value: 0.5,
            interval: None,
        };
        assert_eq!(json(bare), r#"{"value":0.5}"#);
        assert!(json(Figure::proportion(1, 2)).contains(r#""low":0.09"#));
    }
}
