//! The layout of clip-retrieval: `img_emb/img_emb_0.npy`, `text_emb/text_emb_0.npy` and
//! `metadata/metadata_0.parquet`, and more of each with higher numbers. Row i of one belongs to
//! row i of the others with its number.

mod reading;
mod writing;

pub(crate) use reading::ClipFolder;
pub(crate) use writing::export;

/// Folders, which are also what the names of their files start with.
const IMAGES: &str = "img_emb";
const TEXTS: &str = "text_emb";
const METADATA: &str = "metadata";
/// A folder of the same layout inside that has the texts of an export. A collection keeps no pairs,
/// and clip-retrieval takes row i of texts and row i of images for one.
const TEXTS_APART: &str = "texts";

const IMAGE_PATH: &str = "image_path";
const CAPTION: &str = "caption";

/// Name of a file, in its folder.
fn file_name(kind: &str, number: &str) -> String {
    let ending = if kind == METADATA { "parquet" } else { "npy" };
    format!("{kind}_{number}.{ending}")
}
