//! The bundled gallery: every emoji that both the names of CLDR (crate `emojis`) and the pictures
//! of Twemoji (crate `twemoji-assets`) know.
//!
//! The pictures are (c) Twitter, Inc and other contributors, CC BY 4.0.

use anyhow::{Context, Result};
use emojis::{Emoji, SkinTone};
use encoders::{DecodeLimits, Model, Pixels, RgbaPicture, rasterize_svg};
use twemoji_assets::svg::SvgTwemojiAsset;

/// Width and height of the rendered pictures, in pixels.
pub const SIDE: u32 = 128;

/// One emoji.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its code points as Twemoji names its files: lower-case hexadecimal, joined by `-`.
    pub codepoints: String,
    /// Itself.
    pub emoji: &'static str,
    /// Its CLDR short name.
    pub name: &'static str,
    /// Its picture.
    pub svg: &'static str,
    /// Whether it is the variant of another entry with a skin tone.
    pub skin_tone: bool,
}

/// All entries, in the order of CLDR; variants follow what they are variants of.
pub fn entries() -> Vec<Entry> {
    let mut entries = Vec::new();
    for emoji in emojis::iter() {
        match emoji.skin_tones() {
            Some(variants) => entries.extend(variants.filter_map(entry)),
            None => entries.extend(entry(emoji)),
        }
    }
    entries
}

fn entry(emoji: &'static Emoji) -> Option<Entry> {
    let asset = asset(emoji.as_str())?;
    let codepoints: Vec<String> = asset
        .emoji
        .chars()
        .map(|c| format!("{:x}", u32::from(c)))
        .collect();
    Some(Entry {
        codepoints: codepoints.join("-"),
        emoji: emoji.as_str(),
        name: emoji.name(),
        svg: asset.data.0,
        skin_tone: emoji
            .skin_tone()
            .is_some_and(|tone| tone != SkinTone::Default),
    })
}

/// The two crates do not agree on where the variation selector is written, which asks for the
/// colored form.
fn asset(emoji: &str) -> Option<&'static SvgTwemojiAsset> {
    SvgTwemojiAsset::from_emoji(emoji)
        .or_else(|| SvgTwemojiAsset::from_emoji(&emoji.replace('\u{fe0f}', "")))
}

/// The picture as a PNG file of [`SIDE`] x [`SIDE`] pixels, on white: a decoder that drops
/// transparency, as most pipelines do, would otherwise find black behind the drawing.
///
/// # Errors
/// When the drawing is broken.
fn render(entry: &Entry) -> Result<Vec<u8>> {
    let drawing = rasterize_svg(entry.svg, SIDE)
        .with_context(|| format!("the bundled picture {} cannot be drawn", entry.codepoints))?;
    let (width, height) = (drawing.width(), drawing.height());
    let mut rgba = drawing.into_vec();
    for pixel in rgba.chunks_exact_mut(4) {
        let alpha = u32::from(pixel[3]);
        for value in &mut pixel[..3] {
            *value = ((u32::from(*value) * alpha + 255 * (255 - alpha) + 127) / 255) as u8;
        }
        pixel[3] = 255;
    }
    Ok(RgbaPicture::new(width, height, rgba)?.to_png())
}

/// The picture as a PNG file, and what the image tower of `model` sees of that file.
///
/// # Errors
/// When the drawing is broken.
pub fn pixels(entry: &Entry, model: &Model) -> Result<(Vec<u8>, Pixels)> {
    let png = render(entry)?;
    let pixels = model.prepare(&encoders::decode(&png, &DecodeLimits::default())?);
    Ok((png, pixels))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn the_gallery_holds_thousands_of_distinct_named_pictures() {
        let entries = entries();
        let base = entries.iter().filter(|e| !e.skin_tone).count();
        assert!(
            entries.len() > 3500 && base > 1800,
            "{} entries, {base} base",
            entries.len()
        );
        let ids: HashSet<_> = entries.iter().map(|e| &e.codepoints).collect();
        assert_eq!(ids.len(), entries.len());
        assert!(
            entries
                .iter()
                .all(|e| !e.name.is_empty() && e.svg.contains("<svg"))
        );
        let apple = entries
            .iter()
            .find(|e| e.name == "red apple")
            .expect("there is one");
        assert_eq!(
            (apple.codepoints.as_str(), apple.skin_tone),
            ("1f34e", false)
        );
        let waving = entries
            .iter()
            .find(|e| e.codepoints == "1f44b-1f3ff")
            .expect("there is one");
        assert!(waving.skin_tone);
    }

    #[test]
    fn a_picture_stands_on_white() {
        let entries = entries();
        let apple = entries
            .iter()
            .find(|e| e.name == "red apple")
            .expect("there is one");
        let png = render(apple).expect("renders");
        let picture = image::load_from_memory(&png).expect("a PNG").into_rgba8();
        assert_eq!(picture.dimensions(), (SIDE, SIDE));
        assert_eq!(picture.get_pixel(0, 0).0, [255; 4]);
        let [red, green, _, alpha] = picture.get_pixel(SIDE / 2, SIDE / 2).0;
        assert!(red > 150 && green < 100 && alpha == 255);
    }
}
