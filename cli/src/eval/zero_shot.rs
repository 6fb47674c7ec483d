//! `diptych eval zero-shot`: classes told from their names alone.

use std::path::Path;

use anyhow::{Context, Result, bail};
use embedding::Encoded;
use engine::{Prompts, Query};
use serde::Serialize;

use super::{
    classes::{self, Classes},
    encode,
    judged::{self, Details, Judged},
    report::{self, Report},
};
use crate::{
    args::{Places, ZeroShotArgs},
    home,
};

/// What names CLIP's own prompt ensemble.
const CLIP: &str = "clip";

#[derive(Debug, Serialize)]
struct ZeroShot {
    templates: Vec<String>,
    #[serde(flatten)]
    classes: Details,
}

/// Measures and prints.
///
/// # Errors
/// When the classes, the templates or the model cannot be used.
pub fn run(places: &Places, args: &ZeroShotArgs) -> Result<()> {
    let options = &args.options;
    report::check(options)?;
    let templates = args.templates.as_deref().map(templates).transpose()?;
    let mut classes = classes::find(&args.data.folder, args.data.classes.as_deref())?;
    classes.limit(options.limit, options.seed);
    let Classes {
        labels,
        files,
        of,
        mut failed,
    } = classes;
    let prompts = Prompts::new(labels.clone(), templates)?;
    let model = home::model(places)?;
    let templates = prompts.templates().to_vec();
    let space = model.spaces().shared();
    let texts = encode::texts("encoding names", prompts.texts(), &model)?;
    let head = prompts.head(space.clone(), &texts, model.scoring())?;

    let shared = |encoded: Encoded| Ok(encoded.shared);
    let pictures = encode::pictures(&files, &model, &mut failed, shared)?;
    let mut judged = Vec::with_capacity(pictures.rows.len());
    for (i, embedding) in pictures.places.into_iter().zip(pictures.rows) {
        let space = space.clone();
        let probabilities = head.probabilities(&Query { embedding, space })?;
        judged.push(Judged::new(&files[i], of[i], &probabilities));
    }
    let details = ZeroShot {
        classes: judged::details(&judged, &labels),
        templates,
    };
    let facts = [
        ("pictures", judged.len().to_string()),
        ("classes", labels.len().to_string()),
        ("templates", details.templates.len().to_string()),
    ];
    let data = args.data.folder.display().to_string();
    let mut report = Report::new("zero-shot", data, model.spaces(), options, details);
    report.metrics = judged::figures(&judged, labels.len(), options.seed);
    report.failed = failed;
    report.finish(options, &facts, |page| {
        judged::show(page, &judged, &labels, &report.details.classes);
    })
}

/// The wordings of a file, or those of CLIP.
fn templates(path: &Path) -> Result<Vec<String>> {
    if path.as_os_str() == CLIP {
        return Ok(Prompts::clip_templates());
    }
    let lines = fs_err::read_to_string(path).context("the templates cannot be read")?;
    let lines = lines.lines().map(str::trim).filter(|line| !line.is_empty());
    let templates: Vec<String> = lines.map(str::to_owned).collect();
    if templates.is_empty() {
        bail!("{} has no template: expected one a line", path.display());
    }
    Ok(templates)
}
