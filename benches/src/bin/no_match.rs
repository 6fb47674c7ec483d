//! How well a collection knows that it has no answer, and how well a mixed list is ranked, on
//! pairs of anybody's.
//!
//! Every second pair is for fitting. Each of the others asks twice, once with its partner in the
//! collection and once without; its own row is not there, all other rows are.

#![allow(clippy::print_stdout, reason = "figures go to whoever started it")]

use std::{error::Error, num::NonZeroUsize, path::PathBuf, sync::Arc};

use benches::{read_npy, spaces};
use clap::Parser;
use embedding::{Embedding, Modality};
use engine::{
    Collection, Engine, EngineConfig, EngineError, Hit, Item, ItemId, Query, SearchRequest, Target,
    metrics::{calibration_error, recall_at_k, roc_auc},
};
use serde_json::{Value, json};

/// Hits that are looked at.
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

/// Row i of one belongs to row i of the other.
struct Pairs {
    images: Vec<Embedding>,
    texts: Vec<Embedding>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let pairs = Pairs::read(&arguments)?;
    let engine = Engine::in_memory(EngineConfig::default());
    let dim = pairs.images.first().map_or(0, Embedding::dim);
    let collection = engine.create("pairs", &spaces(dim))?;
    for modality in Modality::ALL {
        let items = (0..pairs.images.len()).map(|i| pairs.item(modality, i));
        collection.upsert(items.collect::<Result<_, _>>()?)?;
    }
    // Before pairs are given: these stay in force.
    collection.calibrate(None)?;
    let by_itself = figures(&collection, &pairs, "calibrated by itself")?;
    let mut given = Vec::new();
    for i in (0..pairs.images.len()).step_by(2) {
        let (text, image) = (id(Modality::Text, i)?, id(Modality::Image, i)?);
        given.extend([(text.clone(), image.clone()), (image, text)]);
    }
    collection.calibrate(Some(&given))?;
    let by_pairs = figures(&collection, &pairs, "calibrated on pairs")?;
    let mut mixed = Vec::new();
    for from in Modality::ALL {
        let (fair, raw) = (pairs.mixed(&collection, from)?, pairs.raw(from));
        println!(
            "mixed list, {from} queries: partner in the first {FIRST} {fair:.3}, by cosine {raw:.3}"
        );
        mixed.push(json!({ "from": from, "partner_in_first_10": fair, "by_cosine": raw }));
    }
    if let Some(path) = arguments.json {
        let all = json!({
            "pairs": pairs.images.len(),
            "calibrated_by_itself": by_itself,
            "calibrated_on_pairs": by_pairs,
            "mixed": mixed,
        });
        fs_err::write(path, serde_json::to_string_pretty(&all)?)?;
    }
    Ok(())
}

impl Pairs {
    fn read(arguments: &Arguments) -> Result<Self, Box<dyn Error>> {
        let (images, texts) = (read_npy(&arguments.images)?, read_npy(&arguments.texts)?);
        let dim = |rows: &[Embedding]| rows.first().map_or(0, Embedding::dim);
        if images.len() != texts.len() || dim(&images) != dim(&texts) {
            let (image_dim, text_dim) = (dim(&images), dim(&texts));
            let (images, texts) = (images.len(), texts.len());
            return Err(format!(
                "{images} images of dim {image_dim} and {texts} texts of dim {text_dim}, expected \
                 as many of the same dim"
            )
            .into());
        }
        Ok(Self { images, texts })
    }

    fn rows(&self, modality: Modality) -> &[Embedding] {
        match modality {
            Modality::Text => &self.texts,
            Modality::Image => &self.images,
        }
    }

    fn item(&self, modality: Modality, i: usize) -> Result<Item, EngineError> {
        let row = self.rows(modality)[i].clone();
        Ok(Item::new(id(modality, i)?, modality, row))
    }

    fn search(
        &self,
        collection: &Collection,
        (from, i): (Modality, usize),
        target: Target,
    ) -> Result<Vec<Hit>, EngineError> {
        let query = Query {
            embedding: self.rows(from)[i].clone(),
            space: collection.spaces().shared(),
        };
        Ok(collection
            .search(&SearchRequest::new(query, target, FIRST))?
            .hits)
    }

    /// Part of the queries whose partner is among the first of a list of both.
    fn mixed(&self, collection: &Collection, from: Modality) -> Result<f64, EngineError> {
        let mut found = 0;
        for i in 0..self.images.len() {
            let partner = id(partner_of(from), i)?;
            let hits = self.search(collection, (from, i), Target::Both)?;
            found += usize::from(hits.iter().any(|hit| hit.id == partner));
        }
        Ok(f64::from(found as u32) / self.images.len().max(1) as f64)
    }

    /// The same for a list by cosine.
    fn raw(&self, from: Modality) -> f64 {
        let all = [self.rows(partner_of(from)), self.rows(from)].concat();
        recall_at_k(self.rows(from), &all, |i| vec![i], &[FIRST.get()])[0]
    }
}

/// What confidence is worth, each way.
fn figures(
    collection: &Arc<Collection>,
    pairs: &Pairs,
    title: &str,
) -> Result<Vec<Value>, EngineError> {
    let mut figures = Vec::new();
    for from in Modality::ALL {
        let to = partner_of(from);
        let target = match to {
            Modality::Text => Target::Text,
            Modality::Image => Target::Image,
        };
        // Of queries without their partner, and with it.
        let (mut first, mut surest, mut cosine) = (two(), two(), two());
        let mut predicted = Vec::new();
        for i in (1..pairs.images.len()).step_by(2) {
            let partner = id(to, i)?;
            collection.delete(&[id(from, i)?])?;
            for present in [true, false] {
                if !present {
                    collection.delete(std::slice::from_ref(&partner))?;
                }
                let hits = pairs.search(collection, (from, i), target)?;
                let sure = |hit: &Hit| f64::from(hit.confidence.unwrap_or_default());
                let Some(best) = hits.first() else { continue };
                let of = usize::from(present);
                first[of].push(sure(best));
                surest[of].push(hits.iter().map(sure).fold(0.0, f64::max));
                cosine[of].push(f64::from(best.score.0));
                predicted.push((sure(best), best.id == partner));
            }
            collection.upsert(vec![pairs.item(from, i)?, pairs.item(to, i)?])?;
        }
        let [first, surest, cosine] =
            [first, surest, cosine].map(|[absent, present]| roc_auc(&present, &absent));
        let error = calibration_error(&predicted);
        println!(
            "{title}, {from} to {to}: roc auc of the surest of ten hits {surest:.3}, of the first \
             {first:.3}, of its cosine {cosine:.3}; calibration error {error:.3}"
        );
        figures.push(json!({
            "from": from,
            "to": to,
            "queries": predicted.len(),
            "roc_auc_of_surest": surest,
            "roc_auc_of_first": first,
            "roc_auc_of_cosine": cosine,
            "calibration_error_of_first": error,
        }));
    }
    Ok(figures)
}

fn two() -> [Vec<f64>; 2] {
    [Vec::new(), Vec::new()]
}

fn partner_of(modality: Modality) -> Modality {
    match modality {
        Modality::Text => Modality::Image,
        Modality::Image => Modality::Text,
    }
}

fn id(modality: Modality, i: usize) -> Result<ItemId, EngineError> {
    ItemId::new(format!("{modality}-{i:07}"))
}
