//! Rows become items of a collection, in batches that are durable one after the other.

use std::{path::Path, sync::Arc};

use embedding::{Embedding, EmbeddingError, Modality};
use engine::{Collection, Item, ItemId};
use serde::Serialize;
use serde_json::Value;

use crate::{BadRow, ExchangeError, RowProblem};

/// Items of one write.
const BATCH_ITEMS: usize = 1_000;
/// Bytes of one write, about.
const BATCH_BYTES: usize = 8 << 20;
/// Bad rows that a report names.
const MAX_NAMED: usize = 100;

/// How to read rows.
#[derive(Debug, Clone, Copy, Default)]
pub struct ImportOptions {
    /// The caller knows that the collection's model made the embeddings of a source that does not
    /// say so.
    pub as_model: bool,
    /// What the rows of a file without a column `modality` are.
    pub modality: Option<Modality>,
    /// Scale embeddings that are not of unit length, which are bad rows otherwise.
    pub normalize: bool,
    /// Leave bad rows out and count them, where the first one is an error otherwise.
    pub skip_bad: bool,
    /// Where the ids of items in the layout of clip-retrieval come from.
    pub ids: Ids,
}

/// Where ids come from in the layout of clip-retrieval.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Ids {
    /// From `id` or `image_path`; from the row where the metadata have neither.
    #[default]
    Path,
    /// From the number of the file and the row in it.
    Row,
}

/// What an import did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Imported {
    /// Items whose id was new.
    pub inserted: usize,
    /// Items that took the place of one with their id, also of an earlier one of the same source.
    pub updated: usize,
    /// Bad rows that were left out.
    pub skipped: u64,
    /// What was wrong with the first of them.
    pub bad: Vec<String>,
    /// Columns that have no place in a payload, such as bytes.
    pub ignored_columns: Vec<String>,
}

/// Told how many items were written, or how many rows were read and what is good of them written.
pub(crate) type Progress<'a> = &'a mut dyn FnMut(u64);

/// Collects items and writes them.
pub(crate) struct Sink<'a> {
    collection: &'a Arc<Collection>,
    pub(crate) options: ImportOptions,
    progress: Progress<'a>,
    waiting: Vec<Item>,
    bytes: usize,
    rows: u64,
    pub(crate) report: Imported,
}

impl<'a> Sink<'a> {
    pub(crate) fn new(
        collection: &'a Arc<Collection>,
        options: ImportOptions,
        progress: Progress<'a>,
    ) -> Self {
        Self {
            collection,
            options,
            progress,
            waiting: Vec::new(),
            bytes: 0,
            rows: 0,
            report: Imported::default(),
        }
    }

    /// Takes what became of a row.
    pub(crate) fn take(
        &mut self,
        path: &Path,
        row: u64,
        id: Option<&str>,
        made: Result<Item, RowProblem>,
    ) -> Result<(), ExchangeError> {
        self.rows += 1;
        let checked = made.and_then(|item| {
            self.collection.check(&item)?;
            Ok(item)
        });
        match checked {
            Ok(item) => {
                let specific = item.specific.as_ref().map_or(0, Embedding::dim);
                self.bytes += 4 * (item.shared.dim() + specific);
                self.bytes += item.text.as_ref().map_or(0, String::len);
                self.bytes += item
                    .payload
                    .iter()
                    .map(|(k, v)| k.len() + weight(v))
                    .sum::<usize>();
                self.waiting.push(item);
                if self.waiting.len() >= BATCH_ITEMS || self.bytes >= BATCH_BYTES {
                    self.write()?;
                }
            }
            Err(problem) => {
                let bad = BadRow {
                    path: path.to_owned(),
                    row,
                    id: id.map(|id| id.chars().take(80).collect()),
                    problem,
                };
                if !self.options.skip_bad {
                    return Err(ExchangeError::BadRow(Box::new(bad)));
                }
                self.report.skipped += 1;
                if self.report.bad.len() < MAX_NAMED {
                    self.report.bad.push(format!("{bad}: {}", bad.problem));
                }
            }
        }
        Ok(())
    }

    fn write(&mut self) -> Result<(), ExchangeError> {
        if !self.waiting.is_empty() {
            let upserted = self.collection.upsert(std::mem::take(&mut self.waiting))?;
            self.report.inserted += upserted.inserted;
            self.report.updated += upserted.updated;
            self.bytes = 0;
        }
        (self.progress)(self.rows);
        Ok(())
    }

    /// Writes the rest.
    pub(crate) fn finish(mut self) -> Result<Imported, ExchangeError> {
        self.write()?;
        Ok(self.report)
    }
}

/// Bytes that a value takes, about.
fn weight(value: &Value) -> usize {
    size_of::<Value>()
        + match value {
            Value::String(text) => text.len(),
            Value::Array(values) => values.iter().map(weight).sum(),
            Value::Object(map) => map.iter().map(|(k, v)| k.len() + weight(v)).sum(),
            Value::Null | Value::Bool(_) | Value::Number(_) => 0,
        }
}

/// Makes an embedding of numbers that a file has.
pub(crate) fn embedding(
    column: &'static str,
    row: Vec<f32>,
    expected: usize,
    options: ImportOptions,
) -> Result<Embedding, RowProblem> {
    if row.len() != expected {
        let got = row.len();
        return Err(RowProblem::WrongDim {
            column,
            got,
            expected,
        });
    }
    // Unit rows stay as they are, bit for bit.
    let made = match Embedding::new(row.clone()) {
        Err(EmbeddingError::NotUnit { .. }) if options.normalize => Embedding::normalized(row),
        made => made,
    };
    made.map_err(|source| RowProblem::Embedding { column, source })
}

/// Makes an id of text that a file has.
pub(crate) fn item_id(text: Option<String>) -> Result<ItemId, RowProblem> {
    Ok(ItemId::new(text.ok_or(RowProblem::Null { column: "id" })?)?)
}
