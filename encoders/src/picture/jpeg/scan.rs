//! Entropy-coded scans: numbers to coefficients, and those of sequential files to samples at once.

use super::bits::Bits;
use super::frame::{Component, Frame};
use super::huffman::Huffman;
use super::segments::{self, EXPECTED_RESTART};
use super::{JpegError, idct};

/// From zigzag order to rows. A damaged run can lead 16 places too far.
pub(super) const NATURAL: [u8; 80] = [
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20,
    13, 6, 7, 14, 21, 28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59,
    52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63,
    63, 63, 63, 63, 63, 63,
];

/// Blocks that one unit of an interleaved scan may have.
const MAX_BLOCKS: usize = 10;

/// A component of a scan, and its tables.
pub(super) struct Part<'a> {
    pub(super) component: usize,
    pub(super) dc: Option<&'a Huffman>,
    pub(super) ac: Option<&'a Huffman>,
}

/// What a scan tells of each block: a band of coefficients, and which of their bits.
#[derive(Clone, Copy)]
pub(super) struct Band {
    pub(super) first: usize,
    pub(super) last: usize,
    /// The lowest bit that earlier scans have told; 0 for none.
    pub(super) high: u8,
    pub(super) low: u8,
}

/// A block in progress.
struct State<'a> {
    bits: Bits<'a>,
    /// The last DC number of each part.
    dc: [i32; 4],
    /// Blocks, this one included, that have nothing more in the band.
    ended: u32,
}

/// Decodes the scan at `at`; returns where it ends.
pub(super) fn decode(
    frame: &mut Frame,
    parts: &[Part<'_>],
    band: Band,
    restart_interval: usize,
    data: &[u8],
    at: usize,
) -> Result<usize, JpegError> {
    let (across, down) = match parts {
        [part] => {
            let component = &frame.components[part.component];
            (component.width.div_ceil(8), component.height.div_ceil(8))
        }
        _ => (frame.units_across, frame.units_down),
    };
    // Per block of a unit: part, and place in the unit.
    let mut layout = Vec::with_capacity(MAX_BLOCKS);
    for (i, part) in parts.iter().enumerate() {
        let component = &frame.components[part.component];
        let (h, v) = if parts.len() == 1 {
            (1, 1)
        } else {
            (component.h, component.v)
        };
        for y in 0..v {
            layout.extend((0..h).map(|x| (i, x, y, h, v)));
        }
    }
    if layout.len() > MAX_BLOCKS {
        return Err(JpegError::BadScan);
    }
    let mut state = State {
        bits: Bits::new(data, at),
        dc: [0; 4],
        ended: 0,
    };
    let (mut left, mut expected) = (restart_interval, 0);
    let mut scratch = [0; 64];
    for unit_y in 0..down {
        for unit_x in 0..across {
            if restart_interval > 0 {
                if left == 0 {
                    restart(&mut state, data, expected);
                    (left, expected) = (restart_interval, (expected + 1) % 8);
                }
                left -= 1;
            }
            // What is missing stays as it is: gray, or what earlier scans have said.
            if state.bits.short() {
                continue;
            }
            for (i, x, y, h, v) in &layout {
                let part = &parts[*i];
                let component = &mut frame.components[part.component];
                let (x, y) = (unit_x * h + x, unit_y * v + y);
                if frame.progressive {
                    let start = 64 * (y * component.blocks_across + x);
                    let block = component.coefficients[start..].first_chunk_mut::<64>();
                    let block = block.ok_or(JpegError::BadScan)?;
                    progressive(&mut state, *i, part, band, block)?;
                } else {
                    sequential(&mut state, *i, part, component, x, y, &mut scratch)?;
                }
            }
        }
    }
    Ok(state.bits.drop_rest())
}

/// Goes on behind the next restart marker, or where libjpeg would when that is another than
/// `expected`.
fn restart<'a>(state: &mut State<'a>, data: &'a [u8], expected: u8) {
    let mut at = state.bits.drop_rest();
    while let Some((marker, end)) = segments::marker(data, at) {
        let ahead = marker.wrapping_sub(EXPECTED_RESTART + expected) % 8;
        let is_restart = (EXPECTED_RESTART..EXPECTED_RESTART + 8).contains(&marker);
        at = match (marker, is_restart, ahead) {
            // No marker at all, or one that is late: on to the next.
            (..segments::FIRST_FRAME, ..) | (_, true, 6 | 7) => end,
            // Something else, or one to come: what is between is missing.
            (_, false, _) | (_, true, 1 | 2) => end - 2,
            _ => end,
        };
        if marker >= segments::FIRST_FRAME && !(is_restart && matches!(ahead, 6 | 7)) {
            break;
        }
    }
    *state = State {
        bits: Bits::new(data, at),
        dc: [0; 4],
        ended: 0,
    };
}

/// One block of a sequential file.
#[inline]
fn sequential(
    state: &mut State<'_>,
    number: usize,
    part: &Part<'_>,
    component: &mut Component,
    x: usize,
    y: usize,
    block: &mut [i16; 64],
) -> Result<(), JpegError> {
    let (Some(dc), Some(ac)) = (part.dc, part.ac) else {
        return Err(JpegError::NoHuffman);
    };
    let mut bits = state.bits;
    let size = dc.symbol(&mut bits);
    let value = state.dc[number].wrapping_add(bits.number(u32::from(size)));
    state.dc[number] = value;
    block[0] = value as i16;
    let mut at = 1;
    while at < 64 {
        if let Some((number, zeros)) = ac.whole(&mut bits) {
            at += usize::from(zeros);
            block[usize::from(NATURAL[at])] = number;
            at += 1;
            continue;
        }
        let symbol = ac.symbol(&mut bits);
        let (zeros, size) = (usize::from(symbol >> 4), u32::from(symbol & 15));
        if size > 0 {
            at += zeros;
            block[usize::from(NATURAL[at])] = bits.number(size) as i16;
        } else if zeros == 15 {
            at += 15;
        } else {
            break;
        }
        at += 1;
    }
    state.bits = bits;
    let stride = 8 * component.blocks_across;
    let out = &mut component.plane[8 * (y * stride + x)..];
    if at == 1 {
        idct::flat(block[0], component.quantizer[0], out, stride);
    } else {
        idct::block(block, &component.quantizer, out, stride);
        *block = [0; 64];
    }
    Ok(())
}

/// What one scan of a progressive file says of one block.
fn progressive(
    state: &mut State<'_>,
    number: usize,
    part: &Part<'_>,
    band: Band,
    block: &mut [i16; 64],
) -> Result<(), JpegError> {
    let mut bits = state.bits;
    match (band.first, band.high, part.dc, part.ac) {
        (0, 0, Some(dc), _) => {
            let size = dc.symbol(&mut bits);
            let value = state.dc[number].wrapping_add(bits.number(u32::from(size)));
            state.dc[number] = value;
            block[0] = value.wrapping_shl(u32::from(band.low)) as i16;
        }
        (0, 1.., ..) => block[0] |= (bits.take(1) << band.low) as i16,
        (1.., 0, _, Some(ac)) => {
            if state.ended > 0 {
                state.ended -= 1;
                return Ok(());
            }
            state.ended = first_bits(&mut bits, ac, band, block);
        }
        (1.., 1.., _, Some(ac)) => more_bits(&mut bits, &mut state.ended, ac, band, block),
        _ => return Err(JpegError::NoHuffman),
    }
    state.bits = bits;
    Ok(())
}

/// The first scan of a band; returns how many blocks after this have nothing in it.
#[inline]
fn first_bits(bits: &mut Bits<'_>, ac: &Huffman, band: Band, block: &mut [i16; 64]) -> u32 {
    let mut at = band.first;
    while at <= band.last {
        let symbol = ac.symbol(bits);
        let (zeros, size) = (u32::from(symbol >> 4), u32::from(symbol & 15));
        if size > 0 {
            at += zeros as usize;
            block[usize::from(NATURAL[at])] = (bits.number(size) << band.low) as i16;
        } else if zeros == 15 {
            at += 15;
        } else {
            return (1 << zeros) + bits.take(zeros) - 1;
        }
        at += 1;
    }
    0
}

/// A later scan of a band: one bit more of each coefficient that is not zero, and new ones of one
/// bit.
#[inline]
fn more_bits(
    bits: &mut Bits<'_>,
    ended: &mut u32,
    ac: &Huffman,
    band: Band,
    block: &mut [i16; 64],
) {
    let bit = 1 << band.low;
    let correct = |bits: &mut Bits<'_>, value: &mut i16| {
        if bits.take(1) == 1 && *value & bit == 0 {
            *value = value.wrapping_add(if *value >= 0 { bit } else { -bit });
        }
    };
    let mut at = band.first;
    while *ended == 0 && at <= band.last {
        let symbol = ac.symbol(bits);
        let (mut zeros, size) = (u32::from(symbol >> 4), symbol & 15);
        let mut new = 0;
        if size > 0 {
            new = if bits.take(1) == 1 { bit } else { -bit };
        } else if zeros < 15 {
            *ended = (1 << zeros) + bits.take(zeros);
            break;
        }
        while at <= band.last {
            let value = &mut block[usize::from(NATURAL[at])];
            if *value != 0 {
                correct(bits, value);
            } else if zeros == 0 {
                break;
            } else {
                zeros -= 1;
            }
            at += 1;
        }
        if new != 0 {
            block[usize::from(NATURAL[at])] = new;
        }
        at += 1;
    }
    if *ended > 0 {
        for place in &NATURAL[at.min(band.last + 1)..=band.last] {
            let value = &mut block[usize::from(*place)];
            if *value != 0 {
                correct(bits, value);
            }
        }
        *ended -= 1;
    }
}
