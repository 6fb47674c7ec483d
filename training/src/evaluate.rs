//! Recall on styles that training never saw, while it runs.

use std::collections::BTreeMap;

use candle_core::Tensor;
use embedding::Embedding;
use encoders::{
    TextTokenizer,
    nn::{Form, NetworkConfig},
};
use engine::metrics::recall_at_k;
use serde::Serialize;

use crate::{
    TrainingError, captions::UNSEEN_CARRIERS, manifest::Concept, parameters::Parameters,
    towers::Towers,
};

/// Pairs that one pass takes.
const BATCH: usize = 256;

/// Text-to-image recall on the pictures of one style, names as queries.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StyleRecall {
    /// Number of pictures.
    pub pictures: usize,
    /// Share of names with their picture first, all pictures.
    pub recall_at_1: f64,
    /// Share within the first 10, all pictures.
    pub recall_at_10: f64,
    /// Share within the first 10, without skin-tone variants.
    pub base_recall_at_10: f64,
    /// The same with the names in carriers that training never uses.
    pub base_carrier_recall_at_10: f64,
}

/// Evaluates the running weights on each held-out style.
///
/// # Errors
/// When the network fails.
pub fn evaluate(
    parameters: &mut Parameters,
    network: &NetworkConfig,
    specific_dim: usize,
    tokenizer: &TextTokenizer,
    held_out: &BTreeMap<String, Vec<(Concept, Vec<f32>)>>,
) -> Result<BTreeMap<String, StyleRecall>, TrainingError> {
    let form = Form::Differentiable {
        batch_statistics: false,
    };
    let towers = Towers::new(parameters, network, specific_dim, form)?;
    let device = parameters.device();
    let side = network.image.image_size();
    held_out
        .iter()
        .map(|(style, concepts)| {
            let images = encode(concepts, |part| {
                let pixels: Vec<f32> = part.iter().flat_map(|(_, p)| p.iter().copied()).collect();
                let pixels = Tensor::from_vec(pixels, (part.len(), 3, side, side), device)?;
                Ok(towers.images(&pixels)?.shared)
            })?;
            let texts = |carrier: &str| {
                encode(concepts, |part| {
                    let ids = part
                        .iter()
                        .map(|(c, _)| tokenizer.encode(&carrier.replace("{}", &c.name)))
                        .collect::<Result<Vec<_>, _>>()
                        .map_err(|e| TrainingError::Tokenizer(e.into()))?;
                    Ok(towers.texts(&ids)?.shared)
                })
            };
            let names = texts("{}")?;
            let all: Vec<usize> = (0..concepts.len()).collect();
            let base: Vec<usize> = all
                .iter()
                .copied()
                .filter(|i| !concepts[*i].0.skin_tone)
                .collect();
            let mut carriers = 0.0;
            for carrier in UNSEEN_CARRIERS {
                carriers += recall(&texts(carrier)?, &images, &base, 10);
            }
            let found = StyleRecall {
                pictures: concepts.len(),
                recall_at_1: recall(&names, &images, &all, 1),
                recall_at_10: recall(&names, &images, &all, 10),
                base_recall_at_10: recall(&names, &images, &base, 10),
                base_carrier_recall_at_10: carriers / UNSEEN_CARRIERS.len() as f64,
            };
            Ok((style.clone(), found))
        })
        .collect()
}

/// Shared embeddings of all concepts, one pass per [`BATCH`].
fn encode(
    concepts: &[(Concept, Vec<f32>)],
    pass: impl Fn(&[(Concept, Vec<f32>)]) -> Result<Tensor, TrainingError>,
) -> Result<Vec<Embedding>, TrainingError> {
    let mut embeddings = Vec::with_capacity(concepts.len());
    for part in concepts.chunks(BATCH) {
        for row in pass(part)?.to_vec2::<f32>()? {
            embeddings.push(Embedding::normalized(row)?);
        }
    }
    Ok(embeddings)
}

/// Recall@k of some of the queries with their own pictures among the same some.
fn recall(queries: &[Embedding], gallery: &[Embedding], among: &[usize], k: usize) -> f64 {
    let part = |all: &[Embedding]| among.iter().map(|i| all[*i].clone()).collect::<Vec<_>>();
    recall_at_k(&part(queries), &part(gallery), |i| vec![i], &[k])[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recall_is_among_the_chosen_alone() {
        let at = |degrees: f32| {
            let angle = degrees.to_radians();
            Embedding::normalized(vec![angle.cos(), angle.sin()]).expect("a unit row")
        };
        // The second picture is nearest to every text, its own and the others'.
        let texts = [at(8.0), at(11.0), at(14.0)];
        let pictures = [at(0.0), at(11.0), at(22.0)];
        let share = |among: &[usize], k: usize| recall(&texts, &pictures, among, k);
        assert!((share(&[0, 1, 2], 1) - 1.0 / 3.0).abs() < 1e-9);
        assert!((share(&[0, 1, 2], 2) - 1.0).abs() < 1e-9);
        assert!((share(&[0, 2], 1) - 1.0).abs() < 1e-9);
        assert!((share(&[1, 2], 1) - 0.5).abs() < 1e-9);
    }
}
