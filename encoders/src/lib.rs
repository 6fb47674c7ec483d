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
mod complement;
mod cpu;
mod error;
mod folder;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod ingest;
mod keys;
mod model;
pub mod nn;
mod picture;
mod tokenize;
mod towers;
mod weights;

pub use error::{ModelError, PictureError};
pub use folder::{Card, Export, Precision};
pub use ingest::{Done, encode_all};
pub use model::{Model, ModelInfo};
pub use picture::*;
pub use tokenize::TextTokenizer;
