//! A Parquet file, read in batches of bounded size; whatever is in it, it is an error at worst.
//!
//! Types are those of Parquet itself, without the hints that Arrow leaves in the metadata: whether
//! a program wrote `large_utf8`, `dictionary` or `FixedSizeList`, here it is `Utf8` and `List`.

use std::{
    fmt::Display,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::Arc,
};

use arrow_array::RecordBatch;
use arrow_schema::{DataType, Schema, SchemaRef};
use parquet::{
    arrow::{
        ProjectionMask,
        arrow_reader::{
            ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader,
            ParquetRecordBatchReaderBuilder,
        },
    },
    errors::ParquetError,
    file::metadata::ParquetMetaData,
};

use crate::{About, ExchangeError, about};

/// Bytes that a batch takes, going by the average of a row group.
const BATCH_BYTES: u64 = 8 << 20;
/// Most rows of a batch.
const BATCH_ROWS: u64 = 1024;

/// A file that was opened: its schema is known, no row was read.
#[derive(Debug)]
pub(crate) struct Table {
    path: PathBuf,
    metadata: ArrowReaderMetadata,
    /// With the hints of Arrow, for lists of a fixed size; `None` where they cannot be read.
    hinted: Option<SchemaRef>,
    about: Option<About>,
}

impl Table {
    /// Opens a file, and compares it with its checksum if it is one of ours.
    pub(crate) fn open(path: &Path) -> Result<Self, ExchangeError> {
        let (file, _) = fs_err::File::open(path)?.into_parts();
        let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
        let metadata = guard(path, || ArrowReaderMetadata::load(&file, options))?;
        let file_metadata = metadata.metadata().file_metadata();
        let all: Arc<ParquetMetaData> = metadata.metadata().clone();
        let hinted = guard(path, || {
            ArrowReaderMetadata::try_new(all, ArrowReaderOptions::new())
        });
        let about = About::read(path, file_metadata)?;
        about::verify(path, file_metadata)?;
        Ok(Self {
            path: path.to_owned(),
            hinted: hinted.ok().map(|metadata| metadata.schema().clone()),
            about,
            metadata,
        })
    }

    /// The file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// What it says of itself.
    pub(crate) fn about(&self) -> Option<&About> {
        self.about.as_ref()
    }

    /// How many rows it has, as it says.
    pub(crate) fn rows(&self) -> u64 {
        let rows = self.metadata.metadata().file_metadata().num_rows();
        rows.try_into().unwrap_or(0)
    }

    /// Its columns.
    pub(crate) fn schema(&self) -> &Schema {
        self.metadata.schema()
    }

    /// Type of a column, for people: as it was meant.
    pub(crate) fn type_of(&self, column: &str) -> String {
        let hinted = self
            .hinted
            .as_ref()
            .and_then(|s| s.field_with_name(column).ok());
        let plain = || self.schema().field_with_name(column).ok();
        let found = hinted.or_else(plain);
        found.map_or_else(|| "unknown".into(), |field| readable(field.data_type()))
    }

    /// How many elements every list of the column has, if that was written down.
    pub(crate) fn fixed_size(&self, column: &str) -> Option<usize> {
        match self
            .hinted
            .as_ref()?
            .field_with_name(column)
            .ok()?
            .data_type()
        {
            DataType::FixedSizeList(_, dim) => usize::try_from(*dim).ok(),
            _ => None,
        }
    }

    /// The rows, with these columns.
    pub(crate) fn batches(
        &self,
        is_wanted: impl Fn(&str) -> bool,
    ) -> Result<Batches<'_>, ExchangeError> {
        let (file, _) = fs_err::File::open(&self.path)?.into_parts();
        let fields = self.schema().fields().iter().enumerate();
        let wanted = fields.filter(|(_, field)| is_wanted(field.name()));
        let wanted = wanted.map(|(i, _)| i).collect::<Vec<_>>();
        let metadata = self.metadata.clone();
        let reader = guard(&self.path, || {
            let mask = ProjectionMask::roots(metadata.parquet_schema(), wanted);
            ParquetRecordBatchReaderBuilder::new_with_metadata(file, metadata)
                .with_projection(mask)
                .with_batch_size(self.batch_rows())
                .build()
        })?;
        Ok(Batches {
            path: &self.path,
            reader: Some(reader),
        })
    }

    fn batch_rows(&self) -> usize {
        let groups = self.metadata.metadata().row_groups().iter();
        let heaviest = groups
            .map(|g| g.total_byte_size().max(0) / g.num_rows().max(1))
            .max();
        let row_bytes = heaviest.unwrap_or(1).max(1) as u64;
        (BATCH_BYTES / row_bytes).clamp(1, BATCH_ROWS) as usize
    }
}

/// The rows of a file, some at a time. An error is the last.
pub(crate) struct Batches<'a> {
    path: &'a Path,
    reader: Option<ParquetRecordBatchReader>,
}

impl Iterator for Batches<'_> {
    type Item = Result<RecordBatch, ExchangeError>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut reader = self.reader.take()?;
        let read = guard(self.path, || {
            let batch = reader.next().transpose()?;
            Ok::<_, ParquetError>(batch.map(|batch| (batch, reader)))
        });
        read.map(|read| {
            let (batch, reader) = read?;
            self.reader = Some(reader);
            Some(batch)
        })
        .transpose()
    }
}

/// Calls the library, which has panicked on damaged files.
fn guard<T>(
    path: &Path,
    call: impl FnOnce() -> Result<T, ParquetError>,
) -> Result<T, ExchangeError> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(result) => result.map_err(|source| ExchangeError::Parquet {
            path: path.to_owned(),
            source,
        }),
        Err(_) => Err(ExchangeError::Damaged {
            path: path.to_owned(),
            reason: "the Parquet library panicked on it".into(),
        }),
    }
}

/// A type as users of pyarrow know it.
fn readable(data_type: &DataType) -> String {
    let list = |kind: &str, item: &DataType, more: &dyn Display| {
        format!("{kind}<{}{more}>", readable(item))
    };
    match data_type {
        DataType::List(item) => list("List", item.data_type(), &""),
        DataType::LargeList(item) => list("LargeList", item.data_type(), &""),
        DataType::FixedSizeList(item, dim) => {
            list("FixedSizeList", item.data_type(), &format!(", {dim}"))
        }
        DataType::Float16 => "float16".into(),
        DataType::Float32 => "float32".into(),
        DataType::Float64 => "float64".into(),
        other => other.to_string(),
    }
}
