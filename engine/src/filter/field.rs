//! Which fields of payloads a collection indexes.

use std::{collections::BTreeMap, fmt, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::EngineError;

/// Most fields of a collection.
pub const MAX_FIELDS: usize = 64;
/// Greatest number of a field that is believed: from there on as many more can be counted.
pub(crate) const LAST_NUMBER: u16 = u16::MAX - MAX_FIELDS as u16 - 1;
/// Longest name of a field, in bytes of UTF-8.
pub const MAX_FIELD_NAME_BYTES: usize = 128;

/// What the values of a field are. An item may also have an array of them, and matches a condition
/// when any element does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FieldKind {
    /// A string, compared whole and byte by byte; `contains` finds parts of it, whatever the case.
    Keyword,
    /// A whole number that fits `i64`.
    Integer,
    /// A number, kept as `f64`.
    Float,
    /// `true` or `false`.
    Bool,
    /// A string as RFC 3339 writes times, kept in microseconds.
    Datetime,
}

impl FieldKind {
    /// One value of this kind, in words.
    pub(crate) fn expected(self) -> &'static str {
        match self {
            Self::Keyword => "a string",
            Self::Integer => "a whole number between -2^63 and 2^63 - 1",
            Self::Float => "a number",
            Self::Bool => "true or false",
            Self::Datetime => "a time as in RFC 3339, such as \"2024-05-01T12:30:00Z\"",
        }
    }
}

impl fmt::Display for FieldKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Keyword => "keyword",
            Self::Integer => "integer",
            Self::Float => "float",
            Self::Bool => "bool",
            Self::Datetime => "datetime",
        })
    }
}

/// The fields of payloads that filters may name, by name: at most [`MAX_FIELDS`], each of 1 to
/// [`MAX_FIELD_NAME_BYTES`] bytes without control characters. Other parts of a payload are stored
/// and come back, but are not looked into.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    try_from = "BTreeMap<String, FieldKind>",
    into = "BTreeMap<String, FieldKind>"
)]
pub struct Fields(BTreeMap<String, FieldKind>);

impl Fields {
    /// Takes names and kinds; of several with one name the last counts.
    ///
    /// # Errors
    /// When a name is not allowed, or there are too many.
    pub fn new<N: Into<String>>(
        fields: impl IntoIterator<Item = (N, FieldKind)>,
    ) -> Result<Self, EngineError> {
        let fields = fields.into_iter().map(|(name, kind)| (name.into(), kind));
        Self::try_from(fields.collect::<BTreeMap<_, _>>())
    }

    /// Names and kinds, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, FieldKind)> {
        self.0.iter().map(|(name, kind)| (name.as_str(), *kind))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl TryFrom<BTreeMap<String, FieldKind>> for Fields {
    type Error = EngineError;

    fn try_from(fields: BTreeMap<String, FieldKind>) -> Result<Self, Self::Error> {
        check_count(fields.len())?;
        for name in fields.keys() {
            let reason = if name.is_empty() {
                "it is empty"
            } else if name.len() > MAX_FIELD_NAME_BYTES {
                "it is longer than 128 bytes"
            } else if name.chars().any(char::is_control) {
                "it has control characters"
            } else {
                continue;
            };
            return Err(EngineError::BadField {
                name: name.chars().take(64).collect(),
                reason,
            });
        }
        Ok(Self(fields))
    }
}

impl From<Fields> for BTreeMap<String, FieldKind> {
    fn from(fields: Fields) -> Self {
        fields.0
    }
}

fn check_count(count: usize) -> Result<(), EngineError> {
    if count <= MAX_FIELDS {
        return Ok(());
    }
    Err(EngineError::TooManyFields {
        count,
        most: MAX_FIELDS,
    })
}

/// A declared field, as the description of its collection keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Field {
    /// Stands for the field in the keys of the store; never changes.
    pub(crate) number: u16,
    pub(crate) kind: FieldKind,
    /// Whether the items that were there before the field are in its index.
    #[serde(skip, default = "ready")]
    pub(crate) ready: bool,
}

/// What is written down is ready: a field is written down when its index is complete.
fn ready() -> bool {
    true
}

/// The declared fields of a collection, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct FieldSet(pub(crate) BTreeMap<String, Field>);

impl FieldSet {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Those that filters may name.
    pub(crate) fn ready(&self) -> Fields {
        let ready = self.0.iter().filter(|(_, field)| field.ready);
        Fields(ready.map(|(name, f)| (name.clone(), f.kind)).collect())
    }

    /// The fields with those of `more` that are new, not yet ready, and the numbers of these.
    pub(crate) fn with(
        &self,
        collection: &str,
        more: &Fields,
    ) -> Result<(Arc<Self>, Vec<u16>), EngineError> {
        let mut all = self.clone();
        let mut next = self.0.values().map(|f| f.number + 1).max().unwrap_or(0);
        let mut numbers = Vec::new();
        for (name, kind) in more.iter() {
            match self.0.get(name) {
                Some(there) if there.kind == kind => {}
                Some(there) => {
                    return Err(EngineError::AnotherKind {
                        collection: collection.to_owned(),
                        field: name.to_owned(),
                        declared: there.kind,
                        got: kind,
                    });
                }
                None => {
                    let field = Field {
                        number: next,
                        kind,
                        ready: false,
                    };
                    all.0.insert(name.to_owned(), field);
                    numbers.push(next);
                    next += 1;
                }
            }
        }
        check_count(all.0.len())?;
        Ok((Arc::new(all), numbers))
    }

    /// The fields, all of them ready.
    pub(crate) fn all_ready(&self) -> Self {
        let mut all = self.clone();
        all.0.values_mut().for_each(|field| field.ready = true);
        all
    }

    /// Whether each field has a number of its own, and there are some for as many more as there can
    /// be.
    pub(crate) fn has_good_numbers(&self) -> bool {
        let mut numbers: Vec<u16> = self.0.values().map(|field| field.number).collect();
        numbers.sort_unstable();
        let last = numbers.last().copied().unwrap_or(0);
        numbers.is_sorted_by(|a, b| a < b) && last <= LAST_NUMBER
    }

    /// Whether a number stands for a field.
    pub(crate) fn has(&self, number: u16) -> bool {
        self.0.values().any(|field| field.number == number)
    }

    /// The name behind a number, for messages.
    pub(crate) fn name(&self, number: u16) -> &str {
        let found = self.0.iter().find(|(_, field)| field.number == number);
        found.map_or("(not declared)", |(name, _)| name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_of_fields_have_limits() {
        assert!(Fields::new([("a", FieldKind::Bool), ("\u{e9} b", FieldKind::Float)]).is_ok());
        for bad in ["", "a\nb", &"x".repeat(MAX_FIELD_NAME_BYTES + 1)] {
            let refused = Fields::new([(bad, FieldKind::Bool)]);
            assert!(matches!(refused, Err(EngineError::BadField { .. })));
        }
        let many = |n: usize| Fields::new((0..n).map(|i| (i.to_string(), FieldKind::Bool)));
        let first = many(MAX_FIELDS).expect("as many as there may be");
        assert!(matches!(
            many(MAX_FIELDS + 1),
            Err(EngineError::TooManyFields { count: 65, .. })
        ));
        let (set, numbers) = FieldSet::default().with("c", &first).expect("fits");
        assert_eq!(numbers.len(), MAX_FIELDS);
        let more = Fields::new([("more", FieldKind::Bool)]).expect("one field");
        assert!(set.with("c", &more).is_err());
        assert!(serde_json::from_str::<Fields>(r#"{"a": "color"}"#).is_err());
    }

    #[test]
    fn a_field_keeps_its_number_and_its_kind() {
        let fields = |list: &[(&str, FieldKind)]| Fields::new(list.iter().copied()).expect("fine");
        let first = fields(&[("b", FieldKind::Bool)]);
        let (set, _) = FieldSet::default().with("c", &first).expect("fits");
        let more = fields(&[("a", FieldKind::Float), ("b", FieldKind::Bool)]);
        let (set, numbers) = set.with("c", &more).expect("fits");
        assert_eq!((set.0["a"].number, set.0["b"].number), (1, 0));
        assert_eq!(numbers, [1]);
        let refused = set.with("c", &fields(&[("a", FieldKind::Integer)]));
        assert_eq!(
            refused.expect_err("is refused").to_string(),
            "field a of collection c is declared as float, got integer"
        );
    }
}
