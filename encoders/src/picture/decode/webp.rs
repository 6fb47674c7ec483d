//! How large the streams inside a WebP file are, whatever its canvas says, and the first frame of
//! an animation by itself.

use std::ops::Range;

/// The file's own name and size, and the name of the format.
const HEAD: usize = 12;
/// Place, size, duration and flags of a frame; its chunks follow.
const FRAME_HEAD: usize = 16;

/// Sides of the `VP8 ` and `VP8L` streams of a WebP file: those at its top level, and those in the
/// frames of an animation.
pub(super) fn streams(bytes: &[u8]) -> Vec<(u32, u32)> {
    let mut sides = Vec::new();
    for (name, data) in chunks(bytes, HEAD) {
        if &name == b"ANMF" {
            let inner = chunks(&bytes[..data.end], data.start + FRAME_HEAD);
            sides.extend(inner.filter_map(|(name, data)| stream(name, &bytes[data.start..])));
        } else {
            sides.extend(stream(name, &bytes[data.start..]));
        }
    }
    sides
}

/// The first frame of an animation.
pub(super) struct Animation {
    /// Columns and rows of the whole.
    pub(super) canvas: (u32, u32),
    left: u32,
    top: u32,
    opaque: bool,
    /// The frame as a file of its own.
    pub(super) frame: Vec<u8>,
}

/// What is in the EXIF chunk, as far as it is there.
pub(super) fn exif(bytes: &[u8]) -> Option<&[u8]> {
    let (_, data) = chunks(bytes, HEAD).find(|(name, _)| name == b"EXIF")?;
    Some(&bytes[data])
}

impl Animation {
    /// The first frame of `bytes`, if that is an animation. The others are never decoded.
    pub(super) fn of(bytes: &[u8]) -> Option<Self> {
        const HAS_ALPHA: u8 = 1 << 4;
        const IS_ANIMATION: u8 = 1 << 1;
        let data = |wanted: &[u8; 4]| {
            let found = chunks(bytes, HEAD).find(|(name, _)| name == wanted);
            found.map(|(_, data)| &bytes[data])
        };
        let [flags, _, _, _, canvas @ ..] = *data(b"VP8X")?.first_chunk::<10>()?;
        if flags & IS_ANIMATION == 0 {
            return None;
        }
        let number = |bytes: &[u8]| bytes.iter().rev().fold(0, |n, b| n << 8 | u32::from(*b));
        let frame = data(b"ANMF")?;
        let head = frame.first_chunk::<FRAME_HEAD>()?;
        let mut still = b"RIFF\0\0\0\0WEBPVP8X\x0a\0\0\0".to_vec();
        let has_alpha = chunks(frame, FRAME_HEAD).any(|(name, _)| &name == b"ALPH");
        still.extend([if has_alpha { HAS_ALPHA } else { 0 }, 0, 0, 0]);
        still.extend(&head[6..12]);
        for (name, data) in chunks(frame, FRAME_HEAD) {
            // A lossless stream says by itself whether it has alpha, and needs no head for it.
            if &name == b"VP8L" {
                still.truncate(HEAD);
            }
            if matches!(&name, b"ALPH" | b"VP8 " | b"VP8L") {
                still.extend(&frame[data.start - 8..data.end]);
                still.resize(still.len().next_multiple_of(2), 0);
            }
            if matches!(&name, b"VP8 " | b"VP8L") {
                break;
            }
        }
        let length = u32::try_from(still.len() - 8).ok()?;
        still[4..8].copy_from_slice(&length.to_le_bytes());
        Some(Self {
            canvas: (number(&canvas[..3]) + 1, number(&canvas[3..]) + 1),
            left: 2 * number(&head[..3]),
            top: 2 * number(&head[3..6]),
            opaque: flags & HAS_ALPHA == 0,
            frame: still,
        })
    }

    /// Writes the decoded frame, `rgba` of these `sides`, to its place on the canvas, `[h, w, 4]`,
    /// as it is: no blending, since there is nothing below. False where it does not fit.
    pub(super) fn paste(&self, sides: (u32, u32), rgba: &[u8], canvas: &mut [u8]) -> bool {
        let fits =
            |start: u32, side: u32, all: u32| start.checked_add(side).is_some_and(|end| end <= all);
        if !fits(self.left, sides.0, self.canvas.0) || !fits(self.top, sides.1, self.canvas.1) {
            return false;
        }
        let [left, width, all] = [self.left, sides.0, self.canvas.0].map(|side| 4 * side as usize);
        let rows = canvas.chunks_exact_mut(all).skip(self.top as usize);
        for (row, from) in rows.zip(rgba.chunks_exact(width)) {
            row[left..left + width].copy_from_slice(from);
        }
        if self.opaque {
            canvas
                .as_chunks_mut::<4>()
                .0
                .iter_mut()
                .for_each(|pixel| pixel[3] = u8::MAX);
        }
        true
    }
}

/// Sides of a stream, from the start of its chunk's data.
fn stream(name: [u8; 4], data: &[u8]) -> Option<(u32, u32)> {
    match (&name, data) {
        (b"VP8 ", [_, _, _, _, _, _, w0, w1, h0, h1, ..]) => {
            let side = |low, high| u32::from(u16::from_le_bytes([low, high]) & 0x3fff);
            Some((side(*w0, *w1), side(*h0, *h1)))
        }
        (b"VP8L", [_, a, b, c, d, ..]) => {
            let packed = u32::from_le_bytes([*a, *b, *c, *d]);
            Some(((packed & 0x3fff) + 1, ((packed >> 14) & 0x3fff) + 1))
        }
        _ => None,
    }
}

/// Names of the chunks from `at` on, and where in `bytes` their data is.
fn chunks(bytes: &[u8], mut at: usize) -> impl Iterator<Item = ([u8; 4], Range<usize>)> {
    std::iter::from_fn(move || {
        let [n0, n1, n2, n3, s0, s1, s2, s3] = *bytes.get(at..)?.first_chunk::<8>()?;
        let size = u32::from_le_bytes([s0, s1, s2, s3]) as usize;
        let start = at + 8;
        // Chunks are padded to an even size.
        at = start.saturating_add(size).saturating_add(size % 2);
        let end = start.saturating_add(size).min(bytes.len());
        Some(([n0, n1, n2, n3], start..end))
    })
}
