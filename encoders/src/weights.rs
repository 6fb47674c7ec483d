//! The memory of weights: maps of their files, and what was needed to pack them.
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

/// Gives memory that was needed for a while back to the system: glibc keeps what each thread freed, which after
/// packing is up to a third of the weights.
pub(crate) fn give_back_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: it takes any number of bytes to keep, and is safe beside other threads.
    unsafe {
        libc::malloc_trim(0);
    }
}
