//! How large the streams inside a WebP file are, whatever its canvas says.

use std::ops::Range;

/// Sides of the `VP8 ` and `VP8L` streams of a WebP file: those at its top level, and those in the
/// frames of an animation.
pub(super) fn streams(bytes: &[u8]) -> Vec<(u32, u32)> {
    /// The file's own name and size, and the name of the format.
    const HEAD: usize = 12;
    /// Place, size, duration and flags of a frame; its chunks follow.
    const FRAME_HEAD: usize = 16;
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
