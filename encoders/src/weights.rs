//! The memory map of a weights file.
#![allow(unsafe_code)]

use std::path::Path;

use fs_err as fs;
use memmap2::Mmap;

use crate::ModelError;

/// Maps a file for reading, so that weights are converted without a second copy in memory.
pub(crate) fn map_file(path: &Path) -> Result<Mmap, ModelError> {
    let file = fs::File::open(path)?;
    // SAFETY: the map is read-only and lives only while a model is loaded. Somebody who truncates
    // the file in these moments ends the process with a signal; every loader of weights that maps
    // its files shares that limit, and the alternative is twice the memory.
    Ok(unsafe { Mmap::map(file.file()) }?)
}
