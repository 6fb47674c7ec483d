//! What one query's hits are worth.

use std::{
    collections::HashSet,
    num::NonZeroUsize,
    sync::{Arc, OnceLock},
};

use embedding::{Aspect, Embedding, Modality};

use super::{
    calibration::{CalibrationKind, Features, Model, other},
    sample::{LEAST_ROWS, Sample, Spread},
};
use crate::{
    Score,
    collection::Collection,
    index::SearchParams,
    shard::{Found, View},
};

/// First hits of the other modality whose rivals are looked for, one search each. A later hit is
/// never given more confidence than any of these.
pub(crate) const RIVAL_HITS: usize = 10;
/// From this cosine on an item is the query itself in other words, and no rival of it.
const TWIN_COSINE: f32 = 0.985;
/// Twins of a query that are known at most.
const MOST_TWINS: usize = 16;
/// Candidates kept while a rival is looked for: a near rival is as good as the nearest.
const RIVAL_EF: usize = 48;
/// Cosine from which two embeddings are the same but for rounding.
const IDENTICAL_COSINE: f32 = 0.9999;

/// A query.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked<'a> {
    pub(crate) embedding: &'a Embedding,
    pub(crate) aspect: Aspect,
    /// What the query is; `None` to tell it by where its embedding lies.
    pub(crate) modality: Option<Modality>,
}

/// A found item.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Candidate<'a> {
    pub(crate) score: Score,
    /// Its embedding in the query's space. Needed of the first [`RIVAL_HITS`] of the other
    /// modality, and not looked at else.
    pub(crate) embedding: Option<&'a Embedding>,
}

/// Sees the hits of one query among everything that the collection holds.
pub(crate) struct Judge {
    query: Embedding,
    aspect: Aspect,
    from: Modality,
    /// The query's cosines with samples.
    texts: Compared,
    images: Compared,
    /// Model and where it comes from, for hits of the other modality.
    model: (Model, CalibrationKind),
    /// Where rivals are: items of the query's modality.
    rivals: Vec<View>,
    /// Items that are the query itself in other words; looked for when the first rival is.
    twins: OnceLock<HashSet<String>>,
}

/// A query's cosines with a sample.
#[derive(Debug, Clone, Copy)]
struct Compared {
    spread: Option<Spread>,
    /// Items that the sample is of.
    population: usize,
}

impl Judge {
    /// Compares the query with samples of the collection.
    pub(crate) fn new(collection: &Collection, asked: Asked<'_>) -> Self {
        let Asked {
            embedding: query,
            aspect,
            modality,
        } = asked;
        let confidence = &collection.confidence;
        let sample = |modality| match aspect {
            Aspect::Specific(only) if only != modality => None,
            _ => Some(confidence.sample(collection, (modality, aspect))),
        };
        let (texts, images) = (sample(Modality::Text), sample(Modality::Image));
        let from = match (aspect, modality) {
            (Aspect::Specific(modality), _) | (Aspect::Shared, Some(modality)) => modality,
            (Aspect::Shared, None) => guess(query, texts.as_deref(), images.as_deref()),
        };
        let compare = |sample: Option<&Arc<Sample>>| Compared {
            spread: sample.and_then(|sample| Spread::of(&sample.cosines(query.as_slice()))),
            population: sample.map_or(0, |sample| sample.population),
        };
        let mut judge = Self {
            query: query.clone(),
            aspect,
            from,
            texts: compare(texts.as_ref()),
            images: compare(images.as_ref()),
            model: confidence.calibration.read().model(from),
            rivals: Vec::new(),
            twins: OnceLock::new(),
        };
        let (own, hits) = (*judge.compared(from), *judge.compared(other(from)));
        if judge.model.1 == CalibrationKind::Default && 2 * own.population < hits.population {
            // The partners of most hits are not stored, and a hit without one has a lead that the
            // default coefficients take for a match.
            judge.model.0.full = None;
        }
        if aspect == Aspect::Shared && own.population >= LEAST_ROWS {
            judge.rivals = views(collection, from);
        }
        judge
    }

    /// What the query is taken for.
    pub(crate) fn from(&self) -> Modality {
        self.from
    }

    /// How the query's cosines with this modality lie; `None` when the collection has too few
    /// items to tell.
    pub(crate) fn spread(&self, to: Modality) -> Option<Spread> {
        self.compared(to).spread
    }

    /// Where the confidence of hits of this modality comes from.
    pub(crate) fn calibration(&self, to: Modality) -> CalibrationKind {
        if to == self.from {
            CalibrationKind::Default
        } else {
            self.model.1
        }
    }

    /// The confidence in each hit, all of one modality, from the first on, best first. `None` where
    /// the collection has too few items to tell. What a hit gets does not depend on those after it.
    pub(crate) fn confidences(&self, to: Modality, hits: &[Candidate<'_>]) -> Vec<Option<f32>> {
        if to == self.from {
            return hits
                .iter()
                .map(|hit| self.among_its_own(hit.score))
                .collect();
        }
        let Some(spread) = self.spread(to) else {
            return vec![None; hits.len()];
        };
        let has_lead = self.model.0.full.is_some();
        let mut least: f64 = 1.0;
        let each = hits.iter().enumerate().map(|(i, hit)| {
            let embedding = hit.embedding.filter(|_| i < RIVAL_HITS && has_lead);
            let features = self.features(hit.score, embedding, spread);
            let mut probability = self.model.0.probability(&features);
            if i < RIVAL_HITS {
                least = least.min(probability);
            } else {
                probability = probability.min(least);
            }
            Some(probability as f32)
        });
        each.collect()
    }

    /// What a hit of the other modality shows.
    pub(crate) fn features(
        &self,
        score: Score,
        embedding: Option<&Embedding>,
        spread: Spread,
    ) -> Features {
        let rival = embedding.and_then(|hit| {
            let twins = self.twins.get_or_init(|| {
                let nearest = self.nearest_rivals(&self.query, MOST_TWINS).into_iter();
                let twins = nearest.filter(|found| found.score.0 >= TWIN_COSINE);
                twins.map(|found| found.id).collect()
            });
            let nearest = self.nearest_rivals(hit, twins.len() + 1);
            nearest.into_iter().find(|rival| !twins.contains(&rival.id))
        });
        Features {
            cosine: score.0,
            standing: spread.standing(score.0),
            lead: rival.map(|rival| (score.0 - rival.score.0) / spread.deviation),
        }
    }

    /// How far the score stands out of what the best of so many unrelated items would reach:
    /// `sqrt(2 ln n)` deviations, if they were normal.
    fn among_its_own(&self, score: Score) -> Option<f32> {
        if score.0 >= IDENTICAL_COSINE {
            return Some(1.0);
        }
        let Compared { spread, population } = *self.compared(self.from);
        let expected = (2.0 * (population.max(1) as f32).ln()).sqrt();
        Some(1.0 / (1.0 + (expected - spread?.standing(score.0)).exp()))
    }

    fn nearest_rivals(&self, to: &Embedding, count: usize) -> Vec<Found<String>> {
        debug_assert_eq!(
            self.aspect,
            Aspect::Shared,
            "rivals are of another modality"
        );
        let Some(count) = NonZeroUsize::new(count) else {
            return Vec::new();
        };
        let params = SearchParams {
            ef_search: RIVAL_EF,
        };
        let each = self.rivals.iter();
        let mut found: Vec<Found<String>> = each
            .flat_map(|view| view.search(to, count, params, false))
            .collect();
        found.sort_unstable_by(Found::rank);
        found.truncate(count.get());
        found
    }

    fn compared(&self, modality: Modality) -> &Compared {
        match modality {
            Modality::Text => &self.texts,
            Modality::Image => &self.images,
        }
    }
}

/// The shards of a modality in the shared space, as they are now.
pub(super) fn views(collection: &Collection, modality: Modality) -> Vec<View> {
    let state = collection.state.read();
    let shards = state.shards();
    let of = shards.filter(|(key, _)| (key.modality, key.aspect) == (modality, Aspect::Shared));
    of.map(|(_, shard)| shard.view.clone()).collect()
}

/// What a query in the shared space probably is. The modalities lie apart there, and a query lies
/// among the items of its own: on CLIP embeddings they are a dozen deviations apart.
fn guess(query: &Embedding, texts: Option<&Sample>, images: Option<&Sample>) -> Modality {
    /// Deviations from the mean within which a query belongs to a modality that is alone.
    const FAR: f32 = 5.0;
    let belonging = |sample: Option<&Sample>| sample.and_then(|s| s.belonging(query.as_slice()));
    match (belonging(texts), belonging(images)) {
        (Some(text), Some(image)) if image > text => Modality::Image,
        (None, Some(image)) if image > -FAR => Modality::Image,
        (Some(text), None) if text < -FAR => Modality::Image,
        _ => Modality::Text,
    }
}
