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
    assert_eq!(webp_streams(&bytes), [(16_384, 16_384)]);
    let error = decode(&bytes, &LIMITS).expect_err("over the budget");
    assert!(
        matches!(error, PictureError::TooLong { width: 16_384, .. }),
        "{error}"
    );
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
        let expected =
            "not a picture in a supported format: expected JPEG, PNG, WebP, GIF, BMP or TIFF";
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn damaged_bytes_never_panic() {
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
    for format in FORMATS_READ {
        let whole = encoded(format, 33, 19);
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
                assert!(pixels <= limits.max_pixels, "{format:?} round {round}");
            }
        }
    }
}

/// Orientation 6 says: turn by a quarter clockwise to look at it.
#[test]
fn pictures_are_turned_upright() {
    let exif = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0".to_vec();
    let mut bytes = Vec::new();
    let mut encoder = image::codecs::png::PngEncoder::new(&mut bytes);
    encoder.set_exif_metadata(exif).expect("PNG holds EXIF");
    encoder
        .write_image(&[10, 20, 30, 40, 50, 60], 3, 2, ExtendedColorType::L8)
        .expect("memory takes every byte");
    let picture = decode(&bytes, &LIMITS).expect("it decodes");
    assert_eq!((picture.width(), picture.height()), (2, 3));
    let gray: Vec<u8> = picture.as_rgb().iter().step_by(3).copied().collect();
    assert_eq!(gray, [40, 10, 50, 20, 60, 30]);
    let rgba = decode_rgba(&bytes, &LIMITS).expect("it decodes");
    assert_eq!((rgba.width(), rgba.height()), (2, 3));
}
