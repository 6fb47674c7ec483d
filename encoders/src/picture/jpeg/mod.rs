//! JPEG to the very samples that libjpeg-turbo gives, and Pillow with it.
//!
//! Baseline, extended and progressive files with Huffman codes and 8 bits per sample: one, three or
//! four components in any whole ratio of sides. **Not** arithmetic coding, lossless or hierarchical
//! files, and no scaling. Damage within a scan costs what it hides, as with libjpeg; a file without
//! its end is refused, as Pillow does.

mod bits;
mod color;
mod frame;
mod huffman;
mod idct;
mod scan;
mod segments;
mod upsample;

use thiserror::Error;

use frame::{Component, Frame};
use segments::Tables;

/// More scans than any encoder makes; each may cost as much as the whole picture.
const MAX_SCANS: usize = 100;

/// Why a JPEG file is not decoded.
#[derive(Debug, Error)]
pub(super) enum JpegError {
    #[error("the data ends early")]
    EndsEarly,
    #[error("it has no picture")]
    NoFrame,
    #[error(
        "its process is {code:#x}, expected baseline (0xc0), extended (0xc1) or progressive (0xc2)"
    )]
    Process { code: u8 },
    #[error("it has {bits} bits per sample, expected 8")]
    Precision { bits: u8 },
    #[error("it has {count} components, expected 1, 3 or 4")]
    Components { count: usize },
    #[error("the sampling of its components is not supported")]
    Sampling,
    #[error("it has {scans} scans, at most {MAX_SCANS} are allowed")]
    Scans { scans: usize },
    #[error("a table is cut short or has a wrong number")]
    BadTable,
    #[error("a Huffman table has too many codes")]
    BadHuffman,
    #[error("a scan names a Huffman table that is not there")]
    NoHuffman,
    #[error("a component names a quantization table that is not there")]
    NoQuantizer,
    #[error("the head of a scan or frame is wrong")]
    BadScan,
}

/// How the samples of a picture are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meaning {
    Gray,
    Rgb,
    Ycc,
    Cmyk,
    Ycck,
}

/// A JPEG file whose head was read.
pub(super) struct Jpeg<'a> {
    data: &'a [u8],
    frame: Frame,
    meaning: Meaning,
    exif: Option<&'a [u8]>,
    scans: usize,
    has_end: bool,
}

impl<'a> Jpeg<'a> {
    /// Reads all that is not entropy-coded; the time is that of reading the bytes once.
    pub(super) fn read(data: &'a [u8]) -> Result<Self, JpegError> {
        const EXIF_NAME: &[u8] = b"Exif\0\0";
        let (mut frame, mut exif, mut jfif, mut adobe) = (None, None, false, None);
        let (mut at, mut scans, mut has_end) = (2, 0, false);
        while let Some((code, inside, end)) = segments::segment(data, at) {
            match code {
                segments::END => {
                    has_end = true;
                    break;
                }
                segments::SCAN => scans += 1,
                segments::JFIF => jfif |= inside.starts_with(b"JFIF\0"),
                segments::ADOBE if inside.starts_with(b"Adobe") => {
                    adobe = inside.get(11).copied().or(adobe);
                }
                segments::EXIF => exif = exif.or(inside.strip_prefix(EXIF_NAME)),
                _ if segments::is_frame(code) && frame.is_some() => return Err(JpegError::BadScan),
                _ if segments::is_frame(code) => frame = Some(Frame::read(code, inside)?),
                _ => {}
            }
            at = end;
        }
        let frame = match frame {
            Some(frame) => frame,
            None if has_end => return Err(JpegError::NoFrame),
            None => return Err(JpegError::EndsEarly),
        };
        Ok(Self {
            data,
            meaning: frame.meaning(jfif, adobe),
            frame,
            exif,
            scans,
            has_end,
        })
    }

    /// Columns and rows.
    pub(super) fn sides(&self) -> (u32, u32) {
        (self.frame.width as u32, self.frame.height as u32)
    }

    /// How many bytes any file of these sides has: a block costs a bit at least.
    pub(super) fn least_bytes(&self) -> u64 {
        let blocks = self.frame.components.iter().map(Component::blocks);
        blocks.sum::<usize>() as u64 / 8
    }

    /// Samples per pixel of what [`Self::decode`] gives: 1 for gray, 3 for RGB.
    pub(super) fn channels(&self) -> usize {
        if self.meaning == Meaning::Gray { 1 } else { 3 }
    }

    /// What is in the EXIF segment.
    pub(super) fn exif(&self) -> Option<&'a [u8]> {
        self.exif
    }

    /// The picture: `[height, width, channels]`.
    pub(super) fn decode(self) -> Result<Vec<u8>, JpegError> {
        let Self {
            data, mut frame, ..
        } = self;
        if self.scans > MAX_SCANS {
            return Err(JpegError::Scans { scans: self.scans });
        }
        if !self.has_end || self.scans == 0 {
            return Err(JpegError::EndsEarly);
        }
        frame.make_room();
        let mut tables = Tables::default();
        let mut at = 2;
        while let Some((code, inside, mut end)) = segments::segment(data, at) {
            match code {
                segments::END => break,
                segments::SCAN => end = frame.scan(&tables, inside, data, end)?,
                _ => tables.read(code, inside)?,
            }
            at = end;
        }
        frame.finish();
        Ok(color::join(&frame, self.meaning))
    }
}
