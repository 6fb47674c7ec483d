//! Bytes to pixels, within a budget.
//!
//! The header is read first and the budget checked against it; only then are pixels allocated.
//! Of an animation one frame is decoded. Colors become RGB as Pillow's `convert("RGB")` does it.

mod gif;
mod webp;

use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};

use image::codecs::bmp::BmpDecoder;
use image::codecs::gif::GifDecoder;
use image::codecs::jpeg::JpegDecoder;
use image::codecs::png::PngDecoder;
use image::codecs::tiff::TiffDecoder;
use image::codecs::webp::WebPDecoder;
use image::metadata::Orientation;
use image::{ColorType, DynamicImage, ImageBuffer, ImageDecoder, ImageFormat, ImageResult, Limits};
use tiff::tags::{CompressionMethod, Tag};

use super::convert;
use super::rgb::Picture;
use super::rgba::RgbaPicture;
use crate::PictureError;

/// What is read.
const FORMATS: &str = "JPEG, PNG, WebP, GIF, BMP or TIFF";

/// Memory that a decoder may use beside the pixels themselves (profiles, tables, strips).
const SCRATCH_BYTES: u64 = 64 << 20;

/// What a picture may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecodeLimits {
    /// Size of the encoded picture in bytes.
    pub max_bytes: usize,
    /// Width times height.
    pub max_pixels: u64,
    /// Width, and height, in pixels.
    pub max_side: u32,
}

impl Default for DecodeLimits {
    fn default() -> Self {
        Self {
            max_bytes: 64 << 20,
            max_pixels: 100_000_000,
            max_side: 65_535,
        }
    }
}

/// Decodes a JPEG, PNG, WebP, GIF (first frame), BMP or TIFF picture to RGB and turns it upright
/// as its EXIF orientation says.
///
/// Gray is replicated, a palette looked up, alpha dropped (not blended), 16-bit color reduced to
/// its high byte and 16-bit gray clipped to 255, the screen around the first frame of a GIF filled
/// from its palette: all as Pillow's `convert("RGB")` does it, and transformers up to version 4 with
/// it. (Version 5 blends transparency onto white.) Lossless formats give Pillow's bytes, but for a GIF
/// whose first frame reaches beyond its screen: that is cut here, where Pillow enlarges the screen.
/// JPEG and lossy WebP may differ by a few gray levels, since the inverse transform and the chroma
/// upsampling are up to the decoder.
///
/// # Errors
/// When the picture is over the budget, in no known format, or broken; also a TIFF of floating-point
/// colors or with JPEG inside.
pub fn decode(bytes: &[u8], limits: &DecodeLimits) -> Result<Picture, PictureError> {
    let raw = read(bytes, limits)?;
    let rgb = convert::to_rgb(raw.color, raw.data).ok_or_else(|| unsupported_color(raw.format))?;
    if raw.orientation == Orientation::NoTransforms {
        return Picture::new(raw.width, raw.height, rgb);
    }
    let buffer = ImageBuffer::from_raw(raw.width, raw.height, rgb);
    let mut image = DynamicImage::ImageRgb8(buffer.ok_or_else(|| unsupported_color(raw.format))?);
    image.apply_orientation(raw.orientation);
    Picture::new(image.width(), image.height(), image.into_bytes())
}

/// As [`decode`], keeping the alpha channel; a picture without one is opaque.
///
/// # Errors
/// As for [`decode`].
pub fn decode_rgba(bytes: &[u8], limits: &DecodeLimits) -> Result<RgbaPicture, PictureError> {
    let raw = read(bytes, limits)?;
    let rgba =
        convert::to_rgba(raw.color, &raw.data).ok_or_else(|| unsupported_color(raw.format))?;
    let buffer = ImageBuffer::from_raw(raw.width, raw.height, rgba);
    let mut image = DynamicImage::ImageRgba8(buffer.ok_or_else(|| unsupported_color(raw.format))?);
    image.apply_orientation(raw.orientation);
    RgbaPicture::new(image.width(), image.height(), image.into_bytes())
}

/// Decoded samples before color conversion, native endian, rows without padding.
struct Raw {
    format: &'static str,
    width: u32,
    height: u32,
    color: ColorType,
    orientation: Orientation,
    data: Vec<u8>,
}

fn read(bytes: &[u8], limits: &DecodeLimits) -> Result<Raw, PictureError> {
    if bytes.len() > limits.max_bytes {
        return Err(PictureError::TooManyBytes {
            bytes: bytes.len(),
            max: limits.max_bytes,
        });
    }
    let unknown = || PictureError::UnknownFormat { expected: FORMATS };
    let guessed = image::guess_format(bytes).map_err(|_| unknown())?;
    let format = format_name(guessed).ok_or_else(unknown)?;
    // A decoder that panics on hostile bytes must cost this picture only.
    catch_unwind(AssertUnwindSafe(|| read_as(guessed, format, bytes, limits)))
        .unwrap_or_else(|_| Err(undecodable(format, "the decoder gave up")))
}

fn read_as(
    guessed: ImageFormat,
    format: &'static str,
    bytes: &[u8],
    limits: &DecodeLimits,
) -> Result<Raw, PictureError> {
    let broken = |source: image::ImageError| undecodable(format, source);
    match guessed {
        ImageFormat::Jpeg if !jpeg_has_end(bytes) => {
            return Err(undecodable(format, "the data ends early"));
        }
        // The canvas of an extended file says nothing about the streams inside it.
        ImageFormat::WebP => {
            for (width, height) in webp::streams(bytes) {
                check_budget(width, height, limits)?;
            }
        }
        ImageFormat::Tiff if tiff_holds_jpeg(bytes) => {
            return Err(undecodable(
                format,
                "JPEG compression inside TIFF is not read",
            ));
        }
        _ => {}
    }
    let mut decoder = open(guessed, bytes).map_err(broken)?;
    let (width, height) = decoder.dimensions();
    check_budget(width, height, limits)?;
    if width == 0 || height == 0 {
        return Err(undecodable(format, "a side is zero"));
    }
    let color = decoder.color_type();
    if matches!(color, ColorType::Rgb32F | ColorType::Rgba32F) {
        return Err(unsupported_color(format));
    }
    let total = decoder.total_bytes();
    let mut allowed = Limits::default();
    allowed.max_alloc = Some(total.saturating_mul(2).saturating_add(SCRATCH_BYTES));
    allowed.max_image_width = Some(limits.max_side);
    allowed.max_image_height = Some(limits.max_side);
    decoder.set_limits(allowed).map_err(broken)?;
    // Damaged metadata is no reason to refuse the pixels.
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let size = usize::try_from(total).map_err(|source| undecodable(format, source))?;
    let mut data = Vec::new();
    data.try_reserve_exact(size)
        .map_err(|source| undecodable(format, source))?;
    data.resize(size, 0);
    decoder.read_image_boxed(&mut data).map_err(broken)?;
    if guessed == ImageFormat::Gif {
        gif::fill_around(bytes, width, &mut data);
    }
    Ok(Raw {
        format,
        width,
        height,
        color,
        orientation,
        data,
    })
}

fn check_budget(width: u32, height: u32, limits: &DecodeLimits) -> Result<(), PictureError> {
    if width.max(height) > limits.max_side {
        return Err(PictureError::TooLong {
            width,
            height,
            max: limits.max_side,
        });
    }
    if u64::from(width) * u64::from(height) > limits.max_pixels {
        return Err(PictureError::TooManyPixels {
            width,
            height,
            max: limits.max_pixels,
        });
    }
    Ok(())
}

fn open<'a>(format: ImageFormat, bytes: &'a [u8]) -> ImageResult<Box<dyn ImageDecoder + 'a>> {
    let reader = Cursor::new(bytes);
    Ok(match format {
        ImageFormat::Jpeg => Box::new(JpegDecoder::new(reader)?),
        ImageFormat::Png => {
            // Only here can the memory for its ancillary chunks be bounded.
            let mut limits = Limits::default();
            limits.max_alloc = Some(SCRATCH_BYTES);
            Box::new(PngDecoder::with_limits(reader, limits)?)
        }
        ImageFormat::WebP => Box::new(WebPDecoder::new(reader)?),
        ImageFormat::Gif => Box::new(GifDecoder::new(reader)?),
        ImageFormat::Bmp => Box::new(BmpDecoder::new(reader)?),
        _ => Box::new(TiffDecoder::new(reader)?),
    })
}

fn format_name(format: ImageFormat) -> Option<&'static str> {
    match format {
        ImageFormat::Jpeg => Some("JPEG"),
        ImageFormat::Png => Some("PNG"),
        ImageFormat::WebP => Some("WebP"),
        ImageFormat::Gif => Some("GIF"),
        ImageFormat::Bmp => Some("BMP"),
        ImageFormat::Tiff => Some("TIFF"),
        _ => None,
    }
}

fn undecodable(
    format: &'static str,
    source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> PictureError {
    PictureError::Undecodable {
        format,
        source: source.into(),
    }
}

fn unsupported_color(format: &'static str) -> PictureError {
    undecodable(format, "its kind of color is not supported")
}

/// Whether the end marker follows the first scan. The decoder fills what is missing with gray,
/// which would be embedded as if it were the picture; Pillow refuses such a file.
fn jpeg_has_end(bytes: &[u8]) -> bool {
    const START_OF_SCAN: u8 = 0xda;
    const END: [u8; 2] = [0xff, 0xd9];
    let mut at = 2;
    // Segments: 0xff, marker, big-endian length that counts itself.
    while let Some(&[0xff, marker, high, low]) = bytes.get(at..at + 4) {
        if marker == START_OF_SCAN {
            return bytes[at..].windows(2).any(|pair| pair == END);
        }
        let fill_byte = marker == 0xff;
        at += if fill_byte {
            1
        } else {
            2 + usize::from(u16::from_be_bytes([high, low]))
        };
    }
    // No scan in sight: the decoder will say what is wrong.
    true
}

/// Whether the strips of a TIFF are JPEG files. The decoder gives them to another that knows no
/// budget, and looks at their sides only afterwards.
fn tiff_holds_jpeg(bytes: &[u8]) -> bool {
    let compression = tiff::decoder::Decoder::new(Cursor::new(bytes))
        .and_then(|mut decoder| decoder.find_tag_unsigned::<u16>(Tag::Compression));
    matches!(
        compression
            .ok()
            .flatten()
            .and_then(CompressionMethod::from_u16),
        Some(CompressionMethod::JPEG | CompressionMethod::ModernJPEG)
    )
}

#[cfg(test)]
#[path = "decode/tests.rs"]
mod tests;
