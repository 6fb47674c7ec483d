//! The columns of items in Parquet: what each is called, which types it may have, and how a row of
//! them becomes an item.

use std::path::Path;

use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::DataType;
use embedding::{Modality, Spaces};
use engine::{Item, Payload};
use serde_json::Value;

use crate::{
    ExchangeError, ImportOptions, RowProblem, cells,
    sink::{Sink, embedding, item_id},
    table::Table,
};

pub(crate) const ID: &str = "id";
pub(crate) const MODALITY: &str = "modality";
pub(crate) const SHARED: &str = "shared";
pub(crate) const SPECIFIC: &str = "specific";
pub(crate) const SPECIFIC_IMAGE: &str = "specific_image";
pub(crate) const SPECIFIC_TEXT: &str = "specific_text";
pub(crate) const PAYLOAD: &str = "payload";
pub(crate) const TEXT: &str = "text";
pub(crate) const SOURCE: &str = "source";
pub(crate) const CONTENT_HASH: &str = "content_hash";

/// Columns that are not parts of the payload.
const KNOWN: [&str; 10] = [
    ID,
    MODALITY,
    SHARED,
    SPECIFIC,
    SPECIFIC_IMAGE,
    SPECIFIC_TEXT,
    PAYLOAD,
    TEXT,
    SOURCE,
    CONTENT_HASH,
];

/// Names of the columns that hold the specific embeddings of each modality: one if all that there
/// are have the same dim.
pub(crate) fn specific(spaces: &Spaces) -> Vec<(&'static str, usize)> {
    match (spaces.specific_image_dim, spaces.specific_text_dim) {
        (Some(image), Some(text)) if image != text => {
            vec![(SPECIFIC_IMAGE, image), (SPECIFIC_TEXT, text)]
        }
        (Some(dim), _) | (None, Some(dim)) => vec![(SPECIFIC, dim)],
        (None, None) => Vec::new(),
    }
}

/// Which of them holds that of this modality.
pub(crate) fn specific_of(modality: Modality, has: impl Fn(&str) -> bool) -> Option<&'static str> {
    let own = match modality {
        Modality::Image => SPECIFIC_IMAGE,
        Modality::Text => SPECIFIC_TEXT,
    };
    [own, SPECIFIC].into_iter().find(|name| has(name))
}

/// Checks the types of all columns.
pub(crate) fn check(
    table: &Table,
    spaces: &Spaces,
    options: ImportOptions,
) -> Result<(), ExchangeError> {
    if !has(table, MODALITY) && options.modality.is_none() {
        return Err(ExchangeError::NoColumn {
            path: table.path().to_owned(),
            column: MODALITY,
            expected: "\"image\" or \"text\" in every row, or to be told which all rows are",
        });
    }
    need(
        table,
        ID,
        "strings or whole numbers, unique in the collection",
    )?;
    check_type(table, ID, "Utf8 or integers", |t| {
        *t == DataType::Utf8 || t.is_integer()
    })?;
    for name in [MODALITY, PAYLOAD, TEXT, SOURCE] {
        check_type(table, name, "Utf8", |t| *t == DataType::Utf8)?;
    }
    let is_hash = |t: &DataType| matches!(t, DataType::Binary | DataType::FixedSizeBinary(_));
    check_type(table, CONTENT_HASH, "Binary", is_hash)?;
    need(table, SHARED, "lists of floats")?;
    check_floats(table, SHARED, spaces.shared_dim)?;
    for modality in Modality::ALL {
        let name = specific_of(modality, |name| has(table, name));
        let (Some(name), Some(space)) = (name, spaces.specific(modality)) else {
            continue;
        };
        // One column for embeddings of two dims has no size; each row is checked.
        if name == SPECIFIC && specific(spaces).len() > 1 {
            check_type(table, name, "List<float32>", cells::is_floats)?;
        } else {
            check_floats(table, name, space.dim)?;
        }
    }
    Ok(())
}

pub(crate) fn has(table: &Table, column: &str) -> bool {
    table.schema().field_with_name(column).is_ok()
}

fn need(table: &Table, column: &'static str, expected: &'static str) -> Result<(), ExchangeError> {
    if has(table, column) {
        return Ok(());
    }
    Err(ExchangeError::NoColumn {
        path: table.path().to_owned(),
        column,
        expected,
    })
}

/// Checks the type of a column, if it is there.
pub(crate) fn check_type(
    table: &Table,
    column: &str,
    expected: &str,
    is_good: impl Fn(&DataType) -> bool,
) -> Result<(), ExchangeError> {
    match table.schema().field_with_name(column) {
        // pandas has no other type for a column in which there is nothing.
        Ok(field) if *field.data_type() != DataType::Null && !is_good(field.data_type()) => {
            Err(ExchangeError::WrongColumn {
                path: table.path().to_owned(),
                column: column.to_owned(),
                found: table.type_of(column),
                expected: expected.to_owned(),
            })
        }
        _ => Ok(()),
    }
}

fn check_floats(table: &Table, column: &str, dim: usize) -> Result<(), ExchangeError> {
    let fits = table.fixed_size(column).is_none_or(|size| size == dim);
    let expected = format!("FixedSizeList<float32, {dim}>");
    check_type(table, column, &expected, |t| fits && cells::is_floats(t))
}

/// Columns that become parts of the payload, and those that cannot.
pub(crate) fn others(table: &Table, known: &[&str]) -> (Vec<String>, Vec<String>) {
    let fields = table.schema().fields().iter();
    // pandas writes the numbers of rows, which mean nothing elsewhere.
    let more = fields
        .filter(|f| !known.contains(&f.name().as_str()) && !f.name().starts_with("__index_level_"));
    let (good, bad): (Vec<_>, Vec<_>) = more.partition(|f| cells::is_json(f.data_type()));
    let names = |fields: Vec<&arrow_schema::FieldRef>| {
        fields.iter().map(|field| field.name().clone()).collect()
    };
    (names(good), names(bad))
}

/// Text of an id, whatever its type.
pub(crate) fn id_text(batch: &RecordBatch, column: &str, row: usize) -> Option<String> {
    match cells::json(batch.column_by_name(column)?, row)? {
        Value::String(text) => Some(text),
        other => Some(other.to_string()),
    }
}

/// The payload of a row: what the column has, and what other columns add.
pub(crate) fn payload(
    batch: &RecordBatch,
    row: usize,
    others: &[String],
) -> Result<Payload, RowProblem> {
    let json = batch
        .column_by_name(PAYLOAD)
        .and_then(|column| cells::text(column, row));
    let mut payload: Payload = match json {
        Some(json) => serde_json::from_str(json).map_err(RowProblem::Payload)?,
        None => Payload::new(),
    };
    for name in others {
        let column = batch.column_by_name(name);
        if let Some(value) = column.and_then(|column| cells::json(column, row)) {
            payload.insert(name.clone(), value);
        }
    }
    Ok(payload)
}

/// Reads all rows of a table into a sink.
pub(crate) fn read(
    table: &Table,
    spaces: &Spaces,
    mut sink: Sink<'_>,
) -> Result<crate::Imported, ExchangeError> {
    let (others, ignored) = others(table, &KNOWN);
    sink.report.ignored_columns = ignored;
    let is_wanted = |name: &str| KNOWN.contains(&name) || others.iter().any(|o| o == name);
    let path: &Path = table.path();
    let mut number = 0;
    for batch in table.batches(is_wanted)? {
        let batch = batch?;
        for row in 0..batch.num_rows() {
            let id = id_text(&batch, ID, row);
            let made = item(&batch, row, spaces, id.clone(), &others, sink.options);
            sink.take(path, number, id.as_deref(), made)?;
            number += 1;
        }
    }
    sink.finish()
}

fn item(
    batch: &RecordBatch,
    row: usize,
    spaces: &Spaces,
    id: Option<String>,
    others: &[String],
    options: ImportOptions,
) -> Result<Item, RowProblem> {
    let column = |name: &str| batch.column_by_name(name);
    let text = |name: &str| column(name).and_then(|c| cells::text(c, row));
    let modality = match column(MODALITY) {
        None => options.modality,
        Some(_) => match text(MODALITY) {
            Some("image") => Some(Modality::Image),
            Some("text") => Some(Modality::Text),
            Some(other) => {
                let found = other.chars().take(64).collect();
                return Err(RowProblem::Modality { found });
            }
            None => None,
        },
    };
    let modality = modality.ok_or(RowProblem::Null { column: MODALITY })?;
    let floats = |c: &ArrayRef| cells::floats(c, row);
    let shared = column(SHARED).and_then(floats);
    let shared = shared.ok_or(RowProblem::Null { column: SHARED })?;
    let shared = embedding(SHARED, shared, spaces.shared_dim, options)?;
    let mut item = Item::new(item_id(id)?, modality, shared);

    let specific = specific_of(modality, |name| column(name).is_some());
    if let Some((name, numbers)) = specific.and_then(|name| Some((name, floats(column(name)?)?))) {
        // Where the model has none, the collection says so.
        let dim = spaces
            .specific(modality)
            .map_or(numbers.len(), |space| space.dim);
        item.specific = Some(embedding(name, numbers, dim, options)?);
    }
    item.payload = payload(batch, row, others)?;
    item.text = text(TEXT).map(str::to_owned);
    item.source = text(SOURCE).map(str::to_owned);
    if let Some(hash) = column(CONTENT_HASH).and_then(|c| cells::bytes(c, row)) {
        let bytes = hash.len();
        let hash = hash.try_into().map_err(|_| RowProblem::Hash { bytes })?;
        item.content_hash = Some(hash);
    }
    Ok(item)
}
