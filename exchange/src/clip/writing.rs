//! A collection into the layout of clip-retrieval.

use std::{path::Path, path::PathBuf, sync::Arc};

use arrow_array::{ArrayRef, builder::StringBuilder};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use embedding::Modality;
use engine::{Collection, Item};
use fs_err as fs;

use super::{CAPTION, IMAGE_PATH, IMAGES, METADATA, TEXTS, TEXTS_APART, file_name};
use crate::{
    About, ExchangeError, ExportOptions, Exported, NpyWriter, Precision,
    aside::{self, Aside},
    columns::{ID, PAYLOAD},
    sink::Progress,
    write::{self, BATCH_BYTES, TableWriter},
};

/// Writes a collection: images into the folder itself, texts into `texts` inside of it.
pub(crate) fn export(
    collection: &Collection,
    dest: &Path,
    options: &ExportOptions,
    progress: Progress<'_>,
) -> Result<Exported, ExchangeError> {
    let aside = Aside::new(dest)?;
    let stats = collection.stats();
    let part = |modality, expected: usize| {
        let files = expected as u64 / options.rows_per_file.max(1) + 1;
        Part {
            dir: match modality {
                Modality::Image => aside.path().to_owned(),
                Modality::Text => aside.path().join(TEXTS_APART),
            },
            modality,
            about: About::of(collection),
            options,
            // So that the order of names is that of numbers.
            digits: (files - 1).max(1).ilog10() as usize + 1,
            files: 0,
            file: None,
        }
    };
    let mut images = part(Modality::Image, stats.images);
    let mut texts = part(Modality::Text, stats.texts);
    fs::create_dir(aside.path())?;
    let exported = write::each(collection, options, progress, |item| match item.modality {
        Modality::Image => images.push(item),
        Modality::Text => texts.push(item),
    })?;
    if exported.images + exported.texts == 0 {
        images.start()?;
    }
    images.finish()?;
    texts.finish()?;
    aside::sync_folder(aside.path())?;
    aside.commit()?;
    Ok(exported)
}

/// All files of one modality.
struct Part<'a> {
    dir: PathBuf,
    modality: Modality,
    about: About,
    options: &'a ExportOptions,
    digits: usize,
    /// How many were started.
    files: u64,
    /// The last one.
    file: Option<Files>,
}

impl Part<'_> {
    fn folder(&self) -> &'static str {
        match self.modality {
            Modality::Image => IMAGES,
            Modality::Text => TEXTS,
        }
    }

    fn start(&mut self) -> Result<&mut Files, ExchangeError> {
        let number = format!("{:0width$}", self.files, width = self.digits);
        for folder in [self.folder(), METADATA] {
            fs::create_dir_all(self.dir.join(folder))?;
        }
        let path = |folder: &str| self.dir.join(folder).join(file_name(folder, &number));
        let precision = if self.options.half {
            Precision::Half
        } else {
            Precision::Single
        };
        let dim = self.about.spaces.shared_dim;
        let rows = MetadataRows::new(self.modality);
        let group = self.options.row_group_bytes;
        let files = Files {
            numbers: NpyWriter::create(&path(self.folder()), dim, precision)?,
            table: TableWriter::create(&path(METADATA), &rows.schema, &self.about, group)?,
            rows,
        };
        self.files += 1;
        Ok(self.file.insert(files))
    }

    fn push(&mut self, item: &Item) -> Result<(), ExchangeError> {
        let is_full = |files: &Files| files.numbers.rows() >= self.options.rows_per_file.max(1);
        if self.file.as_ref().is_some_and(is_full) {
            self.end_file()?;
        }
        let files = match &mut self.file {
            Some(files) => files,
            None => self.start()?,
        };
        files.numbers.push(item.shared.as_slice())?;
        files.rows.push(item);
        if files.rows.bytes >= BATCH_BYTES {
            files.rows.write(&mut files.table)?;
        }
        Ok(())
    }

    fn end_file(&mut self) -> Result<(), ExchangeError> {
        if let Some(mut files) = self.file.take() {
            files.rows.write(&mut files.table)?;
            files.table.finish()?;
            files.numbers.finish()?;
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<(), ExchangeError> {
        self.end_file()?;
        if self.files > 0 {
            for folder in [self.folder(), METADATA] {
                aside::sync_folder(&self.dir.join(folder))?;
            }
            aside::sync_folder(&self.dir)?;
        }
        Ok(())
    }
}

/// Files of one number.
struct Files {
    numbers: NpyWriter,
    table: TableWriter,
    rows: MetadataRows,
}

/// Rows of metadata that wait to be written.
struct MetadataRows {
    schema: SchemaRef,
    /// `image_path` or `caption`.
    main: StringBuilder,
    id: StringBuilder,
    payload: StringBuilder,
    bytes: usize,
}

impl MetadataRows {
    fn new(modality: Modality) -> Self {
        let main = match modality {
            Modality::Image => Field::new(IMAGE_PATH, DataType::Utf8, false),
            Modality::Text => Field::new(CAPTION, DataType::Utf8, true),
        };
        let id = Field::new(ID, DataType::Utf8, false);
        let payload = Field::new(PAYLOAD, DataType::Utf8, false);
        Self {
            schema: Arc::new(Schema::new(vec![main, id, payload])),
            main: StringBuilder::new(),
            id: StringBuilder::new(),
            payload: StringBuilder::new(),
            bytes: 0,
        }
    }

    fn push(&mut self, item: &Item) {
        let main = match item.modality {
            Modality::Image => Some(item.source.as_deref().unwrap_or(item.id.as_str())),
            Modality::Text => item.text.as_deref(),
        };
        let payload = write::json(&item.payload);
        self.bytes += main.map_or(0, str::len) + item.id.as_str().len() + payload.len();
        self.main.append_option(main);
        self.id.append_value(item.id.as_str());
        self.payload.append_value(payload);
    }

    fn write(&mut self, table: &mut TableWriter) -> Result<(), ExchangeError> {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(self.main.finish()),
            Arc::new(self.id.finish()),
            Arc::new(self.payload.finish()),
        ];
        table.write(&self.schema, columns, std::mem::take(&mut self.bytes))
    }
}
