//! What the fuzz targets in `fuzz/` call, and no part of the API: each takes bytes as a disk or a
//! user might give them, and panics where the engine would, or where two ways to the same answer
//! come to different ones. The tests run all of them on the corpus that is kept (`tests/corpus.rs`).
//!
//! Checksums would hide everything behind them: nobody guesses one. Each target therefore takes the
//! bytes once as they are, and once with the checksums put right.

mod requests;
mod seeds;
mod values;

pub use seeds::seeds;

use crate::{segment_file, snapshot};

/// A target takes any bytes.
pub type Target = fn(&[u8]);

/// Every target, by its name.
pub const TARGETS: [(&str, Target); 9] = [
    ("segment_file", segment_file::fuzzing::run),
    ("record", values::record),
    ("page", values::page),
    ("calibration", values::calibration),
    ("description", values::description),
    ("store", values::store),
    ("snapshot", snapshot::fuzzing::run),
    ("filter", requests::filter),
    ("cursor", requests::cursor),
];

/// The target with this name.
///
/// # Panics
/// When there is none.
pub fn target(name: &str) -> Target {
    let found = TARGETS.iter().find(|(of, _)| *of == name);
    found.expect("a target of this name").1
}
