//! PNG, without its profiles, texts and later frames: none of them is ever inflated.

use std::io::{self, BufRead, Read, Seek, SeekFrom};

use image::ColorType;
use png::{BitDepth, Decoder, Transformations};

use super::{
    DecodeLimits, PictureError, Raw, SCRATCH_BYTES, check_budget, check_bytes, orientation,
    undecodable, unsupported_color, zeros,
};

/// What deflate makes of one byte at most.
const MOST_PER_BYTE: u64 = 1032;

/// The picture, or the first of an animation as those see it who know no animations.
pub(super) fn read(
    format: &'static str,
    bytes: &[u8],
    limits: &DecodeLimits,
) -> Result<Raw, PictureError> {
    let broken = |source: png::DecodingError| undecodable(format, source);
    let scratch = png::Limits {
        bytes: SCRATCH_BYTES,
    };
    let file = Pieces::of(bytes);
    let (packed, exif) = (file.packed, file.exif);
    let mut decoder = Decoder::new_with_limits(file, scratch);
    decoder.set_transformations(Transformations::EXPAND);
    let head = decoder.read_header_info().map_err(broken)?;
    let (width, height) = (head.width, head.height);
    check_budget(width, height, limits)?;
    let row = (u64::from(width) * head.bits_per_pixel() as u64).div_ceil(8);
    let least = row * u64::from(height) / MOST_PER_BYTE;
    check_bytes(format, packed, least, (width, height))?;
    let mut reader = decoder.read_info().map_err(broken)?;
    let (color, bits) = reader.output_color_type();
    let color = match (color, bits) {
        (png::ColorType::Grayscale, BitDepth::Eight) => ColorType::L8,
        (png::ColorType::Grayscale, BitDepth::Sixteen) => ColorType::L16,
        (png::ColorType::GrayscaleAlpha, BitDepth::Eight) => ColorType::La8,
        (png::ColorType::GrayscaleAlpha, BitDepth::Sixteen) => ColorType::La16,
        (png::ColorType::Rgb, BitDepth::Eight) => ColorType::Rgb8,
        (png::ColorType::Rgb, BitDepth::Sixteen) => ColorType::Rgb16,
        (png::ColorType::Rgba, BitDepth::Eight) => ColorType::Rgba8,
        (png::ColorType::Rgba, BitDepth::Sixteen) => ColorType::Rgba16,
        // Expanded, there are no others.
        _ => return Err(unsupported_color(format)),
    };
    let size = reader.output_buffer_size();
    let size = size.ok_or_else(|| undecodable(format, "it does not fit into memory"))?;
    let mut data = zeros(size as u64, format)?;
    reader.next_frame(&mut data).map_err(broken)?;
    if bits == BitDepth::Sixteen {
        for sample in data.as_chunks_mut::<2>().0 {
            *sample = u16::from_be_bytes(*sample).to_ne_bytes();
        }
    }
    Ok(Raw {
        format,
        width,
        height,
        color,
        orientation: orientation(exif),
        data,
    })
}

/// The chunks of a file that make its pixels, and no others: whatever those hold, it costs nothing.
struct Pieces<'a> {
    /// In their order, the first not yet read.
    left: std::vec::IntoIter<&'a [u8]>,
    now: &'a [u8],
    /// Bytes of packed pixels.
    packed: usize,
    exif: Option<&'a [u8]>,
}

impl<'a> Pieces<'a> {
    fn of(bytes: &'a [u8]) -> Self {
        const SIGNATURE: usize = 8;
        const NEEDED: [&[u8; 4]; 5] = [b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"];
        let (mut pieces, mut packed, mut exif) = (Vec::new(), 0_usize, None);
        let (mut begin, mut at) = (0, SIGNATURE);
        // Length, name, data, checksum.
        while let Some([l0, l1, l2, l3, name @ ..]) =
            bytes.get(at..).and_then(<[u8]>::first_chunk::<8>)
        {
            let length = u32::from_be_bytes([*l0, *l1, *l2, *l3]) as usize;
            let end = at
                .saturating_add(length)
                .saturating_add(12)
                .min(bytes.len());
            let data = bytes.get(at + 8..end.saturating_sub(4)).unwrap_or(&[]);
            if NEEDED.contains(&name) {
                packed += if name == b"IDAT" { data.len() } else { 0 };
            } else {
                pieces.push(&bytes[begin..at]);
                begin = end;
                exif = exif.or((name == b"eXIf").then_some(data));
            }
            at = end;
        }
        pieces.push(&bytes[begin.min(bytes.len())..]);
        Self {
            left: pieces.into_iter(),
            now: &[],
            packed,
            exif,
        }
    }
}

impl Read for Pieces<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let count = self.fill_buf()?.read(out)?;
        self.consume(count);
        Ok(count)
    }
}

impl BufRead for Pieces<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.now.is_empty()
            && let Some(next) = self.left.next()
        {
            self.now = next;
        }
        Ok(self.now)
    }

    fn consume(&mut self, count: usize) {
        self.now = &self.now[count..];
    }
}

/// The decoder asks for this, and never does it.
impl Seek for Pieces<'_> {
    fn seek(&mut self, _: SeekFrom) -> io::Result<u64> {
        Err(io::ErrorKind::Unsupported.into())
    }
}
