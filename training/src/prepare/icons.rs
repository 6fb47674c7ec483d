//! Reads fetched styles: icon sets in Iconify's JSON form, and folders of SVG or WebP files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use encoders::{
    DecodeLimits, Filter, Picture, PictureError, RgbaPicture, decode_rgba, rasterize_svg,
};
use fs_err as fs;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::names::concept_of_hex;
use super::{PrepareError, is_test_style};

/// An alias may point at an alias; a longer chain is taken for a circle.
const MAX_ALIAS_DEPTH: usize = 5;

/// All drawings by one hand.
#[derive(Debug)]
pub struct Style {
    /// Its folder's name.
    pub name: String,
    /// By name.
    pub drawings: Vec<Drawing>,
}

/// One drawing and all that hints at what it shows.
#[derive(Debug)]
pub struct Drawing {
    /// Its name inside the style.
    pub name: String,
    /// Other names of the same drawing.
    pub aliases: Vec<String>,
    /// The concepts that the style itself says it shows; empty where it says nothing.
    pub concepts: Vec<String>,
    body: Body,
}

#[derive(Debug)]
enum Body {
    Svg(String),
    File(PathBuf),
}

impl Drawing {
    /// The whole drawing, `side` pixels wide and high, or what is wrong with it.
    pub fn picture(&self, side: u32) -> Result<RgbaPicture, String> {
        let problem = |problem: &dyn std::fmt::Display| problem.to_string();
        match &self.body {
            Body::Svg(svg) => rasterize_svg(svg, side).map_err(|e| problem(&e)),
            Body::File(file) if is(file, "svg") => {
                let svg = fs::read_to_string(file).map_err(|e| problem(&e))?;
                rasterize_svg(&svg, side).map_err(|e| problem(&e))
            }
            Body::File(file) => {
                let bytes = fs::read(file).map_err(|e| problem(&e))?;
                let picture = decode_rgba(&bytes, &DecodeLimits::default());
                let shrunk = picture.and_then(|picture| shrink(&picture, side));
                shrunk.map_err(|e| problem(&e))
            }
        }
    }
}

/// A picture of another size. Colors are weighted by alpha, so that what is under transparent pixels
/// plays no part.
fn shrink(picture: &RgbaPicture, side: u32) -> Result<RgbaPicture, PictureError> {
    let (width, height) = (picture.width(), picture.height());
    let pixels = picture.as_rgba().as_chunks::<4>().0;
    let weighted = |value: u8, alpha: u8| ((u32::from(value) * u32::from(alpha) + 127) / 255) as u8;
    let colors = pixels.iter();
    let colors = colors.flat_map(|&[r, g, b, a]| [r, g, b].map(|c| weighted(c, a)));
    let alphas = pixels.iter().flat_map(|&[.., a]| [a; 3]);
    let resized =
        |rgb: Vec<u8>| Picture::new(width, height, rgb)?.resize(side, side, Filter::Bicubic);
    let (colors, alphas) = (resized(colors.collect())?, resized(alphas.collect())?);
    let colors = colors.as_rgb().as_chunks::<3>().0.iter();
    let alphas = alphas.as_rgb().as_chunks::<3>().0.iter();
    let rgba = colors.zip(alphas).flat_map(|(rgb, &[a, ..])| {
        let straight = |c: u8| (u32::from(c) * 255 / u32::from(a).max(1)).min(255) as u8;
        let [r, g, b] = rgb.map(straight);
        [r, g, b, a]
    });
    RgbaPicture::new(side, side, rgba.collect())
}

fn is(file: &Path, extension: &str) -> bool {
    file.extension().is_some_and(|e| e == extension)
}

/// The styles in `folder`, by name.
///
/// # Errors
/// When there is none, or one cannot be read or is kept for tests.
pub fn read_styles(folder: &Path) -> Result<Vec<Style>, PrepareError> {
    let mut styles = Vec::new();
    if folder.is_dir() {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            let name = file_stem(&path);
            if is_test_style(&name) {
                return Err(PrepareError::TestStyle { folder: path });
            }
            if path.join("icons.json").is_file() {
                styles.push(Style {
                    name,
                    drawings: read_icon_set(&path)?,
                });
            }
            // OpenMoji keeps its two styles in one package.
            let folders = [
                ("color/svg", "", "svg"),
                ("black/svg", "-black", "svg"),
                ("assets", "", "webp"),
            ];
            for (inside, suffix, extension) in folders {
                let folder = path.join(inside);
                if folder.is_dir() {
                    let name = format!("{}{suffix}", file_stem(&path));
                    styles.push(Style {
                        name,
                        drawings: read_folder(&folder, extension)?,
                    });
                }
            }
        }
    }
    if styles.is_empty() {
        return Err(PrepareError::NoStyles {
            folder: folder.to_owned(),
        });
    }
    styles.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(styles)
}

/// The JSON value in `file`.
///
/// # Errors
/// When it cannot be read or is something else.
pub fn read_json<T: DeserializeOwned>(file: &Path) -> Result<T, PrepareError> {
    serde_json::from_slice(&fs::read(file)?).map_err(|source| PrepareError::Json {
        file: file.to_owned(),
        source,
    })
}

#[derive(Debug, Deserialize)]
struct IconSet {
    icons: BTreeMap<String, Icon>,
    #[serde(default)]
    aliases: BTreeMap<String, Alias>,
    #[serde(flatten)]
    frame: Frame,
}

#[derive(Debug, Deserialize)]
struct Icon {
    body: String,
    #[serde(default)]
    hidden: bool,
    #[serde(flatten)]
    frame: Frame,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Alias {
    parent: String,
    #[serde(default)]
    h_flip: bool,
    #[serde(default)]
    v_flip: bool,
    #[serde(default)]
    rotate: u32,
    #[serde(flatten)]
    frame: Frame,
}

impl Alias {
    /// Whether it is another name only, not another drawing.
    fn is_plain(&self) -> bool {
        !self.h_flip && !self.v_flip && self.rotate == 0 && self.frame == Frame::default()
    }
}

/// The part of the plane that a drawing fills; what is missing comes from the set.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize)]
struct Frame {
    left: Option<f64>,
    top: Option<f64>,
    width: Option<f64>,
    height: Option<f64>,
}

impl Frame {
    fn or(self, outer: Self) -> Self {
        Self {
            left: self.left.or(outer.left),
            top: self.top.or(outer.top),
            width: self.width.or(outer.width),
            height: self.height.or(outer.height),
        }
    }
}

fn read_icon_set(folder: &Path) -> Result<Vec<Drawing>, PrepareError> {
    let set: IconSet = read_json(&folder.join("icons.json"))?;
    let characters: BTreeMap<String, String> = read_json(&folder.join("chars.json"))?;
    let mut concepts: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (hex, name) in &characters {
        concepts.entry(name).or_default().push(concept_of_hex(hex));
    }
    let mut aliases: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (name, alias) in set.aliases.iter().filter(|(_, alias)| alias.is_plain()) {
        aliases.entry(&alias.parent).or_default().push(name.clone());
        let said = concepts.get(name.as_str()).cloned().unwrap_or_default();
        concepts.entry(&alias.parent).or_default().extend(said);
    }

    let visible = set
        .icons
        .iter()
        .filter(|(_, icon)| !icon.hidden)
        .map(|(name, _)| name);
    let changed = set
        .aliases
        .iter()
        .filter(|(_, alias)| !alias.is_plain())
        .map(|(name, _)| name);
    let mut drawings: Vec<Drawing> = visible
        .chain(changed)
        .filter_map(|name| {
            Some(Drawing {
                name: name.clone(),
                aliases: aliases.get(name.as_str()).cloned().unwrap_or_default(),
                concepts: concepts.get(name.as_str()).cloned().unwrap_or_default(),
                body: Body::Svg(icon_svg(&set, name)?),
            })
        })
        .collect();
    drawings.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(drawings)
}

/// The SVG of an icon or an alias; nothing where the alias leads nowhere or turns its parent.
fn icon_svg(set: &IconSet, name: &str) -> Option<String> {
    let (mut name, mut frame) = (name, Frame::default());
    let (mut h_flip, mut v_flip) = (false, false);
    for _ in 0..MAX_ALIAS_DEPTH {
        if let Some(icon) = set.icons.get(name) {
            let frame = frame.or(icon.frame).or(set.frame);
            return Some(framed_svg(&icon.body, frame, h_flip, v_flip));
        }
        let alias = set.aliases.get(name).filter(|alias| alias.rotate == 0)?;
        frame = frame.or(alias.frame);
        h_flip ^= alias.h_flip;
        v_flip ^= alias.v_flip;
        name = &alias.parent;
    }
    None
}

fn framed_svg(body: &str, frame: Frame, h_flip: bool, v_flip: bool) -> String {
    // The sides that Iconify's format takes where a set says nothing.
    let (width, height) = (frame.width.unwrap_or(16.0), frame.height.unwrap_or(16.0));
    let (left, top) = (frame.left.unwrap_or(0.0), frame.top.unwrap_or(0.0));
    let (x_scale, x) = if h_flip {
        (-1, 2.0 * left + width)
    } else {
        (1, 0.0)
    };
    let (y_scale, y) = if v_flip {
        (-1, 2.0 * top + height)
    } else {
        (1, 0.0)
    };
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" xmlns:xlink=\"http://www.w3.org/1999/xlink\" \
         width=\"{width}\" height=\"{height}\" viewBox=\"{left} {top} {width} {height}\" \
         color=\"#000000\"><g transform=\"matrix({x_scale} 0 0 {y_scale} {x} {y})\">{body}</g></svg>"
    )
}

/// Drawings that are called by what they show: code points in hex.
fn read_folder(folder: &Path, extension: &str) -> Result<Vec<Drawing>, PrepareError> {
    let mut drawings = Vec::new();
    for entry in fs::read_dir(folder)? {
        let file = entry?.path();
        if is(&file, extension) {
            let name = file_stem(&file);
            drawings.push(Drawing {
                concepts: vec![concept_of_hex(&name)],
                aliases: Vec::new(),
                name,
                body: Body::File(file),
            });
        }
    }
    drawings.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(drawings)
}

fn file_stem(path: &Path) -> String {
    path.file_stem()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}
