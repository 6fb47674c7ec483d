//! The words that the rest of Diptych speaks: what an embedding is, which embeddings may meet, and
//! what an encoder promises.
//!
//! It is **not** a model, an index or a store: it holds no weights, no files and no threads, so
//! that `engine` can be built without any network code and `encoders` without any disk code.
//!
//! ```
//! use embedding::{Embedding, EmbeddingError};
//!
//! let e = Embedding::normalized(vec![3.0, 4.0])?;
//! assert_eq!(e.as_slice(), &[0.6, 0.8]);
//! assert!((e.cosine(&e) - 1.0).abs() < 1e-6);
//! assert!(matches!(Embedding::normalized(vec![0.0, 0.0]), Err(EmbeddingError::ZeroLength { .. })));
//! # Ok::<(), EmbeddingError>(())
//! ```

mod encoder;
mod mix;
mod scoring;
mod space;
mod unit;

pub use encoder::{EncodeError, Encoded, Encoder, HashEncoder, check_contract};
pub use mix::mix;
pub use scoring::Scoring;
pub use space::{Aspect, Fingerprint, Modality, Space, SpaceError, Spaces};
pub use unit::{Embedding, EmbeddingError, UNIT_TOLERANCE};
