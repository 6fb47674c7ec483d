//! JPEG to the very samples that libjpeg-turbo gives, and Pillow with it.
//!
//! Baseline, extended and progressive files with Huffman codes and 8 bits per sample: one, three or
//! four components in any whole ratio of sides. **Not** arithmetic coding, lossless or hierarchical
//! files, and no scaling. Damage within a scan costs what it hides, as with libjpeg; a file without
//! its end is refused, as Pillow does.

mod bits;
mod color;
mod huffman;
mod idct;
mod scan;
mod segments;
mod upsample;

use thiserror::Error;

use scan::Part;
use segments::{ScanHead, Tables};

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

/// One component: its sides, and what is decoded of it.
struct Component {
    id: u8,
    /// Blocks across and down in a unit.
    h: usize,
    v: usize,
    table: usize,
    /// Samples that the picture covers.
    width: usize,
    height: usize,
    /// In whole units.
    blocks_across: usize,
    blocks_down: usize,
    /// As it was at the first scan.
    quantizer: [u16; 64],
    begun: bool,
    /// `[8 * blocks_down, 8 * blocks_across]`.
    plane: Vec<u8>,
    /// `[blocks_down, blocks_across, 64]`; of progressive files only.
    coefficients: Vec<i16>,
}

impl Component {
    fn blocks(&self) -> usize {
        self.blocks_across * self.blocks_down
    }
}

/// What a frame's head says.
struct Frame {
    width: usize,
    height: usize,
    progressive: bool,
    units_across: usize,
    units_down: usize,
    components: Vec<Component>,
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

impl Frame {
    fn read(code: u8, inside: &[u8]) -> Result<Self, JpegError> {
        if !(0xc0..=0xc2).contains(&code) {
            return Err(JpegError::Process { code });
        }
        let ([bits, h0, h1, w0, w1, count], rest) =
            inside.split_first_chunk().ok_or(JpegError::BadScan)?;
        if *bits != 8 {
            return Err(JpegError::Precision { bits: *bits });
        }
        let count = usize::from(*count);
        let (width, height) = (
            usize::from(u16::from_be_bytes([*w0, *w1])),
            usize::from(u16::from_be_bytes([*h0, *h1])),
        );
        let (parts, _) = rest.as_chunks::<3>();
        if ![1, 3, 4].contains(&count) {
            return Err(JpegError::Components { count });
        }
        if width == 0 || height == 0 || parts.len() < count {
            return Err(JpegError::BadScan);
        }
        let mut components: Vec<_> = parts[..count]
            .iter()
            .map(|[id, sampling, table]| Component {
                id: *id,
                h: usize::from(sampling >> 4),
                v: usize::from(sampling & 15),
                table: usize::from(*table),
                width: 0,
                height: 0,
                blocks_across: 0,
                blocks_down: 0,
                quantizer: [0; 64],
                begun: false,
                plane: Vec::new(),
                coefficients: Vec::new(),
            })
            .collect();
        let largest = |side: fn(&Component) -> usize| components.iter().map(side).max();
        let (h_max, v_max) = (largest(|c| c.h).unwrap_or(1), largest(|c| c.v).unwrap_or(1));
        let whole = |c: &Component| {
            (1..=4).contains(&c.h)
                && (1..=4).contains(&c.v)
                && h_max.is_multiple_of(c.h)
                && v_max.is_multiple_of(c.v)
        };
        if !components.iter().all(whole) {
            return Err(JpegError::Sampling);
        }
        let units_across = width.div_ceil(8 * h_max);
        let units_down = height.div_ceil(8 * v_max);
        for component in &mut components {
            component.width = (width * component.h).div_ceil(h_max);
            component.height = (height * component.v).div_ceil(v_max);
            component.blocks_across = units_across * component.h;
            component.blocks_down = units_down * component.v;
        }
        Ok(Self {
            width,
            height,
            progressive: code == 0xc2,
            units_across,
            units_down,
            components,
        })
    }

    /// What the components stand for, guessed as libjpeg does.
    fn meaning(&self, jfif: bool, adobe: Option<u8>) -> Meaning {
        let ids: Vec<u8> = self.components.iter().map(|c| c.id).collect();
        match (ids[..].len(), jfif, adobe) {
            (1, ..) => Meaning::Gray,
            (3, true, _) => Meaning::Ycc,
            (3, _, Some(0)) => Meaning::Rgb,
            (3, _, Some(_)) => Meaning::Ycc,
            (3, ..) if ids == *b"RGB" => Meaning::Rgb,
            (3, ..) => Meaning::Ycc,
            (.., Some(2)) => Meaning::Ycck,
            _ => Meaning::Cmyk,
        }
    }

    /// Allocates what is decoded into.
    fn make_room(&mut self) {
        for component in &mut self.components {
            let samples = 64 * component.blocks();
            // What no scan reaches is gray.
            component.plane = vec![128; samples];
            if self.progressive {
                component.coefficients = vec![0; samples];
            }
        }
    }

    /// Decodes a scan with this head; returns where it ends.
    fn scan(
        &mut self,
        tables: &Tables,
        inside: &[u8],
        data: &[u8],
        at: usize,
    ) -> Result<usize, JpegError> {
        let head = ScanHead::read(inside, self.progressive)?;
        let mut parts = Vec::with_capacity(head.parts.len());
        for (id, dc, ac) in &head.parts {
            let found = self.components.iter().position(|c| c.id == *id);
            let component = found.ok_or(JpegError::BadScan)?;
            let of = &mut self.components[component];
            if !of.begun {
                let table = tables.quantizers.get(of.table).copied().flatten();
                of.quantizer = table.ok_or(JpegError::NoQuantizer)?;
                of.begun = true;
            }
            let (dc, ac) = (tables.dc.get(*dc), tables.ac.get(*ac));
            parts.push(Part {
                component,
                dc: dc.and_then(Option::as_deref).filter(|dc| dc.serves_dc()),
                ac: ac.and_then(Option::as_deref),
            });
        }
        scan::decode(self, &parts, head.band, tables.restart_interval, data, at)
    }

    /// Coefficients that all scans of a progressive file have told to samples.
    fn finish(&mut self) {
        for component in &mut self.components {
            let stride = 8 * component.blocks_across;
            let rows = component
                .coefficients
                .chunks_exact(64 * component.blocks_across);
            for (row, out) in rows.zip(component.plane.chunks_exact_mut(8 * stride)) {
                for (x, block) in row.as_chunks::<64>().0.iter().enumerate() {
                    let out = &mut out[8 * x..];
                    if block[1..].iter().all(|value| *value == 0) {
                        idct::flat(block[0], component.quantizer[0], out, stride);
                    } else {
                        idct::block(block, &component.quantizer, out, stride);
                    }
                }
            }
            component.coefficients = Vec::new();
        }
    }
}
