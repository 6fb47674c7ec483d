//! `diptych classify`: which of some labels fits.

use anyhow::{Context, Result, bail};
use engine::{Prompts, Query};
use serde::Serialize;

use crate::{
    args::{ClassifyArgs, Places},
    home, inputs, output,
};

#[derive(Debug, Serialize)]
struct Answer {
    model: String,
    templates: Vec<String>,
    predictions: Vec<Predicted>,
}

#[derive(Debug, Serialize)]
struct Predicted {
    label: String,
    score: f32,
    probability: f64,
}

/// Classifies and prints, best label first.
///
/// # Errors
/// When the input, a label or a template cannot be used.
pub fn run(places: &Places, args: &ClassifyArgs) -> Result<()> {
    let templates = Some(args.templates.clone()).filter(|given| !given.is_empty());
    let prompts = Prompts::new(labels(&args.labels), templates)?;
    let model = home::model(places)?;
    let encoded = match (&args.file, &args.text) {
        (Some(file), _) => inputs::encode_picture(file, &model)?,
        (None, Some(text)) => inputs::encode_text(text, &model)?,
        (None, None) => bail!("nothing to classify: name a file or give --text"),
    };
    let space = model.spaces().shared();
    let templates = prompts.templates().to_vec();
    let embeddings = inputs::shared_of_texts(prompts.texts(), &model, |_| ());
    let embeddings = embeddings.context("a label cannot be encoded")?;
    let head = prompts.head(space.clone(), &embeddings, model.scoring())?;
    let predictions = head.predict(&Query {
        embedding: encoded.shared,
        space,
    })?;
    let predictions: Vec<Predicted> = predictions
        .into_iter()
        .map(|p| Predicted {
            label: p.label,
            score: p.score.0,
            probability: p.probability,
        })
        .collect();
    if args.json {
        let model = model.spaces().model.clone();
        return Ok(output::json(&Answer {
            model,
            templates,
            predictions,
        })?);
    }
    let row = |p: &Predicted| {
        [
            p.label.clone(),
            format!("{:.3}", p.probability),
            format!("{:.3}", p.score),
        ]
    };
    let rows: Vec<_> = predictions.iter().map(row).collect();
    Ok(output::table(["label", "probability", "score"], &rows)?)
}

/// What stands between the commas, without the blanks around it.
fn labels(given: &[String]) -> Vec<String> {
    given.iter().map(|label| label.trim().to_owned()).collect()
}
