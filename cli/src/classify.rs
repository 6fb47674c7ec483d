//! `diptych classify`: which of some labels fits.

use anyhow::{Context, Result, bail};
use embedding::Embedding;
use encoders::Model;
use engine::{Head, Query};
use serde::Serialize;

use crate::{
    args::{ClassifyArgs, Places},
    home, inputs, output,
    pipeline::BATCH,
};

/// Where the label goes in a template.
const PLACEHOLDER: &str = "{}";

/// The bare label and the plainest sentence, as over HTTP.
const DEFAULT_TEMPLATES: [&str; 2] = [PLACEHOLDER, "a photo of {}"];

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
    let labels = labels(&args.labels)?;
    let model = home::model(places)?;
    let templates = templates(&args.templates)?;
    let encoded = match (&args.file, &args.text) {
        (Some(file), _) => inputs::encode_picture(file, &model)?,
        (None, Some(text)) => inputs::encode_text(text, &model)?,
        (None, None) => bail!("nothing to classify: name a file or give --text"),
    };
    let space = model.spaces().shared();
    let prompts = prompts(&labels, &templates, &model)?;
    let head = Head::zero_shot(space.clone(), labels, &prompts, model.logit_scale())?;
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

fn labels(given: &[String]) -> Result<Vec<String>> {
    let labels: Vec<String> = given.iter().map(|label| label.trim().to_owned()).collect();
    if labels.iter().any(String::is_empty) {
        bail!("a label is empty: write --labels cat,dog,bird");
    }
    for (i, label) in labels.iter().enumerate() {
        if labels[..i].contains(label) {
            bail!("the label {label:?} is given twice");
        }
    }
    Ok(labels)
}

fn templates(given: &[String]) -> Result<Vec<String>> {
    if let Some(bad) = given
        .iter()
        .find(|template| !template.contains(PLACEHOLDER))
    {
        bail!("the template {bad:?} needs {PLACEHOLDER} where the label goes");
    }
    let default = || DEFAULT_TEMPLATES.map(str::to_owned).to_vec();
    Ok(if given.is_empty() {
        default()
    } else {
        given.to_vec()
    })
}

/// Embeddings of every label in every template: `[labels][templates]`.
fn prompts(labels: &[String], templates: &[String], model: &Model) -> Result<Vec<Vec<Embedding>>> {
    let fill = |label: &String| {
        templates
            .iter()
            .map(|t| t.replace(PLACEHOLDER, label))
            .collect()
    };
    let texts: Vec<String> = labels
        .iter()
        .flat_map(|label| -> Vec<String> { fill(label) })
        .collect();
    let mut embeddings = Vec::with_capacity(texts.len());
    for batch in texts.chunks(BATCH) {
        let encoded = model
            .text()
            .encode(batch)
            .context("a label cannot be encoded")?;
        embeddings.extend(encoded.into_iter().map(|encoded| encoded.shared));
    }
    Ok(embeddings
        .chunks(templates.len())
        .map(<[Embedding]>::to_vec)
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_trimmed_and_must_be_distinct() {
        let given =
            |list: &[&str]| labels(&list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>());
        assert_eq!(given(&["cat", " dog "]).expect("fine"), ["cat", "dog"]);
        assert!(given(&["cat", " "]).is_err());
        assert!(given(&["cat", "cat "]).is_err());
    }

    #[test]
    fn a_template_has_one_place_for_the_label() {
        assert_eq!(templates(&[]).expect("the default"), DEFAULT_TEMPLATES);
        assert!(templates(&["a photo".into()]).is_err());
        assert!(templates(&["a photo of a {}".into()]).is_ok());
    }
}
