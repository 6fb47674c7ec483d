//! What is called: a collection into a file or folder, and back.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use embedding::Spaces;
use engine::Collection;

use crate::{
    About, ExchangeError, ExportOptions, Exported, ImportOptions, Imported,
    clip::{self, ClipFolder},
    columns,
    sink::{Progress, Sink},
    table::Table,
    write,
};

/// How items lie in files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One Parquet file, from which everything comes back.
    Parquet,
    /// A folder as clip-retrieval makes them: shared embeddings in `.npy`, the rest in Parquet.
    ClipRetrieval,
}

impl Format {
    /// What a name stands for: a file that ends in `.parquet`, or a folder.
    pub fn of(path: &Path) -> Self {
        let ending = path.extension().unwrap_or_default();
        if ending.eq_ignore_ascii_case("parquet") && !path.is_dir() {
            Self::Parquet
        } else {
            Self::ClipRetrieval
        }
    }
}

/// Writes a collection into a file or folder that is not there yet and appears when it is complete.
/// `progress` is told how many items were written. What others write meanwhile may be in it or not.
///
/// # Errors
/// When something of that name is there, when an item is damaged (unless
/// [`ExportOptions::skip_bad`]), or when the collection or the disk fails. Nothing is left then.
pub fn export(
    collection: &Collection,
    dest: &Path,
    format: Format,
    options: &ExportOptions,
    progress: &mut dyn FnMut(u64),
) -> Result<Exported, ExchangeError> {
    match format {
        Format::Parquet => write::parquet(collection, dest, options, progress),
        Format::ClipRetrieval => clip::export(collection, dest, options, progress),
    }
}

/// A file or folder that was opened: what it is is known, no row was read.
#[derive(Debug)]
pub struct Source {
    path: PathBuf,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Parquet(Table),
    ClipRetrieval(ClipFolder),
}

impl Source {
    /// Opens a file or folder.
    ///
    /// # Errors
    /// When it cannot be read, is damaged, or its files do not fit together.
    pub fn open(path: &Path, format: Format) -> Result<Self, ExchangeError> {
        let kind = match format {
            Format::Parquet => Kind::Parquet(Table::open(path)?),
            Format::ClipRetrieval => Kind::ClipRetrieval(ClipFolder::open(path)?),
        };
        let path = path.to_owned();
        Ok(Self { path, kind })
    }

    /// What it says of itself; `None` if another program made it.
    pub fn about(&self) -> Option<&About> {
        match &self.kind {
            Kind::Parquet(table) => table.about(),
            Kind::ClipRetrieval(folder) => folder.about(),
        }
    }

    /// How many rows of embeddings it has, as it says.
    pub fn rows(&self) -> u64 {
        match &self.kind {
            Kind::Parquet(table) => table.rows(),
            Kind::ClipRetrieval(folder) => folder.rows(),
        }
    }

    /// Whether its rows can become items of a collection of this model, as far as that can be told
    /// without reading them.
    ///
    /// # Errors
    /// When nothing says which model made the embeddings (unless [`ImportOptions::as_model`]), when
    /// it was another, or when a column is missing or of another type.
    pub fn check(
        &self,
        collection: &str,
        spaces: &Spaces,
        options: ImportOptions,
    ) -> Result<(), ExchangeError> {
        let path = || self.path.clone();
        match self.about() {
            Some(about) if about.spaces.same_model(spaces) => {}
            Some(about) => {
                return Err(ExchangeError::AnotherModel {
                    path: path(),
                    made_by: about.spaces.shared().to_string(),
                    collection: collection.to_owned(),
                    expected: spaces.shared().to_string(),
                });
            }
            None if options.as_model => {}
            None => return Err(ExchangeError::UnknownModel { path: path() }),
        }
        match &self.kind {
            Kind::Parquet(table) => columns::check(table, spaces, options),
            Kind::ClipRetrieval(folder) => folder.check(spaces),
        }
    }

    /// Puts its rows into a collection, in batches that are durable one after the other: after an
    /// interruption, the same again has the same result. `progress` is told how many rows were
    /// read.
    ///
    /// # Errors
    /// As for [`Source::check`]; when a row is no item (unless [`ImportOptions::skip_bad`]), or
    /// when the file or the store fails. Batches before that stay.
    pub fn import(
        &self,
        collection: &Arc<Collection>,
        options: ImportOptions,
        progress: Progress<'_>,
    ) -> Result<Imported, ExchangeError> {
        self.check(collection.name(), collection.spaces(), options)?;
        let sink = Sink::new(collection, options, progress);
        match &self.kind {
            Kind::Parquet(table) => columns::read(table, collection.spaces(), sink),
            Kind::ClipRetrieval(folder) => folder.read(collection.spaces(), sink),
        }
    }
}
