//! Recall on pairs that training does not see, both ways, counted as `diptych eval retrieval` counts.

use std::collections::BTreeMap;

use candle_core::Tensor;
use embedding::Embedding;
use encoders::{Pixels, PreprocessConfig, TextTokenizer};
use engine::metrics::{image_retrieval_recall, recall_at_k, text_retrieval_recall};
use pairs::{Captioned, Skipped};
use rayon::prelude::*;

use super::decode;
use crate::{
    TrainingError,
    evaluate::{Space, encode},
    towers::Towers,
};

/// Where recall is measured.
const KS: [usize; 3] = [1, 5, 10];

/// Pictures that are in memory at once.
const PICTURES: usize = 64;

/// What is evaluated on.
pub struct Validation {
    /// The pairs.
    pub pairs: Vec<Captioned>,
    /// What the image tower wants to see.
    pub preprocess: PreprocessConfig,
}

/// What is measured.
pub struct Found {
    /// By name: those of `diptych eval retrieval`, `pictures` and `captions`.
    pub figures: BTreeMap<String, f64>,
    /// What could not be read.
    pub skipped: Vec<Skipped>,
    /// Pictures and their first captions.
    pub space: Space,
}

impl Validation {
    /// Embeds all pairs and counts.
    ///
    /// # Errors
    /// When none of the pictures can be read, or the network fails.
    pub fn measure(
        &self,
        towers: &Towers,
        tokenizer: &TextTokenizer,
        device: &candle_core::Device,
    ) -> Result<Found, TrainingError> {
        let (mut images, mut read, mut skipped) = (Vec::new(), Vec::new(), Vec::new());
        for part in self.pairs.chunks(PICTURES) {
            let prepared: Vec<_> = part
                .par_iter()
                .map(|pair| decode(pair).map(|picture| self.preprocess.prepare(&picture)))
                .collect();
            let mut pixels = Vec::new();
            for (pair, prepared) in part.iter().zip(prepared) {
                match prepared {
                    Ok(prepared) => {
                        read.push(pair);
                        pixels.push(prepared);
                    }
                    Err(failed) => skipped.push(failed),
                }
            }
            images.extend(encode(&pixels, |part| {
                let (height, width) = (part[0].height(), part[0].width());
                let values: Vec<f32> = part.iter().flat_map(Pixels::as_slice).copied().collect();
                let shape = (part.len(), 3, height, width);
                Ok(towers
                    .images(&Tensor::from_vec(values, shape, device)?)?
                    .shared)
            })?);
        }
        if let ([], [first, ..]) = (read.as_slice(), skipped.as_slice()) {
            return Err(TrainingError::Unreadable {
                unreadable: skipped.len(),
                read: skipped.len(),
                allowed: 0.0,
                last: format!("{}: {}", first.path, first.reason),
            });
        }
        let captions: Vec<&String> = read.iter().flat_map(|pair| &pair.captions).collect();
        let texts = encode(&captions, |part| {
            let ids = part.iter().map(|text| tokenizer.encode(text));
            let ids = ids
                .collect::<Result<Vec<_>, _>>()
                .map_err(|e| TrainingError::Tokenizer(e.into()))?;
            Ok(towers.texts(&ids)?.shared)
        })?;
        let counts = read.iter().map(|pair| pair.captions.len());
        let owners = counts
            .enumerate()
            .flat_map(|(i, n)| std::iter::repeat_n(i, n));
        let owners: Vec<usize> = owners.collect();
        let is_first = |i: &usize| *i == 0 || owners[*i] != owners[*i - 1];
        let firsts = (0..owners.len()).filter(is_first);
        Ok(Found {
            figures: figures(&images, &texts, &owners),
            skipped,
            space: Space {
                texts: firsts.map(|i| texts[i].clone()).collect(),
                images,
            },
        })
    }
}

/// Names of all recalls.
pub fn names() -> Vec<String> {
    let both = |k: usize| [image_retrieval_recall(k), text_retrieval_recall(k)];
    KS.into_iter().flat_map(both).collect()
}

/// Recall both ways; `owners` are the pictures of the texts, in order.
fn figures(images: &[Embedding], texts: &[Embedding], owners: &[usize]) -> BTreeMap<String, f64> {
    let mut of = vec![Vec::new(); images.len()];
    for (text, picture) in owners.iter().enumerate() {
        of[*picture].push(text);
    }
    let by_text = recall_at_k(texts, images, |text| vec![owners[text]], &KS);
    let by_image = recall_at_k(images, texts, |image| of[image].clone(), &KS);
    let mut figures = BTreeMap::from([
        ("pictures".to_owned(), images.len() as f64),
        ("captions".to_owned(), texts.len() as f64),
    ]);
    for (k, (by_text, by_image)) in KS.into_iter().zip(by_text.into_iter().zip(by_image)) {
        figures.insert(image_retrieval_recall(k), by_text);
        figures.insert(text_retrieval_recall(k), by_image);
    }
    figures
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two captions of the first picture: one finds it, the other finds the second picture.
    #[test]
    fn a_caption_looks_for_its_picture_and_a_picture_for_any_of_its_captions() {
        let unit = |x: f32, y: f32| Embedding::normalized(vec![x, y]).expect("has a direction");
        let images = [unit(1.0, 0.0), unit(0.0, 1.0)];
        let texts = [unit(1.0, 0.1), unit(0.1, 1.0), unit(0.2, 1.0)];
        let figures = figures(&images, &texts, &[0, 0, 1]);
        for (name, expected) in [
            ("image_retrieval_recall@1", 2.0 / 3.0),
            ("text_retrieval_recall@1", 0.5),
            ("text_retrieval_recall@5", 1.0),
            ("captions", 3.0),
        ] {
            assert!(
                (figures[name] - expected).abs() < 1e-12,
                "{name}: {figures:?}"
            );
        }
    }
}
