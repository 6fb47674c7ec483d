//! How sure the hits of a search are.

use embedding::{Aspect, Embedding};

use super::leg::{Candidate, Leg};
use crate::{
    CalibrationKind, SearchRequest,
    collection::Collection,
    confidence::judge::{self, Asked, Judge, RIVAL_HITS},
};

/// Candidates of a modality that are looked at before a least confidence can end a search: after
/// those whose rivals are looked for, confidence never rises.
pub(super) const LEAST_DEPTH: usize = RIVAL_HITS + 1;

/// What says how sure hits are; `None` where it is not asked, or cannot be told: a calibration is
/// about one thing that is looked for, by its cosine in one space.
pub(super) fn judge(
    collection: &Collection,
    request: &SearchRequest,
    aspect: Aspect,
) -> Option<Judge> {
    let wanted = request.confidence || request.min_confidence.is_some();
    let [part] = request.parts.as_slice() else {
        return None;
    };
    let asked = Asked {
        embedding: &part.query.embedding,
        aspect,
        modality: part.modality,
    };
    (wanted && request.mix.is_none()).then(|| Judge::new(collection, asked))
}

/// The confidence in each of a leg's candidates, from the first on.
pub(super) fn confidences(judge: &Judge, leg: &Leg, found: &[Candidate]) -> Vec<Option<f32>> {
    let read = if leg.modality == judge.from() {
        0
    } else {
        RIVAL_HITS
    };
    let rows: Vec<Option<Embedding>> = found
        .iter()
        .take(read)
        .map(|candidate| Embedding::new(leg.row(candidate).to_vec()).ok())
        .collect();
    let candidates = found.iter().enumerate().map(|(i, found)| judge::Candidate {
        score: found.score,
        embedding: rows.get(i).and_then(Option::as_ref),
    });
    judge.confidences(leg.modality, &candidates.collect::<Vec<_>>())
}

/// What the confidence of hits that are not of the query's own modality rests on.
pub(super) fn calibration(judge: &Judge, legs: &[Leg]) -> CalibrationKind {
    let other = legs.iter().find(|leg| leg.modality != judge.from());
    other.map_or(CalibrationKind::Default, |leg| {
        judge.calibration(leg.modality)
    })
}
