//! What hostile pictures may cost: each is refused, or decoded where Pillow decodes it, within 50
//! ms and 50 MB on an idle machine. `--nocapture` shows the figures.

#![allow(
    clippy::print_stdout,
    reason = "the figures are what some run this for"
)]

#[cfg(feature = "avif")]
mod avif;
mod files;

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    time::{Duration, Instant},
};

use encoders::{DecodeLimits, PictureError, decode};
use files::Zeros;

/// Memory beside the bytes of the file.
const MAX_BYTES: isize = 50 << 20;
/// 50 ms on an idle machine; tests share theirs, and are built without optimization.
const MAX_TIME: Duration = Duration::from_secs(1);

/// Counts what each thread has allocated.
struct Counting;

thread_local! {
    static NOW: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

fn count(bytes: isize) {
    let now = NOW.get() + bytes;
    NOW.set(now);
    PEAK.set(PEAK.get().max(now));
}

// SAFETY: everything is left to the system's allocator; counting allocates nothing.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(place, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Decodes within the bounds; the picture's sides, or why there are none.
fn cheaply(name: &str, bytes: &[u8]) -> Result<(u32, u32), String> {
    let before = NOW.get();
    PEAK.set(before);
    let start = Instant::now();
    let result = decode(bytes, &DecodeLimits::default());
    let (took, peak) = (start.elapsed(), PEAK.get() - before);
    let result = match result {
        Ok(picture) => Ok((picture.width(), picture.height())),
        Err(error @ PictureError::Undecodable { .. }) => {
            let source = std::error::Error::source(&error).expect("it says why");
            Err(format!("{error}: {source}"))
        }
        Err(error) => Err(error.to_string()),
    };
    println!(
        "{name}: {:.2} ms, {:.2} MB, {result:?}",
        took.as_secs_f64() * 1e3,
        peak as f64 / 1e6
    );
    assert!(peak <= MAX_BYTES, "{name} took {peak} bytes");
    assert!(took <= MAX_TIME, "{name} took {took:?}");
    result
}

fn refused(name: &str, bytes: &[u8], reason: &str) {
    let error = cheaply(name, bytes).expect_err(name);
    assert!(error.contains(reason), "{name}: {error}, expected {reason}");
}

fn decoded(name: &str, bytes: &[u8], sides: (u32, u32)) {
    assert_eq!(cheaply(name, bytes), Ok(sides), "{name}");
}

#[test]
fn a_picture_of_too_many_pixels_is_refused_by_its_head() {
    let mut large = files::png(50_000, 50_000, &[]);
    large.chunk(*b"IDAT", &Zeros::new(2_300_000_000).zlib());
    let large = large.end();
    assert!(large.len() > 1_500_000, "{}", large.len());
    let too_many = "the picture has 50000 x 50000 pixels, at most 100000000 in all are allowed";
    refused("PNG of 50,000 x 50,000", &large, too_many);
    refused(
        "BMP of 50,000 x 50,000",
        &files::bmp(50_000, 50_000, 24, 0, &[]),
        too_many,
    );
    refused(
        "TIFF of 50,000 x 50,000",
        &files::tiff(&files::strips(50_000, 50_000)),
        too_many,
    );
    let too_many = "at most 100000000 in all are allowed";
    refused(
        "GIF of 65,535 x 65,535",
        &files::gif(65_535, 65_535, 1),
        too_many,
    );
    refused(
        "JPEG of 65,535 x 65,535",
        &files::jpeg(0xc0, 65_535, 65_535, 1),
        too_many,
    );
    refused(
        "WebP of 16,384 x 16,384",
        &files::webp_of(*b"VP8L", b"\x2f\xff\xff\xff\x0f\0\0\0"),
        too_many,
    );
    let lossy = b"\x10\0\0\x9d\x01\x2a\xff\x3f\xff\x3f\0\0";
    refused(
        "lossy WebP of 16,383 x 16,383",
        &files::webp_of(*b"VP8 ", lossy),
        too_many,
    );
    let too_long = "a side may have at most 65535";
    refused(
        "WebP canvas of 16,777,216 x 16,777,216",
        &files::webp_animation((1 << 24, 1 << 24), 1),
        too_long,
    );
    refused(
        "TIFF of 1 x 4,294,967,295",
        &files::tiff(&files::strips(1, u32::MAX)),
        too_long,
    );
    refused(
        "BMP of 1 x -2,147,483,647",
        &files::bmp(1, -0x7fff_ffff, 24, 0, &[]),
        too_long,
    );
}

#[test]
fn a_head_that_promises_more_than_the_file_holds_costs_nothing() {
    for progressive in [0xc0, 0xc2] {
        let bytes = files::jpeg(progressive, 10_000, 10_000, 1);
        refused(
            "JPEG without data",
            &bytes,
            "too few for 10000 x 10000 pixels",
        );
    }
    let mut empty = files::png(10_000, 10_000, &[]);
    empty.chunk(*b"IDAT", &Zeros::new(1000).zlib());
    refused(
        "PNG without data",
        &empty.end(),
        "too few for 10000 x 10000 pixels",
    );
    let bytes = files::bmp(10_000, 10_000, 24, 0, &[0; 1000]);
    refused(
        "BMP without data",
        &bytes,
        "too few for 10000 x 10000 pixels",
    );
    let bytes = files::tiff(&files::strips(10_000, 10_000));
    refused(
        "TIFF without data",
        &bytes,
        "too few for 10000 x 10000 pixels",
    );
}

#[test]
fn ten_thousand_frames_cost_as_much_as_one() {
    decoded(
        "GIF of 10,000 frames",
        &files::gif(64, 64, 10_000),
        (64, 64),
    );
    decoded(
        "WebP of 10,000 frames",
        &files::webp_animation((64, 64), 10_000),
        (64, 64),
    );
    decoded("PNG of 10,000 frames", &files::apng(10_000), (64, 64));
}

#[test]
fn what_is_packed_into_png_stays_packed() {
    const BOMB: usize = 1 << 30;
    let row = Zeros::new(100 * 100 + 100).zlib();
    let bomb = Zeros::new(BOMB).zlib();
    let named = |head: &[u8]| [head, &bomb].concat();
    let huge = vec![b'a'; 40 << 20];
    let cases: [(&str, [u8; 4], Vec<u8>); 7] = [
        ("a profile", *b"iCCP", named(b"icc\0\0")),
        ("a text", *b"zTXt", named(b"key\0\0")),
        ("a text in UTF-8", *b"iTXt", named(b"key\0\x01\0\0\0")),
        ("40 MB of text", *b"tEXt", [b"key\0", &huge[..]].concat()),
        ("40 MB of EXIF", *b"eXIf", huge.clone()),
        ("40 MB of something", *b"juNk", huge.clone()),
        ("40 MB of suggested palette", *b"sPLT", huge.clone()),
    ];
    for (name, kind, data) in cases {
        let mut png = files::png(100, 100, &[]);
        png.chunk(kind, &data);
        png.chunk(*b"IDAT", &row);
        let result = cheaply(&format!("PNG with {name}"), &png.end());
        assert!(matches!(result, Ok((100, 100)) | Err(_)), "{result:?}");
    }
    let mut many = files::png(100, 100, &[]);
    for _ in 0..100_000 {
        many.chunk(*b"tEXt", b"key\0value");
    }
    many.chunk(*b"IDAT", &row);
    decoded("PNG with 100,000 texts", &many.end(), (100, 100));
    // More than the rows need is not looked at, as Pillow does not.
    let mut png = files::png(100, 100, &[]);
    png.chunk(*b"IDAT", &bomb);
    decoded("PNG with 1 GB for 10 kB of rows", &png.end(), (100, 100));
    let mut png = files::png(100, 100, &[]);
    for byte in &row {
        png.chunk(*b"IDAT", &[*byte]);
    }
    decoded("PNG of many small chunks", &png.end(), (100, 100));
}

#[test]
fn thousands_of_scans_are_refused() {
    let bytes = files::jpeg(0xc2, 800, 800, 5_000);
    refused(
        "JPEG of 5,000 scans",
        &bytes,
        "it has 5000 scans, at most 100 are allowed",
    );
    // Markers that are only skipped.
    let mut bytes = files::jpeg(0xc0, 64, 64, 1);
    let end = bytes.len() - 2;
    bytes.splice(end..end, [0xff, 0xd0].repeat(4 << 20));
    let _ = cheaply("JPEG of 4,194,304 restarts", &bytes);
    let mut bytes = files::jpeg(0xc0, 64, 64, 1);
    bytes.splice(2..2, [0xff, 0xe1, 0, 2].repeat(1 << 20));
    let _ = cheaply("JPEG of 1,048,576 empty segments", &bytes);
}

#[test]
fn sizes_inside_of_files_are_not_believed() {
    /// Tags of strips, and of the first thing that is said of tiles instead.
    const STRIPS: [u16; 3] = [273, 278, 279];
    const TILES: u16 = 322;
    for (name, kind, flag) in [
        ("EXIF", b"EXIF", 0x08),
        ("alpha", b"ALPH", 0x10),
        ("a profile", b"ICCP", 0x20),
    ] {
        let bytes = files::webp_extended(*kind, flag, u32::MAX - 1);
        let _ = cheaply(&format!("WebP with 4 GB of {name}"), &bytes);
    }
    let one = files::strips(16, 16);
    let with = |changes: &[(u16, u16, u32, u32)]| {
        let mut entries: Vec<_> = one.clone();
        if changes.iter().any(|change| change.0 == TILES) {
            entries.retain(|entry| !STRIPS.contains(&entry.0));
        }
        for change in changes {
            entries.retain(|entry| entry.0 != change.0);
            entries.push(*change);
        }
        entries.sort_unstable();
        files::tiff(&entries)
    };
    let (short, long) = (3, 4);
    for (name, bytes) in [
        (
            "4 G strips",
            with(&[(273, long, u32::MAX, 8), (279, long, u32::MAX, 8)]),
        ),
        ("4 G bits per sample", with(&[(258, short, u32::MAX, 8)])),
        (
            "65,535 samples",
            with(&[(277, short, 1, 65_535), (258, short, 65_535, 8)]),
        ),
        (
            "tiles of 2^31",
            with(&[
                (322, long, 1, 1 << 31),
                (323, long, 1, 1 << 31),
                (324, long, 1, 8),
                (325, long, 1, 4),
            ]),
        ),
        (
            "tiles of 10,000",
            with(&[
                (322, long, 1, 10_000),
                (323, long, 1, 10_000),
                (324, long, 1, 8),
                (325, long, 1, 4),
            ]),
        ),
        (
            "tiles of 0",
            with(&[
                (322, long, 1, 0),
                (323, long, 1, 0),
                (324, long, 1, 8),
                (325, long, 1, 4),
            ]),
        ),
        ("a strip of 4 GB", with(&[(279, long, 1, u32::MAX)])),
        ("strips of 4 G rows", with(&[(278, long, 1, u32::MAX)])),
        (
            "a packed strip of 4 GB",
            with(&[(259, short, 1, 8), (279, long, 1, u32::MAX)]),
        ),
        ("a profile of 4 GB", with(&[(34_675, 7, u32::MAX, 8)])),
        ("no columns", with(&[(256, short, 1, 0)])),
    ] {
        let _ = cheaply(&format!("TIFF with {name}"), &bytes);
    }
    // The next directory is the same again.
    let mut bytes = files::tiff(&one);
    let next = 8 + 2 + 12 * one.len();
    bytes[next..next + 4].copy_from_slice(&8_u32.to_le_bytes());
    let _ = cheaply("TIFF in a circle", &bytes);
    for bits in [1, 4, 8, 16, 24, 32] {
        for compression in [0, 1, 2, 3, 6] {
            let _ = cheaply("BMP", &files::bmp(9_000, 9_000, bits, compression, &[0, 1]));
        }
    }
}

#[test]
fn a_cut_file_of_any_format_costs_little() {
    let whole = files::whole().into_iter();
    #[cfg(feature = "avif")]
    let whole = whole.chain([("AVIF", avif::read("alpha_10.avif"))]);
    for (name, bytes) in whole {
        let sides = cheaply(name, &bytes).expect(name);
        let step = (bytes.len() / 40).max(1);
        let cuts = (0..bytes.len().min(64)).chain((64..bytes.len()).step_by(step));
        for cut in cuts {
            if let Ok(of_cut) = cheaply(&format!("{name} cut to {cut}"), &bytes[..cut]) {
                assert_eq!(of_cut, sides, "{name} cut to {cut}");
            }
        }
    }
}
