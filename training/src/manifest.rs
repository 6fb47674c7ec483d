//! The pictures and words of a run, in memory.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use encoders::{DecodeLimits, RgbaPicture, decode_rgba};
use fs_err as fs;
use rayon::prelude::*;

use crate::{TrainingError, config::DataConfig, prepare::PictureEntry};

/// One thing and all its pictures.
#[derive(Debug, Clone)]
pub struct Concept {
    /// Its code points, or whatever names it uniquely.
    pub key: String,
    /// What it is called.
    pub name: String,
    /// Other words for it.
    pub tags: Vec<String>,
    /// Whether it is a skin-tone variant.
    pub skin_tone: bool,
    /// Its pictures with the weight of their style.
    pub pictures: Vec<(RgbaPicture, f64)>,
}

/// What is trained on, and what is held out.
#[derive(Debug, Clone, Default)]
pub struct Dataset {
    /// Sorted by key.
    pub training: Vec<Concept>,
    /// Concepts of each held-out style, one picture each.
    pub held_out: BTreeMap<String, Vec<Concept>>,
}

impl Dataset {
    /// Reads every manifest and picture.
    ///
    /// # Errors
    /// When a line or a picture cannot be read; the message names it.
    pub fn read(config: &DataConfig) -> Result<Self, TrainingError> {
        let mut entries = Vec::new();
        for manifest in &config.manifests {
            entries.extend(read_manifest(manifest)?);
        }
        let pictures: Vec<RgbaPicture> = entries
            .par_iter()
            .map(|(file, _)| {
                let bytes = fs::read(file)?;
                decode_rgba(&bytes, &DecodeLimits::default()).map_err(|source| {
                    TrainingError::Picture {
                        file: file.clone(),
                        source,
                    }
                })
            })
            .collect::<Result<_, _>>()?;
        let mut training = BTreeMap::new();
        let mut held_out: BTreeMap<String, BTreeMap<String, Concept>> = BTreeMap::new();
        for ((_, entry), picture) in entries.into_iter().zip(pictures) {
            let weight = config
                .style_weights
                .get(&entry.style)
                .copied()
                .unwrap_or(1.0);
            let concepts = if config.held_out.contains(&entry.style) {
                held_out.entry(entry.style.clone()).or_default()
            } else {
                &mut training
            };
            let concept = concepts
                .entry(entry.concept.clone())
                .or_insert_with(|| Concept {
                    key: entry.concept,
                    name: entry.name,
                    tags: entry.tags,
                    skin_tone: entry.skin_tone,
                    pictures: Vec::new(),
                });
            concept.pictures.push((picture, weight));
        }
        let list = |concepts: BTreeMap<String, Concept>| concepts.into_values().collect::<Vec<_>>();
        Ok(Self {
            training: list(training),
            held_out: held_out
                .into_iter()
                .map(|(style, c)| (style, list(c)))
                .collect(),
        })
    }
}

fn read_manifest(file: &Path) -> Result<Vec<(PathBuf, PictureEntry)>, TrainingError> {
    let folder = file.parent().unwrap_or(Path::new("."));
    let text = fs::read_to_string(file)?;
    let lines = text
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(i, line)| {
            let entry: PictureEntry =
                serde_json::from_str(line).map_err(|source| TrainingError::Manifest {
                    file: file.to_owned(),
                    line: i + 1,
                    source,
                })?;
            Ok((folder.join(&entry.image), entry))
        })
        .collect()
}
