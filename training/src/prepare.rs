//! Turns fetched emoji drawings into training pictures with names and keywords.
//!
//! `recipes/mini/fetch.sh` fills the raw folder; this writes one PNG per drawing, a manifest, and the
//! words of all fetched languages.
//! The Twemoji style is the held-out test of the built-in model and has no place here.

mod cldr;
mod icons;
mod names;

use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::path::{Path, PathBuf};

use fs_err as fs;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use icons::{Drawing, Style};
use names::{Emojis, NameIndex};

use crate::words;

/// So many concepts of a style may have exactly the same picture, as "dvd" and "optical disk" do.
const MAX_ALIKE: usize = 3;

/// What the names of the styles of the bundled gallery contain: figures of a model that has seen them
/// would mean nothing.
const TEST_STYLE: &str = "twemoji";

/// Whether a style is kept for tests.
pub(crate) fn is_test_style(style: &str) -> bool {
    style.to_lowercase().contains(TEST_STYLE)
}

/// Where the drawings are and what becomes of them.
#[derive(Debug, Clone)]
pub struct PrepareConfig {
    /// The folder that `fetch.sh` filled.
    pub raw: PathBuf,
    /// Where the pictures, `manifest.jsonl` and `words.jsonl` go.
    pub out: PathBuf,
    /// Which styles are wanted.
    pub source: Source,
    /// Width and height of a picture in pixels.
    pub side: u32,
}

/// Groups of styles, by what their licenses ask of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Attribution at most.
    Permissive,
    /// Whatever is derived has to be shared alike.
    ShareAlike,
}

/// One line of `manifest.jsonl`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PictureEntry {
    /// Path of the PNG, relative to the manifest's folder.
    pub image: String,
    /// What it shows: code points in lowercase hex joined by `-`, without `fe0f`.
    pub concept: String,
    /// Its CLDR short name.
    pub name: String,
    /// Its CLDR keywords, without the name itself.
    pub tags: Vec<String>,
    /// Who drew it.
    pub style: String,
    /// Whether it shows a skin tone other than the default.
    pub skin_tone: bool,
}

/// What was written and what was not.
#[derive(Debug, Clone, Default, Serialize)]
pub struct PrepareReport {
    /// By style.
    pub styles: BTreeMap<String, StyleReport>,
    /// How many emoji each language has words for.
    pub languages: BTreeMap<String, usize>,
}

/// What became of the drawings of one style.
#[derive(Debug, Clone, Default, Serialize)]
pub struct StyleReport {
    /// Pictures written.
    pub pictures: usize,
    /// How many of them show a skin tone.
    pub skin_tones: usize,
    /// Drawings that no known emoji belongs to.
    pub unknown: Vec<String>,
    /// Drawings that cannot be rasterized, or show nothing, with the reason.
    pub broken: Vec<String>,
    /// Concepts whose pictures look exactly like too many others of the style.
    pub indistinct: Vec<String>,
}

/// Why no pictures were made.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PrepareError {
    /// A file cannot be read or written; the message names it.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// A fetched file does not have the expected shape.
    #[error("{} cannot be understood", file.display())]
    Json {
        /// The file.
        file: PathBuf,
        /// Where and why.
        #[source]
        source: serde_json::Error,
    },
    /// The raw folder holds no style of the wanted source.
    #[error("{} holds no styles; fill it with fetch.sh first", folder.display())]
    NoStyles {
        /// The folder.
        folder: PathBuf,
    },
    /// A fetched style is the one that models are tested on.
    #[error("{} is a style that is kept for tests; nothing may learn from it", folder.display())]
    TestStyle {
        /// The folder of the style.
        folder: PathBuf,
    },
}

/// Rasterizes every drawing of every wanted style that shows a known emoji to
/// `OUT/STYLE/CONCEPT.png` and lists them in `OUT/manifest.jsonl`, by style and concept. What every
/// known emoji is called goes to `OUT/words.jsonl`: a line for each picture would say it five times.
///
/// A drawing that cannot be drawn costs nothing but itself.
///
/// # Errors
/// When the raw folder is incomplete or holds the test style, or the output cannot be written.
pub fn prepare(config: &PrepareConfig) -> Result<PrepareReport, PrepareError> {
    let emojis = Emojis::read(&config.raw.join("cldr"))?;
    let permissive = icons::read_styles(&config.raw.join("styles"))?;
    let mut index = NameIndex::new(&emojis);
    for style in &permissive {
        index.learn(style, &emojis);
    }
    let styles = match config.source {
        Source::Permissive => permissive,
        Source::ShareAlike => icons::read_styles(&config.raw.join("share-alike"))?,
    };

    let mut report = PrepareReport::default();
    let mut entries = Vec::new();
    for style in &styles {
        let (style_entries, style_report) = prepare_style(config, style, &emojis, &index)?;
        entries.extend(style_entries);
        report.styles.insert(style.name.clone(), style_report);
    }
    let words = emojis.words();
    for language in words.iter().flat_map(|entry| entry.words.keys()) {
        *report.languages.entry(language.clone()).or_default() += 1;
    }
    write_lines(&config.out.join(words::FILE), &words)?;
    // Where there is a manifest, everything is prepared.
    write_lines(&config.out.join("manifest.jsonl"), &entries)?;
    Ok(report)
}

fn prepare_style(
    config: &PrepareConfig,
    style: &Style,
    emojis: &Emojis,
    index: &NameIndex,
) -> Result<(Vec<PictureEntry>, StyleReport), PrepareError> {
    let mut report = StyleReport::default();
    let mut chosen: BTreeMap<String, &Drawing> = BTreeMap::new();
    for drawing in &style.drawings {
        match index.concept(style, drawing, emojis) {
            // Drawings come in the order of their names, so the choice is always the same.
            Some(concept) => {
                chosen.entry(concept).or_insert(drawing);
            }
            None => report.unknown.push(drawing.name.clone()),
        }
    }

    let drawn: Vec<Result<Vec<u8>, String>> = chosen
        .par_iter()
        .map(|(_, drawing)| draw(drawing, config.side))
        .collect();
    let mut pictures = Vec::new();
    for ((concept, drawing), outcome) in chosen.into_iter().zip(drawn) {
        match outcome {
            Ok(png) => pictures.extend(emojis.entry(&concept, &style.name).zip(Some(png))),
            Err(problem) => report.broken.push(format!("{}: {problem}", drawing.name)),
        }
    }
    let (pictures, indistinct) = split_indistinct(pictures);
    report.indistinct = indistinct
        .into_iter()
        .map(|(entry, _)| entry.concept)
        .collect();

    fs::create_dir_all(config.out.join(&style.name))?;
    pictures
        .par_iter()
        .try_for_each(|(entry, png)| fs::write(config.out.join(&entry.image), png))?;
    let entries: Vec<_> = pictures.into_iter().map(|(entry, _)| entry).collect();
    report.pictures = entries.len();
    report.skin_tones = entries.iter().filter(|entry| entry.skin_tone).count();
    Ok((entries, report))
}

type Pictures = Vec<(PictureEntry, Vec<u8>)>;

/// Takes out what looks exactly like too many others: skin tones that a style does not draw, and
/// for example flags without their colors. Such pictures would teach that all their names are one.
fn split_indistinct(pictures: Pictures) -> (Pictures, Pictures) {
    // For each look: how many concepts without a skin tone share it, and how many with one.
    let mut looks: HashMap<Vec<u8>, (usize, usize)> = HashMap::new();
    for (entry, png) in &pictures {
        let (plain, toned) = looks.entry(png.clone()).or_default();
        *(if entry.skin_tone { toned } else { plain }) += 1;
    }
    pictures
        .into_iter()
        .partition(|(entry, png)| match looks[png] {
            (0, toned) => toned <= MAX_ALIKE,
            (plain, _) => plain <= MAX_ALIKE && !entry.skin_tone,
        })
}

/// The PNG of a drawing, or what is wrong with it.
fn draw(drawing: &Drawing, side: u32) -> Result<Vec<u8>, String> {
    let picture = drawing.picture(side)?;
    if picture.as_rgba().chunks_exact(4).all(|pixel| pixel[3] == 0) {
        return Err("shows nothing".to_owned());
    }
    Ok(picture.to_png())
}

fn write_lines<T: Serialize>(file: &Path, entries: &[T]) -> Result<(), PrepareError> {
    let mut lines = Vec::new();
    for entry in entries {
        serde_json::to_writer(&mut lines, entry).map_err(|source| PrepareError::Json {
            file: file.to_owned(),
            source,
        })?;
        lines.push(b'\n');
    }
    let aside = file.with_extension("jsonl.new");
    let mut whole = fs::File::create(&aside)?;
    whole.write_all(&lines)?;
    whole.sync_all()?;
    fs::rename(aside, file)?;
    Ok(())
}

#[cfg(test)]
mod tests;
