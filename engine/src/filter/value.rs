//! Values of fields as bytes whose order is the order of the values.
//!
//! | value | bytes |
//! |---|---|
//! | that there is any | `0` |
//! | keyword | `1`, UTF-8 |
//! | integer, datetime in microseconds | `1`, `i64` big-endian with its sign bit flipped |
//! | float | `1`, `f64` big-endian with its sign bit flipped, or all bits when it is negative |
//! | bool | `1`, `0` or `1` |
//!
//! Both zeros are one float. JSON has no other floats that compare unlike their bits.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{datetime, field::FieldKind};

/// Longest keyword, in bytes of UTF-8.
pub const MAX_KEYWORD_BYTES: usize = 512;
/// Most values of one field of one item.
pub const MAX_VALUES: usize = 256;

/// The entry of all items that have any value.
pub(crate) const PRESENT: &[u8] = &[0];
/// Values start so.
pub(crate) const VALUE: u8 = 1;

/// What is wrong with a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WrongValue {
    /// The value, cut short.
    pub(crate) value: String,
    pub(crate) expected: &'static str,
}

/// All entries of an item's field: none when it is missing, null or an empty array.
pub(crate) fn entries(
    kind: FieldKind,
    value: Option<&Value>,
) -> Result<BTreeSet<Vec<u8>>, WrongValue> {
    let mut entries = BTreeSet::new();
    let values = match value {
        None | Some(Value::Null) => return Ok(entries),
        Some(Value::Array(values)) => values.as_slice(),
        Some(value) => std::slice::from_ref(value),
    };
    if values.len() > MAX_VALUES {
        return Err(WrongValue {
            value: format!("an array of {}", values.len()),
            expected: "at most 256 values",
        });
    }
    for value in values.iter().filter(|value| !value.is_null()) {
        entries.insert(entry(kind, value)?);
    }
    if !entries.is_empty() {
        entries.insert(PRESENT.to_vec());
    }
    Ok(entries)
}

/// The entry of one value.
pub(crate) fn entry(kind: FieldKind, value: &Value) -> Result<Vec<u8>, WrongValue> {
    let wrong = |expected| WrongValue {
        value: shown(value),
        expected,
    };
    let bytes = match (kind, value) {
        (FieldKind::Keyword, Value::String(text)) if text.len() > MAX_KEYWORD_BYTES => {
            return Err(wrong("a string of at most 512 bytes"));
        }
        (FieldKind::Keyword, Value::String(text)) => Some(text.as_bytes().to_vec()),
        (FieldKind::Integer, value) => value.as_i64().map(ordered_integer),
        (FieldKind::Float, value) => value.as_f64().map(ordered_float),
        (FieldKind::Bool, Value::Bool(value)) => Some(vec![u8::from(*value)]),
        (FieldKind::Datetime, Value::String(text)) => datetime::micros(text).map(ordered_integer),
        _ => None,
    };
    let bytes = bytes.ok_or_else(|| wrong(kind.expected()))?;
    Ok([&[VALUE], &bytes[..]].concat())
}

fn ordered_integer(value: i64) -> Vec<u8> {
    (value ^ i64::MIN).to_be_bytes().to_vec()
}

fn ordered_float(value: f64) -> Vec<u8> {
    // Adding zero makes -0.0 the one zero.
    let bits = (value + 0.0).to_bits();
    let flip = if bits >> 63 == 1 { u64::MAX } else { 1 << 63 };
    (bits ^ flip).to_be_bytes().to_vec()
}

/// A value as a message shows it.
pub(crate) fn shown(value: &Value) -> String {
    const LONGEST: usize = 80;
    let text = value.to_string();
    match text.char_indices().nth(LONGEST) {
        None => text,
        Some((end, _)) => format!("{}...", &text[..end]),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn bytes_are_ordered_as_their_values() {
        let sorted = |kind, values: &[Value]| {
            let entries: Vec<_> = values
                .iter()
                .map(|v| entry(kind, v).expect("fits"))
                .collect();
            assert!(entries.is_sorted_by(|a, b| a < b), "{kind}: {values:?}");
            assert!(entries.iter().all(|entry| entry.as_slice() > PRESENT));
        };
        let integers = [i64::MIN, -256, -1, 0, 1, 255, 256, i64::MAX];
        sorted(FieldKind::Integer, &integers.map(|i| json!(i)));
        let floats = [
            f64::MIN,
            -1.5,
            -1.0,
            -1e-300,
            0.0,
            5e-324,
            1.0,
            1.5,
            f64::MAX,
        ];
        sorted(FieldKind::Float, &floats.map(|f| json!(f)));
        sorted(FieldKind::Bool, &[json!(false), json!(true)]);
        sorted(
            FieldKind::Keyword,
            &[json!(""), json!("a"), json!("a\0"), json!("aa")],
        );
        let times = [
            "1969-12-31T23:59:59Z",
            "1970-01-01T01:00:00+01:00",
            "2024-01-01T00:00:00Z",
        ];
        sorted(FieldKind::Datetime, &times.map(|t| json!(t)));
        let float = |value| entry(FieldKind::Float, &value).expect("fits");
        assert_eq!(float(json!(-0.0)), float(json!(0)));
    }

    #[test]
    fn nothing_is_no_value_and_an_array_is_each_of_its_values() {
        let count = |value: Value| {
            let entries = entries(FieldKind::Integer, Some(&value));
            entries.expect("fits").len()
        };
        assert_eq!(count(json!(null)), 0);
        assert_eq!(count(json!([])), 0);
        assert_eq!(count(json!([null])), 0);
        assert_eq!(count(json!(3)), 2);
        assert_eq!(count(json!([3, null, 4, 3])), 3);
        assert_eq!(entries(FieldKind::Bool, None), Ok(BTreeSet::new()));
    }

    #[test]
    fn a_value_of_another_kind_is_refused_and_shown() {
        let kinds = [
            (FieldKind::Keyword, json!(1)),
            (FieldKind::Keyword, json!("x".repeat(MAX_KEYWORD_BYTES + 1))),
            (FieldKind::Integer, json!(1.0)),
            (FieldKind::Integer, json!(u64::MAX)),
            (FieldKind::Integer, json!("1")),
            (FieldKind::Float, json!("1")),
            (FieldKind::Bool, json!(0)),
            (FieldKind::Datetime, json!(0)),
            (FieldKind::Datetime, json!("yesterday")),
            (FieldKind::Keyword, json!({"a": 1})),
            (FieldKind::Integer, json!([1, [2]])),
            (FieldKind::Integer, json!(vec![1; MAX_VALUES + 1])),
        ];
        for (kind, value) in kinds {
            assert!(entries(kind, Some(&value)).is_err(), "{kind}: {value}");
        }
        let wrong = entries(
            FieldKind::Keyword,
            Some(&json!({"a": "\u{e9}".repeat(200)})),
        );
        let wrong = wrong.expect_err("is refused");
        assert_eq!(wrong.value.chars().count(), 83);
        assert_eq!(wrong.expected, "a string");
    }
}
