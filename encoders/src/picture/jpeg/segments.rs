//! Markers and segments of a JPEG file.

use super::JpegError;
use super::huffman::Huffman;
use super::scan::{Band, NATURAL};

pub(super) const FIRST_FRAME: u8 = 0xc0;
pub(super) const TABLES: u8 = 0xc4;
pub(super) const LAST_FRAME: u8 = 0xcf;
pub(super) const EXPECTED_RESTART: u8 = 0xd0;
pub(super) const END: u8 = 0xd9;
pub(super) const SCAN: u8 = 0xda;
pub(super) const QUANTIZERS: u8 = 0xdb;
pub(super) const RESTARTS: u8 = 0xdd;
pub(super) const JFIF: u8 = 0xe0;
pub(super) const EXIF: u8 = 0xe1;
pub(super) const ADOBE: u8 = 0xee;

/// The next marker from `at` on, and where it ends. What is no marker is skipped.
pub(super) fn marker(data: &[u8], mut at: usize) -> Option<(u8, usize)> {
    loop {
        let rest = data.get(at..)?;
        at += memchr::memchr(0xff, rest)?;
        let code = *data.get(at + 1)?;
        match code {
            // A byte of the picture, or one that fills.
            0 => at += 2,
            0xff => at += 1,
            _ => return Some((code, at + 2)),
        }
    }
}

/// The next marker that begins a segment or ends the picture, its data, and where that ends.
pub(super) fn segment(data: &[u8], mut at: usize) -> Option<(u8, &[u8], usize)> {
    loop {
        let (code, start) = marker(data, at)?;
        match code {
            // Restarts, starts and the reserved ones have no data.
            1..FIRST_FRAME | EXPECTED_RESTART..END => at = start,
            END => return Some((code, &[], start)),
            _ => {
                let [high, low] = *data.get(start..)?.first_chunk()?;
                let length = usize::from(u16::from_be_bytes([high, low]));
                let inside = data.get(start + 2..start + length)?;
                return Some((code, inside, start + length));
            }
        }
    }
}

/// Whether a marker begins a frame.
pub(super) fn is_frame(code: u8) -> bool {
    const NOT: [u8; 3] = [TABLES, 0xc8, 0xcc];
    (FIRST_FRAME..=LAST_FRAME).contains(&code) && !NOT.contains(&code)
}

/// Tables, as they are at one place of the file.
#[derive(Default)]
pub(super) struct Tables {
    pub(super) quantizers: [Option<[u16; 64]>; 4],
    pub(super) dc: [Option<Box<Huffman>>; 4],
    pub(super) ac: [Option<Box<Huffman>>; 4],
    pub(super) restart_interval: usize,
}

impl Tables {
    /// Reads a segment if it holds tables.
    pub(super) fn read(&mut self, code: u8, inside: &[u8]) -> Result<(), JpegError> {
        match code {
            QUANTIZERS => self.read_quantizers(inside),
            TABLES => self.read_huffman(inside),
            RESTARTS => {
                let [high, low] = *inside.first_chunk().ok_or(JpegError::BadTable)?;
                self.restart_interval = usize::from(u16::from_be_bytes([high, low]));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn read_quantizers(&mut self, mut inside: &[u8]) -> Result<(), JpegError> {
        while let Some((head, rest)) = inside.split_first() {
            let slot = self.quantizers.get_mut(usize::from(head & 15));
            let slot = slot.ok_or(JpegError::BadTable)?;
            let wide = head >> 4 != 0;
            let bytes = if wide { 128 } else { 64 };
            let (values, rest) = rest.split_at_checked(bytes).ok_or(JpegError::BadTable)?;
            let mut table = [0; 64];
            for (i, place) in NATURAL[..64].iter().enumerate() {
                table[usize::from(*place)] = if wide {
                    u16::from_be_bytes([values[2 * i], values[2 * i + 1]])
                } else {
                    u16::from(values[i])
                };
            }
            *slot = Some(table);
            inside = rest;
        }
        Ok(())
    }

    fn read_huffman(&mut self, mut inside: &[u8]) -> Result<(), JpegError> {
        while let Some((head, rest)) = inside.split_first() {
            let (counts, rest) = rest.split_first_chunk().ok_or(JpegError::BadTable)?;
            let symbols = counts.iter().map(|count| usize::from(*count)).sum();
            if symbols > 256 {
                return Err(JpegError::BadHuffman);
            }
            let (listed, rest) = rest.split_at_checked(symbols).ok_or(JpegError::BadTable)?;
            let table = Huffman::new(counts, listed)?;
            let kind = if head >> 4 == 0 {
                &mut self.dc
            } else {
                &mut self.ac
            };
            let slot = kind.get_mut(usize::from(head & 15));
            *slot.ok_or(JpegError::BadTable)? = Some(table);
            inside = rest;
        }
        Ok(())
    }
}

/// The head of a scan: which components with which tables, and which part of their coefficients.
pub(super) struct ScanHead {
    /// Component id, DC table, AC table.
    pub(super) parts: Vec<(u8, usize, usize)>,
    pub(super) band: Band,
}

impl ScanHead {
    pub(super) fn read(inside: &[u8], progressive: bool) -> Result<Self, JpegError> {
        let bad = || JpegError::BadScan;
        let (count, rest) = inside.split_first().ok_or_else(bad)?;
        let count = usize::from(*count);
        let (parts, rest) = rest.split_at_checked(2 * count).ok_or_else(bad)?;
        let [first, last, bits] = *rest.first_chunk().ok_or_else(bad)?;
        let parts = parts.as_chunks::<2>().0.iter();
        let parts: Vec<_> = parts
            .map(|[id, tables]| (*id, usize::from(tables >> 4), usize::from(tables & 15)))
            .collect();
        let band = Band {
            first: usize::from(first),
            last: usize::from(last),
            high: bits >> 4,
            low: bits & 15,
        };
        // Either the DC of all components, or a band of one.
        let right = if first == 0 {
            last == 0
        } else {
            first <= last && last < 64 && count == 1
        };
        let refines = band.high == 0 || band.low + 1 == band.high;
        let distinct = (1..count).all(|i| parts[..i].iter().all(|part| part.0 != parts[i].0));
        if !(1..=4).contains(&count)
            || !distinct
            || progressive && !(right && refines && band.low <= 13)
        {
            return Err(bad());
        }
        Ok(Self { parts, band })
    }
}
