//! Whether a drawing by another hand finds the picture of the same thing in the gallery.

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
};

use anyhow::{Result, ensure};
use embedding::{Embedding, Encoded};
use encoders::Model;
use engine::metrics::recall_at_k;
use serde::Serialize;

use super::{
    demo::{Figures, KS, encode_pictures},
    words::concept,
};
use crate::{gallery::Entry, inputs, walk};

/// Figures of the drawings of one folder, image to image.
#[derive(Debug, Serialize)]
pub struct ByHand {
    /// Drawings that the whole gallery was asked with.
    pub pictures: usize,
    /// Among all pictures.
    pub full: Spaces,
    /// Without skin-tone variants, neither as queries nor in the gallery.
    pub base: Spaces,
}

/// By the space that is compared.
#[derive(Debug, Serialize)]
pub struct Spaces {
    /// Where images and texts meet.
    pub shared: Figures,
    /// That of pictures alone, where the model has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub specific: Option<Figures>,
}

/// Name of the figure: the share of drawings with the picture of the same thing within the first k.
pub fn same_thing_recall(k: usize) -> String {
    format!("same_thing_recall@{k}")
}

/// Measures with the drawings of each folder, by folder. `pictures` are those of `entries`.
///
/// # Errors
/// When a folder holds no drawing of the gallery's, one cannot be read, or the model fails.
pub fn measure(
    folders: &[PathBuf],
    entries: &[Entry],
    pictures: &[Encoded],
    model: &Model,
) -> Result<BTreeMap<String, ByHand>> {
    folders
        .iter()
        .map(|folder| {
            let found = measure_one(folder, entries, pictures, model)?;
            Ok((folder.display().to_string(), found))
        })
        .collect()
}

fn measure_one(
    folder: &Path,
    entries: &[Entry],
    pictures: &[Encoded],
    model: &Model,
) -> Result<ByHand> {
    let drawings = drawings(walk::find(&[folder.to_owned()])?.files, entries);
    ensure!(
        !drawings.is_empty(),
        "{} holds no picture that is named by the code points of one of the gallery, such as 1f308.png",
        folder.display()
    );
    let prepare = |(path, _): &(PathBuf, usize)| inputs::pixels(path, model);
    let encoded = encode_pictures("encoding drawings", &drawings, model, prepare)?;
    let figures = |is_in: &dyn Fn(&Entry) -> bool| {
        let rows: Vec<usize> = (0..entries.len()).filter(|i| is_in(&entries[*i])).collect();
        let place: HashMap<usize, usize> =
            rows.iter().enumerate().map(|(i, row)| (*row, i)).collect();
        let asked = drawings.iter().zip(&encoded);
        let asked: Vec<(&Encoded, usize)> = asked
            .filter_map(|((_, row), one)| Some((one, *place.get(row)?)))
            .collect();
        let space = |of: fn(&Encoded) -> Option<&Embedding>| -> Option<Figures> {
            let queries = asked.iter().map(|(one, _)| of(one).cloned());
            let queries: Vec<Embedding> = queries.collect::<Option<_>>()?;
            let gallery = rows.iter().map(|row| of(&pictures[*row]).cloned());
            let gallery: Vec<Embedding> = gallery.collect::<Option<_>>()?;
            let recall = recall_at_k(&queries, &gallery, |i| vec![asked[i].1], &KS);
            Some(
                KS.iter()
                    .map(|k| same_thing_recall(*k))
                    .zip(recall)
                    .collect(),
            )
        };
        Spaces {
            shared: space(|one| Some(&one.shared)).unwrap_or_default(),
            specific: space(|one| one.specific.as_ref()),
        }
    };
    Ok(ByHand {
        pictures: drawings.len(),
        full: figures(&|_| true),
        base: figures(&|entry| !entry.skin_tone),
    })
}

/// Files that are named by the code points of a picture of the gallery, and its position.
fn drawings(files: Vec<PathBuf>, entries: &[Entry]) -> Vec<(PathBuf, usize)> {
    let known = entries.iter().enumerate().map(|(i, e)| (concept(e), i));
    let known: HashMap<String, usize> = known.collect();
    let place = |file: &PathBuf| known.get(file.file_stem()?.to_str()?).copied();
    let placed = files.into_iter().filter_map(|file| {
        let at = place(&file)?;
        Some((file, at))
    });
    placed.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drawing_is_of_the_picture_whose_code_points_name_it() {
        let entry = |codepoints: &str| Entry {
            codepoints: codepoints.to_owned(),
            emoji: "",
            name: "",
            svg: "",
            skin_tone: false,
        };
        let entries = [entry("1f308"), entry("2764-fe0f-200d-1f525")];
        let files = ["a/1f308.png", "a/1f309.png", "a/2764-200d-1f525.svg", "a/b"];
        let found = drawings(files.map(PathBuf::from).to_vec(), &entries);
        let expected = [("a/1f308.png", 0), ("a/2764-200d-1f525.svg", 1)];
        assert_eq!(found, expected.map(|(file, i)| (PathBuf::from(file), i)));
    }
}
