//! Turns pictures and texts into embeddings with the two towers of a model folder.
//!
//! It is **not** a store, an index or a server: bytes and model folders in, embeddings out.

mod error;
pub mod nn;
mod picture;
mod tokenize;

pub use error::{ModelError, PictureError};
pub use picture::*;
pub use tokenize::TextTokenizer;
