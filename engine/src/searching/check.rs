//! What a request must be like.

use embedding::{Aspect, Modality, Space};

use super::mmr::MAX_CHOSEN;
use crate::{
    Cursor, EngineError, MAX_PARTS, Page, Part, SearchRequest, Target, collection::Collection,
};

/// What a good request says of the space that it is about.
pub(super) struct Checked {
    pub(super) aspect: Aspect,
}

impl Checked {
    /// Whether the items of a modality are searched.
    pub(super) fn searches(&self, target: Target, modality: Modality) -> bool {
        let in_space = match self.aspect {
            Aspect::Shared => true,
            Aspect::Specific(only) => only == modality,
        };
        in_space && target.includes(modality)
    }
}

/// Checks a request.
pub(super) fn check(
    collection: &Collection,
    request: &SearchRequest,
) -> Result<Checked, EngineError> {
    let target = request.target;
    let aspect = check_parts(collection, "parts", &request.parts)?;
    if let Aspect::Specific(modality) = aspect
        && !target.includes(modality)
    {
        return Err(EngineError::NoSuchTarget { aspect, target });
    }
    let checked = Checked { aspect };
    if let Some(mix) = &request.mix {
        let of_mix = check_parts(collection, "mix", &mix.parts)?;
        let fits = match (aspect, of_mix) {
            (Aspect::Shared, Aspect::Specific(Modality::Image)) => target == Target::Image,
            (Aspect::Shared, Aspect::Specific(Modality::Text)) => target == Target::Text,
            _ => false,
        };
        if !fits {
            let reason = format!(
                "the {aspect} space is mixed with the {of_mix} space to find {target} items; \
                 expected the shared space, and the specific one of the target"
            );
            return Err(bad("mix", reason));
        }
        check_range("mix", mix.share, "more than 0 and less than 1", |x| {
            x > 0.0 && x < 1.0
        })?;
    }
    let scores = [
        ("min_score", request.min_score),
        ("collapse", request.collapse),
    ];
    for (field, score) in scores {
        if let Some(score) = score {
            check_range(field, score.0, "-1 to 1", |x| (-1.0..=1.0).contains(&x))?;
        }
    }
    if let Some(least) = request.min_confidence {
        check_range("min_confidence", least, "0 to 1", |x| {
            (0.0..=1.0).contains(&x)
        })?;
        if request.parts.len() > 1 || request.mix.is_some() {
            let reason = "how sure a hit is can be told of one part in one space only";
            return Err(bad("min_confidence", reason));
        }
    }
    if let Some(diversity) = request.diversity {
        let expected = "more than 0 and at most 1";
        check_range("diversity", diversity, expected, |x| x > 0.0 && x <= 1.0)?;
        if request.k.get() > MAX_CHOSEN {
            let reason = format!(
                "it chooses at most {MAX_CHOSEN} hits, but k is {}",
                request.k
            );
            return Err(bad("diversity", reason));
        }
        if request.group_by.is_some() || request.page != Page::First {
            let reason = "it chooses among the best items as a whole: it goes neither with \
                          pages after the first nor with groups";
            return Err(bad("diversity", reason));
        }
    }
    if let Page::After(cursor) = &request.page {
        check_cursor(cursor, request, &checked)?;
    }
    Ok(checked)
}

/// Checks that all parts are of one space of the collection, and gives its aspect.
fn check_parts(
    collection: &Collection,
    field: &'static str,
    parts: &[Part],
) -> Result<Aspect, EngineError> {
    if parts.is_empty() || parts.len() > MAX_PARTS {
        let reason = format!("{} parts, expected 1 to {MAX_PARTS}", parts.len());
        return Err(bad(field, reason));
    }
    let mut aspects = parts.iter().map(|part| check_query(collection, part));
    let aspect = aspects.next().expect("there is a part")?;
    for other in aspects {
        let other = other?;
        if other != aspect {
            let reason = format!("parts of the {aspect} and of the {other} space do not add up");
            return Err(bad(field, reason));
        }
    }
    for weight in parts.iter().map(|part| part.weight) {
        let expected = "a finite number that is not 0";
        check_range("weight", weight, expected, |x| x.is_finite() && x != 0.0)?;
    }
    if parts.iter().all(|part| part.weight < 0.0) {
        let reason = "all weights are negative, expected one above 0: say also what to look for";
        return Err(bad("weight", reason));
    }
    Ok(aspect)
}

fn check_query(collection: &Collection, part: &Part) -> Result<Aspect, EngineError> {
    let (spaces, query) = (collection.spaces(), &part.query);
    let specific = |modality: &Modality| spaces.specific(*modality);
    let meets = |space: &Space| space.meets(&query.space);
    let meets_specific = |modality: &Modality| specific(modality).as_ref().is_some_and(meets);
    let aspect = if meets(&spaces.shared()) {
        Aspect::Shared
    } else if let Some(modality) = Modality::ALL.into_iter().find(meets_specific) {
        Aspect::Specific(modality)
    } else {
        return Err(EngineError::AnotherModel {
            collection: collection.name.clone(),
            made_by: spaces.shared().to_string(),
            got: query.space.to_string(),
        });
    };
    if query.embedding.dim() != query.space.dim {
        return Err(EngineError::WrongDim {
            collection: collection.name.clone(),
            aspect,
            expected: query.space.dim,
            got: query.embedding.dim(),
            what: "the query".into(),
        });
    }
    Ok(aspect)
}

/// A cursor comes from outside: it must be one that this very search could have given.
fn check_cursor(
    cursor: &Cursor,
    request: &SearchRequest,
    checked: &Checked,
) -> Result<(), EngineError> {
    let factors = |parts: &[Part]| if parts.len() == 1 { 0 } else { parts.len() };
    let mix = request.mix.as_ref();
    let fits = cursor.legs.iter().all(|leg| {
        checked.searches(request.target, leg.modality)
            && leg.factors.len() == factors(&request.parts)
            && leg.mix_factors.len() == mix.map_or(0, |mix| factors(&mix.parts))
            && leg
                .factors
                .iter()
                .chain(&leg.mix_factors)
                .all(|f| f.is_finite())
            && leg.last.as_ref().is_none_or(|(score, _)| score.is_finite())
    });
    let wanted = Modality::ALL
        .into_iter()
        .filter(|modality| checked.searches(request.target, *modality));
    let complete = wanted.clone().all(|modality| {
        cursor
            .legs
            .iter()
            .filter(|leg| leg.modality == modality)
            .count()
            == 1
    });
    if fits && complete {
        return Ok(());
    }
    let reason = "it is of another search: a cursor goes with the request that it came from";
    Err(bad("cursor", reason))
}

fn check_range(
    field: &'static str,
    value: f32,
    expected: &str,
    is_good: impl Fn(f32) -> bool,
) -> Result<(), EngineError> {
    if is_good(value) {
        return Ok(());
    }
    Err(bad(
        field,
        format!("{field} is {value}, expected {expected}"),
    ))
}

pub(super) fn bad(field: &'static str, reason: impl Into<String>) -> EngineError {
    EngineError::BadSearch {
        field,
        reason: reason.into(),
    }
}
