//! Small versions of uploaded pictures, so that the page can show what was uploaded.
//!
//! They are for eyes only: losing them loses no item and no embedding. Each lies in
//! `<root>/<collection>/<hash of the item's id>.png`, written aside and renamed.

use std::path::{Path, PathBuf};

use encoders::Picture;
use engine::ItemId;
use fs_err as fs;

/// Longest side of a thumbnail.
const SIDE: usize = 192;

/// A folder of thumbnails.
#[derive(Debug, Clone)]
pub(crate) struct Thumbnails {
    root: PathBuf,
}

impl Thumbnails {
    pub(crate) fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// Where the thumbnail of an item lies, if it has one. `collection` must be the name of an
    /// existing collection, which is a safe file name.
    pub(crate) fn path(&self, collection: &str, id: &ItemId) -> PathBuf {
        let name = blake3::hash(id.as_str().as_bytes()).to_hex();
        self.root.join(collection).join(format!("{name}.png"))
    }

    /// Keeps `png`, or with `None` forgets what was kept before. A failure is logged and costs
    /// only the thumbnail.
    pub(crate) fn put(&self, collection: &str, id: &ItemId, png: Option<&[u8]>) {
        let path = self.path(collection, id);
        let done = match png {
            Some(png) => write_aside(&path, png),
            None if path.exists() => fs::remove_file(&path),
            None => Ok(()),
        };
        if let Err(error) = done {
            tracing::warn!(error = %error, "a thumbnail is not kept");
        }
    }

    /// Forgets every thumbnail of a collection.
    pub(crate) fn remove_collection(&self, collection: &str) {
        let folder = self.root.join(collection);
        if folder.exists()
            && let Err(error) = fs::remove_dir_all(&folder)
        {
            tracing::warn!(error = %error, "thumbnails of a deleted collection are left over");
        }
    }
}

fn write_aside(path: &Path, png: &[u8]) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let aside = path.with_extension("part");
    fs::write(&aside, png)?;
    fs::rename(&aside, path)
}

/// A picture shrunk to at most [`SIDE`] pixels a side, on white where it is transparent, as PNG; `None` where PNG
/// cannot hold it.
pub(crate) fn make(picture: &Picture) -> Option<Vec<u8>> {
    let picture = picture.on_white();
    let (width, height) = (picture.width() as usize, picture.height() as usize);
    let (rgb, width, height) = shrink(picture.as_rgb(), width, height);
    let mut out = Vec::new();
    let mut encoder = png::Encoder::new(&mut out, width as u32, height as u32);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder.write_header().ok()?;
    writer.write_image_data(&rgb).ok()?;
    writer.finish().ok()?;
    Some(out)
}

/// Averages the source pixels below each target pixel. `rgb` is `[height, width, 3]`.
fn shrink(rgb: &[u8], width: usize, height: usize) -> (Vec<u8>, usize, usize) {
    let longest = width.max(height);
    if longest <= SIDE {
        return (rgb.to_vec(), width, height);
    }
    let side = |source: usize| (source * SIDE / longest).max(1);
    let (w, h) = (side(width), side(height));
    let mut out = Vec::with_capacity(w * h * 3);
    for y in 0..h {
        let rows = y * height / h..((y + 1) * height / h).max(y * height / h + 1);
        for x in 0..w {
            let columns = x * width / w..((x + 1) * width / w).max(x * width / w + 1);
            let mut sum = [0_u64; 3];
            for row in rows.clone() {
                let line = &rgb[(row * width + columns.start) * 3..(row * width + columns.end) * 3];
                for (i, value) in line.iter().enumerate() {
                    sum[i % 3] += u64::from(*value);
                }
            }
            let pixels = (rows.len() * columns.len()) as u64;
            out.extend(sum.map(|s| ((s + pixels / 2) / pixels) as u8));
        }
    }
    (out, w, h)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thumbnail_keeps_the_shape_and_the_mean_color() {
        let (width, height) = (1000, 37);
        let rgb: Vec<u8> = (0..width * height)
            .flat_map(|i| [200, (i % 2 * 100) as u8, 7])
            .collect();
        let (small, w, h) = shrink(&rgb, width, height);
        assert_eq!((w, h), (SIDE, 7));
        assert_eq!(small.len(), w * h * 3);
        for pixel in small.as_chunks::<3>().0 {
            assert_eq!((pixel[0], pixel[2]), (200, 7));
            assert!((40..=60).contains(&pixel[1]), "{pixel:?}");
        }
        assert_eq!(
            shrink(&rgb[..30], 5, 2).0,
            &rgb[..30],
            "a small picture is kept as it is"
        );
        assert_eq!(
            shrink(&vec![9; 5000 * 3], 1, 5000).1,
            1,
            "a thin picture keeps a pixel"
        );
    }
}
