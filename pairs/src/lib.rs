//! Pictures and their captions: out of a CSV or TSV, JSON lines, a folder, or `WebDataset` shards.
//!
//! It says where pictures are and reads their bytes. It does **not** decode them, and it keeps none:
//! in memory are the captions, and of each picture where it is.
//!
//! ```
//! let folder = tempfile::tempdir()?;
//! std::fs::write(folder.path().join("a.csv"), "image,caption\na.png,a dog\na.png,a hound\n")?;
//! let pairs = pairs::read(&[pairs::Source::new(folder.path().join("a.csv"))])?;
//! assert_eq!(pairs.pictures[0].captions, ["a dog", "a hound"]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod error;
mod folder;
mod location;
mod names;
mod pattern;
mod reader;
mod shards;
mod table;

pub use error::PairsError;
pub use location::{Location, ReadError, read_file};
pub use names::{NOT_READ, READ, is_named_like_a_picture, is_shown};
pub use reader::{Captioned, Pairs, Skipped, Source, read};
