//! One search over the shards of a collection: each modality that is searched is a [`Leg`], which
//! gives its nearest items in order; their lists are merged (`merge`), and what is not wanted or
//! stands for the same thing is left out (`select`). When too few are left, the legs are asked for
//! more.

mod check;
mod compose;
mod leg;
mod merge;
mod mmr;
mod select;
mod sure;

use std::collections::HashMap;

use embedding::{Aspect, Modality};
use roaring::RoaringBitmap;

use self::{
    check::Checked,
    compose::Factors,
    leg::{Candidate, How, Leg, Side},
    select::Selection,
};
use crate::{
    Answer, EngineError, Explanation, Filter, ItemId, ItemMeta, Mix, Page, Plan, SearchRequest,
    ShardPlan, Way,
    audit::Answered,
    collection::Collection,
    filter,
    shard::{Found, ShardKey, View},
};

/// Items that a search looks at to fill groups, or to get past duplicates, in each leg.
const MAX_DEPTH: usize = 16_384;

/// How often a search begins again since a record was damaged. Then it leaves out what it finds
/// damaged: a store may be damaged all over.
const TRIES: usize = 8;

/// The answer to a request.
///
/// An open does not read the records of items under a segment, nor all rows of it. What is damaged
/// among them is noticed here at the latest: it is put right or put aside, and the search begins
/// again, so that nobody sees less than there is.
pub(crate) fn answer(
    collection: &Collection,
    request: &SearchRequest,
) -> Result<Answer, EngineError> {
    let checked = check::check(collection, request)?;
    let filter = filter_of(collection, request)?;
    let mut tries = 0;
    loop {
        let mut metas = Metas::new(collection, filter.as_ref());
        let Some(answer) = attempt(collection, request, &checked, &mut metas)? else {
            continue;
        };
        tries += 1;
        if !metas.met_damage || tries == TRIES {
            return Ok(answer);
        }
    }
}

/// One attempt at an answer; `None` when rows that it may have met were damaged. They are put right
/// then.
fn attempt(
    collection: &Collection,
    request: &SearchRequest,
    checked: &Checked,
    metas: &mut Metas<'_>,
) -> Result<Option<Answer>, EngineError> {
    let filter = metas.filter;
    // Before the filter is evaluated: an ordinal that changes hands between the two then belongs
    // to a row that is not looked at.
    let legs = legs(collection, request, checked)?;
    let matching = filter.map(|f| collection.matching(f));
    let matching: Option<RoaringBitmap> = matching.transpose()?;
    let how = How {
        ledger: &collection.audit,
        ef_search: request.ef_search,
        exact: request.exact,
        matching: matching.as_ref(),
        explain: request.explain,
        plan: None,
        parallel: true,
    };
    let judge = sure::judge(collection, request, checked.aspect);
    let mut depth = select::first_depth(request, legs.len());
    loop {
        let (found, plans): (Vec<_>, Vec<_>) =
            legs.iter().map(|leg| leg.nearest(depth, &how)).unzip();
        let ended = found.iter().all(|leg: &Vec<Candidate>| leg.len() < depth);
        let ranked = merge::merge(collection, &legs, &found);
        let judged = judge.as_ref().filter(|_| request.min_confidence.is_some());
        let confidences = judged.map(|judge| {
            let legs = legs.iter().zip(&found);
            legs.map(|(leg, found)| sure::confidences(judge, leg, found))
                .collect()
        });
        let selection = Selection {
            request,
            legs: &legs,
            found: &found,
            ranked: &ranked,
            confidences,
        };
        let selected = selection.select(metas)?;
        let beyond = selection.is_beyond_threshold();
        if !selected.is_filled && !ended && !beyond && depth < MAX_DEPTH.max(request.k.get()) {
            depth = depth.saturating_mul(2);
            continue;
        }
        let has_next = selected.is_full && !(ended && selected.took_all);
        let next = has_next.then(|| selection.cursor(&selected)).flatten();
        let hits = selection.hits(selected, metas, judge.as_ref());
        if !is_sound(collection, &legs)? {
            return Ok(None);
        }
        audit(collection, request, &how, (&legs, &found, &plans));
        let shards: Vec<ShardPlan> = plans.into_iter().flatten().collect();
        return Ok(Some(Answer {
            next,
            calibration: judge.as_ref().map(|judge| sure::calibration(judge, &legs)),
            hits,
            explanation: request.explain.then(|| Explanation {
                matching_items: matching.as_ref().map_or(0, RoaringBitmap::len),
                shards,
            }),
        }));
    }
}

/// Whether what was found in these shards counts. Where a row that a search may have met turned out
/// to be damaged it does not, and the shards are put right.
fn is_sound(collection: &Collection, legs: &[Leg]) -> Result<bool, EngineError> {
    let views = legs.iter().flat_map(Leg::views);
    let bad = views.filter(|(_, view)| view.bad_rows().next().is_some());
    let bad: Vec<ShardKey> = bad.map(|(key, _)| *key).collect();
    if !bad.is_empty() {
        collection.repair(&bad)?;
    }
    Ok(bad.is_empty())
}

/// Has what the legs found compared with the truth, when it is their turn.
fn audit(
    collection: &Collection,
    request: &SearchRequest,
    how: &How<'_>,
    (legs, found, plans): (&[Leg], &[Vec<Candidate>], &[Vec<ShardPlan>]),
) {
    if request.exact || request.mix.is_some() {
        return;
    }
    for ((leg, found), plans) in legs.iter().zip(found).zip(plans) {
        let found: Vec<Found<String>> = found
            .iter()
            .take(request.k.get())
            .map(Candidate::found)
            .collect();
        let answered = Answered {
            views: &leg.base.views,
            query: &leg.base.query,
            k: request.k,
            matching: how.matching.filter(|_| request.filter.is_some()),
            found: &found,
            walked: match how.matching {
                Some(_) => plans.iter().any(|plan| plan.plan == Plan::Graph),
                None => leg.base.has_graph(),
            },
            own_ef: request.ef_search.is_some(),
        };
        collection
            .audit
            .consider(&collection.core.audits, &answered);
    }
}

/// What a request finds, shard after shard, by this plan or by the one that it would choose.
pub(crate) fn by_plan(
    collection: &Collection,
    request: &SearchRequest,
    plan: Option<Plan>,
) -> Result<Way, EngineError> {
    let checked = check::check(collection, request)?;
    let everything = Filter::default();
    let filter = request.filter.as_ref().unwrap_or(&everything);
    let filter = collection.check_filter(filter)?;
    let legs = legs(collection, request, &checked)?;
    let matching = collection.matching(&filter)?;
    let how = How {
        ledger: &collection.audit,
        ef_search: request.ef_search,
        exact: request.exact,
        matching: Some(&matching),
        explain: false,
        plan,
        parallel: false,
    };
    let (mut found, mut shards) = (Vec::new(), Vec::new());
    for leg in &legs {
        let (of_leg, plans) = leg.nearest(request.k.get(), &how);
        found.extend(of_leg.into_iter().map(|found| (found.id, found.score)));
        shards.extend(plans);
    }
    Ok(Way { found, shards })
}

/// The request's filter; one that everything passes where the answer is to be explained.
fn filter_of(
    collection: &Collection,
    request: &SearchRequest,
) -> Result<Option<filter::checked::Checked>, EngineError> {
    let everything = Filter::default();
    let explained = request.explain.then_some(&everything);
    let filter = request.filter.as_ref().or(explained);
    filter.map(|f| collection.check_filter(f)).transpose()
}

/// The modalities that a request is about, with their shards as they all were at one moment.
fn legs(
    collection: &Collection,
    request: &SearchRequest,
    checked: &Checked,
) -> Result<Vec<Leg>, EngineError> {
    let state = collection.state.read();
    let views = |modality: Modality, aspect: Aspect| -> Vec<(ShardKey, View)> {
        let wanted = state
            .shards()
            .filter(|(key, _)| (key.modality, key.aspect) == (modality, aspect));
        wanted
            .map(|(key, shard)| (key, shard.view.clone()))
            .collect()
    };
    // Images first: where nothing else decides, they come before texts.
    let modalities = [Modality::Image, Modality::Text];
    let taken: Vec<_> = modalities
        .into_iter()
        .filter(|modality| checked.searches(request.target, *modality))
        .map(|modality| {
            let mix = request
                .mix
                .as_ref()
                .map(|mix| (mix, views(modality, Aspect::Specific(modality))));
            (modality, views(modality, checked.aspect), mix)
        })
        .collect();
    drop(state);
    let cursor = match &request.page {
        Page::After(cursor) => Some(cursor),
        Page::First | Page::Offset(_) => None,
    };
    let leg = |(modality, views, mix): (Modality, Vec<_>, Option<(_, Vec<_>)>)| {
        let passed = cursor.and_then(|c| c.legs.iter().find(|leg| leg.modality == modality));
        let sample = |aspect| collection.confidence.sample(collection, (modality, aspect));
        let of_base = || sample(checked.aspect);
        let factors = match passed {
            Some(passed) => Factors::Known(&passed.factors),
            None => Factors::Of(&of_base),
        };
        let base = Side::new(&request.parts, views, factors)?;
        let mix = mix.map(|(mix, views): (&Mix, _)| {
            let of_mix = || sample(Aspect::Specific(modality));
            let factors = match passed {
                Some(passed) => Factors::Known(&passed.mix_factors),
                None => Factors::Of(&of_mix),
            };
            Ok::<_, EngineError>((Side::new(&mix.parts, views, factors)?, mix.share))
        });
        Ok(Leg {
            modality,
            aspect: checked.aspect,
            base,
            mix: mix.transpose()?,
        })
    };
    taken.into_iter().map(leg).collect()
}

/// What the store says of found items, read once each.
struct Metas<'a> {
    collection: &'a Collection,
    /// What payloads must still pass.
    filter: Option<&'a filter::checked::Checked>,
    read: HashMap<String, Option<ItemMeta>>,
    /// Whether a record was damaged. Its item was put aside.
    met_damage: bool,
}

impl<'a> Metas<'a> {
    fn new(collection: &'a Collection, filter: Option<&'a filter::checked::Checked>) -> Self {
        Self {
            collection,
            filter,
            read: HashMap::new(),
            met_damage: false,
        }
    }

    /// The item; `None` when it was deleted a moment ago, or was changed and passes no more.
    fn get(&mut self, id: &str) -> Result<Option<&ItemMeta>, EngineError> {
        if !self.read.contains_key(id) {
            let meta = match self.collection.meta(id) {
                Err(EngineError::DamagedItem { .. }) => {
                    self.collection.put_aside(&ItemId::new(id)?)?;
                    self.met_damage = true;
                    None
                }
                meta => meta?,
            };
            let passes = |meta: &ItemMeta| self.filter.is_none_or(|f| f.passes(&meta.payload));
            self.read.insert(id.to_owned(), meta.filter(passes));
        }
        Ok(self.read.get(id).and_then(Option::as_ref))
    }

    /// Gives an item away.
    fn take(&mut self, id: &str) -> Option<ItemMeta> {
        self.read.remove(id).flatten()
    }
}
