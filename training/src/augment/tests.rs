use encoders::{Filter, Normalization, Picture, PreprocessConfig};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::*;

#[test]
fn without_variation_a_picture_is_itself_on_white() {
    let (red, clear) = ([255, 0, 0, 255], [9, 9, 9, 0]);
    let rgba = [red, clear, clear, red].concat();
    let picture = RgbaPicture::new(2, 2, rgba).expect("sizes fit");
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let pixels = augment(&picture, 2, false, &AugmentConfig::STILL, &mut random);
    let expected = [
        [1.0, 1.0, 1.0, 1.0],
        [-1.0, 1.0, 1.0, -1.0],
        [-1.0, 1.0, 1.0, -1.0],
    ]
    .concat();
    for (a, b) in pixels.iter().zip(expected) {
        assert!((a - b).abs() < 1e-5, "{pixels:?}");
    }
}

/// Wide pictures once kept their shape in training and were squashed when served.
#[test]
fn a_wide_picture_is_squashed_as_it_is_when_served() {
    let rgb: Vec<u8> = (0..4 * 2 * 3).map(|i| (i * 53 % 256) as u8).collect();
    let rgba = rgb.as_chunks::<3>().0.iter();
    let rgba = rgba.flat_map(|&[r, g, b]| [r, g, b, 255]).collect();
    let picture = RgbaPicture::new(4, 2, rgba).expect("sizes fit");
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let side = 8;
    let trained = augment(&picture, side, false, &AugmentConfig::STILL, &mut random);
    let served = PreprocessConfig::squash(
        std::num::NonZeroU32::new(8).expect("not 0"),
        Filter::Bilinear,
        Normalization::HALF,
    );
    let served = served.prepare(&Picture::new(4, 2, rgb).expect("sizes fit"));
    let served = served.as_slice();
    for (i, (a, b)) in trained.iter().zip(served).enumerate() {
        // At its rim a picture in training blends with the ground.
        let (x, y) = (i % side, i / side % side);
        if (1..7).contains(&x) && (2..6).contains(&y) {
            assert!((a - b).abs() < 1.0 / 127.0, "{x}, {y}: {a} against {b}");
        }
    }
}

#[test]
fn every_variation_stays_in_range_and_equal_seeds_give_equal_pixels() {
    let rgba = (0..72 * 72 * 4).map(|i| (i * 7 % 256) as u8).collect();
    let picture = RgbaPicture::new(72, 72, rgba).expect("sizes fit");
    let wild = AugmentConfig {
        rotation: 45.0,
        scale: [0.5, 1.5],
        shift: 0.3,
        white_share: 0.5,
        color: 0.8,
        gray_share: 0.2,
        erase_share: 0.5,
        mirror_share: 0.5,
        crop: None,
        blur_share: 0.0,
    };
    let wilder = AugmentConfig {
        crop: Some([0.1, 1.0]),
        blur_share: 0.9,
        ..wild.clone()
    };
    for seed in 0..50 {
        let config = if seed % 2 == 0 { &wild } else { &wilder };
        let draw = || {
            let mut random = ChaCha8Rng::seed_from_u64(seed);
            augment(&picture, 64, true, config, &mut random)
        };
        let pixels = draw();
        assert!(
            pixels.iter().all(|x| (-1.0..=1.0).contains(x)),
            "seed {seed}"
        );
        assert_eq!(pixels, draw(), "seed {seed}");
    }
}

/// A ramp whose red says the column and whose green says the row.
fn ramp(side: u32) -> RgbaPicture {
    let level = |at: u32| (at * 255 / (side - 1)) as u8;
    let rgba = (0..side * side).flat_map(|i| [level(i % side), level(i / side), 0, 255]);
    RgbaPicture::new(side, side, rgba.collect()).expect("sizes fit")
}

#[test]
fn a_crop_shows_a_part_of_the_asked_area_and_never_the_ground() {
    let (picture, side) = (ramp(64), 32);
    let config = AugmentConfig {
        crop: Some([0.25, 0.25]),
        ..AugmentConfig::STILL
    };
    let mut corners = Vec::new();
    for seed in 0..40 {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let pixels = augment(&picture, side, false, &config, &mut random);
        let at = |plane: usize, x: usize, y: usize| pixels[(plane * side + y) * side + x];
        let last = side - 1;
        let width = (at(0, last, 0) - at(0, 0, 0)) / 2.0;
        let height = (at(1, 0, last) - at(1, 0, 0)) / 2.0;
        // From center to center of the outermost pixels: a 32nd less than the whole.
        let area = width * height * (32.0_f32 / 31.0).powi(2);
        assert!((area - 0.25).abs() < 0.02, "seed {seed}: {area}");
        let shape = width / height;
        assert!((0.72..1.38).contains(&shape), "seed {seed}: {shape}");
        // Blue is 0 in all of the picture, and the ground is white.
        let blue = &pixels[2 * side * side..];
        assert!(blue.iter().all(|b| *b < -0.999), "seed {seed}");
        corners.push(at(0, 0, 0));
    }
    let spread = corners
        .iter()
        .fold(0.0_f32, |most, x| most.max(*x - corners[0]));
    assert!(spread > 0.2, "crops lie anywhere: {spread}");
}

#[test]
fn a_blur_keeps_the_sum_and_spreads_a_point_as_a_normal_distribution() {
    let side = 21;
    let mut pixels = vec![0.0; 3 * side * side];
    let middle = 10 * side + 10;
    pixels[middle] = 1.0;
    blur(&mut pixels, side, 1.5);
    let sum: f32 = pixels.iter().sum();
    assert!((sum - 1.0).abs() < 1e-5, "{sum}");
    let ratio = pixels[middle + 2] / pixels[middle];
    assert!((ratio - (-0.5_f32 * (2.0 / 1.5_f32).powi(2)).exp()).abs() < 1e-4);
    assert!((pixels[middle + 2 * side] - pixels[middle + 2]).abs() < 1e-7);
    let mut flat = vec![0.5; 3 * side * side];
    blur(&mut flat, side, 0.6);
    assert!(
        flat.iter().all(|x| (x - 0.5).abs() < 1e-6),
        "rims are repeated"
    );
}

/// A picture of 30 by 20 pixels; red grows to the right, green downward.
fn photo() -> Picture {
    let rgb = (0..20).flat_map(|y| (0..30).flat_map(move |x| [8 * x, 12 * y, 0]));
    Picture::new(30, 20, rgb.collect()).expect("sizes fit")
}

fn squash() -> PreprocessConfig {
    let side = std::num::NonZeroU32::new(8).expect("not 0");
    PreprocessConfig::shortest_edge(side, Filter::Bilinear, Normalization::HALF)
}

#[test]
fn a_photograph_without_variation_is_what_is_served() {
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let still = photograph(
        &photo(),
        &squash(),
        true,
        &AugmentConfig::STILL,
        &mut random,
    );
    assert_eq!(still, squash().prepare(&photo()).as_slice());
    let mirrored = AugmentConfig {
        mirror_share: 1.0,
        ..AugmentConfig::STILL
    };
    let turned = photograph(&photo(), &squash(), true, &mirrored, &mut random);
    for (a, b) in turned.chunks(8).zip(still.chunks(8)) {
        assert!(a.iter().eq(b.iter().rev()));
    }
    let kept = photograph(&photo(), &squash(), false, &mirrored, &mut random);
    assert_eq!(kept, still, "a caption says a direction");
}

#[test]
fn a_random_part_has_its_share_of_the_area_and_lies_anywhere() {
    let mut corners = std::collections::HashSet::new();
    for seed in 0..200 {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let part = random_part(&photo(), [0.2, 0.4], &mut random);
        let (w, h) = (part.width() as f32, part.height() as f32);
        let share = w * h / 600.0;
        assert!((0.17..0.44).contains(&share), "seed {seed}: {share}");
        assert!((0.65..1.5).contains(&(w / h)), "seed {seed}: {w} by {h}");
        let rgb = part.as_rgb();
        corners.insert((rgb[0], rgb[1]));
        // One pixel to the right and one down, as in the picture.
        assert_eq!((rgb[3], rgb[1]), (rgb[0] + 8, rgb[4]), "seed {seed}");
        let below = &rgb[3 * part.width() as usize..];
        assert_eq!((below[0], below[1]), (rgb[0], rgb[1] + 12), "seed {seed}");
    }
    assert!(corners.len() > 50, "{} corners", corners.len());
    // Nothing of this shape fits into a thread.
    let thread = Picture::new(40, 1, vec![7; 120]).expect("sizes fit");
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let part = random_part(&thread, [0.9, 1.0], &mut random);
    assert_eq!((part.width(), part.height()), (1, 1));
}
