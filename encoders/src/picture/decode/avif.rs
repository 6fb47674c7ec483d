//! Still AVIF pictures: an AV1 frame, and one of alpha, in boxes.
//!
//! Animations show the still picture that their boxes name. Grids of several pictures are refused.
//! As in Pillow, what turns the picture upright is in its boxes; an orientation in its EXIF is not
//! looked at, nor is a clean aperture (`clap`).

mod boxes;
mod color;
mod container;

use std::borrow::Cow;

use image::{ColorType, metadata::Orientation};
use re_rav1d::dav1d::pixel::YUVRange;
use re_rav1d::dav1d::{Decoder, Error, Picture, Settings};
use thiserror::Error;

use color::{Matrix, Planes};
use container::{Container, Item};

use super::{DecodeLimits, Raw, check_budget, undecodable, zeros};
use crate::PictureError;

/// Frames of AV1 that one picture may consist of: its layers, at most.
const MAX_FRAMES: usize = 4;
/// Without any loss, three samples of 12 bits are 4.5 bytes.
const MAX_BYTES_PER_PIXEL: u64 = 8;
/// Room for heads and metadata in the AV1 stream.
const MAX_BYTES_BESIDE: u64 = 1 << 16;

/// Why an AVIF file is not decoded.
#[derive(Debug, Error)]
enum AvifError {
    #[error("a part of the file reaches beyond its end")]
    Cut,
    #[error("the {0} is missing")]
    Missing(&'static str),
    #[error("its meta box has {0} bytes, at most {max} are read", max = container::MAX_META_BYTES)]
    LargeMeta(usize),
    #[error("its picture is of the kind {0}, only a single one of av01 is read (no grid)")]
    Kind(String),
    #[error("it cannot be shown without its property {0}, which is not known")]
    Property(String),
    #[error("the matrix {0} of its colors is not supported")]
    Matrix(u16),
    #[error("the AV1 stream is damaged")]
    Stream,
    #[error("the AV1 stream has {0} bytes, more than its pixels can need")]
    Bytes(usize),
    #[error("the AV1 stream has {0} frames, a still picture at most {MAX_FRAMES}")]
    Frames(usize),
    #[error("the AV1 stream holds no whole picture")]
    NoPicture,
    #[error(
        "the AV1 stream holds {got_width} x {got_height} pixels, the file says {width} x {height}"
    )]
    Sides {
        got_width: u32,
        got_height: u32,
        width: u32,
        height: u32,
    },
    #[error("AV1: {0}")]
    Av1(#[source] Error),
}

/// Decodes the primary item of `bytes`, and its alpha.
pub(super) fn read(
    format: &'static str,
    bytes: &[u8],
    limits: &DecodeLimits,
) -> Result<Raw, PictureError> {
    let broken = |source: AvifError| undecodable(format, source);
    let container = Container::read(bytes).map_err(broken)?;
    let Item { width, height, .. } = container.color;
    check_budget(width, height, limits)?;
    if let Some(alpha) = &container.alpha
        && (alpha.width, alpha.height) != (width, height)
    {
        return Err(broken(AvifError::Sides {
            got_width: alpha.width,
            got_height: alpha.height,
            width,
            height,
        }));
    }
    let color = container.color.decode().map_err(broken)?;
    let (planes, matrix) = (color.planes, color.matrix);
    let channels = if container.alpha.is_some() { 4 } else { 3 };
    let mut data = zeros(
        channels as u64 * u64::from(width) * u64::from(height),
        format,
    )?;
    planes
        .each_rgb(matrix, container.alpha.is_some(), |at, rgb| {
            data[at * channels..][..3].copy_from_slice(&rgb);
        })
        .map_err(broken)?;
    drop(planes);
    if let Some(alpha) = &container.alpha {
        let alpha = alpha.decode().map_err(broken)?.planes;
        let pixels = data.as_chunks_mut::<4>().0;
        alpha
            .each_luma(|at, alpha| {
                let [rgb @ .., a] = &mut pixels[at];
                *a = alpha;
                if container.premultiplied {
                    *rgb = rgb.map(|color| divided(color, alpha));
                }
            })
            .map_err(broken)?;
    }
    Ok(Raw {
        format,
        width,
        height,
        color: if channels == 4 {
            ColorType::Rgba8
        } else {
            ColorType::Rgb8
        },
        orientation: orientation(&container.color),
        data,
    })
}

/// A color that was multiplied with alpha, in the integers of libyuv.
fn divided(color: u8, alpha: u8) -> u8 {
    let per_alpha = 65_536_u32.checked_div(u32::from(alpha)).unwrap_or(0);
    let whole = (u32::from(color) * 257 * per_alpha.min(65_535)) >> 16;
    whole.min(255) as u8
}

/// The turns and the mirror of an item as EXIF names them.
fn orientation(item: &Item) -> Orientation {
    const PLAIN: [u8; 4] = [1, 8, 3, 6];
    const ROWS_REVERSED: [u8; 4] = [4, 5, 2, 7];
    const COLUMNS_REVERSED: [u8; 4] = [2, 7, 4, 5];
    let by_turns = match item.mirror {
        None => PLAIN,
        Some(0) => ROWS_REVERSED,
        Some(_) => COLUMNS_REVERSED,
    };
    let number = by_turns[usize::from(item.turns & 3)];
    Orientation::from_exif(number).unwrap_or(Orientation::NoTransforms)
}

/// What an item holds.
struct Decoded {
    planes: Planes,
    matrix: Matrix,
}

impl Item<'_> {
    /// Decodes the AV1 stream, on this thread. The decoder refuses frames of more pixels than the
    /// file says before it makes room for them.
    fn decode(&self) -> Result<Decoded, AvifError> {
        let stream = self.stream()?;
        let mut settings = Settings::new();
        settings.set_n_threads(1);
        settings.set_max_frame_delay(1);
        settings.set_all_layers(false);
        let pixels = u64::from(self.width) * u64::from(self.height);
        settings.set_frame_size_limit(u32::try_from(pixels).unwrap_or(u32::MAX));
        let mut decoder = Decoder::with_settings(&settings).map_err(AvifError::Av1)?;
        match decoder.send_data(stream, None, None, None) {
            Ok(()) | Err(Error::Again) => {}
            Err(error) => return Err(AvifError::Av1(error)),
        }
        // Of layers, only a second call gives the last one.
        let picture = decoder.get_picture().or_else(|error| match error {
            Error::Again => decoder.get_picture(),
            error => Err(error),
        });
        let picture = picture.map_err(|error| match error {
            Error::Again => AvifError::NoPicture,
            error => AvifError::Av1(error),
        })?;
        let (got_width, got_height) = (picture.width(), picture.height());
        if (got_width, got_height) != (self.width, self.height) {
            return Err(AvifError::Sides {
                got_width,
                got_height,
                width: self.width,
                height: self.height,
            });
        }
        let (matrix, is_full) = self.nclx.unwrap_or_else(|| said_inside(&picture));
        Ok(Decoded {
            planes: Planes::of(&picture, is_full)?,
            matrix: Matrix::numbered(matrix)?,
        })
    }

    /// The AV1 stream, if it has no more bytes and frames than such a picture may have.
    fn stream(&self) -> Result<Vec<u8>, AvifError> {
        let pixels = u64::from(self.width) * u64::from(self.height);
        let bytes: usize = self.extents.iter().map(|part| part.len()).sum();
        if bytes as u64 > pixels * MAX_BYTES_PER_PIXEL + MAX_BYTES_BESIDE {
            return Err(AvifError::Bytes(bytes));
        }
        let stream = match self.extents[..] {
            [one] => Cow::Borrowed(one),
            _ => Cow::Owned(self.extents.concat()),
        };
        match frames(&stream)? {
            0 => Err(AvifError::NoPicture),
            1..=MAX_FRAMES => Ok(stream.into_owned()),
            frames => Err(AvifError::Frames(frames)),
        }
    }
}

/// The number of the matrix (ITU-T H.273), and whether the range is full, as the AV1 stream says.
fn said_inside(picture: &Picture) -> (u16, bool) {
    let is_full = picture.color_range() == YUVRange::Full;
    (picture.matrix_coefficients() as u16, is_full)
}

/// How many frames an AV1 stream begins, by the heads of its units (AV1 specification, 5.3).
fn frames(mut stream: &[u8]) -> Result<usize, AvifError> {
    const FRAME_HEADER: u8 = 3;
    const FRAME: u8 = 6;
    let mut frames = 0;
    while let [head, rest @ ..] = stream {
        let (kind, has_extension, has_size) = (head >> 3 & 15, head & 4 != 0, head & 2 != 0);
        let mut rest = rest.get(usize::from(has_extension)..).unwrap_or_default();
        if has_size {
            let bytes = rest.iter().take(8).position(|byte| byte & 0x80 == 0);
            let (size, after) = rest.split_at(bytes.ok_or(AvifError::Stream)? + 1);
            let size = size
                .iter()
                .rev()
                .fold(0, |n, b| n << 7 | u64::from(b & 0x7f));
            let size = usize::try_from(size).map_err(|_| AvifError::Stream)?;
            rest = after.get(size..).ok_or(AvifError::Cut)?;
        } else {
            rest = &[];
        }
        frames += usize::from(matches!(kind, FRAME_HEADER | FRAME));
        stream = rest;
    }
    Ok(frames)
}
