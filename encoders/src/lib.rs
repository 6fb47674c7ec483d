//! Turns pictures and texts into embeddings with the two towers of a model folder.
//!
//! It is **not** a store, an index or a server: bytes and model folders in, embeddings out.
//!
//! ```
//! use encoders::Model;
//!
//! let model = Model::builtin()?;
//! let texts = ["red heart".to_owned(), "cat face".to_owned()];
//! let embeddings = model.text().encode(&texts)?;
//! assert_eq!(embeddings[0].shared.dim(), model.spaces().shared_dim);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod builtin;
mod check;
mod complement;
mod cpu;
mod error;
mod folder;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod halves;
mod ingest;
mod keys;
mod load;
mod model;
pub mod nn;
mod picture;
mod place;
mod probes;
mod run;
mod sentences;
mod specific;
mod tokenize;
mod towers;
mod weights;

pub use check::{
    CheckRow, check, check_builtin, check_files, has_probes, verify, wants_verification,
    write_probes,
};
pub use cpu::wide;
pub use error::{ModelError, PictureError};
pub use folder::{
    Base, Card, Export, Measured, Retrained, SentenceExport, SentenceFolder, SentenceSource, Stored,
};
pub use ingest::{Done, encode_all};
pub use kernels::Precision;
pub use model::{Model, ModelInfo, TowerInfo};
pub use picture::*;
pub use place::{Place, RunOptions};
pub use probes::{Deviation, Probes};
pub use run::{BadChoice, PrecisionChoice};
pub use sentences::SentenceModel;
pub use tokenize::TextTokenizer;
