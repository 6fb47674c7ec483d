//! What a calibration is fitted on.
//!
//! A pair gives two cases: the query with its true item in the collection, and without. Pairs come
//! from the user, or else the collection suggests them: of the ten nearest items to a stored row
//! of the other modality, the one whose lead over its rivals is the largest is taken for the
//! row's partner. On 1,126 pictures and their descriptions (CLIP) that is right for 88 percent,
//! and what is fitted on them is as good as what is fitted on the true pairs. Where the texts have
//! nothing to do with the pictures the cases cannot be told apart as well; such a fit is not used.

use std::{
    num::NonZeroUsize,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::atomic::Ordering::SeqCst,
};

use embedding::{Aspect, Embedding, Modality};

use super::{
    calibration::{Calibration, CalibrationKind, CalibrationReport, Direction, Features, other},
    judge::{Asked, Judge, RIVAL_HITS, views},
    keeping,
    learning::{Case, learn},
    sample::Spread,
};
use crate::{
    EngineError, Item, ItemId,
    collection::Collection,
    error::panic_text,
    index::SearchParams,
    shard::{Found, View},
};

/// Items of each modality from which a collection calibrates itself.
pub(crate) const SELF_ITEMS: usize = 200;
/// Pairs of a direction that a fit needs.
const LEAST_PAIRS: usize = 50;
/// Pairs of a direction that are used at most.
const MOST_PAIRS: usize = 1024;
/// Rows of each modality that are asked for a partner.
const SELF_QUERIES: usize = 256;
impl Collection {
    /// Calibrates the confidence of hits: on pairs of a query item and its true item, of different
    /// modalities, or, without any, on pairs that the items suggest (which takes 200 items of each
    /// modality). Durable on return. Says how good the result is; a direction that nothing better
    /// was learnt about keeps what it had. A collection does the second by itself once it has the
    /// items, and again whenever they have doubled; pairs, once given, stay in force.
    ///
    /// # Errors
    /// When there are too few items or pairs, when an item of a pair is not there, when both are
    /// of one modality, or when the store fails.
    pub fn calibrate(
        &self,
        pairs: Option<&[(ItemId, ItemId)]>,
    ) -> Result<CalibrationReport, EngineError> {
        match pairs {
            Some(pairs) => self.fit_pairs(pairs)?,
            None => self.fit_itself()?,
        }
        Ok(self.calibration())
    }

    /// What the confidence of hits rests on.
    pub fn calibration(&self) -> CalibrationReport {
        self.confidence.calibration.read().report()
    }

    fn fit_pairs(&self, pairs: &[(ItemId, ItemId)]) -> Result<(), EngineError> {
        let mut cases: [Vec<Case>; 2] = [Vec::new(), Vec::new()];
        for (query, partner) in pairs {
            let (query, partner) = (self.expect_item(query)?, self.expect_item(partner)?);
            let to = other(query.modality);
            if partner.modality != to {
                let reason = format!(
                    "{} and {} are both of modality {}, expected a text and an image",
                    query.id, partner.id, query.modality
                );
                return Err(self.no_calibration(reason));
            }
            let of = &mut cases[usize::from(query.modality == Modality::Image)];
            if of.len() < MOST_PAIRS {
                let judge = self.judge(&query.shared, query.modality);
                of.extend(self.case(
                    &judge,
                    &query.shared,
                    partner.id.as_str(),
                    &views(self, to),
                )?);
            }
        }
        if cases.iter().all(|cases| cases.len() < LEAST_PAIRS) {
            let [texts, images] = cases.map(|cases| cases.len());
            let reason = format!(
                "{texts} pairs that start with a text and {images} that start with an image are \
                 of use, expected at least {LEAST_PAIRS} of one kind"
            );
            return Err(self.no_calibration(reason));
        }
        let fitted = Modality::ALL.into_iter().zip(&cases);
        let fitted = fitted.filter(|(_, cases)| cases.len() >= LEAST_PAIRS);
        let fitted = fitted.map(|(from, cases)| learn(from, CalibrationKind::Pairs, cases));
        self.keep(fitted.collect(), None)
    }

    fn fit_itself(&self) -> Result<(), EngineError> {
        let counts = self.modality_counts();
        if counts.0.min(counts.1) < SELF_ITEMS {
            let reason = format!(
                "it holds {} texts and {} images, expected at least {SELF_ITEMS} of each, or pairs",
                counts.0, counts.1
            );
            return Err(self.no_calibration(reason));
        }
        let mut fitted = Vec::new();
        for from in Modality::ALL {
            let calibration = self.confidence.calibration.read().clone();
            let known = calibration.direction(from);
            if known.is_some_and(|known| known.report.calibration == CalibrationKind::Pairs) {
                continue;
            }
            let cases = self.suggested(from)?;
            fitted.push(learn(from, CalibrationKind::SelfFitted, &cases));
        }
        self.keep(fitted, Some(counts))
    }

    /// Cases of pairs that the items suggest.
    fn suggested(&self, from: Modality) -> Result<Vec<Case>, EngineError> {
        let queries = self.confidence.sample(self, (from, Aspect::Shared));
        let views = views(self, other(from));
        let mut cases = Vec::new();
        for i in 0..queries.len().min(SELF_QUERIES) {
            if self.stopping.load(SeqCst) {
                return Err(self.no_calibration("the engine is closing".into()));
            }
            let Ok(query) = Embedding::normalized(queries.row(i).to_vec()) else {
                continue;
            };
            let judge = self.judge(&query, from);
            let Some(spread) = judge.spread(other(from)) else {
                continue;
            };
            let mut best: Option<(f32, String)> = None;
            for hit in nearest(&views, &query, RIVAL_HITS) {
                let lead = self
                    .features(&judge, &hit, spread)?
                    .and_then(|features| features.lead);
                if let Some(lead) = lead
                    && best.as_ref().is_none_or(|(most, _)| lead > *most)
                {
                    best = Some((lead, hit.id));
                }
            }
            if let Some((_, partner)) = best {
                cases.extend(self.case(&judge, &query, &partner, &views)?);
            }
        }
        Ok(cases)
    }

    /// What a query shows with its partner and without; `None` when there are too few items.
    fn case(
        &self,
        judge: &Judge,
        query: &Embedding,
        partner: &str,
        views: &[View],
    ) -> Result<Option<Case>, EngineError> {
        let Some(spread) = judge.spread(other(judge.from())) else {
            return Ok(None);
        };
        let nearest = nearest(views, query, 2);
        let first = nearest.first();
        let first_other = nearest.iter().find(|found| found.id != partner);
        let (Some(first), Some(first_other)) = (first, first_other) else {
            return Ok(None);
        };
        let present = self.features(judge, first, spread)?;
        let absent = if first.id == first_other.id {
            present
        } else {
            self.features(judge, first_other, spread)?
        };
        Ok(present.zip(absent).map(|(present, absent)| Case {
            spread,
            present: (present, first.id == partner),
            absent,
        }))
    }

    /// `None` for an item that was removed a moment ago, or does not read back: one of many.
    fn features(
        &self,
        judge: &Judge,
        hit: &Found<String>,
        spread: Spread,
    ) -> Result<Option<Features>, EngineError> {
        let item = match self.get(&ItemId::new(hit.id.as_str())?) {
            Err(EngineError::DamagedItem { .. }) => None,
            item => item?,
        };
        Ok(item.map(|item| judge.features(hit.score, Some(&item.shared), spread)))
    }

    fn judge(&self, query: &Embedding, from: Modality) -> Judge {
        let asked = Asked {
            embedding: query,
            aspect: Aspect::Shared,
            modality: Some(from),
        };
        Judge::new(self, asked)
    }

    fn expect_item(&self, id: &ItemId) -> Result<Item, EngineError> {
        let missing = || self.no_calibration(format!("there is no item {id}"));
        self.get(id)?.ok_or_else(missing)
    }

    fn no_calibration(&self, reason: String) -> EngineError {
        let collection = self.name.clone();
        EngineError::CannotCalibrate { collection, reason }
    }

    fn keep(
        &self,
        directions: Vec<Direction>,
        fitted_at: Option<(usize, usize)>,
    ) -> Result<(), EngineError> {
        // A collection that is deleted meanwhile must leave nothing behind.
        let _turn = self.declaring.take(&[()]).ok_or_else(|| self.gone())?;
        let mut calibration = Calibration::clone(&self.confidence.calibration.read());
        calibration.fingerprint = Some(self.spaces().fingerprint);
        calibration.fitted_at = fitted_at.or(calibration.fitted_at);
        for direction in directions {
            let known = calibration.direction(direction.report.from);
            let better = match known.map(|known| known.report.calibration) {
                // Pairs may have been given while the collection tried by itself.
                Some(CalibrationKind::Pairs) if fitted_at.is_some() => false,
                Some(CalibrationKind::SelfFitted) if fitted_at.is_none() => {
                    direction.model.is_some()
                }
                _ => true,
            };
            if better {
                calibration.set(direction);
            }
        }
        keeping::write(
            self.core.store.as_ref(),
            self.description.number,
            &calibration,
        )?;
        *self.confidence.calibration.write() = calibration.into();
        Ok(())
    }

    /// Texts and images.
    fn modality_counts(&self) -> (usize, usize) {
        let stats = self.stats();
        (stats.texts, stats.images)
    }

    /// Whether the collection should calibrate itself now: when it has the items for the first
    /// time, and when they have doubled since.
    pub(crate) fn wants_fit(&self) -> bool {
        if self.confidence.fitting.load(SeqCst) {
            return false;
        }
        let (texts, images) = self.modality_counts();
        if texts.min(images) < SELF_ITEMS {
            return false;
        }
        let calibration = self.confidence.calibration.read();
        let kind = |from| calibration.model(from).1;
        let by_pairs = Modality::ALL
            .into_iter()
            .all(|m| kind(m) == CalibrationKind::Pairs);
        let grown = calibration
            .fitted_at
            .is_none_or(|(then, and)| texts >= 2 * then || images >= 2 * and);
        grown && !by_pairs
    }
}

/// Has a collection calibrate itself, for the background thread.
pub(crate) fn fit_if_due(collection: &Collection) {
    collection.confidence.fitting.store(false, SeqCst);
    if !collection.wants_fit() {
        return;
    }
    // Hits keep the confidence that they had; the next write asks again.
    match catch_unwind(AssertUnwindSafe(|| collection.fit_itself())) {
        Ok(Ok(())) => {}
        Ok(Err(error)) if collection.stopping.load(SeqCst) => tracing::debug!("{error}"),
        Ok(Err(error)) => tracing::error!("{error}"),
        Err(panic) => tracing::error!("a calibration failed: {}", panic_text(panic.as_ref())),
    }
}

fn nearest(views: &[View], query: &Embedding, count: usize) -> Vec<Found<String>> {
    let Some(count) = NonZeroUsize::new(count) else {
        return Vec::new();
    };
    let params = SearchParams {
        ef_search: 4 * RIVAL_HITS,
    };
    let each = views.iter();
    let mut found: Vec<Found<String>> = each
        .flat_map(|view| view.search(query, count, params, false))
        .collect();
    found.sort_unstable_by(Found::rank);
    found.truncate(count.get());
    found
}
