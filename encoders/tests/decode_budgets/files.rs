//! Hostile files, made byte by byte.

use std::io::Cursor;

use image::ImageFormat;

/// So many zeros, packed as deflate packs them best.
pub struct Zeros {
    count: usize,
}

impl Zeros {
    pub fn new(count: usize) -> Self {
        Self { count }
    }

    /// A zlib stream: one zero, and matches of 258 at distance 1, each in two bits.
    pub fn zlib(&self) -> Vec<u8> {
        const PER_MATCH: usize = 258;
        let mut bits = Bits(vec![0x78, 0x01], 0);
        // Lengths of codes: literal 0 has 2 bits, the end 2, length 258 1; the only distance 1.
        bits.low(1, 1);
        bits.low(2, 2);
        // 286 literals and lengths, 2 distances, 18 lengths of lengths.
        bits.low(29, 5);
        bits.low(1, 5);
        bits.low(14, 4);
        // In deflate's order 16 17 18 0 8 7 9 6 10 5 11 4 12 3 13 2 14 1: 18 and 0 and 1 and 2.
        for length in [0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1] {
            bits.low(length, 3);
        }
        // Codes, first bit first: 1 is 0, 2 is 10, 18 is 11.
        let zeros = |bits: &mut Bits, count: u32| {
            bits.low(0b11, 2);
            bits.low(count - 11, 7);
        };
        bits.low(0b01, 2);
        zeros(&mut bits, 138);
        zeros(&mut bits, 117);
        bits.low(0b01, 2);
        zeros(&mut bits, 28);
        bits.low(0, 1);
        // Two distances of one bit each.
        bits.low(0, 1);
        bits.low(0, 1);
        // Length 258 is 0, literal 0 is 10, the end is 11.
        bits.low(0b01, 2);
        for _ in 0..self.count.saturating_sub(1) / PER_MATCH {
            bits.low(0, 2);
        }
        for _ in 0..self.count.saturating_sub(1) % PER_MATCH {
            bits.low(0b01, 2);
        }
        bits.low(0b11, 2);
        let mut bytes = bits.0;
        // Adler-32 of zeros.
        let adler = ((self.count % 65_521) << 16 | 1) as u32;
        bytes.extend(adler.to_be_bytes());
        bytes
    }
}

/// Bits, lowest first.
struct Bits(Vec<u8>, u32);

impl Bits {
    fn low(&mut self, value: u32, count: u32) {
        for bit in 0..count {
            if self.1 == 0 {
                self.0.push(0);
            }
            let last = self.0.last_mut().expect("there is one");
            *last |= ((value >> bit & 1) as u8) << self.1;
            self.1 = (self.1 + 1) % 8;
        }
    }
}

/// A file of chunks in progress.
pub struct Chunks(Vec<u8>);

impl Chunks {
    /// A PNG chunk.
    pub fn chunk(&mut self, kind: [u8; 4], data: &[u8]) {
        self.0.extend((data.len() as u32).to_be_bytes());
        let start = self.0.len();
        self.0.extend(kind);
        self.0.extend(data);
        let sum = crc(&self.0[start..]);
        self.0.extend(sum.to_be_bytes());
    }

    pub fn end(mut self) -> Vec<u8> {
        self.chunk(*b"IEND", &[]);
        self.0
    }
}

fn crc(bytes: &[u8]) -> u32 {
    let table: [u32; 256] = std::array::from_fn(|i| {
        (0..8).fold(i as u32, |c, _| {
            if c & 1 == 1 {
                0xedb8_8320 ^ c >> 1
            } else {
                c >> 1
            }
        })
    });
    !bytes.iter().fold(u32::MAX, |c, byte| {
        table[((c ^ u32::from(*byte)) & 255) as usize] ^ c >> 8
    })
}

/// The start of a gray PNG.
pub fn png(width: u32, height: u32, animation: &[u8]) -> Chunks {
    let mut chunks = Chunks(b"\x89PNG\r\n\x1a\n".to_vec());
    let head = [
        &width.to_be_bytes()[..],
        &height.to_be_bytes(),
        &[8, 0, 0, 0, 0],
    ]
    .concat();
    chunks.chunk(*b"IHDR", &head);
    if !animation.is_empty() {
        chunks.chunk(*b"acTL", animation);
    }
    chunks
}

/// An animated PNG of 64 x 64.
pub fn apng(frames: u32) -> Vec<u8> {
    let mut chunks = png(64, 64, &[&frames.to_be_bytes()[..], &[0; 4]].concat());
    let data = Zeros::new(64 * 65).zlib();
    let mut number = 0_u32;
    for frame in 0..frames {
        let sides = 64_u32.to_be_bytes();
        let head = [&number.to_be_bytes()[..], &sides, &sides, &[0; 14]].concat();
        chunks.chunk(*b"fcTL", &head);
        number += 1;
        if frame == 0 {
            chunks.chunk(*b"IDAT", &data);
        } else {
            chunks.chunk(*b"fdAT", &[&number.to_be_bytes()[..], &data].concat());
            number += 1;
        }
    }
    chunks.end()
}

/// A GIF whose frames have the size of the screen, up to 64 x 64.
pub fn gif(width: u16, height: u16, frames: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = gif::Encoder::new(&mut bytes, width, height, &[0, 0, 0, 255, 255, 255])
        .expect("a small palette");
    let (width, height) = (width.min(64), height.min(64));
    for _ in 0..frames {
        let frame = gif::Frame {
            width,
            height,
            buffer: vec![1; usize::from(width) * usize::from(height)].into(),
            ..gif::Frame::default()
        };
        encoder
            .write_frame(&frame)
            .expect("memory takes every byte");
    }
    drop(encoder);
    bytes
}

/// A RIFF chunk that says another size than it has.
fn riff(name: [u8; 4], size: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = [&name[..], &size.to_le_bytes(), data].concat();
    bytes.resize(bytes.len().next_multiple_of(2), 0);
    bytes
}

fn riff_file(chunks: &[u8]) -> Vec<u8> {
    let body = [b"WEBP", chunks].concat();
    riff(*b"RIFF", body.len() as u32, &body)
}

/// A WebP of one chunk.
pub fn webp_of(name: [u8; 4], data: &[u8]) -> Vec<u8> {
    riff_file(&riff(name, data.len() as u32, data))
}

/// The lossless stream of a picture of 64 x 64.
fn lossless_stream() -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image::RgbImage::new(64, 64)
        .write_to(&mut bytes, ImageFormat::WebP)
        .expect("memory takes every byte");
    bytes.into_inner()[12..].to_vec()
}

fn webp_head(flags: u8, canvas: (u32, u32)) -> Vec<u8> {
    let side = |side: u32| (side - 1).to_le_bytes()[..3].to_vec();
    let head = [vec![flags, 0, 0, 0], side(canvas.0), side(canvas.1)].concat();
    riff(*b"VP8X", 10, &head)
}

/// An animation of frames of 64 x 64.
pub fn webp_animation(canvas: (u32, u32), frames: usize) -> Vec<u8> {
    let head = [0, 0, 0, 0, 0, 0, 63, 0, 0, 63, 0, 0, 100, 0, 0, 0];
    let frame = [&head[..], &lossless_stream()].concat();
    let frame = riff(*b"ANMF", frame.len() as u32, &frame);
    let start = [webp_head(2, canvas), riff(*b"ANIM", 6, &[0; 6])].concat();
    riff_file(&[start, frame.repeat(frames)].concat())
}

/// A lossless picture, and a chunk of this size without data.
pub fn webp_extended(name: [u8; 4], flag: u8, size: u32) -> Vec<u8> {
    let chunk = riff(name, size, &[0; 8]);
    riff_file(&[webp_head(flag, (64, 64)), lossless_stream(), chunk].concat())
}

pub fn bmp(width: i32, height: i32, bits: u16, compression: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = b"BM\0\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0".to_vec();
    bytes.extend(width.to_le_bytes());
    bytes.extend(height.to_le_bytes());
    bytes.extend([1, 0]);
    bytes.extend(bits.to_le_bytes());
    bytes.extend(compression.to_le_bytes());
    bytes.extend([0; 20]);
    bytes.extend(data);
    bytes
}

/// Tags of a gray TIFF without data: tag, type, count, value.
pub fn strips(width: u32, height: u32) -> Vec<(u16, u16, u32, u32)> {
    let (short, long) = (3, 4);
    vec![
        (256, long, 1, width),
        (257, long, 1, height),
        (258, short, 1, 8),
        (259, short, 1, 1),
        (262, short, 1, 1),
        (273, long, 1, 8),
        (277, short, 1, 1),
        (278, long, 1, height),
        (279, long, 1, width.wrapping_mul(height)),
    ]
}

pub fn tiff(entries: &[(u16, u16, u32, u32)]) -> Vec<u8> {
    let mut bytes = b"II*\0\x08\0\0\0".to_vec();
    bytes.extend((entries.len() as u16).to_le_bytes());
    for (tag, kind, count, value) in entries {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(kind.to_le_bytes());
        bytes.extend(count.to_le_bytes());
        bytes.extend(value.to_le_bytes());
    }
    bytes.extend([0; 4]);
    bytes
}

/// A gray JPEG of this process whose scans, of one DC number and then of refinements, are empty.
pub fn jpeg(process: u8, width: u16, height: u16, scans: usize) -> Vec<u8> {
    let mut bytes = vec![0xff, 0xd8, 0xff, 0xdb, 0, 67, 0];
    bytes.extend([1; 64]);
    bytes.extend([0xff, process, 0, 11, 8]);
    bytes.extend(height.to_be_bytes());
    bytes.extend(width.to_be_bytes());
    bytes.extend([1, 1, 0x11, 0]);
    for class in [0, 0x10] {
        bytes.extend([0xff, 0xc4, 0, 20, class, 1]);
        bytes.extend([0; 16]);
    }
    for scan in 0..scans {
        let bits = if scan == 0 { 1 } else { 0x10 };
        bytes.extend([0xff, 0xda, 0, 8, 1, 1, 0, 0, 0, bits, 0]);
    }
    bytes.extend([0xff, 0xd9]);
    bytes
}

/// A good picture of every format.
pub fn whole() -> Vec<(&'static str, Vec<u8>)> {
    let image = image::RgbImage::from_fn(300, 200, |x, y| {
        image::Rgb([(x * 7) as u8, (y * 5) as u8, (x * y) as u8])
    });
    let encoded = |format| {
        let mut bytes = Cursor::new(Vec::new());
        image
            .write_to(&mut bytes, format)
            .expect("memory takes every byte");
        bytes.into_inner()
    };
    vec![
        ("JPEG", encoded(ImageFormat::Jpeg)),
        ("PNG", encoded(ImageFormat::Png)),
        ("WebP", encoded(ImageFormat::WebP)),
        ("GIF", encoded(ImageFormat::Gif)),
        ("BMP", encoded(ImageFormat::Bmp)),
        ("TIFF", encoded(ImageFormat::Tiff)),
        ("animated WebP", webp_animation((64, 64), 3)),
        ("animated PNG", apng(3)),
    ]
}
