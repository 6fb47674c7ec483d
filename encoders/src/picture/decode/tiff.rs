//! What the head of a TIFF promises.

use std::io::Cursor;

use tiff::decoder::Decoder;
use tiff::tags::{CompressionMethod, Tag};

/// The tags that say what the pixels cost.
pub(super) struct Head {
    pub(super) sides: Option<(u32, u32)>,
    compression: Option<CompressionMethod>,
    /// Of one sample, and samples of a pixel.
    bits: u64,
    samples: u64,
}

impl Head {
    /// Reads the first directory; what is damaged in it is left out.
    pub(super) fn read(bytes: &[u8]) -> Self {
        let mut decoder = Decoder::new(Cursor::new(bytes)).ok();
        let mut number = |tag| {
            let found = decoder.as_mut()?.find_tag_unsigned::<u32>(tag);
            found.ok().flatten()
        };
        let sides = number(Tag::ImageWidth).zip(number(Tag::ImageLength));
        let compression = number(Tag::Compression).unwrap_or(1);
        let samples = number(Tag::SamplesPerPixel).unwrap_or(1);
        let bits = decoder.as_mut().and_then(|decoder| {
            let bits = decoder.find_tag_unsigned_vec::<u16>(Tag::BitsPerSample);
            bits.ok().flatten()?.first().copied()
        });
        Self {
            sides,
            compression: u16::try_from(compression)
                .ok()
                .and_then(CompressionMethod::from_u16),
            bits: u64::from(bits.unwrap_or(1)),
            samples: u64::from(samples),
        }
    }

    /// How many bytes the pixels need at least, packed as well as the method can.
    pub(super) fn least_bytes(&self) -> u64 {
        let most_per_byte = match self.compression {
            // Colors may be subsampled.
            Some(CompressionMethod::None) => 2,
            Some(CompressionMethod::PackBits) => 64,
            Some(CompressionMethod::Deflate | CompressionMethod::OldDeflate) => 1032,
            // Twelve bits for the longest string of the table.
            Some(CompressionMethod::LZW) => 2731,
            _ => return 0,
        };
        let (width, height) = self.sides.unwrap_or_default();
        let row = u128::from(width) * u128::from(self.bits) * u128::from(self.samples);
        let all = row.div_ceil(8) * u128::from(height) / most_per_byte;
        u64::try_from(all).unwrap_or(u64::MAX)
    }

    /// Whether the strips are JPEG files. The decoder gives them to another that knows no budget,
    /// and looks at their sides only afterwards.
    pub(super) fn holds_jpeg(&self) -> bool {
        matches!(
            self.compression,
            Some(CompressionMethod::JPEG | CompressionMethod::ModernJPEG)
        )
    }
}
