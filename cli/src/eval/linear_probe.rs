//! `diptych eval linear-probe`: classes told by a linear classifier that is learned from pictures.

use anyhow::Result;
use clap::ValueEnum;
use engine::logistic::Choice;
use serde::Serialize;

use super::{
    judged::{self, Details},
    probe::{self, Split},
    report::{self, Report},
};
use crate::{
    args::{LinearProbeArgs, Places},
    home, output,
};

#[derive(Debug, Serialize)]
struct LinearProbe {
    aspect: String,
    dim: usize,
    split: Split,
    c: f64,
    /// How `C` was chosen, unless it was given.
    choice: Option<Choice>,
    steps: usize,
    converged: bool,
    #[serde(flatten)]
    classes: Details,
}

/// Measures and prints.
///
/// # Errors
/// When the classes or the model cannot be used.
pub fn run(places: &Places, args: &LinearProbeArgs) -> Result<()> {
    let args = &args.probe;
    let options = &args.options;
    report::check(options)?;
    let model = home::model(places)?;
    let data = probe::load(args, &model)?;
    let (fit, c, choice) = data.learn(&data.train, args.c, options.seed)?;
    if !fit.converged {
        output::note(&format!("the fit did not converge in {} steps", fit.steps));
    }
    let judged = data.judge(&fit);
    let aspect = args.aspect.to_possible_value();
    let details = LinearProbe {
        aspect: aspect.map_or_else(String::new, |value| value.get_name().to_owned()),
        dim: data.dim,
        split: data.split,
        c,
        choice,
        steps: fit.steps,
        converged: fit.converged,
        classes: judged::details(&judged, &data.labels),
    };
    let facts = [
        ("learned from", format!("{} pictures", data.split.train)),
        ("measured on", format!("{} pictures", data.split.test)),
        ("classes", data.labels.len().to_string()),
        ("aspect", details.aspect.clone()),
        ("C", c.to_string()),
    ];
    let folder = args.data.folder.display().to_string();
    let mut report = Report::new("linear-probe", folder, model.spaces(), options, details);
    report.metrics = judged::figures(&judged, data.labels.len(), options.seed);
    report.failed.clone_from(&data.failed);
    report.finish(options, &facts, |page| {
        judged::show(page, &judged, &data.labels, &report.details.classes);
    })
}
