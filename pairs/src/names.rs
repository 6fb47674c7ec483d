//! Which files are pictures, by their names.

use std::{ffi::OsStr, path::Path};

use walkdir::DirEntry;

/// Endings of pictures that can be read. A build without AVIF says so for each.
pub const READ: [&str; 13] = [
    "avif", "bmp", "dib", "gif", "jfif", "jpe", "jpeg", "jpg", "png", "tif", "tiff", "webp", "apng",
];

/// Endings of pictures that cannot be read: they are reported, where other files are passed over.
pub const NOT_READ: [&str; 13] = [
    "arw", "cr2", "cr3", "dng", "heic", "heif", "jp2", "jxl", "nef", "orf", "psd", "raf", "svg",
];

/// Whether the name of a file is that of a picture, of a format that is read or not.
pub fn is_named_like_a_picture(path: &Path) -> bool {
    let Some(ending) = path.extension().map(OsStr::to_ascii_lowercase) else {
        return false;
    };
    READ.iter().chain(&NOT_READ).any(|known| ending == *known)
}

/// Whether an entry is not hidden, or was named itself.
pub fn is_shown(entry: &DirEntry) -> bool {
    entry.depth() == 0 || !entry.file_name().as_encoded_bytes().starts_with(b".")
}
