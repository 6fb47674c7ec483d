//! Pictures of folders, as small copies in bounded memory.

use std::{
    borrow::Cow,
    ffi::OsStr,
    path::{Path, PathBuf},
};

use encoders::{
    DecodeLimits, Filter, Picture, PictureError, PreprocessConfig, RgbaPicture, decode,
};
use fs_err as fs;
use rayon::prelude::*;

use crate::TrainingError;

/// Endings of files that are taken for pictures; others are passed over.
const ENDINGS: [&str; 13] = [
    "apng", "avif", "bmp", "dib", "gif", "jfif", "jpe", "jpeg", "jpg", "png", "tif", "tiff", "webp",
];

/// Shorter side of a copy relative to what the tower sees, so that a crop of half of it is still sharp.
const COPY_SCALE: f64 = 1.5;

/// Files that are decoded at once before their copies are counted.
const AT_ONCE: usize = 128;

/// A file that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// The file.
    pub file: PathBuf,
    /// What is wrong with it, with all causes.
    pub reason: String,
}

/// All picture files below `folder`, in order. Links to files are followed and those to folders are not,
/// so that there are no circles; hidden files and folders are left out.
pub(super) fn find(folder: &Path) -> Result<Vec<PathBuf>, TrainingError> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with('.') {
                continue;
            }
            let path = entry.path();
            if entry.file_type()?.is_dir() {
                folders.push(path);
            } else if is_picture(&path) && path.is_file() {
                found.push(path);
            }
        }
    }
    found.sort_unstable();
    Ok(found)
}

fn is_picture(path: &Path) -> bool {
    let ending = path.extension().map(OsStr::to_ascii_lowercase);
    ending.is_some_and(|ending| ENDINGS.iter().any(|known| ending == *known))
}

/// How copies are made, and how much memory is left for them.
pub(super) struct Copying {
    /// What the tower wants to see: a copy holds what that shows, and no more.
    pub preprocess: PreprocessConfig,
    /// Shorter side of a copy at most, in pixels.
    side: u32,
    /// Bytes that are left.
    left: usize,
}

impl Copying {
    /// For a tower that sees squares of `side` pixels.
    pub(super) fn new(preprocess: PreprocessConfig, side: usize, memory_mib: usize) -> Self {
        Self {
            preprocess,
            side: (side as f64 * COPY_SCALE).ceil() as u32,
            left: memory_mib.saturating_mul(1 << 20),
        }
    }

    /// The copy of a file.
    fn copy(&self, file: &Path) -> Result<RgbaPicture, TrainingError> {
        let bytes = fs::read(file)?;
        let unusable = |source: PictureError| TrainingError::Picture {
            file: file.to_owned(),
            source,
        };
        let picture = decode(&bytes, &DecodeLimits::default()).map_err(unusable)?;
        let picture = self.preprocess.visible(picture);
        let picture = shrunk(picture, self.side).map_err(unusable)?;
        opaque(&picture).map_err(unusable)
    }
}

/// The picture with its shorter side at `side` pixels, where it is longer.
fn shrunk(picture: Picture, side: u32) -> Result<Picture, PictureError> {
    let (width, height) = (picture.width(), picture.height());
    let shorter = width.min(height);
    if shorter <= side {
        return Ok(picture);
    }
    let scaled = |x: u32| (u64::from(x) * u64::from(side) / u64::from(shorter)) as u32;
    picture.resize(scaled(width), scaled(height), Filter::Bicubic)
}

fn opaque(picture: &Picture) -> Result<RgbaPicture, PictureError> {
    let rgb = picture.as_rgb().as_chunks::<3>().0.iter();
    let rgba = rgb.flat_map(|[r, g, b]| [*r, *g, *b, 255]).collect();
    RgbaPicture::new(picture.width(), picture.height(), rgba)
}

/// Pictures that could be read.
pub(super) struct Pictures {
    files: Vec<PathBuf>,
    /// Copies of those that the memory had room for.
    copies: Vec<Option<RgbaPicture>>,
    copying: Copying,
}

impl Pictures {
    /// Decodes every file once. Those that cannot be used are returned beside.
    pub(super) fn read(files: &[PathBuf], mut copying: Copying) -> (Self, Vec<Skipped>) {
        let mut skipped = Vec::new();
        let (mut usable, mut copies) = (Vec::new(), Vec::new());
        for part in files.chunks(AT_ONCE) {
            let made: Vec<_> = part.par_iter().map(|file| copying.copy(file)).collect();
            for (file, copy) in part.iter().zip(made) {
                match copy {
                    Ok(copy) => {
                        let bytes = copy.as_rgba().len();
                        let fits = bytes <= copying.left;
                        copying.left -= if fits { bytes } else { 0 };
                        copies.push(fits.then_some(copy));
                        usable.push(file.clone());
                    }
                    Err(error) => skipped.push(Skipped {
                        file: file.clone(),
                        reason: chain(&error),
                    }),
                }
            }
        }
        let pictures = Self {
            files: usable,
            copies,
            copying,
        };
        (pictures, skipped)
    }

    /// Number of pictures.
    pub(super) fn len(&self) -> usize {
        self.files.len()
    }

    /// Where they came from, in the order in which they are numbered.
    pub(super) fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// The copy of picture `i`; read again where the memory had no room for it.
    pub(super) fn get(&self, i: usize) -> Result<Cow<'_, RgbaPicture>, TrainingError> {
        match &self.copies[i] {
            Some(copy) => Ok(Cow::Borrowed(copy)),
            None => Ok(Cow::Owned(self.copying.copy(&self.files[i])?)),
        }
    }

    /// Picture `i` as the tower sees it where it is served, `[3, side, side]`.
    pub(super) fn prepared(&self, i: usize) -> Result<Vec<f32>, TrainingError> {
        let copy = self.get(i)?;
        let pixels = copy.as_rgba().as_chunks::<4>().0.iter();
        let rgb = pixels.flat_map(|[r, g, b, _]| [*r, *g, *b]).collect();
        let picture = Picture::new(copy.width(), copy.height(), rgb);
        let picture = picture.map_err(|source| TrainingError::Picture {
            file: self.files[i].clone(),
            source,
        })?;
        let pixels = self.copying.preprocess.prepare(&picture);
        Ok(pixels.as_slice().to_vec())
    }

    /// How copies are made; its memory is what these left.
    pub(super) fn copying(&self) -> Copying {
        Copying {
            preprocess: self.copying.preprocess.clone(),
            ..self.copying
        }
    }
}

/// An error and its causes in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        words = format!("{words}: {cause}");
        source = cause.source();
    }
    words
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use encoders::Normalization;

    use super::*;

    fn copying(memory_mib: usize) -> Copying {
        let side = NonZeroU32::new(8).expect("not 0");
        let preprocess = PreprocessConfig::squash(side, Filter::Bicubic, Normalization::HALF);
        Copying::new(preprocess, 8, memory_mib)
    }

    fn png(width: u32, height: u32, level: u8) -> Vec<u8> {
        let rgba = vec![level; (4 * width * height) as usize];
        let picture = RgbaPicture::new(width, height, rgba);
        picture.expect("sizes fit").to_png()
    }

    #[test]
    fn pictures_are_found_in_order_below_a_folder_and_what_is_broken_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let deep = folder.path().join("a/b");
        fs::create_dir_all(&deep).expect("makes");
        for (name, bytes) in [
            ("a/b/2.PNG", png(30, 20, 9)),
            ("1.png", png(4, 4, 7)),
            ("a/broken.jpg", b"\xff\xd8\xff\xe0 nothing".to_vec()),
            ("notes.txt", b"words".to_vec()),
            (".hidden.png", png(4, 4, 1)),
        ] {
            fs::write(folder.path().join(name), bytes).expect("writes");
        }
        let files = find(folder.path()).expect("finds");
        let names = ["1.png", "a/b/2.PNG", "a/broken.jpg"];
        assert_eq!(files, names.map(|name| folder.path().join(name)));
        let (pictures, skipped) = Pictures::read(&files, copying(1));
        assert_eq!(pictures.len(), 2);
        assert_eq!(skipped.len(), 1);
        assert!(skipped[0].file.ends_with("a/broken.jpg"));
        assert!(skipped[0].reason.contains("JPEG"), "{:?}", skipped[0]);
        let large = pictures.get(1).expect("a copy");
        assert_eq!((large.width(), large.height()), (18, 12));
        assert_eq!(pictures.prepared(0).expect("pixels").len(), 3 * 64);
    }

    #[test]
    fn what_memory_has_no_room_for_is_read_again_and_is_the_same() {
        let folder = tempfile::tempdir().expect("a folder");
        let files: Vec<PathBuf> = (0..3)
            .map(|i| folder.path().join(format!("{i}.png")))
            .collect();
        for (i, file) in files.iter().enumerate() {
            fs::write(file, png(40, 40, 50 + i as u8)).expect("writes");
        }
        let (all, _) = Pictures::read(&files, copying(1));
        let mut little = copying(0);
        little.left = 2 * 4 * 12 * 12 + 1;
        let (some, _) = Pictures::read(&files, little);
        let kept: Vec<bool> = some.copies.iter().map(Option::is_some).collect();
        assert_eq!(kept, [true, true, false]);
        assert_eq!(some.copying().left, 1);
        for i in 0..3 {
            let (a, b) = (all.get(i).expect("kept"), some.get(i).expect("read"));
            assert_eq!(*a, *b);
        }
    }
}
