//! AVIF files of many kinds decode as Pillow decodes them; `tests/reference/avif.py` made them, and
//! wrote down what Pillow says.

#![cfg(feature = "avif")]

use std::{error::Error, fs, path::PathBuf};

use encoders::{DecodeLimits, PictureError, decode, decode_rgba};
use safetensors::SafeTensors;

/// Levels of 255 that a sample may be off. Pillow's processor may have other instructions than those
/// that the integers are from.
const TOLERANCE: u8 = 1;

fn read(name: &str) -> Vec<u8> {
    let data = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/reference/data/avif");
    fs::read(data.join(name)).expect("it is committed")
}

fn cause(bytes: &[u8]) -> String {
    let error = decode(bytes, &DecodeLimits::default()).expect_err("it is refused");
    let cause = error.source().expect("it says why");
    format!("{error}: {cause}")
}

/// The place of the first `wanted` in `bytes`.
fn find(bytes: &[u8], wanted: &[u8]) -> usize {
    let found = bytes.windows(wanted.len()).position(|part| part == wanted);
    found.expect("it is there")
}

#[test]
fn every_sample_is_close_to_that_of_pillow() {
    let file = read("decoded.safetensors");
    let decoded = SafeTensors::deserialize(&file).expect("it is safetensors");
    assert!(decoded.len() > 50, "the reference has lost its cases");
    for (name, theirs) in decoded.iter() {
        let bytes = read(&format!("{name}.avif"));
        let rgb = decode(&bytes, &DecodeLimits::default()).expect(name);
        let rgba = decode_rgba(&bytes, &DecodeLimits::default()).expect(name);
        let [height, width, channels] = *theirs.shape() else {
            panic!("{name}: {:?}", theirs.shape());
        };
        assert_eq!((rgb.height(), rgb.width()), (height as u32, width as u32));
        let mut worst = 0;
        let ours = rgba.as_rgba().as_chunks::<4>().0;
        assert_eq!(ours.len(), height * width, "{name}");
        for (ours, theirs) in ours.iter().zip(theirs.data().chunks_exact(channels)) {
            for (a, b) in ours.iter().zip(theirs) {
                worst = worst.max(a.abs_diff(*b));
            }
            assert!(channels == 4 || ours[3] == 255, "{name} is opaque");
        }
        assert!(worst <= TOLERANCE, "{name}: a sample is {worst} levels off");
        let without_alpha = ours.iter().flat_map(|pixel| &pixel[..3]);
        assert!(without_alpha.eq(rgb.as_rgb()), "{name}: alpha is dropped");
    }
}

#[test]
fn a_grid_is_refused_and_named() {
    let error = cause(&read("grid"));
    assert!(error.contains("of the kind grid"), "{error}");
}

#[test]
fn the_budget_is_checked_before_pixels_are_decoded() {
    let mut bytes = read("420_8_full.avif");
    let limits = DecodeLimits {
        max_pixels: 45 * 31 - 1,
        ..DecodeLimits::default()
    };
    // Without the AV1 stream only the boxes can have been looked at.
    let stream = find(&bytes, b"mdat") + 4;
    bytes[stream..].fill(0);
    let error = decode(&bytes, &limits).expect_err("over the budget");
    let expected = "the picture has 45 x 31 pixels, at most 1394 in all are allowed";
    assert_eq!(error.to_string(), expected);
    let limits = DecodeLimits {
        max_side: 44,
        ..DecodeLimits::default()
    };
    let error = decode(&bytes, &limits).expect_err("over the budget");
    assert!(
        matches!(error, PictureError::TooLong { width: 45, .. }),
        "{error}"
    );
}

#[test]
fn a_stream_of_other_sides_than_the_file_says_is_refused() {
    let good = read("420_8_full.avif");
    let sides = find(&good, b"ispe") + 8;
    for (width, height, expected) in [
        (45, 30, "AV1"),
        (1, 1, "AV1"),
        (46, 31, "holds 45 x 31 pixels, the file says 46 x 31"),
        (31, 45, "holds 45 x 31 pixels, the file says 31 x 45"),
        (0, 31, "the ispe is missing"),
    ] {
        let mut bytes = good.clone();
        bytes[sides..sides + 4].copy_from_slice(&u32::to_be_bytes(width));
        bytes[sides + 4..sides + 8].copy_from_slice(&u32::to_be_bytes(height));
        let error = cause(&bytes);
        assert!(error.contains(expected), "{width} x {height}: {error}");
    }
}

#[test]
fn an_essential_property_that_is_not_known_is_an_error_that_names_it() {
    let mut bytes = read("irot_1_imir_0.avif");
    let name = find(&bytes, b"irot");
    bytes[name..name + 4].copy_from_slice(b"what");
    let error = cause(&bytes);
    assert!(error.contains("its property what"), "{error}");
}

#[test]
fn a_file_that_ends_early_is_broken() {
    for name in ["420_8_full.avif", "alpha_10.avif"] {
        let bytes = read(name);
        for length in 0..bytes.len() {
            let result = decode(&bytes[..length], &DecodeLimits::default());
            assert!(result.is_err(), "{name} cut to {length}");
        }
    }
}

/// The decoder of AV1 ends the process where it panics, so this shows that it does not.
#[test]
fn damaged_bytes_give_an_error_or_a_picture_within_the_budget() {
    let limits = DecodeLimits {
        max_pixels: 4_000,
        ..DecodeLimits::default()
    };
    let mut state = 7_u64;
    let mut random = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize
    };
    for name in ["420_8_full", "444_12_limited", "alpha_10", "400_8_limited"] {
        let whole = read(&format!("{name}.avif"));
        let stream = find(&whole, b"mdat") + 4;
        for round in 0..300 {
            let mut bytes = whole.clone();
            let start = if round % 3 == 0 { 0 } else { stream };
            for _ in 0..=round % 4 {
                let at = start + random() % (bytes.len() - start);
                bytes[at] ^= 1 << (random() % 8);
            }
            if let Ok(picture) = decode(&bytes, &limits) {
                let pixels = u64::from(picture.width()) * u64::from(picture.height());
                assert!(pixels <= limits.max_pixels, "{name} round {round}");
            }
        }
    }
}
