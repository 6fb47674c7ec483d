//! Bytes to pixels, within a budget.
//!
//! The header is read first and the budget checked against it; only then are pixels allocated.
//! Of an animation one frame is decoded. Colors become RGB as Pillow's `convert("RGB")` does it.
//!
//! Over 400 lines: budgets and refusals are the same for every format and stay in one place; what is a format's own is below.

#[cfg(feature = "avif")]
mod avif;
mod bmp;
mod gif;
mod png;
mod tiff;
mod webp;

use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};

use image::codecs::bmp::BmpDecoder;
use image::codecs::gif::GifDecoder;
use image::codecs::tiff::TiffDecoder;
use image::codecs::webp::WebPDecoder;
use image::metadata::Orientation;
use image::{ColorType, DynamicImage, ImageBuffer, ImageDecoder, ImageFormat, ImageResult, Limits};
use thiserror::Error;

use super::convert;
use super::jpeg::Jpeg;
use super::rgb::Picture;
use super::rgba::RgbaPicture;
use crate::PictureError;

/// What is read.
const FORMATS: &str = if cfg!(feature = "avif") {
    "JPEG, PNG, WebP, AVIF, GIF, BMP or TIFF"
} else {
    "JPEG, PNG, WebP, GIF, BMP or TIFF"
};

/// Memory that a decoder may use beside the pixels themselves (tables, strips, metadata).
const SCRATCH_BYTES: usize = 32 << 20;

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

/// Decodes a JPEG, PNG, WebP, GIF (first frame), BMP or TIFF picture, with the feature `avif` also
/// a still AVIF, to RGB and turns it upright as its EXIF orientation (in AVIF `irot` and `imir`)
/// says.
///
/// Gray is replicated, a palette looked up, 16-bit color reduced to its high byte and 16-bit gray
/// clipped to 255, the screen around the first frame of a GIF filled from its palette: all as
/// Pillow's `convert("RGB")` does it, and transformers up to version 4 with it. What is
/// transparent has the color that the file has there, too, and is remembered: a model that wants
/// it blended onto white, as transformers does from version 5 on, says so in its
/// `preprocessor_config.json`. Lossless formats give Pillow's bytes, but
/// for a GIF whose first frame reaches beyond its screen: that is cut here, where Pillow enlarges
/// the screen. So does JPEG; lossy WebP and AVIF may differ by a few gray levels.
///
/// # Errors
/// When the picture is over the budget, in no known format, or broken; also a TIFF of
/// floating-point colors or with JPEG inside, and an AVIF made of several in a grid.
pub fn decode(bytes: &[u8], limits: &DecodeLimits) -> Result<Picture, PictureError> {
    let raw = read(bytes, limits)?;
    let unsupported = || unsupported_color(raw.format);
    let sides = (raw.width, raw.height);
    let alpha = convert::alpha(raw.color, &raw.data);
    let rgb = convert::to_rgb(raw.color, raw.data).ok_or_else(unsupported)?;
    let upright = |mut image: DynamicImage| {
        image.apply_orientation(raw.orientation);
        (image.width(), image.height(), image.into_bytes())
    };
    let (width, height, rgb) = if raw.orientation == Orientation::NoTransforms {
        (sides.0, sides.1, rgb)
    } else {
        let buffer = ImageBuffer::from_raw(sides.0, sides.1, rgb).ok_or_else(unsupported)?;
        upright(DynamicImage::ImageRgb8(buffer))
    };
    let picture = Picture::new(width, height, rgb)?;
    let Some(alpha) = alpha else {
        return Ok(picture);
    };
    if raw.orientation == Orientation::NoTransforms {
        return picture.with_alpha(alpha);
    }
    let buffer = ImageBuffer::from_raw(sides.0, sides.1, alpha).ok_or_else(unsupported)?;
    let (_, _, alpha) = upright(DynamicImage::ImageLuma8(buffer));
    picture.with_alpha(alpha)
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
    let guessed = if is_avif(bytes) {
        ImageFormat::Avif
    } else {
        image::guess_format(bytes).map_err(|_| unknown())?
    };
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
    match guessed {
        ImageFormat::Jpeg => read_jpeg(format, bytes, limits),
        ImageFormat::Png => png::read(format, bytes, limits),
        ImageFormat::WebP => {
            // The canvas of an extended file says nothing about the streams inside it.
            for (width, height) in webp::streams(bytes) {
                check_budget(width, height, limits)?;
            }
            match webp::Animation::of(bytes) {
                Some(animation) => read_animation(format, &animation, limits),
                None => read_with(WebPDecoder::new(Cursor::new(bytes)), format, limits),
            }
            .map(|raw| Raw {
                orientation: orientation(webp::exif(bytes)),
                ..raw
            })
        }
        ImageFormat::Gif => {
            let mut raw = read_with(GifDecoder::new(Cursor::new(bytes)), format, limits)?;
            gif::fill_around(bytes, raw.width, &mut raw.data);
            Ok(raw)
        }
        ImageFormat::Bmp => {
            if let Some((least, sides)) = bmp::least_bytes(bytes) {
                check_budget(sides.0, sides.1, limits)?;
                check_bytes(format, bytes.len(), least, sides)?;
            }
            read_with(BmpDecoder::new(Cursor::new(bytes)), format, limits)
        }
        #[cfg(feature = "avif")]
        ImageFormat::Avif => avif::read(format, bytes, limits),
        #[cfg(not(feature = "avif"))]
        ImageFormat::Avif => Err(undecodable(
            format,
            "AVIF is not part of this build: build with `--features avif`, or convert the picture \
             to JPEG, PNG or WebP",
        )),
        _ => read_tiff(format, bytes, limits),
    }
}

/// Whether this begins as a file of AVIF does. One of the general brand `mif1` may be so or HEIC.
fn is_avif(bytes: &[u8]) -> bool {
    let [size, [b'f', b't', b'y', b'p'], brand, _, more @ ..] = bytes.as_chunks::<4>().0 else {
        return false;
    };
    let count = (u32::from_be_bytes(*size) as usize / 4).saturating_sub(4);
    match brand {
        b"avif" | b"avis" => true,
        b"mif1" | b"msf1" => more.iter().take(count).any(|brand| brand == b"avif"),
        _ => false,
    }
}

/// Reads with a decoder of the image crate.
fn read_with(
    decoder: ImageResult<impl ImageDecoder>,
    format: &'static str,
    limits: &DecodeLimits,
) -> Result<Raw, PictureError> {
    let broken = |source: image::ImageError| undecodable(format, source);
    let mut decoder = decoder.map_err(broken)?;
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
    allowed.max_alloc = Some(total.saturating_mul(2).saturating_add(SCRATCH_BYTES as u64));
    allowed.max_image_width = Some(limits.max_side);
    allowed.max_image_height = Some(limits.max_side);
    decoder.set_limits(allowed).map_err(broken)?;
    let mut data = zeros(total, format)?;
    decoder.read_image(&mut data).map_err(broken)?;
    Ok(Raw {
        format,
        width,
        height,
        color,
        orientation: Orientation::NoTransforms,
        data,
    })
}

fn read_jpeg(
    format: &'static str,
    bytes: &[u8],
    limits: &DecodeLimits,
) -> Result<Raw, PictureError> {
    let jpeg = Jpeg::read(bytes).map_err(|source| undecodable(format, source))?;
    let (width, height) = jpeg.sides();
    check_budget(width, height, limits)?;
    check_bytes(format, bytes.len(), jpeg.least_bytes(), (width, height))?;
    let color = match jpeg.channels() {
        1 => ColorType::L8,
        _ => ColorType::Rgb8,
    };
    Ok(Raw {
        format,
        width,
        height,
        color,
        orientation: orientation(jpeg.exif()),
        data: jpeg
            .decode()
            .map_err(|source| undecodable(format, source))?,
    })
}

/// The first frame on the canvas of its animation, which is black and transparent around it.
fn read_animation(
    format: &'static str,
    animation: &webp::Animation,
    limits: &DecodeLimits,
) -> Result<Raw, PictureError> {
    let (width, height) = animation.canvas;
    check_budget(width, height, limits)?;
    let still = Cursor::new(&animation.frame);
    let frame = read_with(WebPDecoder::new(still), format, limits)?;
    let sides = (frame.width, frame.height);
    let rgba = convert::to_rgba(frame.color, &frame.data);
    let rgba = rgba.ok_or_else(|| unsupported_color(format))?;
    let mut data = zeros(4 * u64::from(width) * u64::from(height), format)?;
    if !animation.paste(sides, &rgba, &mut data) {
        return Err(undecodable(
            format,
            "its first frame lies outside of the canvas",
        ));
    }
    Ok(Raw {
        format,
        width,
        height,
        color: ColorType::Rgba8,
        orientation: Orientation::NoTransforms,
        data,
    })
}

/// What EXIF says; nothing where it is damaged or missing.
fn orientation(exif: Option<&[u8]>) -> Orientation {
    exif.and_then(Orientation::from_exif_chunk)
        .unwrap_or(Orientation::NoTransforms)
}

/// Room for samples.
fn zeros(bytes: u64, format: &'static str) -> Result<Vec<u8>, PictureError> {
    let size = usize::try_from(bytes).map_err(|source| undecodable(format, source))?;
    let mut data = Vec::new();
    data.try_reserve_exact(size)
        .map_err(|source| undecodable(format, source))?;
    data.resize(size, 0);
    Ok(data)
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

/// A file that cannot hold the picture that its head promises; found before room is made for that.
#[derive(Debug, Error)]
#[error("its {bytes} bytes are too few for {width} x {height} pixels")]
struct TooFew {
    bytes: usize,
    width: u32,
    height: u32,
}

/// Refuses a file of fewer than the `least` bytes that a picture of these sides needs.
fn check_bytes(
    format: &'static str,
    bytes: usize,
    least: u64,
    (width, height): (u32, u32),
) -> Result<(), PictureError> {
    if (bytes as u64) < least {
        let source = TooFew {
            bytes,
            width,
            height,
        };
        return Err(undecodable(format, source));
    }
    Ok(())
}

fn format_name(format: ImageFormat) -> Option<&'static str> {
    match format {
        ImageFormat::Jpeg => Some("JPEG"),
        ImageFormat::Png => Some("PNG"),
        ImageFormat::WebP => Some("WebP"),
        ImageFormat::Avif => Some("AVIF"),
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

fn read_tiff(
    format: &'static str,
    bytes: &[u8],
    limits: &DecodeLimits,
) -> Result<Raw, PictureError> {
    let head = tiff::Head::read(bytes);
    if let Some((width, height)) = head.sides {
        check_budget(width, height, limits)?;
        check_bytes(format, bytes.len(), head.least_bytes(), (width, height))?;
    }
    if head.holds_jpeg() {
        return Err(undecodable(
            format,
            "JPEG compression inside TIFF is not read",
        ));
    }
    let mut decoder = TiffDecoder::new(Cursor::new(bytes));
    // Damaged metadata is no reason to refuse the pixels.
    let orientation = decoder
        .as_mut()
        .ok()
        .and_then(|decoder| decoder.orientation().ok())
        .unwrap_or(Orientation::NoTransforms);
    Ok(Raw {
        orientation,
        ..read_with(decoder, format, limits)?
    })
}

#[cfg(test)]
#[path = "decode/tests.rs"]
mod tests;
