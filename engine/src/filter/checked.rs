//! Filters whose fields are declared and whose values are of the fields' kinds.

use std::{collections::BTreeSet, ops::Bound};

use super::{
    field::{Field, FieldKind, FieldSet},
    language::{Clause, Condition, Filter, Range, Test, at, bad},
    value::{self, PRESENT, VALUE},
};
use crate::{EngineError, Payload};

/// A filter that can be answered.
#[derive(Debug)]
pub(crate) struct Checked {
    pub(crate) must: Vec<Part>,
    pub(crate) should: Vec<Part>,
    pub(crate) must_not: Vec<Part>,
}

#[derive(Debug)]
pub(crate) enum Part {
    Filter(Checked),
    /// An item has an entry in any of these ranges.
    Within(Looked, Vec<Entries>),
    /// An item has a keyword with this in it, in lower case.
    Contains(Looked, String),
    /// An item has no value.
    Missing(Looked),
}

/// A field that is looked at.
#[derive(Debug)]
pub(crate) struct Looked {
    name: String,
    pub(crate) field: Field,
}

/// Entries from one to another, as bytes.
pub(crate) type Entries = (Bound<Vec<u8>>, Bound<Vec<u8>>);

/// The entries that are values, not marks.
pub(crate) fn all_values() -> Entries {
    (Bound::Included(vec![VALUE]), Bound::Unbounded)
}

/// Checks a filter against the fields of a collection.
pub(crate) fn check(filter: &Filter, fields: &FieldSet) -> Result<Checked, EngineError> {
    check_filter(filter, fields, "")
}

fn check_filter(filter: &Filter, fields: &FieldSet, path: &str) -> Result<Checked, EngineError> {
    let list = |key: &str, clauses: &[Clause]| -> Result<Vec<Part>, EngineError> {
        let parts = clauses.iter().enumerate().map(|(i, clause)| {
            let path = at(path, &format!("{key}[{i}]"));
            match clause {
                Clause::Filter(filter) => Ok(Part::Filter(check_filter(filter, fields, &path)?)),
                Clause::Condition(condition) => check_condition(condition, fields, &path),
            }
        });
        parts.collect()
    };
    Ok(Checked {
        must: list("must", &filter.must)?,
        should: list("should", &filter.should)?,
        must_not: list("must_not", &filter.must_not)?,
    })
}

fn check_condition(
    condition: &Condition,
    fields: &FieldSet,
    path: &str,
) -> Result<Part, EngineError> {
    let Condition { field: name, test } = condition;
    let Some(field) = fields.0.get(name).filter(|field| field.ready) else {
        return Err(bad(&at(path, "field"), undeclared(name, fields)));
    };
    let kind = field.kind;
    let looked = Looked {
        name: name.clone(),
        field: *field,
    };
    let entry = |value: &serde_json::Value, part: &str| {
        value::entry(kind, value).map_err(|wrong| {
            let value::WrongValue { value, expected } = wrong;
            let reason = format!("got {value}, but {name} is of kind {kind}: expected {expected}");
            bad(&at(path, part), reason)
        })
    };
    let only = |entry: Vec<u8>| (Bound::Included(entry.clone()), Bound::Included(entry));
    Ok(match test {
        Test::Eq(value) => Part::Within(looked, vec![only(entry(value, "eq")?)]),
        Test::In(values) => {
            let entries = values.iter().enumerate();
            let entries: BTreeSet<_> = entries
                .map(|(i, value)| entry(value, &format!("in[{i}]")))
                .collect::<Result<_, _>>()?;
            Part::Within(looked, entries.into_iter().map(only).collect())
        }
        Test::Exists(true) => Part::Within(looked, vec![only(PRESENT.to_vec())]),
        Test::Exists(false) => Part::Missing(looked),
        Test::Contains(_) if kind != FieldKind::Keyword => {
            let reason = format!("{name} is of kind {kind}, and only a keyword contains something");
            return Err(bad(&at(path, "contains"), reason));
        }
        Test::Contains(part) => Part::Contains(looked, part.to_lowercase()),
        Test::Range(_) if matches!(kind, FieldKind::Keyword | FieldKind::Bool) => {
            let reason = format!("{name} is of kind {kind}, which has no ranges");
            return Err(bad(path, reason));
        }
        Test::Range(Range { gt, gte, lt, lte }) => {
            let bound = |value: &Option<_>, part| {
                value.as_ref().map(|value| entry(value, part)).transpose()
            };
            let from = match (bound(gt, "gt")?, bound(gte, "gte")?) {
                (Some(entry), _) => Bound::Excluded(entry),
                (None, Some(entry)) => Bound::Included(entry),
                (None, None) => Bound::Included(vec![VALUE]),
            };
            let to = match (bound(lt, "lt")?, bound(lte, "lte")?) {
                (Some(entry), _) => Bound::Excluded(entry),
                (None, Some(entry)) => Bound::Included(entry),
                (None, None) => Bound::Unbounded,
            };
            Part::Within(looked, vec![(from, to)])
        }
    })
}

fn undeclared(name: &str, fields: &FieldSet) -> String {
    let declared = fields.ready();
    if declared.is_empty() {
        return format!("{name} is not a declared field; this collection declares none");
    }
    let listed = declared
        .iter()
        .map(|(name, kind)| format!("{name} ({kind})"));
    let listed: Vec<_> = listed.collect();
    format!(
        "{name} is not a declared field; declared are {}",
        listed.join(", ")
    )
}

impl Checked {
    /// Whether a payload passes, without any index.
    pub(crate) fn passes(&self, payload: &Payload) -> bool {
        let holds = |part: &Part| part.holds(payload);
        self.must.iter().all(holds)
            && (self.should.is_empty() || self.should.iter().any(holds))
            && !self.must_not.iter().any(holds)
    }
}

impl Part {
    fn holds(&self, payload: &Payload) -> bool {
        match self {
            Self::Filter(filter) => filter.passes(payload),
            Self::Within(looked, ranges) => looked
                .entries(payload)
                .iter()
                .any(|entry| ranges.iter().any(|range| is_within(range, entry))),
            Self::Contains(looked, part) => looked
                .entries(payload)
                .iter()
                .any(|entry| has_part(entry, part)),
            Self::Missing(looked) => looked.entries(payload).is_empty(),
        }
    }
}

impl Looked {
    fn entries(&self, payload: &Payload) -> BTreeSet<Vec<u8>> {
        // What is stored passed the same check when it came in.
        value::entries(self.field.kind, payload.get(&self.name)).unwrap_or_default()
    }
}

/// Whether an entry lies in a range.
pub(crate) fn is_within((from, to): &Entries, entry: &[u8]) -> bool {
    let after = match from {
        Bound::Included(from) => entry >= from.as_slice(),
        Bound::Excluded(from) => entry > from.as_slice(),
        Bound::Unbounded => true,
    };
    after && !is_beyond(to, entry)
}

/// Whether an entry comes after the end of a range.
pub(crate) fn is_beyond(to: &Bound<Vec<u8>>, entry: &[u8]) -> bool {
    match to {
        Bound::Included(to) => entry > to.as_slice(),
        Bound::Excluded(to) => entry >= to.as_slice(),
        Bound::Unbounded => false,
    }
}

/// Whether a keyword's entry has a part that is in lower case.
pub(crate) fn has_part(entry: &[u8], part: &str) -> bool {
    match entry.split_first() {
        Some((&VALUE, text)) => {
            std::str::from_utf8(text).is_ok_and(|text| text.to_lowercase().contains(part))
        }
        _ => false,
    }
}
