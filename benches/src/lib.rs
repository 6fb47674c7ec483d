//! Generated data with fixed seeds, and the few measures, that the benches share.
//!
//! It is **not** a benchmark by itself: those are under `benches/benches` and `benches/peers`; its
//! README says how to run them. Nothing here is timed.
//!
//! ```
//! use benches::ClipLike;
//! use embedding::Modality;
//!
//! let world = ClipLike::new(64, 7);
//! let rows = world.rows(Modality::Image, 10, 1);
//! assert_eq!(rows, world.rows(Modality::Image, 10, 1));
//! ```

mod clip_like;
mod items;
mod measure;
mod npy;
mod picture;
mod random;

pub use clip_like::{ClipLike, LEAST_DIM};
pub use items::{item, spaces};
pub use measure::{Latencies, recall};
pub use npy::read_npy;
pub use picture::photo_like;
pub use random::Random;
