//! Items into a Parquet file, row group by row group.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use arrow_array::{
    ArrayRef, RecordBatch,
    builder::{
        BinaryBuilder, FixedSizeListBuilder, Float32Builder, StringBuilder, StringDictionaryBuilder,
    },
    types::Int32Type,
};
use arrow_schema::{DataType, Field, FieldRef, Schema, SchemaRef};
use embedding::{Embedding, Modality, Spaces};
use engine::{Collection, EngineError, Item};
use fs_err::File;
use parquet::{
    arrow::ArrowWriter,
    basic::Compression,
    errors::ParquetError,
    file::{
        metadata::KeyValue,
        properties::{EnabledStatistics, WriterProperties},
    },
    schema::types::ColumnPath,
};
use serde::Serialize;

use crate::{
    About, ExchangeError,
    about::{CREATED_BY, Hashed},
    aside::Aside,
    columns,
    sink::Progress,
};

/// Bytes of the rows that are handed to the library at once, about.
pub(crate) const BATCH_BYTES: usize = 4 << 20;
/// Name of the elements of lists, as the format recommends.
const ELEMENT: &str = "element";

/// How to write.
#[derive(Debug, Clone, Copy)]
pub struct ExportOptions {
    /// Size of a row group, about, which is also what is kept in memory.
    pub row_group_bytes: usize,
    /// Rows of one file in the layout of clip-retrieval.
    pub rows_per_file: u64,
    /// Write `.npy` files in half precision.
    pub half: bool,
    /// Leave damaged items out and count them, where the first one is an error otherwise.
    pub skip_bad: bool,
}

impl Default for ExportOptions {
    fn default() -> Self {
        Self {
            row_group_bytes: 64 << 20,
            // As many as clip-retrieval writes by default.
            rows_per_file: 1_000_000,
            half: false,
            skip_bad: false,
        }
    }
}

/// What an export did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Exported {
    /// Images that were written.
    pub images: u64,
    /// Texts that were written.
    pub texts: u64,
    /// Damaged items that were left out.
    pub skipped: u64,
}

/// Gives every item of a collection to `write`.
pub(crate) fn each(
    collection: &Collection,
    options: &ExportOptions,
    progress: Progress<'_>,
    mut write: impl FnMut(&Item) -> Result<(), ExchangeError>,
) -> Result<Exported, ExchangeError> {
    let mut exported = Exported::default();
    for item in collection.items()? {
        match item {
            Ok(item) => {
                write(&item)?;
                match item.modality {
                    Modality::Image => exported.images += 1,
                    Modality::Text => exported.texts += 1,
                }
            }
            Err(EngineError::DamagedItem { .. }) if options.skip_bad => exported.skipped += 1,
            Err(error) => return Err(error.into()),
        }
        progress(exported.images + exported.texts);
    }
    Ok(exported)
}

/// Writes a collection into one file.
pub(crate) fn parquet(
    collection: &Collection,
    dest: &Path,
    options: &ExportOptions,
    progress: Progress<'_>,
) -> Result<Exported, ExchangeError> {
    let aside = Aside::new(dest)?;
    let mut rows = ItemRows::new(collection.spaces());
    let about = About::of(collection);
    let group = options.row_group_bytes;
    let mut table = TableWriter::create(aside.path(), &rows.schema, &about, group)?;
    // Small row groups are made of small batches.
    let batch_bytes = BATCH_BYTES.min(group);
    let exported = each(collection, options, progress, |item| {
        rows.push(item);
        if rows.bytes >= batch_bytes {
            rows.write(&mut table)?;
        }
        Ok(())
    })?;
    rows.write(&mut table)?;
    table.finish()?;
    aside.commit()?;
    Ok(exported)
}

/// A Parquet file that is being written.
pub(crate) struct TableWriter {
    path: PathBuf,
    writer: ArrowWriter<Hashed>,
    group_bytes: usize,
    in_group: usize,
}

impl TableWriter {
    pub(crate) fn create(
        path: &Path,
        schema: &Schema,
        about: &About,
        group_bytes: usize,
    ) -> Result<Self, ExchangeError> {
        let file = Hashed::new(File::create(path)?);
        let mut properties = WriterProperties::builder()
            .set_created_by(CREATED_BY.to_owned())
            .set_key_value_metadata(Some(vec![about.to_metadata()]))
            .set_max_row_group_row_count(None)
            .set_compression(Compression::SNAPPY);
        for field in schema.fields() {
            if let DataType::FixedSizeList(..) = field.data_type() {
                let parts = [field.name().as_str(), "list", ELEMENT].map(str::to_owned);
                let column = ColumnPath::new(parts.to_vec());
                // Numbers of embeddings do not repeat, and hardly become smaller.
                properties = properties
                    .set_column_dictionary_enabled(column.clone(), false)
                    .set_column_statistics_enabled(column.clone(), EnabledStatistics::None)
                    .set_column_compression(column, Compression::UNCOMPRESSED);
            }
        }
        // pyarrow looks for metadata in the schema of Arrow only, others in those of the file only.
        let KeyValue { key, value } = about.to_metadata();
        let metadata: HashMap<String, String> =
            value.map(|value| (key, value)).into_iter().collect();
        let schema = schema.clone().with_metadata(metadata);
        let writer = ArrowWriter::try_new(file, Arc::new(schema), Some(properties.build()));
        Ok(Self {
            path: path.to_owned(),
            writer: writer.map_err(|source| failed(path, source))?,
            group_bytes,
            in_group: 0,
        })
    }

    /// Adds rows, which take about so many bytes.
    pub(crate) fn write(
        &mut self,
        schema: &SchemaRef,
        columns: Vec<ArrayRef>,
        bytes: usize,
    ) -> Result<(), ExchangeError> {
        let written = RecordBatch::try_new(schema.clone(), columns)
            .map_err(ParquetError::from)
            .and_then(|batch| {
                self.writer.write(&batch)?;
                self.in_group += bytes;
                if self.in_group >= self.group_bytes {
                    self.in_group = 0;
                    self.writer.flush()?;
                }
                Ok(())
            });
        written.map_err(|source| failed(&self.path, source))
    }

    /// Writes the end, and waits until all of it is on disk.
    pub(crate) fn finish(mut self) -> Result<(), ExchangeError> {
        let path = &self.path;
        self.writer.flush().map_err(|source| failed(path, source))?;
        self.writer.sync()?;
        let checksum = self.writer.inner().to_metadata();
        self.writer.append_key_value_metadata(checksum);
        let file = self.writer.into_inner();
        file.map_err(|source| failed(path, source))?.sync()?;
        Ok(())
    }
}

fn failed(path: &Path, source: ParquetError) -> ExchangeError {
    let path = path.to_owned();
    ExchangeError::Parquet { path, source }
}

/// Rows that wait to be written.
struct ItemRows {
    schema: SchemaRef,
    id: StringBuilder,
    modality: StringDictionaryBuilder<Int32Type>,
    shared: Floats,
    specific: Vec<(&'static str, Floats)>,
    payload: StringBuilder,
    text: StringBuilder,
    source: StringBuilder,
    content_hash: BinaryBuilder,
    bytes: usize,
}

impl ItemRows {
    fn new(spaces: &Spaces) -> Self {
        let key = Box::new(DataType::Int32);
        let modality = DataType::Dictionary(key, Box::new(DataType::Utf8));
        let mut fields = vec![
            Field::new(columns::ID, DataType::Utf8, false),
            Field::new(columns::MODALITY, modality, false),
            Field::new(columns::SHARED, Floats::data_type(spaces.shared_dim), false),
        ];
        let specific = columns::specific(spaces);
        for (name, dim) in &specific {
            fields.push(Field::new(*name, Floats::data_type(*dim), true));
        }
        fields.extend([
            Field::new(columns::PAYLOAD, DataType::Utf8, false),
            Field::new(columns::TEXT, DataType::Utf8, true),
            Field::new(columns::SOURCE, DataType::Utf8, true),
            Field::new(columns::CONTENT_HASH, DataType::Binary, true),
        ]);
        let specific = specific
            .into_iter()
            .map(|(name, dim)| (name, Floats::new(dim)));
        Self {
            schema: Arc::new(Schema::new(fields)),
            id: StringBuilder::new(),
            modality: StringDictionaryBuilder::new(),
            shared: Floats::new(spaces.shared_dim),
            specific: specific.collect(),
            payload: StringBuilder::new(),
            text: StringBuilder::new(),
            source: StringBuilder::new(),
            content_hash: BinaryBuilder::new(),
            bytes: 0,
        }
    }

    fn push(&mut self, item: &Item) {
        self.id.append_value(item.id.as_str());
        self.modality.append_value(item.modality.to_string());
        self.shared.push(Some(&item.shared));
        let all: Vec<&str> = self.specific.iter().map(|(name, _)| *name).collect();
        let own = columns::specific_of(item.modality, |name| all.contains(&name));
        for (name, floats) in &mut self.specific {
            floats.push(item.specific.as_ref().filter(|_| own == Some(name)));
        }
        let payload = json(&item.payload);
        self.payload.append_value(&payload);
        self.text.append_option(item.text.as_deref());
        self.source.append_option(item.source.as_deref());
        self.content_hash.append_option(item.content_hash);
        let dims = self
            .specific
            .iter()
            .map(|(_, floats)| floats.dim)
            .sum::<usize>();
        let words = [item.text.as_ref(), item.source.as_ref()];
        let words: usize = words.into_iter().flatten().map(String::len).sum();
        self.bytes += 4 * (self.shared.dim + dims) + payload.len() + words + 64;
    }

    fn write(&mut self, table: &mut TableWriter) -> Result<(), ExchangeError> {
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new(self.id.finish()),
            Arc::new(self.modality.finish()),
            self.shared.finish(),
        ];
        columns.extend(self.specific.iter_mut().map(|(_, floats)| floats.finish()));
        let more: [ArrayRef; 4] = [
            Arc::new(self.payload.finish()),
            Arc::new(self.text.finish()),
            Arc::new(self.source.finish()),
            Arc::new(self.content_hash.finish()),
        ];
        columns.extend(more);
        table.write(&self.schema, columns, std::mem::take(&mut self.bytes))
    }
}

/// A payload as the text of a column.
pub(crate) fn json(payload: &engine::Payload) -> String {
    serde_json::to_string(payload).expect("a payload is JSON")
}

/// A column of embeddings.
struct Floats {
    dim: usize,
    builder: FixedSizeListBuilder<Float32Builder>,
}

impl Floats {
    fn element() -> FieldRef {
        Arc::new(Field::new(ELEMENT, DataType::Float32, false))
    }

    fn data_type(dim: usize) -> DataType {
        DataType::FixedSizeList(Self::element(), dim as i32)
    }

    fn new(dim: usize) -> Self {
        let builder = FixedSizeListBuilder::new(Float32Builder::new(), dim as i32);
        let builder = builder.with_field(Self::element());
        Self { dim, builder }
    }

    fn push(&mut self, embedding: Option<&Embedding>) {
        match embedding {
            Some(embedding) => self.builder.values().append_slice(embedding.as_slice()),
            // What is null takes its place, too.
            None => self.builder.values().append_value_n(0.0, self.dim),
        }
        self.builder.append(embedding.is_some());
    }

    fn finish(&mut self) -> ArrayRef {
        Arc::new(self.builder.finish())
    }
}
