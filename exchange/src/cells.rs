//! Single values of columns.

use arrow_array::{
    Array, ArrayRef, BinaryArray, BooleanArray, FixedSizeBinaryArray, ListArray, PrimitiveArray,
    StringArray,
    types::{
        ArrowPrimitiveType, Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type,
        Int64Type, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
        TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
    },
};
use arrow_schema::{DataType, TimeUnit};
use serde_json::Value;

/// Seconds of a day.
const DAY: i64 = 86_400;

fn cast<T: Array + 'static>(column: &ArrayRef, row: usize) -> Option<&T> {
    column
        .as_any()
        .downcast_ref()
        .filter(|_| column.is_valid(row))
}

fn number<T: ArrowPrimitiveType>(column: &ArrayRef, row: usize) -> Option<T::Native> {
    Some(cast::<PrimitiveArray<T>>(column, row)?.value(row))
}

/// A string.
pub(crate) fn text(column: &ArrayRef, row: usize) -> Option<&str> {
    Some(cast::<StringArray>(column, row)?.value(row))
}

/// Bytes.
pub(crate) fn bytes(column: &ArrayRef, row: usize) -> Option<&[u8]> {
    match column.data_type() {
        DataType::Binary => Some(cast::<BinaryArray>(column, row)?.value(row)),
        _ => Some(cast::<FixedSizeBinaryArray>(column, row)?.value(row)),
    }
}

/// Whether [`floats`] can read a column.
pub(crate) fn is_floats(data_type: &DataType) -> bool {
    let item = match data_type {
        DataType::List(item) => item.data_type(),
        _ => return false,
    };
    matches!(
        item,
        DataType::Float16 | DataType::Float32 | DataType::Float64
    )
}

/// A list of floats; what is null among them is not a number.
pub(crate) fn floats(column: &ArrayRef, row: usize) -> Option<Vec<f32>> {
    let list = cast::<ListArray>(column, row)?.value(row);
    let float = |i| match list.data_type() {
        DataType::Float16 => number::<Float16Type>(&list, i).map(half::f16::to_f32),
        DataType::Float32 => number::<Float32Type>(&list, i),
        _ => number::<Float64Type>(&list, i).map(|x| x as f32),
    };
    Some(
        (0..list.len())
            .map(|i| float(i).unwrap_or(f32::NAN))
            .collect(),
    )
}

/// Whether [`json`] can read a column.
pub(crate) fn is_json(data_type: &DataType) -> bool {
    match data_type {
        DataType::List(item) => is_json(item.data_type()),
        DataType::Null | DataType::Boolean | DataType::Utf8 | DataType::Timestamp(..) => true,
        // Of decimals, dates and durations JSON has no common form.
        other => other.is_integer() || other.is_floating(),
    }
}

/// Any value, as a part of a payload. Times become text as in RFC 3339; what JSON cannot say, such
/// as an infinite number, counts as null.
pub(crate) fn json(column: &ArrayRef, row: usize) -> Option<Value> {
    match column.data_type() {
        DataType::Boolean => Some(cast::<BooleanArray>(column, row)?.value(row).into()),
        DataType::Int8 => number::<Int8Type>(column, row).map(Value::from),
        DataType::Int16 => number::<Int16Type>(column, row).map(Value::from),
        DataType::Int32 => number::<Int32Type>(column, row).map(Value::from),
        DataType::Int64 => number::<Int64Type>(column, row).map(Value::from),
        DataType::UInt8 => number::<UInt8Type>(column, row).map(Value::from),
        DataType::UInt16 => number::<UInt16Type>(column, row).map(Value::from),
        DataType::UInt32 => number::<UInt32Type>(column, row).map(Value::from),
        DataType::UInt64 => number::<UInt64Type>(column, row).map(Value::from),
        DataType::Float16 => finite(f64::from(number::<Float16Type>(column, row)?)),
        DataType::Float32 => finite(f64::from(number::<Float32Type>(column, row)?)),
        DataType::Float64 => finite(number::<Float64Type>(column, row)?),
        DataType::Utf8 => text(column, row).map(Value::from),
        DataType::Timestamp(unit, _) => {
            let (ticks, per_second) = match unit {
                TimeUnit::Second => (number::<TimestampSecondType>(column, row)?, 1),
                TimeUnit::Millisecond => (number::<TimestampMillisecondType>(column, row)?, 1_000),
                TimeUnit::Microsecond => {
                    (number::<TimestampMicrosecondType>(column, row)?, 1_000_000)
                }
                TimeUnit::Nanosecond => (
                    number::<TimestampNanosecondType>(column, row)?,
                    1_000_000_000,
                ),
            };
            rfc3339(
                ticks.div_euclid(per_second),
                ticks.rem_euclid(per_second),
                per_second,
            )
            .map(Value::from)
        }
        DataType::List(_) => {
            let list = cast::<ListArray>(column, row)?.value(row);
            let values = (0..list.len()).map(|i| json(&list, i).unwrap_or(Value::Null));
            Some(values.collect())
        }
        _ => None,
    }
}

fn finite(x: f64) -> Option<Value> {
    serde_json::Number::from_f64(x).map(Value::Number)
}

/// A time in UTC of the years 1 to 9999.
fn rfc3339(seconds: i64, ticks: i64, per_second: i64) -> Option<String> {
    let (days, of_day) = (seconds.div_euclid(DAY), seconds.rem_euclid(DAY));
    // Days since 0000-03-01, in eras of 400 years: a leap day is the last of its year then.
    let days = days.checked_add(719_468)?;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let of_years = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * of_years + of_years / 4 - of_years / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = of_years + era * 400 + i64::from(month <= 2);
    if !(1..=9999).contains(&year) {
        return None;
    }
    let (hour, minute, second) = (of_day / 3_600, of_day / 60 % 60, of_day % 60);
    let fraction = if ticks == 0 {
        String::new()
    } else {
        let digits = per_second.ilog10() as usize;
        format!(".{ticks:0digits$}")
    };
    Some(format!(
        "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}Z"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Expected values: `date -u -d @SECONDS`.
    #[test]
    fn times_are_written_as_the_calendar_has_them() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00Z"),
            (-1, "1969-12-31T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (4_107_542_399, "2100-02-28T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (1_714_566_600, "2024-05-01T12:30:00Z"),
            (-62_135_596_800, "0001-01-01T00:00:00Z"),
        ] {
            assert_eq!(rfc3339(seconds, 0, 1).as_deref(), Some(expected));
        }
        let with_fraction = rfc3339(0, 1_500, 1_000_000);
        assert_eq!(
            with_fraction.as_deref(),
            Some("1970-01-01T00:00:00.001500Z")
        );
        assert_eq!(rfc3339(i64::MAX, 0, 1), None);
        assert_eq!(rfc3339(i64::MIN, 0, 1), None);
    }
}
