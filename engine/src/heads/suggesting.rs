//! Active learning: the items whose label would help a head most.

use std::{
    borrow::Cow,
    cmp::Ordering,
    collections::{BinaryHeap, HashMap, HashSet, hash_map::Entry},
};

use embedding::Modality;
use serde::{Deserialize, Serialize};

use super::KeptHead;
use crate::{EngineError, Filter, Head, ItemId, Prediction, collection::Collection, index::dot};

/// Items that are looked at, at most.
const MOST_LOOKED_AT: usize = 200_000;
/// Uncertain items for each one wanted, among which different ones are chosen.
const POOL: usize = 10;

/// How the items are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Strategy {
    /// Those whose two most probable labels are nearest to each other.
    #[default]
    Margin,
    /// Those whose probabilities are spread most evenly.
    Entropy,
    /// Those with a small margin that are least like each other.
    Diverse,
}

/// What is looked for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SuggestRequest<'a> {
    /// Items to suggest.
    pub k: usize,
    /// How they are chosen.
    pub strategy: Strategy,
    /// Which items may be.
    pub filter: Option<&'a Filter>,
}

/// Items to label next.
#[derive(Debug, Clone, PartialEq)]
pub struct Suggested {
    /// The most helpful first.
    pub items: Vec<Suggestion>,
    /// Items that could have been.
    pub looked_at: usize,
    /// Whether there were more of them than are looked at.
    pub is_cut_short: bool,
}

/// An item to label next.
#[derive(Debug, Clone, PartialEq)]
pub struct Suggestion {
    /// Which item.
    pub id: ItemId,
    /// How unsure the head is, from 0 to 1.
    pub uncertainty: f64,
    /// The labels, most probable first.
    pub predictions: Vec<Prediction>,
}

struct Unsure {
    uncertainty: f64,
    id: ItemId,
    modality: Modality,
    row: Vec<f32>,
}

impl Ord for Unsure {
    /// The least unsure is the greatest, so that a heap gives it away first.
    fn cmp(&self, other: &Self) -> Ordering {
        let by_uncertainty = other.uncertainty.total_cmp(&self.uncertainty);
        by_uncertainty.then_with(|| self.id.cmp(&other.id))
    }
}

impl PartialOrd for Unsure {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Unsure {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Unsure {}

impl Collection {
    /// The items whose label would help a head most: those it is unsure of, without those that it was
    /// learned from and those that have a label already in the field that it was learned from.
    ///
    /// # Errors
    /// When the head reads other embeddings, when the filter does not fit the declared fields, or when the
    /// store fails. Damaged items are left out.
    pub fn suggest(
        &self,
        kept: &KeptHead,
        request: &SuggestRequest<'_>,
    ) -> Result<Suggested, EngineError> {
        kept.head.inputs.check(self.spaces())?;
        let known: HashSet<&ItemId> = kept.about.example_ids.iter().collect();
        let pool = match request.strategy {
            Strategy::Diverse => request.k.saturating_mul(POOL),
            Strategy::Margin | Strategy::Entropy => request.k,
        };
        let mut unsure: BinaryHeap<Unsure> = BinaryHeap::new();
        let (mut looked_at, mut is_cut_short) = (0, false);
        let mut heads: HashMap<Modality, Cow<'_, Head>> = HashMap::new();
        for item in self.items_passing(request.filter, None)? {
            let item = match item {
                Ok((item, _)) => item,
                Err(EngineError::DamagedItem { .. }) => continue,
                Err(error) => return Err(error),
            };
            let field = kept.about.field.as_ref();
            let value = field.and_then(|field| item.payload.get(field));
            if known.contains(&item.id) || value.is_some_and(|value| !value.is_null()) {
                continue;
            }
            let inputs = &kept.head.inputs;
            let row = inputs.row(item.modality, &item.shared, item.specific.as_ref());
            let Some(row) = row else { continue };
            if looked_at == MOST_LOOKED_AT {
                is_cut_short = true;
                break;
            }
            looked_at += 1;
            let head = match heads.entry(item.modality) {
                Entry::Occupied(head) => head.into_mut(),
                Entry::Vacant(free) => free.insert(self.head_for(kept, item.modality)?),
            };
            let probabilities = head.row_probabilities(&row);
            let uncertainty = uncertainty(&probabilities, request.strategy, kept.about.multi_label);
            unsure.push(Unsure {
                uncertainty,
                id: item.id,
                modality: item.modality,
                row,
            });
            if unsure.len() > pool {
                unsure.pop();
            }
        }
        let mut chosen = unsure.into_sorted_vec();
        if request.strategy == Strategy::Diverse {
            chosen = different(chosen, request.k);
        }
        let suggestion = |unsure: Unsure| Suggestion {
            predictions: heads[&unsure.modality].predict_row(&unsure.row),
            id: unsure.id,
            uncertainty: unsure.uncertainty,
        };
        Ok(Suggested {
            items: chosen.into_iter().map(suggestion).collect(),
            looked_at,
            is_cut_short,
        })
    }
}

/// From 0, where the head is sure, to 1.
fn uncertainty(probabilities: &[f64], strategy: Strategy, multi_label: bool) -> f64 {
    let entropy = |p: f64| if p > 0.0 { -p * p.ln() } else { 0.0 };
    match (strategy, multi_label) {
        (Strategy::Entropy, false) => {
            let most = (probabilities.len().max(2) as f64).ln();
            probabilities.iter().map(|p| entropy(*p)).sum::<f64>() / most
        }
        (Strategy::Entropy, true) => {
            let of = |p: &f64| (entropy(*p) + entropy(1.0 - p)) / std::f64::consts::LN_2;
            probabilities.iter().map(of).sum::<f64>() / probabilities.len().max(1) as f64
        }
        (_, false) => {
            let (mut first, mut second) = (0.0, 0.0);
            for p in probabilities {
                if *p > first {
                    (first, second) = (*p, first);
                } else if *p > second {
                    second = *p;
                }
            }
            1.0 - (first - second)
        }
        (_, true) => {
            let from_even = probabilities.iter().map(|p| 2.0 * (p - 0.5).abs());
            1.0 - from_even.fold(1.0, f64::min)
        }
    }
}

/// One after another, the one that is at once most unsure and least like those before.
fn different(mut pool: Vec<Unsure>, k: usize) -> Vec<Unsure> {
    let mut chosen: Vec<Unsure> = Vec::with_capacity(k.min(pool.len()));
    // Cosine with the most similar one that was chosen.
    let mut nearest = vec![-1.0_f32; pool.len()];
    while chosen.len() < k && !pool.is_empty() {
        let worth = |i: usize| pool[i].uncertainty * f64::from(1.0 - nearest[i]);
        let best = (0..pool.len()).reduce(|best, i| if worth(i) > worth(best) { i } else { best });
        let Some(best) = best else { break };
        let next = pool.remove(best);
        nearest.remove(best);
        for (nearest, other) in nearest.iter_mut().zip(&pool) {
            *nearest = nearest.max(dot(&next.row, &other.row));
        }
        chosen.push(next);
    }
    chosen
}
