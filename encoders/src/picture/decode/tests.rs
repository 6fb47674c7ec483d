//! Over 400 lines: the same budgets and refusals for every format.

use image::{ExtendedColorType, ImageEncoder, ImageFormat};

use super::*;

const LIMITS: DecodeLimits = DecodeLimits {
    max_bytes: 1 << 20,
    max_pixels: 10_000,
    max_side: 4_000,
};

/// A gradient of `width` x `height` in `format`.
fn encoded(format: ImageFormat, width: u32, height: u32) -> Vec<u8> {
    let image = image::RgbImage::from_fn(width, height, |x, y| {
        image::Rgb([(x * 7) as u8, (y * 5) as u8, (x + y) as u8])
    });
    let mut bytes = Cursor::new(Vec::new());
    image
        .write_to(&mut bytes, format)
        .expect("memory takes every byte");
    bytes.into_inner()
}

const FORMATS_READ: [ImageFormat; 6] = [
    ImageFormat::Jpeg,
    ImageFormat::Png,
    ImageFormat::WebP,
    ImageFormat::Gif,
    ImageFormat::Bmp,
    ImageFormat::Tiff,
];

#[test]
fn every_format_is_read() {
    for format in FORMATS_READ {
        let picture = decode(&encoded(format, 31, 17), &LIMITS).expect("it decodes");
        assert_eq!((picture.width(), picture.height()), (31, 17), "{format:?}");
        let pixel = &picture.as_rgb()[(16 * 31 + 30) * 3..];
        for (got, expected) in pixel.iter().zip([210_u8, 80, 46]) {
            assert!(got.abs_diff(expected) <= 40, "{format:?}: {pixel:?}");
        }
        let rgba = decode_rgba(&encoded(format, 31, 17), &LIMITS).expect("it decodes");
        assert!(
            rgba.as_rgba().chunks(4).all(|pixel| pixel[3] == 255),
            "{format:?}"
        );
    }
}

#[test]
fn the_budget_is_checked_before_pixels_are_decoded() {
    for format in FORMATS_READ {
        // Cut after the header: only the header can have been looked at. (A TIFF keeps its header
        // at the end.)
        let wide = encoded(format, 200, 51);
        let end = if matches!(format, ImageFormat::Tiff | ImageFormat::Jpeg) {
            wide.len()
        } else {
            wide.len() / 2
        };
        let error = decode(&wide[..end], &LIMITS).expect_err("200 x 51 is over the budget");
        assert_eq!(
            error.to_string(),
            "the picture has 200 x 51 pixels, at most 10000 in all are allowed",
            "{format:?}"
        );
        let limits = DecodeLimits {
            max_side: 199,
            ..LIMITS
        };
        let error = decode(&wide[..end], &limits).expect_err("200 is over the budget");
        assert!(
            matches!(error, PictureError::TooLong { width: 200, .. }),
            "{format:?}: {error}"
        );
        let limits = DecodeLimits {
            max_bytes: 10,
            ..LIMITS
        };
        let error = decode(&wide, &limits).expect_err("more than ten bytes");
        assert!(
            matches!(error, PictureError::TooManyBytes { max: 10, .. }),
            "{format:?}"
        );
    }
}

#[test]
fn a_webp_canvas_cannot_hide_a_larger_stream() {
    // An extended header of 1 x 1 before a lossless stream of 16384 x 16384.
    let mut bytes = b"RIFF\0\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0\0\0\0\0\0\0".to_vec();
    bytes.extend_from_slice(b"VP8L\x08\0\0\0\x2f\xff\xff\xff\x0f\0\0\0");
    let length = (bytes.len() - 8) as u32;
    bytes[4..8].copy_from_slice(&length.to_le_bytes());
    assert_eq!(webp::streams(&bytes), [(16_384, 16_384)]);
    let error = decode(&bytes, &LIMITS).expect_err("over the budget");
    assert!(
        matches!(error, PictureError::TooLong { width: 16_384, .. }),
        "{error}"
    );
}

/// A RIFF chunk, padded to an even size.
fn chunk(name: [u8; 4], data: &[u8]) -> Vec<u8> {
    let mut bytes = name.to_vec();
    bytes.extend_from_slice(&(data.len() as u32).to_le_bytes());
    bytes.extend_from_slice(data);
    bytes.resize(bytes.len().next_multiple_of(2), 0);
    bytes
}

/// An animation of 16 x 16 whose frames hold these chunks.
fn animation(frames: &[Vec<u8>]) -> Vec<u8> {
    let mut body = b"WEBP".to_vec();
    body.extend(chunk(*b"VP8X", &[2, 0, 0, 0, 15, 0, 0, 15, 0, 0]));
    body.extend(chunk(*b"ANIM", &[0; 6]));
    for chunks in frames {
        let mut frame = vec![0, 0, 0, 0, 0, 0, 15, 0, 0, 15, 0, 0, 100, 0, 0, 0];
        frame.extend(chunks);
        body.extend(chunk(*b"ANMF", &frame));
    }
    chunk(*b"RIFF", &body)
}

/// The head of a lossy stream of 16383 x 16383.
fn large_lossy() -> Vec<u8> {
    chunk(*b"VP8 ", b"\x10\0\0\x9d\x01\x2a\xff\x3f\xff\x3f\0\0")
}

/// An uncompressed alpha channel for a frame of 16 x 16.
fn alpha() -> Vec<u8> {
    chunk(*b"ALPH", &[0; 257])
}

/// The decoder compares the sides of a frame's stream with those of the frame only after it has
/// decoded the stream: 800 MB for a file of a hundred bytes.
#[test]
fn a_frame_of_an_animation_cannot_hide_a_larger_stream() {
    let lossless = chunk(*b"VP8L", b"\x2f\xff\xff\xff\x0f\0\0\0");
    for frames in [
        vec![large_lossy()],
        vec![[alpha(), large_lossy()].concat()],
        vec![alpha(), large_lossy()],
        vec![lossless],
    ] {
        let error = decode(&animation(&frames), &LIMITS).expect_err("over the budget");
        assert!(
            matches!(
                error,
                PictureError::TooLong {
                    width: 16_383..,
                    ..
                }
            ),
            "{error}"
        );
    }
    // Behind the frames the walk goes on.
    let mut bytes = animation(&[alpha()]);
    bytes.extend(large_lossy());
    assert_eq!(webp::streams(&bytes), [(16_383, 16_383)]);
}

/// Pillow 13 gives these samples for such a file, whatever the frame says of blending and the file
/// of its background.
#[test]
fn the_first_frame_of_an_animated_webp_lies_on_transparent_black() {
    let frame = [
        [10, 20, 30, 255],
        [200, 100, 50, 0],
        [1, 2, 3, 128],
        [250, 251, 252, 1],
    ];
    let mut still = Vec::new();
    image::codecs::webp::WebPEncoder::new_lossless(&mut still)
        .encode(frame.as_flattened(), 2, 2, ExtendedColorType::Rgba8)
        .expect("memory takes every byte");
    for (flags, blending) in [(0x12, 0), (0x12, 2), (2, 0), (2, 2)] {
        let mut body = b"WEBP".to_vec();
        body.extend(chunk(*b"VP8X", &[flags, 0, 0, 0, 5, 0, 0, 4, 0, 0]));
        body.extend(chunk(*b"ANIM", &[0x11, 0x22, 0x33, 0xff, 0, 0]));
        let mut data = vec![1, 0, 0, 1, 0, 0, 1, 0, 0, 1, 0, 0, 100, 0, 0, blending];
        data.extend(&still[12..]);
        body.extend(chunk(*b"ANMF", &data));
        // A second frame, which nobody asked for, and which is broken.
        body.extend(chunk(*b"ANMF", &[0; 30]));
        let bytes = chunk(*b"RIFF", &body);
        let mut expected = [[0, 0, 0, if flags & 0x10 == 0 { 255 } else { 0 }]; 30];
        for (place, pixel) in [14, 15, 20, 21].into_iter().zip(frame) {
            expected[place][..3].copy_from_slice(&pixel[..3]);
            if flags & 0x10 != 0 {
                expected[place][3] = pixel[3];
            }
        }
        let rgba = decode_rgba(&bytes, &LIMITS).expect("it decodes");
        assert_eq!((rgba.width(), rgba.height()), (6, 5));
        assert_eq!(
            rgba.as_rgba(),
            expected.as_flattened(),
            "{flags:#x} {blending}"
        );
        let rgb: Vec<u8> = expected
            .iter()
            .flat_map(|pixel| &pixel[..3])
            .copied()
            .collect();
        assert_eq!(decode(&bytes, &LIMITS).expect("it decodes").as_rgb(), rgb);
    }
}

/// A TIFF of one strip, 16 x 16 pixels.
fn tiff(compression: u32, bits: u32, samples: u32, strip: &[u8]) -> Vec<u8> {
    const SHORT: u16 = 3;
    const LONG: u16 = 4;
    const FLOAT: u32 = 3;
    let photometric = if samples == 1 { 1 } else { 2 };
    let format = if bits == 32 { FLOAT } else { 1 };
    let mut entries = vec![
        (256_u16, SHORT, 16),
        (257, SHORT, 16),
        (258, SHORT, bits),
        (259, SHORT, compression),
        (262, SHORT, photometric),
        (273, LONG, 0),
        (277, SHORT, samples),
        (278, SHORT, 16),
        (279, LONG, strip.len() as u32),
        (339, SHORT, format),
    ];
    if samples == 4 {
        const UNASSOCIATED_ALPHA: u32 = 2;
        entries.insert(9, (338, SHORT, UNASSOCIATED_ALPHA));
    }
    let start = 8 + 2 + 12 * entries.len() + 4;
    let mut bytes = b"II*\0\x08\0\0\0".to_vec();
    bytes.extend_from_slice(&(entries.len() as u16).to_le_bytes());
    for (tag, kind, value) in entries {
        let value = if tag == 273 { start as u32 } else { value };
        bytes.extend_from_slice(&tag.to_le_bytes());
        bytes.extend_from_slice(&kind.to_le_bytes());
        bytes.extend_from_slice(&1_u32.to_le_bytes());
        bytes.extend_from_slice(&value.to_le_bytes());
    }
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(strip);
    bytes
}

fn cause(error: &PictureError) -> String {
    let source = std::error::Error::source(error).expect("it says why");
    source.to_string()
}

/// Strips are handed to a JPEG decoder that no budget reaches: it decodes whatever sides the strip
/// says, 16 x 16 pixels or a gigabyte.
#[test]
fn a_tiff_cannot_hide_a_larger_jpeg() {
    let mut strip = Cursor::new(Vec::new());
    image::GrayImage::new(200, 200)
        .write_to(&mut strip, ImageFormat::Jpeg)
        .expect("memory takes every byte");
    let strip = strip.into_inner();
    for compression in [6, 7] {
        let error = decode(&tiff(compression, 8, 1, &strip), &LIMITS).expect_err("JPEG inside");
        assert_eq!(error.to_string(), "the TIFF data cannot be decoded");
        assert_eq!(cause(&error), "JPEG compression inside TIFF is not read");
    }
    let plain = decode(&tiff(1, 8, 1, &[77; 256]), &LIMITS).expect("it decodes");
    assert_eq!(plain.as_rgb(), [77; 3 * 256]);
}

#[test]
fn a_floating_point_picture_is_refused_before_its_pixels() {
    for samples in [3, 4] {
        let strip = vec![0; 16 * 16 * 4 * samples as usize];
        let error = decode(&tiff(1, 32, samples, &strip), &LIMITS).expect_err("floats");
        assert_eq!(cause(&error), "its kind of color is not supported");
    }
}

/// A GIF of 5 x 4 with a frame of 2 x 1 at (1, 2) that shows its palette's colors 1 and 2.
fn gif(transparent: Option<u8>, local: Option<&[u8]>, global: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = ::gif::Encoder::new(&mut bytes, 5, 4, global).expect("a small palette");
    let frame = ::gif::Frame {
        top: 2,
        left: 1,
        width: 2,
        height: 1,
        transparent,
        palette: local.map(<[u8]>::to_vec),
        buffer: vec![1, 2].into(),
        ..::gif::Frame::default()
    };
    encoder
        .write_frame(&frame)
        .expect("memory takes every byte");
    drop(encoder);
    bytes
}

/// Pillow 13 gives these colors for such files.
#[test]
fn around_the_first_frame_of_a_gif_is_a_color_of_its_palette() {
    let global = [10, 11, 12, 20, 21, 22, 30, 31, 32, 40, 41, 42];
    let local = [50, 51, 52, 60, 61, 62, 70, 71, 72, 80, 81, 82];
    for (transparent, palette, outside) in [
        (None, None, [10, 11, 12]),
        (None, Some(&local[..]), [50, 51, 52]),
        (Some(2), None, [30, 31, 32]),
        (Some(3), Some(&local[..]), [80, 81, 82]),
    ] {
        let bytes = gif(transparent, palette, &global);
        let colors = palette.unwrap_or(&global);
        let mut expected = [outside; 20];
        expected[11].copy_from_slice(&colors[3..6]);
        expected[12].copy_from_slice(&colors[6..9]);
        let picture = decode(&bytes, &LIMITS).expect("it decodes");
        assert_eq!(picture.as_rgb(), expected.as_flattened(), "{transparent:?}");
        let alpha = if transparent.is_some() { 0 } else { 255 };
        let rgba = decode_rgba(&bytes, &LIMITS).expect("it decodes");
        assert_eq!(rgba.as_rgba()[..3], outside);
        assert_eq!(rgba.as_rgba()[3], alpha);
    }
}

#[test]
fn a_jpeg_that_ends_early_is_broken() {
    let bytes = encoded(ImageFormat::Jpeg, 31, 17);
    for cut in 1..40 {
        let error = decode(&bytes[..bytes.len() - cut], &LIMITS).expect_err("it is cut");
        assert_eq!(error.to_string(), "the JPEG data cannot be decoded");
    }
}

#[test]
fn what_is_no_picture_is_told_what_is_read() {
    for bytes in [&b""[..], b"hello", b"<svg/>", &[0; 64], b"%PDF-1.7"] {
        let error = decode(bytes, &LIMITS).expect_err("not a picture");
        let expected = format!("not a picture in a supported format: expected {FORMATS}");
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn avif_is_recognized_by_its_brands_and_refused_with_what_to_do() {
    for bytes in [
        b"\0\0\0\x18ftypavif\0\0\0\0mif1avif",
        b"\0\0\0\x18ftypavis\0\0\0\0avifmif1",
        b"\0\0\0\x18ftypmif1\0\0\0\0mif1avif",
    ] {
        let error = decode(bytes, &LIMITS).expect_err("it holds no picture");
        assert_eq!(error.to_string(), "the AVIF data cannot be decoded");
        let expected = if cfg!(feature = "avif") {
            "the meta is missing"
        } else {
            "AVIF is not part of this build: build with `--features avif`, or convert the picture \
             to JPEG, PNG or WebP"
        };
        assert_eq!(cause(&error), expected);
    }
    let heic = b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic";
    let error = decode(heic, &LIMITS).expect_err("it is HEIC");
    assert!(
        matches!(error, PictureError::UnknownFormat { .. }),
        "{error}"
    );
}

/// A decoder that panics is caught, so what is seen here is that damage costs an error or a picture
/// within the budget, not more.
#[test]
fn damaged_bytes_give_an_error_or_a_picture_within_the_budget() {
    let limits = DecodeLimits {
        max_pixels: 4_000,
        ..LIMITS
    };
    let mut state = 7_u64;
    let mut random = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize
    };
    let whole = FORMATS_READ.map(|format| encoded(format, 33, 19));
    // What hides a larger picture, too: damage must not open a way around the checks.
    let hiding = [
        animation(&[large_lossy()]),
        animation(&[[alpha(), large_lossy()].concat()]),
        tiff(7, 8, 1, &encoded(ImageFormat::Jpeg, 200, 200)),
        tiff(1, 32, 3, &[0; 16 * 16 * 12]),
    ];
    for (number, whole) in whole.into_iter().chain(hiding).enumerate() {
        let step = (whole.len() / 150).max(1);
        for length in (0..whole.len()).step_by(step) {
            let _ = decode(&whole[..length], &limits);
        }
        for round in 0..300 {
            let mut bytes = whole.clone();
            // Headers decide the most, so half of the damage is there.
            let reach = if round % 2 == 0 {
                bytes.len().min(64)
            } else {
                bytes.len()
            };
            for _ in 0..=round % 4 {
                let at = random() % reach;
                bytes[at] ^= 1 << (random() % 8);
            }
            if let Ok(picture) = decode(&bytes, &limits) {
                let pixels = u64::from(picture.width()) * u64::from(picture.height());
                assert!(pixels <= limits.max_pixels, "file {number} round {round}");
            }
        }
    }
}

/// Orientation 6 says: turn by a quarter clockwise to look at it.
#[test]
fn pictures_are_turned_upright() {
    let exif = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0".to_vec();
    let png = |samples: &[u8], color| {
        let mut bytes = Vec::new();
        let mut encoder = image::codecs::png::PngEncoder::new(&mut bytes);
        let exif = exif.clone();
        encoder.set_exif_metadata(exif).expect("PNG holds EXIF");
        encoder
            .write_image(samples, 3, 2, color)
            .expect("memory takes every byte");
        bytes
    };
    let bytes = png(&[10, 20, 30, 40, 50, 60], ExtendedColorType::L8);
    let picture = decode(&bytes, &LIMITS).expect("it decodes");
    assert_eq!((picture.width(), picture.height()), (2, 3));
    let gray: Vec<u8> = picture.as_rgb().iter().step_by(3).copied().collect();
    assert_eq!(gray, [40, 10, 50, 20, 60, 30]);
    let rgba = decode_rgba(&bytes, &LIMITS).expect("it decodes");
    assert_eq!((rgba.width(), rgba.height()), (2, 3));

    // What is transparent turns with it, and shows white.
    let clear = [10, 0, 20, 255, 30, 255, 40, 255, 50, 255, 60, 0];
    let clear = decode(&png(&clear, ExtendedColorType::La8), &LIMITS).expect("it decodes");
    assert_eq!(clear.as_rgb(), picture.as_rgb());
    let shown = clear.on_white();
    let gray: Vec<u8> = shown.as_rgb().iter().step_by(3).copied().collect();
    assert_eq!(gray, [40, 255, 50, 20, 255, 30]);
}
