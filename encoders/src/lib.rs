//! Turns pictures and texts into embeddings with the two towers of a model folder.
//!
//! It is **not** a store, an index or a server: bytes and model folders in, embeddings out.

mod error;
mod picture;

pub use error::{ModelError, PictureError};
pub use picture::*;
