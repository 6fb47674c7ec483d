//! How well a collection knows that it has no answer, and how well a mixed list is ranked, on
//! pairs of anybody's.

#![allow(clippy::print_stdout, reason = "figures go to whoever started it")]

use std::{error::Error, num::NonZeroUsize, path::PathBuf, sync::Arc};

use benches::{read_npy, spaces};
use clap::Parser;
use embedding::{Embedding, Modality};
use engine::{
    CalibrationReport, Collection, DirectionReport, Engine, EngineConfig, Item, ItemId, Query,
    SearchRequest, Target,
};
use serde_json::json;

/// Hits of a mixed list among which the partner should be.
const FIRST: NonZeroUsize = NonZeroUsize::new(10).expect("not zero");

/// Measures confidence and mixed lists on pairs of images and texts
#[derive(Parser)]
struct Arguments {
    /// Embeddings of images, .npy, f32, [n, dim]
    images: PathBuf,
    /// Embeddings of texts; row i belongs to image i
    texts: PathBuf,
    /// Also write the figures here, as JSON
    #[arg(long)]
    json: Option<PathBuf>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let (images, texts) = (read_npy(&arguments.images)?, read_npy(&arguments.texts)?);
    let dim = images.first().map_or(0, Embedding::dim);
    if images.len() != texts.len() || texts.iter().any(|text| text.dim() != dim) {
        return Err(format!(
            "{} images of dim {dim} and {} texts of dim {}, expected as many of the same dim",
            images.len(),
            texts.len(),
            texts.first().map_or(0, Embedding::dim)
        )
        .into());
    }
    let engine = Engine::in_memory(EngineConfig::default());
    let collection = engine.create("pairs", &spaces(dim))?;
    for (modality, rows) in [(Modality::Image, &images), (Modality::Text, &texts)] {
        let items = rows
            .iter()
            .enumerate()
            .map(|(i, row)| Ok(Item::new(id(modality, i)?, modality, row.clone())));
        collection.upsert(items.collect::<Result<_, engine::EngineError>>()?)?;
    }
    let without_pairs = collection.calibrate(None)?;
    print("calibrated by itself", &without_pairs);
    let mut pairs = Vec::with_capacity(2 * images.len());
    for i in 0..images.len() {
        let (text, image) = (id(Modality::Text, i)?, id(Modality::Image, i)?);
        pairs.extend([(text.clone(), image.clone()), (image, text)]);
    }
    let with_pairs = collection.calibrate(Some(&pairs))?;
    print("calibrated on the pairs", &with_pairs);
    let of_texts = mixed(&collection, &texts, Modality::Image)?;
    let of_images = mixed(&collection, &images, Modality::Text)?;
    println!(
        "mixed list, partner among the first {FIRST}: text {of_texts:.3}, image {of_images:.3}"
    );
    if let Some(path) = arguments.json {
        let figures = json!({
            "pairs": images.len(),
            "calibrated_by_itself": without_pairs,
            "calibrated_on_the_pairs": with_pairs,
            "mixed_list_partner_among_first_10": { "text": of_texts, "image": of_images },
        });
        fs_err::write(path, serde_json::to_string_pretty(&figures)?)?;
    }
    Ok(())
}

fn id(modality: Modality, i: usize) -> Result<ItemId, engine::EngineError> {
    ItemId::new(format!("{modality}-{i:07}"))
}

/// Part of the queries whose partner, of modality `to`, is among the first of a list of both.
fn mixed(
    collection: &Arc<Collection>,
    queries: &[Embedding],
    to: Modality,
) -> Result<f64, Box<dyn Error>> {
    let mut found = 0;
    for (i, query) in queries.iter().enumerate() {
        let query = Query {
            embedding: query.clone(),
            space: collection.spaces().shared(),
        };
        let hits = collection.search(&SearchRequest::new(query, Target::Both, FIRST))?;
        let partner = id(to, i)?;
        found += usize::from(hits.iter().any(|hit| hit.id == partner));
    }
    Ok(found as f64 / queries.len().max(1) as f64)
}

fn print(title: &str, report: &CalibrationReport) {
    println!("{title}:");
    for direction in &report.directions {
        let DirectionReport {
            from, to, pairs, ..
        } = direction;
        let figure = |figure: Option<f64>| figure.map_or("-".into(), |x| format!("{x:.3}"));
        println!(
            "  {from} to {to}: roc auc {}, of the cosine {}, calibration error {} ({pairs} pairs, \
             {:?})",
            figure(direction.roc_auc),
            figure(direction.cosine_roc_auc),
            figure(direction.calibration_error),
            direction.calibration
        );
    }
}
