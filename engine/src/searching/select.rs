//! Which of the ranked candidates come back: none that is excluded, gone, or below the threshold;
//! one for all that are nearly the same; so many of each group; those of the page that was asked
//! for.

use std::collections::HashMap;

use serde_json::Value;

use super::{
    Metas,
    leg::{Candidate, Leg},
    merge::Ranked,
    mmr, sure,
};
use crate::{
    Cursor, EngineError, Hit, ItemId, ItemMeta, Page, SearchRequest,
    confidence::{fair::LEVEL_ROWS, judge::Judge},
    index::dot,
    request::Passed,
};

/// How many times more candidates than hits are looked at first, where several may become one.
const SEVERAL: usize = 3;

/// How many items of each modality are looked at first.
pub(super) fn first_depth(request: &SearchRequest, legs: usize) -> usize {
    let before = match &request.page {
        Page::First => 0,
        Page::Offset(offset) => *offset,
        Page::After(cursor) => cursor.legs.iter().map(|leg| leg.seen).max().unwrap_or(0),
    };
    let wanted = wanted(request).saturating_add(before);
    let joined = request.collapse.is_some() || request.group_by.is_some();
    let wanted = wanted.saturating_mul(if joined { SEVERAL } else { 1 });
    let wanted = wanted.saturating_add(request.exclude.len());
    let for_level = if legs > 1 { LEVEL_ROWS } else { 0 };
    let for_confidence = request.min_confidence.map_or(0, |_| sure::LEAST_DEPTH);
    wanted.max(for_level).max(for_confidence)
}

/// Hits to select, or groups of them; more than come back where diversity chooses among them.
fn wanted(request: &SearchRequest) -> usize {
    let k = request.k.get();
    request.diversity.map_or(k, |_| mmr::pool(k))
}

/// A search's candidates, and what is asked of them.
pub(super) struct Selection<'a> {
    pub(super) request: &'a SearchRequest,
    pub(super) legs: &'a [Leg],
    /// Of each leg, best first.
    pub(super) found: &'a [Vec<Candidate>],
    pub(super) ranked: &'a [Ranked],
    /// Of each leg's candidates, where there is a least confidence.
    pub(super) confidences: Option<Vec<Vec<Option<f32>>>>,
}

/// What is left of the candidates.
pub(super) struct Selected {
    groups: Vec<Group>,
    /// Whether there are as many groups as were asked for.
    pub(super) is_full: bool,
    /// Whether these have as many hits, too.
    pub(super) is_filled: bool,
    /// Whether no candidate was left for the next page.
    pub(super) took_all: bool,
}

/// Hits with a value in common; a hit alone where nothing is grouped.
struct Group {
    value: Option<Value>,
    hits: Vec<Kept>,
    /// Place of the first hit in the whole ranking.
    first: usize,
    /// Whether it comes back, and was not on an earlier page.
    is_shown: bool,
}

struct Kept {
    at: Ranked,
    duplicates: Vec<ItemId>,
}

/// The groups while they are filled.
#[derive(Default)]
struct Groups {
    all: Vec<Group>,
    by_value: HashMap<String, usize>,
    shown: usize,
}

impl Selection<'_> {
    /// Goes through the candidates, from the best on: also through those of earlier pages, since
    /// what they stand for must not come back on this one.
    pub(super) fn select(&self, metas: &mut Metas<'_>) -> Result<Selected, EngineError> {
        let request = self.request;
        let (wanted, per_group) = (wanted(request), self.per_group());
        let mut groups = Groups::default();
        // Each candidate that no better one is nearly the same as, with its place in the groups,
        // unless its group was full.
        let mut distinct: Vec<(Ranked, Option<(usize, usize)>)> = Vec::new();
        let mut skip = match request.page {
            Page::Offset(offset) => offset,
            Page::First | Page::After(_) => 0,
        };
        let joins = request.collapse.is_some() || request.group_by.is_some();
        let mut took_all = true;
        for (i, at) in self.ranked.iter().copied().enumerate() {
            let candidate = self.candidate(at);
            if request.min_score.is_some_and(|min| candidate.score < min)
                || self.is_unsure(at)
                || request.exclude.iter().any(|id| id.as_str() == candidate.id)
            {
                continue;
            }
            let is_passed = self.is_passed(at);
            if !joins && (is_passed || skip > 0) {
                skip -= usize::from(!is_passed);
                continue;
            }
            if let Some((_, place)) = distinct.iter().find(|(other, _)| self.same(at, *other)) {
                let place = place.filter(|(group, _)| groups.all[*group].is_shown);
                if let Some((group, hit)) = place {
                    let duplicates = &mut groups.all[group].hits[hit].duplicates;
                    duplicates.push(ItemId::new(candidate.id.clone())?);
                }
                continue;
            }
            let full = groups.shown == wanted;
            if full && groups.are_filled(per_group) {
                took_all = false;
                break;
            }
            let Some(meta) = metas.get(&candidate.id)? else {
                continue;
            };
            let value = self.value(meta);
            let key = value.as_ref().map(Value::to_string);
            let known = key
                .as_ref()
                .and_then(|key| groups.by_value.get(key).copied());
            let group = match known {
                Some(known) => known,
                None if full => {
                    took_all = false;
                    continue;
                }
                None => {
                    let is_shown = !is_passed && skip == 0;
                    skip -= usize::from(!is_passed && skip > 0);
                    groups.add(Group::new(value, i, is_shown), key)
                }
            };
            let hits = &mut groups.all[group].hits;
            let place = (hits.len() < per_group).then_some((group, hits.len()));
            if place.is_some() {
                let duplicates = Vec::new();
                hits.push(Kept { at, duplicates });
            }
            if request.collapse.is_some() {
                distinct.push((at, place));
            }
        }
        let is_full = groups.shown == wanted;
        Ok(Selected {
            is_full,
            is_filled: is_full && groups.are_filled(per_group),
            groups: groups.all,
            took_all,
        })
    }

    /// Whether all that follows scores less than what is asked for.
    pub(super) fn is_beyond_threshold(&self) -> bool {
        let min_score = self.request.min_score;
        let below = |(leg, found): (usize, &Vec<Candidate>)| {
            let Some(place) = found.len().checked_sub(1) else {
                return true;
            };
            let is_low = min_score.is_some_and(|min| found[place].score < min);
            is_low || (found.len() >= sure::LEAST_DEPTH && self.is_unsure(Ranked { leg, place }))
        };
        self.found.iter().enumerate().all(below)
    }

    /// Whether the candidate has less than the least confidence. Where nothing can be told, it has
    /// not.
    fn is_unsure(&self, at: Ranked) -> bool {
        let confidences = self.confidences.as_ref();
        let confidence = confidences.and_then(|legs| legs[at.leg][at.place]);
        let least = self.request.min_confidence;
        confidence
            .zip(least)
            .is_some_and(|(confidence, least)| confidence < least)
    }

    /// Where the next page starts.
    pub(super) fn cursor(&self, selected: &Selected) -> Option<Cursor> {
        if self.request.diversity.is_some() {
            return None;
        }
        let shown = selected.groups.iter().filter(|group| group.is_shown);
        let end = shown.map(|group| group.first).max()? + 1;
        let passed = |(i, leg): (usize, &Leg)| {
            let seen = self.ranked[..end].iter().filter(|at| at.leg == i).count();
            let last = seen.checked_sub(1).map(|place| &self.found[i][place]);
            let last = match last {
                Some(found) => Some((found.score.0, ItemId::new(found.id.clone()).ok()?)),
                None => None,
            };
            Some(Passed {
                modality: leg.modality,
                last,
                seen,
                factors: leg.base.factors.clone(),
                mix_factors: leg
                    .mix
                    .as_ref()
                    .map_or(Vec::new(), |mix| mix.0.factors.clone()),
            })
        };
        let legs = self
            .legs
            .iter()
            .enumerate()
            .map(passed)
            .collect::<Option<_>>()?;
        Some(Cursor { legs })
    }

    /// What comes back.
    pub(super) fn hits(
        &self,
        selected: Selected,
        metas: &mut Metas<'_>,
        judge: Option<&Judge>,
    ) -> Vec<Hit> {
        let shown = selected.groups.into_iter().filter(|group| group.is_shown);
        let kept = shown.flat_map(|Group { value, hits, .. }| {
            hits.into_iter().map(move |kept| (value.clone(), kept))
        });
        let mut kept: Vec<(Option<Value>, Kept)> = kept.collect();
        if let Some(diversity) = self.request.diversity {
            let chosen = self.diverse(&kept, diversity);
            let mut all: Vec<Option<_>> = kept.into_iter().map(Some).collect();
            kept = chosen.into_iter().filter_map(|i| all[i].take()).collect();
        }
        let confidences = self.confidences_of(&kept, judge);
        let hit = |(group, Kept { at, duplicates }): (Option<Value>, Kept)| {
            let candidate = self.candidate(at);
            let meta = metas.take(&candidate.id)?;
            let ItemMeta {
                id,
                version,
                modality,
                payload,
                source,
                text,
                ..
            } = meta;
            Some(Hit {
                id,
                version,
                modality,
                score: candidate.score,
                confidence: confidences[at.leg].get(at.place).copied().flatten(),
                payload,
                source,
                text,
                group,
                duplicates,
            })
        };
        kept.into_iter().filter_map(hit).collect()
    }

    /// Of each leg's candidates, up to the last of these.
    fn confidences_of(
        &self,
        kept: &[(Option<Value>, Kept)],
        judge: Option<&Judge>,
    ) -> Vec<Vec<Option<f32>>> {
        if let Some(confidences) = &self.confidences {
            return confidences.clone();
        }
        let of_leg = |(i, leg): (usize, &Leg)| {
            let of_leg = kept.iter().filter(|(_, kept)| kept.at.leg == i);
            let last = of_leg.map(|(_, kept)| kept.at.place + 1).max().unwrap_or(0);
            let found = &self.found[i][..last];
            judge.map_or(Vec::new(), |judge| sure::confidences(judge, leg, found))
        };
        self.legs.iter().enumerate().map(of_leg).collect()
    }

    /// Which of the hits, in which order.
    fn diverse(&self, kept: &[(Option<Value>, Kept)], diversity: f32) -> Vec<usize> {
        let at = |i: usize| kept[i].1.at;
        // Scores of different legs do not compare; places in one list do.
        let relevance: Vec<f32> = if self.legs.len() == 1 {
            let scores = (0..kept.len()).map(|i| self.candidate(at(i)).score.0);
            scores.collect()
        } else {
            (0..kept.len()).map(|i| -(i as f32)).collect()
        };
        let alike = |i: usize, j: usize| self.cosine(at(i), at(j));
        mmr::choose(&relevance, &alike, diversity, self.request.k.get())
    }

    fn candidate(&self, at: Ranked) -> &Candidate {
        &self.found[at.leg][at.place]
    }

    /// Whether the candidate was on an earlier page.
    fn is_passed(&self, at: Ranked) -> bool {
        let Page::After(cursor) = &self.request.page else {
            return false;
        };
        let modality = self.legs[at.leg].modality;
        let leg = cursor.legs.iter().find(|leg| leg.modality == modality);
        let Some((score, id)) = leg.and_then(|leg| leg.last.as_ref()) else {
            return false;
        };
        let candidate = self.candidate(at);
        let order = score.total_cmp(&candidate.score.0);
        order
            .then_with(|| candidate.id.as_str().cmp(id.as_str()))
            .is_le()
    }

    /// Whether two candidates are nearly the same.
    fn same(&self, one: Ranked, other: Ranked) -> bool {
        let Some(least) = self.request.collapse else {
            return false;
        };
        self.cosine(one, other)
            .is_some_and(|cosine| cosine >= least.0)
    }

    /// Cosine of two candidates of one modality.
    fn cosine(&self, one: Ranked, other: Ranked) -> Option<f32> {
        let leg = &self.legs[one.leg];
        let row = |at| leg.row(self.candidate(at));
        (one.leg == other.leg).then(|| dot(row(one), row(other)))
    }

    fn per_group(&self) -> usize {
        self.request.group_by.as_ref().map_or(1, |by| by.hits.get())
    }

    /// What the item is grouped by; `None` when it stands alone.
    fn value(&self, meta: &ItemMeta) -> Option<Value> {
        let by = self.request.group_by.as_ref()?;
        let value = match meta.payload.get(&by.field)? {
            Value::Array(values) => values.iter().find(|value| !value.is_null())?,
            value => value,
        };
        (!value.is_null()).then(|| value.clone())
    }
}

impl Groups {
    fn add(&mut self, group: Group, key: Option<String>) -> usize {
        let i = self.all.len();
        self.shown += usize::from(group.is_shown);
        self.all.push(group);
        if let Some(key) = key {
            self.by_value.insert(key, i);
        }
        i
    }

    /// Whether no group that comes back takes any more hits.
    fn are_filled(&self, per_group: usize) -> bool {
        if per_group == 1 {
            return true;
        }
        let mut shown = self.all.iter().filter(|group| group.is_shown);
        // An item without a value has no others beside it.
        shown.all(|group| group.value.is_none() || group.hits.len() == per_group)
    }
}

impl Group {
    fn new(value: Option<Value>, first: usize, is_shown: bool) -> Self {
        Self {
            value,
            hits: Vec::new(),
            first,
            is_shown,
        }
    }
}
