//! Variation of drawings: position, ground, color. And of photographs: which part is seen.

use encoders::{Picture, PreprocessConfig, RgbaPicture};
use rand::{Rng, RngExt as _};

use crate::config::AugmentConfig;

/// Draws one variation of `picture` as pixels `[3, side, side]` in `[-1, 1]`.
pub fn augment(
    picture: &RgbaPicture,
    side: usize,
    may_mirror: bool,
    config: &AugmentConfig,
    random: &mut impl Rng,
) -> Vec<f32> {
    let frame = Frame::draw(side, may_mirror, config, random);
    let ground = draw_ground(config, random);
    let color = Color::draw(config, random);
    let plane = side * side;
    let mut pixels = vec![0.0; 3 * plane];
    for y in 0..side {
        for x in 0..side {
            let [r, g, b, alpha] = sample(picture, frame.source(x, y, picture));
            // Samples are premultiplied by alpha.
            let rgb = [r, g, b];
            let rgb = std::array::from_fn(|i| rgb[i] + (1.0 - alpha) * ground[i]);
            for (i, value) in color.apply(rgb).into_iter().enumerate() {
                pixels[i * plane + y * side + x] = value.clamp(0.0, 1.0) * 2.0 - 1.0;
            }
        }
    }
    if random.random_bool(f64::from(config.erase_share)) {
        erase(&mut pixels, side, random);
    }
    pixels
}

/// Draws one variation of a photograph as `preprocess` shows it, `[3, height, width]`: a random part of it
/// where the configuration says so (Szegedy et al. 2015), mirrored or not. Without either it is what is
/// served.
pub fn photograph(
    picture: &Picture,
    preprocess: &PreprocessConfig,
    may_mirror: bool,
    config: &AugmentConfig,
    random: &mut impl Rng,
) -> Vec<f32> {
    let pixels = match config.crop.zip(preprocess.squashing()) {
        Some((areas, squashing)) => squashing.prepare(&random_part(picture, areas, random)),
        None => preprocess.prepare(picture),
    };
    let mut values = pixels.as_slice().to_vec();
    if may_mirror && random.random_bool(f64::from(config.mirror_share)) {
        values
            .chunks_exact_mut(pixels.width())
            .for_each(<[f32]>::reverse);
    }
    values
}

/// A part whose share of the area is between `areas` and whose width is 3/4 to 4/3 of its height; the
/// largest one in the middle where ten draws do not fit.
fn random_part(picture: &Picture, areas: [f32; 2], random: &mut impl Rng) -> Picture {
    const TRIES: usize = 10;
    const MOST: f32 = 4.0 / 3.0;
    let (width, height) = (picture.width() as f32, picture.height() as f32);
    let side = |length: f32, most: f32| length.round().clamp(1.0, most) as u32;
    for _ in 0..TRIES {
        let area = width * height * random.random_range(areas[0]..=areas[1]);
        let ratio = random.random_range(-1.0_f32..=1.0) * MOST.ln();
        let (w, h) = ((area * ratio.exp()).sqrt(), (area / ratio.exp()).sqrt());
        if w <= width && h <= height {
            let (w, h) = (side(w, width), side(h, height));
            let left = random.random_range(0..=picture.width() - w);
            let top = random.random_range(0..=picture.height() - h);
            return cut(picture, [left, top], [w, h]);
        }
    }
    let (w, h) = (
        side(width.min(height * MOST), width),
        side(height.min(width * MOST), height),
    );
    cut(
        picture,
        [(picture.width() - w) / 2, (picture.height() - h) / 2],
        [w, h],
    )
}

/// The part of a picture that begins at a corner and has these sides; it must lie inside.
fn cut(picture: &Picture, [left, top]: [u32; 2], [width, height]: [u32; 2]) -> Picture {
    let row = 3 * picture.width() as usize;
    let inner = 3 * left as usize..3 * (left + width) as usize;
    let rows = picture.as_rgb().chunks_exact(row).skip(top as usize);
    let rows = rows.take(height as usize);
    let rgb = rows.flat_map(|row| &row[inner.clone()]).copied().collect();
    // Without a part there is the whole.
    Picture::new(width, height, rgb).unwrap_or_else(|_| picture.clone())
}

/// A similarity from pixels of the frame to those of the picture, squashed to a square as when it is
/// served.
struct Frame {
    cosine: f32,
    sine: f32,
    scale: f32,
    shift: [f32; 2],
    mirrored: bool,
    side: f32,
}

impl Frame {
    fn draw(side: usize, may_mirror: bool, config: &AugmentConfig, random: &mut impl Rng) -> Self {
        let angle = config.rotation.to_radians() * random.random_range(-1.0_f32..=1.0);
        let shift = side as f32 * config.shift;
        Self {
            cosine: angle.cos(),
            sine: angle.sin(),
            scale: random.random_range(config.scale[0]..=config.scale[1]),
            shift: std::array::from_fn(|_| shift * random.random_range(-1.0_f32..=1.0)),
            mirrored: may_mirror && random.random_bool(f64::from(config.mirror_share)),
            side: side as f32,
        }
    }

    fn source(&self, x: usize, y: usize, picture: &RgbaPicture) -> [f32; 2] {
        let half = self.side / 2.0;
        let (dx, dy) = (
            x as f32 + 0.5 - half - self.shift[0],
            y as f32 + 0.5 - half - self.shift[1],
        );
        let (width, height) = (picture.width() as f32, picture.height() as f32);
        let frame = self.side * self.scale;
        let u = (self.cosine * dx + self.sine * dy) * (width / frame);
        let v = (self.cosine * dy - self.sine * dx) * (height / frame);
        let u = if self.mirrored { -u } else { u };
        [u + width / 2.0 - 0.5, v + height / 2.0 - 0.5]
    }
}

/// Bilinear sample in `[0, 1]`, premultiplied by alpha; transparent outside.
fn sample(picture: &RgbaPicture, [u, v]: [f32; 2]) -> [f32; 4] {
    let (width, height) = (picture.width() as isize, picture.height() as isize);
    let (left, top) = (u.floor(), v.floor());
    let (fu, fv) = (u - left, v - top);
    let mut sum = [0.0; 4];
    for (dy, wy) in [(0, 1.0 - fv), (1, fv)] {
        for (dx, wx) in [(0, 1.0 - fu), (1, fu)] {
            let (x, y) = (left as isize + dx, top as isize + dy);
            if x < 0 || y < 0 || x >= width || y >= height {
                continue;
            }
            let at = 4 * (y * width + x) as usize;
            let texel = &picture.as_rgba()[at..at + 4];
            let weight = wx * wy * f32::from(texel[3]) / 255.0;
            for i in 0..3 {
                sum[i] += weight * f32::from(texel[i]) / 255.0;
            }
            sum[3] += weight;
        }
    }
    sum
}

/// White, a gray, or a pale or strong color.
fn draw_ground(config: &AugmentConfig, random: &mut impl Rng) -> [f32; 3] {
    if random.random_bool(f64::from(config.white_share)) {
        return [1.0; 3];
    }
    let gray = random.random_range(0.3_f32..=1.0);
    let strength = random.random_range(0.0_f32..=0.5);
    std::array::from_fn(|_| gray * (1.0 - strength) + strength * random.random_range(0.0_f32..=1.0))
}

/// Brightness, contrast and saturation.
struct Color {
    brightness: f32,
    contrast: f32,
    saturation: f32,
    /// Factors of the three channels: a slight cast.
    cast: [f32; 3],
}

/// Weights of the channels in a gray value (ITU-R BT.601).
const LUMA: [f32; 3] = [0.299, 0.587, 0.114];

impl Color {
    fn draw(config: &AugmentConfig, random: &mut impl Rng) -> Self {
        let c = config.color;
        let mut factor = |spread: f32| 1.0 + spread * random.random_range(-1.0_f32..=1.0);
        let (brightness, contrast, saturation) = (factor(c), factor(c), factor(1.5 * c));
        let cast = std::array::from_fn(|_| factor(0.3 * c));
        let gray = random.random_bool(f64::from(config.gray_share));
        Self {
            brightness,
            contrast,
            saturation: if gray { 0.0 } else { saturation },
            cast,
        }
    }

    fn apply(&self, rgb: [f32; 3]) -> [f32; 3] {
        let luma: f32 = rgb.iter().zip(LUMA).map(|(x, w)| x * w).sum();
        std::array::from_fn(|i| {
            let x = luma + self.saturation * (rgb[i] - luma);
            let x = 0.5 + self.contrast * (x - 0.5);
            x * self.brightness * self.cast[i]
        })
    }
}

/// Hides a rectangle of up to a sixth of the area behind one gray.
fn erase(pixels: &mut [f32], side: usize, random: &mut impl Rng) {
    let mut extent = || (side as f32 * random.random_range(0.1_f32..=0.4)) as usize;
    let (width, height) = (extent(), extent());
    let (left, top) = (
        random.random_range(0..=side - width),
        random.random_range(0..=side - height),
    );
    let value = random.random_range(-1.0_f32..=1.0);
    for plane in pixels.chunks_exact_mut(side * side) {
        for row in plane.chunks_exact_mut(side).skip(top).take(height) {
            row[left..left + width].fill(value);
        }
    }
}

#[cfg(test)]
mod tests {
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

    /// A picture of 30 by 20 pixels; red grows to the right, green downward.
    fn ramp() -> Picture {
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
        let still = photograph(&ramp(), &squash(), true, &AugmentConfig::STILL, &mut random);
        assert_eq!(still, squash().prepare(&ramp()).as_slice());
        let mirrored = AugmentConfig {
            mirror_share: 1.0,
            ..AugmentConfig::STILL
        };
        let turned = photograph(&ramp(), &squash(), true, &mirrored, &mut random);
        for (a, b) in turned.chunks(8).zip(still.chunks(8)) {
            assert!(a.iter().eq(b.iter().rev()));
        }
        let kept = photograph(&ramp(), &squash(), false, &mirrored, &mut random);
        assert_eq!(kept, still, "a caption says a direction");
    }

    #[test]
    fn a_random_part_has_its_share_of_the_area_and_lies_anywhere() {
        let mut corners = std::collections::HashSet::new();
        for seed in 0..200 {
            let mut random = ChaCha8Rng::seed_from_u64(seed);
            let part = random_part(&ramp(), [0.2, 0.4], &mut random);
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
        };
        for seed in 0..50 {
            let draw = || {
                let mut random = ChaCha8Rng::seed_from_u64(seed);
                augment(&picture, 64, true, &wild, &mut random)
            };
            let pixels = draw();
            assert!(
                pixels.iter().all(|x| (-1.0..=1.0).contains(x)),
                "seed {seed}"
            );
            assert_eq!(pixels, draw(), "seed {seed}");
        }
    }
}
