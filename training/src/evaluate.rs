//! Recall on styles that training never saw, while it runs.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};
use embedding::Embedding;
use encoders::TextTokenizer;
use engine::metrics::{keyword_queries, recall_at_k};
use serde::Serialize;

use crate::{TrainingError, captions::UNSEEN_CARRIERS, manifest::Concept, towers::Towers};

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
    /// Share of [`keyword_queries`] with a picture that bears the keyword within the first 10, without
    /// skin-tone variants.
    pub keyword_hit_at_10: f64,
    /// As `base_recall_at_10`, by language of the translated names.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub languages: BTreeMap<String, f64>,
}

/// Shared embeddings of what was evaluated on, each picture and its words at the same place.
#[derive(Debug, Clone, Default)]
pub struct Space {
    /// Of pictures.
    pub images: Vec<Embedding>,
    /// Of their names or first captions.
    pub texts: Vec<Embedding>,
}

/// Recall by held-out style.
type Recall = BTreeMap<String, StyleRecall>;

/// Evaluates towers on each held-out style, whose pixels are `[3, side, side]`: recall by style, and the
/// embeddings of all.
///
/// # Errors
/// When the network fails.
pub fn evaluate(
    towers: &Towers,
    side: usize,
    tokenizer: &TextTokenizer,
    held_out: &BTreeMap<String, Vec<(Concept, Vec<f32>)>>,
    device: &Device,
) -> Result<(Recall, Space), TrainingError> {
    let encode_texts = |texts: &[String]| {
        encode(texts, |part| {
            let ids = part
                .iter()
                .map(|text| tokenizer.encode(text))
                .collect::<Result<Vec<_>, _>>()
                .map_err(|e| TrainingError::Tokenizer(e.into()))?;
            Ok(towers.texts(&ids)?.shared)
        })
    };
    let mut space = Space::default();
    let recall = held_out
        .iter()
        .map(|(style, concepts)| {
            let images = encode(concepts, |part| {
                let pixels: Vec<f32> = part.iter().flat_map(|(_, p)| p.iter().copied()).collect();
                let pixels = Tensor::from_vec(pixels, (part.len(), 3, side, side), device)?;
                Ok(towers.images(&pixels)?.shared)
            })?;
            let texts = |carrier: &str| {
                let names = concepts.iter().map(|(c, _)| carrier.replace("{}", &c.name));
                encode_texts(&names.collect::<Vec<_>>())
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
            let gallery: Vec<Embedding> = base.iter().map(|i| images[*i].clone()).collect();
            let share_of_hits = |queries: BTreeMap<&str, Vec<usize>>| {
                let texts: Vec<String> = queries.keys().map(|text| (*text).to_owned()).collect();
                let relevant: Vec<Vec<usize>> = queries.into_values().collect();
                let texts = encode_texts(&texts)?;
                let share = recall_at_k(&texts, &gallery, |i| relevant[i].clone(), &[10]);
                Ok::<f64, TrainingError>(share[0])
            };
            let base_concepts: Vec<&Concept> = base.iter().map(|i| &concepts[*i].0).collect();
            let english = base_concepts.iter().map(|c| (&c.name[..], &c.tags[..]));
            let languages = translated_names(&base_concepts).into_iter();
            let found = StyleRecall {
                pictures: concepts.len(),
                recall_at_1: recall(&names, &images, &all, 1),
                recall_at_10: recall(&names, &images, &all, 10),
                base_recall_at_10: recall(&names, &images, &base, 10),
                base_carrier_recall_at_10: carriers / UNSEEN_CARRIERS.len() as f64,
                keyword_hit_at_10: share_of_hits(keyword_queries(english))?,
                languages: languages
                    .map(|(language, names)| Ok((language.to_owned(), share_of_hits(names)?)))
                    .collect::<Result<_, TrainingError>>()?,
            };
            space.images.extend(images);
            space.texts.extend(names);
            Ok((style.clone(), found))
        })
        .collect::<Result<_, TrainingError>>()?;
    Ok((recall, space))
}

/// By language, its names and for each the positions of the concepts that bear it.
fn translated_names<'a>(
    concepts: &[&'a Concept],
) -> BTreeMap<&'a str, BTreeMap<&'a str, Vec<usize>>> {
    let mut names: BTreeMap<&str, BTreeMap<&str, Vec<usize>>> = BTreeMap::new();
    for (i, concept) in concepts.iter().enumerate() {
        for (language, words) in &concept.translations {
            let of_language = names.entry(language).or_default();
            of_language.entry(&words.name).or_default().push(i);
        }
    }
    names
}

/// Shared embeddings of all items, one pass per [`BATCH`].
pub(crate) fn encode<T>(
    items: &[T],
    pass: impl Fn(&[T]) -> Result<Tensor, TrainingError>,
) -> Result<Vec<Embedding>, TrainingError> {
    let mut embeddings = Vec::with_capacity(items.len());
    for part in items.chunks(BATCH) {
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
    use crate::words::Words;

    #[test]
    fn a_translated_name_is_asked_for_once_however_many_bear_it() {
        let concept = |words: &[(&str, &str)]| Concept {
            key: String::new(),
            name: String::new(),
            tags: Vec::new(),
            skin_tone: false,
            translations: words
                .iter()
                .map(|(language, name)| {
                    let name = (*name).to_owned();
                    (
                        (*language).to_owned(),
                        Words {
                            name,
                            tags: Vec::new(),
                        },
                    )
                })
                .collect(),
            pictures: Vec::new(),
        };
        let concepts = [
            concept(&[("de", "uhr"), ("nl", "klok")]),
            concept(&[]),
            concept(&[("de", "uhr"), ("nl", "uhr")]),
        ];
        let names = translated_names(&concepts.each_ref());
        assert_eq!(names.keys().copied().collect::<Vec<_>>(), ["de", "nl"]);
        assert_eq!(names["de"], BTreeMap::from([("uhr", vec![0, 2])]));
        let dutch = BTreeMap::from([("klok", vec![0]), ("uhr", vec![2])]);
        assert_eq!(names["nl"], dutch);
    }

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
