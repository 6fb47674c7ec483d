//! Filters as JSON.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value, json};

use super::value::shown;
use crate::EngineError;

/// How deep filters may lie in each other; the outermost is 1.
pub const MAX_FILTER_DEPTH: usize = 8;
/// Most conditions and filters inside one filter, at all depths together.
pub const MAX_CLAUSES: usize = 256;
/// Most values of one `in`.
pub const MAX_IN_VALUES: usize = 1024;

/// Which items a search looks at, by their payloads.
///
/// ```
/// use engine::Filter;
///
/// let filter: Filter = serde_json::from_str(
///     r#"{
///         "must": [{"field": "size", "gte": 1, "lt": 5}],
///         "should": [{"field": "color", "eq": "red"}, {"field": "tags", "contains": "bike"}],
///         "must_not": [{"field": "sold", "eq": true}]
///     }"#,
/// )?;
/// assert_eq!(filter.should.len(), 2);
/// let wrong = serde_json::from_str::<Filter>(r#"{"must": [{"field": "size", "gt": [5]}]}"#);
/// assert!(wrong.unwrap_err().to_string().starts_with("must[0].gt: got [5], expected "));
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Filter {
    /// All of these hold.
    pub must: Vec<Clause>,
    /// At least one of these holds, when there are any.
    pub should: Vec<Clause>,
    /// None of these holds.
    pub must_not: Vec<Clause>,
}

/// A part of a filter.
#[derive(Debug, Clone, PartialEq)]
pub enum Clause {
    /// Looks at one field.
    Condition(Condition),
    /// Holds when the filter does.
    Filter(Filter),
}

/// What is asked of a field. Of several values of an item one is enough.
#[derive(Debug, Clone, PartialEq)]
pub struct Condition {
    /// Name of a declared field.
    pub field: String,
    /// What must hold.
    pub test: Test,
}

/// What must hold for a value.
#[derive(Debug, Clone, PartialEq)]
pub enum Test {
    /// It is this.
    Eq(Value),
    /// It is one of these.
    In(Vec<Value>),
    /// It has these characters in it, in upper or lower case.
    Contains(String),
    /// There is any value, or there is none.
    Exists(bool),
    /// It lies between these.
    Range(Range),
}

/// Bounds of a value, at least one. `gt` and `gte` do not go together, nor do `lt` and `lte`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Range {
    /// Greater than this.
    pub gt: Option<Value>,
    /// Greater than this, or equal.
    pub gte: Option<Value>,
    /// Less than this.
    pub lt: Option<Value>,
    /// Less than this, or equal.
    pub lte: Option<Value>,
}

impl Filter {
    /// Reads a filter. Unknown keys are refused.
    ///
    /// # Errors
    /// When it is no filter, or too large, with the path of the part that is wrong.
    pub fn from_json(value: &Value) -> Result<Self, EngineError> {
        let mut clauses = 0;
        filter(value, "", 1, &mut clauses)
    }

    /// The same as JSON.
    pub fn to_json(&self) -> Value {
        let lists = [
            ("must", &self.must),
            ("should", &self.should),
            ("must_not", &self.must_not),
        ];
        let mut out = Map::new();
        for (key, list) in lists.into_iter().filter(|(_, list)| !list.is_empty()) {
            let clauses = list.iter().map(|clause| match clause {
                Clause::Condition(condition) => condition.to_json(),
                // One without conditions must not look like a condition without a field.
                Clause::Filter(filter) if *filter == Self::default() => json!({ "must": [] }),
                Clause::Filter(filter) => filter.to_json(),
            });
            out.insert(key.to_owned(), clauses.collect());
        }
        Value::Object(out)
    }
}

impl Condition {
    fn to_json(&self) -> Value {
        let mut out = json!({ "field": self.field });
        match &self.test {
            Test::Eq(value) => out["eq"] = value.clone(),
            Test::In(values) => out["in"] = json!(values),
            Test::Contains(part) => out["contains"] = json!(part),
            Test::Exists(exists) => out["exists"] = json!(exists),
            Test::Range(Range { gt, gte, lt, lte }) => {
                let bounds = [("gt", gt), ("gte", gte), ("lt", lt), ("lte", lte)];
                for (key, bound) in bounds {
                    if let Some(bound) = bound {
                        out[key] = bound.clone();
                    }
                }
            }
        }
        out
    }
}

impl Serialize for Filter {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.to_json().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Filter {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        Self::from_json(&value).map_err(serde::de::Error::custom)
    }
}

/// Places a part of a filter: `must[1].gte`.
pub(crate) fn at(path: &str, part: &str) -> String {
    if path.is_empty() {
        part.to_owned()
    } else {
        format!("{path}.{part}")
    }
}

pub(crate) fn bad(path: &str, reason: impl Into<String>) -> EngineError {
    EngineError::BadFilter {
        path: path.to_owned(),
        reason: reason.into(),
    }
}

fn expected(path: &str, what: &str, got: &Value) -> EngineError {
    bad(path, format!("got {}, expected {what}", shown(got)))
}

fn filter(
    value: &Value,
    path: &str,
    depth: usize,
    clauses: &mut usize,
) -> Result<Filter, EngineError> {
    if depth > MAX_FILTER_DEPTH {
        return Err(bad(
            path,
            format!("filters lie more than {MAX_FILTER_DEPTH} deep"),
        ));
    }
    let object = value
        .as_object()
        .ok_or_else(|| expected(path, "an object with must, should or must_not", value))?;
    let mut out = Filter::default();
    for (key, value) in object {
        let path = at(path, key);
        let list = match key.as_str() {
            "must" => &mut out.must,
            "should" => &mut out.should,
            "must_not" => &mut out.must_not,
            _ => {
                let reason = "unknown key, expected must, should or must_not";
                return Err(bad(&path, reason));
            }
        };
        let values = value
            .as_array()
            .ok_or_else(|| expected(&path, "an array of conditions", value))?;
        for (i, value) in values.iter().enumerate() {
            *clauses += 1;
            let path = format!("{path}[{i}]");
            if *clauses > MAX_CLAUSES {
                let reason = format!("more than {MAX_CLAUSES} conditions in one filter");
                return Err(bad(&path, reason));
            }
            list.push(clause(value, &path, depth, clauses)?);
        }
    }
    Ok(out)
}

fn clause(
    value: &Value,
    path: &str,
    depth: usize,
    clauses: &mut usize,
) -> Result<Clause, EngineError> {
    let object = value
        .as_object()
        .ok_or_else(|| expected(path, "a condition or a filter", value))?;
    if object.contains_key("field") {
        return condition(object, path).map(Clause::Condition);
    }
    let of_condition = |key: &String| TESTS.contains(&key.as_str());
    if object.is_empty() || object.keys().any(of_condition) {
        return Err(bad(path, "a condition needs a field"));
    }
    filter(value, path, depth + 1, clauses).map(Clause::Filter)
}

/// The keys of a condition beside `field`.
const TESTS: [&str; 8] = ["eq", "in", "contains", "exists", "gt", "gte", "lt", "lte"];

fn condition(object: &Map<String, Value>, path: &str) -> Result<Condition, EngineError> {
    let mut field = String::new();
    let mut tests = Vec::new();
    let mut range = Range::default();
    for (key, value) in object {
        let path = at(path, key);
        match key.as_str() {
            "field" => {
                let name = value.as_str();
                let name = name.ok_or_else(|| expected(&path, "the name of a field", value))?;
                name.clone_into(&mut field);
            }
            "eq" => tests.push(Test::Eq(scalar(value, &path)?)),
            "in" => tests.push(Test::In(scalars(value, &path)?)),
            "contains" => {
                let part = value.as_str();
                let part = part.ok_or_else(|| expected(&path, "a string", value))?;
                tests.push(Test::Contains(part.to_owned()));
            }
            "exists" => {
                let exists = value.as_bool();
                let exists = exists.ok_or_else(|| expected(&path, "true or false", value))?;
                tests.push(Test::Exists(exists));
            }
            "gt" => range.gt = Some(scalar(value, &path)?),
            "gte" => range.gte = Some(scalar(value, &path)?),
            "lt" => range.lt = Some(scalar(value, &path)?),
            "lte" => range.lte = Some(scalar(value, &path)?),
            _ => {
                let expected = TESTS.join(", ");
                return Err(bad(
                    &path,
                    format!("unknown key, expected field, {expected}"),
                ));
            }
        }
    }
    if range.gt.is_some() && range.gte.is_some() {
        return Err(bad(&at(path, "gte"), "a condition has gt or gte, not both"));
    }
    if range.lt.is_some() && range.lte.is_some() {
        return Err(bad(&at(path, "lte"), "a condition has lt or lte, not both"));
    }
    if range != Range::default() {
        tests.push(Test::Range(range));
    }
    let count = tests.len();
    if let (Some(test), 1) = (tests.pop(), count) {
        return Ok(Condition { field, test });
    }
    let reason = "a condition needs exactly one of eq, in, contains, exists and a range \
                  (gt or gte, lt or lte)";
    Err(bad(path, format!("{reason}, got {count}")))
}

fn scalars(value: &Value, path: &str) -> Result<Vec<Value>, EngineError> {
    let values = value
        .as_array()
        .ok_or_else(|| expected(path, "an array of values", value))?;
    if values.len() > MAX_IN_VALUES {
        let got = values.len();
        return Err(bad(
            path,
            format!("got {got} values, expected at most {MAX_IN_VALUES}"),
        ));
    }
    let all = values.iter().enumerate();
    all.map(|(i, value)| scalar(value, &format!("{path}[{i}]")))
        .collect()
}

fn scalar(value: &Value, path: &str) -> Result<Value, EngineError> {
    match value {
        Value::Null | Value::Array(_) | Value::Object(_) => {
            Err(expected(path, "a string, a number, true or false", value))
        }
        value => Ok(value.clone()),
    }
}

#[cfg(test)]
mod tests;
