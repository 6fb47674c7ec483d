//! The layout of clip-retrieval into a collection.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use arrow_array::RecordBatch;
use arrow_schema::DataType;
use embedding::{Modality, Spaces};
use engine::Item;
use fs_err as fs;

use super::{CAPTION, IMAGE_PATH, IMAGES, METADATA, TEXTS, TEXTS_APART, file_name};
use crate::{
    About, ExchangeError, Ids, Imported, NpyReader, RowProblem, cells,
    columns::{self, ID, PAYLOAD, SHARED},
    sink::{Sink, embedding, item_id},
    table::Table,
};

/// Columns of the metadata that are not parts of a payload as they are.
const KNOWN: [&str; 4] = [ID, IMAGE_PATH, CAPTION, PAYLOAD];

/// A folder that was opened: its files are there and have equally many rows.
#[derive(Debug)]
pub(crate) struct ClipFolder {
    files: Vec<Files>,
    about: Option<About>,
}

/// Files of one number.
#[derive(Debug)]
struct Files {
    number: String,
    images: Option<PathBuf>,
    texts: Option<PathBuf>,
    metadata: Option<PathBuf>,
    rows: u64,
}

impl ClipFolder {
    pub(crate) fn open(path: &Path) -> Result<Self, ExchangeError> {
        let mut files = Vec::new();
        for dir in [path.to_owned(), path.join(TEXTS_APART)] {
            files.extend(find(&dir)?);
        }
        if files.is_empty() {
            return Err(ExchangeError::Layout {
                path: path.to_owned(),
                reason: format!(
                    "expected a folder with {IMAGES}/{} or {TEXTS}/{}",
                    file_name(IMAGES, "0"),
                    file_name(TEXTS, "0")
                ),
            });
        }
        let mut about = None;
        for (i, files) in files.iter_mut().enumerate() {
            let table = files.metadata.as_deref().map(Table::open).transpose()?;
            let says = table.as_ref().and_then(Table::about);
            if i == 0 {
                about = says.cloned();
            } else if says != about.as_ref() {
                let path = files.metadata.clone().unwrap_or_else(|| path.to_owned());
                let reason = "it says otherwise than the others which model made the embeddings";
                let reason = reason.to_owned();
                return Err(ExchangeError::Layout { path, reason });
            }
            let mut counts = Vec::new();
            for path in [&files.images, &files.texts].into_iter().flatten() {
                counts.push((path, NpyReader::open(path)?.rows()));
            }
            counts.extend(files.metadata.as_ref().zip(table.map(|table| table.rows())));
            let Some(((first, rows), rest)) = counts.split_first() else {
                continue;
            };
            if let Some((path, other)) = rest.iter().find(|(_, other)| other != rows) {
                return Err(ExchangeError::Layout {
                    path: (*path).clone(),
                    reason: format!("it has {other} rows, {} has {rows}", first.display()),
                });
            }
            files.rows = *rows;
        }
        Ok(Self { files, about })
    }

    pub(crate) fn about(&self) -> Option<&About> {
        self.about.as_ref()
    }

    pub(crate) fn rows(&self) -> u64 {
        let kinds = |files: &Files| files.images.iter().chain(&files.texts).count() as u64;
        self.files
            .iter()
            .map(|files| files.rows * kinds(files))
            .sum()
    }

    /// Checks dims, and types of columns.
    pub(crate) fn check(&self, spaces: &Spaces) -> Result<(), ExchangeError> {
        for files in &self.files {
            for path in [&files.images, &files.texts].into_iter().flatten() {
                let (dim, expected) = (NpyReader::open(path)?.dim(), spaces.shared_dim);
                if dim != expected {
                    return Err(ExchangeError::Layout {
                        path: path.clone(),
                        reason: format!("its rows have {dim} numbers, expected {expected}"),
                    });
                }
            }
            if let Some(path) = &files.metadata {
                let table = Table::open(path)?;
                let is_id = |t: &DataType| *t == DataType::Utf8 || t.is_integer();
                columns::check_type(&table, ID, "Utf8 or integers", is_id)?;
                columns::check_type(&table, IMAGE_PATH, "Utf8 or integers", is_id)?;
                for name in [CAPTION, PAYLOAD] {
                    columns::check_type(&table, name, "Utf8", |t| *t == DataType::Utf8)?;
                }
            }
        }
        Ok(())
    }

    pub(crate) fn read(
        &self,
        spaces: &Spaces,
        mut sink: Sink<'_>,
    ) -> Result<Imported, ExchangeError> {
        for files in &self.files {
            files.read(spaces, &mut sink)?;
        }
        sink.finish()
    }
}

/// The files in a folder, by number.
fn find(dir: &Path) -> Result<Vec<Files>, ExchangeError> {
    let mut found: BTreeMap<u64, Files> = BTreeMap::new();
    let mut has_metadata = false;
    for kind in [IMAGES, TEXTS, METADATA] {
        let folder = dir.join(kind);
        if !folder.is_dir() {
            continue;
        }
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            let Some((key, number)) = number(&path, kind) else {
                continue;
            };
            let files = found.entry(key).or_insert_with(|| Files {
                number,
                images: None,
                texts: None,
                metadata: None,
                rows: 0,
            });
            match kind {
                IMAGES => files.images = Some(path),
                TEXTS => files.texts = Some(path),
                _ => {
                    has_metadata = true;
                    files.metadata = Some(path);
                }
            }
        }
    }
    let files: Vec<Files> = found.into_values().collect();
    for Files {
        number,
        images,
        texts,
        metadata,
        ..
    } in &files
    {
        let missing = match (images.is_some() || texts.is_some(), metadata.is_some()) {
            (false, _) => file_name(IMAGES, number),
            (true, false) if has_metadata => file_name(METADATA, number),
            _ => continue,
        };
        return Err(ExchangeError::Layout {
            path: dir.to_owned(),
            reason: format!("there is no {missing}"),
        });
    }
    Ok(files)
}

/// The number in the name of a file, also as it is written.
fn number(path: &Path, kind: &str) -> Option<(u64, String)> {
    let name = path.file_name()?.to_str()?;
    let number = name
        .strip_prefix(kind)?
        .strip_prefix('_')?
        .split_once('.')?
        .0;
    (name == file_name(kind, number)).then_some((number.parse().ok()?, number.to_owned()))
}

/// What the metadata say of a row.
struct Row<'a> {
    metadata: Option<(&'a RecordBatch, usize)>,
    others: &'a [String],
    /// What ids are made of.
    name: String,
    /// Whether it is an id that is good for a text, too.
    is_own: bool,
}

impl Files {
    fn read(&self, spaces: &Spaces, sink: &mut Sink<'_>) -> Result<(), ExchangeError> {
        let open = |path: &Option<PathBuf>| path.as_deref().map(NpyReader::open).transpose();
        let mut readers = [
            (Modality::Image, open(&self.images)?),
            (Modality::Text, open(&self.texts)?),
        ];
        let table = self.metadata.as_deref().map(Table::open).transpose()?;
        let Some(table) = &table else {
            for number in 0..self.rows {
                let row = self.row(None, &[], number, sink.options.ids);
                take(&mut readers, number, &row, spaces, sink)?;
            }
            return Ok(());
        };
        let (others, ignored) = columns::others(table, &KNOWN);
        for column in ignored {
            if !sink.report.ignored_columns.contains(&column) {
                sink.report.ignored_columns.push(column);
            }
        }
        let is_wanted = |name: &str| KNOWN.contains(&name) || others.iter().any(|o| o == name);
        let mut number = 0;
        for batch in table.batches(is_wanted)? {
            let batch = batch?;
            for i in 0..batch.num_rows() {
                let row = self.row(Some((&batch, i)), &others, number, sink.options.ids);
                take(&mut readers, number, &row, spaces, sink)?;
                number += 1;
            }
        }
        if number == self.rows {
            return Ok(());
        }
        Err(ExchangeError::Damaged {
            path: table.path().to_owned(),
            reason: format!("it has {number} rows, but says {}", self.rows),
        })
    }

    fn row<'a>(
        &self,
        metadata: Option<(&'a RecordBatch, usize)>,
        others: &'a [String],
        number: u64,
        ids: Ids,
    ) -> Row<'a> {
        let text = |name| metadata.and_then(|(batch, row)| columns::id_text(batch, name, row));
        let by_path = |name| text(name).filter(|_| ids == Ids::Path);
        let own = by_path(ID);
        Row {
            metadata,
            others,
            // An image and a text of one row need two ids.
            is_own: own.is_some() && (self.images.is_none() || self.texts.is_none()),
            name: own
                .or_else(|| by_path(IMAGE_PATH))
                .unwrap_or_else(|| format!("{}:{number}", self.number)),
        }
    }
}

/// Takes the next row of each reader.
fn take(
    readers: &mut [(Modality, Option<NpyReader>)],
    number: u64,
    row: &Row<'_>,
    spaces: &Spaces,
    sink: &mut Sink<'_>,
) -> Result<(), ExchangeError> {
    for (modality, reader) in readers {
        let Some(reader) = reader else { continue };
        let Some(numbers) = reader.next().transpose()? else {
            return Err(ExchangeError::Damaged {
                path: reader.path().to_owned(),
                reason: format!("it has {number} rows, the metadata have more"),
            });
        };
        let id = row.id(*modality);
        let made = row.item(*modality, numbers, spaces, sink);
        sink.take(reader.path(), number, Some(&id), made)?;
    }
    Ok(())
}

impl Row<'_> {
    fn id(&self, modality: Modality) -> String {
        match modality {
            Modality::Text if !self.is_own => format!("{CAPTION}:{}", self.name),
            _ => self.name.clone(),
        }
    }

    fn item(
        &self,
        modality: Modality,
        numbers: Vec<f32>,
        spaces: &Spaces,
        sink: &Sink<'_>,
    ) -> Result<Item, RowProblem> {
        let shared = embedding(SHARED, numbers, spaces.shared_dim, sink.options)?;
        let mut item = Item::new(item_id(Some(self.id(modality)))?, modality, shared);
        let Some((batch, row)) = self.metadata else {
            return Ok(item);
        };
        item.payload = columns::payload(batch, row, self.others)?;
        let image_path = columns::id_text(batch, IMAGE_PATH, row);
        let caption = batch
            .column_by_name(CAPTION)
            .and_then(|c| cells::text(c, row));
        // What is no part of the item itself is worth keeping beside it.
        let (aside, value) = match modality {
            Modality::Image => {
                item.source = image_path;
                (CAPTION, caption.map(str::to_owned))
            }
            Modality::Text => {
                item.text = caption.map(str::to_owned);
                (IMAGE_PATH, image_path)
            }
        };
        if let Some(value) = value {
            item.payload.insert(aside.to_owned(), value.into());
        }
        Ok(item)
    }
}
