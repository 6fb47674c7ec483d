//! Items as files that other programs read and write: Parquet, and the folder of `.npy` and Parquet
//! files that clip-retrieval makes. docs/exchange.md describes both for users.
//!
//! It is **not** a backup of a moment (others may write while items are read), and no network, no
//! model and no HTTP are known here: embeddings come from the collection or from the file.
//!
//! ```
//! # #[cfg(feature = "collections")] {
//! use embedding::{Encoder, HashEncoder, Modality};
//! use engine::{Engine, EngineConfig, Item, ItemId};
//! use exchange::{ExportOptions, Format, ImportOptions, Source, export};
//!
//! let encoder = HashEncoder::new(Modality::Text, 16);
//! let spaces = Encoder::<&str>::spaces(&encoder).clone();
//! let engine = Engine::in_memory(EngineConfig::default());
//! let notes = engine.create("notes", &spaces)?;
//! let encoded = encoder.encode(&["a red bicycle"])?.remove(0);
//! notes.upsert(vec![Item::new(ItemId::new("a")?, Modality::Text, encoded.shared)])?;
//!
//! let dir = tempfile::tempdir()?;
//! let file = dir.path().join("notes.parquet");
//! export(&notes, &file, Format::Parquet, &ExportOptions::default(), &mut |_| ())?;
//!
//! let copy = engine.create("copy", &spaces)?;
//! let source = Source::open(&file, Format::Parquet)?;
//! source.import(&copy, &ImportOptions::default(), &mut |_| ())?;
//! assert_eq!(copy.get(&ItemId::new("a")?)?, notes.get(&ItemId::new("a")?)?);
//! # }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Reading order: [`export`] and [`Source`] (`source`) are what is called. `table` reads Parquet
//! files row by row, `cells` their values; `columns` and `clip` know the two layouts; `sink` puts
//! rows into a collection; `write` writes Parquet. [`NpyReader`] and [`NpyWriter`] stand beside,
//! and are all that is left without the feature `collections`.

#![allow(
    clippy::result_large_err,
    clippy::trivially_copy_pass_by_ref,
    reason = "errors end a whole file, and options are handed on as they came"
)]

#[cfg(feature = "collections")]
mod about;
#[cfg(feature = "collections")]
mod aside;
#[cfg(feature = "collections")]
mod cells;
#[cfg(feature = "collections")]
mod clip;
#[cfg(feature = "collections")]
mod columns;
#[cfg(feature = "collections")]
mod error;
mod npy;
#[cfg(feature = "collections")]
mod sink;
#[cfg(feature = "collections")]
mod source;
#[cfg(feature = "collections")]
mod table;
#[cfg(feature = "collections")]
mod write;

pub use npy::{NpyError, NpyReader, NpyWriter, Precision};
#[cfg(feature = "collections")]
pub use {
    about::About,
    error::{BadRow, ExchangeError, RowProblem},
    sink::{Ids, ImportOptions, Imported},
    source::{Format, Source, export},
    write::{ExportOptions, Exported},
};
